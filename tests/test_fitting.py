"""What a reward model is fitted for: losses by hand, heads that go, gradients of whole batches."""

import math

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import tensor

from alpacafarm_core import reward
from alpacafarm_core.artifacts import Candidates, Ranked
from alpacafarm_core.errors import BadInput
from alpacafarm_core.fitting import Margin, Odin, Views
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Fitting, Lora
from alpacafarm_core.train import judging, multi_view
from alpacafarm_core.train.bradley_terry import (
    Judged,
    correlation,
    length_loss,
    margins,
    orthogonality_loss,
    pair_loss,
    penalty_loss,
    slopes,
)
from alpacafarm_core.train.engine import Alone, accumulate
from alpacafarm_core.train.judged import sampled_of, split_of
from alpacafarm_core.train.models import load_scorer
from alpacafarm_core.train.trial import shape_of
from tasks.train import fit_reward
from tests.paper_farm import START, numbered
from tests.test_training import EXACT, TRAINING
from tests.tiny import ANSWERS, PROMPTS, frame, preferences

QUICK = TRAINING.replace(epochs=1)
PLAIN = Fitting(training=QUICK, held_out=4)
FEW = Views(size=4, width=8)
EACH = {
    "margin": PLAIN.replace(margin=Margin()),
    "penalty": PLAIN.replace(penalty=0.05),
    "odin": PLAIN.replace(odin=Odin()),
    "views": PLAIN.replace(views=FEW),
    "all": PLAIN.replace(margin=Margin(), penalty=0.05, odin=Odin(), views=FEW),
}


def ranked(repeats=6):
    """Pairs with gaps of 1, 2, 3 and 4."""
    pairs = preferences(repeats)
    rows = pairs.with_columns(gap=1.0 + pl.int_range(pl.len()) % 4)
    return frame(Ranked, rows.to_dicts())


def samples():
    """Three answers to each of twelve prompts."""
    rows = [
        {
            "instruction": f"{instruction} {again}",
            "input": text,
            "output": ANSWERS[(number + index) % 4],
            "tokenizer": "",
            "sample_index": index,
        }
        for again in range(3)
        for number, (instruction, text) in enumerate(PROMPTS)
        for index in range(3)
    ]
    return frame(Candidates, rows)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def test_a_margin_moves_the_loss_along_the_gap():
    gap, nothing = tensor([0.2, 0.2, 1.0, 1.0]), torch.zeros(4)
    found = pair_loss(gap, nothing, tensor([0.0, 0.5, 0.0, 0.375]))
    torch.testing.assert_close(found, tensor([0.598139, 0.854355, 0.313262, 0.428701]))


def test_a_gap_as_large_as_its_margin_costs_ln_2():
    found = pair_loss(tensor([0.7]), tensor([0.2]), tensor([0.5]))
    assert float(found) == pytest.approx(math.log(2))


def test_a_margin_is_the_gap_as_a_share_of_the_largest():
    assert margins([1.0, 4.0, None, 0.0], Margin()) == [0.25, 1.0, 0.0, 0.0]
    assert margins([1.0, 4.0], Margin(largest=10)) == [0.1, 0.4]
    assert margins([1.0, 4.0], None) == [0.0, 0.0]
    assert margins([None, None], Margin()) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("gaps", "margin", "said"),
    [
        ([1.0, 4.0], Margin(largest=3), "row 9: its gap is 4; raise fitting.margin.largest"),
        ([-1.0, 4.0], Margin(), "row 7: its gap is -1; put the preferred answer's number first"),
    ],
)
def test_a_gap_that_cannot_be_a_margin_is_refused_by_its_row(gaps, margin, said):
    with pytest.raises(BadInput, match=said):
        margins(gaps, margin, [7, 9])


