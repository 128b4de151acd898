"""Self-play preference optimisation (SPPO); Wu et al. 2024 (arXiv 2405.00675).

Preferences are a game of two, P(y beats y'), not differences of a reward. Each round the policy
plays itself: for every prompt it answers K times, each answer is compared with all of them, and the
log-ratio of the best and the worst is fitted to how often they win, so that an answer that always
wins should become exp(eta / 2) times as likely. The judge is the farm's reward model, or one that
reads two answers at once as the paper's PairRM does; the optimiser is AdamW, there RMSProp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, WinLogps, log_ratios
from alpacafarm_core.settings import BUDGET, Fitting, Sampling, Scale, Training, Winning
from alpacafarm_core.weights import Pairwise, Policy, Reward

if TYPE_CHECKING:
    from torch import Tensor


class SelfPlayWins(Objective):
    """Bring each log-ratio to its share of wins."""

    eta: float = Field(default=1000.0, gt=0, description="Log-ratio of winning over losing always")
    form: Literal["sppo", "single", "hard"] = Field(
        default="sppo", description="Wins over all, over the rival, or certain"
    )
    training: Training = Field(
        default=Training(
            learning_rate=5e-7, epochs=1, batch=64, schedule="linear", warmup=0.1, max_length=1024
        ),
        description="SPPO's recipe",
    )

    def loss(self, batch: WinLogps) -> Tensor:
        """Squared distance of both log-ratios from their targets, [B]."""
        losses = {"sppo": sppo_loss, "single": sppo_single_loss, "hard": sppo_hard_loss}
        return losses[self.form](batch, self.eta)


class SPPO(Method):
    """Play against oneself, and make answers as likely as they win."""

    sources: ClassVar[Mapping[str, str]] = {
        "rounds": "Wu et al. 2024",
        "sampling.n": "Wu et al. 2024",
        "sampling.max_tokens": "AlpacaFarm's longest answer",
        "sampling": "the authors' code; the paper's text says 1 and 1",
        "winning": "the authors' code; the paper's text has pairwise",
        "judge": "ours: the other methods' judge; the paper has PairRM",
        "fitting": "AlpacaFarm's reward model recipe; the paper has PairRM",
        "objective.form": "Wu et al. 2024",
        "objective": "the authors' launch script, there with RMSProp",
    }

    name: Literal["sppo"] = "sppo"
    rounds: int = Field(default=3, ge=1, description="Times to answer, compare and train")
    sampling: Sampling = Field(
        default=Sampling(n=5, temperature=0.7, top_p=0.9), description="How answers are drawn"
    )
    winning: Winning = Field(default=Winning(), description="How probably an answer wins")
    judge: Literal["reward", "pairwise"] = Field(
        default="reward", description="Reads one answer, or two at once"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the judge is fitted")
    objective: SelfPlayWins = Field(
        default=SelfPlayWins(), description="How a round's pairs are learned from"
    )

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        self.sampling.must_differ(2)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or a goal within reach and one pass in rounds on the tiny model."""
        if scale == "paper":
            return cls()
        longest = 24 if scale == "smoke" else 72
        return cls(
            sampling=Sampling(n=5, temperature=0.7, top_p=0.9, max_tokens=longest),
            fitting=Fitting.at(scale),
            objective=SelfPlayWins(eta=10.0, training=BUDGET),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Each round, answer new prompts, compare all answers to each, and fit the log-ratios of
        best and worst to how often they win; the reference is the policy that answered.
        """
        judge = self.fitted(farm, start)
        policy = start.policy
        for number in range(1, self.rounds + 1):
            prompts = farm.share(start.instructions, number, self.rounds)
            answers = farm.generate(policy, prompts, self.sampling)
            pairs = farm.rank(farm.compare(answers, judge), self.wins())
            policy = farm.train(policy, pairs, self.objective)
        return policy

    def fitted(self, farm: Farm, start: Start) -> Reward | Pairwise:
        """The judge; one that reads two answers at once may read twice as far."""
        if self.judge == "pairwise":
            return farm.fit_pairwise(start.policy, start.preferences, self.fitting.for_two())
        return farm.fit_reward(start.policy, start.preferences, self.fitting)

    def wins(self) -> Winning:
        """Against whom an answer's wins count: `single` looks at a pair's two answers alone."""
        if self.objective.form == "single":
            return self.winning.replace(against="rival")
        return self.winning


def sppo_loss(logps: WinLogps, eta: float) -> Tensor:
    """Squared distance of the log-ratios from what the wins say; algorithm 1, halved as in the
    authors' code.

    ((d_w - eta (p_w - 1/2))^2 + (d_l - eta (p_l - 1/2))^2) / 2: d are summed log-ratios of policy
    to the round's start, p the probabilities to win against all samples, oneself included. All
    fields [B]; one loss per pair, [B].
    """
    chosen, rejected = log_ratios(logps)
    of_chosen = (chosen - eta * (logps.chosen_win - 0.5)) ** 2
    of_rejected = (rejected - eta * (logps.rejected_win - 0.5)) ** 2
    return (of_chosen + of_rejected) / 2


def sppo_single_loss(logps: WinLogps, eta: float) -> Tensor:
    """As `sppo_loss` where the chosen's wins are over the rejected alone, whose are the rest."""
    return sppo_loss(logps._replace(rejected_win=1 - logps.chosen_win), eta)


def sppo_hard_loss(logps: WinLogps, eta: float) -> Tensor:
    """(d_w - eta / 2)^2 + (d_l + eta / 2)^2: the chosen wins always, and nothing is halved (TRL's
    form).
    """
    chosen, rejected = log_ratios(logps)
    return (chosen - eta / 2) ** 2 + (rejected + eta / 2) ** 2
