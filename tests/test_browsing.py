"""The store in a browser: all of it can be reached, none of it changed, and no row is markup."""

import asyncio
import json
import re
import time
from base64 import b64encode
from html import unescape

import polars as pl
import pytest

from alpacafarm_core import tally
from alpacafarm_core.annotate import judge, pair
from alpacafarm_core.artifacts import Candidates, Leaderboard, Preferences
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made
from flows.browsing import application
from tasks.stage import ledger
from tests.paper_farm import numbered
from tests.test_annotate import Fake, judge_of, panel_of
from tests.test_cli import complaint, typed
from tests.tiny import frame

NASTY = '<script>alert(1)</script><img src="http://elsewhere/x.png">'
PICTURE = b"\x89PNG picture"
UNVISITED = tuple(f"/row/{at}" for at in range(2, 30))


def kept(store, artifact, rows, stage, **inputs):
    """The artifact, with these rows, made from these inputs."""
    files = {"plot.png": PICTURE, "notes.txt": b"no picture"}
    made = Made(rows, {"usd": 0.25, "said": NASTY}, files)
    store.write(artifact, made, Recipe.of(stage, 1, inputs), time.time())
    return artifact


def answers(count, ending):
    rows = [
        {"instruction": f"Do {at}", "input": "", "output": f"{ending} {at}", "sample_index": 0}
        for at in range(count)
    ]
    return frame(Candidates, [row | {"tokenizer": "", "generator": ending} for row in rows])


@pytest.fixture
def shelf(store):
    """Answers with markup in them, a judge's labels of them, and a board."""
    ours, theirs = answers(30, NASTY), answers(30, "plain")
    panel = panel_of(judge_of(batch=2))
    labels = judge(pair(ours, theirs), panel, Fake(), ledger()).preferences
    one = kept(store, Candidates(key=numbered(1)), ours, "generate", word=NASTY)
    other = kept(store, Candidates(key=numbered(2)), theirs, "published")
    told = Preferences(key=numbered(3))
    kept(store, told, labels, "annotate", candidates=one, rivals=other, panel=panel)
    rows = tally.board({"ours": (store.scan(told), None)})
    judged = {"ours": Evaluation(preferences=told)}
    kept(store, Leaderboard(key=numbered(4)), rows, "tally", evaluations=judged)
    return store


def asked(store, path, method="GET", secret="", **headers):
    """What comes back from one place."""
    from httpx import ASGITransport, AsyncClient

    async def ask():
        way = ASGITransport(application(store, secret), raise_app_exceptions=False)
        async with AsyncClient(transport=way, base_url="http://127.0.0.1:4201") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def place(number, kind="candidates"):
    return f"/artifact/{kind}/{numbered(number)}"


def ways(page):
    """Every address that a page names."""
    return {unescape(way) for way in re.findall(r'(?:href|src|action)="([^"]*)"', page)}


def test_every_way_from_the_list_leads_to_a_page_and_none_leads_outside(shelf):
    waiting, seen = ["/"], set()
    while waiting:
        path = waiting.pop()
        if path in seen or path[0] == "#" or path == "/diff" or path.endswith(UNVISITED):
            continue
        seen.add(path)
        assert path.startswith("/"), path
        reply = asked(shelf, path)
        assert reply.status_code == 200, path
        if reply.headers["content-type"].startswith("text/html"):
            waiting += ways(reply.text)
    assert {place(n) for n in (1, 2)} < seen and f"{place(1)}/row/0" in seen
    assert place(4, "leaderboard") + "/report" in seen


def test_no_text_of_a_row_or_a_setting_is_markup(shelf):
    for path in ("/", place(1), f"{place(1)}/row/3", f"{place(3, 'preferences')}/row/3"):
        page = asked(shelf, path).text
        assert "<script" not in page and "elsewhere/x.png" not in str(ways(page))
    assert "&lt;script&gt;" in asked(shelf, place(1)).text


def test_the_list_is_narrowed_by_kind_stage_and_text(shelf):
    def listed(query):
        page = asked(shelf, f"/?{query}").text
        return {way for way in ways(page) if way.startswith("/artifact/")}

    assert len(listed("")) == 4
    assert listed("kind=candidates") == {place(1), place(2)}
    assert listed("stage=published") == {place(2)}
    assert listed(f"text={numbered(4)[-8:]}") == {place(4, "leaderboard")}
    assert listed("text=ALERT(1)&kind=candidates&stage=generate") == {place(1)}
    assert listed("kind=nothing") == set()


