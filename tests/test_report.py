"""Reports: tables by hand, charts that fit, pages that stand alone and let no row speak HTML."""

import base64
import hashlib
import json
from html.parser import HTMLParser
from itertools import pairwise as neighbours

import polars as pl
import pytest

from alpacafarm_core import charts, findings
from alpacafarm_core.artifacts import (
    Candidates,
    Curves,
    Leaderboard,
    Preferences,
    Ranks,
    Scores,
    Table,
)
from alpacafarm_core.board_page import _places
from alpacafarm_core.charts import Axis, Point
from alpacafarm_core.curves import Run
from alpacafarm_core.evidence import gather
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.lineage import receipt
from alpacafarm_core.markup import Figure, Markup, Section, figure, give_or_take, page, table, tag
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.report import report
from alpacafarm_core.store import Made, Store
from alpacafarm_core.tally import board
from flows.cli import main
from flows.printing import show_board
from flows.reporting import kept, place
from tasks.tally import tables

SCRIPT = "<script>alert('farm')</script></style><img src=x onerror=alert(1)>"
PROMPTS = ("a", "b", "c", "d")


def labels(*preferences: float | None, **columns: object) -> pl.DataFrame:
    """Rows of Preferences for prompts a, b, c, ..., all columns there."""
    empty = {name: "" for name, kind in Preferences.columns.items() if kind == pl.String()}
    row = empty | {
        "output_1": "ref",
        "output_2": "answer",
        "annotator": "judge_1",
        "status": "ok",
        "is_switched": False,
        "is_noisy": False,
        "raw_completion": "Output (a)",
        "tokens": 10,
        "price": 0.01,
        "seconds": 0.5,
        "output_1_ids": [],
        "output_2_ids": [],
    }
    prompts = [chr(ord("a") + place) for place in range(len(preferences))]
    rows = [
        row | {"instruction": prompt, "preference": preference} | columns
        for prompt, preference in zip(prompts, preferences, strict=True)
    ]
    return pl.DataFrame(rows, schema=Preferences.columns)


def keep(store: Store, kind: type[Table], rows: pl.DataFrame, stage: str, **arguments: object):
    """Write an artifact as its stage would."""
    notes = arguments.pop("notes", {})
    artifact = kind(key=key_of(stage, 1, arguments))
    store.write(artifact, Made(rows, notes), Recipe.of(stage, 1, arguments), 0.0)
    return artifact


def answers(store: Store, model: str) -> Candidates:
    """An empty table of a model's answers."""
    rows = pl.DataFrame(schema=Candidates.columns)
    return keep(store, Candidates, rows, "generate", model=model)


def judged(store: Store, model: str, rows: pl.DataFrame, panel: str = "pool") -> Preferences:
    """The labels of a model's answers by a panel."""
    return keep(
        store, Preferences, rows, "annotate", candidates=answers(store, model),
        panel={"name": panel}, notes={"usd": 0.04, "calls_bought": 2, "rows_from_ledger": 1},
    )  # fmt: skip


def boarded(store: Store, panel: str = "pool", **models: pl.DataFrame) -> Leaderboard:
    """A leaderboard of models by their labels."""
    tables = {model: judged(store, model, rows, panel) for model, rows in models.items()}
    evaluations = {model: Evaluation(preferences=held) for model, held in tables.items()}
    rows = board({model: (rows, None) for model, rows in models.items()})
    return keep(store, Leaderboard, rows, "tally", evaluations=evaluations)


