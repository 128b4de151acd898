"""Both loops and the reward model on a tiny Llama, on a CPU."""

from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alpacafarm_core import reward
from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Objective, PairLogps, TokenLogps
from alpacafarm_core.proximal import KLPenalty, ProximalObjective, Shaping
from alpacafarm_core.settings import Fitting, Sampling, Training
from alpacafarm_core.train import bench, offline, online
from alpacafarm_core.train.batches import Room, Tokens, alike, encode
from alpacafarm_core.train.engine import Alone, accumulate
from alpacafarm_core.train.judged import split_of
from alpacafarm_core.train.models import load_policy, load_scorer
from alpacafarm_core.train.readable import scorable
from alpacafarm_core.train.reference import reference_logprobs
from alpacafarm_core.train.team import TOGETHER
from tests.tiny import demonstrations, preferences

EXACT = Machine(device="cpu", precision="float32", micro_batch=4)
TRAINING = Training(learning_rate=3e-3, epochs=6, batch=8, max_length=256)


class Imitation(Objective):
    """Cross-entropy."""

    training: Training = TRAINING

    def loss(self, batch: TokenLogps) -> Tensor:
        return -batch.logprobs


class Contrast(Objective):
    """The logistic loss of DPO."""

    training: Training = TRAINING

    def loss(self, batch: PairLogps) -> Tensor:
        margin = (batch.chosen - batch.ref_chosen) - (batch.rejected - batch.ref_rejected)
        return -logsigmoid(0.1 * margin)