@pytest.mark.parametrize(("b", "d"), [(0.005, 3.913994), (0.05, 2.128035), (0.5, 0.674832)])
def test_a_penalised_pair_settles_where_the_chance_of_error_is_b_times_the_gap(b, d):
    assert 1 / (1 + math.exp(d)) == pytest.approx(b * d, abs=1e-6)
    sides = tensor([d / 2, -d / 2], dtype=torch.double, requires_grad=True)
    chosen, rejected = sides[:1], sides[1:]
    loss = pair_loss(chosen, rejected) + penalty_loss(chosen, rejected, b)
    (slope,) = torch.autograd.grad(loss.sum(), sides)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_descent_on_the_penalised_loss_finds_that_gap():
    sides = torch.zeros(2, dtype=torch.double, requires_grad=True)
    for _ in range(4000):
        loss = pair_loss(sides[:1], sides[1:]) + penalty_loss(sides[:1], sides[1:], 0.05)
        (slope,) = torch.autograd.grad(loss.sum(), sides)
        sides = (sides - 0.2 * slope).detach().requires_grad_()
    assert sides.tolist() == pytest.approx([2.128035 / 2, -2.128035 / 2], abs=1e-6)


def test_the_heads_cosine_is_0_at_a_right_angle_and_1_for_equal_heads():
    one, turned = tensor([[3.0, 4.0]]), tensor([[4.0, -3.0]])
    assert float(orthogonality_loss(one, turned, 1.0)) == 0.0
    assert float(orthogonality_loss(one, -2 * one, 1.0)) == pytest.approx(1.0, abs=1e-6)
    assert float(orthogonality_loss(one, one, 0.5)) == pytest.approx(0.5, abs=1e-6)


def test_the_length_term_is_minus_1_at_best_and_2_at_worst():
    tokens = tensor([1.0, 2.0, 3.0, 4.0])
    flat = tensor([1.0, -1.0, -1.0, 1.0])
    assert float(length_loss(Judged(flat, tokens, tokens), 1.0)) == pytest.approx(-1.0)
    assert float(length_loss(Judged(-tokens, -tokens, tokens), 1.0)) == pytest.approx(2.0)


def test_what_is_constant_correlates_with_nothing_and_has_no_gradient():
    constant = torch.ones(3, requires_grad=True)
    assert float(correlation(constant, tensor([1.0, 2.0, 3.0]))) == 0.0
    slope, value = slopes(Judged(constant, constant, tensor([1.0, 2.0, 3.0])), 1.0)
    assert value == 0.0 and not slope.quality.any() and not slope.length.any()


def test_the_slopes_are_those_of_small_steps():
    seen = Judged(tensor([0.3, -1.0, 0.8]), tensor([0.1, 0.5, 0.2]), tensor([3.0, 9.0, 4.0]))
    found, value = slopes(seen, 0.7)
    assert value == pytest.approx(float(length_loss(seen, 0.7)), abs=1e-6)
    for name in ("quality", "length"):
        moved = getattr(seen, name).double().clone()
        moved[1] += 1e-5
        changed = seen._replace(quality=seen.quality.double(), length=seen.length.double())
        later = length_loss(changed._replace(**{name: moved}), 0.7) - length_loss(changed, 0.7)
        assert float(getattr(found, name)[1]) == pytest.approx(float(later) / 1e-5, abs=1e-4)


def course_of(tiny, fitting, machine=EXACT):
    torch.manual_seed(3)
    scorer = load_scorer(tiny, machine)
    course = judging.Course(scorer, split_of(ranked(), scorer, fitting), fitting, machine)
    if fitting.views.size == FEW.size:
        course = course._replace(sampled=sampled_of(samples(), scorer, fitting))
    judging.attach(scorer, fitting, course.sampled is not None)
    return course


def gradients(tiny, fitting, micro_batch):
    """Of one batch of the first eight pairs, after all of its micro-batches."""
    course = course_of(tiny, fitting)
    rows = list(range(8))
    parts = [rows[at : at + micro_batch] for at in range(0, 8, micro_batch)]
    engine = Alone([course.scorer.model], fitting.training)
    figures = accumulate(engine, parts, judging.lesson(course, rows))
    return figures, {name: weight.grad for name, weight in engine.named.items()}


