"""Principles: what a responder is told to care for, so that answers differ in more than quality.

UltraFeedback (arXiv 2310.01377, section 2.2) gives each answer one principle as a system prompt,
drawn by the source of its instruction. The shares below are its README's; the released code has
others, which are a choice. The texts are our own; its eleven on harmlessness were never drawn.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from alpacafarm_core.ledger import digest
from alpacafarm_core.values import Value

TEXTS: Mapping[str, tuple[str, ...]] = {
    "helpfulness": (
        "Give an answer that the user can act on at once.",
        "Say what was asked for, and add what the user will need next.",
        "Be concrete: name things, give examples, leave nothing half said.",
        "Answer as an expert who enjoys the subject and wants to be understood.",
        "Think of what the user is really after, and serve that.",
        "Keep to the point, and make the point complete.",
        "Be correct first, then rich in detail, then pleasant to read.",
        "Leave the user knowing more than the question asked for.",
        "Put the answer in an order that is easy to follow.",
        "Choose facts that matter to this user and explain why they do.",
        "Answer kindly, fully and without detours.",
    ),
    "honesty": (
        "Say plainly how sure you are, and say so where you do not know.",
        "Be confident on what you know well and modest on all else.",
        "Mark every guess as a guess.",
        "It is better to admit a gap than to fill it with something invented.",
        "Use words such as perhaps and probably exactly where they are deserved.",
        "Do not claim to have seen, done or checked what you have not.",
        "Tell the user which part of the answer may be wrong.",
        "If the question is beyond you, say that first.",
        "Let your tone follow your knowledge: firm where it is firm.",
        "Do not hide doubt to please the user.",
        "Own the limits of what you can know about this.",
    ),
    "truthfulness": (
        "State only what is so.",
        "Keep to the facts and to the text you were given.",
        "Invent no names, numbers, sources or events.",
        "Where the question rests on a mistake, correct the mistake.",
        "Do not contradict the instruction, its input or yourself.",
        "Check each sentence against what is known before you write it.",
        "Leave out what you could not show to be true.",
        "A short true answer is worth more than a long one with errors.",
        "Repeat no popular belief that is false.",
        "Draw only conclusions that follow.",
        "Be exact: neither more nor less than the truth.",
    ),
    "calibration": (
        "End with how sure you are of the answer.\nWrite it on a line of its own, as a percentage "
        "from 0 to 100: Confidence: 80%",
    ),
}  # fmt: skip

Shares = Mapping[str, float]

USUAL: Shares = {"helpfulness": 60, "truthfulness": 20, "honesty": 18, "calibration": 2}

README: Mapping[str, Shares] = {
    "evol_instruct": {"helpfulness": 100},
    "false_qa": {"truthfulness": 100},
    "truthful_qa": {"truthfulness": 100},
    "flan": {"helpfulness": 60, "truthfulness": 20, "calibration": 20},
    "sharegpt": USUAL,
    "ultrachat": USUAL,
}
"""Percent of each principle by source, as the data set's README says."""

CODE: Mapping[str, Shares] = {
    **README,
    "false_qa": {"truthfulness": 50, "honesty": 45, "calibration": 5},
    "truthful_qa": {"truthfulness": 50, "honesty": 45, "calibration": 5},
    "flan": {"helpfulness": 80, "calibration": 20},
}
"""The same as the released code draws."""


class Principles(Value):
    """Which principle an answer is given under, by the source of its instruction."""

    table: Literal["readme", "code", "none"] = Field(
        default="readme", description="Shares of the README, the code, or none"
    )
    others: dict[str, float] = Field(
        default=dict(USUAL), min_length=1, description="Percent each, for other sources"
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw")

    @field_validator("others")
    @classmethod
    def _are_known(cls, others: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in others if name not in TEXTS]:
            raise ValueError(f"there is no principle {unknown[0]!r}; use {', '.join(TEXTS)}")
        if min(others.values()) < 0 or sum(others.values()) <= 0:
            raise ValueError("shares are at least 0, and one of them is more")
        return others

    def shares(self, source: str) -> Shares:
        """Percent of each principle for a source."""
        known = {"readme": README, "code": CODE, "none": dict[str, Shares]()}[self.table]
        return known.get(source, self.others)


class Principle(NamedTuple):
    """A principle's name and the text that stands for it; both "" for none."""

    name: str
    text: str


NONE = Principle("", "")


def principle_for(
    principles: Principles, source: str, prompt: tuple[str, str], responder: str
) -> Principle:
    """What a responder is told with a prompt (instruction, input); drawn by a hash of these."""
    if principles.table == "none":
        return NONE
    drawn = digest("principle", principles.seed, *prompt, responder)
    name = _at(int(drawn[:12], 16) / 16**12, principles.shares(source))
    texts = TEXTS[name]
    return Principle(name, texts[int(drawn[12:24], 16) % len(texts)])


def _at(share: float, shares: Shares) -> str:
    """The name at a place in [0, 1) of the shares laid end to end."""
    left = share * sum(shares.values())
    for name, size in shares.items():
        if left < size:
            return name
        left -= size
    return next(reversed(list(shares)))
