"""FeedME."""

from tests.methods import defaults_of, steps_of


def test_its_steps():
    assert steps_of("feedme") == ["select(preferences)", "train(sft, select1)"]


def test_its_defaults_are_the_papers():
    assert defaults_of("feedme") == {
        "objective.training.learning_rate": (
            2e-05,
            "AlpacaFarm, SFT10k; its FeedME code is not public",
        ),
        "objective.training.epochs": (3, "AlpacaFarm, SFT10k; its FeedME code is not public"),
        "objective.training.batch": (128, "AlpacaFarm, SFT10k; its FeedME code is not public"),
    }
