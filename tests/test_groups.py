"""PPO's loop without a critic: groups, LoRA, checkpoints and several processes, on a CPU."""

from pathlib import Path

import pytest
import torch

from alpacafarm_core.methods.grpo import GroupObjective
from alpacafarm_core.methods.reinforce_pp import BatchObjective
from alpacafarm_core.methods.rloo import LeaveOneOutObjective
from alpacafarm_core.proximal import KLPenalty, OnlineObjective, Scoring
from alpacafarm_core.settings import Lora, Sampling
from alpacafarm_core.train import bench, online
from alpacafarm_core.train.engine import accumulate
from alpacafarm_core.train.rollouts import Rollouts, joined
from tests.test_resume import EVERY_STEP, Killed, same_weights, stopped_after, untimed
from tests.test_training import EXACT, TRAINING, share_of_even_ids, weights
from tests.tiny import demonstrations

STEADY = TRAINING.replace(learning_rate=1e-3, schedule="constant", warmup=0.0)
LOOP = {"steps": 2, "rollouts": 16, "minibatch": 8, "inner_epochs": 2, "training": STEADY}
FOUR = Sampling(n=4, temperature=1.0, max_tokens=12)
GRPO = GroupObjective(**LOOP, sampling=FOUR)
RLOO = LeaveOneOutObjective(**LOOP, sampling=FOUR)
REINFORCE = BatchObjective(**LOOP, sampling=FOUR.replace(n=1))
EACH = pytest.mark.parametrize("objective", [GRPO, RLOO, REINFORCE], ids=["grpo", "rloo", "pp"])
PROMPTS = [[0, 9, 9 + n // 4] for n in range(16)]


def cut(rollouts: Rollouts, rows: slice) -> Rollouts:
    """Some of the responses, as one process would hold them."""
    return Rollouts(*(each[rows] for each in rollouts))


@EACH
def test_there_is_no_critic_to_learn(tiny, scorer, objective):
    course = online.enrol((tiny, scorer, None), objective, EXACT)
    assert course.critic is None and course.learners == [course.policy.model]
    assert not online.experience(course, PROMPTS, 0).values.any()


@EACH
def test_gradients_do_not_depend_on_the_micro_batch(tiny, scorer, objective):
    found = []
    for cuts in ([list(range(8))], [[0, 5], [1, 2, 3], [4, 6, 7]]):
        course = online.enrol((tiny, scorer, None), objective, EXACT)
        rollouts = online.experience(course, PROMPTS, 0)
        taught = online.learned(rollouts, 0.1, objective)
        accumulate(course.engine, cuts, online.lesson(course, rollouts, taught, range(8)))
        found.append([weight.grad for weight in course.policy.model.parameters()])
    assert any(bool(weight.any()) for weight in found[0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@EACH
def test_the_policy_learns_and_nobody_speaks_of_values(tiny, scorer, tmp_path, objective):
    checked = EXACT.replace(fit_check="yes")
    models = (tiny, scorer, None)
    steps = online.roll_out(models, tmp_path / "out", demonstrations(), objective, checked)["steps"]
    assert {"value_loss", "explained_variance"}.isdisjoint(steps[0])
    assert ("kl_loss" in steps[0]) == (objective is GRPO)
    before, after = weights(tiny), weights(tmp_path / "out")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_answers_to_one_prompt_lie_side_by_side_and_differ(tiny, scorer, tmp_path, monkeypatch):
    seen: list[Rollouts] = []
    experience = online.experience

    def watched(*given):
        seen.append(experience(*given))
        return seen[-1]

    monkeypatch.setattr(online, "experience", watched)
    online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), GRPO, EXACT)
    assert len(seen) == 2
    for rollouts in seen:
        groups = [rollouts.rows[start : start + 4] for start in range(0, 16, 4)]
        assert all(len({tuple(row.prompt) for row in group}) == 1 for group in groups)
        assert all(len({tuple(row.response) for row in group}) > 1 for group in groups)


def test_grpo_raises_the_reward(tiny, scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "scores", share_of_even_ids)
    easy = GRPO.replace(
        steps=8, rollouts=32, minibatch=16, training=STEADY.replace(learning_rate=3e-3)
    )
    notes = online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), easy, EXACT)
    rewards = [step["reward"] for step in notes["steps"]]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15


