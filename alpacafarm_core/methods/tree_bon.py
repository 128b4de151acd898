"""TreeBoN: best-of-n whose draws are cut and branched as they grow; Qiu et al. 2024 (arXiv
2410.16033).

No weights of the policy change. A DPO policy ranks unfinished answers, where a reward model for
whole answers knows little; that model makes the last choice. The paper does not say what becomes of
answers that end early: here they compete and, if they survive, are carried on at no cost. Its
policies come from other people's training; here the DPO policy is trained from the start's labels.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.settings import Fitting, Scale
from alpacafarm_core.trees import Branching
from alpacafarm_core.weights import Plain, Policy, Tree


class TreeBoN(Method):
    """Grow many answers in segments, keep the promising ones; a reward model picks at the end."""

    sources: ClassVar[Mapping[str, str]] = {
        "tree.width": "Qiu et al. 2024",
        "tree.layers": "Qiu et al. 2024, from memory: unverified",
        "tree.children": "Qiu et al. 2024, from memory: unverified",
        "tree.partial": "Qiu et al. 2024: their weighted implicit reward",
        "tree.decay": "ours: the paper's is not known",
        "tree.temperature": "AlpacaFarm's best-of-n; the paper's is not known",
        "tree.top_p": "the whole distribution",
        "tree.refill_finished": "ours: off",
        "tree.keep_finished_pool": "ours: off",
        "objective": "AlpacaFarm's DPO recipe",
        "fitting": "AlpacaFarm's reward model",
    }

    name: Literal["tree_bon"] = "tree_bon"
    tree: Branching = Field(default=Branching(), description="How wide the tree is, and how cut")
    objective: DPO = Field(default=DPO(), description="How the ranking policy is trained")
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or a narrower tree and cooler draws for the world's tiny model."""
        if scale == "paper":
            return cls()
        return cls(
            tree=Branching(width=16, children=4, layers=4, temperature=0.7),
            objective=DPO.at(scale),
            fitting=Fitting.at(scale),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model and train a DPO policy; the same policy then decodes with both."""
        if start.policy.decode != Plain():
            raise BadInput(
                "a tree grows from plain draws: start from a policy that decodes plainly"
            )
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        dpo = farm.train(start.policy, start.preferences, self.objective)
        shape = {name: getattr(self.tree, name) for name in Branching.model_fields}
        tree = Tree(**shape, dpo=dpo, dpo_reference=start.policy, reward=reward)
        return start.policy.replace(decode=tree)
