"""Storage in memory, with a clock that tests turn."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alpacafarm_core.objects import Held, Listing


class Shelf:
    """Objects that are remembered, and what was asked of them."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.kept: dict[str, tuple[bytes, datetime]] = {}
        self.asked: list[str] = []

    def later(self, seconds: float) -> None:
        """Turn the clock."""
        self.now += timedelta(seconds=seconds)

    def read(self, name: str) -> tuple[bytes, str] | None:
        self.asked.append(f"read {name}")
        held = self.kept.get(name)
        return None if held is None else (held[0], hashlib.md5(held[0]).hexdigest())

    def fetch(self, name: str, file: Path) -> bool:
        self.asked.append(f"fetch {name}")
        if name in self.kept:
            file.write_bytes(self.kept[name][0])
        return name in self.kept

    def lay(self, name: str, content: bytes | Path) -> None:
        held = content.read_bytes() if isinstance(content, Path) else content
        self.kept[name] = (held, self.now)

    def lay_new(self, name: str, content: bytes) -> bool:
        if name not in self.kept:
            self.lay(name, content)
        return self.kept[name][0] == content

    def drop(self, name: str) -> None:
        self.kept.pop(name, None)

    def listing(self, prefix: str) -> Listing:
        held = [
            Held(name, len(content), laid, hashlib.md5(content).hexdigest())
            for name, (content, laid) in sorted(self.kept.items())
            if name.startswith(prefix)
        ]
        return Listing(held, self.now)

    def names(self, prefix: str) -> list[str]:
        """What is on it below a prefix."""
        return [each.name for each in self.listing(prefix).held]
