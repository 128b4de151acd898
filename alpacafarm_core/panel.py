"""Annotators and panels: who judges, with which prompt, at what price, with how much noise.

A panel holds the text of its templates, not their names, so whatever is keyed by a panel is keyed
by what reaches the judge. Shipped panels lie in `panels/*.yaml`, templates in `prompts/*.txt`.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from alpacafarm_core.answers import Choice, Reader
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.templates import places
from alpacafarm_core.values import Value

PANELS = Path(__file__).parent / "panels"
PROMPTS = Path(__file__).parent / "prompts"

_BARE = ["instruction", "output_1", "output_2"]
_BLOCKS = {"prompt": [_BARE], "prompt_with_input": [_BARE, ["input", *_BARE]]}


class Annotator(Value):
    """One simulated annotator: a model, a prompt and a way to read its answer."""

    name: str = Field(description="Name in the table of labels")
    model: str = Field(description="Model asked")
    endpoint: str = Field(
        default="world://",
        pattern=r"^(world://|https?://[^@\s]+)$",
        description="world:// or a base URL without secrets",
    )
    api: Literal["chat", "completions"] = Field(default="chat", description="Kind of request")
    prompt: str = Field(description="Template for rows without input")
    prompt_with_input: str = Field(description="Template for rows with input")
    batch: int = Field(default=1, ge=1, description="Examples judged per call")
    answer: Reader = Field(default=Choice(), description="How its answer is read")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    max_tokens: int = Field(default=300, ge=1, description="Longest answer, in tokens")
    price_per_1k_tokens: float = Field(default=0.0, ge=0, description="US dollars")
    price_per_call: float = Field(default=0.0, ge=0, description="US dollars, as people are paid")

    @model_validator(mode="after")
    def shows_a_batch(self) -> "Annotator":
        """Refuse templates that do not show `batch` examples."""
        for field in ("prompt", "prompt_with_input"):
            found = places(getattr(self, field))
            block = sorted(found[: len(found) // self.batch])
            blocks = [
                found[start : start + len(block)]
                for start in range(0, len(found), max(1, len(block)))
            ]
            if (
                block not in _BLOCKS[field]
                or [sorted(each) for each in blocks] != [block] * self.batch
            ):
                raise ValueError(
                    f"{field} of {self.name} does not show {self.batch} examples one after the "
                    "other, each with {instruction}, {output_1} and {output_2} once"
                )
        return self


class Panel(Value):
    """A pool of annotators, one drawn for each prompt, and the noise put on their labels.

    `flip` is the share of labels that come out wrong: with probability 2 * flip a coin decides and
    nobody is asked; above one half the answers that were asked for are turned round instead.
    """

    name: str = Field(description="Name of the panel")
    annotators: tuple[Annotator, ...] = Field(min_length=1, description="Who may be drawn")
    flip: float = Field(default=0.0, ge=0, le=1, description="Share of labels flipped")
    seed: int = Field(default=0, ge=0, description="Seed of draws and answers")
    order: Literal["random", "fixed"] = Field(default="random", description="Which is shown first")

    @property
    def endpoint(self) -> str:
        """Where all its annotators are asked."""
        return self.annotators[0].endpoint

    @model_validator(mode="after")
    def is_one_pool(self) -> "Panel":
        """Refuse names that stand twice, as labels could not be told apart, and two endpoints."""
        names = [annotator.name for annotator in self.annotators]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"panel {self.name} has several annotators named {', '.join(twice)}")
        if len(endpoints := {annotator.endpoint for annotator in self.annotators}) > 1:
            raise ValueError(f"panel {self.name} asks {', '.join(sorted(endpoints))}; ask one")
        return self


def shipped() -> list[str]:
    """Names of the panels that come with the package."""
    return sorted(path.stem for path in PANELS.glob("*.yaml"))


def load(name_or_path: str | Path, flip: float | None = None, seed: int = 0) -> Panel:
    """Read a shipped panel by name, or one's own by the path of its YAML file.

    Templates are looked for beside the file first, then among the shipped ones.
    """
    path = _path(name_or_path)
    held = _yaml(path)
    if "seed" in held:
        raise BadInput(f"{path}: takes no seed; the seed comes from the setup, take it out")
    annotators = held.get("annotators")
    if not isinstance(annotators, list):
        raise BadInput(f"{path}: no list of annotators; add one under `annotators:`")
    held |= {
        "name": held.get("name", path.stem),
        "annotators": [_with_text(path, annotator) for annotator in annotators],
        "flip": held.get("flip", 0.0) if flip is None else flip,
        "seed": seed,
    }
    try:
        return Panel.model_validate(held)
    except ValidationError as error:
        raise BadInput(f"{path}: {_first(error)}") from None


def _path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PANELS / f"{name_or_path}.yaml"
    if not path.is_file():
        raise Missing(
            f"no panel {name_or_path}; shipped are {', '.join(shipped())}, "
            "or give the path of a .yaml file"
        )
    return path


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


def _yaml(path: Path) -> dict[str, Any]:
    try:
        held = yaml.load(_utf8(path), Loader=_Once)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not YAML{_place(error)}; mend that line") from None
    if not isinstance(held, dict):
        raise BadInput(f"{path}: not a mapping; give `annotators:` with a list")
    return held


def _place(error: Exception) -> str:
    """Where and why a text is no YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f" at line {error.problem_mark.line + 1} ({error.problem})"
    return f" ({' '.join(str(error).split())})"


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error


def _with_text(path: Path, annotator: object) -> dict[str, Any]:
    if not isinstance(annotator, dict):
        raise BadInput(f"{path}: an annotator is no mapping of fields: {annotator!r}")
    texts = {
        field: _text(path, str(annotator[field]))
        for field in ("prompt", "prompt_with_input")
        if field in annotator
    }
    return annotator | texts


def _text(path: Path, name: str) -> str:
    for folder in (path.parent, PROMPTS):
        if _is_file(folder / name):
            return _utf8(folder / name)
    raise Missing(f"{path}: no template {name[:60]!r}; put it beside the panel's file")


def _is_file(path: Path) -> bool:
    """Whether it is one; a whole prompt where its name should stand is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown field {where}; take it out or mend its spelling"
    return f"{where or 'panel'}: {problem['msg']}"