class Read(HTMLParser):
    """The tags, texts, anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += attributes

    def handle_data(self, words):
        self.words.append(words)

    def held(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [str(value) for key, value in self.attributes if key == name]


def test_what_is_not_markup_is_escaped_and_markup_is_left():
    assert tag("p", "<b>", Markup("<i>"), 3) == "<p>&lt;b&gt;<i>3</p>"
    assert tag("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'
    assert tag("td", "x", class_=None, text_anchor="end") == '<td text-anchor="end">x</td>'


def test_figures_have_their_digits_a_true_minus_and_no_minus_zero():
    assert figure(1234.56) == "1,234.6"
    assert give_or_take(-7.66, 1.71) == "\N{MINUS SIGN}7.7 ± 1.7"
    assert give_or_take(-0.01, 1.71) == "0.0 ± 1.7"
    assert figure(None) == "" and give_or_take(2.0, None) == "+2.0"


def test_a_column_of_figures_stands_to_the_right():
    drawn = table("T", ["model", "rate"], [["x", Figure("5.0")]])
    assert '<th scope="col" class="n">rate</th>' in drawn and '<td class="n">5.0</td>' in drawn


def test_a_page_allows_its_own_style_and_nothing_else():
    style = "p { color: red }"
    text = page("T", style, [], [Section("s", "S", [tag("p", "x")]), Section("e", "E", [])])
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text
    assert 'href="#s"' in text and 'id="e"' not in text


def test_pairs_of_models_are_compared_on_the_prompts_they_share():
    found = findings.pairwise({"a": labels(2, 2, 1, None), "b": labels(1, 2, 1, 2)})
    assert found["a", "b"].n == 3
    assert found["a", "b"].difference == pytest.approx(100 / 3)
    assert found["b", "a"].difference == pytest.approx(-100 / 3)
    assert found["a", "b"].standard_error == found["b", "a"].standard_error


def test_the_matrix_is_row_minus_column():
    assert findings.matrix({"a": labels(2, 2), "b": labels(1, 1)}) == [
        {"model": "a", "a": "", "b": "+100.0 ± 0.0"},
        {"model": "b", "a": "-100.0 ± 0.0", "b": ""},
    ]


def test_no_difference_has_no_minus():
    _, other = findings.matrix({"a": labels(2, 1), "b": labels(2, 1)})
    assert other["a"] == "+0.0 ± 0.0"


def test_models_whose_intervals_overlap_share_their_places():
    rates = {
        "best": (80.0, 2.0),
        "one": (50.0, 2.0),
        "other": (46.0, 2.0),
        "unjudged": (None, None),
    }
    rows = pl.DataFrame(
        [(name, *held) for name, held in rates.items()],
        schema=["model", "win_rate", "standard_error"],
        orient="row",
    )
    assert _places(rows) == {"best": "1", "one": "2-3", "other": "2-3"}


def test_lengths_by_hand():
    rows = pl.concat([labels(2, output_2="longer"), labels(1, output_2="x")])
    assert findings.lengths(rows) == (3.5, 3.5, 3.0, 50.0, 100.0, 0.0)


def test_price_is_per_thousand_rows():
    found = findings.price(200, [{"usd": 1.0, "calls_bought": 3}, {"rows_from_ledger": 50}])
    assert found == (200, 3, 50, 1.0) and found.per_1000 == 5.0
    assert findings.price(0, []).per_1000 is None


def test_samples_are_spread_over_the_prompts():
    rows = labels(*[2] * 6)
    shown = findings.spread_out({"a": rows, "b": rows.head(2)}, 3)
    assert [sorted(each) for each in shown] == [["a", "b"], ["a"], ["a"]]
    assert [each["a"]["instruction"] for each in shown] == ["a", "c", "e"]
    assert findings.spread_out({}, 3) == []


@pytest.mark.parametrize("ends", [(25.0, 57.3), (0.31, 0.32), (-3.0, 1200.0), (5.0, 5.0), (0, 0)])
def test_an_axis_has_round_ends_around_all_values_and_a_few_ticks(ends):
    axis = Axis.over(ends, 0, 100)
    assert axis.low <= min(ends) and max(ends) <= axis.high and axis.low < axis.high
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 13 and len({said for _, said in ticks}) == len(ticks)
    assert (axis.at(axis.low), axis.at(axis.high)) == (0, 100)


def test_names_of_points_never_lie_on_each_other():
    drawn = charts.scatter([Point(f"m{n}", 1.0 + n / 100, 2.0) for n in range(8)], "x", "y")
    heights = sorted(
        float(part.split('y="')[1].split('"')[0])
        for part in drawn.split("<text ")[1:]
        if ">m" in part
    )
    assert len(heights) == 8
    assert all(low - high >= charts.LINE for high, low in neighbours(heights))


def test_points_without_a_place_are_left_out_and_nothing_is_no_chart():
    nowhere = Point("x", float("nan"), 1.0)
    assert charts.scatter([nowhere], "x", "y") == charts.lines({"s": [nowhere]}, "x", "y") == ""
    assert charts.intervals([nowhere], "x", 50.0) == ""
    assert ">there<" in charts.intervals([nowhere, Point("there", 40.0, 0.0, 3.0)], "x", 50.0)


def test_a_line_goes_from_left_to_right_whatever_the_order_of_points():
    drawn = charts.lines({"s": [Point("", 2.0, 1.0), Point("", 1.0, 0.0, 0.0, 0.5)]}, "x", "y")
    line = next(part for part in drawn.split("<line ") if 'class="line"' in part)
    first, last = (float(line.split(f'{name}="')[1].split('"')[0]) for name in ("x1", "x2"))
    assert first < last and 'class="bar"' in drawn


def test_no_row_brings_a_tag_an_attribute_or_a_request(store):
    bad = labels(2, 1, output_2=SCRIPT, raw_completion=SCRIPT, input=SCRIPT, annotator=SCRIPT)
    text = report(gather(store, boarded(store, **{SCRIPT: bad, "sft": labels(1, 1)})))
    read = Read(text)
    assert not {"script", "img", "iframe", "link", "form"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on") or name == "src"]
    assert all(address.startswith("#") for address in read.held("href"))
    assert read.tags.count("style") == 1 and SCRIPT in " ".join(read.words)


def test_every_number_leads_to_an_artifact_and_every_link_to_a_place(store):
    made = boarded(store, sft=labels(1, 2, 2, 1), dpo=labels(2, 2, 2, 1))
    evidence = gather(store, made)
    read = Read(report(evidence))
    places, links = read.held("id"), read.held("href")
    assert len(places) == len(set(places)) and {link[1:] for link in links} <= set(places)
    assert {f"a-{each.artifact.folder.replace('/', '-')}" for each in evidence.lineage} <= set(
        places
    )
    words = read.words
    assert "75.0 ± 25.0" in words and "+25.0 ± 25.0" in words and "$0.08" in " ".join(words)


def test_the_interval_stays_between_nothing_and_all(store):
    words = Read(report(gather(store, boarded(store, a=labels(2, 2, 2, 1))))).words
    assert "26.0 to 100.0" in words


def test_models_with_equal_answers_share_a_table_and_each_has_a_row(store):
    same = judged(store, "one", labels(2, 1))
    evaluations = {model: Evaluation(preferences=same) for model in ("sft", "dpo")}
    rows = board(dict.fromkeys(evaluations, (labels(2, 1), None)))
    made = keep(store, Leaderboard, rows, "tally", evaluations=evaluations)
    assert list(gather(store, made).judged()) == ["dpo", "sft"]


def test_a_label_that_two_models_share_is_one_label_on_the_card(store):
    made = boarded(store, sft=labels(2, 1), dpo=labels(2, 1))
    words = Read(report(gather(store, made))).words
    assert "agreement with its own other labels, %" not in words
    assert "100.0 ± 0.0 (2)" in words


def test_coins_ties_and_failures_are_told_in_words(store):
    rows = pl.concat(
        [
            labels(2, is_noisy=True, raw_completion=None),
            labels(None, 1.5, status="refused")[:1],
            labels(1.5, 1.5, output_2="ref", raw_completion=None)[1:],
        ]
    ).with_columns(instruction=pl.Series(["a", "b", "c"]))
    words = Read(report(gather(store, boarded(store, sft=rows)))).words
    assert "a coin decided; no judge was asked" in words
    assert "no label (refused)" in words
    assert "equal answers; no judge was asked" in words


def test_the_first_board_has_none_before_it(store):
    made = boarded(store, sft=labels(2, 1))
    assert gather(store, made).previous is None
    assert "no earlier result" in report(gather(store, made))


def test_what_changed_names_the_setting_and_pairs_the_move(store):
    before = boarded(store, "old judges", sft=labels(1, 1, 1, 2), gone=labels(1, 2))
    now = boarded(store, "new judges", sft=labels(1, 2, 2, 2), fresh=labels(2, 2))
    evidence = gather(store, now)
    assert evidence.previous.manifest.key == before.key
    assert "annotate: settings.panel.name: 'old judges' -> 'new judges'" in evidence.previous.causes
    words = Read(report(evidence)).words
    assert "+50.0 ± 28.9" in words and "gone" in words and "new" in words


def test_scores_of_a_reward_model_are_set_against_win_rates(store):
    made = boarded(store, sft=labels(2, 1))
    scored = pl.DataFrame(
        {"score": [1.0, 2.0], "instruction": ["a", "b"]}
    ).with_columns(
        *(pl.lit(None, kind).alias(name) for name, kind in Scores.columns.items() if name not in
          ("score", "instruction"))
    )  # fmt: skip
    judge = receipt("reward_model/" + "0" * 16)
    keep(store, Scores, scored, "score", candidates=answers(store, "sft"), judge=judge)
    (found,) = gather(store, made).scores.values()
    assert (found["sft"].mean, found["sft"].standard_error) == (1.5, 0.5)
    assert judge.folder in report(gather(store, made))


def test_a_board_whose_labels_are_forgotten_still_has_its_numbers(store):
    made = boarded(store, sft=labels(2, 1))
    store.forget(judged(store, "sft", labels(2, 1)))
    read = Read(report(gather(store, made)))
    assert "50.0 ± 50.0" in read.words and "pairwise" not in read.held("id")


def test_a_ranking_shows_both_boards(store):
    ours = boarded(store, "pool", sft=labels(2, 1), dpo=labels(2, 2))
    theirs = boarded(store, "people", sft=labels(1, 1), dpo=labels(2, 1))
    rows = pl.DataFrame(
        [{"model": "sft", "simulated": 50.0, "human": 0.0},
         {"model": "dpo", "simulated": 100.0, "human": 50.0}], schema=Ranks.columns
    )  # fmt: skip
    notes = {"spearman": 1.0, "swaps": [["a", "b"]], "spearman_interval": [-0.5, 1.0]}
    made = keep(store, Ranks, rows, "ranks", simulated=ours, human=theirs, notes=notes)
    read = Read(report(gather(store, made)))
    assert {"ranks", "simulated-board", "human-board", "simulated-samples"} <= set(read.held("id"))
    assert "swaps: (a, b)" in read.words and "dpo (human)" in read.words
    assert "training: pool" not in read.words


def test_curves_show_every_measure_and_the_answers_optimised_the_most(store):
    tables = {x: judged(store, f"ppo{x}", labels(2, 1, output_2=f"after {x}")) for x in (5, 10)}
    scores = dict.fromkeys(("proxy", "truth", "drift"), Scores(key="0" * 16))
    runs = [
        Run(series="PPO", x=float(x), judged=held, human=held, **scores)
        for x, held in tables.items()
    ]
    rows = pl.DataFrame(
        [{"series": "PPO", "x": float(x), "kl": x / 10, "proxy": 0.1, "utility": -0.5}
         for x in tables], schema=Curves.columns
    )  # fmt: skip
    made = keep(store, Curves, rows, "curves", runs=runs, notes={"peaks": {"PPO": {"x": 5.0}}})
    read = Read(report(gather(store, made)))
    assert "after 10" in read.words and "after 5" not in read.words
    assert "PPO: x 5" in read.words and "\N{MINUS SIGN}0.500" in read.words


def test_a_study_is_held_against_the_one_before(store):
    def ranked(human: float) -> Ranks:
        rows = pl.DataFrame([{"model": "sft", "human": human}], schema=Ranks.columns)
        return keep(store, Ranks, rows, "ranks", seed=int(human))

    ranked(40.0)
    evidence = gather(store, ranked(60.0))
    words = Read(report(evidence)).words
    assert "40.00" in words and "60.00" in words


def test_the_command_writes_where_it_is_told_and_else_into_the_store(store, tmp_path, capsys):
    made = boarded(store, sft=labels(2, 1))
    out = tmp_path / "board.html"
    main(["report", made.key[:6], "--out", str(out), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["key"], document["bytes"]) == (made.key, len(out.read_bytes()))
    main(["report", made.key])
    assert capsys.readouterr().out.strip() == str(place(store, made))
    assert place(store, made).read_text() == out.read_text()


def test_the_command_refuses_what_is_no_result_and_a_place_that_is_not_there(store, capsys):
    made = boarded(store, sft=labels(2, 1))
    inputs = judged(store, "sft", labels(2, 1))
    for words in (["report", inputs.folder], ["report", made.key, "--out", "/no/such/place.html"]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert "give a leaderboard, ranks or curves" in said[-2] and "choose another --out" in said[-1]


def test_a_report_that_is_there_is_kept_and_one_that_fails_stops_no_run(store):
    made = boarded(store, sft=labels(2, 1))
    there = kept(store, made)
    there.write_text("as it was")
    assert kept(store, made).read_text() == "as it was"
    there.unlink()
    (store.path(made) / "rows.parquet").write_bytes(b"")
    assert kept(store, made) is None


def test_a_race_says_where_its_reports_are(capsys):
    document = {"leaderboard": [], "seconds": 1.0, "cost_usd": 0.0, "key": "k", "folder": "f"}
    show_board(document | {"reports": ["store/reports/k.html"]}, as_json=False)
    assert "report     store/reports/k.html" in capsys.readouterr().out


def test_the_page_of_a_run_has_the_tables_of_the_report(store):
    made = boarded(store, sft=labels(2, 1), dpo=labels(2, 2))
    found = {key: rows for key, (_, rows) in tables(gather(store, made)).items()}
    assert found["pairwise"][0] == {"model": "dpo", "dpo": "", "sft": "+50.0 ± 50.0"}
    assert [row["win_rate"] for row in found["rewards"]] == [100.0, 50.0]
    assert [row["per_1000"] for row in found["prices"]] == [20.0, 20.0]
    assert found["lengths"][0]["mean"] == 6.0
    assert all(type(held) is str for row in found["judge-card"] for held in row.values())
