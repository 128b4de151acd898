"""Foreign files: what passes unchanged, and what is refused in which words."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.files import KINDS, load, read

SHARED = Path(os.environ.get("ALPACAFARM_SHARED") or Path(__file__).parents[2] / "shared")
PAIR = {"instruction": "Say hi", "output_1": "hi", "output_2": "hello", "preference": 2}
HEADER = "instruction,output_1,output_2,preference"


@pytest.fixture
def write(tmp_path):
    """Write text, bytes, rows or a frame under a name, and return the path."""

    def to(name: str, content: str | bytes | list | pl.DataFrame) -> Path:
        path = tmp_path / name
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            text = json.dumps(content) if isinstance(content, list) else content
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to


def refusal(path, kind="preferences") -> str:
    """The one line with which a file is refused."""
    with pytest.raises(BadInput) as caught:
        read(path, kind)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_columns_of_their_kind(write, kind):
    row = {"output": "a", "generator": "gpt", "model": "x", "win_rate": 5.5, **PAIR}
    row |= {"response": "a", "label": "SAT"}
    rows = read(write("rows.json", [row]), kind)
    assert rows.schema == pl.Schema(KINDS[kind].columns)


def test_all_formats_say_the_same(write):
    lines = '{"instruction": "a", "output": "1"}\n\n{"instruction": "b", "output": ""}\n'
    expected = read(write("rows.jsonl", lines), "candidates")
    assert expected["output"].to_list() == ["1", ""]
    for path in (
        write("lines.json", lines),
        write("rows.csv", "instruction,output\na,1\nb,\n"),
        write("rows.tsv", "\ufeffinstruction\toutput\na\t1\nb\t\n"),
        write("rows.parquet", pl.DataFrame({"instruction": ["a", "b"], "output": ["1", ""]})),
    ):
        assert read(path, "candidates").equals(expected)


def test_what_a_file_does_not_say_is_filled_in(write):
    (row,) = read(write("pairs.json", [PAIR]), "preferences").to_dicts()
    assert (row["input"], row["output_1_ids"], row["is_noisy"]) == ("", [], False)
    assert (row["price"], row["tokens"]) == (None, None)


def test_our_own_table_comes_back_unchanged(write):
    rows = read(write("pairs.json", [PAIR]), "preferences").with_columns(
        output_1_ids=pl.Series([[1, 2]], dtype=Preferences.columns["output_1_ids"]),
        is_noisy=pl.lit(True),
        status=pl.lit("refused"),
        preference=pl.lit(None, dtype=pl.Float64),
    )
    assert read(write("rows.parquet", rows), "preferences").equals(rows)


def test_old_ties_and_failures_are_told_apart(write):
    labels = [1, 0, 1.5, -1, None, 1.25]
    rows = read(write("a.json", [PAIR | {"preference": x} for x in labels]), "preferences")
    assert rows["preference"].to_list() == [1, 1.5, 1.5, None, None, 1.25]
    assert rows["status"].to_list() == ["ok", "tie", "tie", "failed", "failed", "ok"]


def test_both_generations_of_alpaca_eval_names_are_known(write):
    old = PAIR | {"price_per_example": 0.1, "time_per_example": 2, "raw_completion": "m"}
    new = PAIR | {
        "preference_price_per_example": 0.1,
        "preference_time_per_example": 2.0,
        "preference_raw_completion": "m",
    }
    first, second = (read(write("a.json", [row]), "preferences") for row in (old, new))
    assert first.equals(second)
    assert first["seconds"][0] == 2


def test_a_judges_whole_answer_is_kept_as_json(write):
    raw = [{"logprobs": []}, "m", None]
    path = write("a.json", [PAIR | {"raw_completion": value} for value in raw])
    found = read(path, "preferences")["raw_completion"].to_list()
    assert found == ['{"logprobs": []}', "m", ""]


def test_chosen_and_rejected_become_a_pair(write):
    rows = read(
        write("a.json", [{"prompt": "Say hi", "chosen": "hi", "rejected": "no"}]), "preferences"
    )
    (row,) = rows.select("instruction", "output_1", "output_2", "preference").rows()
    assert row == ("Say hi", "hi", "no", 1)


QUESTION = {"role": "user", "content": "Sky?"}
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("Blue.", "Green."))
SYSTEM = {"role": "system", "content": "Be short."}
TALK = [QUESTION, GREEN, {"role": "user", "content": "Sure?"}]
CHOSEN = {
    "a prompt of messages": (
        {"prompt": [QUESTION], "chosen": [BLUE], "rejected": [GREEN]},
        ("Sky?", "Blue.", "Green."),
    ),
    "messages that hold the prompt": (
        {"chosen": [QUESTION, BLUE], "rejected": [QUESTION, GREEN]},
        ("Sky?", "Blue.", "Green."),
    ),
    "a text that the messages repeat": (
        {"prompt": "Sky?", "chosen": [QUESTION, BLUE], "rejected": [QUESTION, GREEN]},
        ("Sky?", "Blue.", "Green."),
    ),
    "a text and one message each": (
        {"prompt": "Sky?", "chosen": [BLUE], "rejected": [GREEN]},
        ("Sky?", "Blue.", "Green."),
    ),
    "messages answered by texts": (
        {"prompt": [SYSTEM, QUESTION], "chosen": "Blue.", "rejected": "Green."},
        ("Be short.\n\nSky?", "Blue.", "Green."),
    ),
    "a longer talk": (
        {"prompt": TALK, "chosen": [BLUE], "rejected": [GREEN]},
        ("user: Sky?\n\nassistant: Green.\n\nuser: Sure?", "Blue.", "Green."),
    ),
    "texts that begin alike": (
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        ("The sky is", "blue.", "black."),
    ),
    "one turn of Human and Assistant": (
        {
            "chosen": "\n\nHuman: Sky?\n\nAssistant: It is blue.",
            "rejected": "\n\nHuman: Sky?\n\nAssistant: It is green.",
        },
        ("Sky?", "It is blue.", "It is green."),
    ),
}


@pytest.mark.parametrize("shape", CHOSEN)
@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_all_shapes_of_chosen_and_rejected_say_the_same(write, shape, ending):
    row, expected = CHOSEN[shape]
    path = write(f"a.{ending}", pl.DataFrame([row]) if ending == "parquet" else [row])
    (found,) = read(path, "preferences").to_dicts()
    told = tuple(found[name] for name in ("instruction", "output_1", "output_2"))
    assert (told, found["preference"], found["status"]) == (expected, 1, "ok")


def test_ordinal_labels_are_for_the_side_they_lean_to(write):
    pair = {name: held for name, held in PAIR.items() if name != "preference"}
    rows = [pair | {"raw_preference": label} for label in (1, 2, 3, 4, 0, None)]
    expected = [1, 1, 2, 2, 1.5, None]
    assert read(write("a.json", rows), "preferences")["preference"].to_list() == expected
    csv = "instruction,output_1,output_2,raw_preference\na,b,c,3\na,b,c,\n"
    assert read(write("a.csv", csv), "preferences")["preference"].to_list() == [2, None]
    human = [PAIR | {"raw_preference": 1}]
    assert read(write("b.json", human), "preferences")["preference"].to_list() == [2]


def rated(response: str, *marks: object, model: str = "m") -> dict:
    """A completion as UltraFeedback has it, with a mark for each aspect."""
    return {
        "response": response,
        "model": model,
        "annotations": {str(n): {"Rating": mark, "Rationale": "."} for n, mark in enumerate(marks)},
        "overall_score": 10,
    }


def test_ratings_become_every_pair_of_different_marks(write):
    answers = [rated("bad", "1", "2"), rated("good", "5", "N/A"), rated("poor", "1.5", "N/A")]
    row = {"source": "flan", "instruction": "Sky?", "completions": answers}
    expected = [("flan", "Sky?", "bad", "good", 2), ("flan", "Sky?", "good", "poor", 1)]
    columns = ["dataset", "instruction", "output_1", "output_2", "preference"]
    for path in (write("a.jsonl", json.dumps(row)), write("a.parquet", pl.DataFrame([row]))):
        rows = read(path, "preferences")
        assert rows.select(columns).rows() == expected
        assert rows["generator_2"].to_list() == ["m", "m"]


def test_an_overall_score_stands_in_where_no_aspect_was_rated(write):
    answers = [rated("a", "N/A") | {"overall_score": mark} for mark in (7.5, 8)]
    rows = read(write("a.json", [{"instruction": "i", "completions": answers}]), "preferences")
    assert rows["preference"].to_list() == [2]


def test_ratings_may_stand_in_a_list_of_their_own(write):
    row = {
        "prompt": "i",
        "generations": ["x", "y", "z"],
        "ratings": [3, None, 4],
        "generation_models": ["a", "b", "c"],
    }
    (found,) = read(write("a.json", [row]), "preferences").to_dicts()
    assert (found["instruction"], found["generator_1"], found["generator_2"]) == ("i", "a", "c")
    assert found["preference"] == 2


def test_answers_to_one_prompt_are_counted(write):
    path = write("a.json", [{"instruction": i, "output": "x"} for i in "abaa"])
    assert read(path, "candidates")["sample_index"].to_list() == [0, 0, 1, 2]


def test_the_first_of_a_prompt_may_be_kept(write):
    path = write("a.csv", "instruction,dataset\na,1\nb,2\na,3\n")
    assert read(path, "instructions", duplicates="first")["dataset"].to_list() == ["1", "2"]


def test_a_published_leaderboard_names_models_in_its_first_column(write):
    path = write("board.csv", ",win_rate,n_wins,avg_length\ngpt4,95.5,761.0,\n")
    (row,) = read(path, "leaderboard").to_dicts()
    assert (row["model"], row["n_wins"], row["avg_length"]) == ("gpt4", 761, None)


BAD = {
    "missing column": ("a.json", [{"instruction": "a"}], ["no column 'output_1'"]),
    "misspelt column": (
        "a.json",
        [{"instruction": "a", "output_1": "b", "output2": "c", "preference": 1}],
        ["no column 'output_2'", "rename 'output2'"],
    ),
    "empty file": ("a.json", "", ["empty"]),
    "no rows": ("a.json", [], ["no rows"]),
    "header only": ("a.csv", f"{HEADER}\n", ["no rows"]),
    "broken array": ("a.json", '[\n{"a": 1},\n{"a" 2}]', ["line 3", "broken JSON"]),
    "broken line": ("a.jsonl", '{"a": 1}\n{"a": \n', ["line 2", "broken JSON"]),
    "not an array": ("a.json", '{"a": 1}', ["array of objects"]),
    "not an object": ("a.json", [PAIR, 7], ["row 2", "int"]),
    "not UTF-8": ("a.json", b'[{"a": "\xff"}]', ["byte 8", "UTF-8"]),
    "ragged CSV": ("a.csv", "instruction,b\nx,y\nx,y,z\n", ["line 3", "3 fields"]),
    "short CSV row": ("a.csv", "instruction,b\nx,y\nx\n", ["line 3", "1 fields"]),
    "not Parquet": ("a.parquet", b"PAR1 nonsense", ["not a Parquet file"]),
    "unknown ending": ("a.xlsx", b"PK", ["unknown ending", ".parquet"]),
    "NaN": ("a.json", [PAIR, PAIR | {"preference": float("nan")}], ["row 2", "nan"]),
    "out of range": ("a.json", [PAIR, PAIR | {"preference": 3}], ["row 2", "3.0", "outside"]),
    "text for a number": (
        "a.csv",
        f"{HEADER}\na,b,c,1\na,b,c,first\n",
        ["row 2", "'preference'", "'first'"],
    ),
    "mixed numbers": ("a.json", [PAIR, PAIR | {"preference": "x"}], ["row 2", "'x'"]),
    "number for a text": ("a.json", [PAIR | {"output_1": 5}], ["row 1", "'output_1'", "not text"]),
    "list for a text": ("a.json", [PAIR, PAIR | {"output_2": ["x"]}], ["row 2", "not text"]),
    "no answer": ("a.json", [PAIR, PAIR | {"output_2": None}], ["row 2", "'output_2'"]),
    "no answer at all": ("a.json", [PAIR | {"output_2": None}], ["'output_2'", "no value"]),
    "blank instruction": ("a.json", [PAIR | {"instruction": " "}], ["row 1", "'instruction'"]),
    "other flags": ("a.json", [PAIR | {"is_noisy": ["x"]}], ["'is_noisy'"]),
    "half a flag": ("a.json", [PAIR, PAIR | {"is_noisy": 0.5}], ["row 2", "0.5", "Boolean"]),
    "half a token": ("a.json", [PAIR | {"output_1_ids": [1.5]}], ["row 1", "[1.5]", "Int32"]),
    "flag for a number": ("a.json", [PAIR | {"preference": True}], ["row 1", "True", "number"]),
    "part of a token": ("a.json", [PAIR, PAIR | {"tokens": 1.7}], ["row 2", "1.7", "whole"]),
    "as text": ("a.csv", f"{HEADER},tokens\na,b,c,1,1.7\n", ["row 1", "'1.7'", "whole"]),
    "beyond 64 bits": ("a.json", [PAIR | {"tokens": 1e30}], ["row 1", "1e+30", "whole"]),
    "30 digits": ("a.json", [PAIR, PAIR | {"tokens": 10**30}], ["row 2", "'tokens'", "whole"]),
    "400 digits": ("a.json", [PAIR, PAIR | {"tokens": 10**400}], ["row 2", "'tokens'", "1000"]),
    "5000 digits": ("a.json", f'[{{"a": 1}}, {{"a": {"9" * 5000}}}]', ["row 2", "digits"]),
    "unknown status": (
        "a.json",
        [PAIR | {"status": "ok"}, PAIR | {"status": "banana"}],
        ["row 2", "'banana' is none of ok, tie, refused, unparsable, failed"],
    ),
    "ok without label": (
        "a.json",
        [PAIR, PAIR | {"status": "ok", "preference": None}],
        ["row 2", "status 'ok' with preference None"],
    ),
    "tie with a winner": ("a.json", [PAIR | {"status": "tie"}], ["row 1", "'tie'", "2.0"]),
    "failed with label": ("a.json", [PAIR | {"status": "failed"}], ["row 1", "'failed'", "2.0"]),
    "key twice": ("a.json", '[{"a": 1},\n{"b": 2, "b": 3}]', ["row 2", "key 'b' twice"]),
    "key twice inside": ("a.json", '[{"a": {"b": 2, "b": 3}}]', ["row 1", "key 'b' twice"]),
    "key twice on a line": ("a.jsonl", '{"a": 1}\n{"b": 2, "b": 3}', ["line 2", "key 'b' twice"]),
    "header twice": ("a.csv", f"{HEADER},output_1\na,b,c,1,d\n", ["line 1", "'output_1' twice"]),
    "half a character": ("a.json", '[{"a": 1},\n{"a": "\\ud83d"}]', ["line 2, column 8", "ud83d"]),
    "other half": ("a.jsonl", '{"a": "\\\\\\uDE00"}', ["line 1", "uDE00"]),
    "too deep": ("a.json", "[" * 100_000, ["row 1", "nested too deeply"]),
    "deep on a line": ("a.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000, ["line 2", "too deeply"]),
    "no fifth point": (
        "a.json",
        [{"instruction": "a", "output_1": "b", "output_2": "c", "raw_preference": 5}],
        ["row 1", "'raw_preference'", "5 is none of 1, 2, 3 and 4"],
    ),
    "labels up to 4": ("a.json", [PAIR, PAIR | {"preference": 4}], ["row 2", "'raw_preference'"]),
    "two talks": (
        "a.json",
        [{"chosen": [QUESTION, BLUE], "rejected": [*TALK, BLUE]}],
        ["row 1", "'chosen'", "before the last message"],
    ),
    "two prompts": (
        "a.json",
        [{"prompt": "Sea?", "chosen": [QUESTION, BLUE], "rejected": [QUESTION, GREEN]}],
        ["row 1", "another prompt"],
    ),
    "messages without prompt": ("a.json", [{"chosen": [BLUE], "rejected": [GREEN]}], ["'prompt'"]),
    "texts without prompt": ("a.json", [{"chosen": "a", "rejected": "b"}], ["row 1", "'prompt'"]),
    "no messages": (
        "a.json",
        [{"prompt": "i", "chosen": [{"role": "user"}], "rejected": [BLUE]}],
        ["row 1", "'chosen'", "messages"],
    ),
    "a rating in words": (
        "a.json",
        [{"instruction": "i", "completions": [rated("a", "good"), rated("b", "2")]}],
        ["row 1", "'completions'", "good"],
    ),
    "ratings alike": (
        "a.json",
        [{"instruction": "i", "completions": [rated("a", "2"), rated("b", "2")]}],
        ["different ratings"],
    ),
    "too few ratings": (
        "a.json",
        [{"instruction": "i", "generations": ["a", "b"], "ratings": [1]}],
        ["row 1", "one length"],
    ),
    "ratings that are one text": (
        "a.json",
        [{"instruction": "i", "generations": ["a", "b"], "ratings": "54"}],
        ["row 1", "lists of one length"],
    ),
    "one rating for all": (
        "a.json",
        [{"instruction": "i", "generations": ["a", "b"], "ratings": 5}],
        ["row 1", "lists of one length"],
    ),
    "an endless rating": (
        "a.json",
        [{"instruction": "i", "generations": ["a", "b"], "ratings": ["inf", "1"]}],
        ["row 1", "not numbers"],
    ),
    "aspects without names": (
        "a.json",
        [{"instruction": "i", "completions": [{"response": "a", "annotations": [1]}]}],
        ["row 1", "aspects by name"],
    ),
    "a talk that ends with a question": (
        "a.json",
        [{"chosen": [QUESTION, BLUE, QUESTION], "rejected": [QUESTION, BLUE, GREEN]}],
        ["row 1", "'chosen'", "end it with the answer"],
    ),
    "ratings of nothing": (
        "a.json",
        [{"instruction": " ", "completions": [rated("a", "2")]}],
        ["row 1", "'instruction'"],
    ),
    "no list of answers": (
        "a.json",
        [{"instruction": "i", "completions": "a"}],
        ["row 1", "no list of answers"],
    ),
    "an answer in numbers": (
        "a.json",
        [{"instruction": "i", "completions": [{"response": 7, "score": 1}]}],
        ["row 1", "7, not a text"],
    ),
    "long and ragged": ("a.csv", f"a,b\n{'x' * 200_000},y\nx\n", ["line 3", "1 fields"]),
}


def test_a_column_output_2_beside_chosen_and_rejected_is_not_the_rejected_one(write):
    row = {"instruction": "i", "chosen": "a", "rejected": "b", "output_2": "c"}
    assert read(write("a.json", [row]), "preferences")["output_2"].to_list() == ["b"]


def test_an_answer_of_a_model_without_name_is_nobodys(write):
    row = {"instruction": "i", "generations": ["a", "b"], "ratings": [1, 2], "models": [None, "m"]}
    rows = read(write("a.json", [row]), "preferences")
    assert (rows["generator_1"].item(), rows["generator_2"].item()) == ("", "m")


@pytest.mark.parametrize("why", BAD)
def test_a_bad_file_is_refused_in_one_line(write, why):
    name, content, words = BAD[why]
    line = refusal(write(name, content))
    assert all(word in line for word in words), line


def test_a_prompt_that_comes_twice_names_both_rows(write):
    path = write("a.csv", "instruction,input\nb,\na,x\na,\na,x\n")
    assert "rows 2 and 4" in refusal(path, "instructions")


def test_an_answer_that_comes_twice_names_both_rows(write):
    row = {"instruction": "a", "output": "x", "generator": "gpt"}
    numbered = [row | {"sample_index": i} for i in (0, 1, 1)]
    line = refusal(write("a.json", numbered), "candidates")
    assert "rows 2 and 3 are the same answer" in line
    other = [numbered[1], numbered[2] | {"generator": "llama"}]
    assert read(write("b.json", other), "candidates").height == 2


def test_answers_are_numbered_all_or_none(write):
    rows = [{"instruction": "a", "output": "x", "sample_index": i} for i in (0, None)]
    assert "row 2 has no 'sample_index'" in refusal(write("a.json", rows), "candidates")
    none = read(write("b.csv", "instruction,output,sample_index\na,x,\na,y,\n"), "candidates")
    assert none["sample_index"].to_list() == [0, 1]


def test_a_whole_number_keeps_every_digit(write):
    seeds = ["9007199254740993", "5.0", ""]
    csv = "instruction,output,seed\n" + "".join(f"a,x,{seed}\n" for seed in seeds)
    assert read(write("a.csv", csv), "candidates")["seed"].to_list() == [2**53 + 1, 5, None]


def test_a_status_left_empty_is_filled_in(write):
    rows = [PAIR | {"status": status} for status in ("ok", "", None)]
    assert read(write("a.json", rows), "preferences")["status"].to_list() == ["ok"] * 3


def test_a_whole_character_may_be_written_in_two_halves(write):
    path = write("a.json", r'[{"instruction": "\\ud83d \ud83d\ude00", "output": "x"}]')
    assert read(path, "candidates")["instruction"].to_list() == ["\\ud83d \U0001f600"]


def test_a_long_field_is_read(write):
    path = write("a.csv", f"instruction,output\na,{'x' * 200_000}\nb,\n")
    assert read(path, "candidates")["output"].str.len_chars().to_list() == [200_000, 0]


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["hi", "hello"])], ids=str)
def test_categories_in_parquet_are_text(write, kind):
    rows = pl.DataFrame([PAIR]).cast({"output_1": kind, "output_2": kind})
    read_back = read(write("a.parquet", rows), "preferences")
    assert read_back.select("output_1", "output_2").row(0) == ("hi", "hello")


def test_an_empty_column_of_numbers_in_parquet_is_absent_text(write):
    rows = pl.DataFrame([PAIR]).with_columns(input=pl.lit(None, dtype=pl.Float64))
    assert read(write("a.parquet", rows), "preferences")["input"].to_list() == [""]


def test_a_date_in_parquet_is_no_number(write):
    rows = pl.DataFrame([PAIR]).with_columns(preference=pl.date(2024, 1, 1))
    assert "not a finite number" in refusal(write("a.parquet", rows))


def test_a_parquet_file_cut_short_is_refused(write):
    whole = write("a.parquet", pl.DataFrame([PAIR])).read_bytes()
    assert "cut short" in refusal(write("b.parquet", whole[: len(whole) // 2]))


def test_a_nan_in_parquet_is_refused(write):
    rows = pl.DataFrame([PAIR | {"preference": x} for x in (1.0, float("nan"))])
    assert "row 2" in refusal(write("a.parquet", rows))


def test_a_kind_may_go_by_the_tools_name_for_it(write):
    path = write("a.json", [PAIR])
    assert read(path, "annotations").equals(read(path, "preferences"))
    with pytest.raises(BadInput, match="cannot read a file as 'pairs'; use instructions"):
        read(path, "pairs")


def test_no_file_is_missing(tmp_path):
    with pytest.raises(Missing, match="no file"):
        load(tmp_path / "nowhere.json")


@pytest.fixture
def shared() -> Path:
    """The folder of published data beside the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    return SHARED / "data"


