"""RLP."""

import pytest
from pydantic import ValidationError

from alpacafarm_core.agreeing import agreed
from alpacafarm_core.clustering import Agreement, Exact, asking, clustered
from alpacafarm_core.methods import METHODS
from alpacafarm_core.select import united
from alpacafarm_core.settings import Sampling
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm
from tests.test_clustering import scored
from tests.tiny import preferences

FIRST = "AlpacaFarm's first 40 of 390 steps, in which the rate falls by a tenth"
FIRST_ROUND = [
    "fit_reward(sft, preferences)",
    "roll_out(sft, fit_reward1, instructions)",
    "generate(roll_out2, instructions)",
    "score(generate3, fit_reward1)",
    "cluster(score4)",
    "rank(cluster5)",
    "unite(preferences, rank6)",
    "fit_reward(sft, unite7)",
    "roll_out(sft, fit_reward8, instructions)",
]


def test_its_steps():
    assert steps_of("rlp") == FIRST_ROUND


def test_a_further_round_keeps_those_before_and_starts_from_sft_with_the_labels_again():
    assert steps_of("rlp", rounds=2) == [
        *FIRST_ROUND,
        "generate(roll_out9, instructions)",
        "score(generate10, fit_reward8)",
        "cluster(score11)",
        "rank(cluster12)",
        "unite(preferences, rank13)",
        "fit_reward(sft, unite14)",
        "roll_out(sft, fit_reward15, instructions)",
    ]


def test_with_two_views_the_answers_themselves_go_to_the_reward_model():
    assert steps_of("rlp", variant="uml") == [
        *FIRST_ROUND[:3],
        "fit_reward(sft, preferences, generate3)",
        "roll_out(sft, fit_reward4, instructions)",
    ]


def test_it_begins_with_the_stages_of_ppo():
    class Recording(PaperFarm):
        def __init__(self):
            super().__init__()
            self.given = []

        def __getattr__(self, verb):
            ask = super().__getattr__(verb)

            def record(*arguments, **named):
                self.given.append((verb, arguments, named))
                return ask(*arguments, **named)

            return record

    for scale in ("smoke", "small"):
        ppo, rlp = Recording(), Recording()
        METHODS["ppo"].at(scale).optimise(ppo, START)
        METHODS["rlp"].at(scale).optimise(rlp, START)
        assert rlp.given[:2] == ppo.given


def test_each_round_draws_other_answers():
    drawn = []

    class Listening(PaperFarm):
        def __getattr__(self, verb):
            ask = super().__getattr__(verb)

            def note(*given, **named):
                drawn.extend(each.seed for each in given if isinstance(each, Sampling))
                return ask(*given, **named)

            return note

    METHODS["rlp"].at("small").replace(rounds=3).optimise(Listening(), START)
    assert drawn == [0, 1, 2]


