"""Value: the base of everything that is passed around."""

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)


def in_words(schema: dict[str, Any]) -> None:
    """Give every field of a form its name, and say bounds of real numbers in the description.

    Without a title a form shows the class of what a field holds, or nothing.
    """
    for name, field in schema.get("properties", {}).items():
        field.setdefault("title", name.replace("_", " ").title())
        _bounds_in_words(field)


def _bounds_in_words(field: dict[str, Any]) -> None:
    """Say the bounds of a real number in its field's description instead of as bounds.

    A browser lets a number field with a minimum take whole steps from it only, so a form with
    `minimum: 0` refuses 0.25. What holds the number still refuses what is out of bounds.
    """
    numbers = (each for each in field.get("anyOf", [field]) if each.get("type") == "number")
    for number in numbers:
        low, high = number.pop("minimum", None), number.pop("maximum", None)
        above, below = number.get("exclusiveMinimum"), number.get("exclusiveMaximum")
        said = [f"from {low:g}"] if low is not None else []
        said += [f"above {above:g}"] if above is not None else []
        said += [f"up to {high:g}"] if high is not None else []
        said += [f"below {below:g}"] if below is not None else []
        if said:
            field["description"] = f"{field.get('description', '')} ({' '.join(said)})".strip()


Amount = Annotated[float, Field(ge=0), WithJsonSchema({"type": "number"})]
"""A number from 0, a parameter of a flow: its bound is not in the form, as with those of fields."""


class Value(BaseModel):
    """Frozen, comparable, JSON in and out; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        json_schema_extra=in_words,
    )

    def replace(self, **changes: Any) -> Self:
        """Copy with some fields changed, checked like a new one."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(fields | changes))

    def seeded(self, seed: int) -> Self:
        """Copy in which every `seed` left at its default, at any depth, is `seed`."""
        changes: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            held = getattr(self, name)
            if name == "seed" and held == field.default:
                changes[name] = seed
            elif isinstance(held, Value):
                changes[name] = held.seeded(seed)
            elif isinstance(held, tuple):
                changes[name] = tuple(
                    each.seeded(seed) if isinstance(each, Value) else each for each in held
                )
        return self.replace(**changes)


class Later:
    """Marks a field of `Grown` settings, or an argument of a stage, that came after keys were made.

    Left at its default it is not said, so that keys from before it stay valid. Its default must
    therefore never change, and mean what was done before there was a choice.
    """


LATER = Later()


class Grown(Value):
    """Settings that got fields later: `field: Annotated[Kind, LATER] = Field(default=...)`."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = fields(self)
        later = {
            name
            for name, field in type(self).model_fields.items()
            if LATER in field.metadata and getattr(self, name) == field.get_default()
        }
        return {name: held for name, held in said.items() if name not in later}
