"""Draws: stable in the texts and the seed, and alpaca_eval's where asked for."""

import random
from collections import Counter

import pytest

from alpacafarm_core.draws import draws
from alpacafarm_core.panel import Panel
from alpacafarm_core.templates import Example
from tests.test_annotate import judge_of

JUDGES = tuple(judge_of(name) for name in "abcde")
PANEL = Panel(name="five", annotators=JUDGES, flip=0.25, seed=3)
ROWS = [Example(f"do {n}", "", f"x{n}", f"y{n}") for n in range(2000)]


def test_a_prompt_keeps_its_judge_whatever_the_answers_unless_the_pair_decides():
    ones = [draws(row, PANEL).judge for row in ROWS]
    assert [draws(row._replace(output_1="z"), PANEL).judge for row in ROWS] == ones
    by_pair = PANEL.replace(level="pair")
    others = [draws(row._replace(output_1="z"), by_pair).judge for row in ROWS]
    assert others != [draws(row, by_pair).judge for row in ROWS]


@pytest.mark.parametrize("kind", ["ours", "alpaca_eval"])
def test_shares_are_those_of_the_panel(kind):
    drawn = [draws(row, PANEL.replace(draws=kind)) for row in ROWS]
    coins = Counter(each.coin for each in drawn)
    assert 900 < coins[None] < 1100 and 420 < coins[1.0] < 580 and 420 < coins[2.0] < 580
    assert 900 < sum(each.is_switched for each in drawn) < 1100
    assert all(340 < count < 460 for count in Counter(each.judge for each in drawn).values())


def test_draws_of_alpaca_eval_are_one_choice_each_seeded_by_the_merged_instruction():
    row = Example("Translate.", "bonjour", "hello", "good day")
    seed = "Translate.\n\nbonjour3"
    found = draws(row, PANEL.replace(draws="alpaca_eval"))
    assert found.judge == random.Random("annotator" + seed).choices([0, 1, 2, 3, 4])[0]
    assert (
        found.is_switched == random.Random("is_switched_outputs" + seed).choices([False, True])[0]
    )
    weights = [0.5, 0.25, 0.25]
    coins = random.Random("noisy_preference" + seed).choices([None, 1, 2], weights)
    assert [found.coin] == coins


def test_a_fixed_order_is_never_switched():
    for kind in ("ours", "alpaca_eval"):
        panel = PANEL.replace(order="fixed", draws=kind)
        assert not any(draws(row, panel).is_switched for row in ROWS[:50])
