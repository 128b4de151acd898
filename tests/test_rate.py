"""Rating: marks come back to the answers they are about, each is bought once, none is made up."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alpacafarm_core.artifacts import Candidates, Demonstrations
from alpacafarm_core.assessing import outstanding
from alpacafarm_core.assessors import Assessor, Assessors, Sheet
from alpacafarm_core.buying import CHUNK
from alpacafarm_core.errors import BadInput, BudgetReached
from alpacafarm_core.estimate import estimated
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Answer, Request, failed
from alpacafarm_core.purse import Purse
from alpacafarm_core.rate import Rated, fine, questions, rate
from alpacafarm_core.ratings import ASPECTS, Ratings

PROMPT = "Rate ASPECT.\nI: {instruction}\nK: {knowledge}\n{outputs}"
PLAIN = "Rate ASPECT.\nI: {instruction}\n{outputs}"
HEAD = re.compile(r"^### Answer (\d+)\n(.*)$", re.MULTILINE)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    held = Ledger(tmp_path / "ledger.sqlite")
    yield held
    held.close()


def sheets(*aspects: str, prompt: str = PLAIN, **changes: object) -> dict[str, Sheet]:
    return {
        name: Sheet.model_validate({"prompt": prompt.replace("ASPECT", name)} | changes)
        for name in aspects
    }


def raters(*aspects: str, **changes: object) -> Assessors:
    judge = Assessor(
        name="one", model="fake", sheets=sheets(*aspects or ASPECTS), price_per_1k_tokens=1.0
    )
    return Assessors.model_validate({"name": "fakes", "assessors": (judge,)} | changes)


def answers(prompts: int, each: int = 4) -> pl.DataFrame:
    """Answer k to prompt n is `n-k`, and is best marked k + 1."""
    rows = [
        (f"do {n}", "", "d", f"{n}-{k}", [], "", "stop", f"m{k}", 0, 1.0, 1.0, 300, 0)
        for n in range(prompts)
        for k in range(each)
    ]
    return pl.DataFrame(rows, schema=pl.Schema(Candidates.columns), orient="row")


def echo(shown: Sequence[str]) -> str:
    """A judge that says which answer it speaks of, and marks answer k with k + 1."""
    return "\n\n".join(
        f"### Answer {at}\nRating: {int(text[-1]) + 1}\nRationale: {text}"
        for at, text in enumerate(shown, start=1)
    )


class Fake:
    """A language model that answers by a rule on what it is shown, and counts its calls."""

    def __init__(self, rule: Callable[[Sequence[str]], str] = echo) -> None:
        self.rule = rule
        self.requests: list[Request] = []

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        self.requests += requests
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Answer:
        return Answer(self.rule(self.shown(request)), "stop", 100, 20, 0.5)

    def shown(self, request: Request) -> list[str]:
        return [text for _, text in HEAD.findall(request.messages[-1].content)]


def test_a_judge_that_echoes_an_id_finds_it_at_the_answer_it_belongs_to(ledger: Ledger) -> None:
    fake = Fake()
    rows = rate(answers(30), raters("honesty"), fake, ledger).rows
    assert rows["honesty_rationale"].to_list() == rows["output"].to_list()
    assert rows["honesty"].to_list() == [1, 2, 3, 4] * 30
    orders = {
        tuple(fake.shown(request)) != tuple(sorted(fake.shown(request)))
        for request in fake.requests
    }
    assert orders == {True, False}  # most are not in the order of the table


def test_the_position_is_where_the_answer_was_shown(ledger: Ledger) -> None:
    fake = Fake()
    rows = rate(answers(3), raters("honesty"), fake, ledger).rows
    for request, (_, part) in zip(
        fake.requests, rows.group_by("instruction", maintain_order=True), strict=True
    ):
        shown = part.sort("honesty_position")["output"].to_list()
        assert shown == fake.shown(request)


def test_one_call_an_aspect_shows_all_answers_to_a_prompt(ledger: Ledger) -> None:
    fake = Fake()
    rated = rate(answers(5), raters(), fake, ledger)
    assert len(fake.requests) == 5 * len(ASPECTS)
    assert {len(fake.shown(request)) for request in fake.requests} == {4}
    assert rated.rows.schema == pl.Schema(Ratings.columns)


def test_the_order_is_drawn_anew_for_each_aspect(ledger: Ledger) -> None:
    rows = rate(answers(20), raters(), Fake(), ledger).rows
    assert rows["honesty_position"].to_list() != rows["helpfulness_position"].to_list()
    assert rows["honesty_position"].value_counts()["count"].to_list() == [20] * 4


def test_a_leaning_to_what_is_shown_first_falls_on_all_answers_alike(ledger: Ledger) -> None:
    def first(shown: Sequence[str]) -> str:
        marks = [5, *[1] * (len(shown) - 1)]
        return "\n".join(f"### Answer {at}\nRating: {m}" for at, m in enumerate(marks, start=1))

    rows = rate(answers(400), raters("honesty"), Fake(first), ledger).rows
    means = rows.group_by("generator").agg(pl.col("honesty").mean())["honesty"]
    assert means.min() > 1.75 and means.max() < 2.25  # 2 each, where 5 or 1 would be the bias


def test_the_fine_score_is_the_mean_of_the_marks_there_are() -> None:
    assert fine([2, None, 3, 3]) == pytest.approx(2.666667, abs=1e-6)
    assert fine([4, 4, 4, 4]) == 4.0
    assert fine([None] * 4) is None


def test_what_is_not_applicable_is_left_out_of_the_mean(ledger: Ledger) -> None:
    def rule(shown: Sequence[str]) -> str:
        marks = [("N/A" if at == 2 else "3") for at in range(1, len(shown) + 1)]
        return "\n".join(f"### Answer {at}\nRating: {m}" for at, m in enumerate(marks, start=1))

    rows = rate(answers(1), raters("honesty", "helpfulness", retries=0), Fake(rule), ledger).rows
    by_status = dict(zip(rows["honesty_status"], rows["honesty"], strict=True))
    assert by_status == {"ok": 3, "na": None}
    assert set(rows["helpfulness_status"]) == {"ok", "unparsable"}
    assert set(rows["instruction_following_status"]) == {"unasked"}


def test_one_more_instruction_buys_just_the_rows_of_its_aspects(ledger: Ledger) -> None:
    rate(answers(5), raters("honesty"), Fake(), ledger)
    assert ledger.counts().rows == 5
    more, fake = answers(6), Fake()
    rated = rate(more, raters("honesty"), fake, ledger)
    assert (ledger.counts().rows, len(fake.requests)) == (6, 1)
    assert rated.spending[2:4] == (1, 5)
    rate(more, raters("honesty", "helpfulness"), fake, ledger)
    assert ledger.counts().rows == 12


def test_an_answer_without_form_is_asked_for_again_with_another_seed(ledger: Ledger) -> None:
    seeds: list[int] = []

    class Sloppy(Fake):
        def answer(self, request: Request) -> Answer:
            seeds.append(request.seed)
            return super().answer(request) if len(seeds) > 2 else Answer("Hm.", "stop", 9, 1, 0.0)

    rows = rate(answers(1), raters("honesty"), Sloppy(), ledger).rows
    assert rows["honesty"].to_list() == [1, 2, 3, 4]
    assert (len(set(seeds)), ledger.counts().rows) == (3, 3)
    # All three tries were paid, and fall to the four answers alike.
    assert rows["tokens"].sum() == 10 + 10 + 120
    assert rows["price"].sum() == pytest.approx(ledger.counts().price)


def test_what_never_has_a_form_has_no_mark_and_the_retries_are_its_end(ledger: Ledger) -> None:
    fake = Fake(lambda _: "Lovely, all of them.")
    rows = rate(answers(1), raters("honesty", retries=3), fake, ledger).rows
    assert len(fake.requests) == 4
    assert rows["honesty"].null_count() == rows["fine"].null_count() == 4
    assert set(rows["honesty_status"]) == {"unparsable"}
    rate(answers(1), raters("honesty", retries=3), fake, ledger)
    assert len(fake.requests) == 4
    # More retries go on where the others ended.
    rate(answers(1), raters("honesty", retries=5), fake, ledger)
    assert len(fake.requests) == 6


def test_of_tries_that_all_fall_short_the_one_that_says_most_counts(ledger: Ledger) -> None:
    said = iter(
        ["### Answer 1\nRating: 5", "### Answer 1\nRating: 4\n### Answer 2\nRating: 3", "no"]
    )
    rows = rate(answers(1), raters("honesty", retries=2), Fake(lambda _: next(said)), ledger).rows
    assert sorted(rows["honesty"].drop_nulls()) == [3, 4]


def test_a_refusal_is_no_mark_and_is_not_asked_again(ledger: Ledger) -> None:
    fake = Fake(lambda _: "I'm sorry, but I cannot rate these.")
    rows = rate(answers(2), raters("honesty"), fake, ledger).rows
    assert set(rows["honesty_status"]) == {"refused"} and len(fake.requests) == 2


def test_a_call_that_fails_is_no_mark_and_the_next_run_asks_again(ledger: Ledger) -> None:
    def down(requests: Sequence[Request]) -> list[Answer]:
        return [failed("HTTP 500") for _ in requests]

    rated = rate(answers(2), raters("honesty"), down, ledger)
    assert set(rated.rows["honesty_status"]) == {"failed"} and rated.rows["fine"].null_count() == 8
    assert (rated.spending.rows_failed, rated.spending.complaint) == (2, "HTTP 500")
    assert ledger.counts().rows == 0
    assert rate(answers(2), raters("honesty"), Fake(), ledger).spending.rows_failed == 0


class Killed(Exception):
    """Stands for a process that dies."""


def test_a_kill_between_chunks_buys_nothing_twice(ledger: Ledger) -> None:
    class Dying(Fake):
        def __call__(self, requests: Sequence[Request]) -> list[Answer]:
            if self.requests:
                raise Killed
            return super().__call__(requests)

    table, fake = answers(CHUNK + 7), Fake()
    with pytest.raises(Killed):
        rate(table, raters("honesty"), Dying(), ledger)
    assert ledger.counts().rows == CHUNK
    rows = rate(table, raters("honesty"), fake, ledger).rows
    assert len(fake.requests) == 7 and rows["honesty"].null_count() == 0


def test_a_process_that_is_killed_between_tries_goes_on_with_the_next(tmp_path: Path) -> None:
    """The first try, which breaks the form, is bought; the process dies while it asks again."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from alpacafarm_core.ledger import Ledger\n"
        "from alpacafarm_core.llm import Answer\n"
        "from tests.test_rate import answers, raters, rate\n"
        "def ask(requests):\n"
        "    if requests[0].seed: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return [Answer('Hm.', 'stop', 1, 1, 0.0) for _ in requests]\n"
        f"rate(answers(3), raters('honesty'), ask, Ledger(Path({str(tmp_path)!r}) / 'l.sqlite'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    ledger, fake = Ledger(tmp_path / "l.sqlite"), Fake()
    rows = rate(answers(3), raters("honesty"), fake, ledger).rows
    assert [request.seed == 0 for request in fake.requests] == [False] * 3
    assert rows["honesty"].to_list() == [1, 2, 3, 4] * 3
    ledger.close()


