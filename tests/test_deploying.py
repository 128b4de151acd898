"""What the UI offers is what the flows take: prefect.yaml, forms, flags and keys say the same."""

from functools import cache, partial
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prefect import get_client
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, RawScheduleConfig
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, VersionInfo
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.schema_tools.validation import _build_validator, preprocess_schema
from pydantic import TypeAdapter
from typer.main import get_command

import tasks
from alpacafarm_core import composing
from alpacafarm_core.methods import METHODS, AnyMethod
from alpacafarm_core.setup import Setup, World
from alpacafarm_core.values import Value
from flows import registering
from flows.cli import app
from flows.deploying import DEPLOYMENTS, FILE, QUEUES, as_yaml
from flows.labelling import Labelling
from flows.leaderboard import methods_named, ranked
from flows.options import settled
from flows.outputs import Outputs
from flows.registering import deployments
from tasks.stage import Stage
from tests.test_settings import nested

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


def test_served_deployments_are_those_of_the_file(monkeypatch):
    some = [each for each in DEPLOYMENTS if "method" not in each.tags or each.name == "dpo"]
    monkeypatch.setattr(registering, "DEPLOYMENTS", some)
    kept = [
        held for held, each in zip(HELD["deployments"], DEPLOYMENTS, strict=True) if each in some
    ]
    for made, held in zip(deployments("local"), kept, strict=True):
        assert (made.name, made.description) == (held["name"], held["description"])
        assert (made.tags, made.parameters) == (held["tags"], held.get("parameters", {}))
        assert made.work_queue_name == held["work_pool"]["work_queue_name"]
        assert made.entrypoint == held["entrypoint"].replace("/", ".").replace(".py:", ".")
        slugs = [each["slug"] for each in held.get("schedules", [])]
        assert [each.slug for each in made.schedules or []] == slugs
        assert made.concurrency_limit == held.get("concurrency_limit", {}).get("limit")
        assert len(made.triggers) == len(held.get("triggers", []))


CLASSES = {
    f"{one.flow.name}/{name}": (one.flow, kind)
    for one in DEPLOYMENTS
    for name, kind in one.flow.fn.__annotations__.items()
    if isinstance(kind, type) and issubclass(kind, Value) and name != "return"
}
BESIDE = {"out", "budget", "store", "as_json", "max_concurrency"}
"""Options of a command that are no settings: where to, how much, how fast."""
NOT_IN_KEYS = {"File.path"}
"""Where a file lies does not matter, only what is in it."""


@pytest.mark.parametrize(("flow", "kind"), CLASSES.values(), ids=CLASSES)
def test_a_form_has_the_fields_of_its_settings_each_with_a_name_and_a_help(flow, kind):
    defined = flow.parameters.model_dump()["definitions"]
    for each in nested(kind):
        fields = defined[each.__name__]["properties"]
        assert fields.keys() == each.model_fields.keys()
        for name, told in fields.items():
            assert told["title"] and (told.get("description") or name == "name"), name


@pytest.mark.parametrize("one", DEPLOYMENTS, ids=IDS)
def test_every_parameter_of_a_form_is_explained_and_in_its_place(one):
    properties = one.flow.parameters.model_dump()["properties"]
    for place, told in enumerate(properties.values()):
        assert told["position"] == place and len(told["description"].split()) >= 3


@pytest.mark.parametrize(
    ("command", "kind", "called"),
    [("annotate", Labelling, {}), ("evaluate", Outputs, {"reference": "against"})],
)
def test_a_command_has_the_options_that_the_form_has(command, kind, called):
    options = {each.name for each in get_command(app).commands[command].params} - BESIDE
    assert {called.get(name, name) for name in options} == kind.model_fields.keys()


@pytest.mark.parametrize("kind", [Setup, *METHODS.values()], ids=lambda kind: kind.__name__)
def test_flags_take_every_field_of_a_form(kind):
    held = kind()
    for name in kind.model_fields:
        assert settled(held, {name: getattr(held, name)}, "settings") == held


def test_only_what_cannot_change_an_answer_is_left_out_of_keys():
    kinds = {
        each for kind in (Setup, Labelling, Outputs, *METHODS.values()) for each in nested(kind)
    }
    out = {
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name, field in kind.model_fields.items()
        if field.exclude
    }
    assert out == NOT_IN_KEYS


class Receipts:
    """A farm that makes nothing and keeps the receipts of all it is asked for."""

    def __init__(self):
        self.asked = set()

    def __getattr__(self, verb):
        stage = getattr(tasks, verb)
        if not isinstance(stage, Stage):
            return partial(getattr(composing, verb), self)

        def receipt(*asked, **named):
            self.asked.add(found := stage.receipt(*asked, **named))
            return found

        return receipt


def test_every_field_of_the_setup_changes_what_is_made(store, tiny):
    def made(setup):
        farm = Receipts()
        ranked(methods_named(["dpo"], setup), setup, farm)
        return farm.asked

    start = Setup(scale="smoke")
    before = made(start)
    changes = {
        "scale": "small",
        "seed": 1,
        "source": World(seed=1),
        "base": str(tiny),
        "panel": "world_clean",
        "flip": 0.0,
        "judges": "world_clean",
    }
    assert changes.keys() == Setup.model_fields.keys()
    for name, held in changes.items():
        assert made(start.replace(**{name: held})) != before, name


def test_a_server_that_has_a_deployment_is_left_alone(prefect, monkeypatch):
    some = [each for each in DEPLOYMENTS if each.flow.name in ("people", "annotate")]
    monkeypatch.setattr(registering, "DEPLOYMENTS", some)
    applied = []
    apply = RunnerDeployment.apply

    async def of_a_checkout(_: object) -> VersionInfo:
        return VersionInfo(type="vcs:git", version="a commit")

    monkeypatch.setattr("prefect.deployments.runner.get_inferred_version_info", of_a_checkout)
    monkeypatch.setattr(
        RunnerDeployment, "apply", lambda self: applied.append(self.flow_name) or apply(self)
    )
    assert registering.register("local") == registering.register("local") == 2
    assert applied == ["annotate", "people"]
    with get_client(sync_client=True) as client:
        held = client.read_deployment_by_name("people/default")
        assert (held.work_pool_name, held.work_queue_name) == ("local", "default")
        with pytest.raises(PrefectHTTPStatusError, match="409"):
            client.create_flow_run_from_deployment(held.id, parameters={"pears": "a.json"})


def test_a_union_opens_on_a_tab_that_adds_nothing_to_its_default():
    # The UI opens the first tab with most of the value's fields, and fills in what it lacks.
    tabs = [each.model_fields.keys() for each in get_args(get_args(AnyMethod)[0])]
    for name in ("sft", "dpo"):
        held = METHODS[name].at("small").model_dump().keys()
        opened = max(tabs, key=lambda fields: len(fields & held))
        assert opened == METHODS[name].model_fields.keys()