def test_its_defaults_are_the_papers():
    assert defaults_of("rlp") == {
        "variant": ("spg", "Lang et al. 2024: the better of its two"),
        "rounds": (1, "Lang et al. 2024: one"),
        "sampling.n": (10, "Lang et al. 2024, section 4"),
        "sampling.temperature": (1.0, "Lang et al. 2024, section 4"),
        "sampling.top_p": (1.0, "Lang et al. 2024, section 4"),
        "sampling.max_tokens": (300, "Lang et al. 2024, section 4"),
        "clustering.model": (
            "microsoft/deberta-large-mnli",
            "Lang et al. 2024: entailment both ways, by DeBERTa-large",
        ),
        "clustering.rule": (
            "both_entail",
            "Lang et al. 2024: entailment both ways, by DeBERTa-large",
        ),
        "clustering.max_length": (512, "what the model reads"),
        "agreement.gamma": (0.5, "Lang et al. 2024"),
        "agreement.winner": ("argmax", "Lang et al. 2024: the best by its reward model"),
        "fitting.training.learning_rate": (3e-06, "AlpacaFarm's reward model"),
        "fitting.training.epochs": (1, "AlpacaFarm's reward model"),
        "fitting.training.batch": (16, "AlpacaFarm's reward model"),
        "fitting.held_out": (500, "AlpacaFarm's reward model"),
        "fitting.above_length": (True, "AlpacaFarm's reward model"),
        "objective.steps": (40, "AlpacaFarm's PPO"),
        "objective.rollouts": (512, "AlpacaFarm's PPO"),
        "objective.minibatch": (256, "AlpacaFarm's PPO"),
        "objective.inner_epochs": (2, "AlpacaFarm's PPO"),
        "objective.kl.coef": (0.0067, "AlpacaFarm, simulated preferences"),
        "objective.kl.estimator": ("k1", "Schulman 2020; AlpacaFarm clamps at 0"),
        "objective.kl.target": (None, "AlpacaFarm's PPO"),
        "objective.kl.limit": (100.0, "ours: a run beyond it is lost"),
        "objective.clip": (0.2, "AlpacaFarm's PPO"),
        "objective.gamma": (1.0, "AlpacaFarm's PPO"),
        "objective.lam": (1.0, "AlpacaFarm's PPO"),
        "objective.critic.init": ("reward", "AlpacaFarm's PPO"),
        "objective.critic.clip": (0.2, "AlpacaFarm's PPO"),
        "objective.critic.coef": (0.1, "AlpacaFarm's PPO"),
        "objective.shaping.whiten": (True, "AlpacaFarm's PPO"),
        "objective.shaping.missing_eos": (-1.0, "AlpacaFarm's penalty, there off"),
        "objective.shaping.importance_cap": (None, "ours: off"),
        "objective.shaping.over": ("tokens", "ours: AlpacaFarm's means have padding in them"),
        "objective.shaping.together": (None, "ours: AlpacaFarm whitens in each process"),
        "objective.sampling.n": (1, "AlpacaFarm's PPO"),
        "objective.sampling.temperature": (1.0, "AlpacaFarm's PPO"),
        "objective.sampling.top_p": (1.0, "AlpacaFarm's PPO"),
        "objective.sampling.max_tokens": (300, "AlpacaFarm's PPO"),
        "objective.training.learning_rate": (1e-05, "AlpacaFarm's PPO"),
        "objective.training.epochs": (3, "unused"),
        "objective.training.batch": (128, "unused"),
        "objective.training.schedule": ("constant", FIRST),
        "objective.training.warmup": (0.125, FIRST),
        "objective.training.adam_epsilon": (1e-05, "AlpacaFarm's PPO"),
    }


def test_with_more_agreement_asked_for_than_there_is_the_labels_stay_as_they_were():
    labels = preferences()
    clusters = clustered(scored("A A B", "A A A"), asking(Exact()))
    assert agreed(clusters, Agreement()).height == 1
    assert united([labels, agreed(clusters, Agreement(gamma=1.01))]).equals(labels)


def test_it_compares_with_reference_rewards_of_the_start_by_each_reward_model_where_asked():
    objective = METHODS["rlp"].at("small").objective
    shaping = objective.shaping.replace(reshape={"name": "par"}, missing_eos=None)
    asked = steps_of("rlp", objective=objective.replace(shaping=shaping))
    assert asked[-3:] == [
        "generate(sft, instructions)",
        "score(generate11, fit_reward10)",
        "roll_out(sft, fit_reward10, instructions, score12)",
    ]


def test_the_paper_asks_for_half_of_the_answers_and_no_less():
    assert METHODS["rlp"]().agreement == Agreement(gamma=0.5, winner="argmax")


@pytest.mark.parametrize("drawing", [{"n": 1}, {"temperature": 0.0}])
def test_answers_that_cannot_differ_are_refused(drawing):
    with pytest.raises(ValidationError, match="sampling"):
        METHODS["rlp"](sampling={"n": 10, "temperature": 1.0} | drawing)
