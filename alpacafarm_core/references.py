"""Answers of the start, scored: asked for where a method's reshaping of rewards reads them."""

from alpacafarm_core.artifacts import Instructions, Scores
from alpacafarm_core.farm import Farm
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.shaping import Penalties
from alpacafarm_core.weights import Policy, Reward


def references(
    farm: Farm,
    policy: Policy,
    reward: Reward,
    instructions: Instructions,
    objective: OnlineObjective,
) -> Scores | None:
    """The reference rewards that an objective's reshaping asks for; None where it asks for none.

    `policy`, the start, answers each prompt as often as asked, sampled as in training; the answers
    are scored, and penalised, as in training.
    """
    shaping = objective.shaping
    if not (answers := shaping.reshape.references):
        return None
    sampling = objective.sampling.replace(n=answers)
    scored = farm.score(farm.generate(policy, instructions, sampling), reward)
    nothing = shaping.penalties == Penalties()
    return scored if nothing else farm.penalise(scored, shaping.penalties)