def test_an_artifact_shows_what_it_is_made_from_and_what_was_made_from_it(shelf):
    page = asked(shelf, place(3, "preferences")).text
    assert {place(1), place(2), place(4, "leaderboard")} <= ways(page)
    assert "$0.25 of judgements" in page and "alpacafarm show" in page
    digests = shelf.manifest(Preferences(key=numbered(3))).files.values()
    assert all(digest in page for digest in digests)


def test_pages_and_commands_say_the_same_of_columns_and_lineage(shelf, capsys):
    page = unescape(asked(shelf, place(3, "preferences")).text)
    assert typed("show", numbered(3), "--json") == 0
    (price,) = (
        column
        for column in json.loads(capsys.readouterr().out)["statistics"]
        if column["column"] == "price"
    )
    shown = page.partition('<th scope="row">price</th>')[2].partition("</tr>")[0]
    cells = [re.sub("<[^>]+>", "", cell) for cell in shown.split("</td>")]
    assert cells[0] == "number" and float(cells[6]) == pytest.approx(price["most"])
    assert typed("lineage", numbered(4), "--json") == 0
    order = [made["key"] for made in json.loads(capsys.readouterr().out)]
    listed = asked(shelf, place(4, "leaderboard")).text.partition("The same as a list")[2]
    assert re.findall(r'href="/artifact/\w+/(\w+)"', listed)[: len(order)] == order


def test_rows_come_in_pages(shelf):
    first, second = asked(shelf, place(1)).text, asked(shelf, f"{place(1)}?page=2").text
    assert f"{place(1)}/row/24" in ways(first) and f"{place(1)}/row/25" not in ways(first)
    assert f"{place(1)}/row/29" in ways(second) and f"{place(1)}/row/24" not in ways(second)
    assert asked(shelf, f"{place(1)}?page=3").status_code == 404


def test_a_label_shows_the_request_word_for_word_and_the_raw_answer(shelf):
    page = unescape(asked(shelf, f"{place(3, 'preferences')}/row/0").text)
    row = shelf.read(Preferences(key=numbered(3))).row(0, named=True)
    assert "its digest checked" in page and "this one is number" in page
    assert "I: Do 0\n" in page and row["raw_completion"] in page
    assert {f"{place(1)}/row/0", f"{place(2)}/row/0"} <= ways(page)


def test_a_label_whose_batch_is_not_whole_here_shows_its_row_alone(shelf):
    labels = shelf.read(Preferences(key=numbered(3)))
    recipe = shelf.manifest(Preferences(key=numbered(3))).recipe
    some = Preferences(key=numbered(5))
    shelf.write(some, Made(labels[:1]), recipe, time.time())
    page = unescape(asked(shelf, f"{place(5, 'preferences')}/row/0").text)
    assert "for this row alone" in page and "I: Do 0\n" in page and "I: Do 1\n" not in page


def test_without_its_answers_a_label_is_still_shown(shelf):
    ledger().close()
    (shelf.root / "ledger.sqlite").unlink()
    page = asked(shelf, f"{place(3, 'preferences')}/row/0")
    assert page.status_code == 200 and "The judgement" not in page.text


def test_two_artifacts_are_compared_as_the_command_does(shelf):
    page = asked(shelf, f"/diff?first={numbered(2)}&second={numbered(1)}").text
    assert "0 added, 0 removed, 30 changed, 0 same" in page
    crossed = asked(shelf, f"/diff?first={numbered(1)}&second={numbered(3)}")
    assert crossed.status_code == 400 and "of two kinds" in crossed.text


@pytest.mark.parametrize(
    "path",
    [
        place(9),
        place(1, "nothing"),
        "/artifact/candidates/..%2f..%2fledger",
        f"{place(1)}/plot/..%2fmanifest.json",
        f"{place(1)}/plot/rows.parquet",
        f"{place(1)}/plot/notes.txt",
        f"{place(1)}/plot/other.png",
        "/ledger.sqlite",
        "/diff?first=../../etc&second=*",
    ],
)
def test_what_is_no_page_is_not_found(shelf, path):
    reply = asked(shelf, path)
    assert reply.status_code == 404 and "text/html" in reply.headers["content-type"]


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 30, "\u0661"])
def test_a_page_that_is_no_number_is_refused(shelf, page):
    assert asked(shelf, f"/?page={page}").status_code == 400


