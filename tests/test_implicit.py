"""A policy's own reward: by hand, of sampled ids, and of sides that are swapped."""

import polars as pl
import pytest
import torch

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Candidates, Scores
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import tokenizer_digest
from alpacafarm_core.train.implicit import rewards, write
from alpacafarm_core.train.models import load_policy
from tests.tiny import frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=4)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random models with one tokenizer."""
    return tuple(tiny_model(tmp_path_factory.mktemp("tiny"), seed=seed) for seed in (0, 1))


@pytest.fixture(scope="module")
def answers(models):
    """Answers as sampled ids, whatever the text says."""
    ours = tokenizer_digest(load_policy(models[0], EXACT).tokenizer)
    sampled = {"instruction": "Name a red fruit.", "input": "", "tokenizer": ours, "output": "-"}
    ids = [[20, 30, 40, 1], [20, 30, 40], [50, 1]]
    return frame(Candidates, [sampled | {"output_ids": each} for each in ids])


def logprob(folder, answers, row):
    """Log-probability of an answer, a token at a time."""
    loaded = load_policy(folder, EXACT)
    from alpacafarm_core.train.batches import encode

    tokens = encode(answers, "output", loaded.tokenizer)[row]
    ids = torch.tensor([tokens.prompt + tokens.response])
    with torch.no_grad():
        logprobs = loaded.model(ids).logits[0].float().log_softmax(-1)
    start = len(tokens.prompt)
    return sum(float(logprobs[start + at - 1, id]) for at, id in enumerate(tokens.response))


def test_the_reward_is_the_log_ratio_of_the_sampled_ids(models, answers):
    policy, reference = (load_policy(folder, EXACT) for folder in models)
    found = rewards(policy, reference, answers, EXACT)
    expected = [
        logprob(models[0], answers, row) - logprob(models[1], answers, row) for row in range(3)
    ]
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[0] != found[1]  # the end token is read


def test_models_in_each_others_place_turn_the_reward_round(models, answers):
    policy, reference = (load_policy(folder, EXACT) for folder in models)
    there, back = (
        rewards(policy, reference, answers, EXACT),
        rewards(reference, policy, answers, EXACT),
    )
    assert there == pytest.approx([-reward for reward in back])
    assert rewards(policy, policy, answers, EXACT) == [0.0, 0.0, 0.0]


def test_a_share_of_a_file_is_scored(models, answers, tmp_path):
    file, out = tmp_path / "candidates.parquet", tmp_path / "scores.parquet"
    parts.lay(iter([answers]), Candidates.columns, file)
    assert write(models, file, (1, 2), "implicit", out, EXACT) == 2
    rows, both = pl.read_parquet(out), [load_policy(folder, EXACT) for folder in models]
    assert list(rows.columns) == list(Scores.columns)
    assert rows["score"].to_list() == pytest.approx(rewards(*both, answers[1:], EXACT), abs=1e-5)
    assert rows["judge"].to_list() == ["implicit", "implicit"]
