"""The judge card on labels one can check by hand."""

import json
import os
from math import sqrt
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.card import LIST, card, family, usual
from alpacafarm_core.errors import BadInput
from alpacafarm_core.files import read
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.store import Made
from flows.cli import main

SHARED = Path(os.environ.get("ALPACAFARM_SHARED") or Path(__file__).parents[2] / "shared")
PLAIN = {
    "instruction": "do",
    "input": "",
    "dataset": "",
    "output_1": "x",
    "output_2": "y",
    "output_1_ids": [],
    "output_2_ids": [],
    "tokenizer": "",
    "generator_1": "",
    "generator_2": "",
    "annotator": "judge",
    "preference": 1.0,
    "status": "ok",
    "is_switched": False,
    "is_noisy": False,
    "raw_completion": "",
    "prompt_digest": "",
    "tokens": None,
    "price": None,
    "seconds": None,
}


def rows(*changes: dict) -> pl.DataFrame:
    """Labels that are all alike but for what is said."""
    return pl.DataFrame([PLAIN | change for change in changes], schema=Preferences.columns)


def labels(**pairs: list[float]) -> pl.DataFrame:
    """For each instruction its labels."""
    return rows(*[{"instruction": i, "preference": x} for i, held in pairs.items() for x in held])


def exchanged(preference: float, **changes: object) -> dict:
    """The plain pair with its outputs exchanged."""
    return {"output_1": "y", "output_2": "x", "preference": preference, **changes}


def long(text: str) -> str:
    """More than 30 characters."""
    return text * 40


def test_the_usual_label_is_the_most_frequent_and_a_tie_of_two_is_one_and_a_half():
    assert usual([1, 2, 2]) == 2
    assert usual([1, 1, 2, 2]) == 1.5
    assert usual([1, 1.5]) == 1.5
    assert usual([1.5, 1.5, 1]) == 1.5


def test_agreement_with_gold_by_hand():
    found = card(labels(a=[1], b=[2], c=[1], d=[1]), labels(a=[1, 1, 2], b=[1], c=[1, 2], d=[1]))
    assert found["agreement"].value == (100 + 0 + 50 + 100) / 4
    deviations = [37.5, -62.5, -12.5, 37.5]
    assert found["agreement"].standard_error == pytest.approx(
        sqrt(sum(d * d for d in deviations) / 3 / 4)
    )
    assert found["agreement"].n == 4


def test_a_pair_counts_once_however_many_labels_it_has():
    found = card(labels(a=[1, 1, 1, 2], b=[2]), labels(a=[1], b=[2]))
    assert found["agreement"] == (87.5, 12.5, 2)


def test_gold_with_outputs_exchanged_is_turned_to_the_same_orientation():
    assert card(rows({"preference": 1}), rows(exchanged(2)))["agreement"].value == 100


def test_bias_is_the_error_that_more_labels_do_not_average_away():
    found = card(labels(a=[1, 1, 2], b=[2, 2, 2], c=[1]), labels(a=[1], b=[1], c=[1]))
    assert found["bias"] == (50, 50, 2)


def test_variance_and_leave_one_out_compare_each_label_with_its_others():
    # 1 against {1, 2} is half off, twice; 2 against {1, 1} is off.
    found = card(labels(a=[1, 1, 2], b=[1, 1], c=[2]))
    assert found["variance"].value == pytest.approx((200 / 3 + 0) / 2)
    assert found["agreement_leave_one_out"].value == pytest.approx(100 - 100 / 3)
    assert found["variance"].n == 2


def test_graded_labels_are_compared_with_the_median():
    found = card(labels(a=[1.2]), labels(a=[1.1, 1.4, 1.9]))
    assert found["agreement"].value == pytest.approx(80)


def test_an_order_flip_is_a_label_that_stays_with_the_place():
    stays = [{"preference": 1}, exchanged(1)]
    follows = [{"instruction": "b", "preference": 1}, exchanged(2, instruction="b")]
    half = [{"instruction": "c", "preference": 1}, exchanged(1.5, instruction="c")]
    assert card(rows(*stays, *follows, *half))["order_flip_rate"].value == pytest.approx(50)
    assert card(rows(*stays))["variance"].value is None


def test_the_order_the_judge_saw_counts_not_the_order_in_the_row():
    same_row = [{"preference": 1}, {"preference": 2, "is_switched": True}]
    assert card(rows(*same_row))["order_flip_rate"] == (100, None, 1)
    shown_alike = [{"preference": 1}, exchanged(1, is_switched=True)]
    assert card(rows(*shown_alike))["order_flip_rate"].value is None


