"""Panels of assessors: data that is read from files, and refused with the mend where it is odd."""

from pathlib import Path

import pytest

from alpacafarm_core.assessors import SHEETS, Assessor, Assessors, Purpose, Sheet, load, shipped
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.recipe import plain

PROMPT = "About {instruction}\n{outputs}"


def file_of(folder: Path, text: str) -> Path:
    (folder / "ask.txt").write_text(PROMPT)
    path = folder / "own.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("purpose", SHEETS)
@pytest.mark.parametrize("name", shipped())
def test_shipped_panels_have_sheets_for_every_purpose(name: str, purpose: Purpose) -> None:
    panel = load(name, purpose, seed=3)
    assert set(panel.sheets) <= set(SHEETS[purpose]) and panel.seed == 3
    assert panel.retries == 10


def test_an_own_panel_lies_beside_its_templates(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        "models: {m: {model: big, endpoint: 'http://localhost:1/v1'}}\n"
        "retries: 2\n"
        "knowledge: {quiz: The question is a trap.}\n"
        "assessors:\n- {name: a, model: m, sheets: {honesty: {prompt: ask.txt}}}\n",
    )
    panel = load(path, "rating")
    (judge,) = panel.assessors
    assert (judge.model, judge.sheets["honesty"].prompt) == ("big", PROMPT)
    assert (panel.name, panel.retries, panel.knowledge["quiz"][:12]) == ("own", 2, "The question")


def test_a_panel_may_be_based_on_a_shipped_one(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        "based_on: ultrafeedback\nmodels:\n"
        "  large: {model: mine, endpoint: 'http://localhost:1/v1'}\n",
    )
    panel = load(path, "rating")
    assert panel.endpoint == "http://localhost:1/v1"
    assert panel.sheets == load("ultrafeedback", "rating").sheets


def test_a_panel_is_keyed_by_its_text_and_its_purpose_not_by_what_it_could_do_besides() -> None:
    rating, tagging = load("world", "rating"), load("world", "tagging")
    assert "You label what people ask" not in str(plain(rating))
    assert "You label what people ask" in str(plain(tagging))
    assert "usual_tokens" not in str(plain(rating))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\nassessors: []", "takes no seed"),
        ("assessors: 3", "no list of assessors"),
        ("assessors: [x]", "an assessor is no mapping"),
        ("assessors: [{name: a, model: m}]", "sheets of an assessor are no mapping"),
        (
            "assessors: [{name: a, model: m, sheets: {honesty: {prompt: no.txt}}}]",
            "no template 'no.txt'",
        ),
        (
            "assessors: [{name: a, model: m, sheets: {beauty: {prompt: ask.txt}}}]",
            "sheet 'beauty' of a is none of instruction_following",
        ),
        (
            "assessors: [{name: a, model: m, sheets: {task: {prompt: ask.txt}}}]",
            "must show {instruction} once; it shows {instruction}, {outputs}",
        ),
        (
            "assessors: [{name: a, model: m, sheets: {honesty: {prompt: ask.txt, from: x}}}]",
            "unknown field",
        ),
        ("flip: 0.1\nassessors: [{name: a, model: m, sheets: {}}]", "own.yaml"),
    ],
)
def test_a_file_that_is_odd_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(BadInput) as refused:
        load(path, "rating")
    assert told in str(refused.value) and "own.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_panel_without_the_sheets_that_are_wanted_is_refused(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, "assessors: [{name: a, model: m, sheets: {honesty: {prompt: ask.txt}}}]"
    )
    with pytest.raises(BadInput, match="panel own has no sheet critique or repair; add one"):
        load(path, "critique")
    with pytest.raises(Missing, match="no panel of assessors nobody; shipped are local"):
        load("nobody", "rating")


def sheet(**changes: object) -> Sheet:
    return Sheet.model_validate({"prompt": PROMPT} | changes)


def judge(name: str = "a", **changes: object) -> Assessor:
    fields = {"name": name, "model": "m", "sheets": {"honesty": sheet()}}
    return Assessor.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ((judge(), judge()), "several assessors named a"),
        ((judge(), judge("b", endpoint="http://x/v1")), "ask one"),
        ((judge(), judge("b", sheets={"helpfulness": sheet()})), "only some assessors have"),
    ],
)
def test_a_pool_is_one(pool: tuple[Assessor, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Assessors(name="p", assessors=pool)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"block": "{output}"}, "does not show {number} and {output} once"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
    ],
)
def test_a_sheet_shows_its_answers_one_by_one(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sheet(**changes)


def test_a_template_of_a_chat_has_nothing_outside_its_turns() -> None:
    lost = "Be kind.<|im_start|>user\n{instruction} {outputs}\n<|im_end|>"
    with pytest.raises(ValueError, match=r"'Be kind\.' outside its turns"):
        judge(sheets={"honesty": sheet(prompt=lost)})


def test_a_bare_answer_fills_in_one_blank() -> None:
    with pytest.raises(ValueError, match="sheet honesty of a has several blanks; choose labelled"):
        judge(sheets={"honesty": sheet(form="bare")})
