"""Where the reward models lie that a stage is given."""

from alpacafarm_core.committees import Judges, Seats
from alpacafarm_core.weights import Committee, Reward
from tasks.stage import store


def lying(reward: Reward) -> Judges:
    """The folder of a reward model, or those of a committee's members with their verdict."""
    if isinstance(reward, Committee):
        folders = tuple(store().weights(member) for member in reward.members)
        return Seats(folders=folders, verdict=reward.verdict)
    return store().weights(reward)
