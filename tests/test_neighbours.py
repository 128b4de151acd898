"""Nearest neighbours: squared distances, the rule for repeats, copies told apart by number."""

import math

import numpy as np
import pytest
import torch

from alpacafarm_core import neighbours
from alpacafarm_core.embedding import embedded, spelled
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.neighbours import first_similar, nearest
from alpacafarm_core.synthesis import Nearness, Read, Spelled
from alpacafarm_core.weights import Policy
from tests.tiny import tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers")


def at_angles(*cosines: float) -> np.ndarray:
    """Unit vectors in a plane; each is at this cosine to the one before it."""
    angle, rows = 0.0, [(1.0, 0.0)]
    for cosine in cosines:
        angle += math.acos(cosine)
        rows.append((math.cos(angle), math.sin(angle)))
    return np.array(rows)


@pytest.mark.parametrize(
    ("cosine", "squared"), [(1.0, 0.0), (0.99, 0.02), (0.975, 0.05), (0.9, 0.2)]
)
def test_distances_are_squared(cosine, squared):
    assert nearest(at_angles(cosine), 0.05).distance == pytest.approx([squared] * 2, abs=1e-12)


def test_the_threshold_stands_for_a_cosine():
    assert nearest(at_angles(0.976), 0.05).repeats.tolist() == [1, 1]
    assert nearest(at_angles(0.974), 0.05).repeats.tolist() == [0, 0]


def test_of_a_chain_only_the_first_is_kept():
    chain = nearest(at_angles(0.98, 0.98), 0.05)
    assert chain.repeats.tolist() == [1, 2, 1]
    similar = first_similar(chain)
    assert similar == [0, 0, 1]
    kept = [row for row, first in enumerate(similar) if first in (None, row)]
    assert kept == [0]  # the last repeats the second, though that is gone


def test_only_the_first_of_several_copies_is_kept():
    copies = nearest(np.array([[1.0, 0], [0, 1], [1, 0], [2, 0]]), 0.05)
    assert copies.distance.tolist() == [0, 2, 0, 0]  # exactly, so that 0 can be asked for
    assert copies.repeats.tolist() == [2, 0, 2, 2]
    assert first_similar(copies) == [0, None, 0, 0]


def test_it_does_not_matter_in_what_chunks_rows_are_searched(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    whole = nearest(rows, 0.05)
    monkeypatch.setattr(neighbours, "HELD", 7 * 50)
    monkeypatch.setattr(neighbours, "PAIRS", 3)
    parts = nearest(rows, 0.05)
    assert parts.distance == pytest.approx(whole.distance, abs=1e-12)
    assert first_similar(parts) == first_similar(whole)


def test_it_finds_what_a_plain_search_finds():
    rows = neighbours.unit(np.random.default_rng(1).normal(size=(40, 4)))
    squared = ((rows[:, None] - rows) ** 2).sum(-1) + np.diag([np.inf] * 40)
    found = nearest(rows, 0.3)
    assert found.distance == pytest.approx(squared.min(1), abs=1e-9)
    assert found.repeats.tolist() == (squared <= 0.3).sum(1).tolist()


def test_a_single_row_has_no_neighbour():
    alone = nearest(np.array([[1.0, 0.0]]), 0.05)
    assert np.isnan(alone.distance).all() and first_similar(alone) == [None]


def test_a_vector_of_no_length_is_refused_by_its_row():
    with pytest.raises(BadInput, match=r"row 1: .* leave out empty instructions"):
        nearest(np.array([[1.0, 0.0], [0.0, 0.0]]), 0.05)


def test_spelling_counts_hashed_trigrams_case_and_spaces_aside():
    how = Spelled(dimensions=64)
    assert spelled("Name  a FRUIT", how).tolist() == spelled("name a fruit", how).tolist()
    assert spelled("abc", how).sum() == 3  # " ab", "abc", "bc "


def test_a_model_reads_equal_texts_to_one_vector_whatever_stands_beside(tmp_path):
    folder = tiny_model(tmp_path)
    nearness = Nearness(embedding=Read(model=Policy(key="0" * 16)))
    texts = ["Name a red fruit.", "The sky is blue.", "Name a red fruit.", "Cherries"]
    with torch.random.fork_rng():
        vectors = embedded(folder, texts, nearness, EXACT)
        alone = embedded(folder, texts[3:], nearness, EXACT)
    assert vectors.shape == (4, 32)
    assert (vectors[0] == vectors[2]).all()
    assert vectors[3] == pytest.approx(alone[0], abs=1e-4)  # padding is not read
