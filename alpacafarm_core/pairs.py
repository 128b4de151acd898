"""Pairs of answers to one prompt, made from a number for each. Frames in, frames out, no models.

Answers of equal number are put in the order of a hash of their text, so that the order of the rows
changes nothing. A pair without a gap says nothing and is left out.
"""

from collections.abc import Sequence
from math import exp
from random import Random

import polars as pl

from alpacafarm_core.artifacts import Comparisons, Ranked
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.select import PROMPT
from alpacafarm_core.settings import Pairing, Ranking, Rejection, Winning

PAIR = [*PROMPT, "output_1", "output_2"]
KNOWN = {
    "annotator": pl.lit("ranked"),
    "preference": pl.lit(1.0),
    "status": pl.lit("ok"),
    "is_switched": pl.lit(False),
    "is_noisy": pl.lit(False),
    "raw_completion": pl.lit(""),
    "prompt_digest": pl.lit(""),
    "tokens": pl.lit(0),
    "price": pl.lit(0.0),
    "seconds": pl.lit(0.0),
}


def paired(rows: pl.DataFrame, ranking: Pairing) -> pl.DataFrame:
    """Pairs as the settings say, as Ranked; raises BadInput where the rows are not fit for that."""
    if isinstance(ranking, Winning) != ("logit" in rows.columns):
        raise BadInput(
            f"answers by {type(ranking).__name__.lower()} need "
            f"{'comparisons' if isinstance(ranking, Winning) else 'scores'}; "
            f"these have the columns {', '.join(rows.columns)}"
        )
    match ranking:
        case Ranking():
            return ranked(rows, ranking)
        case Rejection():
            return sampled(rows, ranking)
        case Winning():
            return won(rows, ranking)


def ranked(scored: pl.DataFrame, ranking: Ranking) -> pl.DataFrame:
    """The answers in the places that the ranking names, a pair for each prompt and rejected place.

    Places count distinct answers, best first. Prompts that have not that many, and pairs with equal
    numbers, are left out. Where two places are one answer's, as the third of three is the last,
    their pair counts once. Raises BadInput when none is left.
    """
    rows = _in_all_places(scored, ranking).unique(PAIR, keep="first", maintain_order=True)
    if rows.is_empty():
        raise BadInput(
            f"no prompt of {scored.select(PROMPT).n_unique()} has answers in the places "
            f"{ranking.model_dump(exclude_none=True)} with different numbers; draw more answers"
        )
    return rows


def repeated(rows: pl.DataFrame, ranking: Pairing) -> int:
    """How many pairs are left out because they were there already, in another place."""
    if not isinstance(ranking, Ranking) or len(ranking.losers) == 1:
        return 0
    pairs = _in_all_places(rows, ranking)
    return pairs.height - pairs.n_unique(PAIR)


def sampled(scored: pl.DataFrame, rejection: Rejection) -> pl.DataFrame:
    """Pairs of the answers that rejection sampling accepts, the first two, the next two and so on.

    Each prompt's answers are tried in an order drawn for it, so that no text has an advantage and
    copies do not stand together. Raises BadInput when no pair has a gap.
    """
    rows = scored if rejection.copies else _distinct(scored)
    order = pl.col("number").sort_by("sample_index", "output")
    numbered = rows.with_row_index("number").group_by(PROMPT, maintain_order=True)
    pairs: list[tuple[int, int]] = []
    for prompt, (drawn,) in numbered.agg(order).rows_by_key(PROMPT, unique=True).items():
        coins = Random(digest(rejection.seed, *prompt))
        numbers = coins.sample(drawn, len(drawn))
        scores = rows["score"].gather(numbers).to_list()
        kept = [numbers[at] for at in accepted(scores, rejection, coins)]
        pairs += zip(kept[::2], kept[1::2], strict=False)
    return _of_numbers(rows, pairs)


def accepted(scores: Sequence[float], rejection: Rejection, coins: Random) -> list[int]:
    """Numbers of the answers accepted, in the order of accepting; Liu et al. 2023, algorithm 1.

    An answer with reward r is accepted with probability exp((r - r_max) / beta), where r_max is the
    best reward of those that are left; those left are tried again until enough are accepted.
    """
    left, kept = list(range(len(scores))), list[int]()
    while left and len(kept) < rejection.keep:
        best = max(scores[at] for at in left)
        chances = {at: exp((scores[at] - best) / rejection.beta) for at in left}
        here = {at for at in left if coins.random() < chances[at]}
        kept += [at for at in left if at in here]
        left = [at for at in left if at not in here]
    return kept[: rejection.keep]