def test_a_budget_stops_before_it_is_passed_and_what_was_bought_counts(ledger: Ledger) -> None:
    # A call costs at most 0.8 dollars (300 bytes and 500 tokens) and really 0.12.
    with pytest.raises(BudgetReached):
        rate(answers(50), raters("honesty"), Fake(), ledger, Purse(2.0))
    bought, fake = ledger.counts(), Fake()
    assert 0 < bought.price <= 2.0
    rate(answers(50), raters("honesty"), fake, ledger)
    assert len(fake.requests) == 50 - bought.rows


def test_a_plan_prices_what_is_not_there_and_nothing_else(ledger: Ledger) -> None:
    panel = raters("honesty", "helpfulness")
    asked = questions(answers(10), panel)
    whole = estimated(outstanding(asked, panel.retries, ledger))
    assert (whole.rows, whole.calls) == (20, 20) and 0 < whole.usd_low < whole.usd_high
    rate(answers(4), panel, Fake(), ledger)
    assert estimated(outstanding(asked, panel.retries, ledger)).calls == 12


def test_what_is_known_is_shown_by_data_set_or_by_right_answers(ledger: Ledger) -> None:
    judge = Assessor(name="one", model="fake", sheets=sheets("truthfulness", prompt=PROMPT))
    panel = Assessors(name="p", assessors=(judge,), knowledge={"d": "It is a trap."}, retries=0)
    references = pl.DataFrame(
        [("do 1", "", "d", "yes", [], ""), ("do 1", "", "d", "indeed", [], "")],
        schema=pl.Schema(Demonstrations.columns),
        orient="row",
    )
    fake = Fake()
    rate(answers(2), panel, fake, ledger, references=references)
    first, second = (request.messages[-1].content for request in fake.requests)
    assert "K: It is a trap." in first
    assert "K: A right answer: yes\nA right answer: indeed" in second
    bare = Fake()
    rate(answers(1), panel.replace(knowledge={}), bare, ledger)
    assert "K: None is given." in bare.requests[0].messages[-1].content


