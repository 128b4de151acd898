"""Magpie."""

import pytest

from alpacafarm_core.methods.magpie import ENCODER, Contrast, Magpie
from alpacafarm_core.settings import Sampling
from alpacafarm_core.synthesis import AIR, PRO, Read
from tests.methods import defaults_of, steps_of
from tests.paper_farm import PaperFarm

REWARD = "fit_reward(sft, preferences)"
CODE, PAPER = "Xu et al. 2024, released code", "Xu et al. 2024, released notebook"


def test_its_steps():
    assert steps_of("magpie") == [
        REWARD,
        "synthesise(sft, fit_reward1, base)",
        "train(base, synthesise2)",
    ]


def test_without_the_bases_answers_nothing_is_compared():
    assert steps_of("magpie", compares=False)[1] == "synthesise(sft, fit_reward1)"


def test_pairs_of_its_own_answers_may_follow():
    assert steps_of("magpie", contrast=Contrast()) == [
        REWARD,
        "synthesise(sft, fit_reward1, base)",
        "train(base, synthesise2)",
        "generate(sft, synthesise2)",
        "score(generate4, fit_reward1)",
        "rank(score5)",
        "train(train3, rank6)",
    ]


def test_an_encoder_is_taken_in_where_one_is_named():
    farm = PaperFarm()
    nearness = Magpie().nearness(farm)
    assert farm.asked == ["adopt()"] and isinstance(nearness.embedding, Read)
    assert Magpie(encoder="").nearness(farm) == Magpie().synthesis.nearness


def test_the_papers_draws():
    assert sum(shard.count for shard in AIR) == 3_000_000
    assert sum(shard.count for shard in PRO) == 1_000_000


def test_answers_that_cannot_differ_are_refused():
    alike = Contrast(sampling=Sampling(n=5, temperature=0.0))
    with pytest.raises(ValueError, match=r"temperature 0 makes all sampling\.n 5 answers the same"):
        Magpie(contrast=alike)
    with pytest.raises(ValueError, match=r"answering\.n 2 gives an instruction several answers"):
        Magpie().synthesis.replace(answering=Sampling(n=2))


@pytest.mark.parametrize(
    ("where", "held"),
    [
        ("synthesis.inventing.shards", (AIR, "Xu et al. 2024: Magpie-Air, three million draws")),
        ("synthesis.inventing.newline", (True, CODE)),
        ("synthesis.inventing.words", (("assistant",), CODE)),
        ("synthesis.inventing.max_tokens", (2048, CODE)),
        ("synthesis.answering.temperature", (0.0, "Xu et al. 2024: greedy")),
        ("synthesis.nearness.threshold", (0.05, CODE)),
        ("synthesis.filtering.quality", (("good", "excellent"), PAPER)),
        ("synthesis.filtering.reward_above", (-10.0, PAPER)),
        ("synthesis.filtering.longest", (300_000, PAPER)),
        ("encoder", (ENCODER, CODE)),
    ],
)
def test_its_defaults_are_the_papers(where, held):
    assert defaults_of("magpie")[where] == held


def test_it_imitates_as_in_the_paper():
    found = defaults_of("magpie")
    figures = {name: found[f"imitating.training.{name}"][0] for name in LEARNED}
    assert figures == LEARNED


LEARNED = {"learning_rate": 2e-5, "epochs": 2, "batch": 32, "max_length": 8192}


def test_its_pairs_are_the_papers():
    contrast = Contrast()
    assert (contrast.sampling.n, contrast.sampling.temperature) == (5, 0.8)
    assert contrast.opposing.held_out == 0.02
    assert contrast.objective.training.learning_rate == 5e-7
