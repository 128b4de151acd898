"""A number for each branch of a layer, by models that read its tokens as they were sampled."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Branches
from alpacafarm_core.branches import scored_by
from alpacafarm_core.committees import Judges
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import CHUNK
from alpacafarm_core.machine import Machine
from alpacafarm_core.scoring import scorer
from alpacafarm_core.train.batches import encode
from alpacafarm_core.train.models import Loaded, load_policy
from alpacafarm_core.train.reference import reference_logprobs
from alpacafarm_core.train.tokens import Tokens, tokenizer_digest
from alpacafarm_core.trees import PrefixLogps, partial_scores, random_score
from alpacafarm_core.weights import Ranker


class Readers(NamedTuple):
    """Where the models lie that a ranker reads with; the rest is None."""

    dpo: Path | None = None
    dpo_reference: Path | None = None
    reward: Judges | None = None


def write(
    models: tuple[Path | None, Path | None, Judges | None],
    branches: Path,
    share: tuple[int, int],
    ranker: Ranker,
    out: Path,
    machine: Machine,
) -> int:
    """Branches with their `score` as Parquet in the file `out`, never held whole; how many.

    `models` are the folders of the DPO policy, of its reference and of the reward model, as far as
    the ranker reads them; `share` is the first row to score and the number of rows.
    """
    return parts.lay(
        ranked(Readers(*models), _chunks(branches, share), ranker, machine), Branches.columns, out
    )


def ranked(
    readers: Readers, chunks: Iterator[pl.DataFrame], ranker: Ranker, machine: Machine
) -> Iterator[pl.DataFrame]:
    """Each chunk with its scores; a branch that the same ranker has scored before keeps its own.

    Raises BadInput where a policy does not read the tokens that the branches are made of.
    """
    with ExitStack() as left, torch.random.fork_rng():
        judge = left.enter_context(scorer(readers.reward, machine)) if readers.reward else None
        policies = {each: load_policy(each, machine) for each in readers[:2] if each}
        known = {each: tokenizer_digest(held.tokenizer) for each, held in policies.items()}
        for rows in chunks:
            _check_tokens(known, rows)
            fresh = rows.filter(~scored_by(ranker.label))
            if fresh.is_empty():
                scores = []
            elif judge:
                scores = judge.score(fresh)
            elif policies:
                scores = _by_policies(list(policies.values()), fresh, ranker, machine)
            else:
                scores = [random_score(seed) for seed in fresh["own_seed"]]
            found = fresh.with_columns(score=pl.Series(scores, dtype=pl.Float64))
            whole = pl.concat([found, rows.filter(scored_by(ranker.label))])
            yield whole.with_columns(judge=pl.lit(ranker.label)).sort("row", "sample_index")


def _check_tokens(known: dict[Path, str], rows: pl.DataFrame) -> None:
    """`known` is the digest of each policy's tokenizer."""
    for folder, digest in known.items():
        if digest != rows["tokenizer"][0]:
            raise BadInput(
                f"{folder.parent.name}/{folder.name} cannot rank what {rows['generator'][0]} "
                "grows: it has another vocabulary; give a dpo and a dpo_reference from the same "
                "base, or set partial to rm_prefix"
            )


def _chunks(file: Path, share: tuple[int, int]) -> Iterator[pl.DataFrame]:
    """As many rows at a time as best-of-n scores, so that one layer gives its very numbers."""
    first, rows = share
    for start in range(first, first + rows, CHUNK):
        height = min(CHUNK, first + rows - start)
        yield pl.scan_parquet(file).slice(start, height).collect()


def _by_policies(
    policies: Sequence[Loaded], rows: pl.DataFrame, ranker: Ranker, machine: Machine
) -> list[float]:
    """By the log-probabilities of the DPO policy and, where the score asks, of its reference."""
    examples = encode(rows, "output", policies[0].tokenizer)
    dpo = _padded(policies[0], examples, machine)
    reference = _padded(policies[1], examples, machine) if policies[1:] else dpo
    lengths = torch.tensor([len(each.response) for each in examples])
    mask = torch.arange(dpo.shape[1]) < lengths[:, None]
    prefixes = PrefixLogps(dpo, reference, mask)
    found: list[float] = partial_scores(prefixes, ranker.partial, ranker.decay or 1.0).tolist()
    return found


def _padded(loaded: Loaded, examples: Sequence[Tokens], machine: Machine) -> Tensor:
    """Log-probability of each response token, [N, T] in float64, padded with zeros."""
    known = reference_logprobs(loaded, examples, machine)
    found = [known.of(at, 0).double() for at in range(len(examples))]
    return pad_sequence(found, batch_first=True)
