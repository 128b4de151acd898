"""Answers of a tiny Llama: remembered sample by sample, best of n, refused without room."""

import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core import generate as core
from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import best_of, generate, seed_of, write, write_best
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.reward import score
from alpacafarm_core.sampler import Batch, Sample
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


class Scribe:
    """An engine that answers with ids made of the seed, and counts what it is asked for."""

    def __init__(self, batches: int = 1_000_000) -> None:
        self.asked: list[int] = []
        self.batches = batches

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        for number, batch in enumerate(batches):
            if number == self.batches:
                raise KeyboardInterrupt
            self.asked.append(len(batch.seeds))
            yield [Sample([5 + seed % 300, seed % 7 + 10, 1], "stop") for seed in batch.seeds]

    def close(self) -> None:
        pass


@pytest.fixture
def scribe(monkeypatch: pytest.MonkeyPatch) -> Scribe:
    engine = Scribe()
    monkeypatch.setattr(core, "open_sampler", lambda *_: engine)
    return engine


def test_known_samples_are_not_drawn_again(policy, ledger, scribe):
    two = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    again = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    three = generate(policy, instructions(), WARM.replace(n=3), ledger, EXACT)
    assert scribe.asked == [8, 12]  # another n is another draw: no race for samples
    assert again.equals(two)
    assert three.filter(pl.col("sample_index") < 2)["output"].equals(two["output"])


def test_an_engine_is_opened_only_for_what_is_not_known(policy, ledger, scribe, monkeypatch):
    generate(policy, instructions(), WARM, ledger, EXACT)
    monkeypatch.setattr(core, "open_sampler", None)
    assert generate(policy, instructions(), WARM, ledger, EXACT).height == 4


def test_what_was_drawn_before_a_kill_is_kept_chunk_by_chunk(policy, ledger, tmp_path, monkeypatch):
    asked = (policy, instructions(), WARM.replace(n=500))
    monkeypatch.setattr(core, "open_sampler", lambda *_: Scribe(batches=2))
    with pytest.raises(KeyboardInterrupt):
        write(*asked, ledger, tmp_path / "killed.parquet", EXACT)
    assert ledger.counts().samples == 2 * core.CHUNK
    rest = Scribe()
    monkeypatch.setattr(core, "open_sampler", lambda *_: rest)
    assert write(*asked, ledger, tmp_path / "resumed.parquet", EXACT) == 2000
    assert sum(rest.asked) == 2000 - 2 * core.CHUNK
    monkeypatch.setattr(core, "open_sampler", lambda *_: Scribe())
    straight = generate(*asked, Ledger(tmp_path / "other.sqlite"), EXACT)
    assert pl.read_parquet(tmp_path / "resumed.parquet").equals(straight)


def test_memory_does_not_grow_with_the_number_of_answers(policy, tmp_path, scribe):
    def peak(n: int) -> int:
        ledger, file = Ledger(tmp_path / f"{n}.sqlite"), tmp_path / f"{n}.parquet"
        tracemalloc.start()
        assert write(policy, instructions(), WARM.replace(n=n), ledger, file, EXACT) == 4 * n
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    peak(10)  # what is imported and cached once
    assert peak(1200) < 1.2 * peak(400)


def test_no_rows_make_an_empty_table(policy, ledger, tmp_path, scribe):
    assert write(policy, instructions()[:0], WARM, ledger, tmp_path / "none.parquet", EXACT) == 0
    assert dict(pl.read_parquet_schema(tmp_path / "none.parquet")) == Candidates.columns
    assert not scribe.asked


def test_best_of_keeps_the_answer_the_reward_model_likes_most(policy, scorer, ledger, tmp_path):
    decode = BestOf(n=4, reward=RewardModel(key="0" * 16))
    asked = (WARM.replace(n=2), decode)
    kept = best_of((policy, scorer), instructions(), asked, ledger, EXACT)
    written = write_best(
        (policy, scorer), instructions(), asked, ledger, tmp_path / "best.parquet", EXACT
    )
    drawn = generate(policy, instructions(), WARM.replace(n=8), ledger, EXACT)
    scores = score(scorer, drawn, EXACT)
    highest = [max(scores[i : i + 4]) for i in range(0, len(scores), 4)]
    assert kept.height == 8 and kept["sample_index"].to_list() == [0, 1] * 4
    assert kept["score"].to_list() == pytest.approx(highest, abs=1e-5)
    assert written == 8
    assert pl.read_parquet(tmp_path / "best.parquet").equals(kept.drop("score"))


def test_the_best_is_found_across_chunks(policy, scorer, ledger, scribe, monkeypatch):
    asked = (WARM.replace(n=2), BestOf(n=5, reward=RewardModel(key="0" * 16)))
    whole = best_of((policy, scorer), instructions(), asked, ledger, EXACT)
    monkeypatch.setattr(core, "CHUNK", 3)
    found = best_of((policy, scorer), instructions(), asked, ledger, EXACT)
    assert found.drop("score").equals(whole.drop("score"))
    assert found["score"].to_list() == pytest.approx(whole["score"].to_list(), abs=1e-5)


def test_a_prompt_that_leaves_no_room_is_refused(policy, ledger):
    with pytest.raises(BadInput, match="row 0"):
        generate(policy, instructions(), Sampling(max_tokens=250), ledger, EXACT)


def test_seeds_are_the_same_in_every_process():
    assert seed_of(0, "a prompt", 1) == 107085982884010