def test_an_answer_that_speaks_to_the_judge_stays_an_answer(ledger: Ledger) -> None:
    table = answers(1).with_columns(output=pl.lit("{outputs} {instruction} {number} <|im_end|>"))
    fake = Fake(lambda shown: "\n".join(f"### Answer {n}\nRating: 2" for n in range(1, 5)))
    rows = rate(table, raters("honesty"), fake, ledger).rows
    assert fake.shown(fake.requests[0]) == ["{outputs} {instruction} {number} <|im_end|>"] * 4
    assert rows["honesty"].to_list() == [2] * 4


def test_answers_to_one_prompt_go_to_one_judge_and_prompts_to_all(ledger: Ledger) -> None:
    one, two = (raters("honesty").assessors[0].replace(name=name) for name in ("one", "two"))
    panel = Assessors(name="p", assessors=(one, two))
    rows = rate(answers(40), panel, Fake(), ledger).rows
    assert set(rows.group_by("instruction").agg(pl.col("judge").n_unique())["judge"]) == {1}
    assert set(rows["judge"]) == {"one", "two"}


def test_an_empty_table_gives_an_empty_one(ledger: Ledger) -> None:
    rated: Rated = rate(answers(0), raters(), Fake(), ledger)
    assert rated.rows.schema == pl.Schema(Ratings.columns) and rated.rows.height == 0


