"""PAR."""

from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.par import PAR
from tests.methods import defaults_of, steps_of


def test_its_steps():
    assert steps_of("par") == [
        "fit_reward(sft, preferences)",
        "generate(sft, instructions)",
        "score(generate2, fit_reward1)",
        "penalise(score3)",
        "roll_out(sft, fit_reward1, instructions, penalise4)",
    ]


def test_its_defaults_are_the_papers():
    reward, ppo = "Fu et al. 2025, reward model", "Fu et al. 2025, PPO"
    farm = "AlpacaFarm's reward model"
    assert defaults_of("par") == {
        "fitting.training.learning_rate": (5e-06, reward),
        "fitting.training.epochs": (1, reward),
        "fitting.training.batch": (32, reward),
        "fitting.training.clip": (5.0, reward),
        "fitting.held_out": (500, farm),
        "fitting.above_length": (True, "ours"),
        "objective.steps": (825, "Fu et al. 2025: 33k prompts once, in batches of 40"),
        "objective.rollouts": (40, ppo),
        "objective.minibatch": (40, ppo),
        "objective.inner_epochs": (
            1,
            "Fu et al. 2025; without their buffer of older batches",
        ),
        "objective.kl.coef": (0.005, ppo),
        "objective.kl.estimator": ("k1", "Fu et al. 2025: per token, signed"),
        "objective.kl.target": (None, "ours: off"),
        "objective.kl.limit": (100.0, "ours: a run beyond it is lost"),
        "objective.clip": (0.2, ppo),
        "objective.gamma": (1.0, ppo),
        "objective.lam": (0.95, ppo),
        "objective.critic.init": (
            "reward",
            "AlpacaFarm; the paper's critic has a rate of its own, 5e-6",
        ),
        "objective.critic.clip": (0.2, "Fu et al. 2025, code"),
        "objective.critic.coef": (
            0.1,
            "AlpacaFarm; the paper's critic has a rate of its own, 5e-6",
        ),
        "objective.shaping.missing_eos": (None, "Fu et al. 2025: none"),
        "objective.shaping.importance_cap": (None, "ours: off"),
        "objective.shaping.whiten": (False, "Fu et al. 2025: advantages only"),
        "objective.shaping.over": ("tokens", "ours"),
        "objective.shaping.together": (None, "ours"),
        "objective.shaping.length.price": (0.01, "Fu et al. 2025, code; not in the paper"),
        "objective.shaping.length.beyond": (300, "Fu et al. 2025, code; not in the paper"),
        "objective.shaping.reshape.answers": (10, "Fu et al. 2025, M = 10 and k = 1"),
        "objective.shaping.reshape.k": (1.0, "Fu et al. 2025, M = 10 and k = 1"),
        "objective.sampling.n": (1, ppo),
        "objective.sampling.temperature": (0.9, ppo),
        "objective.sampling.top_p": (
            1.0,
            "ours; 0.9 and the 50 likeliest there, which bias the ratios",
        ),
        "objective.sampling.max_tokens": (512, ppo),
        "objective.training.learning_rate": (3e-07, ppo),
        "objective.training.epochs": (3, "unused"),
        "objective.training.batch": (128, "unused"),
        "objective.training.schedule": ("constant", "ours: constant after warm-up"),
        "objective.training.warmup": (0.1, ppo),
        "objective.training.clip": (5.0, ppo),
        "objective.training.max_length": (1024, ppo),
    }


def test_below_the_papers_scale_it_is_ppo_with_rewards_that_are_preferences():
    for scale in ("smoke", "small"):
        par, ppo = PAR.at(scale), METHODS["ppo"].at(scale)
        shaping = ppo.objective.shaping.replace(whiten=False, reshape=par.objective.shaping.reshape)
        assert par.objective == ppo.objective.replace(shaping=shaping)
        assert par.fitting == ppo.fitting
    assert par.objective.shaping.reshape.name == "par"
