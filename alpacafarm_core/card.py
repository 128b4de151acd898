"""The judge card: what kind of judge wrote a table of labels, measured on the labels alone.

The measures are those by which AlpacaFarm (arXiv 2305.14387, section 4) compares simulated with
human annotators and AlpacaEval ranks its evaluators. Labels run from 1 to 2; two labels differ by
|x - y|. Several rows of one pair (instruction, input, output_1, output_2) are several labels; the
same pair with its outputs exchanged was judged in the other order. Rows without a label count in
the parse rate only.

The usual label of several is the most frequent one, and 1.5 where two are equally frequent (some
tools break such a tie at random); of labels that are not 1, 1.5 or 2 it is the median.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import median
from typing import NamedTuple

import polars as pl

from alpacafarm_core.errors import BadInput

LONGER_BY = 30  # characters; of a smaller difference nobody is said to prefer the longer
MANY_PAIRS = 100  # a generator with no more has no win rate worth correlating
LIST = r"(?m)^[ \t]*(?:[*\-•][ \t]*|\d+[.)][ \t]*|[A-Za-z][.)][ \t]+)\w"
FAMILIES = ("gpt", "davinci", "claude", "gemini", "llama", "mistral", "mixtral", "qwen", "deepseek")
_SAME_FAMILY = {"davinci": "gpt", "mixtral": "mistral"}
_PAIR = ["instruction", "input", "first", "second"]
_ROWS_OF_ONE_ORDER = [*_PAIR, "is_exchanged"]


class Measure(NamedTuple):
    """A mean over `n` pairs (rows, for parsing, price and time; models, for correlations).

    With its standard error; None where the labels cannot tell.
    """

    value: float | None
    standard_error: float | None
    n: int


UNKNOWN = Measure(None, None, 0)


def card(preferences: pl.DataFrame, gold: pl.DataFrame | None = None) -> dict[str, Measure]:
    """Every measure by its name; frames with the columns of `Preferences`.

    Agreement, bias, variance, rates and self-preference are in percent (points), probabilities
    and correlations as such, prices in US dollars, times in seconds. Raises BadInput when no
    labelled pair is also in `gold`.
    """
    labels = _labels(preferences)
    others = _labels(gold) if gold is not None else labels.clear()
    decided = labels.unique(_PAIR, keep="first", maintain_order=True).filter(pl.col("label") != 1.5)
    return {
        **_against_gold(labels, others if gold is not None else None),
        **_against_itself(labels),
        "order_flip_rate": _order_flips(labels),
        "probability_prefer_longer": _prefers_longer(decided),
        "probability_prefer_list": _prefers_list(decided),
        "probability_prefer_1": _over_labels(labels, 2 - pl.col("preference")),
        "probability_prefer_first_shown": _prefers_shown_first(labels),
        "self_preference": _self_preference(labels, others),
        **_upkeep(preferences),
    }


def usual(labels: Sequence[float]) -> float:
    """The most frequent of labels 1, 1.5 and 2, or 1.5 where two are equally frequent."""
    counts = {label: labels.count(label) for label in set(labels)}
    leading = {label for label, count in counts.items() if count == max(counts.values())}
    return leading.pop() if len(leading) == 1 else 1.5


def family(name: str) -> str:
    """Who made the model that a judge or generator is named after: a maker's word, or the name."""
    lowered = name.lower()
    found = next((each for each in FAMILIES if each in lowered), lowered)
    return _SAME_FAMILY.get(found, found)


def _labels(preferences: pl.DataFrame) -> pl.DataFrame:
    """Labelled rows, the outputs of a pair always in one order.

    `label` counts in the order of `first` and `second`, `preference` in the row's own order.
    """
    exchanged = pl.col("output_1") > pl.col("output_2")

    def side(one: str, other: str) -> pl.Expr:
        return pl.when(exchanged).then(other).otherwise(one)

    seen = ~pl.col("is_noisy") & (pl.col("output_1") != pl.col("output_2"))
    return preferences.filter(pl.col("preference").is_between(1, 2)).select(
        "instruction",
        "input",
        "annotator",
        "preference",
        "is_switched",
        "generator_2",
        first=side("output_1", "output_2"),
        second=side("output_2", "output_1"),
        generator_first=side("generator_1", "generator_2"),
        generator_second=side("generator_2", "generator_1"),
        is_exchanged=exchanged,
        is_seen=seen,
        shows_first=exchanged == pl.col("is_switched"),
        label=pl.when(exchanged).then(3 - pl.col("preference")).otherwise("preference"),
    )


