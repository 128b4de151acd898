"""Reference rewards: scored answers of the start, to compare an answer's score with.

They are a table of scores like any other, and so cached: the start answers each prompt M times as
it will be sampled in training, the same reward model scores the answers, and the same penalties are
taken off. Whether a table is of that kind stands in its rows, and is asked before training.
"""

import polars as pl

from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.errors import BadInput
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.shaping import Penalties, check_references
from alpacafarm_core.weights import Reward, RewardModel

PROMPT = ["instruction", "input"]
REFS = "ref_rewards"
"""The column of a prompt's reference rewards, a list of M numbers."""


def penalised(scored: pl.DataFrame, penalties: Penalties) -> pl.DataFrame:
    """Scores less the penalties; the judge's name says so."""
    lengths, reasons = scored["output_ids"].list.len(), scored["finish_reason"]
    rows = zip(scored["score"], lengths, reasons == "stop", strict=True)
    found = pl.Series("score", [penalties.applied(*row) for row in rows], dtype=pl.Float64)
    names = {judge: penalties.named(judge) for judge in scored["judge"].unique()}
    return scored.with_columns(found, judge=pl.col("judge").replace(names))


def told(
    instructions: pl.DataFrame,
    refs: pl.DataFrame | None,
    reward: Reward,
    objective: OnlineObjective | ConditionedObjective,
) -> pl.DataFrame:
    """The prompts, with their reference rewards in the column `ref_rewards` where they are read.

    Raises BadInput where references are asked for and not given, or given and not read; and where
    they are of another judge, sampled otherwise, or too few for a prompt.
    """
    if isinstance(objective, ConditionedObjective):
        if refs is not None:
            raise BadInput("answers that are sorted read no reference rewards; leave them out")
        return instructions
    check_references(objective.shaping.reshape, refs is not None)
    if refs is None:
        return instructions
    _refuse_strangers(refs, reward, objective)
    return _beside(instructions, refs, objective.shaping.reshape.references)


def _refuse_strangers(refs: pl.DataFrame, reward: Reward, objective: OnlineObjective) -> None:
    """Raise BadInput unless the references were drawn and scored as answers in training are."""
    sampling = objective.sampling
    asked: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if isinstance(reward, RewardModel):
        asked["judge"] = objective.shaping.penalties.named(reward.folder)
    for name, value in asked.items():
        strange = refs.filter(pl.col(name).ne_missing(pl.lit(value)))
        if strange.height:
            raise BadInput(
                f"{strange.height} of {refs.height} reference rewards have {name} "
                f"{strange[name][0]!r} and the training has {value!r}; make them anew for this "
                "training"
            )


def _beside(instructions: pl.DataFrame, refs: pl.DataFrame, wanted: int) -> pl.DataFrame:
    """The prompts with a list of so many reference rewards each; BadInput where one has fewer."""
    lists = (
        refs.unique([*PROMPT, "sample_index"], keep="first", maintain_order=True)
        .group_by(PROMPT, maintain_order=True)
        .agg(pl.col("score").head(wanted).alias(REFS))
    )
    rows = instructions.join(lists, on=PROMPT, how="left", maintain_order="left")
    short = rows.filter(pl.col(REFS).list.len().fill_null(0) < wanted)
    if short.height:
        raise BadInput(
            f"{short.height} of {rows.height} prompts have fewer than {wanted} reference rewards, "
            f"the first being {short['instruction'][0]!r}; make them for the prompts of this "
            "training, or lower shaping.reshape.answers"
        )
    return rows
