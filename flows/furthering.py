"""Which methods can go on from new pairs, told from the stages that they ask for."""

from collections.abc import Iterator
from typing import Any, cast

from alpacafarm_core.arrivals import Way
from alpacafarm_core.artifacts import Artifact, Demonstrations, Instructions, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.recipe import artifacts_in
from alpacafarm_core.setup import Source
from alpacafarm_core.weights import Plain, Policy
from flows.planning import Noting
from tasks.stage import Stage

TRAINS = ("train_policy", "roll_out")


class Tracer(Noting):
    """A farm that makes nothing and keeps what each artifact would be made by and from."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, dict[str, Any]]] = {}

    def _note(self, stage: Stage[Any, Any], *asked: Any, **named: Any) -> Artifact:
        artifact: Artifact = stage.receipt(*asked, **named)
        self.made[artifact.folder] = (stage.name, stage.arguments(*asked, **named))
        return artifact

    def origins(self, artifact: Artifact) -> set[str]:
        """Folders of all it comes from, itself included."""
        found, waiting = set[str](), [artifact]
        while waiting:
            each = waiting.pop()
            if each.folder not in found:
                found.add(each.folder)
                waiting.extend(artifacts_in(self.made.get(each.folder, ("", {}))[1]))
                waiting.extend(held for held in artifacts_in(dict(each)) if held != each)
        return found

    def trained_from(self, policy: Policy) -> Iterator[Policy]:
        """The policy, that which it was trained from, and so on."""
        yield policy
        stage, asked = self.made.get(policy.folder, ("", {}))
        if stage in TRAINS:
            yield from self.trained_from(asked["policy"])


def refuse_unfit(way: Way) -> None:
    """Raise BadInput where new pairs would not reach the policy, or it cannot go on from itself."""
    name, tracer, start = way.method.name, Tracer(), nowhere(way.setup.source)
    policy = way.method.seeded(way.setup.seed).optimise(cast(Farm, tracer), start)
    if start.preferences.folder not in tracer.origins(policy):
        raise BadInput(
            f"method {name!r} does not learn from labelled pairs, so new ones change nothing; "
            "choose one that does, such as dpo or ppo"
        )
    if way.how == "further" and not _goes_on(policy, tracer, start):
        raise BadInput(
            f"method {name!r} does not go on from the policy it is given; "
            "choose how 'again', or a method that does, such as dpo or ppo"
        )


def _goes_on(policy: Policy, tracer: Tracer, start: Start) -> bool:
    """Whether weights were trained on from the start's policy, and are used as they are."""
    path = [each.folder for each in tracer.trained_from(policy)]
    return policy.decode == Plain() and len(path) > 1 and path[-1] == start.policy.folder


def nowhere(source: Source) -> Start:
    """A start whose artifacts nobody has made."""
    key = "{:016x}".format
    return Start(
        base=Policy(key=key(1)),
        policy=Policy(key=key(2)),
        instructions=Instructions(key=key(3)),
        demonstrations=Demonstrations(key=key(4)),
        preferences=Preferences(key=key(5)),
        source=source,
    )
