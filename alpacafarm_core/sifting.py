"""Which invented instructions are worth learning from: the usable ones, and the filters.

Magpie (Xu et al. 2024, arXiv 2406.08464, section 2.2 and released notebook). Frames in, frames out,
no models. Filters are tried in one order and each row names the first that left it out; the longest
answers are taken last, of what is left. To filter twice changes nothing.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from alpacafarm_core.errors import BadInput
from alpacafarm_core.languages import language
from alpacafarm_core.synthesis import Filtering, Invented, Sifted, Synthetic

PROMPT = ["instruction", "input"]
LONGEST, OPENING = "longest", "[]"


def admitted(drafts: pl.DataFrame, evaluated: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """Invented, and how many draws came to what; `evaluated` says which prompts are evaluated.

    Raises BadInput where none of a first turn is left; not every conversation goes on.
    """
    counts = dict(drafts["status"].value_counts(sort=True).iter_rows())
    usable = pl.col("status") == "ok"
    kept = drafts.filter(usable & ~evaluated)
    if kept.is_empty() and _opens(drafts):
        raise BadInput(
            f"of {drafts.height} draws none can be used ({counts}, {int(evaluated.sum())} asked in "
            "the evaluation); draw more, or see what stands before the turn"
        )
    notes = {"draws": drafts.height, **{f"status_{name}": n for name, n in counts.items()}}
    notes["evaluated"] = drafts.filter(usable & evaluated).height
    notes["distinct"] = kept.n_unique(PROMPT)
    return kept.select(list(Invented.columns)), notes


def sifted(
    invented: pl.DataFrame,
    answers: pl.DataFrame,
    evidence: Mapping[str, pl.DataFrame | None],
    filtering: Filtering,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Sifted, and how many rows each filter removed, in its order.

    `evidence` has `tags`, `scores`, `base_scores` and `neighbours` by name, each in the order of
    the instructions or None. Raises BadInput where one is of other rows, where a filter asks for
    what nobody found out, and where nothing of a first turn is left.
    """
    rows = _told(invented, answers, evidence)
    _refuse_unknown(evidence, filtering)
    removed, left = pl.Series("removed_by", [""] * rows.height, dtype=pl.String), {}
    for name, passes in _filters(filtering).items():
        gone = (removed == "") & ~rows.select(passes.fill_null(False)).to_series()
        removed, left[name] = _marked(removed, gone, name), int(gone.sum())
    if filtering.longest is not None:
        gone = (removed == "") & ~_longest(rows["length"], removed == "", filtering.longest)
        removed, left[LONGEST] = _marked(removed, gone, LONGEST), int(gone.sum())
    if not (removed == "").any() and _opens(rows):
        raise BadInput(f"the filters leave none of {rows.height} rows: {left}; relax one of them")
    kinds = Sifted.columns.items()
    found = rows.with_columns(removed_by=removed)
    return found.select(pl.col(name).cast(kind) for name, kind in kinds), left


def kept(rows: pl.DataFrame) -> pl.DataFrame:
    """Synthetic: the rows of Sifted that no filter removed."""
    return rows.filter(pl.col("removed_by") == "").select(list(Synthetic.columns))


def _opens(rows: pl.DataFrame) -> bool:
    """Whether these begin conversations, so that something must come of them."""
    return bool((rows["history"] == OPENING).any())


