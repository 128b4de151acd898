"""New data: which rows are new, what goes on from them, and who is told of a file."""

import json
import os
from queue import Queue

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacafarm_core import landing, watched
from alpacafarm_core.arrivals import Incoming, Way, fresh, read, refuse_name, unjudged
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.setup import Setup, World
from alpacafarm_core.sources import instructions
from flows import watching
from flows.arrivals import learned, taken_in
from flows.furthering import refuse_unfit
from flows.watching import Eye, all_watched
from tests.paper_farm import START, PaperFarm
from tests.shelf import Shelf
from tests.test_cli import complaint, typed

WORLD = World()
SETUP = Setup(scale="smoke")
WAY = Way(dataset="mine", how="again", method=DPO.at("smoke"), setup=SETUP)
FURTHER = {
    *("apo", "bco", "cdpo", "cpo", "curry_dpo", "dpo", "expert_iteration", "feedme", "grpo", "ipo"),
    *("iterative_dpo", "kto", "nca", "par", "ppo", "quark", "reinforce_pp", "rloo", "rlp"),
    *("robust_dpo", "rpo", "rso", "salsa", "selfie", "simpo", "slic", "sppo", "ultrafeedback"),
}
UNTAUGHT = {"drift", "sft", "spin"}


def laid(folder, name, rows):
    """A file of rows, whole and settled long ago."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    os.utime(file, (1e9, 1e9))
    return file


def pair(prompt, one="yes", other="no", **more):
    return {"instruction": prompt, "output_1": one, "output_2": other, **more}


def table(tmp_path, *rows):
    return read(laid(tmp_path, "rows.jsonl", rows))


def test_a_pair_is_known_whichever_output_stands_first(tmp_path):
    before = table(tmp_path, pair("a", preference=1), pair("b", preference=1))
    landed = table(
        tmp_path,
        pair("a", "no", "yes", preference=2),
        pair("b", preference=2),
        pair("c", preference=1),
        pair("c", preference=1),
    )
    found = fresh(landed, [before], WORLD)
    assert found.rows["instruction"].to_list() == ["c"]
    assert (found.known, found.relabelled) == (3, 1)


def test_what_is_evaluated_or_alike_is_left_out_and_counted(tmp_path):
    (asked,) = instructions(WORLD, "eval", 1).to_dicts()
    evaluated = pair(asked["instruction"], input=asked["input"])
    found = fresh(table(tmp_path, evaluated, pair("a", "x", "x"), pair("b")), [], WORLD)
    assert (found.rows.height, found.evaluated, found.alike, found.known) == (1, 1, 1, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1), st.lists(st.integers(0, 6), min_size=1))
def test_files_in_turn_bring_each_pair_once(first, second):
    tables = [_numbered(first), _numbered(second)]
    new = [fresh(rows, tables[:turn], WORLD) for turn, rows in enumerate(tables)]
    brought = [each for found in new for each in found.rows["instruction"]]
    assert sorted(brought) == sorted(set(brought)) == sorted({f"do {n}" for n in first + second})
    for rows, found in zip(tables, new, strict=True):
        assert found.rows.height + found.known == rows.height


def _numbered(numbers):
    rows = [pair(f"do {n}", input="", status="", preference=None) for n in numbers]
    blank = {name: pl.lit(None, kind) for name, kind in Preferences.columns.items()}
    given = pl.DataFrame(rows, schema_overrides={"preference": pl.Float64})
    absent = {name: held for name, held in blank.items() if name not in given.columns}
    return given.with_columns(**absent).select(list(Preferences.columns))


def test_a_file_without_labels_has_pairs_that_nobody_was_asked_about(tmp_path):
    assert unjudged(table(tmp_path, pair("a"), pair("b"))).height == 2
    labelled = table(tmp_path, pair("a", preference=1), pair("b", preference=None))
    assert unjudged(labelled).height == 0


def test_a_file_lands_once_whatever_it_is_called(store, tmp_path):
    one = laid(tmp_path, "one.jsonl", [pair("a")])
    first, is_new = landing.take_in(store, one, "preferences", "mine")
    again, is_new_again = landing.take_in(
        store, laid(tmp_path, "two.jsonl", [pair("a")]), "preferences", "mine"
    )
    assert (is_new, is_new_again) == (True, False) and again == first
    landing.take_in(store, laid(tmp_path, "three.jsonl", [pair("b")]), "preferences", "mine")
    names = [made.notes["file"] for made in landing.landed(store, "preferences", "mine")]
    assert names == ["one.jsonl", "three.jsonl"]
    assert landing.landed(store, "preferences", "other") == []


def test_a_plain_import_keeps_its_key_and_lands_in_the_dataset_of_its_kind(store, tmp_path):
    file = laid(tmp_path, "one.jsonl", [pair("a", preference=1)])
    plain, _ = landing.take_in(store, file, "preferences")
    named, is_new = landing.take_in(store, file, "preferences", "preferences")
    assert named == plain and not is_new
    assert set(plain.recipe.settings) == {"file", "kind"}


def test_files_still_written_to_and_those_without_rows_are_left_alone(tmp_path, monkeypatch):
    for name in (".hidden.jsonl", "~lock.csv", "notes.txt", "half.jsonl.part"):
        laid(tmp_path, name, [pair("a")])
    laid(tmp_path, "done.jsonl", [pair("a")])
    young = laid(tmp_path, "young.jsonl", [pair("a")])
    place = watched.place(str(tmp_path))
    monkeypatch.setattr(watched.time, "time", lambda: young.stat().st_ctime + 60)
    assert watched.whole(place) == ["done.jsonl", "young.jsonl"]
    monkeypatch.setattr(watched.time, "time", lambda: young.stat().st_ctime)
    grown = [pair("a"), pair("b")]
    monkeypatch.setattr(watched.time, "sleep", lambda _: laid(tmp_path, "young.jsonl", grown))
    assert watched.whole(place) == ["done.jsonl"]


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(Missing, match="no folder nowhere; make it"):
        watched.place("nowhere").stamps()


def test_objects_below_a_prefix_come_in_the_order_in_which_they_were_laid(tmp_path):
    shelf = Shelf()
    place = watched.Prefix("s3://farm/incoming/", shelf)
    for name in ("b.jsonl", "a.csv", ".hidden.csv", "more/c.jsonl"):
        shelf.lay(name, name.encode())
        shelf.later(1)
    assert watched.whole(place) == ["b.jsonl", "a.csv"]
    with place.fetched("b.jsonl") as file:
        assert (file.name, file.read_bytes()) == ("b.jsonl", b"b.jsonl")
    assert place.address("b.jsonl") == "s3://farm/incoming/b.jsonl"
    with pytest.raises(Missing, match=r"no object s3://farm/incoming/c\.csv any more"):
        place.fetched("c.csv").__enter__()


def test_a_file_that_cannot_be_used_is_named_and_the_others_land(store, tmp_path, settled):
    laid(tmp_path, "bad.jsonl", [pair("a"), pair("b") | {"output_2": None}])
    laid(tmp_path, "good.jsonl", [pair("a")])
    (bad,) = taken_in(Incoming(name="mine", folder=str(tmp_path)))
    assert bad.file == "bad.jsonl" and bad.why.startswith("bad.jsonl: row 2 has no 'output_2'")
    assert len(landing.landed(store, "preferences", "mine")) == 1


def test_a_file_that_may_not_be_read_is_named_and_stops_no_other(
    store, tmp_path, settled, monkeypatch
):
    for number in range(3):
        laid(tmp_path, f"{number}.jsonl", [pair(f"of {number}")])
    (tmp_path / "folder.jsonl").mkdir()
    monkeypatch.setattr(watched.os, "access", lambda path, _: path.name != "0.jsonl")
    unusable = taken_in(Incoming(folder=str(tmp_path)))
    assert [each.why for each in unusable] == ["0.jsonl may not be read here; `chmod a+r` it"]
    eye = Eye(str(tmp_path), "preferences", "others", tell=lambda _: True)
    assert eye.look() == ["1.jsonl", "2.jsonl"]
    monkeypatch.setattr(watched.os, "access", lambda *_: True)
    os.chmod(tmp_path / "0.jsonl", 0o644)
    assert eye.look() == ["0.jsonl"]


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    laid(tmp_path, "file", [])
    with (
        pytest.raises(BadInput, match="name a folder where files come in"),
        all_watched([str(tmp_path / "file" / "below")]),
    ):
        pass


def test_names_of_datasets_are_plain(capsys):
    with pytest.raises(BadInput, match="small letters"):
        refuse_name("My Pairs")


def test_again_trains_on_all_labels_from_the_start_and_further_on_new_ones_alone():
    labels = [Preferences(key=f"{n:016x}") for n in (0xE1, 0xE2)]
    asked = {}
    for how in ("again", "further"):
        farm = PaperFarm()
        farm.names |= {each.folder: f"new{n}" for n, each in enumerate(labels, 1)}
        learned(WAY.replace(how=how), START, labels, farm)
        asked[how] = farm.asked
    assert asked["again"] == ["unite(preferences, new1, new2)", "train(sft, unite1)"]
    further = ["train(sft, preferences)", "train(train1, new1)", "train(train2, new2)"]
    assert asked["further"] == further


@pytest.mark.parametrize("name", sorted(METHODS))
def test_who_can_go_on_from_new_pairs_is_told_from_what_a_method_asks_for(name):
    way = WAY.replace(method=METHODS[name].at("smoke"))
    checks = {"again": name not in UNTAUGHT, "further": name in FURTHER}
    for how, is_fit in checks.items():
        if is_fit:
            refuse_unfit(way.replace(how=how))
        else:
            with pytest.raises(BadInput, match=f"method '{name}' does not"):
                refuse_unfit(way.replace(how=how))


def test_who_watches_tells_once_of_each_new_content(store, tmp_path, settled):
    told = []
    eye = Eye(str(tmp_path), "preferences", "mine", lambda found: not told.append(found))
    laid(tmp_path, "one.jsonl", [pair("a"), pair("b")])
    laid(tmp_path, "bad.jsonl", [{"a": 1}])
    assert eye.look() == ["one.jsonl"]
    laid(tmp_path, "same.jsonl", [pair("a"), pair("b")])
    assert eye.look() == eye.look() == []
    os.utime(tmp_path / "one.jsonl", (2e9, 2e9))
    assert Eye(str(tmp_path), "preferences", "mine", eye._tell).look() == []
    (found,) = told
    assert (found["rows"], found["name"], found["kind"]) == (2, "mine", "preferences")
    assert found["path"] == str(tmp_path / "one.jsonl")


def test_what_the_server_was_not_told_of_is_told_the_next_time(store, tmp_path, settled):
    laid(tmp_path, "one.jsonl", [pair("a")])
    answers = iter([False, True])
    eye = Eye(str(tmp_path), "preferences", "", lambda _: next(answers))
    assert eye.look() == [] and landing.landed(store, "preferences", "preferences") == []
    assert eye.look() == ["one.jsonl"]
    assert len(landing.landed(store, "preferences", "preferences")) == 1


@pytest.fixture
def settled(monkeypatch):
    """Files count as whole at once."""
    monkeypatch.setattr(watched, "SETTLED", -1e10)


def test_an_import_names_its_dataset_and_needs_no_server(store, tmp_path, capsys):
    file = laid(tmp_path, "one.jsonl", [pair("a")])
    assert typed("import", file, "--as", "preferences", "--dataset", "mine", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (made,) = landing.landed(store, "preferences", "mine")
    assert document == {"key": made.key, "kind": "preferences", "rows": 1, "quarantined": 0}
    assert typed("import", file, "--as", "preferences", "--dataset", "No") == 2
    assert "small letters" in complaint(capsys)


def test_an_import_stands_though_the_server_is_away(store, tmp_path, capsys, monkeypatch, unheard):
    file = laid(tmp_path, "one.jsonl", [pair("a", preference=1)])
    assert typed("import", file, "--as", "preferences", "--json") == 0
    assert len(landing.landed(store, "preferences", "preferences")) == 1
    assert "was not told of" in capsys.readouterr().err


@pytest.fixture
def unheard(monkeypatch):
    """A server that is away."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


def test_several_places_are_watched_each_for_the_kind_it_is_called_by(store, tmp_path, heard):
    laid(tmp_path / "candidates", "mine.jsonl", [{"instruction": "a", "output": "b"}])
    laid(tmp_path / "pairs", "one.jsonl", [pair("a")])
    with all_watched([str(tmp_path / "candidates"), str(tmp_path / "pairs")]):
        assert {heard.get(timeout=60)["kind"] for _ in range(2)} == {"candidates", "preferences"}
    assert len(landing.landed(store, "candidates", "candidates")) == 1


@pytest.fixture
def heard(monkeypatch, settled):
    """What a server is told of."""
    told = Queue()
    monkeypatch.setattr(watching, "emitted", lambda found: not told.put(found))
    return told


def test_watching_without_a_server_to_tell_is_refused(tmp_path, capsys):
    assert typed("watch", tmp_path) == 2
    assert "no Prefect server to tell: set PREFECT_API_URL" in complaint(capsys)
