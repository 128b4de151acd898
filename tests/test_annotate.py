"""Annotating: a row is judged once, in either order, and nothing is made up."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.annotate import annotate, judge, outstanding, pair
from alpacafarm_core.answers import Json
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.buying import CHUNK
from alpacafarm_core.errors import BadInput
from alpacafarm_core.interrupts import deferred
from alpacafarm_core.ledger import Ledger, Purchase
from alpacafarm_core.llm import Answer, Request, failed
from alpacafarm_core.panel import Annotator, Panel, load
from alpacafarm_core.world import judges

BLOCK = "I: {instruction}\nA: {output_1}\nB: {output_2}\n"
BLOCK_WITH_INPUT = "I: {instruction}\nN: {input}\nA: {output_1}\nB: {output_2}\n"


def judge_of(name: str = "one", batch: int = 1, **changes: object) -> Annotator:
    fields = {
        "name": name,
        "model": "fake",
        "prompt": BLOCK * batch,
        "prompt_with_input": BLOCK_WITH_INPUT * batch,
        "batch": batch,
        "price_per_1k_tokens": 1.0,
    }
    return Annotator.model_validate(fields | changes)


def panel_of(*annotators: Annotator, flip: float = 0.0, seed: int = 0) -> Panel:
    return Panel(name="fakes", annotators=annotators or (judge_of(),), flip=flip, seed=seed)


def longer(examples: list[tuple[str, str]]) -> str:
    """A judge that likes the longer output, and the first of two equally long ones."""
    return "\n".join(f"Output ({'a' if len(a) >= len(b) else 'b'})" for a, b in examples)


class Fake:
    """A language model that answers by a rule on the pairs it is shown, and counts its calls."""

    def __init__(self, rule: Callable[[list[tuple[str, str]]], str] = longer) -> None:
        self.rule = rule
        self.requests: list[Request] = []

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        self.requests += requests
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Answer:
        lines = request.messages[-1].content.split("\n")
        firsts = [line[3:] for line in lines if line.startswith("A: ")]
        seconds = [line[3:] for line in lines if line.startswith("B: ")]
        text = self.rule(list(zip(firsts, seconds, strict=True)))
        return Answer(text, "stop", 90, 10, 0.5)


def samples(*prompts: tuple[str, ...], generator: str = "sft", input: str = "") -> pl.DataFrame:
    """A table of candidates: each prompt is (instruction, output, output, ...)."""
    rows = [
        (instruction, input, "d", text, [7, 8], "t", "stop", generator, index, 1.0, 1.0, 300, 0)
        for instruction, *texts in prompts
        for index, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=pl.Schema(Candidates.columns), orient="row")


def pairs_of(count: int, input: str = "") -> pl.DataFrame:
    """Pairs in which output_2 is the longer one."""
    table = samples(*[(f"do {n}", f"x{n}", f"xx{n}") for n in range(count)], input=input)
    return pair(table, table)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_two_samples_of_a_prompt_make_a_pair() -> None:
    table = samples(("p", "zero", "one"), ("q", "null", "eins"))
    pairs = pair(table, table)
    assert pairs.select("instruction", "output_1", "output_2").rows() == [
        ("p", "zero", "one"),
        ("q", "null", "eins"),
    ]
    assert pairs["output_1_ids"].to_list() == [[7, 8], [7, 8]]


def test_head_to_head_puts_the_rival_first() -> None:
    rivals = samples(("q", "Q"), ("p", "P"), generator="davinci003")
    rivals = rivals.with_columns(tokenizer=pl.lit("another"))
    pairs = pair(samples(("p", "mine"), ("q", "also mine")), rivals)
    columns = ["instruction", "output_1", "output_2", "generator_1", "generator_2", "output_1_ids"]
    assert pairs.select(columns).rows() == [
        ("p", "P", "mine", "davinci003", "sft", []),
        ("q", "Q", "also mine", "davinci003", "sft", []),
    ]


def test_prompts_are_told_apart_by_their_input_too() -> None:
    ours = pl.concat([samples(("p", "bare")), samples(("p", "given"), input="context")])
    rivals = pl.concat([samples(("p", "GIVEN"), input="context"), samples(("p", "BARE"))])
    assert pair(ours, rivals).select("output_1", "output_2").rows() == [
        ("BARE", "bare"),
        ("GIVEN", "given"),
    ]


def test_unmatched_prompts_are_counted_and_refused() -> None:
    with pytest.raises(BadInput, match="0 of 1 rows for output_1 and 1 of 2 for output_2"):
        pair(samples(("p", "x"), ("q", "y")), samples(("p", "X")))
    with pytest.raises(BadInput, match="1 of 2 rows for output_1"):
        table = samples(("p", "x", "y"), ("q", "z"))
        pair(table, table)


def test_repeated_prompts_are_refused() -> None:
    with pytest.raises(BadInput, match=r"1 of 2 rows repeat a prompt .*, first 'p';"):
        pair(samples(("p", "x"), ("p", "y")), samples(("p", "X")))


def test_labels_have_the_declared_columns_and_undo_the_order(ledger: Ledger) -> None:
    labelled = annotate(pairs_of(40), panel_of(), Fake(), ledger)
    assert labelled.schema == pl.Schema(Preferences.columns)
    assert set(labelled["preference"]) == {2.0}
    assert 8 < labelled["is_switched"].sum() < 32
    assert labelled.row(0, named=True)["raw_completion"] in ("Output (a)", "Output (b)")
    assert labelled.select("tokens", "price", "seconds").row(0) == (100, 0.1, 0.5)


def test_a_fixed_order_switches_nothing(ledger: Ledger) -> None:
    labelled = annotate(pairs_of(10), panel_of().replace(order="fixed"), Fake(), ledger)
    assert not labelled["is_switched"].any()


def test_a_panel_that_always_flips_says_the_opposite(ledger: Ledger) -> None:
    fake = Fake()
    assert set(annotate(pairs_of(9), panel_of(flip=1.0), fake, ledger)["preference"]) == {1.0}
    assert len(fake.requests) == 9


def test_noised_rows_buy_nothing_and_a_quarter_is_wrong(ledger: Ledger) -> None:
    fake = Fake()
    labelled = annotate(pairs_of(400), panel_of(flip=0.25), fake, ledger)
    noisy = labelled.filter("is_noisy")
    assert len(fake.requests) == 400 - noisy.height
    assert 170 < noisy.height < 230
    assert 75 < (labelled["preference"] == 1.0).sum() < 125
    assert set(labelled["status"]) == {"ok"}
    assert noisy["price"].sum() == 0


def test_draws_do_not_depend_on_the_company(ledger: Ledger) -> None:
    panel = panel_of(judge_of("one"), judge_of("two"), flip=0.25)
    whole = annotate(pairs_of(60), panel, Fake(), ledger)
    part = annotate(pairs_of(60)[30:].reverse(), panel, Fake(), ledger)
    assert part.equals(whole[30:].reverse())
    assert set(whole["annotator"]) == {"one", "two"}


def test_another_seed_draws_anew(ledger: Ledger) -> None:
    one, two = (annotate(pairs_of(40), panel_of(seed=seed), Fake(), ledger) for seed in (0, 1))
    assert one["is_switched"].to_list() != two["is_switched"].to_list()


def test_a_judge_of_the_world_who_judges_otherwise_is_asked_anew(
    ledger: Ledger, monkeypatch
) -> None:
    panel, rows = load("world").replace(flip=0.0), pairs_of(20)
    bought = judge(rows, panel, judges.ask, ledger).spending.calls
    assert bought and judge(rows, panel, judges.ask, ledger).spending.calls == 0
    changed = {model: taste._replace(longer=9.0) for model, taste in judges.TASTES.items()}
    monkeypatch.setattr(judges, "TASTES", changed)
    assert judge(rows, panel, judges.ask, ledger).spending.calls == bought


def test_identical_outputs_tie_without_a_call(ledger: Ledger) -> None:
    fake, table = Fake(), samples(("p", "same", "same"))
    labelled = annotate(pair(table, table), panel_of(flip=0.5), fake, ledger)
    assert labelled.select("preference", "status", "is_noisy").row(0) == (1.5, "tie", False)
    assert fake.requests == []


def test_placeholders_in_a_row_reach_the_judge_as_they_are(ledger: Ledger) -> None:
    fake, table = Fake(), samples(("say {output_2}", "{instruction}", "{output_1} and more"))
    labelled = annotate(pair(table, table), panel_of(), fake, ledger)
    assert labelled["preference"].to_list() == [2.0]
    assert "I: say {output_2}\n" in fake.requests[0].messages[0].content


def test_rows_with_input_get_the_other_template(ledger: Ledger) -> None:
    fake = Fake()
    annotate(pl.concat([pairs_of(1), pairs_of(1, input="context")]), panel_of(), fake, ledger)
    assert ["N: context" in each.messages[0].content for each in fake.requests] == [False, True]


def test_a_batch_shows_several_rows_and_shares_its_price(ledger: Ledger) -> None:
    fake = Fake()
    judged = judge(pairs_of(7), panel_of(judge_of(batch=5)), fake, ledger)
    assert len(fake.requests) == 2
    assert set(judged.preferences["preference"]) == {2.0}
    assert judged.preferences["tokens"].to_list() == [20] * 5 + [50] * 2
    assert judged.preferences["price"].sum() == pytest.approx(judged.spending.price) == 0.2


def test_the_second_time_nothing_is_bought(ledger: Ledger) -> None:
    panel, fake = panel_of(judge_of(batch=5)), Fake()
    first = judge(pairs_of(7), panel, fake, ledger)
    second = judge(pairs_of(7), panel, fake, ledger)
    assert second.preferences.equals(first.preferences)
    assert second.spending == (0, 0.0, 0, 7, 0, "")
    assert len(fake.requests) == 2


def test_one_more_row_buys_one_more_row(ledger: Ledger) -> None:
    panel, fake = panel_of(judge_of(batch=5)), Fake()
    annotate(pairs_of(7), panel, fake, ledger)
    annotate(pairs_of(8), panel, fake, ledger)
    assert len(fake.requests) == 3
    assert fake.requests[-1].messages[0].content.count("A: ") == 1


def test_a_row_twice_in_a_table_is_bought_once(ledger: Ledger) -> None:
    fake = Fake()
    labelled = annotate(pl.concat([pairs_of(2), pairs_of(2)]), panel_of(), fake, ledger)
    assert (labelled.height, len(fake.requests)) == (4, 2)


def test_a_changed_template_buys_its_own_rows_again_and_no_others(ledger: Ledger) -> None:
    pairs, fake = pl.concat([pairs_of(20), pairs_of(5, input="context")]), Fake()
    old = panel_of(judge_of("one"), judge_of("two", model="other"))
    before = annotate(pairs, old, fake, ledger)
    changed = judge_of("two", model="other", prompt="Think!\n" + BLOCK)
    fake.requests.clear()
    annotate(pairs, panel_of(judge_of("one"), changed), fake, ledger)
    mine = before.filter(pl.col("annotator") == "two", pl.col("input") == "").height
    assert len(fake.requests) == mine > 0
    assert {each.model for each in fake.requests} == {"other"}


def test_another_way_to_read_buys_nothing(ledger: Ledger) -> None:
    fake = Fake(lambda _: '{"a_is_better": true}')
    before = annotate(pairs_of(2), panel_of(), fake, ledger)
    after = annotate(pairs_of(2), panel_of(judge_of(answer=Json())), fake, ledger)
    assert before["status"].to_list() == ["unparsable"] * 2
    assert before["preference"].to_list() == [None] * 2
    assert after["status"].to_list() == ["ok"] * 2
    assert len(fake.requests) == 2


def test_a_wrong_count_is_asked_again_row_by_row(ledger: Ledger) -> None:
    panel = panel_of(judge_of(batch=3))
    fake = Fake(lambda shown: longer(shown) + ("\nOutput (a)" if len(shown) > 1 else ""))
    judged = judge(pairs_of(3), panel, fake, ledger)
    assert [each.messages[0].content.count("A: ") for each in fake.requests] == [3, 1, 1, 1]
    assert judged.preferences["preference"].to_list() == [2.0] * 3
    assert judged.spending.calls == 4
    assert judge(pairs_of(3), panel, fake, ledger).spending.calls == 0


def test_a_row_costs_all_that_was_asked_about_it_also_a_batch_that_nobody_could_read(
    ledger: Ledger,
) -> None:
    panel = panel_of(judge_of(batch=3))
    fake = Fake(lambda shown: longer(shown) + ("\nOutput (a)" if len(shown) > 1 else ""))
    judged = judge(pairs_of(3), panel, fake, ledger)
    assert judged.spending.price == pytest.approx(0.4)  # four calls of 100 tokens
    assert judged.preferences["price"].sum() == pytest.approx(0.4)
    assert judged.preferences["tokens"].sum() == 400


def test_a_pair_that_stands_twice_costs_once(ledger: Ledger) -> None:
    twice = pl.concat([pairs_of(2), pairs_of(2)])
    judged = judge(twice, panel_of(), Fake(), ledger)
    assert judged.preferences["price"].to_list() == [0.1, 0.1, 0, 0]
    assert judged.spending.price == pytest.approx(0.2)


def test_what_will_be_asked_alone_is_outstanding(ledger: Ledger) -> None:
    class Torn(Fake):
        """Miscounts batches, and is down for what is asked alone."""

        def answer(self, request: Request) -> Answer:
            alone = request.messages[0].content.count("A: ") == 1
            return failed("HTTP 500") if alone else super().answer(request)

    panel = panel_of(judge_of(batch=3))
    judged = judge(pairs_of(3), panel, Torn(lambda _: "Output (a)"), ledger)
    assert set(judged.preferences["status"]) == {"failed"}
    planned = len(outstanding(pairs_of(3), panel, ledger))
    assert planned == judge(pairs_of(3), panel, Fake(), ledger).spending.calls == 3


def test_an_interrupt_while_answers_are_put_away_keeps_all_that_came(ledger: Ledger) -> None:
    presses = ["Ctrl-C"]

    class Interrupted(Ledger):
        def append(self, purchases: Sequence[Purchase]) -> None:
            if presses and presses.pop():
                signal.raise_signal(signal.SIGINT)
            super().append(purchases)

    class Streaming(Fake):
        def arrivals(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            answers = list(enumerate(self(requests)))
            with deferred():
                yield answers[:1]
                yield answers[1:3]

    with pytest.raises(KeyboardInterrupt):
        judge(pairs_of(4), panel_of(), Streaming(), Interrupted(ledger.records.address))
    assert ledger.counts().calls == 3


def test_what_another_process_is_buying_is_waited_for(ledger: Ledger) -> None:
    script = (
        "import sys, time\n"
        "from alpacafarm_core.annotate import judge\n"
        "from alpacafarm_core.ledger import Ledger\n"
        "from tests.test_annotate import Fake, pairs_of, panel_of\n"
        "class Slow(Fake):\n"
        "    def __call__(self, requests):\n"
        "        print('asking', flush=True)\n"
        "        time.sleep(0.5)\n"
        "        return super().__call__(requests)\n"
        "judge(pairs_of(3), panel_of(), Slow(), Ledger(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, ledger.records.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"asking\n"
        judged = judge(pairs_of(4), panel_of(), Fake(), ledger)
    assert (judged.spending.calls, judged.spending.rows_from_ledger) == (1, 3)
    assert judged.preferences["preference"].to_list() == [2.0] * 4


def test_one_refused_row_does_not_cost_its_batch(ledger: Ledger) -> None:
    def shy(shown: list[tuple[str, str]]) -> str:
        bad = any("xx1" in pair for pair in shown)
        return "I'm sorry, I cannot help with that." if bad else longer(shown)

    labelled = annotate(pairs_of(4), panel_of(judge_of(batch=4)), Fake(shy), ledger)
    assert labelled["status"].to_list() == ["ok", "refused", "ok", "ok"]
    assert labelled["preference"].to_list() == [2.0, None, 2.0, 2.0]


def test_a_filtered_answer_is_a_refusal(ledger: Ledger) -> None:
    def ask(requests: Sequence[Request]) -> list[Answer]:
        return [Answer("", "content_filter", 9, 0, 0.1) for _ in requests]

    assert annotate(pairs_of(1), panel_of(), ask, ledger)["status"].to_list() == ["refused"]


def test_what_failed_is_never_scored_and_asked_for_again(ledger: Ledger) -> None:
    def down(requests: Sequence[Request]) -> list[Answer]:
        return [failed("HTTP 500") for _ in requests]

    judged = judge(pairs_of(3), panel_of(), down, ledger)
    assert judged.preferences["preference"].to_list() == [None] * 3
    assert judged.preferences["status"].to_list() == ["failed"] * 3
    assert judged.spending == (0, 0.0, 0, 0, 3, "HTTP 500")
    assert ledger.counts().calls == 0
    assert set(annotate(pairs_of(3), panel_of(), Fake(), ledger)["status"]) == {"ok"}


def test_a_batch_rejected_for_one_row_is_asked_row_by_row(ledger: Ledger) -> None:
    class Strict(Fake):
        def answer(self, request: Request) -> Answer:
            bad = "do 1\n" in request.messages[0].content
            return failed("HTTP 400", rejected=True) if bad else super().answer(request)

    labelled = annotate(pairs_of(3), panel_of(judge_of(batch=3)), Strict(), ledger)
    assert labelled["status"].to_list() == ["ok", "failed", "ok"]


def test_a_judges_tie_is_a_tie(ledger: Ledger) -> None:
    labelled = annotate(pairs_of(1), panel_of(), Fake(lambda _: "Tie"), ledger)
    assert labelled.select("preference", "status").row(0) == (1.5, "tie")


class Killed(Exception):
    """Stands for a process that dies."""


def test_a_kill_between_chunks_buys_nothing_twice(ledger: Ledger) -> None:
    class Dying(Fake):
        def __call__(self, requests: Sequence[Request]) -> list[Answer]:
            if self.requests:
                raise Killed
            return super().__call__(requests)

    pairs, panel, dying, fake = (
        pairs_of(2 * CHUNK + 9),
        panel_of(judge_of(batch=2)),
        Dying(),
        Fake(),
    )
    with pytest.raises(Killed):
        annotate(pairs, panel, dying, ledger)
    assert ledger.counts().calls == CHUNK
    resumed = annotate(pairs, panel, fake, ledger)
    assert len(fake.requests) == 5
    assert resumed["status"].to_list() == ["ok"] * pairs.height


def test_a_stream_is_remembered_group_by_group(ledger: Ledger) -> None:
    class Stream(Fake):
        def arrivals(self, requests: Sequence[Request]):  # type: ignore[no-untyped-def]
            for index in reversed(range(len(requests))):
                if len(self.requests) == 3:
                    raise Killed
                self.requests.append(requests[index])
                yield [(index, self.answer(requests[index]))]

    with pytest.raises(Killed):
        annotate(pairs_of(10), panel_of(), Stream(), ledger)
    fake = Fake()
    annotate(pairs_of(10), panel_of(), fake, ledger)
    assert (ledger.counts().rows, len(fake.requests)) == (10, 7)


def test_an_empty_table_gives_an_empty_one(ledger: Ledger) -> None:
    labelled = annotate(pairs_of(2)[:0], panel_of(), Fake(), ledger)
    assert labelled.schema == pl.Schema(Preferences.columns)


def test_a_sub_pool_keeps_its_own_rows_and_buys_nothing_it_has(ledger: Ledger) -> None:
    pool, fake = panel_of(judge_of("one"), judge_of("two"), judge_of("three")), Fake()
    whole = annotate(pairs_of(60), pool, fake, ledger)
    bought = len(fake.requests)
    part = annotate(pairs_of(60), pool.replace(only=("one", "three")), fake, ledger)
    assert part.equals(whole.filter(pl.col("annotator") != "two")) and 20 < part.height < 60
    assert len(fake.requests) == bought
    with pytest.raises(ValueError, match="keeps only four, whom it lacks"):
        pool.replace(only=("four",))


def test_another_parser_and_more_noise_buy_nothing(ledger: Ledger) -> None:
    fake = Fake()
    clean = annotate(pairs_of(80), panel_of(), fake, ledger)
    turned = {"first": r"Output \(b\)", "second": r"Output \(a\)"}
    other = panel_of(judge_of(answer={"form": "choice", **turned}))
    reread = annotate(pairs_of(80), other, fake, ledger)
    assert (reread["preference"] + clean["preference"]).to_list() == [3.0] * 80
    noisy = annotate(pairs_of(80), panel_of(flip=0.25), fake, ledger)
    assert 20 < noisy["is_noisy"].sum() < 60 and len(fake.requests) == 80


def test_a_coin_may_decide_ties(ledger: Ledger) -> None:
    table = samples(*[(f"do {n}", "same", "same") for n in range(60)])
    kept = annotate(pair(table, table), panel_of(), Fake(), ledger)
    assert kept["preference"].unique().to_list() == [1.5]
    decided = annotate(pair(table, table), panel_of().replace(ties="coin"), Fake(), ledger)
    assert 15 < (decided["preference"] == 1.0).sum() < 45
    assert set(decided["preference"]) == {1.0, 2.0} and set(decided["status"]) == {"ok"}
