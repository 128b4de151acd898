"""Setup: the world of an experiment, and where its instructions and labels come from.

`Setup.scale` is the one dial: it fixes the number of rows, the length of answers and, through each
method's `at`, the steps, together.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from alpacafarm_core.errors import Damaged, Missing
from alpacafarm_core.panel import shipped
from alpacafarm_core.recipe import file_digest
from alpacafarm_core.settings import Scale
from alpacafarm_core.values import Value, in_words

Split = Literal["sft", "preference", "unlabeled", "val", "eval"]


class Sizes(Value):
    """Rows of each split, the longest answer in tokens, and the temperature of pairs.

    AlpacaFarm draws pairs at temperature 1; the tiny model of the world loses its thread there.
    """

    sft: int
    preference: int
    unlabeled: int
    val: int
    eval: int
    max_tokens: int
    temperature: float


SIZES: dict[str, Sizes] = {
    "smoke": Sizes(sft=96, preference=96, unlabeled=64, val=16, eval=32, max_tokens=24,
                   temperature=0.7),
    "small": Sizes(sft=2000, preference=4000, unlabeled=4000, val=400, eval=805, max_tokens=72,
                   temperature=0.7),
    "paper": Sizes(sft=10_000, preference=10_000, unlabeled=20_000, val=2_000, eval=805,
                   max_tokens=300, temperature=1.0),
}  # fmt: skip


def _panels(schema: dict[str, Any]) -> None:
    """A form offers the shipped panels, and a place for the path of another."""
    own = {"type": schema.pop("type"), "title": "Path"}
    schema["anyOf"] = [own | {"title": "Shipped", "enum": shipped()}, own]


PanelName = Annotated[str, Field(json_schema_extra=_panels)]
"""A panel that is shipped, by name, or one's own, by the path of its file or folder."""


def _path_alone(schema: dict[str, Any]) -> None:
    """A form asks for the path; the digest is taken of what lies there."""
    in_words(schema)
    schema["required"] = ["path"]


class File(Value):
    """A file of the user's; its content is part of the key, its path is not."""

    model_config = ConfigDict(json_schema_extra=_path_alone)

    path: Path = Field(exclude=True, description="Where it lies, seen by the worker")
    digest: str = Field(description="SHA-256 of its content; none: as found")

    @model_validator(mode="before")
    @classmethod
    def _pin(cls, given: Any) -> Any:
        """Accept a bare path and take the digest of what lies there."""
        path = given.get("path") if isinstance(given, dict) else given
        if path is None or (isinstance(given, dict) and given.get("digest")):
            return given
        if not Path(path).is_file():
            raise Missing(f"no file {path}; give the path of an existing file")
        return {"path": path, "digest": file_digest(Path(path))}

    def checked(self) -> Path:
        """Its path; raises Damaged when the content there is no longer the one that was pinned."""
        if not self.path.is_file() or file_digest(self.path) != self.digest:
            raise Damaged(
                f"{self.path} changed since it was named; run again to use what it is now"
            )
        return self.path


class Pretrained(Value):
    """A language model to start from; its content is part of the key, its name is not."""

    name: str = Field(exclude=True, description="Model folder, hub name, or world")
    digest: str = Field(description="SHA-256 of its files")


class World(Value):
    """The built-in world, whose truth is known."""

    name: Literal["world"] = "world"
    seed: int = Field(default=0, ge=0, description="Seed of the world's instructions")


class Files(Value):
    """Instructions, demonstrations and recorded labels from files of the user's.

    Instructions are divided into splits by a hash of their text, so that an evaluation row is never
    trained on, whichever file it appears in.
    """

    name: Literal["files"] = "files"
    instructions: File = Field(description="Prompts, with the reference's outputs")
    demonstrations: File = Field(description="Prompts with answers to imitate")
    preferences: File | None = Field(default=None, description="Recorded labels of pairs")
    interactions: File | None = Field(default=None, description="Answers with users' words")
    reference: str = Field(default="davinci003", description="Column with the reference's outputs")
    share_eval: float = Field(default=0.5, gt=0, lt=1, description="Share kept for evaluation")

    @model_serializer(mode="wrap")
    def _plain(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `interactions` where there are none: keys from before there were stay valid."""
        said: dict[str, Any] = fields(self)
        held = said.items()
        return {name: value for name, value in held if name != "interactions" or value is not None}


class Hub(Value):
    """AlpacaFarm's own dataset on the hub, raw files at a pinned revision."""

    name: Literal["hub"] = "hub"
    revision: str = Field(default="main", description="Commit, tag or branch; keys hold its commit")
    preferences: Literal["human", "gpt4", "noisy_multi", "simulate"] = Field(
        default="simulate", description="Recorded labels, or simulate them"
    )


Source = Annotated[World | Files | Hub, Field(discriminator="name")]


class Setup(Value):
    """Everything an experiment begins from."""

    scale: Scale = Field(default="small", description="Rows and steps, together")
    seed: int = Field(default=0, ge=0, description="Seed of sampling, labels and training")
    source: Source = Field(default=World(), description="Where instructions come from")
    base: str = Field(default="world", description="Model folder, hub name, or world")
    panel: PanelName = Field(default="world", description="Who labels training pairs")
    flip: float = Field(default=0.25, ge=0, le=0.5, description="Share of labels turned round")
    judges: PanelName = Field(default="world", description="Who judges against the reference")

    @property
    def sizes(self) -> Sizes:
        """Rows and lengths at this scale."""
        return SIZES[self.scale]

    @property
    def recorded(self) -> bool:
        """Whether labels come from a record instead of the panel."""
        match self.source:
            case Files(preferences=File()):
                return True
            case Hub(preferences=which):
                return which != "simulate"
        return False