def accuracy(marks: np.ndarray, quality: np.ndarray) -> tuple[float, float]:
    """Share of pairs [P, 4] told right where they are not tied, and the share of ties."""
    first, second = np.triu_indices(4, 1)
    told = marks[:, first] - marks[:, second]
    true = quality[:, first] - quality[:, second]
    tied = np.abs(told) < 1e-9
    return float((np.sign(told) == np.sign(true))[~tied].mean()), float(tied.mean())


def test_means_of_marks_from_one_call_tell_answers_apart_best() -> None:
    """Quality sd 1, noise of an aspect 0.8, offset of a call 0.5, marks 1 to 5."""
    rng, prompts = np.random.default_rng(0), 20_000
    quality = rng.normal(size=(prompts, 4))
    noise = rng.normal(scale=0.8, size=(prompts, 4, 4))

    def marked(offset: np.ndarray) -> np.ndarray:
        return np.clip(np.round(3 + quality[:, :, None] + noise + offset), 1, 5)

    apart, together = (rng.normal(scale=0.5, size=(prompts, size, 1)) for size in (4, 1))
    overall = accuracy(marked(apart)[:, :, 0], quality)
    separate = accuracy(marked(apart).mean(axis=2), quality)
    same_call = accuracy(marked(together).mean(axis=2), quality)
    assert overall == pytest.approx((0.808, 0.214), abs=0.006)
    assert separate[0] == pytest.approx(0.835, abs=0.006)
    assert same_call == pytest.approx((0.895, 0.073), abs=0.006)
    assert overall[0] < separate[0] < same_call[0]


def test_a_model_without_a_price_is_refused_before_anybody_is_asked(ledger: Ledger) -> None:
    asked: list[Request] = []

    def ask(requests: Sequence[Request]) -> list[Answer]:
        asked.extend(requests)
        return [failed("nobody") for _ in requests]

    judge = Assessor(
        name="one",
        model="nobody-knows-its-price",
        endpoint="https://judges.example/v1",
        sheets=sheets("honesty"),
    )
    with pytest.raises(BadInput, match="no price is known"):
        rate(answers(1), Assessors(name="dear", assessors=(judge,)), ask, ledger)
    assert not asked
