"""A file of pairs to a file of labels: `alpacafarm annotate`."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from alpacafarm_core import endpoints, files, selftest
from alpacafarm_core.annotate import Judged, judge, kept, outstanding
from alpacafarm_core.deciding import Terms, judge_until_decided
from alpacafarm_core.errors import BadInput
from alpacafarm_core.estimate import estimated
from alpacafarm_core.llm import Ask, nobody
from alpacafarm_core.panel import Panel, load
from alpacafarm_core.places import looked_into
from alpacafarm_core.setup import PanelName
from alpacafarm_core.tally import PROMPT
from alpacafarm_core.values import Value
from tasks.stage import cap, ledger, purse, store

WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".parquet": pl.DataFrame.write_parquet,
    ".json": pl.DataFrame.write_json,
    ".jsonl": pl.DataFrame.write_ndjson,
    ".csv": pl.DataFrame.write_csv,
}
ENDPOINT = re.compile(r"https?://[^@\s]+")
ADDED = (
    *("preference", "annotator", "status", "is_switched", "is_noisy", "raw_completion"),
    *("prompt_digest", "tokens", "price", "seconds"),
)


class Labelling(Value):
    """What is to be labelled, and how."""

    pairs: Path = Field(description="Pairs: instruction, input?, output_1, output_2")
    panel: PanelName = Field(description="Shipped panel, YAML file or alpaca_eval folder")
    base_url: str | None = Field(default=None, description="Endpoint instead of the panel's own")
    seed: int = Field(default=0, ge=0, description="Seed of draws and answers")
    flip: float | None = Field(default=None, ge=0, le=1, description="Share of labels flipped")
    both_orders: bool = Field(default=False, description="A row for each order of showing")
    offline: bool = Field(default=False, description="Buy nothing: the ledger's answers alone")
    until_decided: float | None = Field(
        default=None, gt=0, lt=1, description="Stop when the better side is known at this error"
    )


def labelled(work: Labelling, out: Path, budget: float | None = None) -> dict[str, Any]:
    """Label a file, write another, and say what it took.

    Raises BadInput before anything is asked, JudgeFailed when the panel fails its self-test, and
    BudgetReached at the cap; then no file is written, and a rerun buys only the rest.
    """
    started = time.time()
    refuse_place(out)
    refuse_both(work)
    cap(budget)
    panel, (raw, pairs) = panel_of(work), files.read_pairs(work.pairs)
    refuse_loss(raw, work.pairs, out)
    selftest.check(panel)
    judged = kept(pairs, panel)
    if not judged.any():
        raise BadInput(f"{work.pairs}: no pair is drawn for {', '.join(panel.only)}; keep others")
    raw, pairs = raw.filter(judged), pairs.filter(judged)
    ask = nobody if work.offline else endpoints.ask_for(panel.endpoint, store().root)
    if work.until_decided is not None:
        terms = Terms(alpha=work.until_decided, seed=work.seed, purse=purse())
        document = _until_decided((raw, pairs), panel, ask, terms, out)
        return document | {"seconds": round(time.time() - started, 3)}
    parts = [judge(pairs, each, ask, ledger(), purse()) for each in showings(panel, work)]
    written(rows_of(raw, parts), out)
    return _document(parts) | {"seconds": round(time.time() - started, 3)}


def _until_decided(
    tables: tuple[pl.DataFrame, pl.DataFrame], panel: Panel, ask: Ask, terms: Terms, out: Path
) -> dict[str, Any]:
    """Label in a random order until it is known which side is better; only judged rows are written.

    `tables` are the file as it is and as pairs.
    """
    raw, pairs = tables
    found = judge_until_decided(pairs, panel, ask, ledger(), terms)
    places = pairs.select(PROMPT).with_row_index("row")
    labels = places.join(found.preferences, on=PROMPT, maintain_order="left")
    part = Judged(labels.drop("row"), found.spending)
    written(rows_of(raw[labels["row"]], [part]), out)
    told = ("verdict", "difference", "asked", "total", "calls_saved")
    bounds = {name: list(getattr(found, name)) for name in ("interval", "likely", "certain")}
    return _document([part]) | {name: getattr(found, name) for name in told} | bounds


def priced(work: Labelling, where: str) -> dict[str, Any]:
    """What labelling a file would take; nobody is asked and nothing is written."""
    panel, (_, pairs) = panel_of(work), files.read_pairs(work.pairs)
    with looked_into(where) as (_, known):
        batches = [
            batch for each in showings(panel, work) for batch in outstanding(pairs, each, known)
        ]
    whole = estimated(batches)._asdict()
    state = "to do" if batches else "cached"
    line = {"stage": "annotate", "artifact": str(work.pairs), "state": state, "seconds": None}
    sums = {name: whole[name] for name in ("calls", "tokens", "usd_low", "usd_high")}
    return {"stages": [line | whole], **sums}


def refuse_both(work: Labelling) -> None:
    """Raise BadInput where two labels of a pair are asked for and one is looked at."""
    if work.until_decided is not None and work.both_orders:
        raise BadInput("--until-decided looks at one label a pair; leave out --both-orders")


def panel_of(work: Labelling) -> Panel:
    """Who labels; raises BadInput or Missing, before anybody is asked."""
    panel = load(work.panel, flip=work.flip, seed=work.seed)
    if work.base_url is not None:
        if "@" in work.base_url:  # what stands before it is not to be repeated
            raise BadInput("base_url: leave out user and password; OPENAI_API_KEY is the key")
        if not ENDPOINT.fullmatch(work.base_url):
            raise BadInput(f"base_url {work.base_url!r} is no endpoint; give http(s)://HOST/v1")
        moved = (each.replace(endpoint=work.base_url) for each in panel.annotators)
        panel = panel.replace(annotators=tuple(moved))
    endpoints.check(panel)
    return panel


def showings(panel: Panel, work: Labelling) -> list[Panel]:
    """The panel with its own order of showing; or with either order, as given first."""
    if not work.both_orders:
        return [panel]
    return [panel.replace(order=order) for order in ("fixed", "switched")]


def rows_of(raw: pl.DataFrame, parts: Sequence[Judged]) -> pl.DataFrame:
    """The file's own columns, and those that judging adds; orders one below the other."""
    own = raw.drop(ADDED, strict=False)
    labels = [part.preferences.select(ADDED) for part in parts]
    return pl.concat([own.hstack(each) for each in labels])


