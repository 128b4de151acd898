"""Reward shaping: the worked numbers, ranges and invariances of PAR and its rivals."""

import math

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.errors import BadInput
from alpacafarm_core.shaping import (
    Ceiling,
    Centred,
    Clipped,
    LengthPenalty,
    LogSigmoid,
    Penalties,
    Polynomial,
    Preference,
    Ranged,
    Reshape,
    Sigmoid,
    SlowThenFast,
    Standardised,
    Tanh,
    Vanilla,
    check_references,
)
from alpacafarm_core.train import rl, shaping
from alpacafarm_core.train.shaping import Running

SCORE = torch.tensor([1.5], dtype=torch.float64)
REFS = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
NOBODY = torch.zeros(2, 0)
EVERY: list[Reshape] = [
    Vanilla(),
    Ceiling(),
    Standardised(),
    Clipped(),
    Ranged(),
    Centred(),
    LogSigmoid(),
    Preference(),
    Sigmoid(k=2),
    Tanh(),
    Polynomial(),
    SlowThenFast(),
]


def name_of(reshape: Reshape) -> str:
    return type(reshape).__name__


def shaped(reshape: Reshape, scores: torch.Tensor, refs: torch.Tensor) -> torch.Tensor:
    """Rewards of a first step."""
    return reshape.shaped(scores, refs, Running().joined(scores))


@pytest.mark.parametrize(
    ("reshape", "reward"),
    [
        (Vanilla(), 1.5),
        (Ceiling(ceiling=1.0), 1.0),
        (Preference(), 0.605858),
        (Centred(), 0.5),
        (Tanh(), 0.301716),
        (Tanh(centred=False), math.tanh(1.5)),
        (Sigmoid(k=2), 0.650858),
        (Sigmoid(k=3), 0.663004),
        (Sigmoid(k=1, centred=False), 0.817574),
        (LogSigmoid(), -0.996917),
        (SlowThenFast(k=1), 0.095865),
        (SlowThenFast(k=3), 0.003856),
    ],
)
def test_a_score_of_one_and_a_half_beside_references_of_0_1_and_2(reshape, reward):
    assert float(shaped(reshape, SCORE, REFS)) == pytest.approx(reward, abs=5e-7)


def test_par_is_the_reward_models_own_mean_probability_of_winning():
    wins = [1 / (1 + math.exp(ref - 1.5)) for ref in (0, 1, 2)]
    assert wins == pytest.approx([0.817574, 0.622459, 0.377541], abs=5e-7)
    assert float(shaping.preference(SCORE, REFS)) == pytest.approx(sum(wins) / 3)
    level = torch.tensor([1.386294], dtype=torch.float64)
    assert float(shaping.preference(level, REFS[:, :1])) == pytest.approx(0.8, abs=1e-6)


def test_the_deviation_of_lsc_is_a_samples_not_a_populations():
    q = 1 + 1.0364334 * REFS.std(1, correction=0)
    assert float(torch.nn.functional.logsigmoid(SCORE - q)) == pytest.approx(-0.881181, abs=5e-7)
    assert float(shaping.log_sigmoid(SCORE, REFS, 0.85)) == pytest.approx(-0.996917, abs=5e-7)


def test_an_answer_drawn_as_the_references_earns_exactly_a_half_on_average_by_any_reward_model():
    # sigma(a - b) + sigma(b - a) = 1, so over all ordered pairs of a pool the mean is a half.
    pool = 5 * torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    everybody = pool.expand(40, 40)
    for k in (0.1, 1.0, 7.0):
        assert float(shaping.preference(pool, everybody, k).mean()) == pytest.approx(0.5)


def test_par_is_steep_at_the_start_and_flat_later():
    scores = torch.tensor([0.0, 1, 2, 4, 6, 8], dtype=torch.float64, requires_grad=True)
    shaping.preference(scores, torch.zeros(6, 1, dtype=torch.float64)).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx(
        [0.25, 0.196612, 0.104994, 0.017663, 0.002467, 0.000335], abs=5e-7
    )
    many = torch.linspace(-9, 9, 50, dtype=torch.float64, requires_grad=True)
    shaping.preference(many, torch.randn(50, 10, dtype=torch.float64)).sum().backward()
    assert many.grad is not None and many.grad.min() > 0 and many.grad.max() <= 0.25


