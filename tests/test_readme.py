"""The README's tree is the tree, and its commands parse."""

import ast
import re
import shlex
from pathlib import Path

import typer.main

from flows.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


FOLDED = {
    "alpacafarm_core/methods",
    "alpacafarm_core/world/answering",
    "alpacafarm_core/world/asking",
}


def described() -> list[str]:
    """One line a module, its path and what it is; a folded folder is one line."""
    lines = []
    for top in ("flows", "tasks", "alpacafarm_core"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            folder, _, file = name.rpartition("/")
            if file == "__init__.py":
                if folder not in FOLDED:
                    continue
                name = folder + "/"
            elif folder in FOLDED:
                continue
            lines.append(f"{name:40} {purpose(path)}".rstrip())
    return lines


def purpose(path: Path) -> str:
    """The first clause of a module's docstring, without its own name in front."""
    said = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    first = re.split(r"(?<=[.;])\s", said, maxsplit=1)[0].rstrip(".;")
    return re.sub(r"^[A-Z][A-Za-z]+: ", "", first)


def test_the_tree_in_the_readme_is_the_tree():
    tree = README.split("## The tree")[1].split("```")[1].strip("\n").splitlines()
    assert tree == described(), "\n".join(["write this into README.md:", *described()])


def test_every_command_in_the_readme_exists():
    words = re.findall(r"^\$ alpacafarm (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    commands = typer.main.get_command(app).commands
    assert len(words) > 5
    for line in words:
        assert shlex.split(line.rstrip("\\"))[0] in commands, line


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
