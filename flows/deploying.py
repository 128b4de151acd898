"""What the UI offers: every deployment, in one list that `serve` and prefect.yaml are made from.

`python -m flows.deploying` writes prefect.yaml. A deployment is a flow with its form filled in, a
place in a queue, and perhaps a schedule; a new method gets its own without a line here.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field

from alpacafarm_core.methods import METHODS
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from prefect import Flow

FILE = Path(__file__).parents[1] / "prefect.yaml"
POOL = "local"
QUEUES = ("default", "gpu")
HEAD = """\
# Made from flows/deploying.py by `python -m flows.deploying`: change it there, not here.
# For a server that several people share: `prefect --no-prompt deploy --all`, then
# `prefect worker start --pool local [--work-queue gpu]`. For one person `make ui` offers the same
# without this file.
name: alpacafarm
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $ALPACAFARM_ROOT }}"

definitions:
  job: &job
    working_dir: "{{ $ALPACAFARM_ROOT }}"
    env:
      ALPACAFARM_STORE: "{{ $ALPACAFARM_STORE }}"
      PREFECT_LOGGING_EXTRA_LOGGERS: alpacafarm
  queues:
    - &default {name: local, work_queue_name: default, job_variables: *job}
    - &gpu {name: local, work_queue_name: gpu, job_variables: *job}