def test_two_judges_of_a_pair_in_two_orders_are_no_flip():
    other = exchanged(1, annotator="other")
    assert card(rows({"preference": 1}, other))["order_flip_rate"].value is None


def test_the_longer_one_must_be_longer_by_more_than_30_characters():
    short = {"output_1": "x", "output_2": "y" * 31, "preference": 2}
    found = card(
        rows(
            {"output_1": long("a"), "output_2": "b", "preference": 1},
            {"output_1": "a", "output_2": long("b"), "preference": 1},
            {"output_1": "a", "output_2": long("c"), "preference": 1.5},
            short,
        )
    )
    assert found["probability_prefer_longer"].value == 0.5
    assert found["probability_prefer_longer"].n == 2


def test_only_the_first_label_of_a_pair_tells_length_and_lists():
    pair = {"output_1": long("a"), "output_2": "- b"}
    found = card(rows(pair | {"preference": 1}, pair | {"preference": 2}))
    assert found["probability_prefer_longer"] == (1, None, 1)
    assert found["probability_prefer_list"] == (0, None, 1)


@pytest.mark.parametrize("text", ["* one", "so:\n- one", "•one", "1. one", "2)one", "a) one"])
def test_a_list_is_seen(text):
    assert pl.Series([text]).str.contains(LIST).item()


@pytest.mark.parametrize("text", ["one - two", "a dog", "**Bold**", "a)", "in 1. place", "a.m."])
def test_no_list_is_seen(text):
    assert not pl.Series([text]).str.contains(LIST).item()


def test_the_place_is_preferred_by_the_row_and_by_what_was_shown():
    found = card(rows({"preference": 2}, {"preference": 2, "is_switched": True}, {"preference": 1}))
    assert found["probability_prefer_1"] == (pytest.approx(1 / 3), None, 1)
    assert found["probability_prefer_first_shown"].value == pytest.approx(2 / 3)
    assert card(rows({"preference": 1}))["probability_prefer_first_shown"].value is None


def test_a_judge_that_likes_its_family_more_than_others_do():
    pair = {"generator_1": "gpt4_0314", "generator_2": "claude"}
    gpt = pair | {"annotator": "alpaca_eval_gpt4", "preference": 1}
    claude = pair | {"annotator": "claude-judge", "preference": 1.5}
    # GPT's family wins 100 under it and 50 under Claude's judge, Claude's 50 and 0.
    assert card(rows(gpt, claude))["self_preference"].value == pytest.approx((50 + 50) / 2)
    assert card(rows(gpt, claude | {"annotator": "people"}))["self_preference"] == (50, None, 1)
    assert card(rows(gpt), rows(pair | {"annotator": "", "preference": 2}))[
        "self_preference"
    ].value == pytest.approx(100)
    assert card(rows(gpt, gpt | {"annotator": "chatgpt_fn"}))["self_preference"].value is None


def test_a_family_is_read_off_a_name():
    assert family("alpaca_eval_gpt4") == family("text_davinci_003") == "gpt"
    assert family("Mixtral-8x7B") == "mistral"
    assert family("people") == "people"


def test_failed_rows_are_no_labels_and_unasked_rows_no_parsing():
    failed = {"preference": None, "status": "unparsable", "price": 0.02}
    coin = {"is_noisy": True, "price": 0.0}
    same = {"output_2": "x", "preference": 1.5, "status": "tie", "price": 0.0}
    broken = {"preference": None, "status": "failed", "price": 0.0}
    found = card(rows({"price": 0.02}, failed, coin, same, broken))
    assert found["parse_rate"].value == pytest.approx(100 / 3)
    assert found["price_per_1000"].value == pytest.approx(10)
    assert found["probability_prefer_1"].n == 2


def test_what_the_labels_cannot_tell_is_none():
    found = card(rows({"preference": 1}))
    known = {name for name, measure in found.items() if measure.value is not None}
    assert known == {"probability_prefer_1", "parse_rate"}
    nothing = card(rows({"preference": None, "status": "failed"}))
    assert {n for n, measure in nothing.items() if measure.value is not None} == {"parse_rate"}


