"""DRIFT: its steps, Fixture A, what stays and what changes from round to round."""

import math

import polars as pl
import pytest
import torch

from alpacafarm_core.artifacts import Candidates, Interactions
from alpacafarm_core.interactions import Guidance, corrected, guided
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.drift import Drift
from alpacafarm_core.methods.spin import spin_loss
from alpacafarm_core.objective import LengthLogps, PairLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, seen
from tests.tiny import frame

COMPLAINT = "There is no red in it."
TALK = frame(
    Interactions,
    [
        {
            "instruction": "Name a red fruit.",
            "input": "",
            "history": "[]",
            "response": "The plum is blue.",
            "feedback": COMPLAINT,
            "label": "DSAT",
            "next_response": "",
        }
    ],
)


def answered(text: str) -> pl.DataFrame:
    """A fresh answer to the one complaint."""
    row = {"instruction": "Name a red fruit.", "input": "", "output": text, "generator": "policy/x"}
    return frame(Candidates, [row])


def test_its_steps():
    assert steps_of("drift") == [
        "interactions()",
        "corrected(interactions1)",
        "train(sft, corrected2)",
        "guided(interactions1)",
        "generate(train3, guided4)",
        "corrected(interactions1, generate5)",
        "train(train3, corrected6)",
        "generate(train7, guided4)",
        "corrected(interactions1, generate8)",
        "train(train7, corrected9)",
    ]


def test_without_rounds_it_is_dpo_on_what_users_went_on_to_accept():
    assert steps_of("drift", rounds=0)[:3] == [
        "interactions()",
        "corrected(interactions1)",
        "train(sft, corrected2)",
    ]
    assert not [step for step in steps_of("drift", rounds=0) if step.startswith("generate")]
    pure = Drift().warming.replace(alpha=0.0)
    torch.testing.assert_close(pure.loss(seen(LengthLogps)), dpo_loss(PAIRS, 0.1))


def test_its_defaults_are_the_papers():
    found = defaults_of("drift")
    said = {name: value for name, (value, _) in found.items() if not name.startswith("guidance")}
    assert said == {
        "turns": 90_000,
        "rounds": 2,
        "sampling.n": 1,
        "sampling.temperature": 0.7,
        "sampling.top_p": 0.9,
        "sampling.max_tokens": 512,
        **{f"{stage}.beta": 0.1 for stage in ("warming", "objective")},
        **{f"{stage}.alpha": 0.001 for stage in ("warming", "objective")},
        **{
            f"{stage}.training.{name}": value
            for stage, epochs in (("warming", 3), ("objective", 1))
            for name, value in (
                ("learning_rate", 5e-7),
                ("epochs", epochs),
                ("batch", 4),
                ("schedule", "linear"),
                ("warmup", 0.1),
                ("max_length", 2048),
            )
        },
    }
    assert all(source.startswith(("Wang et al. 2025", "ours")) for _, source in found.values())


def test_drift_on_fixture_a():
    losses = Drift().objective.loss(seen(LengthLogps))
    assert losses.mean().item() == pytest.approx(0.675507, abs=5e-7)


def test_a_round_begins_at_ln_2_and_a_thousandth_of_the_likelihood():
    same = seen(LengthLogps, ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    found = Drift().objective.loss(same).mean().item()
    assert found == pytest.approx(math.log(2) + 0.001 * 35 / 17, abs=1e-9)


def test_with_people_for_chosen_and_ones_own_answers_for_rejected_it_is_spin():
    plain = Drift().objective.replace(alpha=0.0)
    torch.testing.assert_close(plain.loss(seen(LengthLogps)), spin_loss(PAIRS, 0.1))


def test_the_disliked_side_stays_to_the_byte_and_the_other_changes():
    first = corrected(TALK, answered("The cherry."))
    second = corrected(TALK, answered("The cherry is a red fruit."))
    assert first["output_2"].to_list() == second["output_2"].to_list() == ["The plum is blue."]
    assert first["output_1"].to_list() != second["output_1"].to_list()
    assert first.drop("output_1").equals(second.drop("output_1"))


def test_the_complaint_is_sampled_from_and_never_trained_on():
    shown = guided(TALK, Guidance())
    assert COMPLAINT in shown["prompt"][0]
    pair = corrected(TALK, answered("The cherry.")).row(0, named=True)
    assert not [name for name, held in pair.items() if COMPLAINT in str(held)]
    assert (pair["instruction"], pair["input"]) == ("Name a red fruit.", "")


def test_a_share_of_pairs_that_stay_apart_keeps_the_gradient_alive():
    """The bound beta tau p d: at a round's start tau is one half, here 3 of 5 pairs are 2 apart."""
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    apart = torch.tensor([[2.0, 0.0]] * 3 + [[0.0, 0.0]] * 2, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    losses = dpo_loss(PairLogps(apart @ weights, zero, zero, zero), 0.1)
    norms = [torch.autograd.grad(loss, weights, retain_graph=True)[0].norm() for loss in losses]
    assert float(sum(norms)) / 5 == pytest.approx(0.1 * 0.5 * 0.6 * 2.0)
    assert float(sum(norms)) / 5 == pytest.approx(0.06)
