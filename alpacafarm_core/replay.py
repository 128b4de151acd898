"""Bundles: a board with all that it stands on, from which anybody computes it again offline.

A bundle holds the tables a board was made from, the panels that judged, and the transcript of every
call to a judge: the request, rendered again from panel and rows, and the answer of the ledger. To
replay it is to fill an empty ledger with those answers, to judge the same pairs with nobody to ask,
to tally, and to hold every row against the recorded one. It shows that the board follows from the
answers; that a model gave them, nobody but its provider can show.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
import yaml
from pydantic import Field, ValidationError

from alpacafarm_core import tally
from alpacafarm_core.annotate import judge, outstanding, pair
from alpacafarm_core.artifacts import Candidates, Leaderboard, Preferences, Table
from alpacafarm_core.buying import Row
from alpacafarm_core.difference import differing
from alpacafarm_core.errors import BadInput, Missing, StoreNotWritable
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.ledger import Call, Ledger, Purchase, call_key, digest
from alpacafarm_core.lineage import ancestry, receipt
from alpacafarm_core.llm import Request, nobody
from alpacafarm_core.panel import Panel, load
from alpacafarm_core.store import MANIFEST, Manifest, Store
from alpacafarm_core.values import Value

CONTENTS, STORE, TRANSCRIPTS, PANELS = "bundle.json", "store", "transcripts.jsonl", "panels"
TOLERANCE = 1e-9  # share of a number; sums of another machine differ in their last digits
UNLIKE = f"{TRANSCRIPTS}: requests that are not those which panels and rows make"
SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
SHORTEST_SECRET = 16  # keys of local servers are words, such as EMPTY


class Transcript(Value):
    """One call to a judge; `answer` has the fields of a `Call`.

    `rows` are the keys of the pairs in the order in which they were shown, "" for one that is in no
    table of the bundle; then there is no request, as its text is not known here.
    """

    request: Request | None
    answer: dict[str, str | int | float] = Field(description="As the ledger holds it")
    rows: tuple[str, ...]

    @property
    def call(self) -> Call:
        return Call(**self.answer)  # type: ignore[arg-type]


class Contents(Value):
    """What a bundle says of itself: its board, the panel of each table of labels, calls."""

    board: str
    panels: dict[str, str]
    seeds: dict[str, int]
    calls: int


class Judging(NamedTuple):
    """Labels that a panel gave: their receipt, the pairs, the panel."""

    labels: Preferences
    pairs: pl.DataFrame
    panel: Panel


class Replay(NamedTuple):
    """A board computed again, rows judged again, calls used, and each difference in words.

    `as_recorded` are tables that were not computed again: labels that no panel gave, true scores.
    """

    key: str
    board: pl.DataFrame
    judged: int
    calls: int
    as_recorded: list[str]
    differences: list[str]


def bundle(store: Store, ledger: Ledger, board: Leaderboard, out: Path) -> Contents:
    """Fill an empty folder with a bundle of a board.

    Raises BadInput where an answer is not in the ledger, the board was not tallied here, or a
    secret of the environment stands in a file.
    """
    _evaluations(store, board)
    judgings = judgings_of(store, board)
    calls = transcripts(judgings, ledger)
    for manifest in ancestry(store, board):
        _copy(store, manifest, out / STORE)
    text = "".join(f"{call.model_dump_json()}\n" for call in calls)
    (out / TRANSCRIPTS).write_text(text, encoding="utf-8")
    contents = Contents(
        board=board.folder,
        panels={each.labels.folder: _lay_panel(each.panel, out / PANELS) for each in judgings},
        seeds={each.labels.folder: each.panel.seed for each in judgings},
        calls=len(calls),
    )
    (out / CONTENTS).write_text(contents.model_dump_json(indent=1) + "\n")
    (out / "README.md").write_text(_told(contents, judgings), encoding="utf-8")
    _refuse_secrets(out)
    return contents


def replayed(folder: Path) -> Replay:
    """Compute the board of a bundle again, with no network and nobody to ask.

    Raises Missing or BadInput where it is no bundle or a file of it is damaged.
    """
    contents = _contents(folder)
    lines = _read_transcripts(folder / TRANSCRIPTS)
    with TemporaryDirectory() as scratch, _named(folder, scratch):
        shutil.copytree(folder / STORE, Path(scratch, STORE))
        store, ledger = Store(Path(scratch, STORE)), Ledger(Path(scratch, TRANSCRIPTS))
        ledger.append([Purchase(line.call, line.rows) for line in lines])
        board = Leaderboard(key=contents.board.rpartition("/")[2])
        odd = _odd(folder, contents, judgings_of(store, board), len(lines))
        found = _replayed(store, ledger, board, lines)
        ledger.close()
    return found._replace(differences=[*odd, *found.differences])


@contextmanager
def _named(folder: Path, scratch: str) -> Iterator[None]:
    """Errors about the copy of a bundle as ones about the bundle, which another copy mends."""
    try:
        yield
    except StoreNotWritable:
        raise  # the disk of the copy
    except BadInput as error:
        what = str(error).replace(scratch, str(folder)).partition("; ")[0]
        raise type(error)(f"{what}; copy the bundle again") from error
    except (OSError, KeyError, ValidationError) as error:
        raise BadInput(f"{folder / STORE}: not as a farm has it; copy the bundle again") from error


def _odd(folder: Path, said: Contents, made: Sequence[Judging], calls: int) -> list[str]:
    """In words where a bundle says of itself what its tables and transcripts do not."""
    judged = {each.labels.folder: each.panel for each in made}
    seeds = {labels: panel.seed for labels, panel in judged.items()}
    if (said.calls, said.seeds, {*said.panels}) != (calls, seeds, {*judged}):
        return [f"{CONTENTS}: calls, seeds or panels are not those of the tables and transcripts"]
    return [
        f"{file}: not the panel that gave {labels}"
        for labels, file in said.panels.items()
        if load(folder / file, seed=seeds[labels]) != judged[labels]
    ]


def judgings_of(store: Store, board: Leaderboard) -> list[Judging]:
    """Everything below a board that a panel judged; raises Missing where its pairs are gone."""
    made = [each for each in ancestry(store, board) if each.recipe.stage == "annotate"]
    return [_judging(store, manifest) for manifest in made]


def transcripts(judgings: Sequence[Judging], ledger: Ledger) -> list[Transcript]:
    """Every call about a row of these, requests rendered from the rows; raises BadInput."""
    with TemporaryDirectory() as nowhere:
        empty = Ledger(Path(nowhere, "empty.sqlite"))
        rows = {
            row.key: row
            for each in judgings
            for batch in outstanding(each.pairs, each.panel, empty)
            for row in batch.rows
        }
        empty.close()
    held = ledger.known(rows)
    if lacking := len(rows) - len(held):
        raise BadInput(
            f"{lacking} of {len(rows)} answers are not in {ledger.name}; make the bundle where the "
            "judging ran, or run it again"
        )
    calls, shown = dict[str, Call](), defaultdict[str, dict[int, str]](dict)
    for key, record in held.items():
        for each in (record, *record.before):
            calls[each.call.key] = each.call
            shown[each.call.key][each.position] = key
    return [_transcript(calls[key], shown[key], rows) for key in sorted(calls)]


def _judging(store: Store, manifest: Manifest) -> Judging:
    (mine,), (others,) = (manifest.recipe.inputs[name] for name in ("candidates", "rivals"))
    sides = (store.read(Candidates(key=receipt(folder).key)) for folder in (mine, others))
    panel = Panel.model_validate(manifest.recipe.settings["panel"])
    return Judging(Preferences(key=manifest.key), pair(*sides), panel)


def _transcript(call: Call, shown: Mapping[int, str], rows: Mapping[str, Row]) -> Transcript:
    keys = tuple(shown.get(position, "") for position in range(call.size))
    request = None
    if all(keys):
        rendered = rows[keys[0]].desk.request([rows[key].example for key in keys])
        request = rendered if call_key(rendered) == call.key else None
    return Transcript(request=request, answer=call._asdict(), rows=keys)


def _evaluations(store: Store, board: Leaderboard) -> dict[str, Evaluation]:
    """What each model on a board is tallied from."""
    recipe = store.manifest(board).recipe
    if recipe.stage != "tally":
        raise BadInput(
            f"{board.folder} came from {recipe.stage!r} and rests on no labels; bundle a board "
            "that was tallied here"
        )
    given = recipe.settings["evaluations"]
    return {model: Evaluation.model_validate(each) for model, each in given.items()}


def _copy(store: Store, manifest: Manifest, out: Path) -> None:
    """A table with its files, weights as their manifest alone."""
    source, target = store.path(manifest.artifact), out / manifest.artifact.folder
    target.mkdir(parents=True)
    if isinstance(manifest.artifact, Table):
        store.read(manifest.artifact)  # refuses what is damaged
        for name in manifest.files:
            shutil.copyfile(source / name, target / name)
    shutil.copyfile(source / MANIFEST, target / MANIFEST)


def _lay_panel(panel: Panel, folder: Path) -> str:
    """Write a panel as `panel.load` reads it, each template in a file named by its digest."""
    held = panel.model_dump(mode="json", exclude={"seed"})
    own = folder / f"{panel.name}-{digest(json.dumps(held))[:8]}".replace("/", "-")
    own.mkdir(parents=True, exist_ok=True)
    for annotator in held["annotators"]:
        for field in ("prompt", "prompt_with_input"):
            name = f"{digest(annotator[field])[:16]}.txt"
            (own / name).write_text(annotator[field], encoding="utf-8", newline="")
            annotator[field] = name
    text = yaml.safe_dump(held, sort_keys=False, allow_unicode=True)
    (own / "panel.yaml").write_text(text, encoding="utf-8")
    return f"{PANELS}/{own.name}/panel.yaml"


def _contents(folder: Path) -> Contents:
    try:
        contents = Contents.model_validate_json((folder / CONTENTS).read_bytes())
        Leaderboard(key=contents.board.removeprefix("leaderboard/"))
    except OSError as error:
        raise Missing(
            f"no bundle in {folder} (no {CONTENTS}); make one with "
            "`alpacafarm export BOARD_KEY --as bundle --out FOLDER`"
        ) from error
    except ValidationError as error:
        raise BadInput(f"{folder / CONTENTS}: not what a bundle says; copy it again") from error
    return contents


def _read_transcripts(path: Path) -> list[Transcript]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); copy the bundle again") from error
    return [_line(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line]


def _line(text: str, place: str) -> Transcript:
    try:
        line = Transcript.model_validate_json(text)
        call = line.call
        if line.request is not None and call_key(line.request) != call.key:
            raise ValueError("its request is not the one that was answered")
    except (ValueError, TypeError) as error:
        why = "not a transcript" if isinstance(error, ValidationError | TypeError) else str(error)
        raise BadInput(f"{place}: {why}; copy the bundle again") from error
    return line


def _replayed(
    store: Store, ledger: Ledger, board: Leaderboard, lines: Sequence[Transcript]
) -> Replay:
    judgings = judgings_of(store, board)
    differences = [] if transcripts(judgings, ledger) == list(lines) else [UNLIKE]
    again: dict[str, pl.DataFrame] = {}
    for each in judgings:
        again[each.labels.key] = judge(each.pairs, each.panel, nobody, ledger).preferences
        differences += _told_apart(store, each.labels, again[each.labels.key])
    evaluations = _evaluations(store, board)
    entries = {
        model: (
            again.get(one.preferences.key, store.read(one.preferences)),
            None if one.truth is None else store.read(one.truth),
        )
        for model, one in evaluations.items()
    }
    rows = tally.board(entries)
    stands_on = [table for one in evaluations.values() for table in (one.preferences, one.truth)]
    return Replay(
        board.key,
        rows,
        sum(labels.height for labels in again.values()),
        len(lines),
        [each.folder for each in stands_on if each is not None and each.key not in again],
        [*differences, *_told_apart(store, board, rows)],
    )


def _told_apart(store: Store, recorded: Table, now: pl.DataFrame) -> list[str]:
    """In words how recomputed rows differ from the recorded ones: the first, and how many."""
    found = differing(store.read(recorded), now, TOLERANCE)
    sorts = (("changed", found.changed), ("missing", found.removed), ("new", found.added))
    rows = [f"{sort}: {json.dumps(row, default=str)[:200]}" for sort, some in sorts for row in some]
    return [f"{recorded.folder}: {len(rows)} rows differ, first {rows[0]}"] if rows else []


def _refuse_secrets(folder: Path) -> None:
    """Refuse a bundle in which the value of an environment variable for secrets stands."""
    names = [n for n, v in os.environ.items() if n.endswith(SECRETS) and len(v) >= SHORTEST_SECRET]
    for file in sorted(folder.rglob("*")) if names else ():
        content = file.read_bytes() if file.is_file() else b""
        for name in (name for name in names if os.environ[name].encode() in content):
            where = f"{name} stands in {file.relative_to(folder)}"
            raise BadInput(f"the value of {where}; take it out of the panel or the rows")


def _told(contents: Contents, judgings: Sequence[Judging]) -> str:
    labels = "\n".join(
        f"| `{each.labels.folder}` | {each.pairs.height} | `{contents.panels[each.labels.folder]}` "
        f"| {each.panel.seed} |"
        for each in judgings
    )
    return f"""# {contents.board}, with all that it stands on

    alpacafarm replay .

computes it again from the answers recorded here, with no network and no key, and holds every row
against the recorded one.

- `store/`: the tables as Parquet, each with the manifest that says how it was made. Of weights
  there is the manifest alone. `alpacafarm lineage KEY --store store` walks them.
- `transcripts.jsonl`: {contents.calls} calls to judges, a line each: request, answer, and the keys
  of the rows it is about.
- `panels/`: who judged, as files for `alpacafarm annotate --panel`, templates beside them.

| labels | pairs | panel | seed |
|---|---|---|---|
{labels}
"""
