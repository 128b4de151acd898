"""Values that grew: what came later, left alone, is not said, so keys from before stay valid."""

from typing import Annotated

import polars as pl
from pydantic import Field

import tasks
from alpacafarm_core.artifacts import Instructions, Scores
from alpacafarm_core.methods import METHODS
from alpacafarm_core.recipe import digest, key_of
from alpacafarm_core.settings import Fitting, Lora, Training
from alpacafarm_core.values import LATER, Grown, Value
from alpacafarm_core.weights import RewardModel
from tasks.stage import stage
from tests.paper_farm import START, numbered


class Before(Value):
    """Settings as they were."""

    size: int = Field(default=1, description="Rows")


class Since(Grown):
    """The same settings with a choice that came later, and one inside another."""

    size: int = Field(default=1, description="Rows")
    word: Annotated[str | None, LATER] = Field(default=None, description="Said in each")
    times: Annotated[int, LATER] = Field(default=1, ge=1, description="How often")


class Held(Value):
    """Settings that hold others."""

    since: Since = Field(default=Since(), description="Held")


@stage(Instructions, version=1)
def told(size: int, told: Annotated[Scores | None, LATER] = None) -> pl.DataFrame:
    """Rows, with an argument that came later."""
    return pl.DataFrame({"instruction": ["x"] * size, "input": "", "dataset": "toy"})


def test_a_field_that_came_later_is_said_only_where_it_is_chosen():
    assert Since(size=2).model_dump() == Before(size=2).model_dump() == {"size": 2}
    assert Since(times=2).model_dump(mode="json") == {"size": 1, "times": 2}
    assert Held().model_dump() == {"since": {"size": 1}}
    assert digest(Since().model_dump()) == digest(Before().model_dump())


def test_what_is_not_said_is_the_default_when_it_is_read_again():
    for since in (Since(), Since(word="hello", times=3)):
        assert Since.model_validate_json(since.model_dump_json()) == since


def test_a_form_shows_a_field_that_came_later_with_its_bound():
    assert Since.model_json_schema()["properties"]["times"]["minimum"] == 1


def test_an_argument_that_came_later_is_part_of_the_key_only_where_it_is_given(store):
    assert told.receipt(2).key == key_of("told", 1, {"size": 2})
    scores = Scores(key=numbered(5))
    assert told.receipt(2, scores).key == key_of("told", 1, {"size": 2, "told": scores})
    assert "told" not in store.manifest(told(2)).recipe.settings


def test_keys_are_those_of_artifacts_made_before_these_fields_came():
    reward = RewardModel(key=numbered(0xA))
    keys = {
        name: tasks.roll_out.receipt(
            START.policy, reward, START.instructions, METHODS[name].at("small").objective
        ).key
        for name in ("ppo", "grpo", "rloo", "reinforce_pp", "quark")
    }
    assert keys == {
        "ppo": "bb272911370158e4",
        "grpo": "a2b875c72832520a",
        "rloo": "7b0201e8772ad32d",
        "reinforce_pp": "3c317e6bd8efdc4f",
        "quark": "d4ab9a9f10a2aaec",
    }
    fits = [Fitting.at("small"), Fitting(training=Training(lora=Lora()))]
    made = [tasks.fit_alone.receipt(START.policy, START.preferences, fit).key for fit in fits]
    assert made == ["dbe52cdb0197d04b", "dce528d6f8ec1948"]


def test_a_seed_reaches_settings_that_stand_in_a_row():
    class Several(Value):
        fits: tuple[Fitting, ...] = (Fitting(), Fitting(seed=3))
        names: tuple[str, ...] = ("one",)

    seeded = Several().seeded(7)
    assert [each.seed for each in seeded.fits] == [7, 3]
    assert [each.training.seed for each in seeded.fits] == [7, 7]
    assert seeded.names == ("one",)
