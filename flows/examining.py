"""The doctor's facts of this machine: packages, GPUs, endpoints, the store and the ledger.

Looking changes nothing: no store is made, and what is written to try a place is taken away again.
What is said of an error is its kind alone where its text could hold a password.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from packaging.utils import canonicalize_name

from alpacafarm_core.checkup import Book, Bucket, Folder
from alpacafarm_core.doctor import Computer, Endpoint, Gpu
from alpacafarm_core.errors import FarmError
from alpacafarm_core.machine import Machine
from alpacafarm_core.shared_ledger import named

if TYPE_CHECKING:
    from alpacafarm_core.panel import Annotator, Panel

PATIENCE = 3.0
"""Seconds to wait for somebody who does not answer."""
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
MIB, KIB = 2**20, 2**10
TRIES_A_CLAIM = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError:
        sys.exit(3)
"""


def required() -> list[str]:
    """What the package says it needs, extras marked."""
    try:
        return list(requires("alpacafarm") or ())
    except PackageNotFoundError:
        return []


def installed() -> dict[str, str]:
    """Version of every package of this environment."""
    return {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}


def computer() -> Computer:
    """This machine, and what the environment asks of it."""
    wrong, machine = "", Machine()
    try:
        machine = Machine.here()
    except FarmError as error:
        wrong = str(error)
    return Computer(
        python=(sys.version_info.major, sys.version_info.minor),
        cores=os.cpu_count() or 1,
        memory=_memory(),
        gpus=tuple(_gpus()),
        device=machine.device,
        engine=machine.engine,
        wrong=wrong,
    )


def endpoints(panel: "Panel", ask: bool) -> list[Endpoint]:
    """Whom a panel asks; a question is put to each model only where `ask` says so."""
    asked: dict[str, list[Annotator]] = {}
    for annotator in panel.annotators:
        asked.setdefault(annotator.endpoint, []).append(annotator)
    return [_endpoint(url, annotators, ask) for url, annotators in asked.items()]


def folder(place: Path) -> Folder:
    """A store on disk; where there is none yet, whether one could be made."""
    there = next(each for each in (place, *place.parents) if each.exists())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.NamedTemporaryFile(dir=there) as tried:
            locks = _locks(Path(tried.name))
    except OSError as error:
        return Folder(path=str(place), free=free, error=error.strerror or type(error).__name__)
    made = len(list(place.glob("*/*/manifest.json")))
    return Folder(path=str(place), artifacts=made, free=free, locks=locks)


def bucket(url: str) -> Bucket:
    """A store on S3: one object is written twice under a name of its own, and removed."""
    parts = urlsplit(url)
    name, key = parts.netloc, f"{parts.path.strip('/')}/doctor/{uuid4().hex}".lstrip("/")
    try:
        client = _s3()
    except ImportError:
        return Bucket(url=url, error="boto3 is not installed; pip install -e '.[s3]'")
    except Exception as error:
        return Bucket(url=url, error=type(error).__name__)
    try:
        said = client.put_object(Bucket=name, Key=key, Body=b"", IfNoneMatch="*")
    except Exception as error:
        return Bucket(url=url, error=_code(error))
    skew = _ahead(said["ResponseMetadata"]["HTTPHeaders"].get("date"))
    try:
        client.put_object(Bucket=name, Key=key, Body=b"", IfNoneMatch="*")
        conditional = False
    except Exception as error:
        conditional = _code(error) in ("PreconditionFailed", "412")
    with suppress(Exception):
        client.delete_object(Bucket=name, Key=key)
    return Bucket(url=url, conditional=conditional, skew=skew)


def shared_ledger(url: str) -> Book:
    """A ledger in Postgres: reached, and whether a lock of one connection keeps another out."""
    try:
        place = named(url).partition("://")[2]
    except FarmError as error:
        return Book(kind="postgres", place="somewhere", error=str(error))
    try:
        import psycopg
    except ImportError:
        lacking = "psycopg is not installed; pip install -e '.[postgres]'"
        return Book(kind="postgres", place=place, error=lacking)
    number = uuid4().int % 2**62
    try:
        with (
            psycopg.connect(url, connect_timeout=int(PATIENCE), autocommit=True) as one,
            psycopg.connect(url, connect_timeout=int(PATIENCE), autocommit=True) as other,
        ):
            one.execute("SELECT pg_advisory_lock(%s)", (number,))
            free = _value(other, "SELECT pg_try_advisory_lock(%s)", number)
            has = _value(other, "SELECT to_regclass(%s) IS NOT NULL", "alpacafarm.calls")
            calls = _value(other, "SELECT count(*) FROM alpacafarm.calls") if has else 0
    except psycopg.Error as error:
        # Its text can hold parts of a URL that was not understood.
        return Book(kind="postgres", place=place, error=type(error).__name__)
    return Book(kind="postgres", place=place, calls=calls, claims=not free)


