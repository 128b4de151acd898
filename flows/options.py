"""Dotted flags to settings: `--setup.seed 1 --method.training.batch 64`, checked by the classes."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

V = TypeVar("V", bound=Value)
NO_FIELDS = {"model_type", "model_attributes_type", "dict_type"}  # a value where fields belong


def dotted(words: Sequence[str], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Nested fields for each group, values as typed; raises BadInput for what is no such flag."""
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
        _lay(found, [group, *path], held if equals else rest.pop(0))
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
    if first["type"] in NO_FIELDS:
        return f"{field} has fields of its own; {_mend(field, first['input'])}"
    if first["type"] == "value_error":
        told = " ".join(str(first["ctx"]["error"]).split())
        return f"{field}: {told}" + _given(first["input"])
    return f"{field}: {first['msg']}{_given(first['input'])}"


def _given(held: object) -> str:
    """What was given in place of what is asked for; nothing of a whole object."""
    return "" if isinstance(held, dict | BaseModel) else f", not {held!r}"


def _lay(fields: dict[str, Any], path: list[str], held: str) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        inner = fields.setdefault(part, {})
        if isinstance(inner, str):
            _refuse_both(path[:depth], inner)
        fields = inner
    if isinstance(fields.get(path[-1]), dict):
        _refuse_both(path, held)
    fields[path[-1]] = held


def _refuse_both(path: list[str], held: str) -> None:
    field = ".".join(path)
    raise BadInput(f"option --{field} and its own fields are both given; {_mend(field, held)}")


def _mend(field: str, held: object) -> str:
    return f"use --{field}.name {held}, or --{field}.FIELD VALUE"


def _read(kind: Any, held: Any) -> Any:
    """What was typed as its field wants it: text and paths as they stand, numbers as numbers."""
    leaves = list(_leaves(kind))
    models = [leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, BaseModel)]
    if isinstance(held, dict):
        known = _fields_of(models, held.get("name"))
        return {name: _read(known.get(name, str), inner) for name, inner in held.items()}
    if not isinstance(held, str) or any(leaf in (str, Path) for leaf in leaves):
        return held
    told = _scalar(held)
    text = models or any(isinstance(leaf, str) for leaf in leaves)
    return held if text and not isinstance(told, dict) else told


def _leaves(kind: Any) -> Iterator[Any]:
    """The classes and the literal values of a field's type."""
    if get_origin(kind) in (Union, UnionType, Annotated, Literal):
        for part in get_args(kind):
            yield from _leaves(part)
    else:
        yield kind


def _fields_of(models: Sequence[type[BaseModel]], name: object) -> dict[str, Any]:
    """Types of the fields of the class called `name`, or of the only one there is."""
    for model in models:
        fields = model.model_fields
        if len(models) == 1 or ("name" in fields and fields["name"].default == name):
            return {field: told.annotation for field, told in fields.items()}
    return {}


def _scalar(text: str) -> Any:
    """A number, or YAML's lists, mappings and null; all else is left to the field's own class."""
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    try:
        held = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return held if isinstance(held, list | dict) or held is None else text


def _merged(start: BaseModel, changes: dict[str, Any], name: str) -> dict[str, Any]:
    fields = type(start).model_fields
    merged: dict[str, Any] = {field: getattr(start, field) for field in fields}
    for field, held in changes.items():
        if field not in fields:
            near = difflib.get_close_matches(field, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"fields are {', '.join(fields)}"
            raise BadInput(f"unknown field {name}.{field}; {hint}")
        now, held = merged[field], _read(fields[field].annotation, held)
        nested = isinstance(held, dict) and isinstance(now, BaseModel)
        if nested and held.get("name", getattr(now, "name", None)) == getattr(now, "name", None):
            merged[field] = _merged(now, held, f"{name}.{field}")
        else:
            merged[field] = held
    return merged
