"""Value: the base of everything that is passed around."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """Frozen, comparable, JSON in and out; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    def replace(self, **changes: Any) -> Self:
        """Copy with some fields changed, checked like a new one."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(fields | changes))

    def seeded(self, seed: int) -> Self:
        """Copy in which every `seed`, at any depth, is `seed`."""
        changes: dict[str, Any] = {}
        for name in type(self).model_fields:
            held = getattr(self, name)
            if name == "seed":
                changes[name] = seed
            elif isinstance(held, Value):
                changes[name] = held.seeded(seed)
        return self.replace(**changes)
