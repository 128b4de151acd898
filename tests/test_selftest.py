"""The self-test: sound panels pass in a moment, others are refused before a call is paid."""

import pytest

from alpacafarm_core import selftest
from alpacafarm_core.answers import Choice, Json, Said
from alpacafarm_core.errors import JudgeFailed
from alpacafarm_core.panel import Annotator, Panel, load, shipped
from alpacafarm_core.parsers import Evaluated, Ranking, Reader, Scan, Scores, Weighted
from alpacafarm_core.planted import Script, always_refuse, oracle, planted, table
from alpacafarm_core.selftest import check, interval, trial
from alpacafarm_core.templates import Example
from tests.test_annotate import judge_of, panel_of

WORLD = load("world")
FIRST, SECOND = r"Output \(a\)", r"Output \(b\)"
TURNED = "I: {instruction}\nOutput (a): {output_2}\nOutput (b): {output_1}\n"
NAMED = "I: {instruction}\nOutput (a): {output_1}\nOutput (b): {output_2}\n"


def own(**changes: object) -> Panel:
    """A panel of one annotator of the pool, changed; it judges five at a time."""
    (annotator,) = (each for each in WORLD.annotators if each.name == "gpt4_3")
    return WORLD.replace(name="own", annotators=(annotator.replace(**changes),))


class Blind(Choice):
    """Reads nothing in an answer about one example; the door tries two."""

    def marks(self, said: Said) -> list[float | None]:
        found = super().marks(said)
        return found if len(found) > 1 else []


class Short(Choice):
    """Of more than two verdicts reads one too few."""

    def marks(self, said: Said) -> list[float | None]:
        found = super().marks(said)
        return found[:-1] if len(found) > 2 else found


class Skipping(Choice):
    """Of more than two verdicts reads each one place too far, and the last as a guess."""

    def marks(self, said: Said) -> list[float | None]:
        found = super().marks(said)
        return [*found[1:], 1.0] if len(found) > 2 else found


@pytest.mark.parametrize("name", shipped())
def test_shipped_panels_pass(name: str) -> None:
    report = trial(load(name))
    assert (report.recovered, report.order_bias, report.refused) == (1.0, 0.0, 1.0)
    assert 0.4 < report.first < 0.6 and 0.4 < report.coin < 0.6
    assert 0.38 < report.noisy < 0.62


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "fixed"},
        {"order": "switched"},
        {"level": "pair"},
        {"draws": "alpaca_eval"},
        {"ties": "coin"},
        {"only": ("gpt4_1",)},
        {"flip": 0.0},
        {"flip": 0.5},
        {"flip": 0.75},
        {"flip": 1.0},
        {"seed": 7},
    ],
)
def test_every_way_to_draw_passes(changes: dict[str, object]) -> None:
    assert trial(WORLD.replace(**changes)).recovered == 1.0


def test_noise_is_that_of_the_panel() -> None:
    assert trial(WORLD.replace(flip=1.0)).noisy == 0.0
    assert 0.7 < trial(WORLD.replace(flip=0.6)).noisy < 0.9


def test_a_padded_batch_passes_and_its_refusals_are_refusals() -> None:
    assert trial(own(pads=True)).refused == 1.0


def test_a_template_may_name_the_outputs_the_other_way_round_if_its_answers_do() -> None:
    turned = Choice(first=SECOND, second=FIRST)
    fields = {"prompt": TURNED, "prompt_with_input": TURNED.replace("\n", "\n{input}\n", 1)}
    assert trial(panel_of(judge_of(**fields, answer=turned))).recovered == 1.0
    with pytest.raises(JudgeFailed, match=r"annotator one .* 0 came back"):
        trial(panel_of(judge_of(**fields)))


def test_exchanged_patterns_are_refused() -> None:
    with pytest.raises(JudgeFailed, match=r"own, annotator gpt4_3 .* 0 came back .* mend its"):
        check(own(answer=Choice(first=SECOND, second=FIRST)))


def test_a_template_without_names_that_shows_the_second_first_is_refused() -> None:
    shown = "{instruction}\n{output_2}\n{output_1}\n"
    with pytest.raises(JudgeFailed, match="annotator one"):
        check(panel_of(judge_of(prompt=shown, prompt_with_input="{input}\n" + shown)))


