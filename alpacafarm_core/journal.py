"""The journal of a store: one line for each stage that ran or was skipped on this machine."""

import json
from pathlib import Path
from typing import Any


def note(file: Path, event: dict[str, Any]) -> None:
    """Append one event."""
    # The newline before parts it from a line that a kill cut off.
    line = f"\n{json.dumps(event, sort_keys=True)}\n"
    with file.open("a") as journal:
        journal.write(line)


def events(file: Path) -> list[dict[str, Any]]:
    """Every event, oldest first; a line cut off by a kill is left out."""
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
