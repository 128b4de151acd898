"""Folders for unfinished files, each named by the machine and the process that fills it."""

import os
import shutil
import socket
import time
from pathlib import Path


def begun(drafts: Path) -> Path:
    """A new folder in `drafts`; those of dead processes of this machine are swept first."""
    for left in dead(drafts):
        shutil.rmtree(left, ignore_errors=True)
    folder = drafts / f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


def dead(drafts: Path) -> list[Path]:
    """What processes of this machine that are gone have left."""
    found = sorted(each for each in drafts.iterdir() if _is_ours(each))
    return [left for left in found if not _alive(int(left.name.split("-")[-2]))]


def elsewhere(drafts: Path) -> list[Path]:
    """What processes of other machines, or of containers, fill or have left."""
    return sorted(each for each in drafts.iterdir() if not _is_ours(each))


def _is_ours(draft: Path) -> bool:
    """Whether this machine, and not one whose name begins like its own, began it."""
    host, *numbers = draft.name.rsplit("-", 2)
    return host == socket.gethostname() and len(numbers) == 2 and numbers[0].isdigit()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
