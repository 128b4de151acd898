"""Rewards: the same number from either engine, at the token it belongs to, a part at a time."""

from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core import parts, scoring
from alpacafarm_core.artifacts import Candidates, Scores
from alpacafarm_core.machine import Machine
from alpacafarm_core.reward import score
from alpacafarm_core.train.batches import tokenizer_digest
from alpacafarm_core.train.models import load_scorer, save
from tests.tiny import ANSWERS, PROMPTS, frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=4)
SERVED = EXACT.replace(engine="vllm")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that reads 128 tokens."""
    folder = tmp_path_factory.mktemp("judge")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loaded = load_scorer(tiny_model(tmp_path_factory.mktemp("tiny")), EXACT)
    loaded.tokenizer.model_max_length = 128
    save(loaded, folder)
    return folder


@pytest.fixture(scope="module")
def candidates(judge: Path) -> pl.DataFrame:
    """Texts, sampled ids with and without an end token, an empty answer, a prompt to be cut."""
    ours = tokenizer_digest(load_scorer(judge, EXACT).tokenizer)
    rows = [
        {"instruction": asked, "input": text, "output": answer, "tokenizer": ""}
        for (asked, text), answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    for ids in ([20, 30, 40, 1], [20, 30, 40], [1], list(range(40, 90))):
        sampled = {"output": "not what is read", "output_ids": ids, "tokenizer": ours}
        rows.append({"instruction": "Name a red fruit. " * 30, "input": "", **sampled})
    return frame(Candidates, rows)


def test_vllm_gives_the_rewards_that_transformers_gives(judge, candidates):
    pytest.importorskip("vllm")
    expected, found = (score(judge, candidates, machine) for machine in (EXACT, SERVED))
    assert found == pytest.approx(expected, abs=1e-4)
    assert len({round(reward, 3) for reward in expected}) > 5
    assert expected[4] == pytest.approx(expected[5], abs=1e-5)  # the end token is not read


def test_a_share_of_a_file_is_scored_in_parts(judge, candidates, tmp_path, monkeypatch):
    file, out = tmp_path / "candidates.parquet", tmp_path / "scores.parquet"
    parts.lay(iter([candidates]), Candidates.columns, file)
    monkeypatch.setattr(parts, "CHUNK", 2)
    assert scoring.write(judge, file, (1, 5), "reward_model/x", out, EXACT) == 5
    rows = pl.read_parquet(out)
    assert dict(rows.schema) == Scores.columns and set(rows["judge"]) == {"reward_model/x"}
    assert rows.drop("score", "judge").equals(candidates[1:6])
    assert rows["score"].to_list() == pytest.approx(score(judge, candidates, EXACT)[1:6], abs=1e-5)


def test_parts_are_read_back_in_order_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GROUP", 3)
    columns = {"number": pl.Int64(), "ids": pl.List(pl.Int32())}
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, numbers in zip(files, ([[1, 2], [3, 4], [5]], [[], [6]]), strict=True):
        frames = (
            pl.DataFrame({"number": n, "ids": [[i] for i in n]}, schema=columns) for n in numbers
        )
        assert parts.lay(frames, columns, file) == sum(map(len, numbers))
    found = list(parts.read(files))
    assert [frame["number"].to_list() for frame in found] == [[1, 2, 3, 4], [5], [6]]
    assert dict(found[0].schema) == columns and found[1]["ids"].to_list() == [[5]]
