"""UltraFeedback: four of a pool of models answer each instruction, and a judge rates the answers
aspect by aspect; Cui et al. 2023 (arXiv 2310.01377).

The paper fits a reward model to the ratings and goes on with best-of-n and PPO; Zephyr (Tunstall et
al. 2023, arXiv 2310.16944) and those after it train a policy on pairs of them by DPO, which is what
is done unless told otherwise. Left out: the three models of the paper's pool that no folder holds
(GPT-4, GPT-3.5-turbo and Bard), and its mixtures with other data sets for the reward model. On the
built-in world the pool is the tiny model before training, after a hasty SFT, after SFT, and after
SFT with DPO or with best-of-4 from the panel's labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core import assessors
from alpacafarm_core.artifacts import Candidates, Instructions, Pooled, Ranked
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.binarise import Binarisation
from alpacafarm_core.chats import CHATS
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.fitting import Margin
from alpacafarm_core.method import Method
from alpacafarm_core.methods.best_of_n import BestOfN
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.mixture import Mixture
from alpacafarm_core.principles import Principles
from alpacafarm_core.proximal import ProximalObjective
from alpacafarm_core.ratings import Critiques, Ratings
from alpacafarm_core.responders import ALPACA, Drawing, Seat
from alpacafarm_core.settings import BUDGET, Fitting, Rule, Sampling, Scale, Training
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Policy

PAPER, ZEPHYR = "Cui et al. 2023", "Tunstall et al. 2023 (Zephyr)"
ULTRARM = Fitting(
    training=Training(learning_rate=1e-5, epochs=1, batch=512, max_length=2048), margin=Margin()
)
ULTRACM = SFT(training=Training(learning_rate=2e-5, epochs=2, batch=256, max_length=2048))


class Responder(Value):
    """A model of the pool: where it is from, what is done to it first, and how it is asked."""

    name: str = Field(min_length=1, description="What it is called in tables")
    model: str = Field(default="start", description="start, base, writer, or a folder or name")
    after: Annotated[SFT | DPO | BestOfN | None, Field(discriminator="name")] = Field(
        default=None, description="Method it goes through before it answers"
    )
    skill: float = Field(default=0.6, ge=0, le=1, description="Of a writer of the world")
    layout: str = Field(default=ALPACA, description="Order of principle and prompt")

    @model_validator(mode="after")
    def _is_asked(self) -> Self:
        if self.model == "writer" and self.after is not None:
            raise ValueError(f"responder {self.name}: a writer learns nothing; leave `after` out")
        return self

    @property
    def seat(self) -> Seat:
        """How it is asked."""
        return Seat(name=self.name, layout=self.layout)

    def policy(self, farm: Farm, start: Start) -> Policy:
        """The model that answers."""
        known = {"start": start.policy, "base": start.base}
        model = known.get(self.model) or farm.adopt(self.model)
        if self.after is None:
            return model
        return self.after.optimise(farm, start.replace(base=model, policy=model))


POOL = tuple(Responder(name=name, model=model, layout=how) for name, model, how in CHATS)


class Learning(Value):
    """What is made of rated answers: a policy by DPO, or a reward model and what it is good for."""

    by: Literal["dpo", "ppo", "best_of_n"] = Field(default="dpo", description="Which of the three")
    pairs: Binarisation = Field(
        default=Binarisation(name="argilla"), description="Pairs that DPO learns from"
    )
    comparisons: Binarisation = Field(
        default=Binarisation(name="all-pairs"), description="Pairs for the reward model"
    )
    dpo: DPO = Field(
        default=DPO(
            training=Training(
                learning_rate=5e-7,
                epochs=3,
                batch=32,
                schedule="linear",
                warmup=0.1,
                max_length=1024,
            )
        ),
        description="Training on pairs",
    )
    ppo: PPO = Field(
        default=PPO(
            fitting=ULTRARM,
            objective=ProximalObjective(
                steps=80,
                rollouts=512,
                minibatch=64,
                sampling=Sampling(temperature=1.0, max_tokens=1024),
                training=Training(
                    learning_rate=1e-6, schedule="constant", warmup=0.0, max_length=2048
                ),
            ),
        ),
        description="Training on scored answers",
    )
    best_of_n: BestOfN = Field(
        default=BestOfN(n=16, fitting=ULTRARM), description="Choosing among answers"
    )

    @model_validator(mode="after")
    def _stage_by_stage(self) -> Self:
        if self.by == "dpo" and self.pairs.name == "triple":
            raise ValueError("DPO has no use for the gold of a triple; choose best-worst pairs")
        return self

    @property
    def method(self) -> DPO | PPO | BestOfN:
        """The one of the three."""
        chosen: DPO | PPO | BestOfN = getattr(self, self.by)
        return chosen

    @property
    def binarisations(self) -> tuple[Binarisation, ...]:
        """The pairs it needs, one table a stage."""
        if self.by != "dpo":
            return (self.comparisons,)
        if self.pairs.name == "curriculum" and not self.pairs.stage:
            return tuple(self.pairs.replace(stage=stage) for stage in (1, 2, 3))
        return (self.pairs,)


class UltraFeedback(Method):
    """Learn from answers of many models that a judge has rated for four aspects."""

    sources: ClassVar[Mapping[str, str]] = {
        "mixture": f"{PAPER}, section 2.1",
        "mixture.evaluated": "AlpacaFarm's evaluation prompts",
        "pool": f"{PAPER}, section 2.2; folders of the hub are our choice",
        "each": f"{PAPER}: four models an instruction",
        "principles.table": f"{PAPER}, README of the data; the code differs",
        "principles.others": "ours: as for ShareGPT and UltraChat",
        "sampling": f"{PAPER}, released code",
        "raters": f"{PAPER}: one large model, greedy, for all aspects",
        "critic": f"{PAPER}: the same model, an answer a call",
        "learning.by": ZEPHYR,
        "learning.pairs": "argilla's ultrafeedback-binarized-preferences",
        "learning.comparisons": f"{PAPER}: every two answers rated apart",
        "learning.dpo": ZEPHYR,
        **{
            f"learning.{learner}.fitting{setting}": source
            for learner in ("ppo", "best_of_n")
            for setting, source in (
                ("", f"{PAPER}, UltraRM"),
                (".training.max_length", "ours: not found"),
                (".held_out", "AlpacaFarm's reward model"),
                (".above_length", "ours: as everywhere"),
            )
        },
        "learning.ppo.objective": "AlpacaFarm's PPO; the paper's was not found",
        **dict.fromkeys(
            [
                f"learning.ppo.objective.{name}"
                for name in ("steps", "rollouts", "minibatch", "training.learning_rate",
                             "training.schedule", "training.warmup")
            ],
            f"{PAPER}, UltraLM-13B-PPO",
        ),
        "learning.ppo.compat": "ours: off",
        "learning.best_of_n": f"{PAPER}: the largest of 1, 2, 4, 8, 16",
        "learning.best_of_n.compat": "ours: off",
        "ultracm": f"{PAPER}, UltraCM",
        "ultracm.training.max_length": "ours: not found",
    }  # fmt: skip

    name: Literal["ultrafeedback"] = "ultrafeedback"
    mixture: Mixture = Field(default=Mixture(), description="Instructions of many sources")
    pool: tuple[Responder, ...] = Field(default=POOL, min_length=1, description="Who may answer")
    each: int = Field(default=4, ge=1, description="Models that answer each instruction")
    principles: Principles = Field(default=Principles(), description="What they are told")
    sampling: Sampling = Field(
        default=Sampling(n=1, temperature=1.0, max_tokens=1024), description="How they answer"
    )
    raters: str = Field(default="ultrafeedback", description="Panel that rates the answers")
    critic: str = Field(default="ultrafeedback", description="Panel for overall scores")
    learning: Learning = Field(default=Learning(), description="What is made of the ratings")
    ultracm: SFT = Field(default=ULTRACM, description="Training of a critique model")
    seed: int = Field(default=0, ge=0, description="Seed of who answers")

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.sampling.n != 1:
            raise ValueError(
                f"each responder answers once; set sampling.n to 1, not {self.sampling.n}"
            )
        self.drawing()
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or a pool of five policies of the world's tiny model."""
        return cls() if scale == "paper" else cls(**_small(scale))

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Mix instructions of many sources; four models of the pool answer each, told a principle;
        rate the answers aspect by aspect; learn from pairs of them.
        """
        self.rating_panel(), self.critics()  # refused here, before anybody answers
        prompts = farm.mix(start.instructions, start.source, self.mixture)
        ratings = self.rated(farm, self.answers(farm, start, prompts))
        begun = start.replace(instructions=prompts)
        for pairs in self.pairs(farm, ratings):
            policy = self.learning.method.optimise(farm, begun.replace(preferences=pairs))
            begun = begun.replace(policy=policy)
        return begun.policy

    def answers(self, farm: Farm, start: Start, prompts: Instructions) -> Pooled:
        """Each responder's answers to the prompts it drew, as one table."""
        drawing = self.drawing()
        told = [self.answered(farm, start, prompts, each) for each in self.pool]
        return farm.gather(prompts, drawing, tuple(told))

    def answered(
        self, farm: Farm, start: Start, prompts: Instructions, responder: Responder
    ) -> Candidates:
        """One responder's answers."""
        asked = farm.draw(prompts, self.drawing(), responder.seat)
        if responder.model == "writer":
            return farm.write(asked, start.source, responder.skill)
        return farm.generate(responder.policy(farm, start), asked, self.sampling)

    def rated(self, farm: Farm, answers: Pooled) -> Ratings:
        """The answers with a mark for each aspect; with an overall score where pairs go by it."""
        ratings = farm.rate(answers, self.rating_panel())
        if all(each.column == "fine" for each in self.learning.binarisations):
            return ratings
        return farm.repair(ratings, self.criticised(farm, answers), self.critics())

    def criticised(self, farm: Farm, answers: Pooled) -> Critiques:
        """The answers with a tutor's feedback and an overall score each."""
        return farm.critique(answers, self.critics())

    def pairs(self, farm: Farm, ratings: Ratings) -> list[Ranked]:
        """The pairs of each stage; one table but for a curriculum."""
        return [farm.rank(ratings, each) for each in self.learning.binarisations]

    def critique_model(self, farm: Farm, start: Start) -> Policy:
        """UltraCM: the base model, trained on what the critic said of every answer."""
        prompts = farm.mix(start.instructions, start.source, self.mixture)
        critiques = self.criticised(farm, self.answers(farm, start, prompts))
        return farm.train(start.base, farm.select(critiques, Rule(keep="critiques")), self.ultracm)

    def rating_panel(self) -> Assessors:
        """Who gives marks."""
        return assessors.load(self.raters, "rating", self.seed)

    def critics(self) -> Assessors:
        """Who gives feedback and overall scores."""
        return assessors.load(self.critic, "critique", self.seed)

    def drawing(self) -> Drawing:
        """Who answers what."""
        names = tuple(each.name for each in self.pool)
        return Drawing(responders=names, each=self.each, principles=self.principles, seed=self.seed)


