"""Assessors: judges that rate, criticise or tag, with the sheets they fill in.

A panel of them is a file as a panel of annotators is one: models by name, another panel to be based
on, templates beside it (docs/judges.md). It holds the text of its templates, so whatever is keyed
by it is keyed by what reaches the judge. Shipped ones lie in `panels/assessors/*.yaml`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from alpacafarm_core.asked import Asked
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.panel_files import PANELS, Layout, fields, first, mapping, template
from alpacafarm_core.ratings import ASPECTS
from alpacafarm_core.sheets import BLANKS, Form
from alpacafarm_core.templates import PLACES, lost, named_places
from alpacafarm_core.values import Value

FOLDER = PANELS / "assessors"
TAGS = ("difficulty", "quality", "task", "safety")
NO_KNOWLEDGE = "None is given."

Purpose = Literal["rating", "critique", "tagging"]
SHEETS: dict[Purpose, tuple[str, ...]] = {
    "rating": ASPECTS,
    "critique": ("critique", "repair"),
    "tagging": TAGS,
}
"""The sheets that each purpose has a use for."""

_SHOWN: dict[str, set[str]] = {
    **{aspect: {"instruction", "outputs"} for aspect in ASPECTS},
    "critique": {"instruction", "output"},
    "repair": {"instruction", "output", "critique"},
    **{tag: {"instruction"} for tag in TAGS},
    "safety": {"instruction", "output"},
}
_MAY_SHOW: dict[str, set[str]] = {
    **{aspect: {"knowledge"} for aspect in ASPECTS},
    "critique": {"principle"},
    "repair": {"principle"},
}


class Sheet(Value):
    """One question to a judge: what it is shown, and the form in which it answers."""

    prompt: str = Field(description="Template, with its places")
    form: Form = Field(default="labelled", description="Labels, JSON, or the bare value")
    block: str = Field(
        default="### Answer {number}\n{output}", description="How one of several answers is shown"
    )
    max_tokens: int = Field(default=500, ge=1, description="Longest answer, in tokens")
    extra: dict[str, Any] = Field(default={}, description="Further fields of the request's body")
    usual_tokens: int | None = Field(
        default=None, ge=1, exclude=True, description="Tokens of a usual answer about one"
    )

    @model_validator(mode="after")
    def shows_one_by_one(self) -> "Sheet":
        """Refuse a block that leaves out the number or the answer."""
        if sorted(PLACES.findall(self.block)) != ["number", "output"]:
            raise ValueError(f"block {self.block!r} does not show {{number}} and {{output}} once")
        return self


class Assessor(Asked):
    """One simulated rater, critic or tagger: a model and its sheets by name."""

    sheets: dict[str, Sheet] = Field(min_length=1, description="What it is asked, by sheet")

    @model_validator(mode="after")
    def shows_what_is_judged(self) -> "Assessor":
        """Refuse unknown sheets, and templates that do not show what they are about once."""
        for name, sheet in self.sheets.items():
            if name not in BLANKS:
                raise ValueError(f"sheet {name!r} of {self.name} is none of {', '.join(BLANKS)}")
            if sheet.form == "bare" and len(BLANKS[name]) > 1:
                raise ValueError(f"sheet {name} of {self.name} has several blanks; choose labelled")
            if self.api == "chat" and (left := lost(sheet.prompt)):
                raise ValueError(
                    f"a template of {self.name} has {left[:60]!r} outside its turns; put it "
                    "between <|im_start|>ROLE and <|im_end|>, a line for the role alone"
                )
            _refuse_places(self.name, name, named_places(sheet.prompt))
        return self


def _refuse_places(judge: str, sheet: str, found: Sequence[str]) -> None:
    wanted, allowed = _SHOWN[sheet], _SHOWN[sheet] | _MAY_SHOW.get(sheet, set())
    if len(set(found)) < len(found) or not wanted <= set(found) <= allowed:
        may = ", ".join(f"{{{place}}}" for place in sorted(allowed - wanted))
        raise ValueError(
            f"the template of {sheet} of {judge} must show "
            f"{', '.join(f'{{{place}}}' for place in sorted(wanted))} once"
            f"{f' and may show {may}' if may else ''}; it shows "
            f"{', '.join(f'{{{place}}}' for place in found) or 'nothing'}"
        )


class Assessors(Value):
    """A pool of assessors, one drawn for each prompt, so that one judge sees all its answers.

    An answer that breaks its form is asked for again, up to `retries` times, with another seed.
    `knowledge` is what is known of the prompts of a dataset, for sheets that show it.
    """

    name: str = Field(description="Name of the panel")
    assessors: tuple[Assessor, ...] = Field(min_length=1, description="Who may be drawn")
    seed: int = Field(default=0, ge=0, description="Seed of draws and answers")
    order: Literal["random", "fixed"] = Field(
        default="random", description="Order of the answers shown: drawn, or as given"
    )
    retries: int = Field(default=10, ge=0, le=100, description="Asked again for broken answers")
    knowledge: dict[str, str] = Field(default={}, description="What is known, by dataset")

    @property
    def endpoint(self) -> str:
        """Where all of them are asked."""
        return self.assessors[0].endpoint

    @property
    def sheets(self) -> tuple[str, ...]:
        """The sheets that all of them have, in the order of `BLANKS`."""
        return tuple(name for name in BLANKS if name in self.assessors[0].sheets)

    def but(self, *names: str) -> "Assessors":
        """The same pool with these sheets alone; raises BadInput where it has none of them."""
        if not (kept := [name for name in names if name in self.sheets]):
            raise BadInput(f"panel {self.name} has no sheet {' or '.join(names)}; add one")
        pool = (
            each.replace(sheets={name: each.sheets[name] for name in kept})
            for each in self.assessors
        )
        return self.replace(assessors=tuple(pool))

    @model_validator(mode="after")
    def is_one_pool(self) -> "Assessors":
        """Refuse names that stand twice, two endpoints, and sheets that only some have."""
        names = [each.name for each in self.assessors]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"panel {self.name} has several assessors named {', '.join(twice)}")
        if len(endpoints := {each.endpoint for each in self.assessors}) > 1:
            raise ValueError(f"panel {self.name} asks {', '.join(sorted(endpoints))}; ask one")
        for each in self.assessors:
            if odd := sorted({*each.sheets} ^ {*self.sheets}):
                raise ValueError(f"panel {self.name}: only some assessors have {', '.join(odd)}")
        return self


def shipped() -> list[str]:
    """Names of the panels of assessors that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name_or_path: str | Path, purpose: Purpose, seed: int = 0) -> Assessors:
    """Read a shipped panel by name or one's own by its YAML file, with the sheets of a purpose."""
    path = _path(name_or_path)
    held = mapping(path, "assessors")
    if "seed" in held:
        raise BadInput(f"{path}: takes no seed; the seed comes from the setup, take it out")
    held = fields(path, held, _LAYOUT) | {"seed": seed}
    try:
        return Assessors.model_validate(held).but(*SHEETS[purpose])
    except ValidationError as error:
        raise BadInput(f"{path}: {first(error)}") from None


def _path(name_or_path: str | Path) -> Path:
    path, own = Path(name_or_path), FOLDER / f"{name_or_path}.yaml"
    if path.suffix not in (".yaml", ".yml"):
        path = own
    if not path.is_file():
        raise Missing(
            f"no panel of assessors {name_or_path}; shipped are {', '.join(shipped())}, or give "
            "the path of a .yaml file"
        )
    return path


def _with_text(path: Path, assessor: dict[str, Any]) -> dict[str, Any]:
    sheets = assessor.get("sheets")
    if not isinstance(sheets, dict) or not all(isinstance(each, dict) for each in sheets.values()):
        raise BadInput(f"{path}: sheets of an assessor are no mapping of a name to its fields")
    filled = {
        name: sheet | {"prompt": template(path, str(sheet["prompt"]))}
        for name, sheet in sheets.items()
        if "prompt" in sheet
    }
    return assessor | {"sheets": sheets | filled}


_LAYOUT = Layout("assessors", "assessor", _path, _with_text)
