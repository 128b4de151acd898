"""The purse: never a call that could cost more than is left, and what is bought is kept."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from alpacafarm_core.annotate import _rows, judge, outstanding
from alpacafarm_core.buying import batches_of
from alpacafarm_core.buying import most as cost_at_most
from alpacafarm_core.errors import BudgetReached
from alpacafarm_core.llm import Answer, Request
from alpacafarm_core.purse import Purse
from tests.test_annotate import Fake, judge_of, ledger, pairs_of, panel_of  # noqa: F401


class Honest(Fake):
    """Counts tokens as a server might: no more than the prompt has bytes."""

    def answer(self, request: Request) -> Answer:
        return replace(super().answer(request), prompt_tokens=10, completion_tokens=5)


def test_as_many_as_can_be_paid_and_the_rest_when_they_cost_less():
    purse = Purse(1.0)
    assert purse.reserve([0.4, 0.4, 0.4]) == 2
    purse.settle([0.4, 0.4], 0.3)
    assert purse.reserve([0.4]) == 1
    purse.settle([0.4], 0.4)
    with pytest.raises(BudgetReached, match=r"budget of \$1.00: \$0.70 are spent"):
        purse.reserve([0.4])


def test_threads_share_it_and_together_spend_no_more_than_it_holds():
    purse = Purse(1.0)

    def buy(_: int) -> bool:
        try:
            purse.reserve([0.3])
        except BudgetReached:
            return False
        purse.settle([0.3], 0.25)
        return True

    with ThreadPoolExecutor(8) as threads:
        bought = list(threads.map(buy, range(20)))
    assert sum(bought) == 3 and purse.spent == pytest.approx(0.75)


def test_judging_stops_before_the_cap_and_a_rerun_buys_only_the_rest(ledger):  # noqa: F811
    panel, pairs, judge_all = panel_of(judge_of(max_tokens=20)), pairs_of(40), Honest()
    whole = 40 * 0.015  # 15 tokens a call at $1 for a thousand
    purse = Purse(whole / 2)
    with pytest.raises(BudgetReached):
        judge(pairs, panel, judge_all, ledger, purse)
    first = len(judge_all.requests)
    assert 15 <= first <= 20 and purse.spent == pytest.approx(first * 0.015)
    assert len(outstanding(pairs, panel, ledger)) == 40 - first
    labels = judge(pairs, panel, judge_all, ledger, Purse(whole)).preferences
    assert len(judge_all.requests) == 40 and labels["preference"].to_list() == [2.0] * 40


def test_one_who_fails_leaves_no_other_waiting_for_its_money(ledger):  # noqa: F811
    def torn(requests):
        raise OSError("the disk is full")

    panel, purse = panel_of(judge_of(max_tokens=20)), Purse(0.08)
    with pytest.raises(OSError, match="disk"):
        judge(pairs_of(1), panel, torn, ledger, purse)
    assert 0 < purse.spent < 0.08  # what was under way may have been charged
    with pytest.raises(BudgetReached):
        judge(pairs_of(1), panel, Honest(), ledger, purse)


def test_tools_and_limits_that_a_panel_adds_to_the_request_count_as_well():
    def most(**extra: object) -> float:
        judge_one = judge_of(max_tokens=20, extra=extra)
        batch = batches_of(_rows(pairs_of(1), panel_of(judge_one)))[0]
        return cost_at_most(batch)

    plain, tools = most(), {"tools": [{"description": "x" * 1000}]}
    assert most(**tools) > plain + 1.0  # a dollar for a thousand tokens
    assert most(max_completion_tokens=1020) > plain + 1.0
    assert most(n=51) > plain + 1.0