@pytest.mark.parametrize("reshape", EVERY, ids=name_of)
def test_no_shaping_changes_the_scores_or_references_it_is_given(reshape):
    scores, refs = torch.tensor([1.0, 3.0, -2.0]), torch.tensor([[0.0, 1.0, 2.0]] * 3)
    kept = scores.clone(), refs.clone()
    rewards = shaped(reshape, scores, refs)
    assert rewards.shape == (3,) and rewards.isfinite().all()
    assert torch.equal(scores, kept[0]) and torch.equal(refs, kept[1])


@pytest.mark.parametrize(
    ("reshape", "shift", "scale"),
    [
        (Vanilla(), "moves along", "scales"),
        (Ceiling(), "no", "no"),
        (Standardised(), "yes", "yes"),
        (Clipped(), "moves along", "scales"),
        (Ranged(), "yes", "yes"),
        (Centred(), "yes", "scales"),
        (LogSigmoid(), "yes", "no"),
        (Preference(), "yes", "no"),
        (Sigmoid(), "yes", "no"),
        (Sigmoid(centred=False), "no", "no"),
        (Tanh(), "yes", "no"),
        (Tanh(centred=False), "no", "no"),
        (Polynomial(), "yes", "no"),
        (Polynomial(centred=False), "no", "no"),
        (SlowThenFast(), "yes", "no"),
    ],
    ids=lambda one: name_of(one) if isinstance(one, Reshape) else one,
)
def test_what_a_constant_added_to_the_reward_model_or_a_factor_changes(reshape, shift, scale):
    scores = torch.tensor([1.0, 3.0, -2.0, 4.5], dtype=torch.float64)
    refs = torch.tensor([[0.0, 1.0, 2.5]] * 4, dtype=torch.float64)
    plain = shaped(reshape, scores, refs)
    outcomes = {"yes": plain, "moves along": plain + 7, "scales": 2 * plain}
    for said, found in (
        (shift, shaped(reshape, scores + 7, refs + 7)),
        (scale, shaped(reshape, 2 * scores, 2 * refs)),
    ):
        alike = [name for name, as_if in outcomes.items() if torch.allclose(found, as_if)]
        assert alike == ([] if said == "no" else [said])


@pytest.mark.parametrize(
    ("reshape", "low", "high"),
    [
        (Preference(), 0, 1),
        (Ranged(), 0, 1),
        (Sigmoid(), 0, 1),
        (SlowThenFast(), 0, 1),
        (Tanh(), -1, 1),
        (Polynomial(), -0.011, 1.011),
        (LogSigmoid(), -math.inf, 0),
        (Ceiling(), -math.inf, 4),
    ],
    ids=lambda one: name_of(one) if isinstance(one, Reshape) else str(one),
)
def test_bounded_shapings_stay_within_their_bounds_and_in_order(reshape, low, high):
    scores = torch.linspace(-12, 12, 97, dtype=torch.float64)
    rewards = shaped(reshape, scores, torch.zeros(97, 1, dtype=torch.float64).expand(97, 2))
    assert low <= rewards.min() and rewards.max() <= high
    if not isinstance(reshape, Polynomial):
        assert (rewards.diff() >= 0).all()


def test_the_polynomial_is_the_sigmoids_nearest_and_overshoots_before_it_ends():
    fifth, fourth, third, second, first, constant = shaping._nearest()
    assert (fifth, third) == pytest.approx((2.0267e-4, -1.013091e-2), abs=5e-9)
    assert (first, constant) == pytest.approx((0.22878851, 0.5), abs=5e-9)
    assert (fourth, second) == pytest.approx((0, 0), abs=1e-12)
    points = torch.tensor([1.0, 4.999999, 5.0, 60.0, -5.0, -60.0], dtype=torch.float64)
    assert shaping.polynomial(points).tolist() == pytest.approx(
        [0.71886, 1.01092, 1, 1, 0, 0], abs=5e-6
    )


def test_running_statistics_are_merged_step_by_step_over_the_population():
    first = Running().joined(torch.tensor([1.0, 3.0]))
    assert first.deviation == 1 and Running().deviation == 0
    scores = torch.tensor([2.0, 6.0], dtype=torch.float64)
    both = first.joined(scores)
    assert (both.seen, both.mean, both.least, both.largest) == (4, 3, 1, 6)
    assert both.deviation == pytest.approx(1.870829, abs=5e-7)
    for reshape, rewards in (
        (Standardised(), [-0.534522, 1.603567]),
        (Clipped(), [2, 4.870829]),
        (Ranged(), [0.2, 1]),
    ):
        found = reshape.shaped(scores, NOBODY, both).tolist()
        assert found == pytest.approx(rewards, abs=5e-7)
    whole = Running().joined(torch.tensor([1.0, 3.0, 2.0, 6.0]))
    assert tuple(both) == pytest.approx(tuple(whole))


