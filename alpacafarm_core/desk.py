"""A desk: an annotator with one of its templates, made ready to ask, to pay and to read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from alpacafarm_core.answers import Verdict, read
from alpacafarm_core.ledger import Call, digest
from alpacafarm_core.llm import Answer, Request
from alpacafarm_core.panel import Annotator
from alpacafarm_core.templates import Example, Template, compiled, shortened

_REFUSED = Verdict(None, "refused")


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
        return digest(judge.model, judge.endpoint, judge.api, *sampling, self.text)

    def row_key(self, example: Example) -> str:
        """Digest of everything about a row that reaches the judge, batch mates left out."""
        return digest(self._key, *example)

    def request(self, examples: Sequence[Example]) -> Request:
        """One call about these examples, at most a batch of them."""
        judge, size = self.annotator, len(examples)
        if size not in self.templates:
            self.templates[size] = compiled(shortened(self.text, size), judge.api)
        return Request(
            judge.model,
            self.templates[size].fill(examples),
            judge.temperature,
            judge.max_tokens,
            self.seed,
            endpoint=judge.endpoint,
        )

    def price(self, answer: Answer) -> float:
        """US dollars for one answer."""
        tokens = answer.prompt_tokens + answer.completion_tokens
        return tokens / 1000 * self.annotator.price_per_1k_tokens + self.annotator.price_per_call

    def read(self, call: Call) -> list[Verdict] | None:
        """Verdicts on the examples of a call, each text read once."""
        if call.key not in self.readings:
            verdicts = read(call.text, self.annotator.answer, call.size)
            filtered = call.finish_reason == "content_filter" and not call.text
            self.readings[call.key] = [_REFUSED] * call.size if filtered else verdicts
        return self.readings[call.key]
