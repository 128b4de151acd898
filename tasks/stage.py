"""The hinge: the only place where Prefect meets the store.

A stage is a function that makes contents from artifacts and settings. The store decides what
exists, Prefect mirrors it: inside a flow run on a server a stage is a task whose cache key is the
artifact's folder, and whose record is laid into that folder, so an artifact made without a server
shows as `Cached` and a deleted folder recomputes just that stage. Outside a flow run the same call
goes straight to the store and no server is asked for.
"""

import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, ParamSpec, TypeVar, get_args, get_origin
from uuid import uuid4

import polars as pl

from alpacafarm_core import places
from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.purse import UNLIMITED, Purse
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.store import Made, Store
from alpacafarm_core.values import LATER
from tasks import previews
from tasks.retrying import RETRIES

if TYPE_CHECKING:
    from prefect import Task
    from prefect.cache_policies import CachePolicy

P = ParamSpec("P")
A = TypeVar("A", bound=Artifact)
Contents = pl.DataFrame | Path | Made

log = logging.getLogger("alpacafarm.stages")

RUN = uuid4().hex[:8]
"""This process, in the journal: what it made and then used again was made, not skipped."""


def root() -> Path:
    """The store's folder on this machine: itself, or the cache of one that machines share."""
    return places.folder_of(places.place())


def store() -> Store:
    """The store that ALPACAFARM_STORE names, else the one in `data/artifacts`; opened once."""
    with _opening:
        return _store(places.place())


def ledger() -> Ledger:
    """The record of every answer a language model gave, the store's own or a shared one."""
    with _opening:
        return _ledger(places.place())


def unfinished() -> Path:
    """Where the stage that runs now keeps what it could go on from, if it were stopped."""
    return store().unfinished(_making.get())


def cap(budget: float | None) -> None:
    """From now on this process may spend so many US dollars on judges; None changes nothing."""
    if budget is not None:
        os.environ["ALPACAFARM_BUDGET"] = str(budget)
        _purse.cache_clear()


def purse() -> Purse:
    """What this process may still spend: ALPACAFARM_BUDGET dollars, shared by all its stages."""
    with _opening:
        return _purse(os.environ.get("ALPACAFARM_BUDGET", ""))


def _purse_of(dollars: str) -> Purse:
    try:
        limit = float(dollars or UNLIMITED)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise BadInput(f"ALPACAFARM_BUDGET={dollars!r} is no sum of US dollars; set one, as 12.50")
    return Purse(limit)


_making: ContextVar[Artifact] = ContextVar("making")
# `cache` alone lets several threads open at the same time.
_opening = threading.Lock()
_store, _ledger, _purse = cache(places.store_at), cache(places.ledger_of), cache(_purse_of)


