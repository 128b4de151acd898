"""Dotted flags to settings: `--setup.seed 1 --method.training.batch 64`, checked by the classes."""

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

V = TypeVar("V", bound=Value)


def dotted(words: Sequence[str], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Nested fields for each group; raises BadInput for anything that is no dotted flag."""
    found: dict[str, dict[str, Any]] = {group: {} for group in groups}
    rest = list(words)
    while rest:
        flag = rest.pop(0)
        name, equals, held = flag.removeprefix("--").partition("=")
        group, *path = name.split(".")
        if not flag.startswith("--") or group not in found or not path:
            known = " or ".join(f"--{group}.FIELD VALUE" for group in groups)
            raise BadInput(f"unknown option {flag!r}; use {known}, or see --help")
        if not equals and not rest:
            raise BadInput(f"option {flag!r} has no value; write {flag} VALUE")
        _lay(found[group], path, _scalar(held if equals else rest.pop(0)))
    return found


def settled(start: V, changes: dict[str, Any], name: str) -> V:
    """`start` with nested fields changed; raises BadInput naming the field and the mend."""
    try:
        return type(start).model_validate(_merged(start, changes, name))
    except ValidationError as error:
        raise BadInput(in_words(error, name)) from error


def in_words(error: ValidationError, name: str) -> str:
    """The first complaint of a validation as one line."""
    first = error.errors()[0]
    field = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"unknown field {field}; see --help for the fields"
    return f"{field}: {first['msg']}, not {first['input']!r}"


def _lay(fields: dict[str, Any], path: list[str], held: Any) -> None:
    for part in path[:-1]:
        fields = fields.setdefault(part, {})
    fields[path[-1]] = held


def _scalar(text: str) -> Any:
    try:
        held = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(held, str | int | float | bool | list | dict) or held is None:
        return _number(held)
    return text


def _number(held: Any) -> Any:
    """YAML reads `1e-4` as text; a person means a number."""
    try:
        return float(held) if isinstance(held, str) else held
    except ValueError:
        return held


def _merged(start: BaseModel, changes: dict[str, Any], name: str) -> dict[str, Any]:
    fields = type(start).model_fields
    merged: dict[str, Any] = {field: getattr(start, field) for field in fields}
    for field, held in changes.items():
        if field not in fields:
            near = difflib.get_close_matches(field, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"fields are {', '.join(fields)}"
            raise BadInput(f"unknown field {name}.{field}; {hint}")
        now = merged[field]
        nested = isinstance(held, dict) and isinstance(now, BaseModel)
        if nested and held.get("name", getattr(now, "name", None)) == getattr(now, "name", None):
            merged[field] = _merged(now, held, f"{name}.{field}")
        else:
            merged[field] = held
    return merged
