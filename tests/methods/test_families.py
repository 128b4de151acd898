"""What losses on pairs have in common: two families, the limits, the pull on each side.

Every loss of a method file joins by itself. One that looks at more than the gap of the two scores
is named in `POINTWISE`; a term that imitates, or a margin, is taken off in `BARE`.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alpacafarm_core import methods
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.cdpo import cdpo_loss
from alpacafarm_core.methods.cpo import cpo_loss
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.rso import rso_hinge_loss
from alpacafarm_core.methods.selfie import selfie_loss
from alpacafarm_core.methods.simpo import simpo_loss
from alpacafarm_core.methods.slic import hinge_loss
from alpacafarm_core.methods.spin import spin_loss
from alpacafarm_core.methods.tpo import tpo_loss
from alpacafarm_core.methods.tpo_l import TripleByLength
from alpacafarm_core.objective import (
    OF_PAIRS,
    ContrastLogps,
    MeanLogps,
    MixedLogps,
    Objective,
    TripleLogps,
    view_of,
)
from tests.methods.fixture import MEAN_CHOSEN_LENGTH, PAIRS, numbers, seen

POINTWISE = {"KTO", "NCA", "APO", "BCO", "ORPO", "ASFT", "SelfPlayWins"}
BARE = {
    "RPO": {"alpha": 0},
    "CPO": {"alpha": 0},
    "SimPO": {"gamma": 0},
    "Triple": {"alpha": 0},
    "TripleByLength": {"alpha": 0, "gamma": 0},
}
LEVEL = {"IPO": 25.0, "SLiC": 1.0}
LEVEL |= {"KTO": 0.5, "APO": 1.0, "NCA": 2 * math.log(2), "BCO": 2 * math.log(2)}
EVEN = {"chosen_length": numbers(8, 8), "rejected_length": numbers(8, 8)}
POLICY = {"chosen", "rejected", "mixed_chosen", "mixed_rejected"}


def losses(of: type[Objective] = Objective) -> Iterator[type[Objective]]:
    """Every loss on pairs in a method's file."""
    for kind in of.__subclasses__():
        yield from losses(kind)
        is_of_a_method = kind.__module__.startswith(methods.__name__) and "loss" in vars(kind)
        if is_of_a_method and view_of(kind.model_construct())._fields[0] in OF_PAIRS:
            yield kind


ALL = sorted(losses(), key=lambda kind: kind.__name__)
GAPS = [kind for kind in ALL if kind.__name__ not in POINTWISE]
POINTS = [kind for kind in ALL if kind.__name__ in POINTWISE]


def bare(kind: type[Objective]) -> Objective:
    """The loss with its defaults, but no imitation and no margin."""
    return kind().replace(**BARE.get(kind.__name__, {}))


def view(objective: Objective, **changed: Tensor) -> Any:
    """Fixture A with responses of one length, so that sums and means shift alike."""
    return seen(view_of(objective), **EVEN, **changed)


def shifted(batch: Any, by: float) -> Any:
    """Both scores of the policy moved by as much."""
    moved = {name: getattr(batch, name) + by for name in POLICY.intersection(batch._fields)}
    return batch._replace(**moved)


def swapped(batch: Any) -> Any:
    """Chosen for rejected."""
    other = {"chosen": "rejected", "rejected": "chosen"}
    sides = [name for name in batch._fields if name.split("_")[-1] in other]
    turned = {s: getattr(batch, s.replace(w := s.split("_")[-1], other[w])) for s in sides}
    return batch._replace(**turned)


def level(objective: Objective) -> Any:
    """Both responses alike, under policy and reference."""
    same = numbers(-11, -24)
    names = POLICY | {"ref_chosen", "ref_rejected"}
    return view(objective, **dict.fromkeys(names, same), mismatch_kl=numbers(0, 0))


def test_both_families_are_there():
    names = {kind.__name__ for kind in GAPS}
    assert {"DPO", "CDPO", "RobustDPO", "RPO", "SLiC", "IPO", "CPO", "SimPO"} <= names
    assert {kind.__name__ for kind in POINTS} >= {"KTO", "NCA", "APO", "BCO", "ORPO", "ASFT"}


@pytest.mark.parametrize("kind", GAPS)
def test_the_same_shift_of_both_scores_leaves_a_gap_loss_alone(kind):
    objective = bare(kind)
    batch = view(objective)
    torch.testing.assert_close(objective.loss(shifted(batch, -3)), objective.loss(batch))


@pytest.mark.parametrize("kind", POINTS)
def test_the_same_shift_of_both_scores_changes_a_pointwise_loss(kind):
    objective = bare(kind)
    batch = view(objective)
    assert ((objective.loss(shifted(batch, -3)) - objective.loss(batch)).abs() > 1e-6).all()


