"""What the UI offers is what the flows take: prefect.yaml, forms, flags and keys say the same."""

from functools import cache
from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, RawScheduleConfig
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.events import DeploymentTriggerTypes
from prefect.utilities.schema_tools.validation import _build_validator, preprocess_schema
from pydantic import TypeAdapter

from flows.deploying import DEPLOYMENTS, FILE, QUEUES, as_yaml
from flows.registering import deployments

HELD = yaml.safe_load(FILE.read_text())
IDS = [f"{each.flow.name}/{each.name}" for each in DEPLOYMENTS]
KNOWN = {
    *("name", "entrypoint", "description", "tags", "parameters", "enforce_parameter_schema"),
    *("schedules", "triggers", "concurrency_limit", "work_pool"),
}


def test_prefect_yaml_is_made_from_the_list():
    assert FILE.read_text() == as_yaml(), "run `python -m flows.deploying`"


def test_no_two_deployments_have_one_name():
    assert len(set(IDS)) == len(IDS) == len(HELD["deployments"])


@pytest.mark.parametrize("held", HELD["deployments"], ids=lambda held: held["name"])
def test_prefect_reads_each_entry_and_passes_over_nothing(held):
    assert held.keys() <= KNOWN <= DeploymentConfig.model_fields.keys()
    DeploymentConfig.model_validate(held)
    for schedule in held.get("schedules", []):
        assert RawScheduleConfig.model_validate(schedule).slug
    limit = held.get("concurrency_limit", {"limit": 1, "collision_strategy": "ENQUEUE"})
    assert limit.keys() <= ConcurrencyLimitSpec.model_fields.keys()
    assert limit["collision_strategy"] in ConcurrencyLimitStrategy.__members__
    TypeAdapter(list[DeploymentTriggerTypes]).validate_python(held.get("triggers", []))
    assert held["work_pool"].keys() == {"name", "work_queue_name", "job_variables"}
    assert held["work_pool"]["work_queue_name"] in QUEUES


@cache
def form(flow):
    """What Prefect's API holds the form of a flow against."""
    schema = {**flow.parameters.model_dump(), "required": []}  # the rest is for a person to fill in
    return _build_validator()(preprocess_schema(schema))


@pytest.mark.parametrize("one", DEPLOYMENTS, ids=IDS)
def test_each_form_is_filled_in_with_what_its_flow_takes(one):
    file, _, name = one.entrypoint.partition(":")
    assert Path(file).is_file() and one.flow.fn.__name__ == name
    kinds = one.flow.fn.__annotations__
    for given in (one.parameters, *(each.parameters for each in one.schedules)):
        assert given.keys() <= kinds.keys()
        assert [*form(one.flow).iter_errors(given)] == []
        for parameter, held in given.items():
            TypeAdapter(kinds[parameter]).validate_python(held)


def test_what_a_form_cannot_hold_is_refused_by_its_schema():
    (dpo,) = (each for each in DEPLOYMENTS if each.name == "dpo")
    for wrong in ({"setup": {"sede": 1}}, {"setup": {"seed": -1}}, {"setup": {"scale": "huge"}}):
        assert [*form(dpo.flow).iter_errors(dpo.parameters | wrong)]


def test_served_deployments_are_those_of_the_file():
    for made, held in zip(deployments("local"), HELD["deployments"], strict=True):
        assert (made.name, made.description) == (held["name"], held["description"])
        assert (made.tags, made.parameters) == (held["tags"], held.get("parameters", {}))
        assert made.work_queue_name == held["work_pool"]["work_queue_name"]
        assert made.entrypoint == held["entrypoint"].replace("/", ".").replace(".py:", ".")
        slugs = [each["slug"] for each in held.get("schedules", [])]
        assert [each.slug for each in made.schedules or []] == slugs
        assert made.concurrency_limit == held.get("concurrency_limit", {}).get("limit")
        assert len(made.triggers) == len(held.get("triggers", []))
