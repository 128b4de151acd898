"""What a loss sees of a batch: statistics of the whole of it, and what the stages before found."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.bco import BCO
from alpacafarm_core.methods.cpo import CPO
from alpacafarm_core.methods.kto import KTO
from alpacafarm_core.methods.rpo import RPO
from alpacafarm_core.methods.tpo import Triple
from alpacafarm_core.objective import NO_PAST, Objective
from alpacafarm_core.settings import Looking, Training
from alpacafarm_core.train import offline, reference
from alpacafarm_core.train.checkpoint import Checkpoints
from alpacafarm_core.train.engine import Alone, accumulate
from alpacafarm_core.train.models import load_policy
from alpacafarm_core.train.tokens import responses_of
from tests.test_training import EXACT
from tests.tiny import preferences, tiny_model

TRAINING = Training(learning_rate=3e-3, epochs=2, batch=8, max_length=256)
WHOLE, PARTS = [list(range(8))], [[0, 3, 5], [1], [2, 4, 6, 7]]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference that differs from the start."""
    return tiny_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Preferences as a stage hands them on."""
    preferences().write_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def enrolled(
    models: tuple[Path, Path], objective: Objective, given: offline.Data, machine: Machine = EXACT
) -> offline.Course:
    """The policy with all that the objective asks for, as a training has it."""
    policy = load_policy(models[0], machine)
    material = offline.read(given.rows, policy.tokenizer, objective)
    return offline.enrolled(policy, models, material, given, objective, machine)


def learned(course: offline.Course, cut: list[list[int]]) -> tuple[dict[str, float], list[Any]]:
    """Figures and gradients of one batch of eight pairs, cut into micro-batches."""
    engine = Alone([course.model], course.objective.training)
    figures = accumulate(engine, cut, offline.lesson(course, range(8)))
    return figures, [weight.grad for weight in course.model.parameters()]


def test_a_pair_without_a_gold_response_is_refused_with_its_row(tiny):
    own = pl.lit([], dtype=pl.List(pl.Int32))
    golden = preferences().with_columns(gold=pl.lit("An apple."), gold_ids=own)
    row = pl.int_range(pl.len())
    some = golden.with_columns(gold=pl.when(row == 2).then(pl.lit("")).otherwise("gold"))
    assert enrolled((tiny, tiny), Triple(), offline.Data(golden)).beside
    with pytest.raises(BadInput, match="row 2: this pair has no gold response; rank at"):
        enrolled((tiny, tiny), Triple(), offline.Data(some))


@pytest.mark.parametrize("objective", [KTO(beta=0.5), RPO(), CPO()])
def test_a_statistic_of_the_batch_is_the_same_for_every_micro_batch(tiny, other, objective):
    found = []
    for cut in (WHOLE, PARTS):
        course = enrolled((other, tiny), objective, offline.Data(preferences()))
        found.append(learned(course, cut))
    (whole, ours), (parts, theirs) = found
    assert whole.get("mismatch_kl", 1) > 0, "below zero it would not count"
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_ktos_reference_point_is_the_mean_log_ratio_of_chosen_responses_to_other_prompts(
    tiny, other
):
    course = enrolled((tiny, other), KTO(), offline.Data(preferences()))
    figures, _ = learned(course, WHOLE)
    policy, frozen = (load_policy(folder, EXACT) for folder in (tiny, other))
    examples = course.examples
    total = 0.0
    for at in range(8):
        prompt, answer = examples[at].chosen.prompt, examples[at - 1].chosen.response
        for model, sign in ((policy, 1), (frozen, -1)):
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                logprobs = model.model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            total += sign * float(logprobs[range(len(answer)), list(answer)].sum())
    assert figures["mismatch_kl"] == pytest.approx(total / 8, abs=1e-3)


def test_what_the_stage_found_of_mismatched_responses_is_what_a_training_would_find(
    tiny, other, rows, tmp_path
):
    files = {}
    for responses in ("given", "mismatched"):
        files[responses] = tmp_path / responses / "rows.parquet"
        files[responses].parent.mkdir()
        looking = Looking(responses=responses, max_length=256)
        reference.look(other, rows, looking, files[responses], EXACT)
    objective = KTO(training=TRAINING)
    looked = offline.Data(rows, files["given"], files["mismatched"])
    told, _ = learned(enrolled((tiny, other), objective, looked), WHOLE)
    alone, _ = learned(enrolled((tiny, other), objective, offline.Data(rows)), WHOLE)
    assert told["mismatch_kl"] == pytest.approx(alone["mismatch_kl"], abs=1e-4) != 0
    assert told["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_the_stages_number_is_used_and_not_found_again(tiny, other, rows, tmp_path):
    """A nat more for every mismatched response under the reference is a nat less divergence."""
    file = tmp_path / "mismatched" / "rows.parquet"
    file.parent.mkdir()
    looking = Looking(responses="mismatched", max_length=256)
    reference.look(other, rows, looking, file, EXACT)
    objective, known = KTO(training=TRAINING), offline.Data(rows, None, file)
    before, _ = learned(enrolled((tiny, other), objective, known), WHOLE)
    more = [[first + 1, *rest] for first, *rest in pl.read_parquet(file)["logprobs"].to_list()]
    logps = pl.read_parquet(file)
    logps.with_columns(pl.Series("logprobs", more, dtype=logps.schema["logprobs"])).write_parquet(
        file
    )
    after, _ = learned(enrolled((tiny, other), objective, known), WHOLE)
    assert after["mismatch_kl"] == pytest.approx(before["mismatch_kl"] - 1, abs=1e-4)


@pytest.mark.parametrize("objective", [RPO(alpha=1.0), CPO(alpha=1.0)])
def test_the_likelihood_term_is_the_mean_over_the_chosen_tokens_of_the_batch(
    tiny, other, objective
):
    course = enrolled((tiny, other), objective, offline.Data(preferences()))
    whole, _ = learned(course, PARTS)
    plain, _ = learned(course._replace(objective=objective.replace(alpha=0)), PARTS)
    chosen = responses_of([course.examples[row] for row in range(8)])[:8]
    with torch.no_grad():
        sums = offline.see(
            course, list(range(8)), offline.statistics(course, range(8), NO_PAST)
        ).chosen
    per_token = -float(sums.sum()) / sum(len(each.response) for each in chosen)
    assert whole["loss"] - plain["loss"] == pytest.approx(per_token, rel=1e-4)
    means = [-float(s) / len(each.response) for s, each in zip(sums, chosen, strict=True)]
    assert sum(means) / 8 != pytest.approx(per_token, rel=3e-3)


class Killed(BaseException):
    """Stands for a process that is no more."""


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory) -> list[dict[str, float]]:
    out = tmp_path_factory.mktemp("whole") / "out"
    objective = BCO(beta=0.1, training=TRAINING)
    return offline.train((tiny, None), out, preferences(), objective, EXACT)["steps"]


def test_bcos_shift_is_the_mean_reward_of_the_steps_before(uninterrupted):
    steps = uninterrupted
    assert [step["rows"] for step in steps] == [8, 8, 8, 8] and steps[0]["carried"] == 0
    rewards = [0.1 * (step["chosen"] + step["rejected"]) / 2 for step in steps]
    means = [sum(rewards[:at]) / at for at in range(1, 4)]
    assert [step["carried"] for step in steps[1:]] == pytest.approx(means)
    assert any(abs(mean) > 1e-3 for mean in means)


def test_bcos_shift_is_the_same_after_a_stop(tiny, tmp_path, monkeypatch, uninterrupted):
    machine, objective = EXACT.replace(checkpoint_seconds=0), BCO(beta=0.1, training=TRAINING)
    models, out, save = (tiny, None), tmp_path / "out", Checkpoints.save

    def save_and_die(*given: Any, **named: Any) -> bool:
        save(*given, **named)
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Checkpoints, "save", save_and_die)
            offline.train(models, out, preferences(), objective, machine)
    steps = offline.train(models, out, preferences(), objective, machine)["steps"]
    assert len(steps) == 4
    for name in ("carried", "loss"):
        assert [step[name] for step in steps] == [step[name] for step in uninterrupted]