def _measure(values: pl.Series) -> Measure:
    known = values.drop_nulls()
    mean, spread = known.mean(), known.std()
    if not isinstance(mean, float):
        return UNKNOWN
    error = spread / sqrt(len(known)) if isinstance(spread, float) else None
    return Measure(mean, error, len(known))


def _over_pairs(rows: pl.DataFrame, value: pl.Expr) -> Measure:
    """Mean over pairs of the mean over the rows of a pair."""
    means = rows.select(*_PAIR, value=value).group_by(_PAIR, maintain_order=True).mean()
    return _measure(means["value"])


def _over_labels(rows: pl.DataFrame, value: pl.Expr) -> Measure:
    """Mean over all labels, with the error of the means of pairs: labels of a pair are alike."""
    over_pairs = _over_pairs(rows, value)
    return over_pairs._replace(value=_measure(rows.select(value=value)["value"]).value)


def _per_group(labels: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return labels.group_by(key, maintain_order=True).agg(held="label")


def _usual_of(labels: pl.DataFrame) -> Callable[[Sequence[float]], float]:
    """The median when some label is neither 1, 1.5 nor 2, else the most frequent."""
    return usual if labels["label"].is_in([1.0, 1.5, 2.0]).all() else median


def _middles(labels: pl.DataFrame, key: Sequence[str], at_least: int) -> pl.DataFrame:
    """The usual label of each group of at least so many labels, as `usual`."""
    groups = _per_group(labels, key).filter(pl.col("held").list.len() >= at_least)
    middle = _usual_of(labels)
    found = [middle(held) for held in groups["held"].to_list()]
    return groups.drop("held").with_columns(usual=pl.Series(found, dtype=pl.Float64))


def _against_gold(labels: pl.DataFrame, gold: pl.DataFrame | None) -> dict[str, Measure]:
    if gold is None:
        return dict.fromkeys(("agreement", "bias", "spearman", "pearson"), UNKNOWN)
    truth = _middles(gold, _PAIR, at_least=1).rename({"usual": "truth"})
    held = labels.join(truth, on=_PAIR, maintain_order="left")
    if labels.height and held.is_empty():
        raise BadInput(
            "no labelled pair (instruction, input and both outputs) is in the gold file; "
            "give labels of the same pairs"
        )
    middles = _middles(labels, _ROWS_OF_ONE_ORDER, at_least=2).join(truth, on=_PAIR)
    return {
        "agreement": _over_pairs(held, 100 - 100 * (pl.col("label") - pl.col("truth")).abs()),
        "bias": _over_pairs(middles, 100 * (pl.col("usual") - pl.col("truth")).abs()),
        **_correlations(held, gold),
    }


def _against_itself(labels: pl.DataFrame) -> dict[str, Measure]:
    """Each label of a pair against the usual one of its others."""
    groups = _per_group(labels, _ROWS_OF_ONE_ORDER).filter(pl.col("held").list.len() > 1)
    middle = _usual_of(labels)
    apart = [_apart(held, middle) for held in groups["held"].to_list()]
    distance = groups.with_columns(apart=pl.Series(apart, dtype=pl.Float64))
    return {
        "agreement_leave_one_out": _over_pairs(distance, 100 - 100 * pl.col("apart")),
        "variance": _over_pairs(distance, 100 * pl.col("apart")),
    }


def _apart(held: list[float], middle: Callable[[Sequence[float]], float]) -> float:
    """Mean distance of each label from the usual one of the rest."""
    rest = (held[:left_out] + held[left_out + 1 :] for left_out in range(len(held)))
    away = [abs(label - middle(others)) for label, others in zip(held, rest, strict=True)]
    return sum(away) / len(away)


def _order_flips(labels: pl.DataFrame) -> Measure:
    """Where one annotator saw a pair in both orders: how often the winner depends on the order.

    Opposite winners are one flip, a tie against a winner is half of one.
    """
    key = [*_PAIR, "annotator"]
    seen = labels.filter("is_seen").group_by([*key, "shows_first"], maintain_order=True)
    winner = 1.5 + (pl.col("label").mean() - 1.5).sign() / 2
    both = seen.agg(winner=winner).group_by(key, maintain_order=True)
    turned = both.agg(orders=pl.len(), flip=pl.col("winner").max() - pl.col("winner").min())
    return _over_pairs(turned.filter(pl.col("orders") == 2), 100 * pl.col("flip"))


def _prefers_longer(decided: pl.DataFrame) -> Measure:
    gap = pl.col("first").str.len_chars().cast(pl.Int64) - pl.col("second").str.len_chars()
    apart = decided.with_columns(gap=gap).filter(pl.col("gap").abs() > LONGER_BY)
    return _over_pairs(apart, ((pl.col("label") < 1.5) == (pl.col("gap") > 0)).cast(pl.Float64))


def _prefers_list(decided: pl.DataFrame) -> Measure:
    first, second = (pl.col(side).str.contains(LIST) for side in ("first", "second"))
    one = decided.filter(first != second)
    return _over_pairs(one, ((pl.col("label") < 1.5) == first).cast(pl.Float64))


def _prefers_shown_first(labels: pl.DataFrame) -> Measure:
    """Known only when some row says that it was shown in the other order."""
    if not labels["is_switched"].any():
        return UNKNOWN
    turned = pl.when("is_switched").then(3 - pl.col("preference")).otherwise("preference")
    return _over_labels(labels.filter("is_seen"), 2 - turned)


def _correlations(held: pl.DataFrame, gold: pl.DataFrame) -> dict[str, Measure]:
    """Of the win rates that labels and gold give to each generator with many pairs."""
    humans = gold.group_by(_PAIR).agg(gold=pl.col("label").mean())
    own = pl.when("is_exchanged").then(3 - pl.col("gold")).otherwise("gold")
    pairs = held.join(humans, on=_PAIR, maintain_order="left").with_columns(gold=own)
    named = pairs.filter(pl.col("generator_2") != "")
    means = (pl.col(name).mean() for name in ("preference", "gold"))
    rates = named.group_by("generator_2", maintain_order=True).agg(
        *means, pairs=pl.struct(_PAIR).n_unique()
    )
    rates = rates.filter(pl.col("pairs") > MANY_PAIRS)
    if rates.height < 3:
        return {"spearman": UNKNOWN, "pearson": UNKNOWN}
    alike = rates.select(
        spearman=pl.corr("preference", "gold", method="spearman"),
        pearson=pl.corr("preference", "gold", method="pearson"),
    ).fill_nan(None)
    return {name: Measure(alike[name].item(), None, rates.height) for name in alike.columns}


def _self_preference(labels: pl.DataFrame, gold: pl.DataFrame) -> Measure:
    """How much oftener a judge's own family wins under it than under judges of other families.

    On the pairs of which one output is of its family, and which another judge or gold labelled.
    """
    judges, others = _with_families(labels), _with_families(pl.concat([labels, gold]))
    kin = pl.col("family_first") == pl.col("judge")
    own = judges.filter(pl.col("judge") != "", kin != (pl.col("family_second") == pl.col("judge")))
    # Sums first: a row for each two labels of a pair would fill the memory.
    sums = others.group_by([*_PAIR, "judge"]).agg(total=pl.col("label").sum(), labels=pl.len())
    met = own.select(*_PAIR, "judge").unique().join(sums, on=_PAIR, suffix="_other")
    theirs = (
        met.filter(pl.col("judge_other") != pl.col("judge"))
        .group_by([*_PAIR, "judge"])
        .agg(theirs=pl.col("total").sum() / pl.col("labels").sum())
    )
    ahead = pl.col("theirs") - pl.col("label")
    beside = own.join(theirs, on=[*_PAIR, "judge"], maintain_order="left")
    beside = beside.with_columns(ahead=pl.when(kin).then(ahead).otherwise(-ahead))
    per_judge = beside.group_by([*_PAIR, "judge"], maintain_order=True).agg(pl.col("ahead").mean())
    return _over_pairs(per_judge, 100 * pl.col("ahead"))


def _with_families(labels: pl.DataFrame) -> pl.DataFrame:
    columns = {
        "judge": "annotator",
        "family_first": "generator_first",
        "family_second": "generator_second",
    }
    return labels.with_columns(
        pl.col(name).map_elements(family, return_dtype=pl.String).alias(called)
        for called, name in columns.items()
    )


def _upkeep(preferences: pl.DataFrame) -> dict[str, Measure]:
    """What judging took: of rows that a judge was asked about, and of those it answered."""
    nobody = pl.col("is_noisy") | (pl.col("output_1") == pl.col("output_2"))
    asked = preferences.filter(~nobody)
    parsed = asked.select(value=100.0 * pl.col("preference").is_not_null())["value"]
    answered = preferences.filter(pl.col("status") != "failed")
    return {
        "parse_rate": _measure(parsed),
        "price_per_1000": _measure(1000 * answered["price"]),
        "seconds_per_1000": _measure(1000 * answered["seconds"]),
    }