def test_one_bad_template_among_many_is_named() -> None:
    bad = WORLD.annotators[7].replace(prompt_with_input=TURNED + "{input}")
    others = (*WORLD.annotators[:7], bad, *WORLD.annotators[8:])
    with pytest.raises(JudgeFailed, match=f"panel world, annotator {bad.name} failed"):
        check(WORLD.replace(annotators=others))


def test_a_form_that_counts_wrong_in_a_batch_of_four_is_refused() -> None:
    batch = {"batch": 4, "prompt": NAMED * 4, "prompt_with_input": NAMED * 4}
    assert trial(panel_of(judge_of(**batch))).recovered == 1.0
    with pytest.raises(JudgeFailed, match=r"one failed .* planted pairs"):
        check(panel_of(judge_of(**batch, answer=Skipping())).replace(name="skipping"))
    # Read row by row in the end, so labels are right and every row is paid twice.
    with pytest.raises(JudgeFailed, match=r"one failed .* in a batch and again one by one"):
        check(panel_of(judge_of(**batch, answer=Short())).replace(name="short"))


def test_a_form_that_reads_nothing_is_refused() -> None:
    with pytest.raises(JudgeFailed, match=r"of 214 planted pairs 0 .* \(214 unparsable\)"):
        check(panel_of(judge_of(answer=Blind())).replace(name="blind"))


def test_a_form_that_weighs_tokens_passes() -> None:
    weighted = judge_of(answer=Weighted(first="m", verdicts=("m", "M")), top_logprobs=5)
    assert trial(panel_of(weighted)).recovered == 1.0


def test_a_form_that_cannot_be_written_cannot_be_tested() -> None:
    odd = Scan(patterns={1: "(?i)first", 2: "fir|second"})
    with pytest.raises(JudgeFailed, match=r"annotator one cannot be tested: .* give `examples`"):
        check(panel_of(judge_of(answer=odd)))


@pytest.mark.parametrize("form", [Ranking(first="m"), Scores(), Json(), Evaluated()])
def test_refusals_are_refusals_in_every_form(form: Reader) -> None:
    assert trial(panel_of(judge_of(answer=form))).refused == 1.0


def test_a_panel_is_tested_once_in_a_process_and_again_when_it_changed(monkeypatch) -> None:
    tested: list[Panel] = []
    monkeypatch.setattr(selftest, "_passed", {})
    monkeypatch.setattr(selftest, "trial", tested.append)
    for panel in (own(), own(), own(max_tokens=7)):
        check(panel)
    assert [each.annotators[0].max_tokens for each in tested] == [250, 7]


def test_a_binomial_count_by_hand() -> None:
    # Of two throws each count has a chance above a millionth; of forty a side has 2 ** -40.
    assert interval(2, 0.5) == (0, 2)
    low, high = interval(40, 0.5)
    assert (low, high) == (5, 35)
    assert (interval(9, 0.0), interval(9, 1.0)) == ((0, 0), (9, 9))


def test_planted_pairs_come_in_all_mixtures_and_some_speak_to_the_judge() -> None:
    pairs = planted(16)
    kinds = {(pair.better, pair.example.input != "") for pair in pairs}
    assert len(kinds) == 4
    assert sum("{output_1}" in pair.example.instruction for pair in pairs) == 8
    assert table(pairs)["output_1"].n_unique() == 16


def request_of(annotator: Annotator, *examples: Example):
    from alpacafarm_core.desk import Desk

    return Desk(annotator, annotator.prompt, 0).request(examples)


def test_a_scripted_judge_answers_in_the_annotators_own_form() -> None:
    pairs, one = planted(4), judge_of(batch=2)
    script = Script(panel_of(one), pairs, oracle)
    (answer,) = script([request_of(one, pairs[0].example, pairs[2].example)])
    assert answer.text == "Output (a)\nOutput (b)"
    assert [script.shown[number].first for number in (0, 2)] == [1, 1]
    (answer,) = Script(panel_of(one), pairs, always_refuse)([request_of(one, pairs[0].example)])
    assert answer.text.startswith("I'm sorry")


def test_a_text_that_does_not_arrive_whole_stops_the_test() -> None:
    pairs, one = planted(1), judge_of()
    cut = pairs[0].example._replace(output_2="planted-0-wor")
    with pytest.raises(JudgeFailed, match="annotator one: the output_2 of a planted pair is 0"):
        Script(panel_of(one), pairs, oracle)([request_of(one, cut)])
