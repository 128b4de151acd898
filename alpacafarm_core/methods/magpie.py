"""Magpie: an aligned model invents the instructions as well as the answers; Xu et al. 2024 (arXiv
2406.08464).

Given only the text before a user's turn, the model writes a plausible user's turn. Its own answers
to many of these, sifted, are what the base model learns from; pairs of its best and worst answers
may follow. Here the SFT policy is the aligned model: it answers better than the base, and trained
on answers alone it still asks what the base would ask. What the evaluation asks is taken out.

Left out: the mixture with instructions for mathematics, and answers by a larger model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.opposing import Opposing
from alpacafarm_core.settings import Fitting, Sampling, Scale, Training
from alpacafarm_core.synthesis import Filtering, Inventing, Nearness, Read, Shard, Synthesis
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Policy

ENCODER = "sentence-transformers/all-mpnet-base-v2"


class Contrast(Value):
    """Pairs of a model's own answers to what it invented, and how they are learned."""

    sampling: Sampling = Field(
        default=Sampling(n=5, temperature=0.8, max_tokens=4096), description="How answers are drawn"
    )
    opposing: Opposing = Field(default=Opposing(), description="Which answers make a pair")
    objective: DPO = Field(
        default=DPO(
            training=Training(learning_rate=5e-7, epochs=1, batch=128, warmup=0.1, max_length=2048)
        ),
        description="Training on the pairs",
    )


class Magpie(Method):
    """Learn from instructions that a model asks itself when nobody asks it anything."""

    sources: ClassVar[Mapping[str, str]] = {
        "synthesis.inventing": "Xu et al. 2024, released code",
        "synthesis.inventing.shards": "Xu et al. 2024: Magpie-Air, three million draws",
        "synthesis.inventing.layout": "ours: the wording the policy was trained on",
        "synthesis.inventing.inputs": "ours: Alpaca's prompts with an input; the paper has none",
        "synthesis.inventing.tidy": "Xu et al. 2024, released code: off for most models",
        "synthesis.inventing.first_temperature": "Xu et al. 2024, released code: off, else 1.2",
        "synthesis.inventing.never_first": "Xu et al. 2024, released code: for Llama-3.1 alone",
        "synthesis.answering": "Xu et al. 2024: greedy",
        "synthesis.turns": "Xu et al. 2024: single turns",
        "synthesis.following": "ours: the idea of Xu et al. 2024 in words of our own",
        "synthesis.taggers": "ours: a shipped panel; the paper asks Llama-3-8B-Instruct",
        "synthesis.nearness": "Xu et al. 2024, released code",
        "synthesis.nearness.embedding": "ours: unless an encoder is named",
        "synthesis.filtering": "Xu et al. 2024, released notebook",
        "synthesis.filtering.language": "ours: any",
        "synthesis.filtering.unfinished": "ours: answers that were cut off teach not to end",
        "encoder": "Xu et al. 2024, released code",
        "compares": "Xu et al. 2024: the base model's answer, for the difference of rewards",
        "fitting": "AlpacaFarm's reward model recipe; the paper takes FsfairX's",
        "imitating": "Xu et al. 2024: 2e-5, two epochs, batch 32, 100 of 18,750 steps warming up",
        "contrast": "Xu et al. 2024: none, or DPO on best and worst of five",
    }

    name: Literal["magpie"] = "magpie"
    synthesis: Synthesis = Field(
        default=Synthesis(taggers="local"), description="How data is made from the policy"
    )
    encoder: str = Field(default=ENCODER, description="Model for near duplicates; empty: spelling")
    compares: bool = Field(default=True, description="Score the base's answers too")
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    imitating: SFT = Field(
        default=SFT(
            training=Training(learning_rate=2e-5, epochs=2, batch=32, warmup=0.005, max_length=8192)
        ),
        description="Training of the base",
    )
    contrast: Contrast | None = Field(default=None, description="Pairs to learn from afterwards")

    @model_validator(mode="after")
    def _has_answers_to_oppose(self) -> Self:
        if self.contrast is not None:
            self.contrast.sampling.must_differ(2)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or a few thousand draws for the world's tiny model."""
        if scale == "paper":
            return cls()
        is_smoke = scale == "smoke"
        count, kept, longest = (60, 64, 40) if is_smoke else (3000, 4000, 72)
        shards = (Shard(count=count), Shard(temperature=1.1, top_p=0.99, count=count))
        synthesis = Synthesis(
            inventing=Inventing(shards=shards, inputs=4, max_tokens=96, words=()),
            answering=Sampling(temperature=0.0, max_tokens=longest),
            taggers="world",
            filtering=Filtering(reward_above=None, difference_above=0.0, longest=kept),
        )
        return cls(
            synthesis=synthesis,
            encoder="",
            fitting=Fitting.at(scale),
            imitating=SFT.at(scale),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Have the policy ask and answer itself, sift what comes of it, and train the base on the
        rest; then, if asked to, on pairs of the policy's best and worst answers.
        """
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        synthesis = self.synthesis.replace(nearness=self.nearness(farm))
        base = start.base if self.compares else None
        made = farm.synthesise(start.policy, synthesis, start.source, reward, base)
        policy = farm.train(start.base, made, self.imitating)
        if self.contrast is None:
            return policy
        answers = farm.generate(start.policy, made, self.contrast.sampling)
        pairs = farm.rank(farm.score(answers, reward), self.contrast.opposing)
        return farm.train(policy, pairs, self.contrast.objective)

    def nearness(self, farm: Farm) -> Nearness:
        """When two instructions are near duplicates, the encoder taken in where one is named."""
        if not self.encoder:
            return self.synthesis.nearness
        return self.synthesis.nearness.replace(embedding=Read(model=farm.adopt(self.encoder)))