def test_generators_with_many_pairs_are_ranked_as_gold_ranks_them():
    def judged(share: dict[str, int]) -> pl.DataFrame:
        return rows(
            *[
                {"instruction": f"{n}", "output_2": name, "generator_2": name,
                 "preference": 2.0 if n < wins else 1.0}
                for name, wins in share.items()
                for n in range(101)
            ]
        )  # fmt: skip

    found = card(judged({"a": 10, "b": 20, "c": 30}), judged({"a": 10, "b": 30, "c": 20}))
    assert found["spearman"] == (0.5, None, 3)
    assert found["pearson"].value == pytest.approx(0.5)
    few = card(labels(a=[1]), labels(a=[1]))
    assert few["pearson"].value is None


def test_gold_without_a_shared_pair_is_refused():
    with pytest.raises(BadInput, match="no labelled pair"):
        card(labels(a=[1]), labels(b=[1]))


def said(capsys, *words: object) -> tuple[int, str]:
    """Exit code of the command and what it printed."""
    try:
        main(["card", *map(str, words)])
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out + err


def test_the_command_prints_one_document(tmp_path, capsys):
    labels(a=[1, 2]).write_parquet(tmp_path / "own.parquet")
    labels(a=[1]).write_parquet(tmp_path / "gold.parquet")
    words = (tmp_path / "own.parquet", "--gold", tmp_path / "gold.parquet", "--json")
    code, out = said(capsys, *words)
    document = json.loads(out)
    assert code == 0
    assert (document["agreement"], document["variance"], document["bias"]) == (50, 100, 50)
    assert document["price_per_1000"] is None
    assert document["counts"]["agreement"] == 1
    assert document["standard_errors"]["agreement"] is None
    assert (document["rows"], document["labels"], document["pairs"]) == (2, 2, 1)
    assert (document["statuses"], document["annotators"]) == ({"ok": 2}, {"judge": 2})


def test_the_command_prints_a_table_and_what_is_not_known(tmp_path, capsys):
    labels(a=[1]).write_parquet(tmp_path / "own.parquet")
    code, out = said(capsys, tmp_path / "own.parquet")
    assert code == 0
    assert "prefers output_1" in out and "1 labels of 1 pairs (1 ok)" in out
    assert "not known: $ per 1000 needs a column price" in out


def test_labels_may_come_from_the_store(store, capsys):
    artifact = Preferences(key=key_of("import", 1, {"n": 1}))
    store.write(artifact, Made(labels(a=[1])), Recipe.of("import", 1, {"n": 1}), 0.0)
    code, out = said(capsys, artifact.key[:8], "--json")
    assert (code, json.loads(out)["labels"]) == (0, 1)
    assert said(capsys, "0123456789abcdef", "--json")[0] == 2


def test_gold_of_other_pairs_is_named(tmp_path, capsys):
    labels(a=[1]).write_parquet(tmp_path / "own.parquet")
    labels(b=[1]).write_parquet(tmp_path / "gold.parquet")
    code, out = said(capsys, tmp_path / "own.parquet", "--gold", tmp_path / "gold.parquet")
    assert code == 2 and "gold.parquet: no labelled pair" in out


def test_gpt4s_published_labels_have_the_leanings_counted_by_hand():
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    judged = read(SHARED / "data" / "alpaca_eval_files" / "annotations.json", "preferences")
    found = card(judged)
    decided = [
        (len(a) > len(b)) == (label < 1.5)
        for a, b, label in judged.select("output_1", "output_2", "preference").iter_rows()
        if abs(len(a) - len(b)) > 30 and label != 1.5
    ]
    assert found["probability_prefer_longer"].value == pytest.approx(sum(decided) / len(decided))
    assert found["probability_prefer_1"].value == pytest.approx(2 - judged["preference"].mean())
    assert found["price_per_1000"].value == pytest.approx(1000 * judged["price"].mean())
    assert found["parse_rate"].value == 100
    assert found["variance"].value is None


@pytest.mark.timeout(60)
def test_a_pair_may_have_thousands_of_labels():
    names = {"generator_1": "gpt", "generator_2": "claude"}
    liking = [names | {"annotator": "gpt-4", "preference": 1.0}] * 1000
    fair = [names | {"annotator": "claude", "preference": 1.0 + n % 2} for n in range(1000)]
    found = card(rows(*liking, *fair))
    assert found["self_preference"] == (50, None, 1)
    # Of 2000 labels 1500 are 1, and so is the usual one of any 1999.
    assert found["variance"] == (25, None, 1)