def _small(scale: Scale) -> dict[str, Any]:
    """The settings for the world's tiny model; as many steps of training as every method has."""
    is_smoke, fitting = scale == "smoke", Fitting.at(scale)
    counts = (10, 8, 6, 5, 3) if is_smoke else (313, 234, 194, 160, 99)
    sources = ("selfinstruct", "oasst", "koala", "helpful_base", "vicuna")
    ultrarm = fitting.replace(margin=Margin(), held_out=20 if is_smoke else 500)
    picking = BestOfN(n=4, temperature=0.7, fitting=fitting)
    hasty = SFT.at(scale).training.replace(batch=256)
    return {
        "mixture": Mixture(
            counts=dict(zip(sources, counts, strict=True)), evaluated=32 if is_smoke else 805
        ),
        "pool": (
            Responder(name="base", model="base"),
            Responder(name="hasty", model="base", after=SFT(training=hasty)),
            Responder(name="sft"),
            Responder(name="dpo", after=DPO.at(scale)),
            Responder(name="best_of_4", after=picking),
        ),
        "sampling": Sampling(temperature=0.7, max_tokens=24 if is_smoke else 72),
        "raters": "world",
        "critic": "world",
        "learning": Learning(
            dpo=DPO(training=BUDGET.replace(epochs=3 if is_smoke else 4)),
            ppo=PPO.at(scale).replace(fitting=ultrarm),
            best_of_n=BestOfN.at(scale).replace(fitting=ultrarm),
        ),
        "ultracm": SFT(training=SFT.at(scale).training.replace(epochs=2, max_length=512)),
    }
