"""Sources: files of the user's, split so that nothing evaluated is ever trained on."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import sources
from alpacafarm_core.errors import BadInput, Damaged, Missing
from alpacafarm_core.setup import File, Files, World
from tests.tiny import tiny_model

PROMPTS = [f"Question {number}" for number in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Files:
    """Forty prompts with the reference's answers; the even ones also have one to imitate."""
    prompts = pl.DataFrame(
        {"instruction": PROMPTS, "input": [f"x{i % 2}" for i in range(40)], "davinci003": PROMPTS}
    )
    shown = prompts.filter(pl.Series(i % 2 == 0 for i in range(40)))
    pairs = pl.DataFrame(
        {
            "instruction": [f"{prompt}\n\nx{i % 2}" for i, prompt in enumerate(PROMPTS)],
            "output_1": "yes",
            "output_2": "no",
            "preference": [1.0 + i % 2 for i in range(40)],
        }
    )
    paths = {name: tmp_path / f"{name}.parquet" for name in ("prompts", "shown", "pairs")}
    prompts.write_parquet(paths["prompts"])
    shown.select("instruction", "input", output="davinci003").write_parquet(paths["shown"])
    pairs.write_parquet(paths["pairs"])
    return Files(
        instructions=File.model_validate(paths["prompts"]),
        demonstrations=File.model_validate(paths["shown"]),
        preferences=File.model_validate(paths["pairs"]),
    )


def prompts_of(rows: pl.DataFrame) -> set[tuple[str, str]]:
    return set(rows.select("instruction", "input").iter_rows())


def test_what_is_evaluated_is_in_no_other_table(source):
    evaluated = prompts_of(sources.instructions(source, "eval", 100))
    kept = prompts_of(sources.instructions(source, "unlabeled", 100))
    assert evaluated | kept == {(prompt, f"x{i % 2}") for i, prompt in enumerate(PROMPTS)}
    assert 10 < len(evaluated) < 30
    for rows in (sources.demonstrations(source, 100), sources.recorded(source)):
        assert rows.height and not evaluated & prompts_of(rows)


def test_demonstrations_to_test_on_are_those_that_training_leaves_out(source):
    trained = prompts_of(sources.demonstrations(source, 100))
    tested = prompts_of(sources.demonstrations(source, 100, "val"))
    assert tested <= prompts_of(sources.instructions(source, "eval", 100))
    assert len(trained | tested) == len(trained) + len(tested) == 20
    world = [prompts_of(sources.demonstrations(World(), 40, split)) for split in ("sft", "val")]
    assert not world[0] & world[1]


def test_a_recorded_pair_gets_its_instruction_and_input_back(source):
    assert prompts_of(sources.recorded(source)) == prompts_of(
        sources.instructions(source, "preference", 100)
    )


def test_the_reference_answers_what_is_evaluated(source):
    rows = sources.published(source, 100)
    assert prompts_of(rows) == prompts_of(sources.instructions(source, "eval", 100))
    assert rows["output"].to_list() == rows["instruction"].to_list()
    assert set(rows["generator"]) == {"davinci003"}
    with pytest.raises(BadInput, match="no column 'gpt5' for instructions, only"):
        sources.published(source.replace(reference="gpt5"), 100)


def test_a_file_that_changed_after_it_was_named_is_not_read(source):
    path = source.demonstrations.path
    pl.read_parquet(path).head(3).write_parquet(path)
    with pytest.raises(Damaged, match=r"shown.parquet changed since it was named"):
        sources.demonstrations(source, 1)


def test_a_source_is_checked_before_anything_is_made(source, tmp_path):
    sources.check(source)
    empty = pl.DataFrame({"instruction": ["a", "b"], "davinci003": ["x", None]})
    empty.write_parquet(tmp_path / "empty.parquet")
    file = File.model_validate(tmp_path / "empty.parquet")
    with pytest.raises(BadInput, match=r"empty.parquet: row 2 has no 'davinci003'"):
        sources.check(source.replace(instructions=file))
    mixed = tmp_path / "mixed.json"
    mixed.write_text(json.dumps([{"instruction": i, "davinci003": a} for i, a in ("ax", ("b", 3))]))
    with pytest.raises(BadInput, match=r"mixed.json: row 2, column 'davinci003': 3 is not text"):
        sources.check(source.replace(instructions=File.model_validate(mixed)))
    empty.head(1).write_parquet(tmp_path / "one.parquet")
    one = source.replace(instructions=File.model_validate(tmp_path / "one.parquet"))
    with pytest.raises(BadInput, match=r"none falls to the (eval|unlabeled) split"):
        [sources.instructions(one, split, 1) for split in ("eval", "unlabeled")]


def test_without_recorded_labels_the_mend_is_told(source):
    for one in (World(), source.replace(preferences=None)):
        with pytest.raises(BadInput, match="no recorded preferences; simulate them"):
            sources.recorded(one)


def test_a_changed_model_has_another_digest_in_the_same_process(tmp_path):
    tiny_model(tmp_path / "model")
    before = sources.pretrained(str(tmp_path / "model"))
    assert sources.pretrained(str(tmp_path / "model")) == before
    config = tmp_path / "model" / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    os.utime(config, ns=(1, 1))
    assert sources.pretrained(str(tmp_path / "model")) != before
    with pytest.raises(Damaged, match="changed while the flow ran"):
        sources.take_model(before, tmp_path)


def test_a_model_is_a_folder_with_safetensors(tmp_path):
    with pytest.raises(Missing, match=r"no model folder '\./none'"):
        sources.model_folder("./none")
    with pytest.raises(BadInput, match=r"holds no \.safetensors"):
        sources.pretrained(str(tmp_path))
