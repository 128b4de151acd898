"""A policy is not evaluated on prompts that it was trained on, however it came by them."""

import time
from typing import Any

import pytest

from alpacafarm_core.artifacts import Artifact, Demonstrations, Instructions, Preferences, Table
from alpacafarm_core.errors import ContractBroken
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made, Store
from alpacafarm_core.weights import BestOf, Policy, RewardModel
from flows.evaluate import answered
from tasks.overlap import refuse_overlap
from tests.paper_farm import PaperFarm, numbered
from tests.tiny import frame

EVALUATED = Instructions(key=numbered(0xE))
SFT, DPO = Policy(key=numbered(0x5)), Policy(key=numbered(0xD))
REWARD = RewardModel(key=numbered(0x8))
SHOWN, PAIRS = Demonstrations(key=numbered(0x1)), Preferences(key=numbered(0x2))


def made(store: Store, artifact: Artifact, prompts: list[tuple[str, str]], **inputs: Any) -> None:
    """An artifact made from others; a table has these prompts."""
    rows = [{"instruction": instruction, "input": text} for instruction, text in prompts]
    content = frame(type(artifact), rows) if isinstance(artifact, Table) else store.scratch()
    store.write(artifact, Made(content), Recipe.of("made", 1, inputs), time.time())


@pytest.fixture
def farm(store: Store) -> Store:
    """SFT from demonstrations, DPO from that and pairs, a reward model from the same pairs."""
    made(store, EVALUATED, [("Name a fruit.", ""), ("Sum up.", "A text.")])
    made(store, SHOWN, [("Name a colour.", ""), ("Sum up.", "Another text.")])
    made(store, SFT, [], data=SHOWN)
    return store


def test_other_prompts_are_fine_and_so_is_the_same_instruction_with_another_input(farm):
    refuse_overlap(SFT, EVALUATED)


def test_a_prompt_trained_on_two_stages_earlier_is_refused_by_its_row(farm):
    made(farm, PAIRS, [("Sum up.", "A text."), ("Tell a joke.", "")])
    made(farm, DPO, [], policy=SFT, data=PAIRS)
    with pytest.raises(ContractBroken, match=r"1 of 2 evaluation prompts .* row 1 \(Sum up\.\)"):
        refuse_overlap(DPO, EVALUATED)
    refuse_overlap(SFT, EVALUATED)


def test_the_judge_that_a_policy_decodes_by_counts_too(farm):
    made(farm, PAIRS, [("Name a fruit.", "")])
    made(farm, REWARD, [], policy=SFT, preferences=PAIRS)
    with pytest.raises(ContractBroken, match="row 0"):
        refuse_overlap(SFT.replace(decode=BestOf(reward=REWARD)), EVALUATED)


def test_what_is_not_made_yet_is_not_looked_at(store):
    refuse_overlap(SFT, EVALUATED)
    made(store, EVALUATED, [("Name a fruit.", "")])
    refuse_overlap(SFT, EVALUATED)


def test_no_answer_is_drawn_before_the_prompts_are_looked_at(farm, monkeypatch):
    made(farm, PAIRS, [("Name a fruit.", "")])
    made(farm, DPO, [], policy=SFT, data=PAIRS)
    paper = PaperFarm()
    monkeypatch.setattr(paper, "instructions", lambda *_: EVALUATED, raising=False)
    with pytest.raises(ContractBroken):
        answered(DPO, Setup(scale="smoke"), paper)
    assert paper.asked == []