@pytest.mark.parametrize("name", EACH)
def test_gradients_are_those_of_the_whole_batch_whatever_the_micro_batch(tiny, name):
    expected, whole = gradients(tiny, EACH[name], 8)
    for micro_batch in (1, 3):
        figures, found = gradients(tiny, EACH[name], micro_batch)
        assert figures == pytest.approx(expected, abs=2e-5)
        for weight in whole:
            torch.testing.assert_close(found[weight], whole[weight], atol=2e-5, rtol=1e-4)


def test_the_gradient_of_odin_is_that_of_its_formula(tiny):
    course = course_of(tiny, EACH["odin"])
    rows, model = list(range(8)), course.scorer.model
    _, found = gradients(tiny, EACH["odin"], 3)
    sight = judging.look(course, rows, {})
    pairs = [course.split.learned[row] for row in rows]
    tokens = tensor([[float(len(side.response)) for side in pair] for pair in pairs])
    rewards = sight.quality + sight.length
    loss = pair_loss(rewards[:, 0], rewards[:, 1]).mean()
    loss += length_loss(Judged(*(each.flatten() for each in (*sight[:2], tokens))), 1.0)
    loss += orthogonality_loss(model.score.weight, model.length_head.weight, 1.0)
    loss.backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(found[f"0.{name}"], weight.grad, atol=2e-5, rtol=1e-4)


def test_the_multi_view_loss_reaches_the_backbone(tiny):
    course = course_of(tiny, EACH["views"])
    rows = list(range(4))
    views = dict(zip(rows, course.sampled.views(seed=1, step=0, prompts=4), strict=True))
    seen = judging.look(course, rows, views)
    noise = (torch.zeros(4, 4), torch.zeros(4, 4))
    found = multi_view.terms(course.scorer.model.view_heads, seen.states, noise)
    multi_view.multi_view_loss(found, FEW, 1.0).backward()
    embeddings = course.scorer.model.get_input_embeddings().weight
    assert embeddings.grad.abs().sum() > 0 and course.scorer.model.score.weight.grad is None


def test_a_step_sees_two_samples_of_as_many_prompts_as_it_has_pairs(tiny):
    sampled = course_of(tiny, EACH["views"]).sampled
    views = sampled.views(seed=1, step=0, prompts=12)
    assert len({tuple(pair.chosen.prompt) for pair in views}) == 12
    assert all(pair.chosen.prompt == pair.rejected.prompt for pair in views)
    assert views == sampled.views(1, 0, 12) != sampled.views(1, 1, 12)


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    """A reward model of the same pairs, fitted to their order alone."""
    out = tmp_path_factory.mktemp("plain")
    reward.fit(tiny, out, ranked(), PLAIN, EXACT)
    return weights_of(out)


@pytest.mark.parametrize("name", EACH)
def test_what_is_saved_is_an_ordinary_scorer(tiny, plain, tmp_path, name):
    notes = reward.fit(tiny, tmp_path, (ranked(), samples()), EACH[name], EXACT)
    assert weights_of(tmp_path).keys() == plain.keys()
    assert not torch.equal(weights_of(tmp_path)["score.weight"], plain["score.weight"])
    assert notes.get("left_out") == ("length head" if EACH[name].odin else None)
    assert len(reward.score(tmp_path, samples()[:4], EXACT)) == 4


def test_samples_that_count_nothing_leave_every_bit_as_it_is(tiny, plain, tmp_path):
    nothing = PLAIN.replace(views=FEW.replace(weight=0.0))
    notes = reward.fit(tiny, tmp_path, (ranked(), samples()), nothing, EXACT)
    found = weights_of(tmp_path)
    assert all(torch.equal(plain[name], found[name]) for name in plain)
    assert "information" not in notes["steps"][0]


