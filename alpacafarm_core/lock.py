"""stages.lock: a digest of the source each stage reaches, so that no version is forgotten.

`python -m alpacafarm_core.lock --check` fails when a stage's source moved and its version did not,
and names the files. Then either raise `version=` and `--write`, or say why answers are unchanged
with `--acknowledge "reason"`. Comments, docstrings, formatting and descriptions do not matter.
"""

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from alpacafarm_core.errors import BadInput, FarmError
from alpacafarm_core.reach import Symbol, Tree, normal, stage_version
from alpacafarm_core.values import Value

LOCK = "stages.lock"


class Locked(Value):
    """One line of the lock: a stage, its version and what it reaches."""

    stage: str
    version: int
    digest: str
    reason: str = ""
    files: dict[str, str]

    def moved(self, before: "Locked") -> list[str]:
        """Files whose reached source differs from `before`."""
        names = self.files.keys() | before.files.keys()
        return sorted(n for n in names if self.files.get(n) != before.files.get(n))


def stages(root: Path) -> dict[str, Locked]:
    """Every function in `tasks/` decorated with `@stage(..., version=N)`, as its source is now."""
    tree, found = Tree(root), {}
    for path in sorted((root / "tasks").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and (version := stage_version(node)):
                symbol = Symbol(f"tasks.{path.stem}", node.name)
                found[node.name] = _locked(tree, symbol, version)
    return dict(sorted(found.items()))


def read(root: Path) -> dict[str, Locked]:
    """The committed lock; empty when there is none."""
    path = root / LOCK
    lines = path.read_text().splitlines() if path.is_file() else []
    locked = [Locked.model_validate_json(line) for line in lines if line]
    return {line.stage: line for line in locked}


def complaints(now: Mapping[str, Locked], before: Mapping[str, Locked]) -> list[str]:
    """One line for each stage that differs from the lock, with the mend."""
    write = "run `python -m alpacafarm_core.lock --write` and commit stages.lock"
    lines = [f"{name}: in stages.lock but in no task; {write}" for name in before.keys() - now]
    for name, stage in now.items():
        if name not in before:
            lines.append(f"{name}: not in stages.lock; {write}")
        elif stage.version != before[name].version:
            lines.append(f"{name}: version {stage.version} is not in stages.lock yet; {write}")
        elif stage.digest != before[name].digest:
            lines.append(
                f"{name}: {', '.join(stage.moved(before[name]))} moved and version is still "
                f'{stage.version}; raise it, or run --acknowledge "why answers are unchanged"'
            )
    return sorted(lines)


def renewed(
    now: Mapping[str, Locked], before: Mapping[str, Locked], reason: str
) -> dict[str, Locked]:
    """The lock to commit; BadInput when source moved under one version and no reason is given."""
    lock = {}
    for name, stage in now.items():
        old = before.get(name)
        if old is None or old.version != stage.version:
            lock[name] = stage
        elif old.digest == stage.digest:
            lock[name] = stage.replace(reason=old.reason)
        elif reason:
            lock[name] = stage.replace(reason=reason)
        else:
            raise BadInput(complaints({name: stage}, {name: old})[0])
    return lock


def main(arguments: list[str] | None = None) -> int:
    """Check or write the lock of the checkout in the working folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m alpacafarm_core.lock", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare, the default")
    what.add_argument("--write", action="store_true", help="record new stages and versions")
    what.add_argument("--acknowledge", metavar="REASON", default="", help="record the same answers")
    given = parser.parse_args(arguments)
    root = Path.cwd()
    now, before = stages(root), read(root)
    if not given.write and not given.acknowledge:
        lines = complaints(now, before)
        print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")
        return 1 if lines else 0
    try:
        lock = renewed(now, before, given.acknowledge)
    except FarmError as error:
        print(error, file=sys.stderr)
        return 1
    lines = [json.dumps(stage.model_dump(), sort_keys=True) + "\n" for stage in lock.values()]
    (root / LOCK).write_text("".join(lines))
    return 0


def _locked(tree: Tree, start: Symbol, version: int) -> Locked:
    parts: dict[str, set[str]] = {}
    for symbol, statements in tree.reach(start).items():
        source = tree.source(symbol.module)
        if source:
            texts = parts.setdefault(source.path.relative_to(tree.root).as_posix(), set())
            texts.update(normal(node) for node in [*statements, *source.effects])
    files = {name: _digest(sorted(texts), 8) for name, texts in sorted(parts.items())}
    digest = _digest([f"{name} {value}" for name, value in files.items()], 16)
    return Locked(stage=start.name, version=version, digest=digest, files=files)


def _digest(texts: list[str], length: int) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:length]


if __name__ == "__main__":
    sys.exit(main())