def compared(scored: pl.DataFrame) -> pl.DataFrame:
    """Every answer to a prompt against every answer to it: log-odds are the difference of scores.

    The result has the columns of Comparisons.
    """
    rows = scored.with_columns(index=_number())
    rivals = rows.select(*PROMPT, rival="index", theirs="score")
    both = rows.join(rivals, on=PROMPT, maintain_order="left_right")
    made = both.with_columns(logit=pl.col("score") - pl.col("theirs"))
    return made.select(pl.col(name).cast(kind) for name, kind in Comparisons.columns.items())


def asymmetry(comparisons: pl.DataFrame) -> dict[str, float]:
    """How much a judge minded which of two answers was shown first, over all pairs of answers.

    `agreement` is the share of pairs that both orders decide alike, `position_bias` the mean
    log-odds of being shown first, `asymmetry` its mean size; nothing where no two were compared.
    """
    back = comparisons.select(*PROMPT, index="rival", rival="index", back="logit")
    both = comparisons.join(back, on=[*PROMPT, "index", "rival"])
    both = both.filter(pl.col("index") < pl.col("rival"))
    if both.is_empty():
        return {}
    first, second = pl.col("logit"), pl.col("back")
    return both.select(
        agreement=((first > 0) == (second < 0)).mean(),
        position_bias=((first + second) / 2).mean(),
        asymmetry=((first + second) / 2).abs().mean(),
    ).row(0, named=True)


def won(comparisons: pl.DataFrame, winning: Winning) -> pl.DataFrame:
    """The best answer of each prompt over the worst, with how probably each of them wins.

    M[i, j] is the log-odds that i beats j, and S[i] the mean over j, i included, of M[i, j] -
    M[j, i]. The probability P[i, j] is sigmoid(S[i] - S[j]) as SPPO's code has it (aggregated), or
    sigmoid((M[i, j] - M[j, i]) / 2) as its paper (pairwise). An answer wins with the mean of
    P[i, j] over j, or against its rival alone. Raises BadInput when no answers differ.
    """
    pairs = probable(comparisons, winning)
    number = "total" if winning.probability == "aggregated" else "win"
    answers = pairs.unique([*PROMPT, "index"], keep="first", maintain_order=True)
    placed = by_place(answers.with_columns(score=pl.col(number)))
    rows = _over(at_place(placed, 1), at_place(placed, -1))
    if rows.is_empty():
        raise BadInput(
            f"the answers to none of {answers.select(PROMPT).n_unique()} prompts differ in how "
            "probably they win; draw more answers"
        )
    wins = {"win_1": pl.col("win"), "win_2": pl.col("win_other")}
    if winning.against == "rival":
        met = pairs.select(*PROMPT, "index", "beats", index_other="rival")
        rows = rows.join(met, on=[*PROMPT, "index", "index_other"], suffix="_met")
        wins = {"win_1": pl.col("beats_met"), "win_2": 1 - pl.col("beats_met")}
    return as_ranked(rows, wins)


def probable(comparisons: pl.DataFrame, winning: Winning) -> pl.DataFrame:
    """Comparisons with `total` S of the answer, `beats` P of its rival, and `win`, the mean P."""
    prompt, index = [*PROMPT, "index"], pl.col("index")
    back = comparisons.select(*PROMPT, index="rival", rival="index", back="logit")
    odds = pl.col("logit") - pl.col("back")
    rows = comparisons.join(back, on=[*prompt, "rival"], maintain_order="left").with_columns(
        total=odds.mean().over(prompt)
    )
    if winning.probability == "aggregated":
        theirs = rows.filter(index == pl.col("rival")).select(
            *PROMPT, rival="index", theirs="total"
        )
        rows = rows.join(theirs, on=[*PROMPT, "rival"], maintain_order="left")
        odds = 2 * (pl.col("total") - pl.col("theirs"))
    beats = 1 / (1 + (-odds / 2).exp())
    return rows.with_columns(beats=beats).with_columns(win=pl.col("beats").mean().over(prompt))


def _in_all_places(scored: pl.DataFrame, ranking: Ranking) -> pl.DataFrame:
    """Pairs of the chosen place over each rejected place in turn."""
    placed = by_place(scored)
    return pl.concat([_in_places(placed, ranking, loser) for loser in ranking.losers])


