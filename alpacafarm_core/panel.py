"""Annotators and panels: who judges, with which prompt, at what price, with how much noise.

A panel holds the text of its templates, not their names, so whatever is keyed by a panel is keyed
by what reaches the judge. Shipped panels lie in `panels/*.yaml`, templates in `prompts/*.txt`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from alpacafarm_core import evaluators
from alpacafarm_core.answers import Choice
from alpacafarm_core.asked import Asked
from alpacafarm_core.bias import bias
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.panel_files import (
    PANELS,
    Layout,
    fields,
    first,
    is_file,
    mapping,
    template,
    utf8,
)
from alpacafarm_core.parsers import Reader
from alpacafarm_core.templates import lost, places
from alpacafarm_core.values import Value

_BARE = ["instruction", "output_1", "output_2"]
_BLOCKS = {"prompt": [_BARE], "prompt_with_input": [_BARE, ["input", *_BARE]]}


class Annotator(Asked):
    """One simulated annotator: a model, a prompt and a way to read its answer."""

    prompt: str = Field(description="Template for rows without input")
    prompt_with_input: str = Field(description="Template for rows with input")
    batch: int = Field(default=1, ge=1, description="Examples judged per call")
    pads: bool = Field(default=False, description="Fill a batch up instead of cutting the prompt")
    answer: Reader = Field(default=Choice(), description="How its answer is read")
    max_tokens: int = Field(default=300, ge=1, description="Longest answer, in tokens")
    top_logprobs: int = Field(default=0, ge=0, le=20, description="Log-probabilities asked for")
    usual_tokens: int | None = Field(
        default=None, ge=1, exclude=True, description="Tokens of a usual answer to one example"
    )
    favour: tuple[str, ...] = Field(default=(), description="Texts whose tokens gain in logit")
    avoid: tuple[str, ...] = Field(default=(), description="Texts of one token that lose in logit")

    def body(self) -> dict[str, Any]:
        """Further fields of the request's body; BadInput where words have no tokenizer."""
        if not self.favour and not self.avoid:
            return self.extra
        worded = bias(self.model, self.favour, self.avoid)
        return self.extra | {"logit_bias": self.extra.get("logit_bias", {}) | worded}

    @model_validator(mode="after")
    def asks_for_what_it_reads(self) -> "Annotator":
        """Refuse a weighted answer without log-probabilities."""
        form = self.answer.steps[0].form if self.answer.form == "pipeline" else self.answer.form
        if form == "weighted" and not self.top_logprobs:
            raise ValueError(f"{self.name} weighs tokens and asks for none; set top_logprobs to 5")
        return self

    @model_validator(mode="after")
    def is_all_in_turns(self) -> "Annotator":
        """Refuse templates for chat with text outside their turns."""
        for text in (self.prompt, self.prompt_with_input) if self.api == "chat" else ():
            if left := lost(text):
                raise ValueError(
                    f"a template of {self.name} has {left[:60]!r} outside its turns; put it "
                    "between <|im_start|>ROLE and <|im_end|>, a line for the role alone"
                )
        return self

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
    order: Literal["random", "fixed", "switched"] = Field(
        default="random", description="Which is shown first: by a draw, output_1, or output_2"
    )
    level: Literal["instruction", "pair"] = Field(
        default="instruction", description="What decides who judges: one judge a prompt, or a pair"
    )
    draws: Literal["ours", "alpaca_eval"] = Field(
        default="ours", description="Seeds of judge, order and noise: of the pair, or as theirs"
    )
    order_by: tuple[Literal["instruction", "output_1", "output_2"], ...] = Field(
        default=("instruction",), description="What seeds the order where draws are theirs"
    )
    ties: Literal["keep", "coin"] = Field(
        default="keep", description="A tie stays 1.5, or a coin makes it 1 or 2"
    )
    only: tuple[str, ...] = Field(
        default=(), description="Annotators whose rows are kept, () for all; draws stay the same"
    )

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
        if strange := sorted({*self.only} - {*names}):
            raise ValueError(f"panel {self.name} keeps only {', '.join(strange)}, whom it lacks")
        if len(endpoints := {annotator.endpoint for annotator in self.annotators}) > 1:
            raise ValueError(f"panel {self.name} asks {', '.join(sorted(endpoints))}; ask one")
        return self


def shipped() -> list[str]:
    """Names of the panels that come with the package."""
    return sorted(path.stem for path in PANELS.glob("*.yaml"))


def load(name_or_path: str | Path, flip: float | None = None, seed: int = 0) -> Panel:
    """Read a shipped panel by name, one's own by its YAML file, or an alpaca_eval folder by path.

    Templates are looked for beside the file first, then among the shipped ones; docs/judges.md has
    the format. Without a number for `flip` the file's holds.
    """
    path = _path(name_or_path)
    held = mapping(path)
    if "seed" in held:
        raise BadInput(f"{path}: takes no seed; the seed comes from the setup, take it out")
    is_theirs = evaluators.is_evaluator(held)
    held = evaluators.fields(path, held, _template) if is_theirs else fields(path, held, LAYOUT)
    held |= {"flip": held.get("flip", 0.0) if flip is None else flip, "seed": seed}
    try:
        return Panel.model_validate(held)
    except ValidationError as error:
        raise BadInput(f"{path}: {first(error)}") from None


def _path(name_or_path: str | Path) -> Path:
    path, own = Path(name_or_path), PANELS / f"{name_or_path}.yaml"
    if path.is_dir() and not own.is_file():
        path = path / evaluators.CONFIGS
    elif path.suffix not in (".yaml", ".yml"):
        path = own
    if not path.is_file():
        raise Missing(
            f"no panel {name_or_path}; shipped are {', '.join(shipped())}, or give the path of a "
            f".yaml file or of a folder with {evaluators.CONFIGS}"
        )
    return path


def _with_text(path: Path, annotator: dict[str, Any]) -> dict[str, Any]:
    texts = {
        field: template(path, str(annotator[field]))
        for field in ("prompt", "prompt_with_input")
        if field in annotator
    }
    return annotator | texts


LAYOUT = Layout("annotators", "annotator", _path, _with_text)


def _template(path: Path) -> str:
    if not is_file(path):
        raise Missing(f"no template {path}; it is looked for beside the folder of configs.yaml")
    return utf8(path)