def test_odin_unlearns_length_where_length_decides(tiny, tmp_path):
    longer = TRAINING.replace(epochs=6)
    found = {
        name: reward.fit(
            tiny, tmp_path / name, preferences(6), each.replace(training=longer), EXACT
        )
        for name, each in (("plain", PLAIN), ("odin", EACH["odin"]))
    }
    plain, odin = (found[name]["steps"][-1] for name in ("plain", "odin"))
    assert abs(odin["length_correlation"]) < 0.5 < odin["length_head_correlation"]
    assert abs(found["odin"]["length_correlation"]) < abs(found["plain"]["length_correlation"])
    assert "length_correlation" not in plain


def test_margins_are_counted_and_a_table_without_gaps_has_none(tiny, tmp_path, caplog):
    fitting = EACH["margin"]
    notes = reward.fit(tiny, tmp_path / "gaps", ranked(), fitting, EXACT)
    assert (notes["gaps"], notes["mean_margin"]) == (24, pytest.approx(0.625, abs=0.1))
    notes = reward.fit(tiny, tmp_path / "none", preferences(6), fitting, EXACT)
    assert (notes["gaps"], notes["mean_margin"]) == (0, 0.0)
    assert "every margin is 0" in caplog.text


def test_the_margins_of_learned_pairs_are_their_own(tiny):
    fitting = PLAIN.replace(margin=Margin(), held_out=2)
    scorer = load_scorer(tiny, EXACT)
    rows = ranked().with_row_index("number").with_columns(gap=pl.col("number") + 1.0)
    split = split_of(rows.drop("number"), scorer, fitting)
    kept = split_of(ranked(), scorer, fitting)
    assert list(split.learned) == list(kept.learned)
    assert len(split.margins) == 22 and max(split.margins) <= 1.0
    assert sorted(set(split.margins)) == list(split.margins)


@pytest.mark.parametrize(
    ("changes", "data", "said"),
    [
        ({"batch": 13}, samples, "draw more samples, or lower training.batch to 12"),
        ({"batch": 1}, samples, "a step with one pair"),
        ({"batch": 7}, samples, "22 pairs in steps of 7 leave a step with one pair"),
    ],
)
def test_too_few_samples_and_lone_pairs_are_refused(tiny, tmp_path, changes, data, said):
    fitting = EACH["views"].replace(training=QUICK.replace(**changes))
    with pytest.raises(BadInput, match=said):
        reward.fit(tiny, tmp_path / "rm", (ranked(), data()), fitting, EXACT)


def test_an_adapted_model_learns_its_heads_and_is_saved_without_them(tiny, tmp_path):
    pytest.importorskip("peft")
    training = QUICK.replace(lora=Lora(rank=2, dropout=0.1))
    fitting = EACH["all"].replace(training=training)
    notes = reward.fit(tiny, tmp_path / "rm", (ranked(), samples()), fitting, EXACT)
    assert "score.weight" in weights_of(tmp_path / "rm")
    assert not any("head" in name for name in weights_of(tmp_path / "rm"))
    assert notes["steps"][0]["length_head_correlation"] != pytest.approx(
        notes["steps"][-1]["length_head_correlation"]
    )


def test_the_fit_check_counts_the_heads(tiny):
    plain, heads = (course_of(tiny, each).scorer.model for each in (PLAIN, EACH["all"]))
    assert shape_of(heads, EXACT).parameters > shape_of(plain, EXACT).parameters


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo", "best_of_n", "expert_iteration"])
def test_every_method_with_a_reward_model_can_ask_for_it(name):
    method = METHODS[name].model_validate(
        {"fitting": {"penalty": 0.005, "odin": {}, "margin": {"largest": 4}}}
    )
    assert method.fitting == Fitting(penalty=0.005, odin=Odin(), margin=Margin(largest=4))


def test_what_is_not_asked_for_is_not_in_the_key():
    one, other = Fitting(), Fitting(margin=None, penalty=0.0, odin=None, views=Views())
    given = START.policy, START.preferences
    keys = {fit_reward.receipt(*given, fitting).key for fitting in (one, other)}
    with_samples = fit_reward.receipt(*given, one, Candidates(key=numbered(3)))
    assert len(keys) == 1 and with_samples.key not in keys
    assert "views" not in Fitting().seeded(7).model_dump()