class Plain(NamedTuple):
    """Two summed log-probabilities and their lengths, each [B]; no reference."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor


class Mean(Objective):
    """A loss without a reference, on means over tokens."""

    training: Training = TRAINING

    def loss(self, batch: Plain) -> Tensor:
        gap = batch.chosen / batch.chosen_length - batch.rejected / batch.rejected_length
        return -logsigmoid(gap)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_policy(folder, EXACT).model.state_dict()


def course(tiny: Path, objective: Objective, machine: Machine) -> offline.Course:
    policy = load_policy(tiny, machine)
    data = preferences() if isinstance(objective, Contrast) else demonstrations()
    examples = offline.read(data, policy.tokenizer, objective).examples
    known = reference_logprobs(policy, examples, machine)
    return offline.Course(policy.model, examples, known, objective, machine)


def figures(course: offline.Course, micro_batches: list[list[int]]) -> dict[str, float]:
    rows = [row for micro in micro_batches for row in micro]
    engine = Alone([course.model], course.objective.training)
    return accumulate(engine, micro_batches, offline.lesson(course, rows))


def gradients(course: offline.Course, micro_batches: list[list[int]]) -> list[Tensor]:
    figures(course, micro_batches)
    return [weight.grad for weight in course.model.parameters()]


@pytest.mark.parametrize("objective", [Imitation(), Contrast(), Mean()])
def test_the_loss_falls(tiny, tmp_path, objective):
    data = demonstrations() if isinstance(objective, Imitation) else preferences()
    notes = offline.train((tiny, None), tmp_path / "out", data, objective, EXACT)
    losses = [step["loss"] for step in notes["steps"]]
    assert notes["rows"] == 16 and len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


def test_dpo_starts_at_ln_2_and_orders_the_pairs(tiny, tmp_path):
    steps = offline.train((tiny, None), tmp_path / "out", preferences(), Contrast(), EXACT)["steps"]
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["accuracy"] == 1.0 and steps[-1]["margin"] > 1


@pytest.mark.parametrize("objective", [Imitation(), Contrast()])
def test_accumulated_gradients_are_those_of_one_batch(tiny, objective):
    whole = gradients(course(tiny, objective, EXACT), [list(range(8))])
    parts = gradients(course(tiny, objective, EXACT), [[0, 3, 5], [1], [2, 4, 6, 7]])
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_token_loss_is_the_mean_over_the_tokens_of_the_batch(tiny):
    made = course(tiny, Imitation(), EXACT)
    found = figures(made, [[0], [1, 2]])
    with torch.no_grad():
        views = [offline.see(made, [row]) for row in range(3)]
    total = -sum(float((view.logprobs * view.mask).sum()) for view in views)
    assert found["tokens"] == sum(float(view.mask.sum()) for view in views)
    assert found["loss"] == pytest.approx(total / found["tokens"], rel=1e-5)


@pytest.mark.parametrize("objective", [Imitation(), Contrast()])
def test_the_micro_batch_does_not_change_the_result(tiny, tmp_path, objective):
    data = demonstrations() if isinstance(objective, Imitation) else preferences()
    for micro in (1, 8):
        machine = EXACT.replace(micro_batch=micro)
        # A larger epsilon, because AdamW makes a rounding error in a tiny gradient a whole step.
        objective = objective.replace(training=TRAINING.replace(adam_epsilon=1e-4))
        offline.train((tiny, None), tmp_path / str(micro), data, objective, machine)
    one, other = weights(tmp_path / "1"), weights(tmp_path / "8")
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-4, rtol=1e-3)


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path):
    for run in ("first", "second"):
        offline.train((tiny, None), tmp_path / run, demonstrations(), Imitation(), EXACT)
    one, other = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("objective", [Imitation(), Contrast()])
def test_rows_in_a_file_train_to_the_same_weights_as_in_memory(tiny, tmp_path, objective):
    rows = demonstrations() if isinstance(objective, Imitation) else preferences()
    rows.write_parquet(tmp_path / "rows.parquet")
    brief = objective.replace(training=TRAINING.replace(epochs=2))
    for name, source in (("memory", rows), ("file", tmp_path / "rows.parquet")):
        offline.train((tiny, None), tmp_path / name, source, brief, EXACT)
    one, other = weights(tmp_path / "memory"), weights(tmp_path / "file")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("changes", [{"packing": "yes"}, {"micro_tokens": 200}])
def test_packing_and_a_budget_of_tokens_leave_the_gradient_as_it_is(tiny, changes):
    for objective in (Imitation(), Contrast()):
        machine = EXACT.replace(micro_batch=8)
        made = [course(tiny, objective, each) for each in (machine, machine.replace(**changes))]
        one, other = (
            gradients(each, alike(each.examples, range(8), Room.of(each.machine))) for each in made
        )
        for ours, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_not_a_number_fails(tiny, tmp_path):
    broken = Imitation(training=TRAINING.replace(learning_rate=1e12, clip=1e12))
    with pytest.raises(TrainingFailed, match="lower the learning rate"):
        offline.train((tiny, None), tmp_path / "out", demonstrations(), broken, EXACT)


def test_rows_that_are_too_long_are_counted_and_nothing_left_fails(tiny, tmp_path):
    tokenizer = load_policy(tiny, EXACT).tokenizer
    lengths = [row.length for row in encode(demonstrations(), "output", tokenizer)]
    short = Imitation(training=TRAINING.replace(max_length=max(lengths) - 1, epochs=1))
    notes = offline.train((tiny, None), tmp_path / "out", demonstrations(), short, EXACT)
    assert 0 < notes["too_long"] < 16 and notes["rows"] + notes["too_long"] == 16
    with pytest.raises(BadInput, match="max_length"):
        none = Imitation(training=TRAINING.replace(max_length=8))
        offline.train((tiny, None), tmp_path / "out", demonstrations(), none, EXACT)


def test_the_reward_model_learns_and_is_tested_on_other_instructions(tiny, tmp_path):
    fitting = Fitting(training=TRAINING.replace(epochs=3), held_out=4)
    rows = preferences(12).with_columns(
        preference=pl.Series([None, 1.5, *preferences(12)["preference"][2:]], dtype=pl.Float64)
    )
    notes = reward.fit(tiny, tmp_path / "out", rows, fitting, EXACT)
    assert notes["undecided"] == 2 and notes["held_out_rows"] == 4 and notes["rows"] == 42
    assert notes["accuracy"] == 1.0 and notes["steps"][-1]["accuracy"] == 1.0
    assert notes["length_accuracy"] < 0.5  # the rejected answer is the longer one
    assert notes["steps"][-1]["loss"] < 0.2 * notes["steps"][0]["loss"]


def test_pairs_of_one_instruction_are_on_one_side_of_the_split(tiny):
    doubled = pl.concat([preferences(12)] * 2)
    split = split_of(doubled, load_scorer(tiny, EXACT), Fitting(held_out=6))
    held = {tuple(pair.chosen.prompt) for pair in split.held_out}
    assert len(split.held_out) == 6 and len(split.learned) == 90
    assert held.isdisjoint(tuple(pair.chosen.prompt) for pair in split.learned)


def test_scores_do_not_depend_on_the_batch_and_leave_the_end_token_out(tiny):
    scorer = load_scorer(tiny, EXACT)
    rows = [Tokens([0, 9, 9], [7] * n) for n in (5, 2, 9)]
    together = reward.scores(scorer, rows, EXACT)
    alone = [reward.scores(scorer, [row], EXACT)[0] for row in rows]
    ended = reward.scores(scorer, [Tokens(r.prompt, [*r.response, 1]) for r in rows], EXACT)
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(ended, abs=1e-6)


def test_what_is_too_long_loses_the_left_of_its_prompt(tiny):
    scorer = load_scorer(tiny, EXACT)
    scorer.tokenizer.model_max_length = 6
    cut = scorable(Tokens([0, 10, 11, 12, 13], [20, 21, 22]), scorer)
    assert cut == Tokens([0, 12, 13], [20, 21, 22])
    endless = scorable(Tokens([0, 10, 11], list(range(20, 40))), scorer)
    assert endless == Tokens([0, 11], list(range(36, 40)))
    assert scorable(Tokens([0, 10], [1]), scorer) == Tokens([0], [10])


def test_hub_style_scoring_gives_the_same_number(tiny):
    scorer = load_scorer(tiny, EXACT)
    ids = [0, 9, 9, 7, 7]
    (ours,) = reward.scores(scorer, [Tokens(ids[:3], ids[3:])], EXACT)
    with torch.no_grad():
        theirs = float(scorer.model(input_ids=torch.tensor([ids])).logits)
    assert ours == pytest.approx(theirs, abs=1e-5)


PPO = ProximalObjective(
    steps=3,
    rollouts=16,
    minibatch=8,
    sampling=Sampling(temperature=1.0, max_tokens=12),
    training=TRAINING.replace(learning_rate=1e-3, schedule="constant", warmup=0.0),
)


def share_of_even_ids(scorer, rows: list[Tokens], machine: Machine) -> list[float]:
    """A reward one can see through, between -2 and 2."""
    return [4 * sum(i % 2 == 0 for i in r.response) / len(r.response) - 2 for r in rows]


def test_ppo_raises_the_reward(tiny, scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "scores", share_of_even_ids)
    easy = PPO.replace(steps=12, rollouts=64, minibatch=32, shaping=Shaping(missing_eos=None))
    notes = online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), easy, EXACT)
    steps = notes["steps"]
    assert notes["rows"] == 16 and len(steps) == 12
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-4)
    first, last = ([step["reward"] for step in part] for part in (steps[:3], steps[-3:]))
    assert sum(last) / 3 > sum(first) / 3 + 0.15
    assert steps[-1]["kl_k3"] > 0 and 0 < steps[-1]["clip_fraction"] < 1


def test_an_adaptive_coefficient_follows_the_kl(tiny, scorer, tmp_path):
    adaptive = PPO.replace(kl=KLPenalty(coef=0.1, target=1000.0))
    models = (tiny, scorer, None)
    steps = online.roll_out(models, tmp_path / "out", demonstrations(), adaptive, EXACT)
    coefs = [step["kl_coef"] for step in steps["steps"]]
    assert coefs == pytest.approx([0.1, 0.098, 0.09604])


def test_ppo_gives_the_same_weights_for_the_same_seed(tiny, scorer, tmp_path):
    for run in ("first", "second"):
        online.roll_out((tiny, scorer, None), tmp_path / run, demonstrations(), PPO, EXACT)
    one, other = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], old) for name, old in weights(tiny).items())


def test_ppo_gradients_do_not_depend_on_the_micro_batch(tiny, scorer):
    found = []
    for cut in ([list(range(8))], [[0, 5], [1, 2, 3], [4, 6, 7]]):
        course = online.enrol((tiny, scorer, None), PPO, EXACT)
        rollouts = online.experience(course, [[0, 9, 9 + n] for n in range(8)], 0)
        taught = online.learned(rollouts, 0.1, PPO)
        accumulate(course.engine, cut, online.lesson(course, rollouts, taught, range(8)))
        learners = [*course.policy.model.parameters(), *course.critic.parameters()]
        found.append([weight.grad for weight in learners if weight.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_the_critic_starts_at_zero_and_old_logprobs_are_the_trainers(tiny, scorer):
    course = online.enrol((tiny, scorer, None), PPO, EXACT)
    rollouts = online.experience(course, [[0, 9, 9 + n] for n in range(8)], 0)
    assert not rollouts.values.any()
    torch.testing.assert_close(rollouts.logprobs, rollouts.ref_logprobs)
    assert [len(row.response) for row in rollouts.rows] == rollouts.mask.sum(1).tolist()


def test_prompts_that_leave_no_room_are_left_out_of_ppo(tiny, scorer, tmp_path):
    tight = PPO.replace(training=PPO.training.replace(max_length=13))
    complaint = "none of 16 prompts fits in the 1 tokens .* raise max_length"
    with pytest.raises(BadInput, match=complaint):
        online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), tight, EXACT)


def test_rows_longer_than_the_model_sees_are_refused_at_the_door(tiny, scorer, tmp_path):
    long = TRAINING.replace(max_length=257)
    with pytest.raises(BadInput, match="max_length 257 is more than the 256 tokens"):
        offline.train(
            (tiny, None), tmp_path / "out", demonstrations(), Imitation(training=long), EXACT
        )
    with pytest.raises(BadInput, match=r"lower training\.max_length"):
        online.enrol((tiny, scorer, None), PPO.replace(training=long), EXACT)


def test_each_process_needs_a_rollout(tiny, scorer, monkeypatch):
    monkeypatch.setenv(TOGETHER, "yes")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="1 rollouts for 2 processes"):
        online.enrol((tiny, scorer, None), PPO.replace(rollouts=1), EXACT)