def test_the_tools_own_files_pass_unchanged(shared):
    outputs = read(shared / "alpaca_eval_files" / "model_outputs.json", "candidates")
    judged = read(shared / "alpaca_eval_files" / "annotations.json", "preferences")
    assert outputs.schema == pl.Schema(Candidates.columns)
    assert outputs.height == judged.height == 805
    assert judged["output_2"].to_list() == outputs["output"].to_list()
    assert judged["preference"].null_count() == 0


@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [
        ("alpaca_eval_805.parquet", "instructions", 805),
        ("seed_tasks_175.parquet", "demonstrations", 175),
        ("gpt4_judged_pairs.parquet", "preferences", 8050),
        ("published_leaderboard.csv", "leaderboard", 10),
    ],
)
def test_published_tables_pass_whole(shared, name, kind, rows):
    assert read(shared / name, kind).height == rows


def test_flags_of_a_csv_are_read(write):
    text = f"{HEADER},is_switched\np,a,b,1,true\nq,a,b,2,False\nr,a,b,2,\n"
    assert read(write("a.csv", text), "preferences")["is_switched"].to_list() == [
        True,
        False,
        False,
    ]
    assert "is_switched" in refusal(write("b.csv", f"{HEADER},is_switched\np,a,b,1,maybe\n"))
