"""UltraFeedback: its steps, its pool, what it learns from ratings, and its defaults."""

from random import Random

import pytest
from pydantic import ValidationError

from alpacafarm_core.binarise import Binarisation
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.ultrafeedback import POOL, Learning, Responder, UltraFeedback
from alpacafarm_core.mixture import PAPERS
from alpacafarm_core.search import best_of_n_kl, expected_best_of_n
from alpacafarm_core.settings import Sampling
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm

THREE = {
    "pool": (
        Responder(name="base", model="base"),
        Responder(name="sft"),
        Responder(name="someone", model="writer", skill=0.9),
    ),
    "each": 2,
}
ANSWERED = [
    "mix(instructions)",
    "draw(mix1)",
    "generate(base, draw2)",
    "draw(mix1)",
    "generate(sft, draw4)",
    "draw(mix1)",
    "write(draw6)",
    "gather(mix1, generate3, generate5, write7)",
]
RATED = [*ANSWERED, "rate(gather8)"]


def learning(**settings) -> Learning:
    return UltraFeedback.at("small").learning.replace(**settings)


def test_a_pool_answers_is_rated_and_dpo_learns_from_pairs_of_that():
    assert steps_of("ultrafeedback", **THREE) == [*RATED, "rank(rate9)", "train(sft, rank10)"]


def test_pairs_by_the_overall_score_need_a_critic():
    h4 = learning(pairs=Binarisation(name="h4"))
    assert steps_of("ultrafeedback", **THREE, learning=h4) == [
        *RATED,
        "critique(gather8)",
        "repair(rate9, critique10)",
        "rank(repair11)",
        "train(sft, rank12)",
    ]


def test_a_curriculum_trains_stage_by_stage():
    easy_to_hard = learning(pairs=Binarisation(name="curriculum"))
    assert steps_of("ultrafeedback", **THREE, learning=easy_to_hard) == [
        *RATED,
        *["rank(rate9)"] * 3,
        "train(sft, rank10)",
        "train(train13, rank11)",
        "train(train14, rank12)",
    ]


def test_best_of_n_decodes_with_a_reward_model_of_the_comparisons():
    chosen = learning(by="best_of_n")
    steps = [*RATED, "rank(rate9)", "fit_reward(sft, rank10)"]
    assert steps_of("ultrafeedback", **THREE, learning=chosen) == steps
    assert chosen.binarisations == (Binarisation(name="all-pairs"),)


def test_ppo_answers_the_mixed_prompts():
    steps = steps_of("ultrafeedback", **THREE, learning=learning(by="ppo"))
    assert steps[-2:] == ["fit_reward(sft, rank10)", "roll_out(sft, fit_reward11, mix1)"]


def test_a_critique_model_learns_what_the_critic_said():
    farm = PaperFarm()
    UltraFeedback.at("small").replace(**THREE).critique_model(farm, START)
    assert farm.asked == [
        *ANSWERED,
        "critique(gather8)",
        "select(critique9)",
        "train(base, select10)",
    ]


def test_the_worlds_pool_is_five_policies_of_which_some_learn_first():
    steps = steps_of("ultrafeedback")
    first = [step for step in steps if not step.startswith(("draw", "mix"))]
    assert first[:9] == [
        "generate(base, draw2)",
        "train(base, demonstrations)",
        "generate(train5, draw4)",
        "generate(sft, draw7)",
        "train(sft, preferences)",
        "generate(train10, draw9)",
        "fit_reward(sft, preferences)",
        "generate(sft, draw12)",
        "gather(mix1, generate3, generate6, generate8, generate11, generate14)",
    ]


def test_models_of_the_hub_are_taken_by_name():
    steps = steps_of("ultrafeedback", "paper")
    assert [step.partition("(")[0] for step in steps[:4]] == ["mix", "draw", "adopt", "generate"]
    assert sum(step.startswith("adopt") for step in steps) == len(POOL) == 14


def test_one_responder_more_adds_its_answers_and_leaves_the_others():
    more = (*THREE["pool"], Responder(name="dpo", after=DPO.at("small")))
    steps = steps_of("ultrafeedback", pool=more, each=2)
    assert steps[:7] == ANSWERED[:7]
    assert steps[7:10] == ["draw(mix1)", "train(sft, preferences)", "generate(train9, draw8)"]


