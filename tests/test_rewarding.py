"""Reference rewards on their way into a training: asked for, told from strangers, read, resumed."""

import polars as pl
import pytest
import torch

import tasks
from alpacafarm_core.artifacts import Instructions, Scores
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.grpo import GroupObjective
from alpacafarm_core.proximal import KLPenalty, ProximalObjective, Shaping
from alpacafarm_core.referring import REFS, penalised, told
from alpacafarm_core.settings import Sampling
from alpacafarm_core.shaping import (
    LengthPenalty,
    LogSigmoid,
    Penalties,
    Preference,
    Reshape,
    Sigmoid,
    Standardised,
)
from alpacafarm_core.train import online, rewarding
from alpacafarm_core.train.rollouts import Rollouts
from alpacafarm_core.train.shaping import Running
from alpacafarm_core.train.tokens import Tokens
from alpacafarm_core.weights import RewardModel
from tests.methods import steps_of
from tests.paper_farm import START, numbered
from tests.test_resume import (
    EVERY_STEP,
    PPO,
    Killed,
    same_weights,
    stopped_after,
    untimed,
)
from tests.test_training import EXACT
from tests.tiny import demonstrations, frame

ONLINE = ("ppo", "grpo", "rloo", "reinforce_pp")
REWARD = RewardModel(key=numbered(0xA))
TWO = Preference(answers=2)


def with_reshape(objective, reshape: Reshape):
    return objective.replace(shaping=objective.shaping.replace(reshape=reshape))


AIM = with_reshape(PPO.replace(sampling=Sampling(temperature=0.8, max_tokens=12)), TWO)


def prompts(count: int = 2) -> pl.DataFrame:
    rows = [{"instruction": f"Say {n}.", "input": "", "dataset": "toy"} for n in range(count)]
    return frame(Instructions, rows)


def references(count: int = 2, answers: int = 2, **changed) -> pl.DataFrame:
    """What `score` makes of answers of the start to the prompts, two tokens each."""
    rows = [
        row
        | {"sample_index": m, "score": float(n + 10 * m), "judge": REWARD.folder}
        | {"temperature": 0.8, "top_p": 1.0, "max_tokens": 12, "finish_reason": "stop"}
        | {"output_ids": [5, 6]}
        | changed
        for n, row in enumerate(prompts(count).to_dicts())
        for m in range(answers)
    ]
    return frame(Scores, rows)


@pytest.mark.parametrize("name", ONLINE)
def test_every_method_asks_for_answers_of_the_start_where_its_reshaping_reads_them(name):
    objective = with_reshape(METHODS[name].at("small").objective, TWO)
    assert steps_of(name, objective=objective) == [
        "fit_reward(sft, preferences)",
        "generate(sft, instructions)",
        "score(generate2, fit_reward1)",
        "penalise(score3)",
        "roll_out(sft, fit_reward1, instructions, penalise4)",
    ]


@pytest.mark.parametrize("name", ONLINE)
def test_no_method_asks_for_them_where_scores_are_enough(name):
    objective = with_reshape(METHODS[name].at("small").objective, Standardised())
    assert "generate" not in " ".join(steps_of(name, objective=objective))


def test_references_without_penalties_are_the_scores_themselves():
    bare = AIM.replace(shaping=Shaping(missing_eos=None, reshape=TWO))
    asked = steps_of("ppo", objective=bare)
    assert asked[-1] == "roll_out(sft, fit_reward1, instructions, score3)"


def test_their_key_knows_the_penalties_and_how_many_they_are():
    scores = Scores(key=numbered(5))
    one, other = (
        tasks.penalise.receipt(scores, Penalties(length=LengthPenalty(price=price)))
        for price in (0.01, 0.02)
    )
    assert one != other
    sampled = [AIM.sampling.replace(n=answers) for answers in (2, 3)]
    first, second = (tasks.sample.receipt(START.policy, START.instructions, s) for s in sampled)
    assert first != second


def test_references_lose_what_an_answer_in_training_would():
    rows = references(answers=1, output_ids=[7] * 12)
    lowered = penalised(rows, Penalties(length=LengthPenalty(price=0.5, beyond=10)))
    assert lowered["score"].to_list() == [-1.0, 0.0]
    assert lowered["judge"].unique().to_list() != [REWARD.folder]
    assert rows["score"].to_list() == [0.0, 1.0]
    unfinished = rows.with_columns(finish_reason=pl.lit("length"))
    assert penalised(unfinished, Penalties(missing_eos=-3.0))["score"].to_list() == [-3.0, -3.0]


