"""A person approves what a run may cost: when, with which cap, and how often."""

import math

import pytest

from alpacafarm_core.errors import BadInput, BudgetReached, CrashedTooOften, Refused
from alpacafarm_core.ledger import Purchase
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy
from flows import endings
from flows.allowance import Allowance
from flows.approval import (
    UNKNOWN,
    VARIABLE,
    Answer,
    admit,
    approved,
    decided,
    digest,
    shown,
    threshold,
)
from flows.endings import named_endings, refuse_endless_crashes
from flows.evaluate import evaluate
from flows.leaderboard import methods_named
from flows.optimise import optimise
from flows.planning import planned
from flows.prepare import prepare
from flows.spreading import enter
from flows.study import planned_ranking
from tasks.stage import ledger, purse
from tests.test_ledger import call

SMOKE = Setup(scale="smoke")


def line(artifact, usd_high, state="to do", rows=10):
    sums = {"calls": 2, "usd_low": usd_high / 2, "usd_high": usd_high}
    return {"stage": "annotate", "artifact": artifact, "state": state, "rows": rows} | sums


def plan(*lines, unpriced=()):
    sums = {name: sum(each[name] for each in lines) for name in ("calls", "usd_low", "usd_high")}
    return {"stages": list(lines), "tokens": 700, "unpriced": list(unpriced)} | sums


TEN = plan(line("preferences/a", 6.0), line("preferences/b", 4.0), line("x/c", 0.0, "cached"))


class Person:
    """Who answers forms one after the other, and keeps what was shown."""

    def __init__(self, *answers):
        self.answers, self.forms = list(answers), []

    def __call__(self, key, text, offered):
        self.forms.append((key, text, offered))
        return self.answers.pop(0)


def nobody(*_):
    raise AssertionError("nobody was to be asked")


def test_a_plan_below_the_limit_asks_nobody_and_may_never_cost_more_than_the_limit(store):
    found = decided(None, 10.0, lambda: TEN, None, nobody)
    assert found is not None and (found.cap, found.stages) == (10.0, ())
    found = decided(3.0, 9.0, lambda: TEN, None, nobody)
    assert found is not None and found.cap == 3.0


def test_without_a_limit_no_plan_is_made_and_the_budget_is_the_cap(store):
    assert decided(None, None, nobody, None, nobody) is None
    found = decided(2.5, None, nobody, None, nobody)
    assert found is not None and found.cap == 2.5


def test_above_the_limit_the_person_sets_the_cap(store):
    person = Person(Answer("approve", 7.0))
    found = decided(None, 9.0, lambda: TEN, None, person)
    assert found is not None and found.cap == 7.0
    assert found.stages == ("preferences/a", "preferences/b")
    assert [offered for _, _, offered in person.forms] == [10.0]


def test_what_was_refused_ends_the_run(store):
    with pytest.raises(Refused, match=r"up to \$10.00 was refused"):
        decided(None, 9.0, lambda: TEN, None, Person(Answer("refuse", 10.0)))


def test_a_cap_that_is_no_sum_is_asked_for_again_under_another_key(store):
    person = Person(Answer("approve", -1.0), Answer("approve", math.nan), Answer("approve", 1.0))
    assert approved(TEN, 8.0, person).cap == 1.0
    keys = [key for key, _, _ in person.forms]
    assert keys == [f"approve-{digest(TEN)}-{number}" for number in range(3)]
    assert "A cap of -1.0 is no sum" in person.forms[1][1]
    assert {offered for _, _, offered in person.forms} == {8.0}


def test_who_begins_again_is_asked_only_for_a_plan_that_holds_something_new(store):
    before = Allowance(cap=7.0, spent_before=0.0, stages=("preferences/a", "preferences/b"))
    dearer_rest = plan(line("preferences/a", 0.0, "cached"), line("preferences/b", 20.0))
    assert decided(None, 9.0, lambda: dearer_rest, before, nobody) == before
    person = Person(Answer("approve", 5.0))
    other = plan(line("preferences/new", 20.0))
    found = decided(None, 9.0, lambda: other, before, person)
    assert found is not None and found.cap == 5.0
    assert digest(other) != digest(dearer_rest)


def test_a_cap_counts_over_all_starts_of_a_run(store):
    allowance = Allowance(cap=7.0, spent_before=2.0)
    assert [allowance.left(held) for held in (2.0, 6.5, 30.0, 1.0)] == [7.0, 2.5, 0.0, 7.0]


def test_what_was_spent_before_a_crash_counts_towards_the_limit(store):
    ledger().append([Purchase(call(price=5.0), ("row",))])
    before, rest = Allowance(cap=9.0, spent_before=0.0), plan(line("preferences/b", 4.5))
    assert decided(None, 9.5, lambda: rest, before, nobody) == before
    person = Person(Answer("approve", 4.5))
    assert decided(None, 9.0, lambda: rest, before, person) is not None and person.forms


