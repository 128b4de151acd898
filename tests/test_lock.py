"""What moves a stage's digest and what does not, on a tree of five small files."""

from pathlib import Path

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.lock import LOCK, complaints, main, read, renewed, stages

FILES = {
    "tasks/work.py": '''
from alpacafarm_core import count as core
from alpacafarm_core.words import Words
from tasks.stage import stage

@stage(Table, version=1)
def tally(words: Words) -> int:
    """Count."""
    from alpacafarm_core.late import rounded
    return rounded(core.total(words))

@stage(Table, version=1)
def fit(rule: Rule) -> None:
    call("jobs.fit:fit", rule)

def stranger() -> None: ...
''',
    "alpacafarm_core/__init__.py": "",
    "alpacafarm_core/count.py": """
from alpacafarm_core.words import split, Rule
FACTOR = 2

def total(text):
    return FACTOR * len(split(text))

def unused():
    return 1
""",
    "alpacafarm_core/words.py": '''
class Words(str):
    """Text."""

def split(text):
    # at white space
    return text.split()

class Rule:
    weight = Field(default=1, description="How heavy")

    def loss(self):
        raise NotImplementedError
''',
    "alpacafarm_core/late.py": "def rounded(x):\n    return round(x)\n",
    "alpacafarm_core/jobs/fit.py": """
from alpacafarm_core.words import Rule

def fit(rule: Rule):
    return rule.loss()
""",
    "alpacafarm_core/own.py": """
from alpacafarm_core.words import Rule

class Own(Rule):
    def loss(self):
        return 1

    def other(self):
        return 2
""",
}


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """The files, locked, in the working folder."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["--write"]) == 0
    return tmp_path


def edit(tree: Path, name: str, old: str, new: str) -> None:
    """Replace text that is there."""
    path = tree / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def told(tree: Path) -> list[str]:
    """What the check complains about."""
    return complaints(stages(tree), read(tree))


def test_a_stage_reaches_definitions_not_whole_modules(tree):
    lock = read(tree)
    assert list(lock) == ["fit", "tally"]
    assert list(lock["tally"].files) == [
        "alpacafarm_core/count.py",
        "alpacafarm_core/late.py",
        "alpacafarm_core/words.py",
        "tasks/work.py",
    ]
    assert len((tree / LOCK).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("alpacafarm_core/words.py", "# at white space", "# anywhere"),
        ("alpacafarm_core/words.py", '"""Text."""', '"""A text."""'),
        ("alpacafarm_core/words.py", '"How heavy"', '"Its weight"'),
        ("alpacafarm_core/words.py", "text.split()", "(text\n        .split())"),
        ("alpacafarm_core/count.py", "return 1", "return 7"),
        ("alpacafarm_core/own.py", "return 2", "return 7"),
    ],
)
def test_what_changes_no_answer_moves_nothing(tree, name, old, new):
    edit(tree, name, old, new)
    assert told(tree) == []
    assert main(["--check"]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "stage"),
    [
        ("alpacafarm_core/words.py", "text.split()", "text.split(',')", "tally"),
        ("alpacafarm_core/count.py", "FACTOR = 2", "FACTOR = 3", "tally"),
        ("alpacafarm_core/count.py", "FACTOR = 2", "FACTOR = 2\nprint(1)", "tally"),
        ("alpacafarm_core/late.py", "round(x)", "int(x)", "tally"),
        ("alpacafarm_core/jobs/fit.py", "rule.loss()", "-rule.loss()", "fit"),
        ("alpacafarm_core/own.py", "return 1", "return 7", "fit"),
        ("tasks/work.py", "rounded(core", "-rounded(core", "tally"),
    ],
)
def test_what_may_change_an_answer_names_stage_and_file(tree, name, old, new, stage):
    edit(tree, name, old, new)
    (line,) = told(tree)
    assert line.startswith(f"{stage}: {name} moved and version is still 1")


def test_a_moved_stage_is_not_written_without_a_reason(tree, capsys):
    edit(tree, "alpacafarm_core/late.py", "round(x)", "int(x)")
    assert main(["--check"]) == 1
    assert main(["--write"]) == 1
    assert "late.py moved" in capsys.readouterr().err
    with pytest.raises(BadInput, match="raise it"):
        renewed(stages(tree), read(tree), "")


def test_an_acknowledgement_keeps_version_and_reason(tree):
    edit(tree, "alpacafarm_core/late.py", "round(x)", "round(x, 0)")
    assert main(["--acknowledge", "same numbers"]) == 0
    assert main(["--check"]) == 0
    assert main(["--write"]) == 0
    lock = read(tree)
    assert (lock["tally"].version, lock["tally"].reason) == (1, "same numbers")
    assert lock["fit"].reason == ""


def test_a_raised_version_must_be_written_once(tree):
    edit(tree, "alpacafarm_core/late.py", "round(x)", "int(x)")
    edit(tree, "tasks/work.py", "version=1)\ndef tally", "version=2)\ndef tally")
    assert "version 2 is not in stages.lock yet" in told(tree)[0]
    assert main(["--write"]) == 0
    assert told(tree) == []


def test_new_and_removed_stages_are_told(tree):
    edit(tree, "tasks/work.py", "def fit", "def refit")
    assert [line.split(";")[0] for line in told(tree)] == [
        "fit: in stages.lock but in no task",
        "refit: not in stages.lock",
    ]
