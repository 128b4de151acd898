"""The doctor's findings on places: the store, the ledger, the Prefect server.

Like the rest of the doctor these are functions of facts; nothing is looked up here.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from alpacafarm_core.doctor import GIB, Finding, failed, ok, warning
from alpacafarm_core.values import Value

DISK_LOW, DISK_FULL = 5 * GIB, GIB // 4
SKEW = 5.0
"""Seconds by which two clocks may differ before a lease could be read wrongly."""
SERVE = "alpacafarm serve registers what is missing"
FILES = (
    "start the server with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
    "prefect.server.concurrency.lease_storage.filesystem, as `alpacafarm serve` does"
)


class Folder(Value):
    """A store on this machine's disks."""

    path: str
    artifacts: int = Field(default=0, ge=0, description="Finished ones")
    free: int = Field(ge=0, description="Bytes left on its disk")
    error: str = Field(default="", description="Why it cannot be written")
    locks: bool = Field(default=True, description="Whether files can be locked there")


class Bucket(Value):
    """A store on S3-compatible storage."""

    url: str
    error: str = Field(default="", description="Why it cannot be used")
    conditional: bool = Field(default=True, description="A second conditional write is refused")
    skew: float = Field(default=0.0, description="Seconds its clock is ahead")


class Book(Value):
    """The ledger of answers."""

    kind: Literal["sqlite", "postgres"]
    place: str = Field(description="Where, without user or password")
    calls: int = Field(default=0, ge=0, description="Answers remembered")
    error: str = Field(default="", description="Why it cannot be used")
    claims: bool = Field(default=True, description="Whether a claim keeps others waiting")


class Pool(Value):
    """A work pool, and how many of its workers were heard of lately."""

    name: str
    kind: str = "process"
    workers: int = Field(default=0, ge=0, description="Online")


class Server(Value):
    """A Prefect server, as it answers at PREFECT_API_URL."""

    url: str
    error: str = Field(default="", description="Why it cannot be used")
    version: str = ""
    ours: str = Field(default="", description="Version of the client here")
    local: bool = Field(default=True, description="Whether its address is this machine's own")
    secured: bool = Field(default=False, description="Whether it wants a password")
    database: str = Field(default="", description="Kind, where it can be told")
    leases: str = Field(default="", description="Where leases are kept")
    pools: tuple[Pool, ...] = ()
    deployments: int = Field(default=0, ge=0)
    automations: tuple[str, ...] = Field(default=(), description="Those that are on")
    limits: tuple[str, ...] = Field(default=(), description="Concurrency limits")


def folder(held: Folder) -> Iterator[Finding]:
    """Whether a local store can be written, locked and filled further."""
    if held.error:
        mend = "choose another folder with --store or ALPACAFARM_STORE"
        yield failed("store", f"{held.path}: {held.error}", mend)
        return
    if held.locks:
        yield ok("store", f"{held.path}, {held.artifacts} artifacts")
    else:
        mend = "put the store on a local disk, or on S3 for several machines"
        yield failed("store", f"{held.path}: files cannot be locked there", mend)
    room = f"{held.free / GIB:.1f} GiB free for the store"
    mend = "make room: alpacafarm gc says what nobody needs"
    if held.free < DISK_FULL:
        yield failed("disk", room, mend)
    else:
        yield warning("disk", room, mend) if held.free < DISK_LOW else ok("disk", room)


def bucket(held: Bucket) -> Iterator[Finding]:
    """Whether a store on S3 is there, guards what is written, and tells the time."""
    if held.error:
        mend = "mend ALPACAFARM_STORE, AWS_ENDPOINT_URL or the credentials of the environment"
        yield failed("store", f"{held.url}: {held.error}", mend)
        return
    if held.conditional:
        yield ok("store", f"{held.url}; conditional writes are kept")
    else:
        mend = "take storage that honours If-None-Match: without it two machines undo each other"
        yield failed("store", f"{held.url}: a conditional write took another's place", mend)
    said = f"the store is {abs(held.skew):.0f} s {'ahead' if held.skew > 0 else 'behind'}"
    if abs(held.skew) > SKEW:
        yield warning("clock", said, "set this machine's clock by a time server")
    else:
        yield ok("clock", "that of the store and this machine's agree")


