"""The loops keep the contracts: each planted defect ends a training, good data does not."""

from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import decoding, reward
from alpacafarm_core.errors import ContractBroken
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.proximal import KLPenalty
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train import contracts, offline, online
from tests.test_training import EXACT, PPO, TRAINING
from tests.tiny import demonstrations, preferences, tiny_model

FROZEN = TRAINING.replace(learning_rate=1e-12, batch=2, epochs=3)


def tied(row: int) -> pl.DataFrame:
    """Preferences with pairs of equal answers from one row on, after one without a label."""
    rows = preferences().with_row_index("row")
    same = pl.when(pl.col("row") >= row).then("output_1").otherwise("output_2")
    label = pl.when(pl.col("row") > 0).then("preference")
    return rows.with_columns(output_2=same, preference=label).drop("row")


def test_equal_answers_are_refused_by_their_row_in_the_table(tiny, tmp_path):
    with pytest.raises(ContractBroken, match=r"10 of 15 pairs .* row 6 \(Which of these is yellow"):
        offline.train((tiny, None), tmp_path / "dpo", tied(6), DPO(training=TRAINING), EXACT)
    with pytest.raises(ContractBroken, match=r"row 6 \("):
        reward.fit(tiny, tmp_path / "rm", tied(6), Fitting(training=TRAINING), EXACT)


def test_answers_that_never_end_are_refused(tiny, tmp_path):
    digest = own_tokenizer(tiny)
    endless = demonstrations().with_columns(
        output_ids=pl.lit([7, 8], dtype=pl.List(pl.Int32)), tokenizer=pl.lit(digest)
    )
    with pytest.raises(ContractBroken, match="16 of 16 responses to imitate"):
        offline.train((tiny, None), tmp_path / "sft", endless, SFT(training=TRAINING), EXACT)


def test_a_loss_that_stays_at_ln_2_is_refused(tiny, tmp_path):
    with pytest.raises(ContractBroken, match="stuck at ln 2"):
        dpo = DPO(training=FROZEN)
        offline.train((tiny, None), tmp_path / "dpo", preferences(), dpo, EXACT)
    assert not (tmp_path / "dpo" / "model.safetensors").exists()


def test_a_reward_model_that_length_beats_is_refused_unless_that_is_waived(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(contracts, "PAIRS", 4)
    monkeypatch.setattr(reward, "_accuracy", lambda *_: 0.0)
    monkeypatch.setattr(reward, "_length_accuracy", lambda *_: 1.0)
    fitting = Fitting(training=TRAINING.replace(epochs=1), held_out=4)
    with pytest.raises(ContractBroken, match="waive this with above_length false"):
        reward.fit(tiny, tmp_path / "refused", preferences(12), fitting, EXACT)
    waived = fitting.replace(above_length=False)
    notes = reward.fit(tiny, tmp_path / "waived", preferences(12), waived, EXACT)
    assert notes["accuracy"] == 0.0


def test_a_sampler_that_is_not_the_policy_is_refused(tiny, scorer, tmp_path, monkeypatch):
    honest = decoding.logprobs
    monkeypatch.setattr(decoding, "logprobs", lambda *given: honest(*given) - 0.25)
    with pytest.raises(ContractBroken, match=r"step 1: .* 0\.25 nats a token apart"):
        online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), PPO, EXACT)


def test_a_policy_far_from_its_reference_is_refused(tiny, scorer, tmp_path):
    other = tiny_model(tmp_path / "other", seed=1)
    strict = PPO.replace(kl=KLPenalty(limit=0.5))
    with pytest.raises(ContractBroken, match=r"step 1: a response is .* at most 0\.5 are allowed"):
        online.roll_out((tiny, scorer, other), tmp_path / "out", demonstrations(), strict, EXACT)


def test_good_trainings_keep_every_contract_and_note_the_counts(tiny, scorer, tmp_path):
    short = TRAINING.replace(epochs=1)
    notes = offline.train((tiny, None), tmp_path / "dpo", preferences(), DPO(training=short), EXACT)
    assert notes["identical"] == 0 and notes["without_end"] == 0
    steps = online.roll_out(
        (tiny, scorer, None), tmp_path / "ppo", demonstrations(), PPO.replace(steps=1), EXACT
    )["steps"]
    assert steps[0]["gap_mean"] < 1e-5 and steps[0]["gap_ratio"] == pytest.approx(1, abs=1e-4)


def own_tokenizer(tiny: Path) -> str:
    """What marks ids as sampled under the tiny model's own tokenizer."""
    from alpacafarm_core.train.models import load_tokenizer
    from alpacafarm_core.train.tokens import tokenizer_digest

    return tokenizer_digest(load_tokenizer(tiny))
