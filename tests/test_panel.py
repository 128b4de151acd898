"""Panels: what is shipped, and what is refused at the door."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from alpacafarm_core import panel
from alpacafarm_core.answers import Choice, Json, Said, Verdict, read
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
    again = panel.Panel.model_validate_json(loaded.model_dump_json())
    assert again.model_dump() == loaded.model_dump()


def test_the_pool_has_the_structure_of_alpacafarms() -> None:
    pool = panel.load("world").annotators
    prices = [each.price_per_1k_tokens for each in pool]
    assert [prices.count(price) for price in (0.03, 0.002, 0.02)] == [5, 4, 4]
    assert [each.batch for each in pool] == [4, 5, 5, 1, 5, 1, 1, 1, 1, 4, 1, 5, 1]
    assert [each.name for each in pool if each.answer.form == "json"] == ["gpt4_1", "chatgpt_2"]


def test_the_pool_for_evaluation_is_the_pool_without_its_noise() -> None:
    pool, without = panel.load("alpacafarm"), panel.load("p_eval")
    assert (pool.flip, without.flip) == (0.25, 0.0)
    assert pool.annotators == without.annotators
    assert panel.load("p_eval", flip=0.1).flip == 0.1
    structure = [(each.prompt, each.batch, each.answer) for each in pool.annotators]
    assert structure == [(e.prompt, e.batch, e.answer) for e in panel.load("world").annotators]


@pytest.mark.parametrize("name", ["alpacafarm", "greedy", "weighted", "local"])
def test_a_class_of_models_is_one_line(name: str) -> None:
    lines = (panel.PANELS / f"{name}.yaml").read_text().splitlines()
    models = {each.model for each in panel.load(name).annotators}
    assert [sum(f"model: {model}," in line for line in lines) for model in models] == [1] * len(
        models
    )


def test_a_panel_can_be_another_one_with_other_models(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "based_on: alpacafarm\nflip: 0.1\n"
        "models:\n  large: {model: qwen, endpoint: 'http://localhost:8000/v1'}\n"
        "  medium: {model: qwen, endpoint: 'http://localhost:8000/v1'}\n"
        "  small: {model: llama, endpoint: 'http://localhost:8000/v1', top_p: 0.9}\n"
    )
    (tmp_path / "same.yaml").write_text("based_on: base.yaml")
    (tmp_path / "base.yaml").write_text(YAML + "models: {world/oracle: world/coin}")
    (tmp_path / "own.txt").write_text(BLOCK)
    mine, same = panel.load(tmp_path / "mine.yaml"), panel.load(tmp_path / "same.yaml")
    assert (mine.name, mine.flip, len(mine.annotators)) == ("mine", 0.1, 13)
    assert [each.model for each in mine.annotators] == ["qwen"] * 9 + ["llama"] * 4
    assert mine.annotators[12].top_p == 0.9
    assert (same.name, same.annotators[0].model) == ("same", "world/coin")


def test_annotators_given_in_place_of_the_bases_bring_templates_of_their_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.yaml").write_text("based_on: world\nflip: 0.1\n" + YAML)
    (tmp_path / "own.txt").write_text(BLOCK)
    assert [each.prompt for each in panel.load(tmp_path / "mine.yaml").annotators] == [BLOCK]


def test_the_panels_of_the_page_for_newcomers_load(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "judges.md").read_text()
    blocks = [each.split("```")[0] for each in page.split("```yaml\n")[1:]]
    (tmp_path / "careful.txt").write_text(BLOCK)
    (tmp_path / "careful_with_input.txt").write_text(BLOCK + "{input}")
    whole = [each for each in blocks if "annotators:" in each or "based_on:" in each]
    for number, text in enumerate(whole):
        (tmp_path / f"{number}.yaml").write_text(text)
    pools = [panel.load(tmp_path / f"{number}.yaml").annotators for number in range(len(whole))]
    assert [len(pool) for pool in pools] == [1, 13, 2, 13]
    assert pools[1][12].top_p == 0.9


def test_an_annotators_own_field_overrules_its_models(tmp_path: Path) -> None:
    models = "models: {large: {model: m, temperature: 0.5, max_tokens: 7}}"
    text = YAML.replace("own.txt", "person_1.txt").replace("world/oracle", "large")
    (tmp_path / "mine.yaml").write_text(f"{text}    temperature: 0.0\n{models}")
    (one,) = panel.load(tmp_path / "mine.yaml").annotators
    assert (one.model, one.temperature, one.max_tokens) == ("m", 0.0, 7)


def test_weights_need_log_probabilities_and_turns_all_of_a_chats_text() -> None:
    weighted = {"form": "weighted", "first": "a", "verdicts": ["a", "b"]}
    with pytest.raises(ValidationError, match="one weighs tokens and asks for none"):
        annotator(answer=weighted)
    with pytest.raises(ValidationError, match="one weighs tokens"):
        annotator(answer={"form": "pipeline", "steps": [weighted]})
    turned = f"Hello.<|im_start|>user\n{BLOCK}<|im_end|>"
    with pytest.raises(ValidationError, match=r"'Hello\.' outside its turns"):
        annotator(prompt=turned)
    assert annotator(prompt=turned, prompt_with_input=turned, api="completions").prompt == turned


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
        (f"models: 5{YAML.replace('own.txt', 'person_1.txt')}", "models is no mapping"),
        (f"models: {{big: m}}{YAML.replace('own.txt', 'person_1.txt')}", "asks for the model big;"),
        ("based_on: p_eval", "p_eval is based on another panel; name that one"),
        ("based_on: wurld", "no panel wurld"),
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
    verdicts = read(Said(text), Choice(), size)
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
    verdicts = read(Said(text), Json(), size)
    assert (verdicts and [verdict.preference for verdict in verdicts]) == marks


@pytest.mark.parametrize("text", ["I'm sorry, but no.", "I cannot judge this.", "As an AI, I ..."])
def test_a_refusal_is_called_one(text: str) -> None:
    assert read(Said(text), Choice(), 1) == [Verdict(None, "refused")]
    assert read(Said(text), Json(), 1) == [Verdict(None, "refused")]
    assert read(Said(text), Choice(), 5) is None