def test_a_seed_reaches_the_models_that_learn_before_they_answer():
    assert '"seed":42' not in UltraFeedback.at("small").seeded(7).model_dump_json()


def test_it_learns_in_as_many_steps_as_dpo_on_four_thousand_pairs():
    method = UltraFeedback.at("small")
    training = method.learning.dpo.training
    pairs = sum(method.mixture.counts.values())
    assert pairs == 1000
    assert training.epochs * pairs == 4000 * DPO.at("small").training.epochs
    assert training.replace(epochs=1) == DPO.at("small").training


@pytest.mark.parametrize(
    ("n", "gain", "kl"),
    [(1, 0.0, 0.0), (2, 0.564, 0.1931), (4, 1.03, 0.6363), (8, 1.42, 1.2044), (16, 1.77, 1.8351)],
)
def test_best_of_n_gains_by_its_reward_model_as_much_as_that_knows(n, gain, kl):
    drawn, knows = Random(0), 0.8
    proxy = [drawn.gauss(0, 1) for _ in range(20_000)]
    gold = [knows * each + (1 - knows**2) ** 0.5 * drawn.gauss(0, 1) for each in proxy]
    assert expected_best_of_n(proxy, proxy, n) == pytest.approx(gain, abs=0.03)
    assert expected_best_of_n(proxy, gold, n) == pytest.approx(knows * gain, abs=0.03)
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-5)


def test_several_answers_of_one_responder_are_refused():
    with pytest.raises(ValidationError, match=r"set sampling\.n to 1, not 2"):
        UltraFeedback(sampling=Sampling(n=2))


def test_more_answers_than_responders_are_refused():
    with pytest.raises(ValidationError, match="the pool has 3; name more, or lower each to 3"):
        UltraFeedback(**THREE | {"each": 4})


def test_a_writer_that_is_to_learn_is_refused():
    with pytest.raises(ValidationError, match="responder w: a writer learns nothing"):
        Responder(name="w", model="writer", after=DPO())


def test_triples_are_refused_for_dpo():
    with pytest.raises(ValidationError, match="no use for the gold of a triple"):
        Learning(pairs=Binarisation(name="triple"))


def test_its_defaults_are_the_papers():
    ours = defaults_of("ultrafeedback")
    paper, zephyr = "Cui et al. 2023", "Tunstall et al. 2023 (Zephyr)"
    some = {
        "mixture.counts": (dict(PAPERS), f"{paper}, section 2.1"),
        "mixture.grams": (13, f"{paper}, section 2.1"),
        "each": (4, f"{paper}: four models an instruction"),
        "sampling.temperature": (1.0, f"{paper}, released code"),
        "sampling.max_tokens": (1024, f"{paper}, released code"),
        "learning.by": ("dpo", zephyr),
        "learning.dpo.beta": (0.1, zephyr),
        "learning.dpo.training.learning_rate": (5e-7, zephyr),
        "learning.dpo.training.epochs": (3, zephyr),
        "learning.dpo.training.batch": (32, zephyr),
        "learning.ppo.fitting.training.learning_rate": (1e-5, f"{paper}, UltraRM"),
        "learning.ppo.fitting.training.epochs": (1, f"{paper}, UltraRM"),
        "learning.ppo.fitting.training.batch": (512, f"{paper}, UltraRM"),
        "learning.ppo.objective.steps": (80, f"{paper}, UltraLM-13B-PPO"),
        "learning.ppo.objective.rollouts": (512, f"{paper}, UltraLM-13B-PPO"),
        "learning.ppo.objective.minibatch": (64, f"{paper}, UltraLM-13B-PPO"),
        "learning.ppo.objective.training.learning_rate": (1e-6, f"{paper}, UltraLM-13B-PPO"),
        "learning.best_of_n.n": (16, f"{paper}: the largest of 1, 2, 4, 8, 16"),
        "ultracm.training.learning_rate": (2e-5, f"{paper}, UltraCM"),
        "ultracm.training.epochs": (2, f"{paper}, UltraCM"),
        "ultracm.training.batch": (256, f"{paper}, UltraCM"),
    }
    assert {name: ours[name] for name in some} == some
    names = (Learning().pairs.name, Learning().comparisons.name)
    assert names == ("argilla", "all-pairs")
