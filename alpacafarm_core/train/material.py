"""Material: the rows of a table as examples of ids, without those that cannot be learned from."""

import logging
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.train.contracts import Origin, sound
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.reading import PROMPT, Instructions, Reader, Source, scanned
from alpacafarm_core.train.tokens import Example, Tokens, each_encoded, each_pair

log = logging.getLogger("alpacafarm.training")


class Material(NamedTuple):
    """What is learned from, how many rows were left out and why, and how many are odd.

    `numbers` are the numbers of the examples' rows in the table.
    """

    examples: Sequence[Example]
    left_out: dict[str, int]
    odd: dict[str, int]
    numbers: Sequence[int]


def material_of(data: Source, tokenizer: Any, of_pairs: bool, longest: int) -> Material:
    """The examples of a table, pairs or answers, without those of more than `longest` tokens."""
    rows = Reader(data, of_pairs)
    each = each_pair(rows, tokenizer) if of_pairs else each_encoded(rows, "output", tokenizer)
    whole = Corpus.of(each)
    fits = array("i", (at for at, length in enumerate(whole.lengths) if length <= longest))
    left_out = {"undecided": rows.undecided, "too_long": len(whole) - len(fits)}
    for reason, count in left_out.items():
        if count:
            log.warning("%d of %d rows left out: %s", count, rows.height, reason)
    if not fits:
        raise BadInput(
            f"none of {rows.height} rows can be learned from ({left_out}); "
            f"raise max_length ({longest}) or give other data"
        )
    kept, numbers = whole.take(fits), array("i", (rows.numbers[at] for at in fits))
    odd = sound(kept, tokenizer.eos_token_id, Origin(numbers, Instructions(data, numbers)))
    return Material(kept, left_out, odd, numbers)


def gold_of(data: Source, tokenizer: Any, material: Material, longest: int) -> Sequence[Tokens]:
    """The gold response of each row, cut to `longest` tokens with its prompt.

    Raises BadInput where the table or a row has none.
    """
    mend = "rank at least three answers a prompt, with a place for gold"
    if "gold" not in scanned(data).collect_schema():
        raise BadInput(f"these pairs have no gold response; {mend}")
    columns = [*PROMPT, "tokenizer", "gold", "gold_ids"]
    rows = scanned(data).select(columns).collect()[list(material.numbers)]
    without = (pl.col("gold").fill_null("") == "") & (pl.col("gold_ids").list.len() == 0)
    empty = rows.select(without).to_series().arg_true()
    if not empty.is_empty():
        row = material.numbers[empty[0]]
        raise BadInput(f"row {row}: this pair has no gold response; {mend}")
    encoded = each_encoded([rows], "gold", tokenizer)
    return Corpus.of(Tokens(p, response[: max(1, longest - len(p))]) for p, response in encoded)


def wins_of(data: Source, numbers: Sequence[int]) -> Tensor:
    """How probably the chosen and the rejected response of these rows win, [N, 2].

    Raises BadInput where the table does not say.
    """
    missing = BadInput("these pairs have no win rates; rank answers that were compared")
    if "win_1" not in scanned(data).collect_schema():
        raise missing
    rows = scanned(data).select("preference", "win_1", "win_2").collect()[list(numbers)]
    wins = rows.select("win_1", "win_2")
    if sum(wins.null_count().row(0)):
        raise missing
    first = torch.tensor((rows["preference"] == 1.0).to_list())
    found = torch.tensor(wins.rows())
    return torch.where(first[:, None], found, found.flip(1))