@pytest.mark.parametrize("kind", GAPS)
def test_swapping_chosen_and_rejected_turns_the_gap_round(kind):
    """A gap loss of the swapped pair is its loss at minus the gap, however that came about."""
    objective = bare(kind)
    batch = view(objective)
    gap = batch.chosen - batch.rejected
    if "ref_chosen" in batch._fields:
        gap = gap - (batch.ref_chosen - batch.ref_rejected)
    turned = {"chosen": batch.chosen - 2 * gap}
    if "mixed_chosen" in batch._fields:
        turned["mixed_chosen"] = turned["chosen"]
    mirrored = objective.loss(batch._replace(**turned))
    torch.testing.assert_close(objective.loss(swapped(batch)), mirrored)


@pytest.mark.parametrize("kind", [*GAPS, *(kind for kind in POINTS if kind.__name__ in LEVEL)])
def test_where_nothing_is_preferred_a_loss_is_ln_2_or_its_papers_constant(kind):
    objective = bare(kind)
    expected = LEVEL.get(kind.__name__, math.log(2))
    assert objective.loss(level(objective)).tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("kind", ALL)
def test_no_loss_pushes_the_chosen_down_or_the_rejected_up_where_nothing_is_preferred(kind):
    objective = bare(kind)
    chosen = numbers(-11, -24).requires_grad_()
    rejected = numbers(-11, -24).requires_grad_()
    mixed = {"mixed_chosen": chosen, "mixed_rejected": rejected}
    batch = level(objective)._replace(chosen=chosen, rejected=rejected)
    batch = batch._replace(**{k: v for k, v in mixed.items() if k in batch._fields})
    objective.loss(batch).sum().backward()
    assert (chosen.grad < 0).all() and (rejected.grad > 0).all()


@pytest.mark.parametrize(("name", "share"), [("DPO", 1), ("CDPO", 0.8), ("RobustDPO", 1.25)])
def test_the_logistic_losses_pull_half_of_beta_at_the_start(name, share):
    """The conservative one by 1 - 2 epsilon of that, the robust one divided by it."""
    objective = next(kind for kind in ALL if kind.__name__ == name)(beta=0.1)
    chosen = numbers(-11, -24).requires_grad_()
    objective.loss(level(objective)._replace(chosen=chosen)).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.05 * share] * 2)


@pytest.mark.parametrize(
    ("name", "least"),
    [("iterative_dpo", 2), ("selfie", 2), ("sppo", 2), ("tpo", 3), ("tpo_l", 3), ("curry_dpo", 4)],
)
def test_a_method_that_ranks_refuses_answers_that_are_too_few_or_all_the_same(name, least):
    method = METHODS[name].at("small")
    enough = method.sampling.replace(n=least)
    assert method.replace(sampling=enough).sampling == enough
    with pytest.raises(ValidationError, match=rf"sampling\.n {least - 1} .*raise sampling\.n to"):
        method.replace(sampling=enough.replace(n=least - 1))
    with pytest.raises(ValidationError, match=r"sampling\.temperature 0 makes all"):
        method.replace(sampling=enough.replace(temperature=0))


@pytest.mark.parametrize("kind", ALL)
def test_a_loss_is_of_one_example_and_not_of_its_neighbours(kind):
    """So that any micro-batch gives the same gradient."""
    objective = kind()
    batch = view(objective)
    alone = [objective.loss(type(batch)(*(field[[i]] for field in batch))) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), objective.loss(batch))


def test_without_a_gold_response_tpo_is_cpos_contrast_and_tpo_l_is_simpo():
    triples, alone = seen(TripleLogps), seen(ContrastLogps)
    torch.testing.assert_close(tpo_loss(triples, 0.1, alpha=0), cpo_loss(alone, 0.1, alpha=0))
    by_length = TripleByLength(beta=2, gamma=1, alpha=0).loss(triples)
    torch.testing.assert_close(by_length, simpo_loss(seen(MeanLogps), 2, 1))


def test_with_the_chosen_response_as_gold_tpo_is_cpo():
    triples = seen(TripleLogps, gold=PAIRS.chosen, mean_gold_length=MEAN_CHOSEN_LENGTH)
    torch.testing.assert_close(tpo_loss(triples, 0.1, 0.7), cpo_loss(seen(ContrastLogps), 0.1, 0.7))


def test_selfie_is_dpo_where_nothing_is_suspect_and_cdpo_where_everything_is():
    for threshold, smoothing in ((-1e6, 0.0), (1e6, 0.2)):
        doubted = selfie_loss(seen(MixedLogps, carried=numbers(threshold, threshold)), 0.1, 0.2)
        torch.testing.assert_close(doubted, cdpo_loss(PAIRS, 0.1, smoothing))


def test_spin_on_the_same_pairs_is_dpo_and_rsos_hinge_is_slics():
    torch.testing.assert_close(spin_loss(PAIRS, 0.1), dpo_loss(PAIRS, 0.1))
    torch.testing.assert_close(rso_hinge_loss(PAIRS, 0.5), hinge_loss(PAIRS, 0.5))
