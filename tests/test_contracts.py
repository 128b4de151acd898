"""Every contract with its planted defect, and silent on good data."""

import math

import pytest
import torch

from alpacafarm_core.errors import ContractBroken, TrainingFailed, WeightSyncFailed
from alpacafarm_core.train import contracts
from alpacafarm_core.train.batches import Pair, Tokens
from alpacafarm_core.train.contracts import Origin

END = 1


def pair(chosen: list[int], rejected: list[int]) -> Pair:
    return Pair(Tokens([0, 5], chosen), Tokens([0, 5], rejected))


GOOD = [pair([7, number + 10, END], [8, END]) for number in range(100)]


def steps(losses: list[float], accuracy: float) -> list[dict[str, float]]:
    return [{"loss": loss, "accuracy": accuracy, "rows": 64} for loss in losses]


def test_a_broken_contract_is_a_failure_of_training():
    assert issubclass(ContractBroken, TrainingFailed)
    assert issubclass(WeightSyncFailed, ContractBroken)


def test_pairs_that_are_the_same_on_both_sides_are_refused_by_row_and_words():
    planted = GOOD[:8] + [pair([7, END], [7, END])] * 5
    origin = Origin(range(20, 33), ["Name a red fruit that grows on trees."] * 13)
    with pytest.raises(ContractBroken, match="5 of 13 pairs") as refused:
        contracts.sound(planted, END, origin)
    assert "row 28 (Name a red fruit that grows ...), row 29 (" in str(refused.value)
    assert "call them ties (1.5)" in str(refused.value)
    assert contracts.sound(planted[:-1], END)["identical"] == 4  # a coin may have decided so many


def test_good_data_and_one_tie_among_many_pairs_are_only_counted():
    assert contracts.sound(GOOD, END) == {"identical": 0, "without_end": 0}
    tied = [*GOOD[1:], pair([7, END], [7, END])]
    assert contracts.sound(tied, END) == {"identical": 1, "without_end": 0}


def test_the_same_response_to_two_prompts_is_no_identical_pair():
    other = Pair(Tokens([0, 5], [7, END]), Tokens([0, 6], [7, END]))
    assert contracts.sound([other], END)["identical"] == 0


def test_at_most_five_rows_are_named():
    with pytest.raises(ContractBroken, match="row 0, row 1, row 2, row 3, row 4 and 3 more;"):
        contracts.sound([pair([7], [7])] * 8)


def test_responses_that_never_end_are_refused():
    endless = [Tokens([0, 5], [7, 8])] * 19
    with pytest.raises(ContractBroken, match=r"19 of 20 .* end token: row 0,.*max_tokens"):
        contracts.sound([*endless, Tokens([0, 5], [7, END])], END)
    with pytest.raises(ContractBroken, match="end token"):
        contracts.sound([pair([7, 8], [number, END]) for number in range(9)], END)


def test_some_unfinished_samples_are_only_counted_and_rejected_ones_not_at_all():
    some = [Tokens([0, 5], [7, 8])] * 6 + [Tokens([0, 5], [7, END])] * 4
    assert contracts.sound(some, END)["without_end"] == 6
    assert contracts.sound([pair([7, END], [8])], END)["without_end"] == 0


def test_what_is_not_imitated_need_not_end():
    assert contracts.sound([pair([7, 8], [8])])["without_end"] == 0


def test_a_response_with_all_its_labels_masked_is_refused():
    with pytest.raises(ContractBroken, match=r"1 of 2 rows .* row 1;"):
        contracts.sound([Tokens([0, 5], [7, END]), Tokens([0, 5], [])], END)
    with pytest.raises(ContractBroken, match="row 0;"):
        contracts.sound([pair([7, END], [])], END)
    contracts.sound([Tokens([0, 5], [END])], END)


def test_a_prompt_that_is_trained_on_and_evaluated_is_refused():
    trained = {("Name a fruit.", ""), ("Sum up.", "A text.")}
    with pytest.raises(ContractBroken, match=r"1 of 2 evaluation prompts .* row 1 \(Sum up\.\)"):
        contracts.apart(trained, [("Sum up.", ""), ("Sum up.", "A text.")])
    contracts.apart(trained, [("Sum up.", "Another text."), ("Name a colour.", "")])