@pytest.mark.parametrize("reshape", [Standardised(), Clipped(), Ranged()], ids=name_of)
def test_looking_at_rewards_does_not_change_how_later_ones_are_shaped(reshape):
    running = Running().joined(torch.tensor([1.0, 3.0]))
    scores = torch.tensor([2.0, 100.0])
    first, second = (reshape.shaped(scores, NOBODY, running) for _ in range(2))
    assert torch.equal(first, second)
    assert running == Running().joined(torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize("reshape", [Standardised(), Clipped(), Ranged()], ids=name_of)
def test_a_first_step_of_equal_scores_is_shaped_to_numbers(reshape):
    assert shaped(reshape, torch.full((4,), 2.0), torch.zeros(4, 0)).isfinite().all()


def test_statistics_survive_a_checkpoint_to_the_last_bit():
    running = Running().joined(torch.tensor([0.1, 0.7, -2.3])).joined(torch.tensor([1 / 3]))
    assert Running.of({"kl_coef": 0.1} | running.numbers()) == running
    assert Running.of({"kl_coef": 0.1}) == Running() and Running().numbers() == {}


def test_group_advantages_undo_any_factor_and_constant_but_not_par():
    scores = torch.tensor([1.0, 2, 4, 5, 8], dtype=torch.float64)
    plain = rl.in_group(scores, 5, "sample", 0.0)
    assert plain.tolist() == pytest.approx([-1.095445, -0.730297, 0, 0.365148, 1.460593], abs=5e-7)
    running = Running().joined(scores)
    refs = torch.full((5, 1), 4.0, dtype=torch.float64)
    for reshape in (Standardised(), Ranged(), Centred()):
        found = rl.in_group(reshape.shaped(scores, refs, running), 5, "sample", 0.0)
        torch.testing.assert_close(found, plain)
    torch.testing.assert_close(rl.in_group(3 * scores + 7, 5, "sample", 0.0), plain)
    par = rl.in_group(Preference().shaped(scores, refs, running), 5, "sample", 0.0)
    assert par.tolist() == pytest.approx(
        [-1.077482, -0.897001, 0.060497, 0.641485, 1.272501], abs=5e-7
    )


def test_a_factor_and_a_constant_only_change_the_temperature_of_an_exact_optimum():
    base = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reward = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)

    def gibbs(reward: torch.Tensor, beta: float) -> torch.Tensor:
        return (base.log() + reward / beta).softmax(0)

    torch.testing.assert_close(gibbs(3 * reward + 7, 0.6), gibbs(reward, 0.2))


def test_the_variance_that_a_sampled_preference_adds_is_that_of_a_coin():
    # Two equally likely actions of scores +-0.5, preferred with sigma(+-1).
    scores = torch.tensor([0.5, -0.5], dtype=torch.float64)
    win = torch.tensor([1.0, -1.0], dtype=torch.float64).sigmoid()
    mean = (scores * win).mean()
    sampled, expected = (scores**2 * win).mean() - mean**2, ((scores * win) ** 2).mean() - mean**2
    assert float(sampled) == pytest.approx(0.111653, abs=5e-7)
    assert float(expected) == pytest.approx(0.0625, abs=5e-7)
    assert float(sampled - expected) == pytest.approx(0.049153, abs=5e-7)
    assert float((scores**2 * win * (1 - win)).mean()) == pytest.approx(0.049153, abs=5e-7)


def test_the_reward_stands_at_the_last_token_and_returns_are_rewards_to_go():
    log_ratios, mask = torch.tensor([[0.2, -0.1, 0.4]]), torch.ones(1, 3)
    penalties = rl.kl(log_ratios, torch.zeros(1, 3), "k1")
    rewards = rl.place_rewards(torch.tensor([0.8]), penalties, mask, 0.005)
    assert rewards[0].tolist() == pytest.approx([-0.001, 0.0005, 0.798])
    found = rl.estimate_advantages(rewards, torch.zeros(1, 3), mask, 1.0, 1.0)
    assert found.returns[0].tolist() == pytest.approx([0.7975, 0.7985, 0.798])