def test_a_row_that_is_not_there_and_rows_of_weights_are_refused(shelf):
    reply = asked(shelf, f"{place(1)}/row/30")
    assert reply.status_code == 400 and "rows 0 to 29, and no row 30" in reply.text


def test_a_plot_is_served_as_it_is(shelf):
    reply = asked(shelf, f"{place(1)}/plot/plot.png")
    assert (reply.content, reply.headers["content-type"]) == (PICTURE, "image/png")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_reading_is_answered(shelf, method):
    assert asked(shelf, place(1), method).status_code == 405


def test_looking_writes_nothing(shelf):
    def held():
        return {
            str(file): file.read_bytes() for file in shelf.root.rglob("*") if file.is_file()
        }  # fmt: skip

    ledger().close()
    before = held()
    for path in ("/", place(1), place(4, "leaderboard"), f"{place(3, 'preferences')}/row/2"):
        asked(shelf, path)
    assert held() == before


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example", "", "[::"])
def test_a_name_from_elsewhere_is_not_answered(shelf, host):
    assert asked(shelf, "/", host=host).status_code == 403


@pytest.mark.parametrize("host", ["localhost:4201", "127.0.0.1", "[::1]:4201"])
def test_a_name_of_this_machine_is_answered(shelf, host):
    assert asked(shelf, "/", host=host).status_code == 200


def test_the_name_under_which_the_pages_are_served_is_answered(shelf, monkeypatch):
    monkeypatch.setenv("ALPACAFARM_BROWSE_URL", "https://pages.example/")
    assert asked(shelf, "/", host="pages.example").status_code == 200


def test_with_a_password_nobody_looks_without_it(shelf):
    def with_word(word):
        basic = b64encode(word.encode()).decode()
        return asked(shelf, "/", secret="ann:wörd", authorization=f"Basic {basic}", host="any")

    bare = asked(shelf, "/", secret="ann:wörd")
    assert bare.status_code == 401 and bare.headers["www-authenticate"].startswith("Basic")
    assert [with_word(word).status_code for word in ("ann:wörd", "ann:word", "")] == [200, 401, 401]


def test_every_answer_forbids_scripts_frames_and_requests(shelf):
    for path in ("/", place(1), f"{place(1)}/plot/plot.png", "/nowhere"):
        rules = asked(shelf, path).headers["content-security-policy"]
        assert rules.startswith("default-src 'none'") and "frame-ancestors 'none'" in rules
        assert "script-src" not in rules and "unsafe" not in rules


@pytest.mark.parametrize(
    ("words", "secret", "line"),
    [
        (("--host", "0.0.0.0"), "", "set ALPACAFARM_BROWSE_AUTH=user:password"),
        (("--host", "127.0.0.1"), "ann", "ALPACAFARM_BROWSE_AUTH is no user:password"),
    ],
)
def test_others_are_not_let_in_without_a_password(shelf, monkeypatch, capsys, words, secret, line):
    monkeypatch.setenv("ALPACAFARM_BROWSE_AUTH", secret)
    assert typed("browse", *words) == 2
    assert line in complaint(capsys)


def test_a_store_that_is_not_there_is_not_made(tmp_path, capsys):
    assert typed("browse", "--store", tmp_path / "none") == 2
    assert "no store" in complaint(capsys) and not (tmp_path / "none").exists()


def test_an_empty_store_says_so(store):
    assert "The store is empty." in asked(store, "/").text


def test_what_is_damaged_says_so_and_how_to_mend_it(shelf):
    file = shelf.path(Candidates(key=numbered(1))) / "rows.parquet"
    file.write_bytes(b"broken")
    reply = asked(shelf, place(1))
    assert reply.status_code == 400 and "alpacafarm forget" in reply.text


def test_a_table_without_rows_has_a_page(store):
    empty = pl.DataFrame(schema=Candidates.columns)
    kept(store, Candidates(key=numbered(1)), empty, "generate")
    assert asked(store, place(1)).status_code == 200
