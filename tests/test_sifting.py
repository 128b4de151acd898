"""Filters on invented instructions: their order, their names, the same again, refusals."""

import polars as pl
import pytest

from alpacafarm_core.artifacts import Candidates, Scores
from alpacafarm_core.errors import BadInput
from alpacafarm_core.languages import language
from alpacafarm_core.ratings import Tags
from alpacafarm_core.setup import World
from alpacafarm_core.sifting import admitted, collected, kept, sifted
from alpacafarm_core.synthesis import Drafts, Filtering, Invented, Neighbours, Sifted, Synthetic
from alpacafarm_core.unseen import evaluated
from alpacafarm_core.world.instructions import instructions
from tests.tiny import frame

ANY = Filtering(quality=(), reward_above=None, repeats=True, longest=None)
ASKED = ("Name a fruit.", "Name a tree and say:", "Nenne einen Baum und die Farbe.", "Add 1.")
NOTHING = {"tags": None, "scores": None, "base_scores": None, "neighbours": None}


def invented(*asked: str) -> pl.DataFrame:
    rows = [
        {"instruction": each, "input": "", "asked": each, "prompt": each, "history": "[]"}
        for each in asked
    ]
    return frame(Invented, rows)


def answers(*outputs: str, asked: tuple[str, ...] = ASKED) -> pl.DataFrame:
    rows = [
        {"instruction": each, "input": "", "output": text.rstrip("…"),
         "finish_reason": "length" if text.endswith("…") else "stop"}
        for each, text in zip(asked, outputs, strict=True)
    ]  # fmt: skip
    return frame(Candidates, rows)


def known(kind: type, **columns: list) -> pl.DataFrame:
    """A table about the four instructions."""
    rows = [
        {"instruction": asked, "input": "", **dict(zip(columns, held, strict=True))}
        for asked, *held in zip(ASKED, *columns.values(), strict=True)
    ]
    return frame(kind, rows)


def removed(filtering: Filtering, answered: pl.DataFrame | None = None, **tables) -> list[str]:
    """Which filter removed each of the four rows."""
    given = answers("a", "bb", "ccc", "dddd") if answered is None else answered
    rows, _ = sifted(invented(*ASKED), given, NOTHING | tables, filtering)
    return rows["removed_by"].to_list()


def test_rows_that_were_cut_off_or_not_answered_are_left_out():
    cut = answers("a", "b…", " ", "d")
    assert removed(ANY.replace(colon=True), cut) == ["", "unfinished", "no_answer", ""]


def test_instructions_that_end_in_a_colon_are_left_out():
    assert removed(ANY) == ["", "colon", "", ""]


def test_other_languages_are_left_out():
    wanted = ANY.replace(colon=True, language="en", unfinished=True)
    assert removed(wanted) == ["", "", "language", "language"]  # a text of two words has none


def test_poor_or_unread_quality_and_unwanted_difficulty_are_left_out():
    tags = known(Tags, quality=["good", "poor", None, "excellent"], difficulty=["easy"] * 4)
    assert removed(ANY.replace(quality=("good", "excellent"), colon=True), tags=tags) == [
        "", "quality", "quality", "",
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"leave none of 4 rows.*'difficulty': 4"):
        removed(ANY.replace(difficulty=("hard",), colon=True), tags=tags)


def test_low_rewards_and_rewards_not_above_the_bases_are_left_out():
    scores = known(Scores, score=[1.0, -10.0, 0.0, 2.0])
    base = known(Scores, score=[0.5, -11.0, 0.0, 3.0])
    filtering = ANY.replace(reward_above=-10.0, difference_above=0.0, colon=True)
    assert removed(filtering, scores=scores, base_scores=base) == [
        "", "reward", "reward_difference", "reward_difference",
    ]  # fmt: skip


def test_near_duplicates_of_an_earlier_row_are_left_out():
    near = known(Neighbours, min_similar_id=[0, None, 0, 2])
    assert removed(ANY.replace(repeats=False, colon=True), neighbours=near) == [
        "", "", "repeats", "repeats",
    ]  # fmt: skip
    apart = known(Neighbours, min_neighbor_distance=[0.0, 0.3, 0.0, None])
    assert removed(ANY.replace(distance_above=0.0, colon=True), neighbours=apart) == [
        "distance", "", "distance", "distance",
    ]  # fmt: skip


def test_the_longest_answers_are_taken_last_of_what_is_left():
    assert removed(ANY.replace(longest=2)) == ["longest", "colon", "", ""]
    tags = known(Tags, quality=["good", "good", "good", "poor"], difficulty=["easy"] * 4)
    both = ANY.replace(longest=1, quality=("good",))
    # Were length first, the poor row would be the only one and nothing be left.
    assert removed(both, tags=tags) == ["longest", "colon", "", "quality"]


def test_of_equally_long_answers_the_earlier_is_kept():
    same = answers("a", "a", "a", "a")
    assert removed(ANY.replace(longest=2, colon=True), same) == ["", "", "longest", "longest"]


