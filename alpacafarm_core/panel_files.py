"""Files of panels: YAML with models by name, a panel to be based on, and templates beside it.

Whoever the judges are, their file is read the same way; what differs is in a `Layout`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from alpacafarm_core.errors import BadInput, Missing

PANELS = Path(__file__).parent / "panels"
PROMPTS = Path(__file__).parent / "prompts"


class Layout(NamedTuple):
    """What tells one kind of panel file from another.

    `members` is the field with the list of judges, one of which is called a `member`; `find` gives
    the path of a panel that is named, and `filled` a judge whose templates are read.
    """

    members: str
    member: str
    find: Callable[[str | Path], Path]
    filled: Callable[[Path, dict[str, Any]], dict[str, Any]]


def fields(path: Path, held: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The fields of a panel from what its file holds: templates read, models filled in."""
    held = {"name": path.stem} | held
    base = held.pop("based_on", None)
    source = path if base is None else layout.find(_beside(path, str(base)))
    if base is not None:
        under = mapping(source)
        if "based_on" in under:
            raise BadInput(f"{path}: {base} is based on another panel; name that one in based_on")
        held["models"] = _models(source, under) | _models(path, held)
        source = path if layout.members in held else source
        held = under | held
    judges, models = held.get(layout.members), _models(path, held)
    held.pop("models", None)
    if not isinstance(judges, list):
        raise BadInput(f"{path}: no list of {layout.members}; add one under `{layout.members}:`")
    for judge in judges:
        if not isinstance(judge, dict):
            raise BadInput(f"{path}: an {layout.member} is no mapping of fields: {judge!r}")
    filled = [_with_model(layout.filled(source, judge), models) for judge in judges]
    used = {judge.get("model") for judge in judges}
    if idle := sorted(set(models) - used):
        named = ", ".join(idle)
        raise BadInput(f"{path}: no {layout.member} asks for the model {named}; take it out")
    return held | {layout.members: filled}


def _beside(path: Path, name: str) -> str | Path:
    """A panel named in the file `path`: one beside it by its file's name, or a shipped one."""
    return path.parent / name if name.endswith((".yaml", ".yml")) else name


def _models(path: Path, held: dict[str, Any]) -> dict[str, Any]:
    models = held.get("models", {})
    if not isinstance(models, dict):
        raise BadInput(f"{path}: models is no mapping of a name to a model; mend it")
    return models


def _with_model(annotator: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """An annotator with what stands under its model's name: a model, or several fields."""
    held = models.get(str(annotator.get("model")))
    if held is None:
        return annotator
    fields = held if isinstance(held, dict) else {"model": str(held)}
    return fields | {name: each for name, each in annotator.items() if name != "model"}


class _Once(yaml.SafeLoader):
    """YAML whose keys stand once: of two, one would be forgotten in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"key {key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def mapping(path: Path, members: str = "annotators") -> dict[str, Any]:
    """What a YAML file holds; raises BadInput where it is no mapping."""
    try:
        held = yaml.load(utf8(path), Loader=_Once)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not YAML{_place(error)}; mend that line") from None
    if not isinstance(held, dict):
        raise BadInput(f"{path}: not a mapping; give `{members}:` with a list")
    return held


def _place(error: Exception) -> str:
    """Where and why a text is no YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f" at line {error.problem_mark.line + 1} ({error.problem})"
    return f" ({' '.join(str(error).split())})"


def utf8(path: Path) -> str:
    """A text file; raises BadInput where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error


def template(path: Path, name: str) -> str:
    """A template that a panel's file names: one beside it, else a shipped one."""
    for folder in (path.parent, PROMPTS):
        if is_file(folder / name):
            return utf8(folder / name)
    raise Missing(f"{path}: no template {name[:60]!r}; put it beside the panel's file")


def is_file(path: Path) -> bool:
    """Whether it is one; a whole prompt where its name should stand is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def first(error: ValidationError) -> str:
    """What is wrong with a panel first, and where."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown field {where}; take it out or mend its spelling"
    return f"{where or 'panel'}: {problem['msg']}"
