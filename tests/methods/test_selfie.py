"""Selfie: its steps, Fixture A, which labels are in doubt, and whose reward labels them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Judge
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.selfie import NEVER, Doubting, Selfie, selfie_loss, threshold
from alpacafarm_core.objective import MixedLogps, Objective, Past
from alpacafarm_core.train.batches import padded
from alpacafarm_core.train.forward import mixed_logprobs
from alpacafarm_core.train.tokens import Tokens
from alpacafarm_core.weights import Implicit, Policy
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers
from tests.paper_farm import START, PaperFarm

THETA = [[[2.0, 0.0], [1.0, 0.0]], [[0.5, 0.0], [0.0, 1.0]]]
REF = [[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]]]
"""Logits over two tokens: of the chosen response and the rejected one, two tokens each."""


def pairs(*doubted: bool) -> MixedLogps:
    """Fixture A, with a mixed margin below the threshold, which is 0, where a pair is in doubt."""
    sides = numbers(*(-1.0 if doubt else 1.0 for doubt in doubted))
    return MixedLogps(
        *PAIRS,
        mixed_chosen=PAIRS.ref_chosen + sides,
        mixed_rejected=PAIRS.ref_rejected,
        carried=numbers(0, 0),
    )


def past(margins: list[float], steps: int) -> Past:
    """Steps that were taken, by their mixed margins, of how many in all."""
    return Past([{"mixed_margin": margin} for margin in margins], steps)


class Says:
    """A model over two tokens whose logits are these, [rows, 2, 2], whatever it reads."""

    config = SimpleNamespace(model_type="table")

    def __init__(self, logits: Any) -> None:
        self.logits = torch.tensor(logits)

    def base_model(self, input_ids: Tensor, **_: Any) -> Any:
        """Logits in place of hidden states; nothing is predicted from the last token."""
        rows, length = input_ids.shape
        last = torch.zeros(rows, length - 2, 2)
        return SimpleNamespace(last_hidden_state=torch.cat([self.logits, last], 1))

    def get_output_embeddings(self) -> Any:
        """Hidden states are logits."""
        return lambda hidden: hidden


class Watching(PaperFarm):
    """A paper farm that keeps judges and objectives."""

    def __init__(self) -> None:
        super().__init__()
        self.judges: list[Judge] = []
        self.objectives: list[Objective] = []

    def __getattr__(self, verb: str) -> Any:
        ask = super().__getattr__(verb)

        def kept(*arguments: Any) -> Any:
            if verb == "score":
                self.judges.append(arguments[1])
            if verb == "train":
                self.objectives.append(arguments[2])
            return ask(*arguments)

        return kept


def test_its_steps():
    assert steps_of("selfie", rounds=1) == [
        "labels(preferences, 1, 30)",
        "train(sft, labels1)",
        "share(instructions, 1, 3)",
        "generate(train2, share3)",
        "score(generate4, train2, sft)",
        "rank(score5)",
        "train(train2, rank6)",
    ]
    assert steps_of("selfie")[7:12] == [
        "share(instructions, 2, 3)",
        "generate(train7, share8)",
        "score(generate9, train7, sft)",
        "rank(score10)",
        "train(train7, rank11)",
    ]


def test_the_judge_is_always_measured_against_the_sft_model():
    farm = Watching()
    end = Selfie.at("small").optimise(farm, START)
    judged = [judge.policy for judge in farm.judges]
    assert [judge.reference for judge in farm.judges] == [START.policy] * 3
    assert len({*judged, end, START.policy}) == 5


def test_more_rounds_keep_the_steps_of_fewer():
    two, four = Watching(), Watching()
    Selfie.at("small").replace(rounds=2).optimise(two, START)
    Selfie.at("small").replace(rounds=4).optimise(four, START)
    assert four.asked[: len(two.asked)] == two.asked
    assert four.objectives[: len(two.objectives)] == two.objectives
    assert [each.mix() for each in four.objectives[1:]] == [0.5, 0.25, 0.125, 0.0625]
    assert "share(instructions, 1, 3)" in four.asked[len(two.asked) :]


def test_another_seed_has_other_labels():
    assert steps_of("selfie", seed=31, rounds=1)[0] == "labels(preferences, 2, 30)"


def test_a_policy_that_learned_nothing_judges_nothing():
    with pytest.raises(BadInput, match="cannot judge against itself"):
        Implicit(policy=START.policy, reference=Policy(key=START.policy.key))


def test_its_defaults_are_the_papers():
    code, seeds = "Kim et al. 2024, released code", "Kim et al. 2024: 2k of 61k pairs, 3.3%"
    found = defaults_of("selfie")
    assert found["one_in"] == (30, seeds)
    assert found["rounds"] == (3, "Kim et al. 2024: three; the released script runs two")
    assert {name: held for name, (held, source) in found.items() if source == code} == {
        "sampling.n": 2,
        "sampling.temperature": 0.7,
        "sampling.top_p": 1.0,
        "sampling.max_tokens": 300,
        "seeding.beta": 0.1,
        "seeding.training.learning_rate": 5e-7,
        "seeding.training.epochs": 3,
        "seeding.training.batch": 32,
        "seeding.training.warmup": 0.1,
        "seeding.training.max_length": 2048,
        "refining.beta": 0.1,
        "refining.smoothing": 0.1,
        "refining.suspects": 0.1,
        "refining.window": 50,
        "refining.trusting": 0.2,
        "refining.training.learning_rate": 5e-7,
        "refining.training.epochs": 1,
        "refining.training.batch": 32,
        "refining.training.warmup": 0.1,
        "refining.training.max_length": 2048,
    }
    assert found["refining.extrapolation"][0] == 0.5


@pytest.mark.parametrize(
    ("doubted", "mean"),
    [((False, False), 0.673448), ((True, True), 0.678448), ((False, True), 0.665948)],
)
def test_selfie_on_fixture_a(doubted, mean):
    assert selfie_loss(pairs(*doubted), 0.1, 0.1).mean().item() == pytest.approx(mean, abs=5e-7)


def test_without_smoothing_it_is_dpo():
    for doubted in ((False, False), (True, True)):
        torch.testing.assert_close(selfie_loss(pairs(*doubted), 0.1, 0.0), dpo_loss(PAIRS, 0.1))


def test_where_no_share_is_suspect_it_is_dpo():
    never = Doubting(suspects=0.0).carry(past([0.0] * 80, 100))
    seen = pairs(True, True)._replace(carried=numbers(never, never))
    torch.testing.assert_close(Doubting().loss(seen), dpo_loss(PAIRS, 0.1))


def test_where_all_are_suspect_it_is_dpo_with_smoothed_labels():
    smoothed = 0.9 * dpo_loss(PAIRS, 0.1) + 0.1 * dpo_loss(mirrored(), 0.1)
    torch.testing.assert_close(selfie_loss(pairs(True, True), 0.1, 0.1), smoothed)


def test_doubt_has_no_gradient():
    seen = pairs(False, True)
    mixed = seen.mixed_chosen.clone().requires_grad_()
    chosen = seen.chosen.clone().requires_grad_()
    selfie_loss(seen._replace(chosen=chosen, mixed_chosen=mixed), 0.1, 0.1).sum().backward()
    assert mixed.grad is None
    # -(1 - a) b s(-bh) + a b s(bh), with h 2.5 and a 0, then h -1.5 and a 0.1.
    assert chosen.grad.tolist() == pytest.approx([-0.0437823, -0.0437430], abs=1e-6)


@pytest.mark.parametrize(("weight", "margin"), [(0.0, 0.080645), (0.5, 0.124264), (1.0, 0.169846)])
def test_extrapolated_logits_give_the_margins_of_the_notes(weight, margin):
    batch = padded([Tokens([1], [0, 0]), Tokens([1], [0, 0])])
    chosen, rejected = mixed_logprobs(Says(THETA), Says(REF), batch, weight).sum(1)
    ref_chosen, ref_rejected = mixed_logprobs(Says(REF), Says(REF), batch, 0.0).sum(1)
    found = 0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))
    assert found.item() == pytest.approx(margin, abs=5e-7)


def test_the_threshold_of_fifty_margins_is_between_the_sixth_and_the_seventh():
    margins = [number / 100 for number in range(50)]
    found = threshold(margins[::-1], 0.1, 50)
    assert found == pytest.approx(0.055)
    assert sum(margin <= found for margin in margins) == 6


def test_only_the_last_margins_count():
    assert threshold([-9.0] * 7 + [1.0, 2.0, 3.0, 4.0], 0.25, 4) == pytest.approx(2.5)


def test_the_threshold_is_0_until_the_window_is_full():
    assert threshold([5.0] * 49, 0.1, 50) == 0.0


def test_where_nearly_all_of_few_margins_are_suspect_the_threshold_is_the_largest():
    assert threshold([3.0, 1.0], 0.9, 2) == 3.0
    assert Doubting(window=2, suspects=0.9).carry(past([1.0] * 20, 20)) == 1.0


def test_a_fifth_of_the_steps_is_taken_on_trust():
    objective = Doubting(window=2)
    assert objective.carry(past([3.0] * 19, 100)) == NEVER
    assert objective.carry(past([3.0] * 20, 100)) == 3.0
    assert objective.carry(past([], 100)) == NEVER


def mirrored() -> Any:
    """Fixture A with the sides swapped."""
    swapped = [*reversed(PAIRS[:2]), *reversed(PAIRS[2:])]
    return type(PAIRS)(*swapped)
