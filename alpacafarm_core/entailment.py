"""Whether one answer follows from another, by a model fine-tuned on MNLI.

The prompt stands before both. Pairs too long for the model lose words at the beginning of the
longer side, so that both ways round lose the same; how many pairs did is recorded.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Clusters
from alpacafarm_core.clustering import Entailment, Question, clustered
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.models import autocast, begin


class Verdict(IntEnum):
    """What a hypothesis is to its premise."""

    CONTRADICTION = 0
    NEUTRAL = 1
    ENTAILMENT = 2


Texts = tuple[str, str]
Judge = Callable[[Sequence[Texts]], Sequence[Verdict]]


def equal(rule: str, forth: Verdict, back: Verdict) -> bool:
    """Whether two answers count as equal, from the verdict on each way round."""
    both = (forth, back)
    if rule == "both_entail":
        return both == (Verdict.ENTAILMENT, Verdict.ENTAILMENT)
    if Verdict.CONTRADICTION in both:
        return False
    return rule == "no_contradiction" or Verdict.ENTAILMENT in both


def asking(clustering: Entailment, judge: Judge) -> Callable[[Sequence[Question]], list[bool]]:
    """Answers to questions by what a judge of premise and hypothesis says of both ways round."""

    def ask(asked: Sequence[Question]) -> list[bool]:
        forth = [(beside(one, one.first), beside(one, one.other)) for one in asked]
        verdicts = judge([*forth, *((two, one) for one, two in forth)])
        ways = zip(verdicts[: len(asked)], verdicts[len(asked) :], strict=True)
        return [equal(clustering.rule, *both) for both in ways]

    return ask


def beside(question: Question, answer: str) -> str:
    """An answer behind its prompt."""
    return "\n".join(part for part in (*question.prompt, answer) if part)


def write(
    folder: Path, scored: Path, clustering: Entailment, out: Path, machine: Machine
) -> dict[str, int]:
    """Clusters of Scores as Parquet in the file `out`; how many pairs were judged and shortened.

    `folder` holds the model; raises BadInput where its labels are not those of MNLI.
    """
    machine.claim()
    reader = Reader.of(folder, clustering, machine)
    rows = clustered(pl.read_parquet(scored), asking(clustering, reader.judge))
    parts.lay([rows], Clusters.columns, out)
    return dict(reader.counts)


class Reader(NamedTuple):
    """A model that reads premise and hypothesis; `labels` are its classes, in their order."""

    model: Any
    tokenizer: Any
    labels: tuple[Verdict, ...]
    most: int
    machine: Machine
    counts: dict[str, int]

    @classmethod
    def of(cls, folder: Path, clustering: Entailment, machine: Machine) -> "Reader":
        """The model of a folder, on this machine."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        seen = getattr(model.config, "max_position_embeddings", clustering.max_length)
        most = min(clustering.max_length, seen, tokenizer.model_max_length)
        labels = _labels(model.config.id2label, folder)
        counts = {"judged": 0, "shortened": 0}
        return cls(model.to(begin(machine)).eval(), tokenizer, labels, most, machine, counts)

    @torch.no_grad()
    def judge(self, pairs: Sequence[Texts]) -> list[Verdict]:
        """The likeliest verdict on each premise and hypothesis, those of like length together."""
        fitted = [self._fitted(pair) for pair in pairs]
        found = [Verdict.NEUTRAL] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda at: len(fitted[at][0]) + len(fitted[at][1]))
        size = self.machine.micro_batch
        for some in (order[start : start + size] for start in range(0, len(order), size)):
            texts = [list(side) for side in zip(*(fitted[at] for at in some), strict=True)]
            batch = self.tokenizer(
                *texts, truncation=True, max_length=self.most, padding=True, return_tensors="pt"
            )
            with autocast(self.machine):
                logits = self.model(**batch.to(begin(self.machine))).logits
            for at, best in zip(some, logits.argmax(-1).tolist(), strict=True):
                found[at] = self.labels[best]
        self.counts["judged"] += len(pairs)
        return found

    def _fitted(self, pair: Texts) -> Texts:
        """The pair as it is, or the ends of its sides that fit the model together."""
        known = self.tokenizer(list(pair), add_special_tokens=False, return_offsets_mapping=True)
        starts = [[start for start, _ in side] for side in known["offset_mapping"]]
        room = self.most - self.tokenizer.num_special_tokens_to_add(pair=True)
        sizes = (len(starts[0]), len(starts[1]))
        kept = shared(sizes, room)
        if kept == sizes:
            return pair
        self.counts["shortened"] += 1
        whole = zip(pair, starts, kept, strict=True)
        first, second = (text[begun[-keep] :] if begun else text for text, begun, keep in whole)
        return first, second


def shared(sizes: tuple[int, int], room: int) -> tuple[int, int]:
    """How many tokens each side may keep: the longer loses first, both more than half in equal.

    >>> shared((10, 300), 200), shared((300, 300), 200)
    ((10, 190), (100, 100))
    """
    if sum(sizes) <= room:
        return sizes
    half = room // 2
    if min(sizes) <= half:
        return (sizes[0], room - sizes[0]) if sizes[0] <= half else (room - sizes[1], sizes[1])
    return half, half


def _labels(named: dict[int, str], folder: Path) -> tuple[Verdict, ...]:
    """The classes of a model by their names; raises BadInput where they are not MNLI's."""
    by_name = {verdict.name.lower(): verdict for verdict in Verdict}
    names = [str(named[at]).lower() for at in sorted(named)]
    if sorted(names) != sorted(by_name):
        raise BadInput(
            f"{folder}: its classes are {', '.join(names)}, not entailment, neutral and "
            "contradiction; name a model fine-tuned on MNLI, with id2label in its config"
        )
    return tuple(by_name[name] for name in names)