def matched(**changed) -> pl.DataFrame:
    """References as the training's own penalties leave them."""
    return penalised(references(**changed), AIM.shaping.penalties)


def test_each_prompt_gets_its_own_references_whatever_their_order():
    rows = told(prompts(), matched()[::-1], REWARD, AIM)
    assert [sorted(each) for each in rows[REFS]] == [[0, 10], [1, 11]]
    assert rows["instruction"].to_list() == ["Say 0.", "Say 1."]


def test_a_prompt_that_stands_twice_has_the_same_references_twice():
    twice = pl.concat([prompts(1), prompts(1)])
    rows = told(twice, pl.concat([matched(count=1)] * 2), REWARD, AIM)
    assert rows[REFS].to_list() == [[0, 10], [0, 10]]


@pytest.mark.parametrize(
    ("refs", "complaint"),
    [
        (None, "par needs 2 reference rewards a prompt; give ref_rewards"),
        (references(), "4 of 4 reference rewards have judge .* make them anew"),
        (matched(judge="reward_model/other"), "have judge 'reward_model/other"),
        (matched(temperature=1.0), "have temperature 1.0 and the training has 0.8"),
        (matched(max_tokens=99), "have max_tokens 99 and the training has 12"),
        (matched(top_p=0.5), "have top_p 0.5"),
        (matched(count=1), "1 of 2 prompts have fewer than 2 .* first being 'Say 1.'"),
        (matched(answers=1), "2 of 2 prompts have fewer than 2 .* lower shaping.reshape.answers"),
    ],
)
def test_references_that_are_missing_or_of_another_training_are_refused(refs, complaint):
    with pytest.raises(BadInput, match=complaint):
        told(prompts(), refs, REWARD, AIM)


def test_references_that_nobody_reads_are_refused():
    with pytest.raises(BadInput, match="vanilla reads no reference rewards; leave ref_rewards out"):
        told(prompts(), matched(), REWARD, PPO)
    with pytest.raises(BadInput, match="sorted read no reference rewards"):
        told(prompts(), matched(), REWARD, ConditionedObjective())
    assert told(prompts(), None, REWARD, ConditionedObjective()).equals(prompts())


def data(answers: int = 2) -> pl.DataFrame:
    """Prompts of the tiny model, each with so many reference rewards."""
    refs = pl.lit([0.1 * m for m in range(answers)])
    return demonstrations().with_columns(refs.alias(REFS))


def test_the_loop_itself_refuses_prompts_without_the_references_it_reads(tiny, scorer, tmp_path):
    models, out = (tiny, scorer, None), tmp_path / "out"
    with pytest.raises(BadInput, match="par needs 2 reference rewards"):
        online.roll_out(models, out, demonstrations(), AIM, EXACT)
    with pytest.raises(BadInput, match=r"row 0: 3 reference rewards where .* is 2"):
        online.roll_out(models, out, data(3), AIM, EXACT)