@pytest.mark.parametrize(
    ("beta", "vanilla", "par"),
    [(0.5, 0.999998, 0.001269), (1.0, 0.956613, 0.001126), (2.0, 0.129346, 0.001061)],
)
def test_how_much_a_policy_hacks_a_reward_that_is_wrong_once_in_a_thousand(beta, vanilla, par):
    # An honest answer of reward 2, and a hack of reward 12 that the start gives once in 1000.
    scores = torch.tensor([2.0, 12.0], dtype=torch.float64)
    base = torch.tensor([0.999, 0.001], dtype=torch.float64)
    refs = torch.zeros(2, 1, dtype=torch.float64)
    for reward, mass in ((scores, vanilla), (shaping.preference(scores, refs), par)):
        assert float((base.log() + reward / beta).softmax(0)[1]) == pytest.approx(mass, abs=5e-7)


def test_at_which_price_of_a_nat_the_hack_is_as_likely_as_the_honest_answer():
    scores = torch.tensor([2.0, 12.0], dtype=torch.float64)
    par = shaping.preference(scores, torch.zeros(2, 1, dtype=torch.float64))
    odds = math.log(999)
    assert float(scores.diff()) / odds == pytest.approx(1.447858, abs=5e-7)
    assert float(par.diff()) / odds == pytest.approx(0.017258, abs=5e-7)


@pytest.mark.parametrize(
    ("policy", "k1", "k3", "flipped", "clamped"),
    [
        ((0.7, 0.3), 0.0822829, 0.0822829, 0.0777171, 0.2355306),
        ((0.95, 0.05), 0.4946319, 0.4946319, 0.3153681, 0.6097612),
    ],
)
def test_estimators_of_the_divergence_agree_but_for_the_clamped_and_the_flipped_one(
    policy, k1, k3, flipped, clamped
):
    of, ref = torch.tensor([policy, (0.5, 0.5)], dtype=torch.float64).log()

    def mean(estimate: torch.Tensor) -> float:
        return float((of.exp() * estimate).sum())

    assert mean(rl.kl(of, ref, "k1")) == pytest.approx(k1, abs=5e-8)
    assert mean(rl.kl(of, ref, "k3")) == pytest.approx(k3, abs=5e-8)
    assert mean(rl.kl(of, ref, "clamped")) == pytest.approx(clamped, abs=5e-7)
    # With the log-ratio turned round, k3 estimates chi-squared less the divergence: not offered.
    turned = mean(rl.kl(ref, of, "k3"))
    chi_squared = float((of.exp() ** 2 / ref.exp()).sum()) - 1
    assert turned == pytest.approx(flipped, abs=5e-8)
    assert turned == pytest.approx(chi_squared - k1, abs=5e-7)


def test_what_is_taken_off_a_score_first():
    penalties = Penalties(ceiling=3.0, length=LengthPenalty())
    assert penalties.applied(2.0, 300, True) == 2.0
    assert penalties.applied(2.0, 350, True) == pytest.approx(1.5)
    assert penalties.applied(9.0, 400, True) == pytest.approx(2.0)
    assert Penalties(missing_eos=-1.0, ceiling=3.0).applied(9.0, 400, False) == -1.0
    assert Penalties().applied(9.0, 400, False) == 9.0


def test_a_judge_whose_scores_were_lowered_has_another_name():
    assert Penalties().named("rm") == "rm"
    names = {Penalties(length=LengthPenalty(price=price)).named("rm") for price in (0.01, 0.02)}
    assert len(names) == 2 and "rm" not in names


@pytest.mark.parametrize("reshape", EVERY, ids=name_of)
def test_references_are_given_where_they_are_read_and_nowhere_else(reshape):
    check_references(reshape, given=reshape.references > 0)
    mend = "give ref_rewards" if reshape.references else "leave ref_rewards out"
    with pytest.raises(BadInput, match=mend):
        check_references(reshape, given=reshape.references == 0)


def test_curves_of_the_score_itself_read_no_references():
    assert [kind(centred=False).references for kind in (Sigmoid, Tanh, Polynomial)] == [0, 0, 0]


def test_lsc_needs_two_references_to_have_a_deviation():
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        LogSigmoid(answers=1)