def _in_places(placed: pl.DataFrame, ranking: Ranking, loser: int) -> pl.DataFrame:
    """Pairs of the chosen place over one rejected place; possibly none."""
    rows = _over(at_place(placed, ranking.chosen), at_place(placed, loser))
    if ranking.gold is None:
        return as_ranked(rows, {})
    best = at_place(placed, ranking.gold).select(
        *PROMPT, gold="output", gold_ids="output_ids", gold_place="place"
    )
    place = pl.col("gold_place")
    rows = rows.join(best, on=PROMPT, maintain_order="left").filter(
        place != pl.col("place"), place != pl.col("place_other")
    )
    return as_ranked(rows, {"gold": pl.col("gold"), "gold_ids": pl.col("gold_ids")})


def _over(chosen: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Pairs with a gap; the rejected answer's columns end in `_other`."""
    rows = chosen.join(rejected, on=PROMPT, suffix="_other", maintain_order="left")
    return rows.filter(pl.col("score") > pl.col("score_other"))


def _of_numbers(rows: pl.DataFrame, pairs: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Pairs of rows by their numbers, the better one first; raises BadInput when none has a gap."""
    scores = rows["score"]
    apart = [pair for pair in pairs if scores[pair[0]] != scores[pair[1]]]
    if not apart:
        raise BadInput(
            f"no two accepted answers of {rows.select(PROMPT).n_unique()} prompts differ in their "
            "scores; draw more answers"
        )
    best = [max(pair, key=lambda number: scores[number]) for pair in apart]
    worst = [sum(pair) - chosen for pair, chosen in zip(apart, best, strict=True)]
    other = rows[worst].select(pl.all().name.suffix("_other"))
    return as_ranked(pl.concat([rows[best], other], how="horizontal"), {})


def at_place(placed: pl.DataFrame, place: int) -> pl.DataFrame:
    """The answer of each prompt in a place: 1 is the best, -1 the worst."""
    wanted = pl.lit(place) if place > 0 else pl.col("count") + 1 + place
    return placed.filter(pl.col("place") == wanted)


def as_ranked(rows: pl.DataFrame, more: dict[str, pl.Expr]) -> pl.DataFrame:
    """Rows of a chosen answer and an `_other` one, as Ranked; `more` are further columns."""
    columns = {
        "output_1": pl.col("output"),
        "output_2": pl.col("output_other"),
        "output_1_ids": pl.col("output_ids"),
        "output_2_ids": pl.col("output_ids_other"),
        "generator_1": pl.col("generator"),
        "generator_2": pl.col("generator_other"),
        "gap": pl.col("score") - pl.col("score_other"),
        "gold": pl.lit(""),
        "gold_ids": pl.lit([], dtype=pl.List(pl.Int32)),
        "win_1": pl.lit(None),
        "win_2": pl.lit(None),
        **KNOWN,
        **more,
    }
    made = rows.select(*PROMPT, "dataset", "tokenizer", **columns)
    return made.select(pl.col(name).cast(kind) for name, kind in Ranked.columns.items())


def by_place(scored: pl.DataFrame) -> pl.DataFrame:
    """Distinct answers with `place` from 1 within their prompt and the prompt's `count`."""
    rows = (
        scored.with_columns(hashed=_hashed(), at=pl.int_range(pl.len()))
        .sort("score", "hashed", "sample_index", descending=[True, False, False])
        .unique([*PROMPT, "output"], keep="first", maintain_order=True)
    )
    return rows.with_columns(
        place=pl.int_range(1, pl.len() + 1).over(PROMPT),
        count=pl.len().over(PROMPT).cast(pl.Int64),
        first=pl.col("at").min().over(PROMPT),
    ).sort("first", "place", maintain_order=True)


def _distinct(scored: pl.DataFrame) -> pl.DataFrame:
    """Of equal answers to a prompt the first that was drawn."""
    rows = scored.sort("sample_index", maintain_order=True)
    return rows.unique([*PROMPT, "output"], keep="first", maintain_order=True)


def _hashed() -> pl.Expr:
    return pl.col("output").map_elements(digest, return_dtype=pl.String)


def _number() -> pl.Expr:
    """The number of a row among those of its prompt, from 0."""
    return pl.int_range(pl.len()).over(PROMPT)