def test_a_stopped_grpo_ends_as_if_it_had_not_been(tiny, scorer, tmp_path, monkeypatch):
    def run(folder: str):
        models, data = (tiny, scorer, None), demonstrations()
        return online.roll_out(models, tmp_path / folder, data, GRPO, EVERY_STEP)

    whole = run("whole")
    for saves in (1, 2):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            stopped_after(patch, saves)
            run(f"stopped{saves}")
        assert untimed(run(f"stopped{saves}")) == untimed(whole)
        assert same_weights(tmp_path / "whole", tmp_path / f"stopped{saves}")


def adapted(objective: OnlineObjective) -> OnlineObjective:
    """The objective, of adapters."""
    return objective.replace(training=STEADY.replace(lora=Lora(rank=4, dropout=0.5)))


@EACH
def test_adapters_learn_without_a_critic_and_the_base_is_the_reference(
    tiny, scorer, tmp_path, objective
):
    course = online.enrol((tiny, scorer, None), adapted(objective), EXACT)
    assert course.reference is course.policy.model
    names = [
        name for name, weight in course.policy.model.named_parameters() if weight.requires_grad
    ]
    assert names and all(".policy." in name for name in names)
    out = tmp_path / "out"
    models = (tiny, scorer, None)
    steps = online.roll_out(models, out, demonstrations(), adapted(objective), EXACT)["steps"]
    assert steps[0]["kl"] == 0 and steps[1]["kl_k3"] > 0


def test_a_group_that_two_processes_sampled_is_one_group(tiny, scorer):
    one = GRPO.replace(sampling=FOUR.replace(n=16))
    course = online.enrol((tiny, scorer, None), one, EXACT)
    whole = online.experience(course, [[0, 9, 9]] * 16, 0)
    again = joined([cut(whole, slice(0, 8)), cut(whole, slice(8, 16))])
    found, expected = (online.learned(each, 0.1, one).advantages for each in (again, whole))
    assert torch.equal(found, expected) and found.any()
    assert float(found[:, 0].mean()) == pytest.approx(0, abs=1e-6)


def test_the_price_of_a_nat_in_the_loss_follows_the_kl(tiny, scorer, tmp_path):
    adaptive = GRPO.replace(kl=KLPenalty(coef=0.1, target=1000.0, estimator="k3"))
    models = (tiny, scorer, None)
    steps = online.roll_out(models, tmp_path / "out", demonstrations(), adaptive, EXACT)["steps"]
    assert [step["kl_coef"] for step in steps] == pytest.approx([0.1, 0.098])


def test_without_a_price_there_is_no_kl_in_the_loss(tiny, scorer, tmp_path):
    free = GRPO.replace(kl=KLPenalty(coef=0.0, estimator="k3"))
    models = (tiny, scorer, None)
    steps = online.roll_out(models, tmp_path / "out", demonstrations(), free, EXACT)["steps"]
    assert "kl_loss" not in steps[0] and steps[1]["kl_k3"] > 0


def test_an_unfinished_answer_of_a_group_has_the_score_that_is_set(tiny, scorer: Path):
    strict = GRPO.replace(shaping=Scoring(missing_eos=-100.0))
    course = online.enrol((tiny, scorer, None), strict, EXACT)
    rollouts = online.experience(course, PROMPTS, 0)
    rollouts = rollouts._replace(finished=torch.arange(16) % 4 > 0)
    found = online.learned(rollouts, 0.0, strict).advantages[:, 0]
    assert [row for row in range(16) if found[row] < -1.4] == [0, 4, 8, 12]
