"""What works on this machine and the mend for what does not: facts in, findings out.

Nothing is looked up in this module: whoever gathers the facts hands over values, and each check is
a function of them. A finding is *failed* only where something the farm cannot do without, or that
the user named, does not work; what could be better is a *warning*. No fact holds a secret.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import Field

from alpacafarm_core.values import Value

State = Literal["ok", "warning", "failed"]
PYTHONS = ((3, 11), (3, 12))
GIB = 2**30
MEMORY_LOW = 2 * GIB
REMAKE = "rm -rf .venv && make demo installs what fits this machine"
CHOSEN = ("torch", "transformers", "prefect", "fastapi")
EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
SET_UP = {"dev", "test", "torch-2-13", "vllm", "vllm-cpu"}
"""Extras that the set-up chooses; nobody picks them by hand."""
MANY = 4


class Finding(Value):
    """One line of the doctor's: what was looked at, what was found, what to do about it."""

    check: str = Field(description="What was looked at")
    state: State = Field(description="Whether it works")
    found: str = Field(description="What was found")
    mend: str = Field(default="", description="What to do about it")


class Gpu(Value):
    """One GPU, as its driver describes it."""

    name: str
    memory: int = Field(ge=0, description="Bytes")
    free: int = Field(ge=0, description="Bytes nobody uses")


class Computer(Value):
    """The machine this process runs on, and what the environment asks of it."""

    python: tuple[int, int]
    cores: int = Field(ge=1)
    memory: int = Field(ge=0, description="Bytes free")
    gpus: tuple[Gpu, ...] = ()
    device: str = Field(default="auto", description="What ALPACAFARM_DEVICE asks for")
    engine: str = Field(default="auto", description="What ALPACAFARM_ENGINE asks for")
    wrong: str = Field(default="", description="What those variables get wrong")


class Endpoint(Value):
    """Somebody whom a panel asks."""

    url: str
    models: tuple[str, ...]
    reached: bool = True
    wants_key: bool = False
    has_key: bool = False
    complaint: str = Field(default="", description="Why an answer failed, where one was asked for")


def ok(check: str, found: str) -> Finding:
    """It works."""
    return Finding(check=check, state="ok", found=found)


def warning(check: str, found: str, mend: str) -> Finding:
    """It works, and could work better."""
    return Finding(check=check, state="warning", found=found, mend=mend)


def failed(check: str, found: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(check=check, state="failed", found=found, mend=mend)


def python(here: Computer) -> Finding:
    """Whether the farm runs on this Python."""
    said = ".".join(map(str, here.python))
    if here.python in PYTHONS:
        return ok("python", said)
    return failed("python", said, "take 3.11 or 3.12: rm -rf .venv && PYTHON=python3.11 make demo")


def packages(required: Sequence[str], installed: Mapping[str, str]) -> Finding:
    """Each package the farm cannot do without, against the versions it allows."""
    wrong = []
    for asked in map(Requirement, required):
        held = installed.get(canonicalize_name(asked.name))
        if asked.marker is None and not (held and asked.specifier.contains(held, prereleases=True)):
            wrong.append(f"{asked.name} {held or 'is missing'}, wanted {asked.specifier}")
    if wrong:
        return failed("packages", "; ".join(wrong), REMAKE)
    return ok("packages", ", ".join(f"{n} {installed[n]}" for n in CHOSEN if n in installed))


def extras(required: Sequence[str], installed: Mapping[str, str]) -> Finding:
    """Which optional parts are installed; none of them is missed."""
    whole: dict[str, bool] = {}
    for asked in map(Requirement, required):
        for extra in {*EXTRA.findall(str(asked.marker or ""))} - SET_UP:
            whole[extra] = whole.get(extra, True) and canonicalize_name(asked.name) in installed
    have, lack = (sorted(n for n, here in whole.items() if here is is_) for is_ in (True, False))
    absent = f"; not here: {', '.join(lack)}" if lack else ""
    mend = f"where wanted: .venv/bin/pip install -e '.[{lack[0]}]'" if lack else ""
    return ok("extras", f"{', '.join(have) or 'none'}{absent}").replace(mend=mend)


def engine(here: Computer, installed: Mapping[str, str]) -> Finding:
    """Who would generate answers, and whether the installed builds fit the machine."""
    builds = [f"{n} {installed[n]}" for n in ("vllm", "vllm-cpu") if n in installed]
    blind = installed.get("torch", "").endswith("+cpu")
    has_gpu = bool(here.gpus) and here.device != "cpu"
    on_gpu = has_gpu and not blind
    wanted = here.engine == "vllm" or (here.engine == "auto" and on_gpu and bool(builds))
    place = "a GPU" if on_gpu else "the CPU"
    said = f"{'vllm' if wanted else 'transformers'} on {place}; {' and '.join(builds) or 'no vLLM'}"
    if len(builds) > 1:
        return failed("engine", f"{said}: one build hides the other", REMAKE)
    if wanted and not builds:
        return failed("engine", f"ALPACAFARM_ENGINE=vllm; {said}", REMAKE)
    if has_gpu and blind:
        lost = f"{said}: torch {installed['torch']} cannot use the GPU here"
        return (failed if here.device == "cuda" else warning)("engine", lost, REMAKE)
    return ok("engine", f"{said} installed" if builds else said)


def machine(here: Computer) -> Iterator[Finding]:
    """Cores, memory and GPUs, and the variables that speak of them."""
    if here.wrong:
        yield failed("settings", here.wrong, "set the variable so, or unset it")
    room = f"{here.cores} cores, {here.memory / GIB:.1f} GiB of memory free"
    tight = "end other programs; the demo wants 2 GiB"
    yield ok("machine", room) if here.memory >= MEMORY_LOW else warning("machine", room, tight)
    gpus = (f"{g.name} ({g.free / GIB:.0f} of {g.memory / GIB:.0f} GiB free)" for g in here.gpus)
    if here.device == "cuda" and not here.gpus:
        yield failed(
            "gpus",
            "ALPACAFARM_DEVICE=cuda, and there is none",
            "mend the driver until nvidia-smi -L lists a GPU, or unset ALPACAFARM_DEVICE",
        )
    else:
        yield ok("gpus", ", ".join(gpus) or "none; everything runs on the CPU")


def endpoint(panel: str, asked: Endpoint) -> Finding:
    """One whom a panel asks: reached or not, key there or not, and what it answered, if asked."""
    named = ", ".join(asked.models) if len(asked.models) <= MANY else f"{len(asked.models)} models"
    check, models = f"endpoint {asked.url}", f"{panel} asks {named}"
    if not asked.url.startswith("http"):
        return ok(check, models)
    if not asked.reached:
        mend = "start the server there, or mend the endpoint in the panel"
        return failed(check, f"{models}; nobody answers there", mend)
    if asked.wants_key and not asked.has_key:
        mend = "set OPENAI_API_KEY, or choose a panel that wants none, as world"
        return failed(check, f"{models}; OPENAI_API_KEY is not set", mend)
    if asked.complaint:
        return failed(check, f"{models}; {asked.complaint}", "mend the panel or the key")
    return ok(check, f"{models}; reached, OPENAI_API_KEY is {'' if asked.has_key else 'not '}set")