def own_ledger(place: Path) -> Book:
    """The ledger of one machine, a file; it is not made by looking."""
    from alpacafarm_core.ledger import Ledger

    if not place.is_file():
        return Book(kind="sqlite", place=f"{place} (not there yet)")
    try:
        held = Ledger(place)
        calls = held.counts().calls
        held.close()
        with tempfile.NamedTemporaryFile(dir=place.parent) as tried:
            claims = _claims(Path(tried.name))
    except (FarmError, OSError) as error:
        return Book(kind="sqlite", place=str(place), error=str(error).partition(": ")[2])
    return Book(kind="sqlite", place=str(place), calls=calls, claims=claims)


def _memory() -> int:
    """Bytes of memory that programs could still have."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * KIB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpus() -> Iterator[Gpu]:
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.splitlines():
        name, whole, free = (word.strip() for word in line.split(","))
        yield Gpu(name=name, memory=_mib(whole), free=_mib(free))


def _mib(said: str) -> int:
    return int(said) * MIB if said.isdigit() else 0


def _endpoint(url: str, annotators: "list[Annotator]", ask: bool) -> Endpoint:
    from alpacafarm_core.endpoints import OPENAI

    models = tuple(dict.fromkeys(each.model for each in annotators))
    if not url.startswith("http"):
        return Endpoint(url=url, models=models)
    found = Endpoint(
        url=url,
        models=models,
        reached=_reached(url),
        wants_key=urlsplit(url).hostname == OPENAI,
        has_key=bool(os.environ.get("OPENAI_API_KEY")),
    )
    if not ask or not found.reached or (found.wants_key and not found.has_key):
        return found
    return found.replace(complaint=_asked(url, annotators))


def _asked(url: str, annotators: "list[Annotator]") -> str:
    """Why one of the models does not answer; empty where all do. A question is one token."""
    from alpacafarm_core.endpoints import ask_for
    from alpacafarm_core.llm import Message, Request

    role = {each.model: "text" if each.api == "completions" else "user" for each in annotators}
    questions = [
        Request(model, (Message(said, "Say yes."),), 0.0, 1, endpoint=url)
        for model, said in role.items()
    ]
    try:
        answers = ask_for(url)(questions)
    except FarmError as error:
        return str(error)
    failed = ((q.model, a.error) for q, a in zip(questions, answers, strict=True) if a.error)
    return next((f"{model}: {error}" for model, error in failed), "")


def _reached(url: str) -> bool:
    """Whether anybody speaks HTTP there, whatever it says."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, HTTPException):
        return False


def _locks(file: Path) -> bool:
    """Whether a lock that one opening of a file holds keeps another out."""
    with file.open() as one, file.open() as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _claims(file: Path) -> bool:
    """Whether a byte this process holds keeps another process out."""
    with file.open("r+") as held:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return False
        tried = subprocess.run([sys.executable, "-c", TRIES_A_CLAIM, str(file)], check=False)
        return tried.returncode == 3


def _s3() -> Any:
    import boto3
    from botocore.config import Config

    brief = Config(
        connect_timeout=PATIENCE, read_timeout=PATIENCE, retries={"total_max_attempts": 1}
    )
    return boto3.client("s3", config=brief)


def _code(error: Exception) -> str:
    """What the storage calls its refusal, else the kind of the error."""
    said = getattr(error, "response", None) or {}
    return str(said.get("Error", {}).get("Code") or type(error).__name__)


def _ahead(date: str | None) -> float:
    """Seconds by which a server's clock is ahead of ours, to the second that it tells."""
    if date is None:
        return 0.0
    behind = time.time() - parsedate_to_datetime(date).timestamp()
    return 0.0 if 0 <= behind < 1 else -behind


def _value(connection: Any, query: str, *given: Any) -> Any:
    return connection.execute(query, given).fetchone()[0]
