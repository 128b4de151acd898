"""Two models compared: `alpacafarm compare A B`, on labels that are there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows.inspection import Json, StorePath, is_key, labels_kept

if TYPE_CHECKING:
    import polars as pl

NAMED = "Key of preferences, a file of labels, or FILE:MODEL of a file with several models."


TAIL = 20  # resamples beyond an end of the bootstrap interval, twice, for it to mean something


class Side(NamedTuple):
    """A model's labels against a reference, its name, and the US dollars behind them."""

    name: str
    rows: "pl.DataFrame"
    dollars: float


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    first: Annotated[str, typer.Argument(help=NAMED)],
    second: Annotated[str, typer.Argument(help=NAMED)],
    alpha: Annotated[float, typer.Option(help="Error rate.", min=0.0001, max=0.5)] = 0.05,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Which of two models is better on the prompts both were judged on, and how sure that is."""
    from flows.printing import show_json

    document = compared(first, second, alpha, store)
    show_json(document) if as_json else show(document)


def compared(first: str, second: str, alpha: float, store: str | None) -> dict[str, Any]:
    """The comparison as one document, in points; raises BadInput naming the table and the mend."""
    from alpacafarm_core.comparison import RESAMPLES, paired, points_per_dollar

    one, other = side(first, store), side(second, store)
    refuse_unlike(one, other)
    found = paired(one.rows, other.rows, alpha)
    extra = one.dollars - other.dollars
    names = ("difference", "standard_error", "p_value", "n")
    known = found.n > 1 and found.standard_error > 0
    return {
        "first": one.name,
        "second": other.name,
        "alpha": alpha,
        **{name: getattr(found, name) for name in names},
        # Without any spread the data say nothing of an error, and few resamples nothing of tails.
        "detectable": found.detectable if known else None,
        "interval": list(found.interval) if known else None,
        "bootstrap": list(found.bootstrap) if known and alpha * RESAMPLES >= TAIL else None,
        "verdict": _verdict(found.difference, found.p_value, alpha),
        "cost_usd": [one.dollars, other.dollars],
        "points_per_dollar": points_per_dollar(found.difference, extra),
        "same_judges": set(one.rows["annotator"]) == set(other.rows["annotator"]),
    }


def side(named: str, store: str | None) -> Side:
    """One model's labels, from the store or a file; raises BadInput unless it is one model."""
    from alpacafarm_core import files
    from alpacafarm_core.errors import BadInput

    if is_key(named):
        return _kept(named, store)
    whole = Path(named).exists() or ":" not in named
    path, model = (named, "") if whole else named.rsplit(":", 1)
    rows = files.read(Path(path), "preferences")
    models = rows["generator_2"].unique(maintain_order=True).to_list()
    if model and model not in models:
        raise BadInput(f"{path}: no model {model!r}, only {', '.join(models[:12])}")
    chosen = rows.filter(rows["generator_2"] == model) if model else rows
    return _one_model(Side(model or Path(path).stem, chosen, float(chosen["price"].sum())), path)


def _kept(key: str, place: str | None) -> Side:
    """Labels of the store; their dollars are those of all judgements they rest on."""
    from alpacafarm_core.lineage import ancestry

    store, found = labels_kept(key, place)
    dollars = sum(made.notes.get("usd", 0.0) for made in ancestry(store, found))
    return _one_model(Side(found.key, store.read(found), float(dollars)), found.folder)


def _one_model(given: Side, where: str) -> Side:
    """Name the side by its model; refuse several."""
    from alpacafarm_core.errors import BadInput

    models = given.rows["generator_2"].unique(maintain_order=True).to_list()
    if len(models) > 1:
        raise BadInput(
            f"{where} holds {len(models)} models ({', '.join(models[:4])}, ...); "
            "give FILE:MODEL, or preferences of one"
        )
    return given._replace(name=models[0]) if models and models[0] else given


def refuse_unlike(one: Side, other: Side) -> None:
    """Refuse sides judged against different references: their win rates are of different games."""
    from alpacafarm_core.errors import BadInput
    from alpacafarm_core.tally import PROMPT

    seen = [*PROMPT, "output_1"]
    both = one.rows.select(seen).join(other.rows.select(seen), on=PROMPT, suffix="_other")
    unlike = both.filter(both["output_1"] != both["output_1_other"]).height
    if unlike:
        raise BadInput(
            f"{one.name} and {other.name} were judged against different references on {unlike} of "
            f"{both.height} prompts; judge them against the same output_1"
        )


def _verdict(difference: float, p_value: float, alpha: float) -> str:
    if p_value > alpha:
        return "undecided"
    return "first" if difference > 0 else "second"


def show(document: dict[str, Any]) -> None:
    """The comparison in words."""
    one, other = document["first"], document["second"]
    said = {
        "first": f"{one} is better than {other}",
        "second": f"{other} is better than {one}",
        "undecided": f"{one} and {other} are not told apart",
    }
    print(f"{said[document['verdict']]} (n = {document['n']}, p = {document['p_value']:.4f})")
    print(f"difference  {document['difference']:+.2f} points ± {document['standard_error']:.2f} SE")
    _show_interval(document)
    if document["points_per_dollar"] is not None:
        print(f"price       {document['points_per_dollar']:+.2f} points for each further dollar")
    if not document["same_judges"]:
        print("note        labelled by different judges; part of the difference may be theirs")


def _show_interval(document: dict[str, Any]) -> None:
    if document["interval"] is None:
        print("interval    unknown: all prompts gave the same difference")
        return
    (low, high), resampled = document["interval"], document["bootstrap"]
    beside = "" if resampled is None else "; bootstrap {:+.2f} to {:+.2f}".format(*resampled)
    print(f"interval    {low:+.2f} to {high:+.2f} ({100 * (1 - document['alpha']):g}%{beside})")
    print(f"detectable  {document['detectable']:.2f} points with power 80%")
