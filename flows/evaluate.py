"""Policy, Setup -> its judged pairs against the reference, and a row of the board."""

from prefect import flow

from alpacafarm_core.artifacts import Candidates, Leaderboard
from alpacafarm_core.farm import Evaluation, Farm
from alpacafarm_core.panel import load
from alpacafarm_core.settings import Sampling, Truth
from alpacafarm_core.setup import Setup, World
from alpacafarm_core.weights import Policy
from flows.approval import admit
from flows.endings import named_endings
from flows.prepare import FARM, admitted, plan_of
from tasks.overlap import refuse_overlap


def answered(policy: Policy, setup: Setup, farm: Farm = FARM) -> Candidates:
    """A policy's answers to the evaluation prompts, none of which it may be trained on."""
    prompts = farm.instructions(setup.source, "eval", setup.sizes.eval)
    refuse_overlap(policy, prompts)
    sampling = Sampling(temperature=0.7, max_tokens=setup.sizes.max_tokens, seed=setup.seed)
    return farm.generate(policy, prompts, sampling)


def judged(answers: Candidates, setup: Setup, farm: Farm = FARM) -> Evaluation:
    """Answers to the evaluation prompts, judged against the reference's."""
    judges = load(setup.judges, seed=setup.seed)
    pairs = farm.annotate(answers, farm.published(setup.source, setup.sizes.eval), judges)
    known = isinstance(setup.source, World)
    return Evaluation(preferences=pairs, truth=farm.score(answers, Truth()) if known else None)


def evaluated(policy: Policy, setup: Setup, farm: Farm = FARM) -> Evaluation:
    """A policy's answers to the evaluation prompts, judged against the reference's."""
    return judged(answered(policy, setup, farm), setup, farm)


@flow(log_prints=True)
@named_endings
def evaluate(policy: Policy, model: str, setup: Setup = Setup()) -> Leaderboard:  # noqa: B008
    """Judge a policy's answers against the reference's and tally them.

    Args:
        policy: A policy of the store: its key, and how it decodes.
        model: Its name on the board.
        setup: Whose prompts and reference, and who judges.
    """
    pinned = admitted(setup)
    admit(None, None, lambda: plan_of(pinned, lambda farm: evaluated(policy, pinned, farm)))
    return FARM.tally({model: evaluated(policy, pinned)})