class Stage(Generic[P, A]):
    """A cached stage: called like the function it wraps, it returns the receipt."""

    def __init__(
        self, make: Callable[P, Contents], yields: type[A], version: int, options: dict[str, Any]
    ) -> None:
        self.make, self.yields, self.version, self.options = make, yields, version, options
        self.name = make.__name__
        self.signature = inspect.signature(make)
        self._later = {
            name: each.default
            for name, each in self.signature.parameters.items()
            if get_origin(each.annotation) is Annotated and LATER in get_args(each.annotation)
        }

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> A:
        """The receipt, made now or before."""
        return (self._task if in_flow_run() else self._run)(*args, **kwargs)

    def receipt(self, *args: P.args, **kwargs: P.kwargs) -> A:
        """The receipt this call would return; nothing is made."""
        return self.receipt_of(self.arguments(*args, **kwargs))

    def receipt_of(self, arguments: dict[str, Any]) -> A:
        """The receipt for arguments by name, defaults included."""
        return self.yields(key=key_of(self.name, self.version, self._said(arguments)))

    def note(self, artifact: A, ran: bool, seconds: float = 0.0) -> None:
        """Say on the log and in the journal whether the stage ran or was skipped."""
        made = f"made in {seconds:.1f} s" if ran else "cached"
        log.info("%-14s %-34s %s", self.name, artifact.folder, made)
        event = {"stage": self.name, "artifact": artifact.folder, "ran": ran}
        store().note(event | {"at": time.time(), "run": RUN})
        if run := flow_run():
            previews.noted(run, artifact, ran)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """What a call gives, by name, defaults included."""
        call = self.signature.bind(*args, **kwargs)
        call.apply_defaults()
        return dict(call.arguments)

    def _said(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What goes into the key: an argument that came later, left as it was before, does not."""
        nothing = object()
        return {
            name: given
            for name, given in arguments.items()
            if given != self._later.get(name, nothing)
        }

    @property
    def _run(self) -> Callable[P, A]:
        @wraps(self.make)
        def run(*args: P.args, **kwargs: P.kwargs) -> A:
            arguments = self.arguments(*args, **kwargs)
            artifact = self.receipt_of(arguments)
            if store().has(artifact):
                self.note(artifact, ran=False)
                return artifact
            with store().lock(artifact):
                if not store().has(artifact):
                    return self._made(artifact, arguments)
            # Whoever was waited for has said that it is made, if it was a process of this machine.
            if places.is_remote(store().place):
                self.note(artifact, ran=False)
            return artifact

        return run

    def _made(self, artifact: A, arguments: dict[str, Any]) -> A:
        started, making = time.time(), _making.set(artifact)
        try:
            with _counted(self.name):
                content = self.make(**arguments)  # type: ignore[call-arg]
        finally:
            _making.reset(making)
        made = content if isinstance(content, Made) else Made(content)
        recipe = Recipe.of(self.name, self.version, self._said(arguments))
        manifest = store().write(artifact, made, recipe, started)
        self.note(artifact, ran=True, seconds=manifest.seconds)
        if run := flow_run():
            previews.preview(run, store(), artifact)
        return artifact

    @property
    def _task(self) -> "Task[P, A]":
        return self._tasks(store().root)

    @cached_property
    def _tasks(self) -> "Callable[[Path], Task[P, A]]":
        return cache(self._task_in)

    def _task_in(self, root: Path) -> "Task[P, A]":
        from prefect import task

        decorate = task(
            name=self.name,
            version=str(self.version),
            cache_policy=_mirror(self),
            result_storage=root,
            result_serializer="json",
            persist_result=True,
            **RETRIES | self.options,
        )
        return decorate(self._run)


def stage(
    yields: type[A], version: int, **options: Any
) -> Callable[[Callable[P, Contents]], Stage[P, A]]:
    """Turn a function that makes contents into a stage; `options` are those of a Prefect task."""

    def wrap(make: Callable[P, Contents]) -> Stage[P, A]:
        return Stage(make, yields, version, options)

    return wrap


def in_flow_run() -> bool:
    """Whether this code runs inside a flow run, with a server to tell."""
    return flow_run() is not None


def flow_run() -> str | None:
    """The id of the flow run that this code runs in, if there is one."""
    if "prefect" not in sys.modules:
        return None
    from prefect.context import FlowRunContext

    run = FlowRunContext.get()
    return str(run.flow_run.id) if run is not None and run.flow_run is not None else None


def _counted(name: str) -> AbstractContextManager[None]:
    """Show on the page of a flow run how far what a stage buys has come."""
    if not in_flow_run():
        return nullcontext()
    from tasks.progress import counting

    return counting(name)


def _mirror(of: Stage[Any, Any]) -> "CachePolicy":
    """Prefect's cache, kept equal to the store each time it is asked for a key."""
    from prefect.cache_policies import CachePolicy

    class Mirror(CachePolicy):
        def compute_key(
            self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: Any, **_: Any
        ) -> str:
            artifact = of.receipt_of(of.arguments(**inputs))
            key = f"{artifact.folder}/prefect.json"
            records = task_ctx.result_store
            if not store().has(artifact):
                (store().root / key).unlink(missing_ok=True)
                return key
            if not records.exists(key) or records.read(key).result != artifact:
                records.write(artifact, key=key)
            of.note(artifact, ran=False)
            return key

    return Mirror()