def collected(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all tables, those of the first one first."""
    return pl.concat(tables)


def _told(
    invented: pl.DataFrame, answers: pl.DataFrame, evidence: Mapping[str, pl.DataFrame | None]
) -> pl.DataFrame:
    """All that is known of each row, one beside the other."""
    _refuse_others(invented, {"answers": answers} | dict(evidence))
    tags, scores = evidence["tags"], evidence["scores"]
    base, near = evidence["base_scores"], evidence["neighbours"]
    taken = [
        invented.select("instruction", "input", "dataset"),
        answers.select("output", "output_ids", "tokenizer", "finish_reason"),
        invented.select("asked", "prompt", "history", "shard", "number", "rule"),
        _of(tags, difficulty="difficulty", quality="quality", task="task"),
        _of(scores, reward="score"),
        _of(base, base="score"),
        _of(
            near,
            min_neighbor_distance="min_neighbor_distance",
            repeat_count="repeat_count",
            min_similar_id="min_similar_id",
        ),
    ]
    known = pl.concat([each for each in taken if each.width], how="horizontal")
    unknown = {name: pl.lit(None) for name in _FOUND if name not in known.columns}
    return known.with_columns(**unknown).with_columns(
        reward_difference=pl.col("reward") - pl.col("base"),
        length=pl.col("output").str.len_chars(),
        language=pl.Series([language(text) for text in known["asked"]], dtype=pl.String),
    )


_FOUND = (
    "difficulty", "quality", "task", "reward", "base", "min_neighbor_distance",
    "repeat_count", "min_similar_id",
)  # fmt: skip


def _of(table: pl.DataFrame | None, **columns: str) -> pl.DataFrame:
    """Some columns of a table under other names; nothing of none."""
    if table is None:
        return pl.DataFrame()
    return table.select(pl.col(theirs).alias(ours) for ours, theirs in columns.items())


def _filters(filtering: Filtering) -> dict[str, pl.Expr]:
    """The filters that are asked for, in order: what a row must be to pass each."""
    row = pl.row_index()
    similar = pl.col("min_similar_id")
    found = {
        "unfinished": None if filtering.unfinished else pl.col("finish_reason") == "stop",
        "no_answer": pl.col("output").str.strip_chars() != "",
        "colon": None if filtering.colon else ~pl.col("asked").str.ends_with(":"),
        "language": pl.col("language") == filtering.language if filtering.language else None,
        "quality": pl.col("quality").is_in(filtering.quality) if filtering.quality else None,
        "difficulty": (
            pl.col("difficulty").is_in(filtering.difficulty) if filtering.difficulty else None
        ),
        "reward": _above("reward", filtering.reward_above),
        "reward_difference": _above("reward_difference", filtering.difference_above),
        "distance": _above("min_neighbor_distance", filtering.distance_above),
        "repeats": None if filtering.repeats else similar.is_null() | (similar == row),
    }
    return {name: passes for name, passes in found.items() if passes is not None}


def _above(column: str, bound: float | None) -> pl.Expr | None:
    return None if bound is None else pl.col(column) > bound


def _marked(removed: pl.Series, gone: pl.Series, name: str) -> pl.Series:
    return pl.select(pl.when(gone).then(pl.lit(name)).otherwise(removed)).to_series()


def _longest(lengths: pl.Series, is_left: pl.Series, most: int) -> pl.Series:
    """Whether a row is among the `most` longest of those left; of equal ones the earlier."""
    order = pl.when(is_left).then(lengths)
    places = pl.select(order.rank("ordinal", descending=True)).to_series()
    return (places <= most).fill_null(False)


def _refuse_unknown(evidence: Mapping[str, pl.DataFrame | None], filtering: Filtering) -> None:
    needs = {
        "tags": filtering.needs_tags,
        "scores": filtering.reward_above is not None or filtering.difference_above is not None,
        "base_scores": filtering.difference_above is not None,
        "neighbours": filtering.distance_above is not None or not filtering.repeats,
    }
    lacking = [name for name, needed in needs.items() if needed and evidence[name] is None]
    if lacking:
        raise BadInput(
            f"the filters ask for {', '.join(lacking)}, which nobody made; make them, or ask for "
            "less"
        )


def _refuse_others(invented: pl.DataFrame, tables: Mapping[str, pl.DataFrame | None]) -> None:
    """Tables are laid side by side, so each must have the same prompts in the same order."""
    prompts = invented.select(PROMPT)
    for name, table in tables.items():
        if table is None or table.select(PROMPT).equals(prompts):
            continue
        at = _first_other(prompts, table.select(PROMPT))
        raise BadInput(
            f"row {at}: {name} is about another prompt than the instructions ({table.height} and "
            f"{invented.height} rows); make it from the same table"
        )


def _first_other(one: pl.DataFrame, other: pl.DataFrame) -> int:
    pairs = zip(one.iter_rows(), other.iter_rows(), strict=False)
    differing = (at for at, (left, right) in enumerate(pairs) if left != right)
    return next(differing, min(one.height, other.height))
