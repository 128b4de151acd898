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
    here = socket.gethostname()
    return [
        left
        for left in sorted(drafts.glob(f"{here}-*"))
        if not _alive(int(left.name.split("-")[-2]))
    ]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