def test_a_price_that_nobody_knows_ahead_is_held_to_the_limit(store):
    found = decided(None, 4.0, lambda: UNKNOWN, None, nobody)
    assert found is not None and found.cap == 4.0


def test_a_ranking_is_priced_in_simulation_and_among_people(store):
    smoke = Setup(scale="smoke")
    one = planned(methods_named(["sft"], smoke), [smoke])
    both = planned_ranking(["sft"], smoke, 2)
    assert both["usd_high"] > 2 * one["usd_high"] > 0 and len(both["stages"]) > len(one["stages"])
    assert both["unpriced"] == ["annotate of two writers"]


def test_the_form_shows_stages_and_prices():
    text = shown(plan(line("a", 6.0), line("b", 0.02, rows=None), unpriced=["rate"]), 3.0)
    assert "### This run may cost $3.01 to $6.02" in text
    assert "| annotate | 10 | 2 | $3.00 | $6.00 |" in text
    assert "| annotate | ? | 2 | $0.0100 | $0.0200 |" in text
    assert "Its own budget is $3.00." in text and "not known yet: rate." in text


def test_a_run_that_is_no_deployments_cannot_wait_and_says_what_to_do(store):
    with pytest.raises(BadInput, match="alpacafarm serve"):
        admit(None, 9.0, lambda: TEN)
    admit(None, 10.0, lambda: TEN)
    assert purse().limit == 10.0


def test_the_limit_of_the_environment_is_for_runs_of_deployments(monkeypatch):
    monkeypatch.setenv(VARIABLE, "5")
    assert threshold(None) is None and threshold(2.0) == 2.0
    monkeypatch.setattr("flows.approval.this_run", lambda: "a run")
    assert threshold(None) == 5.0 and threshold(2.0) == 2.0
    monkeypatch.setenv(VARIABLE, "five")
    with pytest.raises(BadInput, match="ALPACAFARM_ASK_ABOVE='five' is no sum"):
        threshold(None)


@pytest.mark.parametrize(
    "begin",
    [
        lambda: prepare.fn(SMOKE),
        lambda: optimise.fn(SFT.at("smoke"), SMOKE.replace(scale="small")),
        lambda: evaluate.fn(Policy(key="0" * 16), "mine", SMOKE),
    ],
    ids=["prepare", "optimise", "evaluate"],
)
def test_runs_that_judge_without_a_field_for_it_ask_above_the_environments_limit(
    begin, store, monkeypatch
):
    monkeypatch.setenv(VARIABLE, "0")
    monkeypatch.setattr("flows.approval.this_run", lambda: "a run")
    monkeypatch.setattr("flows.approval.by_form", Person(Answer("refuse", 0.0)))
    with pytest.raises(Refused):
        begin()


def test_a_part_of_a_leaderboard_keeps_to_the_environments_limit(store, monkeypatch):
    monkeypatch.setenv(VARIABLE, "2")
    monkeypatch.setattr("flows.approval.this_run", lambda: "a run")
    monkeypatch.setattr("flows.spreading.entered", lambda *_: purse().limit)
    assert [enter.fn(budget=given) for given in (None, 0.0, 9.0)] == [2.0, 0.0, 2.0]


def test_ends_by_money_and_by_a_person_have_names_of_their_own(store, prefect):
    from prefect import flow

    @flow
    @named_endings
    def ends(how: str) -> int:
        """A flow that ends as it is told."""
        if how == "well":
            return 7
        raise {"cap": BudgetReached("no money"), "no": Refused("too dear"), "bad": BadInput("x")}[
            how
        ]

    assert ends("well") == 7 and ends.parameters.properties.keys() == {"how"}
    states = {how: ends(how, return_state=True) for how in ("cap", "no", "bad")}
    assert {how: (state.type.value, state.name) for how, state in states.items()} == {
        "cap": ("FAILED", "BudgetReached"),
        "no": ("CANCELLED", "Refused"),
        "bad": ("FAILED", "Failed"),
    }
    assert states["cap"].message == "no money"
    with pytest.raises(BudgetReached, match="no money"):
        ends("cap")
    with pytest.raises(BudgetReached):
        ends.fn("cap")


def test_a_run_that_crashes_each_time_is_not_begun_for_ever(prefect, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed, Failed, Running

    def lived(*names):
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(toy)
            for name in names:
                state = {"C": Crashed(), "R": Running()}.get(name) or Failed(name=name)
                client.set_flow_run_state(run.id, state, force=True)
            return client.read_flow_run(run.id).model_copy(update={"run_count": 9})

    from prefect import flow

    @flow
    def toy() -> None:
        """Nothing."""

    refuse_endless_crashes(None)
    refuse_endless_crashes(lived(*"RCRCRCR"))
    with pytest.raises(CrashedTooOften, match="crashed 4 times"):
        refuse_endless_crashes(lived(*"RCRCRCRCR"))
    refuse_endless_crashes(lived(*"RCRCRCRC", endings.CRASHED_TOO_OFTEN, "R", "C", "R"))