def _document(parts: Sequence[Judged]) -> dict[str, Any]:
    labels = pl.concat([part.preferences["preference"] for part in parts])
    spent = [part.spending for part in parts]
    return {
        "rows": labels.len(),
        "coverage": 1 - labels.null_count() / labels.len(),
        "calls": sum(each.calls for each in spent),
        "bought": sum(each.rows_bought for each in spent),
        "from_ledger": sum(each.rows_from_ledger for each in spent),
        "failed": sum(each.rows_failed for each in spent),
        "complaint": next((each.complaint for each in spent if each.complaint), ""),
        "cost_usd": sum(each.price for each in spent),
    }


def refuse_place(out: Path) -> None:
    """Refuse a place that cannot be written, before anything is bought for it."""
    if out.suffix not in WRITERS:
        raise BadInput(f"--out {out}: unknown ending; use one of {', '.join(WRITERS)}")
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; give the name of a file")
    if not os.access(out.absolute().parent, os.W_OK):
        raise BadInput(f"cannot write into {out.absolute().parent}; choose another --out")


def refuse_loss(raw: pl.DataFrame, pairs: Path, out: Path) -> None:
    """Refuse to put labels in place of those that the file itself came with."""
    lost = [name for name in ADDED if name in raw.columns]
    if lost and out.resolve() == pairs.resolve():
        raise BadInput(f"--out {out} would take the place of its own {lost[0]!r}; choose another")


def writable(rows: pl.DataFrame, ending: str) -> pl.DataFrame:
    """Columns that the format cannot hold, lists or objects of any kind, as JSON text."""
    nested = [
        name
        for name, kind in rows.schema.items()
        if kind == pl.Object or (ending == ".csv" and kind.is_nested())
    ]
    texts = [
        pl.Series(name, [None if each is None else _json(each) for each in rows[name].to_list()])
        for name in nested
    ]
    return rows.with_columns(each.cast(pl.String) for each in texts)


def _json(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def written(rows: pl.DataFrame, out: Path) -> None:
    """Write the whole file, or none; raises BadInput."""
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        WRITERS[out.suffix](writable(rows, out.suffix), draft)
        draft.replace(out)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadInput(f"cannot write {out} ({error}); choose another --out") from error
    finally:
        draft.unlink(missing_ok=True)
