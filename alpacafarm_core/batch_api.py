"""The Batch API: the same requests as one file, answered within a day at half the price.

A batch is written down in `batches.jsonl` before it is made and again when it has an id, so that a
run that was killed goes on waiting for what is paid instead of paying again.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alpacafarm_core.completions import NoCompletion, api_key, body, path, read
from alpacafarm_core.ledger import call_key, digest
from alpacafarm_core.llm import Answer, Request, failed, in_order

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

HALF = 0.5
MEMORY = "batches.jsonl"
# What OpenAI takes in one file: so many requests, so many bytes.
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
_OVER = {"completed", "failed", "expired", "cancelled"}
_REJECTED = {400, 413, 422}
_NOT_FOUND = 404
_TAG = "alpacafarm"


class _Noted(NamedTuple):
    """A batch that was made, or was about to be when `id` is empty: the keys of its requests."""

    tag: str
    url: str
    keys: frozenset[str]
    id: str = ""


class BatchApi:
    """An `Ask` that streams, batch by batch; `folder` is where it remembers those under way.

    `poll` is in seconds. What fails gives failed answers, as with the client.
    """

    def __init__(self, base_url: str, folder: Path, poll: float = 15.0) -> None:
        self._base_url, self._poll = base_url, poll
        self._memory = _Memory(folder / MEMORY)

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests."""
        return in_order(self.arrivals(requests), len(requests))

    def arrivals(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """The answers of each batch, as it is over."""
        from openai import OpenAIError

        places: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(call_key(request), []).append(index)
        left = {key: requests[indices[0]] for key, indices in places.items()}
        try:
            for noted, answers in self._answers(left):
                yield [(i, answers[key]) for key in answers.keys() & left for i in places[key]]
                # Whoever asked has put them away, or they would not ask for more.
                self._memory.read(noted.tag, answers.keys() & left.keys())
                left = {key: request for key, request in left.items() if key not in answers}
        except OpenAIError as error:
            lost = failed(f"no batch from {self._base_url} ({_named(error)}); run again to go on")
            yield [(index, lost) for key in left for index in places[key]]

    def _answers(self, left: Mapping[str, Request]) -> Iterator[tuple[_Noted, dict[str, Answer]]]:
        waiting = self._under_way(left)
        remembered = {key for noted in waiting for key in noted.keys}
        waiting += self._made([left[key] for key in left if key not in remembered])
        while waiting:
            batches = [(noted, self._client.batches.retrieve(noted.id)) for noted in waiting]
            over = [(noted, batch) for noted, batch in batches if batch.status in _OVER]
            for noted, batch in over:
                waiting.remove(noted)
                yield noted, self._read(noted, batch)
            if waiting:
                time.sleep(self._poll)

    def _under_way(self, left: Mapping[str, Request]) -> list[_Noted]:
        """Batches made before that hold a request of these; those without an id are looked up."""
        held = [n for n in self._memory.noted(self._base_url) if not n.keys.isdisjoint(left)]
        if all(noted.id for noted in held):
            return held
        ids = {(batch.metadata or {}).get(_TAG): batch.id for batch in self._recent()}
        found = [noted._replace(id=noted.id or ids.get(noted.tag, "")) for noted in held]
        return [noted for noted in found if noted.id]

    def _recent(self) -> "list[Batch]":
        return self._client.batches.list(limit=100).data

    def _made(self, requests: Sequence[Request]) -> list[_Noted]:
        """New batches, one for each model and path, or several where one would be too large."""
        kinds = sorted(requests, key=_kind)
        return [
            self._make(target, some)
            for (_, target), group in groupby(kinds, key=_kind)
            for some in _files(group)
        ]

    def _make(self, target: str, lines: "Sequence[_Line]") -> _Noted:
        keys = frozenset(line.key for line in lines)
        tag = digest(str(time.time_ns()), *sorted(keys))
        noted = _Noted(tag, self._base_url, keys)
        self._memory.note(noted)
        content = b"".join(line.text for line in lines)
        file = self._client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = self._client.batches.create(
            input_file_id=file.id,
            endpoint=f"/v1{target}",  # type: ignore[arg-type]
            completion_window="24h",
            metadata={_TAG: tag},
        )
        self._memory.note(noted := noted._replace(id=batch.id))
        return noted

    def _read(self, noted: _Noted, batch: "Batch") -> dict[str, Answer]:
        """An answer for each request of a batch that is over; none came for some, perhaps."""
        none = failed(f"the batch is {batch.status}{_because(batch)} and has no answer to this")
        answers = dict.fromkeys(noted.keys, none)
        for id in filter(None, (batch.error_file_id, batch.output_file_id)):
            # Not by `splitlines`: a text in JSON may hold other ends of lines as they are.
            for line in self._client.files.content(id).content.split(b"\n"):
                answers |= _answered(line)
        return answers

    @cached_property
    def _client(self) -> "OpenAI":
        from openai import OpenAI

        return OpenAI(api_key=api_key(), base_url=self._base_url, max_retries=8)


class _Line(NamedTuple):
    """A request in a batch's file: the key it is known by, and its line."""

    key: str
    text: bytes


class _Memory:
    """The file that says which batches are under way; lines are only ever added."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, noted: _Noted) -> None:
        """A batch is about to be made, or has its id now."""
        self._add(noted._asdict() | {"keys": sorted(noted.keys)})

    def read(self, tag: str, keys: Iterable[str]) -> None:
        """What came for these requests of a batch was taken."""
        self._add({"tag": tag, "read": sorted(keys)})

    def noted(self, url: str) -> list[_Noted]:
        """The batches made at this URL, each with the requests whose answers were not taken."""
        held: dict[str, _Noted] = {}
        for line in self._lines():
            tag = line["tag"]
            if taken := line.pop("read", None):
                held[tag] = held[tag]._replace(keys=held[tag].keys.difference(taken))
            elif "keys" in line:
                held[tag] = _Noted(**line | {"keys": frozenset(line["keys"])})
        return [noted for noted in held.values() if noted.url == url]

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                # Of a line that a kill cut short nothing was done yet.
                with suppress(json.JSONDecodeError):
                    yield json.loads(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps(line))
            file.flush()
            os.fsync(file.fileno())


def _kind(request: Request) -> tuple[str, str]:
    """A batch is for one model and one path."""
    return request.model, path(request)


def _files(requests: Iterable[Request]) -> Iterator[list[_Line]]:
    """Lines for one file after the other, none larger than may be."""
    lines, size = list[_Line](), 0
    for request in requests:
        line = _line(request)
        if lines and (len(lines) == MOST_REQUESTS or size + len(line.text) > MOST_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line.text)
    yield lines


def _line(request: Request) -> _Line:
    key = call_key(request)
    held = {"custom_id": key, "method": "POST", "url": f"/v1{path(request)}", "body": body(request)}
    return _Line(key, json.dumps(held).encode() + b"\n")


def _answered(line: bytes) -> dict[str, Answer]:
    """The answer in a line of an output or error file by its request; none where it is torn."""
    try:
        held = json.loads(line)
        return {str(held["custom_id"]): _answer(held.get("response") or {})}
    except (AttributeError, LookupError, TypeError, ValueError):
        return {}


def _answer(response: Mapping[str, Any]) -> Answer:
    """An answer at half its price."""
    status = response.get("status_code", 0)
    if status != 200:
        return failed(f"HTTP {status}, in a batch", rejected=status in _REJECTED)
    try:
        return replace(read(response.get("body"), 0.0), discount=HALF)
    except NoCompletion as error:
        return failed(str(error))


def _because(batch: "Batch") -> str:
    """The code of the first error of a batch that was refused as a whole."""
    errors = batch.errors.data if batch.errors else None
    return f" ({errors[0].code})" if errors else ""


def _named(error: Exception) -> str:
    """What went wrong, without the server's own words, as they may repeat the key."""
    status = getattr(error, "status_code", None)
    if status == _NOT_FOUND:
        return f"HTTP {status}: set the key that it was made with, or forget it in {MEMORY}"
    return f"HTTP {status}" if status else type(error).__name__