def test_what_each_filter_removed_is_counted_in_order():
    _, left = sifted(
        invented(*ASKED), answers("a…", "b", "c", "dd"), NOTHING, ANY.replace(longest=1)
    )
    assert left == {"unfinished": 1, "no_answer": 0, "colon": 1, "longest": 1}


def test_to_filter_twice_changes_nothing():
    filtering = ANY.replace(longest=2)
    once, _ = sifted(invented(*ASKED), answers("a", "bb", "ccc", "dddd"), NOTHING, filtering)
    rows = kept(once)
    again = invented(*rows["asked"])
    given = answers(*rows["output"], asked=tuple(rows["asked"]))
    twice, left = sifted(again, given, NOTHING, filtering)
    assert kept(twice)["asked"].equals(rows["asked"]) and not any(left.values())


def test_all_that_is_known_stands_beside_each_row():
    tags = known(Tags, quality=["good"] * 4, difficulty=["hard"] * 4, task=["math"] * 4)
    tables = {
        "tags": tags,
        "scores": known(Scores, score=[1.0, 2.0, 3.0, 4.0]),
        "base_scores": known(Scores, score=[0.0, 3.0, 1.0, 1.0]),
        "neighbours": known(Neighbours, min_neighbor_distance=[0.5] * 4, repeat_count=[0] * 4),
    }
    rows, _ = sifted(invented(*ASKED), answers("a", "bb", "ccc", "dddd"), tables, ANY)
    assert dict(rows.schema) == Sifted.columns
    assert rows["reward_difference"].to_list() == [1.0, -1.0, 2.0, 3.0]
    assert rows["length"].to_list() == [1, 2, 3, 4] and rows["task"].unique().to_list() == ["math"]
    assert dict(kept(rows).schema) == Synthetic.columns


def test_a_filter_without_evidence_is_refused_by_name():
    with pytest.raises(BadInput, match="ask for tags, scores, neighbours, which nobody made"):
        removed(Filtering())


def test_a_table_about_other_rows_is_refused_by_its_row():
    other = known(Scores, score=[1.0] * 4)[[0, 2, 1, 3]]
    with pytest.raises(BadInput, match="row 1: scores is about another prompt"):
        removed(ANY, scores=other)
    with pytest.raises(BadInput, match=r"row 3: scores is .* \(3 and 4 rows\)"):
        removed(ANY, scores=known(Scores, score=[1.0] * 4)[:3])


def drafts(*statuses: str, history: str = "[]") -> pl.DataFrame:
    rows = [
        {"instruction": f"Do {at % 2}.", "input": "", "status": status, "history": history}
        for at, status in enumerate(statuses)
    ]
    return frame(Drafts, rows)


def test_usable_draws_that_no_evaluation_asks_are_admitted_and_the_others_counted():
    asked = pl.Series([False, True, False, True])
    rows, notes = admitted(drafts("ok", "ok", "ok", "empty"), asked)
    assert rows["instruction"].to_list() == ["Do 0.", "Do 0."]
    assert notes == {
        "draws": 4, "status_ok": 3, "status_empty": 1, "evaluated": 1, "distinct": 1,
    }  # fmt: skip


def test_draws_of_which_none_is_left_are_refused_but_for_further_turns():
    nobody = pl.Series([False, False])
    with pytest.raises(BadInput, match="of 2 draws none can be used"):
        admitted(drafts("empty", "special"), nobody)
    rows, _ = admitted(drafts("empty", "special", history='[{"role": "user"}]'), nobody)
    assert rows.is_empty()
    later, left = sifted(rows, frame(Candidates, []), NOTHING, ANY)
    assert later.is_empty() and not any(left.values())


def test_an_evaluation_prompt_of_the_world_is_known_in_other_words_too():
    rows = instructions("eval", 40) + instructions("unlabeled", 40)
    prompts = pl.DataFrame(rows).select("instruction", "input")
    prompts = prompts.with_columns(("Hello. " + pl.col("instruction")).alias("instruction"))
    plain = pl.DataFrame(rows).select("instruction", "input")
    assert evaluated(plain, World()).to_list() == [True] * 40 + [False] * 40
    assert evaluated(prompts, World()).sum() >= 15  # those that had no context before
    nonsense = pl.DataFrame({"instruction": ["xyzzy"], "input": [""]})
    assert evaluated(nonsense, World()).to_list() == [False]


def test_tables_of_several_turns_are_one_below_the_other():
    rows = frame(Synthetic, [{"asked": "a"}]), frame(Synthetic, [{"asked": "b"}])
    assert collected(rows)["asked"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Tell me which one is a mammal: the lion or the giraffe.", "en"),
        ("Schreibe mir ein Gedicht über die See und den Wind.", "de"),
        ("Écris une lettre pour les amis de la famille.", "fr"),
        ("Escribe una carta para los amigos de la familia.", "es"),
        ("写一封信给朋友", "zh"),
        ("友だちに手紙を書いてください", "ja"),
        ("Напиши письмо другу", "ru"),
        ("12 + 3", None),
    ],
)
def test_a_language_is_told_by_small_words_or_script(text, code):
    assert language(text) == code
