"""The recipe of a stage's result: its key, and what goes into the manifest.

A key is a hash of the stage's name, its version, its settings and the keys of its inputs, so the
key of a leaderboard is known before the first instruction is drawn. Machine settings are not
arguments of a stage and so never part of it; a field declared with `exclude=True` is not either.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.values import Value

KEY_LENGTH = 16


def plain(thing: Any) -> Any:
    """JSON form of an argument; an artifact is its kind, its key and how it is used."""
    if isinstance(thing, Artifact):
        return {"artifact": thing.folder, **thing.model_dump(mode="json", exclude={"key"})}
    if isinstance(thing, Value):
        return thing.model_dump(mode="json")
    if isinstance(thing, Mapping):
        return {str(name): plain(held) for name, held in thing.items()}
    if isinstance(thing, tuple | list):
        return [plain(held) for held in thing]
    return thing


def digest(thing: Any) -> str:
    """Hex digest of a JSON form, independent of the order of fields; NaN is refused."""
    text = json.dumps(thing, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def key_of(stage: str, version: int, arguments: Mapping[str, Any]) -> str:
    """The key of what a stage makes from these arguments."""
    return digest({"stage": stage, "version": version, "arguments": plain(arguments)})[:KEY_LENGTH]


def artifacts_in(thing: Any) -> Iterator[Artifact]:
    """Every artifact held by an argument, at any depth."""
    if isinstance(thing, Artifact):
        yield thing
    if isinstance(thing, Value):
        for name in type(thing).model_fields:
            yield from artifacts_in(getattr(thing, name))
    elif isinstance(thing, Mapping):
        for held in thing.values():
            yield from artifacts_in(held)
    elif isinstance(thing, tuple | list):
        for held in thing:
            yield from artifacts_in(held)


def _settings(argument: Any) -> Any:
    """What an argument says beside which artifacts it holds: how a policy decodes, for one."""
    if isinstance(argument, Artifact):
        return {name: held for name, held in plain(argument).items() if name != "artifact"}
    return plain(argument)


class Recipe(Value):
    """A stage's name, version and arguments, split into settings and inputs."""

    stage: str = Field(description="Name of the stage")
    version: int = Field(ge=1, description="Raised when answers change")
    settings: dict[str, Any] = Field(description="Arguments that are not artifacts")
    inputs: dict[str, list[str]] = Field(description="Folders of the input artifacts")

    @classmethod
    def of(cls, stage: str, version: int, arguments: Mapping[str, Any]) -> "Recipe":
        """Split a call's arguments."""
        return cls(
            stage=stage,
            version=version,
            settings={name: said for name, a in arguments.items() if (said := _settings(a)) != {}},
            inputs={
                name: folders
                for name, argument in arguments.items()
                if (folders := list(dict.fromkeys(a.folder for a in artifacts_in(argument))))
            },
        )
