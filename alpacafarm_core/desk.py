"""A desk: an annotator with one of its templates, made ready to ask, to pay and to read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from alpacafarm_core.answers import Said, Verdict, read
from alpacafarm_core.ledger import Call, digest
from alpacafarm_core.llm import WORLD, Request
from alpacafarm_core.panel import Annotator
from alpacafarm_core.prices import Rates, rates
from alpacafarm_core.prompts import merged
from alpacafarm_core.templates import Example, Template, compiled, shortened
from alpacafarm_core.world.judges import manner

_REFUSED = Verdict(None, "refused")
PADDING = Example("1+1=", "", "2", "3")


@dataclass(frozen=True)
class Desk:
    """An annotator with one of its two templates, made ready."""

    annotator: Annotator
    text: str
    seed: int
    templates: dict[int, Template] = field(default_factory=dict)
    readings: dict[str, list[Verdict] | None] = field(default_factory=dict)

    @cached_property
    def prompt_digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the template's text."""
        return digest(self.text)[:16]

    @cached_property
    def _key(self) -> str:
        judge = self.annotator
        sampling = (judge.temperature, judge.max_tokens, self.seed)
        further = (judge.top_p, judge.top_logprobs, self._extra, judge.pads)
        told = further if further != (1.0, 0, "", False) else ()
        if judge.endpoint == WORLD:
            told = (*told, manner(judge.model))
        return digest(judge.model, judge.endpoint, judge.api, *sampling, self.text, *told)

    @cached_property
    def _extra(self) -> str:
        body = self.annotator.body()
        return json.dumps(body, sort_keys=True) if body else ""

    def shown(self, example: Example) -> Example:
        """The example as this template shows it: without a place for input, one text holds both."""
        if not example.input or "{input}" in self.text:
            return example
        return example._replace(instruction=merged(example.instruction, example.input), input="")

    def row_key(self, example: Example) -> str:
        """Digest of everything about a row that reaches the judge, batch mates left out."""
        return digest(self._key, *example)

    def request(self, examples: Sequence[Example]) -> Request:
        """One call about these examples, at most a batch of them."""
        judge = self.annotator
        if judge.pads:
            examples = [*examples, *[PADDING] * (judge.batch - len(examples))]
        size = len(examples)
        if size not in self.templates:
            self.templates[size] = compiled(shortened(self.text, size), judge.api)
        return Request(
            judge.model,
            self.templates[size].fill(examples),
            judge.temperature,
            judge.max_tokens,
            self.seed,
            judge.top_p,
            judge.top_logprobs,
            judge.endpoint,
            self._extra,
        )

    @cached_property
    def rates(self) -> Rates:
        """What its calls cost; raises BadInput where no price is known."""
        return rates(self.annotator)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest answers that a call can ask for."""
        return self.annotator.longest(self.annotator.max_tokens)

    def read(self, call: Call) -> list[Verdict] | None:
        """Verdicts on the examples of a call, each text read once."""
        if call.key not in self.readings:
            said = Said(call.text, tuple(json.loads(call.logprobs)))
            size = self.annotator.batch if self.annotator.pads else call.size
            verdicts = read(said, self.annotator.answer, size)
            if verdicts is None and call.size == 1:
                # Padding leaves no smaller question: what is refused stays so, and is not failed.
                verdicts = read(said, self.annotator.answer, 1)
            filtered = call.finish_reason == "content_filter" and not call.text
            self.readings[call.key] = [_REFUSED] * call.size if filtered else verdicts
        return self.readings[call.key]