def ledger(held: Book, remote: bool) -> Finding:
    """Whether answers are remembered, and by all machines alike where the store is `remote`."""
    said = f"{held.kind} {held.place}"
    if held.error:
        mend = "mend ALPACAFARM_LEDGER, or unset it for a file beside the store"
        return failed("ledger", f"{said}: {held.error}", mend)
    if not held.claims:
        return failed(
            "ledger",
            f"{said}: a claim does not keep another process waiting",
            "put it on a local disk, or give a Postgres by ALPACAFARM_LEDGER",
        )
    if remote and held.kind == "sqlite":
        return warning(
            "ledger",
            f"{said}: this machine's alone, so another buys the same answer again",
            "let all machines share one: ALPACAFARM_LEDGER=postgresql://...",
        )
    return ok("ledger", f"{said}, {held.calls} answers")


def server(held: Server, gpus: int, wanted: tuple[str, ...] = ()) -> Iterator[Finding]:
    """A Prefect server and what stands on it; `wanted` are automations that should be on."""
    if held.error:
        mend = "start it with `alpacafarm serve --with-server`, or unset PREFECT_API_URL"
        if "401" in held.error:
            mend = "set PREFECT_API_AUTH_STRING to the server's user:password"
        yield failed("server", f"{held.url}: {held.error}", mend)
        return
    yield _version(held)
    yield _password(held)
    yield _leases(held)
    if held.database:
        yield ok("database", held.database)
    yield from _offered(held)
    missing = [name for name in wanted if name not in held.automations]
    if missing:
        yield warning("automations", f"not on: {', '.join(missing)}", SERVE)
    else:
        yield ok("automations", _some(held.automations, wanted))
    if gpus and "gpu" not in held.limits:
        mend = f"prefect gcl create gpu --limit {gpus}, or {SERVE}"
        yield warning("limits", "no limit `gpu`: jobs may meet on one GPU", mend)
    else:
        yield ok("limits", _some(held.limits, ("gpu",)))


def _some(names: tuple[str, ...], first: tuple[str, ...]) -> str:
    """Those that matter by name, the others by number."""
    named = [name for name in first if name in names]
    rest = len(names) - len(named)
    return ", ".join([*named, *([f"{rest} more"] if rest else [])]) or "none"


def _version(held: Server) -> Finding:
    said = f"Prefect {held.version} at {held.url}"
    if held.version.split(".")[:2] == held.ours.split(".")[:2]:
        return ok("server", said)
    return warning("server", f"{said}; here is {held.ours}", "run one version everywhere")


def _password(held: Server) -> Finding:
    if held.secured:
        return ok("password", "asked for")
    if held.local:
        return ok("password", "none; reached from this machine alone")
    mend = "set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here"
    return warning("password", "none: whoever reaches the server may run anything", mend)


def _leases(held: Server) -> Finding:
    if held.leases.endswith("memory"):
        return warning("leases", "in memory: a restart of the server leaves slots taken", FILES)
    return ok("leases", held.leases.rpartition(".")[2] or "not told")


def _offered(held: Server) -> Iterator[Finding]:
    """Deployments, and somebody to run them."""
    if held.deployments:
        yield ok("deployments", f"{held.deployments}")
    else:
        yield warning("deployments", "none", SERVE)
    for pool in held.pools:
        said = f"{pool.name} ({pool.kind}): {pool.workers} workers online"
        if pool.workers:
            yield ok("work pool", said)
        else:
            mend = f"start one: prefect worker start --pool {pool.name}"
            yield warning("work pool", said, mend)
