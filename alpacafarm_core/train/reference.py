"""What a policy makes of responses somebody else wrote: their log-probabilities, token by token.

Looked at once, kept as a table, shared by every training that is measured against that policy.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Logps
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Looking
from alpacafarm_core.train.batches import Room, alike, batch_of
from alpacafarm_core.train.corpus import Corpus, Known
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.lora import base_of
from alpacafarm_core.train.material import Material, material_of
from alpacafarm_core.train.models import Loaded, autocast, begin, fits, load_policy, sharing
from alpacafarm_core.train.reading import PART, in_parts, scanned
from alpacafarm_core.train.tokens import Example, Pair, Tokens, responses_of


def look(policy: Path, data: Path, looking: Looking, out: Path, machine: Machine) -> int:
    """Log-probabilities of every response in a table, as Logps in the file `out`; how many.

    Rows that a training with this `max_length` would leave out are left out.
    """
    with torch.random.fork_rng():
        loaded = load_policy(policy, machine)
        fits(loaded, policy, looking.max_length)
        of_pairs = "preference" in scanned(data).collect_schema()
        material = material_of(data, loaded.tokenizer, of_pairs, looking.max_length)
        if looking.responses == "mismatched":
            material = mismatched(material, looking.max_length)
        known = reference_logprobs(loaded, material.examples, machine)
    return parts.lay(_rows(material, known), Logps.columns, out)


def noted(file: Path, material: Material) -> Known:
    """What `look` wrote about these examples; raises BadInput where it is about others."""
    known, written = Known(len(material.examples), _sides(material.examples)), _written(file)
    for at, example in enumerate(material.examples):
        for side, response in enumerate(responses_of([example])):
            row, logprobs = next(written, (-1, []))
            if row != material.numbers[at] or len(logprobs) != len(response.response):
                raise BadInput(
                    f"row {material.numbers[at]}: {file.parent.name} is about other responses; "
                    "forget it and run again"
                )
            known.note(at, side, torch.tensor(logprobs))
    return known


@torch.no_grad()
def reference_logprobs(reference: Loaded, examples: Sequence[Example], machine: Machine) -> Known:
    """Log-probability of each token of each example's responses, chosen before rejected."""
    device = begin(machine)
    known = Known(len(examples), _sides(examples))
    for rows in alike(examples, range(len(examples)), Room.of(machine)):
        some = [examples[row] for row in rows]
        batch = batch_of(some, sharing(reference.model), machine.packs())
        with autocast(machine), base_of(reference.model):
            found = response_logprobs(reference.model, batch.to(device))
        places = [(row, side) for side in range(known.sides) for row in rows]
        for place, response, logprobs in zip(places, responses_of(some), found, strict=True):
            known.note(*place, logprobs[: len(response.response)])
    return known


def mismatched(material: Material, longest: int) -> Material:
    """Each prompt with the chosen response of the row before (of the first one: the last), cut."""
    examples = material.examples

    def made(at: int) -> Tokens:
        here, before = responses_of([examples[at]])[0], responses_of([examples[at - 1]])[0]
        return Tokens(here.prompt, before.response[: max(1, longest - len(here.prompt))])

    return material._replace(examples=Corpus.of(made(at) for at in range(len(examples))))


def _rows(material: Material, known: Known) -> Iterator[pl.DataFrame]:
    for start in range(0, len(material.examples), PART):
        some = range(start, min(start + PART, len(material.examples)))
        rows = [
            (material.numbers[at], side, known.of(at, side).tolist())
            for at in some
            for side in range(known.sides)
        ]
        yield pl.DataFrame(rows, schema=Logps.columns, orient="row")


def _written(file: Path) -> Iterator[tuple[int, list[float]]]:
    for part in in_parts(file, ["row", "logprobs"]):
        yield from part.iter_rows()


def _sides(examples: Sequence[Example]) -> int:
    return 2 if isinstance(examples[0], Pair) else 1
