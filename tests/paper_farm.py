"""PaperFarm: a farm that makes nothing and writes down what it was asked."""

from typing import Any

from alpacafarm_core import artifacts, ratings, synthesis, weights
from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.farm import Start

YIELDS = {
    "base": weights.Policy,
    "instructions": artifacts.Instructions,
    "share": artifacts.Instructions,
    "mix": artifacts.Instructions,
    "adopt": weights.Policy,
    "draw": artifacts.Guided,
    "write": artifacts.Candidates,
    "gather": artifacts.Pooled,
    "labels": artifacts.Preferences,
    "demonstrations": artifacts.Demonstrations,
    "published": artifacts.Candidates,
    "recorded": artifacts.Preferences,
    "interactions": artifacts.Interactions,
    "guided": artifacts.Guided,
    "corrected": artifacts.Preferences,
    "generate": artifacts.Candidates,
    "annotate": artifacts.Preferences,
    "rate": ratings.Ratings,
    "critique": ratings.Critiques,
    "repair": ratings.Ratings,
    "criticise": ratings.Ratings,
    "tag": ratings.Tags,
    "score": artifacts.Scores,
    "penalise": artifacts.Scores,
    "residual": artifacts.Scores,
    "select": artifacts.Demonstrations,
    "grade": artifacts.Graded,
    "prefer": artifacts.Preferences,
    "compare": artifacts.Comparisons,
    "cluster": artifacts.Clusters,
    "unite": artifacts.Preferences,
    "rank": artifacts.Ranked,
    "fit_reward": weights.RewardModel,
    "train": weights.Policy,
    "soup": weights.Policy,
    "fit_pairwise": weights.Pairwise,
    "soup_rewards": weights.RewardModel,
    "roll_out": weights.Policy,
    "synthesise": synthesis.Synthetic,
    "tally": artifacts.Leaderboard,
}


def numbered(number: int) -> str:
    """A key that is easy to read."""
    return f"{number:016x}"


START = Start(
    base=weights.Policy(key=numbered(0xB)),
    policy=weights.Policy(key=numbered(0x5F7)),
    instructions=artifacts.Instructions(key=numbered(0x1)),
    demonstrations=artifacts.Demonstrations(key=numbered(0xD)),
    preferences=artifacts.Preferences(key=numbered(0xF)),
)
NAMES = {
    START.base.folder: "base",
    START.policy.folder: "sft",
    START.instructions.folder: "instructions",
    START.demonstrations.folder: "demonstrations",
    START.preferences.folder: "preferences",
}


def held_in(given: Any) -> list[Artifact]:
    """The artifact itself, or those that a judge made of artifacts holds."""
    if isinstance(given, Artifact):
        return [given]
    if isinstance(given, weights.Committee):
        return list(given.members)
    if isinstance(given, tuple):
        return [artifact for each in given for artifact in held_in(each)]
    return [given.policy, given.reference] if isinstance(given, weights.Implicit) else []


class PaperFarm:
    """Answers every verb with a fresh receipt."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.names = dict(NAMES)

    def __getattr__(self, verb: str) -> Any:
        def ask(*arguments: Any, **named: Any) -> Artifact:
            made = YIELDS[verb](key=numbered(0xA000 + len(self.asked)))
            given = (*arguments, *named.values())
            held = [self.names[a.folder] for each in given for a in held_in(each)]
            numbers = [str(a) for a in given if verb in ("share", "labels") and isinstance(a, int)]
            self.asked.append(f"{verb}({', '.join([*held, *numbers])})")
            self.names[made.folder] = f"{verb}{len(self.asked)}"
            return made

        return ask