@pytest.mark.parametrize("accuracy", [0.5, 0.51, 0.0])  # weights that never move order no pair
def test_a_loss_stuck_at_ln_2_is_refused(accuracy):
    stuck = steps([0.72] * 15 + [math.log(2)] * 5, accuracy)
    with pytest.raises(ContractBroken, match="steps 16 to 20: the loss is stuck at ln 2"):
        contracts.unstuck(stuck, batch=64)


def test_a_loss_that_left_ln_2_or_had_no_time_to_is_not_stuck():
    contracts.unstuck(steps([0.6931] * 15 + [0.68] * 5, 0.5), batch=64)
    contracts.unstuck(steps([0.6931] * 19, 0.5), batch=64)
    contracts.unstuck([{"loss": math.log(2)}] * 40, batch=64)  # of tokens, not of pairs
    # 320 pairs: two standard errors are 5.6 points.
    contracts.unstuck(steps([0.6931] * 20, 0.57), batch=64)
    bare = [{"loss": math.log(2), "accuracy": 0.57}] * 20
    contracts.unstuck(bare, batch=64)
    with pytest.raises(ContractBroken, match=r"57\.0% of 40 pairs"):
        contracts.unstuck(bare, batch=8)


def test_a_loss_that_swings_about_ln_2_is_not_stuck():
    contracts.unstuck(steps([0.66, 0.7263] * 10, 0.5), batch=64)


def test_a_reward_model_that_length_beats_is_refused():
    # 200 pairs: two standard errors of the difference are 9.7 points.
    with pytest.raises(ContractBroken, match=r"60.0% of 200 .* longer response 70.0%.*waive"):
        contracts.above_length(0.6, 0.7, 200)
    contracts.above_length(0.6, 0.7, 199)


def test_a_reward_model_is_above_length_not_above_it_or_there_is_no_telling():
    assert contracts.above_length(0.62, 0.61, 200)
    assert not contracts.above_length(0.6, 0.61, 200)
    assert contracts.above_length(None, None, 0)


def test_a_gap_between_sampler_and_trainer_is_measured_on_tokens_only():
    sampler = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]])
    trainer = torch.tensor([[-1.0, -2.5], [-2.9, 0.0]])
    figures = contracts.gap(sampler, trainer, torch.tensor([[1, 1], [1, 0]]))
    assert figures["gap_mean"] == pytest.approx(0.2)
    assert figures["gap_max"] == pytest.approx(0.5)
    assert figures["gap_ratio"] == pytest.approx((1 + math.exp(-0.5) + math.exp(0.1)) / 3)
    nothing = contracts.gap(sampler, trainer, torch.zeros(2, 2))
    assert nothing == {"gap_mean": 0.0, "gap_max": 0.0, "gap_ratio": 1.0}


def test_a_gap_beyond_the_precisions_tolerance_is_refused():
    with pytest.raises(ContractBroken, match=r"step 3: .* 0.02 nats a token .* 0.001 in float32"):
        contracts.agreeing({"gap_mean": 0.02}, "float32", 2)
    with pytest.raises(ContractBroken):
        contracts.agreeing({"gap_mean": math.nan}, "bfloat16", 2)
    contracts.agreeing({"gap_mean": 0.02}, "bfloat16", 2)
    contracts.agreeing({"gap_mean": 1e-6}, "float32", 2)


def test_a_figure_that_is_not_a_number_is_refused_by_name_and_step():
    with pytest.raises(ContractBroken, match="step 5 of 9: loss is nan, kl is inf; lower the lear"):
        contracts.finite({"loss": math.nan, "reward": 1.0, "kl": math.inf}, 4, 9)
    contracts.finite({"loss": 0.5, "reward": -3.0}, 4, 9)


@pytest.mark.parametrize("kl", [100.5, math.nan])
def test_a_policy_too_far_from_its_reference_is_refused(kl):
    with pytest.raises(ContractBroken, match=r"step 8: .* at most 100 are allowed; raise kl\.coef"):
        contracts.near(kl, 100.0, 7)
    contracts.near(100.0, 100.0, 7)
