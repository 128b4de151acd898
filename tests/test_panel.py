"""Panels: what is shipped, and what is refused at the door."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from alpacafarm_core import panel
from alpacafarm_core.answers import Choice, Json, Verdict, read
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.templates import Example, compiled, places, shortened

BLOCK = "I: {instruction} A: {output_1} B: {output_2}"
YAML = """
annotators:
  - name: one
    model: world/oracle
    prompt: own.txt
    prompt_with_input: own.txt
"""


def annotator(**changes: object) -> panel.Annotator:
    fields = {"name": "one", "model": "m", "prompt": BLOCK, "prompt_with_input": BLOCK}
    return panel.Annotator.model_validate(fields | changes)


def shown(number: int) -> Example:
    return Example(f"i{number}", "", f"a{number}", f"b{number}")


@pytest.mark.parametrize("name", panel.shipped())
def test_every_shipped_panel_loads_and_keys_by_content(name: str) -> None:
    loaded = panel.load(name, flip=0.25, seed=3)
    assert (loaded.name, loaded.flip, loaded.seed) == (name, 0.25, 3)
    assert all("{output_1}" in each.prompt for each in loaded.annotators)
    assert panel.Panel.model_validate_json(loaded.model_dump_json()) == loaded


def test_the_pool_has_the_structure_of_alpacafarms() -> None:
    pool = panel.load("world").annotators
    prices = [each.price_per_1k_tokens for each in pool]
    assert [prices.count(price) for price in (0.03, 0.002, 0.02)] == [5, 4, 4]
    assert [each.batch for each in pool] == [4, 5, 5, 1, 5, 1, 1, 1, 1, 4, 1, 5, 1]
    assert [each.name for each in pool if each.answer.form == "json"] == ["gpt4_1", "chatgpt_2"]


def test_an_unknown_panel_is_named_beside_the_known_ones() -> None:
    with pytest.raises(Missing, match=r"no panel wurld; shipped are .*world_clean"):
        panel.load("wurld")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (YAML, "no template 'own.txt'"),
        (YAML.replace("own.txt", "person_1.txt") + "    temprature: 1\n", "temprature"),
        (YAML.replace("own.txt", "guided_5.txt"), "does not show 1 examples"),
        ("annotators: [oracle]", "no mapping of fields"),
        ("judges: []", "no list of annotators"),
        ("- 1", "not a mapping"),
        ("a: [", r"not YAML at line 1 .*; mend that line"),
        (f"1: x{YAML.replace('own.txt', 'person_1.txt')}", "unknown field 1; take it out"),
        (YAML.replace("own.txt", "person_1.txt") + "    1: x\n", "unknown field annotators.0.1;"),
        (f"flip: 0.1\nname: a\nflip: 0.2{YAML}", "line 3 .key 'flip' stands twice"),
        (YAML + "    model: world/other\n", "line 7 .key 'model' stands twice"),
        (f"seed: 3{YAML}", "the seed comes from the setup, take it out"),
        (f"since: 2024-99-99{YAML}", "not YAML .month must be"),
        ("[" * 10_000, "not YAML"),
        (YAML.replace("own.txt", "Which is better? " * 100), "no template 'Which is better"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadInput, match=says):
        panel.load(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["mine.yaml", "own.txt"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "own.txt").write_text(BLOCK)
    (tmp_path / name).write_bytes("Größe".encode("latin-1"))
    with pytest.raises(BadInput, match=f"{name}: byte 2 is not UTF-8; save the file as UTF-8"):
        panel.load(tmp_path / "mine.yaml")


def test_templates_beside_the_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "own.txt").write_text(BLOCK)
    assert panel.load(tmp_path / "mine.yaml").annotators[0].prompt == BLOCK


def test_two_annotators_cannot_share_a_name() -> None:
    with pytest.raises(ValidationError, match="several annotators named one"):
        panel.Panel(name="p", annotators=(annotator(), annotator(model="other")))


def test_a_panel_asks_one_endpoint_and_names_no_secret() -> None:
    with pytest.raises(ValidationError, match="asks http://b, world://; ask one"):
        panel.Panel(name="p", annotators=(annotator(), annotator(name="b", endpoint="http://b")))
    with pytest.raises(ValidationError, match="endpoint"):
        annotator(endpoint="https://me:secret@host/v1")


def test_a_pattern_must_compile() -> None:
    with pytest.raises(ValidationError, match="no regular expression"):
        Choice(first="(")


def test_placeholders_inside_a_row_stay_text() -> None:
    row = Example("say {output_1}", "", "{output_2}<|im_end|>", "{instruction}")
    (message,) = compiled(BLOCK).fill([row])
    assert message.content == "I: say {output_1} A: {output_2}<|im_end|> B: {instruction}"


def test_chatml_becomes_turns_and_plain_text_one() -> None:
    text = f"<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n{BLOCK}\n<|im_end|>\n"
    assert [turn.role for turn in compiled(text).fill([shown(1)])] == ["system", "user"]
    assert [turn.role for turn in compiled(BLOCK).fill([shown(1)])] == ["user"]
    assert [turn.role for turn in compiled(BLOCK, "completions").fill([shown(1)])] == ["text"]


def test_a_batch_shows_its_rows_in_order_and_can_be_cut_short() -> None:
    text = f"Judge.\n1 {BLOCK}\n2 {BLOCK}\n3 {BLOCK}\nVerdicts"
    assert places(text).count("output_1") == 3
    (two,) = compiled(shortened(text, 2)).fill([shown(1), shown(2)])
    assert two.content == "Judge.\n1 I: i1 A: a1 B: b1\n2 I: i2 A: a2 B: b2\nVerdicts"
    assert shortened(text, 3) == text


@pytest.mark.parametrize(
    ("text", "size", "marks"),
    [
        ("Output (a)", 1, [1.0]),
        ("Output (b)\n Output (a)\nTie", 3, [2.0, 1.0, 1.5]),
        ("Output (a) is fine, but Output (b) is not.", 1, [1.0]),
        ("Output (a)\nOutput (b)", 3, None),
        ("I like both.", 1, [None]),
    ],
)
def test_choices_are_read_line_by_line(text: str, size: int, marks: list[float] | None) -> None:
    verdicts = read(text, Choice(), size)
    assert (verdicts and [verdict.preference for verdict in verdicts]) == marks


@pytest.mark.parametrize(
    ("text", "size", "marks"),
    [
        ('{"a_is_better": true}', 1, [1.0]),
        ('[{"a_is_better": false}, {"a_is_better": "tie"}]', 2, [2.0, 1.5]),
        ('Well:\n```json\n{"a_is_better": false}\n```', 1, [2.0]),
        ('I think: {"a_is_better": true}. Good luck!', 1, [1.0]),
        ('{"a_is_better": tr', 1, [None]),
        ('{"a_is_better": null}', 1, [None]),
        ('{"better": true}', 1, [None]),
        ('{"a_is_better": 7}', 1, [None]),
        ('{"a_is_better": 1.25}', 1, [1.25]),
        ('{"a_is_better": true}', 2, None),
        ("null", 1, [None]),
    ],
)
def test_json_is_read_by_its_key(text: str, size: int, marks: list[float] | None) -> None:
    verdicts = read(text, Json(), size)
    assert (verdicts and [verdict.preference for verdict in verdicts]) == marks


@pytest.mark.parametrize("text", ["I'm sorry, but no.", "I cannot judge this.", "As an AI, I ..."])
def test_a_refusal_is_called_one(text: str) -> None:
    assert read(text, Choice(), 1) == [Verdict(None, "refused")]
    assert read(text, Json(), 1) == [Verdict(None, "refused")]
    assert read(text, Choice(), 5) is None
