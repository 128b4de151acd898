"""Examples in a file: what comes back is what was put in, and hardly any of it is in memory."""

from itertools import chain

import polars as pl
import pytest
import torch

from alpacafarm_core.settings import Training
from alpacafarm_core.train.batches import alike, plan
from alpacafarm_core.train.corpus import Corpus, Known
from alpacafarm_core.train.models import load_tokenizer
from alpacafarm_core.train.tokens import (
    Pair,
    Tokens,
    each_encoded,
    each_pair,
    encode,
    pairs,
    tokenizer_digest,
)
from tests.tiny import demonstrations, preferences, tiny_model

ANSWERS = [
    Tokens([5, 6], [7, 8, 9]),
    Tokens([5], [7]),
    Tokens([6, 6], []),
    Tokens([5], [2**31 - 1]),
]
PAIRS = [
    Pair(Tokens([5, 6], [7]), Tokens([5, 6], [8, 9])),
    Pair(Tokens([5, 6], [7]), Tokens([6], [8, 9])),
    Pair(Tokens([], [7]), Tokens([6], [])),
]


@pytest.mark.parametrize("examples", [ANSWERS, PAIRS, []])
def test_a_corpus_is_what_it_was_made_of(examples):
    corpus = Corpus.of(iter(examples))
    assert list(corpus) == examples and len(corpus) == len(examples)
    assert corpus[-2:] == examples[-2:]
    assert list(corpus.lengths) == [example.length for example in examples]
    with pytest.raises(IndexError):
        corpus[len(examples)]


def test_some_of_a_corpus_in_another_order_outlive_it():
    some = Corpus.of(PAIRS).take([2, 0])
    assert list(some) == [PAIRS[2], PAIRS[0]]
    assert list(some.take([1]).lengths) == [PAIRS[0].length]


def test_plans_of_a_corpus_are_those_of_its_list_without_reading_it(monkeypatch):
    rows = [Tokens([3 + row % 2] * 9, [7] * (row * 7 % 13)) for row in range(40)]
    many = [Tokens([row], [7] * (row * 7 % 13)) for row in range(40)]
    for examples in (rows, many):
        corpus, training = Corpus.of(examples), Training(epochs=2, batch=16, seed=3)
        assert list(plan(corpus, training, 4)) == list(plan(examples, training, 4))
        assert alike(corpus, range(40), 8) == alike(examples, range(40), 8)
    monkeypatch.setattr("os.pread", None)
    assert sorted(chain.from_iterable(alike(corpus, range(40), 8))) == list(range(40))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return load_tokenizer(tiny_model(tmp_path_factory.mktemp("tiny")))


def test_examples_of_parts_are_those_of_the_whole(tokenizer):
    rows = preferences(2).with_columns(
        tokenizer=pl.Series([tokenizer_digest(tokenizer), None] * 4, dtype=pl.String),
        output_1_ids=pl.Series([[7], [8], None, [9]] * 2, dtype=pl.List(pl.Int32)),
    )
    parts = rows.iter_slices(3)
    assert list(Corpus.of(each_pair(parts, tokenizer))) == pairs(rows, tokenizer)
    told = demonstrations(2)
    parts = told.iter_slices(3)
    assert list(each_encoded(parts, "output", tokenizer)) == encode(told, "output", tokenizer)


def test_what_is_known_of_responses_comes_back_bit_for_bit():
    known, random = Known(3, sides=2), torch.Generator().manual_seed(0)
    figures = {(at % 3, at // 3): torch.randn(at, generator=random) for at in (5, 2, 0, 3, 1, 4)}
    for (example, side), held in figures.items():
        known.note(example, side, held)
    assert all(torch.equal(known.of(*place), held) for place, held in figures.items())