def some_rollouts(scores: list[float], lengths: list[int]) -> Rollouts:
    """Responses of these lengths to prompts 3, 4, ...; all finished but the last."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float()
    zeros = torch.zeros_like(mask)
    return Rollouts(
        rows=[Tokens([3 + n], [9] * length) for n, length in enumerate(lengths)],
        scores=torch.tensor(scores),
        finished=torch.tensor([True] * (len(scores) - 1) + [False]),
        sampled=zeros,
        mask=mask,
        **dict.fromkeys(("logprobs", "ref_logprobs", "entropies", "values"), zeros),
    )


def test_a_response_is_compared_with_the_references_of_its_own_prompt():
    rollouts = some_rollouts([1.5, 1.5], [2, 3])
    refs = {(3,): [1.5, 1.5], (4,): [0.0, 1.0]}
    shaping = Shaping(missing_eos=None, reshape=TWO)
    rewards, running = rewarding.rewarded(rollouts, shaping, refs, Running())
    assert rewards.tolist() == pytest.approx([0.5, (0.817574 + 0.622459) / 2], abs=1e-6)
    assert running == Running() and rollouts.scores.tolist() == [1.5, 1.5]


def test_penalties_come_before_the_shaping():
    rollouts = some_rollouts([9.0, 9.0], [2, 5])
    shaping = Shaping(missing_eos=-1.0, ceiling=3.0, length=LengthPenalty(price=1.0, beyond=1))
    assert rewarding.penalised(rollouts, shaping).tolist() == [2.0, -1.0]
    centred = shaping.replace(reshape=TWO)
    rewards, _ = rewarding.rewarded(
        rollouts, centred, {(3,): [2.0] * 2, (4,): [-1.0] * 2}, Running()
    )
    assert rewards.tolist() == [0.5, 0.5]


def test_a_step_is_shaped_by_statistics_with_its_own_scores_in():
    shaping = Shaping(missing_eos=None, reshape=Standardised())
    before = Running().joined(torch.tensor([1.0, 3.0]))
    rewards, after = rewarding.rewarded(some_rollouts([2.0, 6.0], [1, 1]), shaping, {}, before)
    assert rewards.tolist() == pytest.approx([-0.534522, 1.603567], abs=1e-6)
    assert (before.seen, after.seen) == (2, 4)


def test_both_the_raw_and_the_shaped_reward_are_written_down(tiny, scorer, tmp_path):
    steep = with_reshape(AIM, Sigmoid(k=1000, answers=2))
    refs = data().with_columns(pl.Series(REFS, [[-9.0, -9.0]] * 16))
    notes = online.roll_out((tiny, scorer, None), tmp_path / "out", refs, steep, EXACT)
    for step in notes["steps"]:
        assert step["shaped_reward"] == step["saturated"] == 1.0
        assert step["reward"] != 1.0
    plain = online.roll_out((tiny, scorer, None), tmp_path / "plain", demonstrations(), PPO, EXACT)
    assert not {"shaped_reward", "saturated"} & plain["steps"][0].keys()


@pytest.mark.parametrize(
    ("reshape", "saves"),
    [(Standardised(), 2), (Standardised(), 3), (TWO, 3)],
    ids=["statistics", "statistics and rollouts in hand", "references and rollouts in hand"],
)
def test_a_training_stopped_in_the_middle_shapes_its_rewards_as_if_it_had_not_been(
    reshape, saves, tiny, scorer, tmp_path, monkeypatch
):
    aim = with_reshape(AIM, reshape)
    rows = data() if reshape.references else demonstrations()

    def run(folder: str):
        return online.roll_out((tiny, scorer, None), tmp_path / folder, rows, aim, EVERY_STEP)

    whole = run("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped_after(patch, saves)
        run("stopped")
    assert untimed(run("stopped")) == untimed(whole)
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_a_checkpoint_with_other_references_is_refused(tiny, scorer, tmp_path, monkeypatch):
    models, out = (tiny, scorer, None), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped_after(patch, 1)
        online.roll_out(models, out, data(), AIM, EVERY_STEP)
    moved = data().with_columns(pl.Series(REFS, [[5.0, 6.0]] * 16))
    with pytest.raises(BadInput, match=r"ref_rewards was .* set it back"):
        online.roll_out(models, out, moved, AIM, EVERY_STEP)


@pytest.mark.parametrize("name", ONLINE)
def test_a_nat_is_paid_for_in_the_reward_or_in_the_loss_as_asked(name):
    rollouts = some_rollouts([1.0, 2.0], [3, 3])._replace(logprobs=torch.full((2, 3), 0.5))
    objective = METHODS[name].at("smoke").objective
    objective = objective.replace(
        rollouts=2, minibatch=2, sampling=objective.sampling.replace(n=min(2, objective.sampling.n))
    )
    prices = {}
    for place in ("reward", "loss"):
        kl = KLPenalty(coef=0.1, estimator="k3", place=place)
        prices[place] = objective.replace(kl=kl).advantages(rollouts, 0.1).kl_price
    assert prices == {"reward": 0.0, "loss": 0.1}
    usual = objective.advantages(rollouts, 0.1).kl_price
    assert usual == (0.1 if name == "grpo" else 0.0)


def test_what_is_paid_in_the_loss_is_not_in_the_reward():
    rollouts = some_rollouts([1.0, 2.0], [2, 2])
    rollouts = rollouts._replace(logprobs=torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    plain = GroupObjective(rollouts=2, sampling=Sampling(n=2), spread="none")
    assert plain.advantages(rollouts, 1.0).advantages[:, 0].tolist() == [-0.5, 0.5]
    paid = plain.replace(kl=KLPenalty(coef=1.0, estimator="k1", place="reward"))
    assert paid.advantages(rollouts, 1.0).advantages[:, 0].tolist() == [-2.0, 2.0]


@pytest.mark.parametrize("estimator", ["k1", "clamped"])
def test_an_estimator_without_a_useful_gradient_is_refused_in_a_loss(estimator):
    with pytest.raises(ValueError, match=f"kl.estimator {estimator} .* take k3 or k2"):
        ProximalObjective(kl=KLPenalty(estimator=estimator, place="loss"))
    assert GroupObjective(kl=KLPenalty(estimator=estimator, place="reward"))


def test_lsc_wants_as_many_references_as_it_is_told():
    assert LogSigmoid(answers=5).references == 5