"""
WAIT = "ENQUEUE"
MONDAY = "0 3 * * 1"


class Schedule(Value):
    """When a deployment runs by itself; off until somebody turns it on in the UI."""

    slug: str = Field(description="Its name among the deployment's schedules")
    cron: str = Field(description="When, as cron writes it")
    timezone: str = Field(default="UTC", description="Whose clock")
    active: bool = Field(default=False, description="On from the start")
    parameters: dict[str, Any] = Field(default={}, description="What differs from the form")


class Deployment(Value):
    """A flow with its form filled in."""

    entrypoint: str = Field(
        pattern=r"^flows/\w+\.py:\w+$", description="File and flow, as flows/x.py:flow"
    )
    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="Its name beside the flow's")
    description: str = Field(description="What it does, on its page")
    tags: tuple[str, ...] = Field(default=(), description="Tags, beside alpacafarm")
    parameters: dict[str, Any] = Field(default={}, description="The form, as filled in")
    schedules: tuple[Schedule, ...] = Field(default=(), description="When it runs by itself")
    triggers: tuple[dict[str, Any], ...] = Field(
        default=(), description="Events that start it, as Prefect writes them"
    )
    limit: int | None = Field(default=None, ge=1, description="Runs at a time; others wait")
    queue: Literal["default", "gpu"] = Field(default="default", description="Who takes its runs")

    @property
    def flow(self) -> "Flow[..., Any]":
        """The flow itself, imported."""
        file, _, name = self.entrypoint.partition(":")
        found: Flow[..., Any] = getattr(
            import_module(file.removesuffix(".py").replace("/", ".")), name
        )
        return found

    @property
    def labels(self) -> list[str]:
        """All its tags."""
        return ["alpacafarm", *self.tags]

    @property
    def concurrency(self) -> dict[str, Any] | None:
        """How many of its runs go at a time; those that come later wait their turn."""
        return (
            None if self.limit is None else {"limit": self.limit, "collision_strategy": "ENQUEUE"}
        )


def _of_methods() -> tuple[Deployment, ...]:
    """One for each method, its form filled in for the built-in world."""
    return tuple(
        Deployment(
            entrypoint=f"flows/methods.py:{name}",
            name=name,
            description=_first(method.__doc__ or name),
            tags=("method",),
            parameters={"method": method.at("small").model_dump(mode="json")},
            queue="gpu",
        )
        for name, method in sorted(METHODS.items())
    )


def _first(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(text.strip().split("\n\n")[0].split())


def _landed(dataset: str, **parameters: Any) -> tuple[dict[str, Any], ...]:
    """The trigger by which each file that lands in a dataset starts a run."""
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "expect": ["alpacafarm.dataset.landed"],
        "match": {"prefect.resource.id": f"alpacafarm.dataset.{dataset}"},
        "threshold": 1,
        "within": 0,
    }
    return (trigger | ({"parameters": parameters} if parameters else {}),)


DEPLOYMENTS: tuple[Deployment, ...] = (
    Deployment(
        entrypoint="flows/prepare.py:prepare",
        name="default",
        description="Make what every method begins from: an SFT policy and labelled pairs.",
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/leaderboard.py:leaderboard",
        name="demo",
        description="The five methods of `make demo` on the built-in world, side by side.",
        tags=("leaderboard",),
        schedules=(Schedule(slug="weekly", cron=MONDAY),),
        limit=1,
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/leaderboard.py:leaderboard",
        name="all-methods",
        description="Every method of the farm from the same start. Hours on a CPU.",
        tags=("leaderboard",),
        parameters={"methods": sorted(METHODS)},
        limit=1,
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/leaderboard.py:leaderboard",
        name="smoke",
        description="A few rows and steps, to see that everything works. Its numbers say nothing.",
        tags=("leaderboard",),
        parameters={"setup": {"scale": "smoke"}},
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/spreading.py:spread",
        name="default",
        description="A leaderboard whose methods are trained on every machine that has a worker.",
        tags=("leaderboard",),
    ),
    Deployment(
        entrypoint="flows/spreading.py:enter",
        name="default",
        description="One method's part of a leaderboard over several machines.",
        tags=("leaderboard",),
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/seeds.py:seeds",
        name="default",
        description="The same race from several seeds, and errors over seeds and prompts.",
        tags=("leaderboard",),
        queue="gpu",
    ),
    *_of_methods(),
    Deployment(
        entrypoint="flows/optimise.py:optimise",
        name="default",
        description="Train a policy with one method and judge nothing.",
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/evaluate.py:evaluate",
        name="default",
        description="Judge a policy of the store against the reference.",
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/study.py:overoptimisation",
        name="default",
        description="Optimise further and further against a reward model, and see what is gained.",
        tags=("study",),
        limit=1,
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/study.py:ranking",
        name="default",
        description="Does simulation rank methods as people do? Every method, twice.",
        tags=("study",),
        limit=1,
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/annotate.py:annotate",
        name="default",
        description="Label a file of pairs with a panel of judges.",
        tags=("judging",),
    ),
    Deployment(
        entrypoint="flows/outputs.py:evaluate_outputs",
        name="default",
        description="Your model's outputs against a reference: a row of a board, and its price.",
        tags=("judging",),
    ),
    Deployment(
        entrypoint="flows/people.py:people",
        name="default",
        description="A person judges a file of pairs in the UI, a page at a time.",
        tags=("judging",),
    ),
    Deployment(
        entrypoint="flows/arrivals.py:refresh",
        name="on-new-pairs",
        description="Label and learn from pairs that landed since, and say what changed.",
        tags=("new-data",),
        parameters={
            "data": {"name": "preferences", "folder": "data/incoming/preferences"},
            "method": METHODS["dpo"].at("small").model_dump(mode="json"),
        },
        schedules=(Schedule(slug="safety-net", cron="17 */6 * * *", active=True),),
        triggers=_landed("preferences"),
        limit=1,
        queue="gpu",
    ),
    Deployment(
        entrypoint="flows/outputs.py:evaluate_outputs",
        name="on-new-outputs",
        description="Judge a model's outputs as soon as a file of them has landed.",
        tags=("new-data", "judging"),
        triggers=_landed(
            "candidates", work={"outputs": {"path": "{{ event.payload.path }}"}, "panel": "world"}
        ),
        limit=1,
    ),
)


def as_yaml() -> str:
    """The text of prefect.yaml."""
    held = {"deployments": [_as_yaml(each) for each in DEPLOYMENTS]}
    text: str = yaml.safe_dump(
        held, sort_keys=False, width=100, allow_unicode=True, default_flow_style=None
    )
    for queue in QUEUES:
        text = text.replace(f"'*{queue}'", f"*{queue}")
    return HEAD + text.replace("\n- name:", "\n\n- name:")


def _as_yaml(one: Deployment) -> dict[str, Any]:
    """One entry of prefect.yaml; what is not said there is left out."""
    said = {
        "name": one.name,
        "entrypoint": one.entrypoint,
        "description": one.description,
        "tags": one.labels,
        "parameters": one.parameters,
        "enforce_parameter_schema": True,
        "schedules": [each.model_dump(mode="json") for each in one.schedules],
        "triggers": list(one.triggers),
        "concurrency_limit": one.concurrency,
        "work_pool": f"*{one.queue}",
    }
    return {name: held for name, held in said.items() if held}


if __name__ == "__main__":
    FILE.write_text(as_yaml())
