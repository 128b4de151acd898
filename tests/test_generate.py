"""Answers of a tiny Llama: remembered sample by sample, best of n, refused without room."""

from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.decoding import TransformersSampler
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import best_of, generate, seed_of
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.reward import score
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.models import load_policy, load_scorer, save
from alpacafarm_core.weights import BestOf, RewardModel
from tests.tiny import PROMPTS, frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=8)
WARM = Sampling(temperature=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tied head, the case in which a weight sync can go wrong unseen."""
    return tiny_model(tmp_path_factory.mktemp("policy"), tied=True)


@pytest.fixture(scope="module")
def scorer(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    save(load_scorer(policy, EXACT), folder)
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def instructions() -> pl.DataFrame:
    rows = [{"instruction": a, "input": b, "dataset": "world"} for a, b in PROMPTS]
    return frame(Instructions, rows)


def test_candidates_have_their_columns_and_their_own_ids(policy, ledger):
    rows = generate(policy, instructions(), WARM.replace(n=2, seed=3), ledger, EXACT)
    assert dict(rows.schema) == Candidates.columns
    assert rows["sample_index"].to_list() == [0, 1] * 4
    assert rows["seed"].unique().to_list() == [3] and rows["temperature"].unique().to_list() == [1]
    tokenizer = load_policy(policy, EXACT).tokenizer
    for ids, text in rows.select("output_ids", "output").iter_rows():
        assert (
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            == text
        )


def test_known_samples_are_not_drawn_again(policy, ledger, monkeypatch):
    asked: list[int] = []
    draw = TransformersSampler.sample

    def counting(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        return draw(self, prompts, sampling, seeds)

    monkeypatch.setattr(TransformersSampler, "sample", counting)
    two = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    again = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    three = generate(policy, instructions(), WARM.replace(n=3), ledger, EXACT)
    assert asked == [8, 12] and again.equals(two)  # another n is another draw: no race for samples
    assert three.filter(pl.col("sample_index") < 2)["output"].equals(two["output"])


def test_best_of_keeps_the_answer_the_reward_model_likes_most(policy, scorer, ledger):
    decode = BestOf(n=4, reward=RewardModel(key="0" * 16))
    asked = (WARM.replace(n=2), decode)
    kept = best_of((policy, scorer), instructions(), asked, ledger, EXACT)
    drawn = generate(policy, instructions(), WARM.replace(n=8), ledger, EXACT)
    scores = score(scorer, drawn, EXACT)
    highest = [max(scores[i : i + 4]) for i in range(0, len(scores), 4)]
    assert kept.height == 8 and kept["sample_index"].to_list() == [0, 1] * 4
    assert kept["score"].to_list() == pytest.approx(highest, abs=1e-5)


def test_a_prompt_that_leaves_no_room_is_refused(policy, ledger):
    with pytest.raises(BadInput, match="row 0"):
        generate(policy, instructions(), Sampling(max_tokens=250), ledger, EXACT)


def test_seeds_are_the_same_in_every_process():
    assert seed_of(0, "a prompt", 1) == 107085982884010
