"""What a training will take: counted by hand on a few shapes, and held against a real one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alpacafarm_core.errors import DoesNotFit
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Lora
from alpacafarm_core.train import lora, trial
from alpacafarm_core.train.batches import Tokens, padded
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.models import load_policy, load_scorer
from alpacafarm_core.train.room import (
    Case,
    Frozen,
    Shape,
    Work,
    predict,
    smallest_change,
    with_adapters,
)
from tests.tiny import tiny_model

CHECKED = Machine(device="cpu", precision="float32", fit_check="yes")

# 2 layers of width 4: four matrices 4 x 4 and three 4 x 8 each, embeddings and head of 10 x 4.
# Sums of in * out: 2 * (4 * 16 + 3 * 32) = 320; of in + out: 2 * (4 * 8 + 3 * 12) = 136.
SMALL = Shape(parameters=400, trainable=400, dense=320, edges=136, layers=2, hidden=4, inner=8,
              heads=2, vocabulary=10)  # fmt: skip
# 15 tokens, at 5 of which the head looks; 60 tokens a step.
WORK = Work(examples=4, rows=3, length=5, predicted=5, tokens=60)
CASE = Case([SMALL], Frozen(reference=1600, others=400), WORK, speed=1e6)
GIB = 2**30
# About a 7 B model, 16 rows of 1,024 tokens.
LARGE = Shape(6_738_415_616, 6_738_415_616, 6_476_005_376, 4_999_168, 32, 4096, 11008, 32, 32000)
HEAVY = Case([LARGE], Frozen(4 * 6_738_415_616), Work(16, 16, 1024, 8192, 131_072, half=True))


def working(**changes: Any) -> tuple[int, int]:
    """Bytes kept and bytes passing, with another shape or work."""
    shape = SMALL._replace(**{n: v for n, v in changes.items() if n in Shape._fields})
    work = WORK._replace(**{n: v for n, v in changes.items() if n in Work._fields})
    need = predict(Case([shape], Frozen(), work))
    return need.activations, need.passing


def test_what_is_certain_is_four_bytes_a_weight_and_a_gradient_and_eight_of_moments():
    need = predict(CASE)
    assert need.weights == need.gradients == 1600 and need.optimiser == 3200
    assert need.frozen == 2000 and need.certain == 8400


def test_what_layers_keep_for_the_backward_pass():
    # 4 bytes * 15 tokens: 11 widths and 4 inner widths for each of 2 layers, 4 widths at the ends.
    assert working()[0] == 4 * 15 * (2 * (11 * 4 + 4 * 8) + 4 * 4)
    # Eager attention keeps 2 heads * 5 tokens, saves a width, and is given a mask of 5 for each.
    assert working(eager=True)[0] == 4 * 15 * (2 * (10 * 4 + 4 * 8 + 2 * 5) + 4 * 4 + 5)
    # Computed again: the input of each layer, and one layer whole.
    assert working(again=True)[0] == 4 * 15 * (2 * 4 + (11 * 4 + 4 * 8) + 4 * 4)
    # bfloat16: 34 bytes a width and 8 an inner width.
    assert working(half=True)[0] == 15 * (2 * (34 * 4 + 8 * 8) + 4 * 4 * 4)


def test_what_passes_is_a_slab_of_logits_or_the_inside_of_a_layer():
    assert working()[1] == 4 * 15 * 3 * 8  # three gradients of the inner width
    assert working(vocabulary=1000)[1] == 3 * 4 * 5 * 1000  # logits, their softmax, its gradient
    assert working(vocabulary=100_000_000)[1] == 3 * 4 * 32_000_000  # a slab at the most


def test_a_step_is_two_operations_a_weight_three_times_over():
    # 15 tokens through 320 weights, 5 through a head of 40, attention 2 * 2 * 4 * 5 a token.
    one = 2 * 3 * (320 * 15 + 40 * 5 + 2 * 2 * 4 * 5 * 15)
    assert predict(CASE).seconds == pytest.approx(one * (60 / 15) / 1e6)
    again = predict(CASE._replace(work=WORK._replace(again=True))).seconds
    assert again == pytest.approx(predict(CASE).seconds * 4 / 3)


def test_lora_has_one_base_and_no_reference():
    both = CASE._replace(shapes=[SMALL, SMALL._replace(vocabulary=0)])
    need = predict(with_adapters(both, rank=2))
    assert need.weights == 4 * (400 + 2 * 2 * 136) and need.frozen == 400
    assert need.gradients == 4 * 2 * 2 * 136 and need.optimiser == 2 * need.gradients


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "optimiser"),
    [(1, 1600, 1600, 800), (2, 1600, 400, 800), (3, 400, 400, 800), (0, 1600, 400, 800)],
)
def test_zero_divides_what_its_stage_says(zero, weights, gradients, optimiser):
    need = predict(CASE._replace(work=WORK._replace(processes=4, zero=zero)))
    assert (need.weights, need.gradients, need.optimiser) == (weights, gradients, optimiser)


def test_offload_takes_the_moments_away_where_deepspeed_runs():
    for zero, bytes_left in ((0, 3200), (2, 0)):
        work = WORK._replace(offload=True, zero=zero)
        assert predict(CASE._replace(work=work)).optimiser == bytes_left


def test_the_table_names_every_part_and_the_sum():
    lines = predict(HEAVY).table().splitlines()
    assert [line.split()[0] for line in lines] == [
        "weights", "gradients", "optimiser", "frozen", "activations", "passing", "total", "a",
    ]  # fmt: skip
    assert lines[2].split()[1:] == ["50.21", "GiB"]


def change(free: int, case: Case = HEAVY, on_gpu: bool = True) -> str | None:
    found = smallest_change(case, free, on_gpu)
    return None if found is None else found[0]


# What it needs for certain: 37.7 GiB of weights with autocast's copies, 25.1 of gradients, 50.2 of
# moments, 25.1 of a reference, 138 in all; with LoRA the 37.7 and little more. A row of 1,024
# tokens keeps 7 GiB, or 0.8 when activations are computed again.
ONE_ROW = HEAVY._replace(work=HEAVY.work._replace(examples=1, rows=1, predicted=512))
THIN = "training.lora.rank=16 (which changes the answer)"


def test_the_smallest_change_is_one_setting_where_one_is_enough():
    assert change(predict(HEAVY).total - 1) == "ALPACAFARM_MICRO_BATCH=8"
    assert change(160 * GIB) == "ALPACAFARM_MICRO_BATCH=2"
    assert change(148 * GIB) == "ALPACAFARM_MICRO_BATCH=1"
    assert change(144 * GIB, ONE_ROW) == "ALPACAFARM_ACTIVATION_CHECKPOINTING=true"
    assert change(100 * GIB, ONE_ROW) == THIN


def test_then_two_in_the_same_order():
    again = "ALPACAFARM_ACTIVATION_CHECKPOINTING=true"
    assert change(142 * GIB) == f"ALPACAFARM_MICRO_BATCH=4, {again}"
    assert change(60 * GIB) == f"ALPACAFARM_MICRO_BATCH=2, {THIN}"
    assert change(40 * GIB) == f"ALPACAFARM_MICRO_BATCH=1, {again}, {THIN}"
    assert change(20 * GIB, on_gpu=False) is None


def test_processes_and_offload_are_for_gpus():
    thin = with_adapters(ONE_ROW, 16)
    assert change(40 * GIB, thin) == "ALPACAFARM_ACTIVATION_CHECKPOINTING=true"
    several = ONE_ROW._replace(work=ONE_ROW.work._replace(again=True, processes=2, zero=2, rank=8))
    assert change(90 * GIB, several) == "ALPACAFARM_ZERO=3"
    assert change(80 * GIB, several) == "ALPACAFARM_PROCESSES=8"
    every = "ALPACAFARM_PROCESSES=16, ALPACAFARM_ZERO=3"
    assert change(45 * GIB, several) == every
    assert change(42 * GIB, several) == f"{every}, ALPACAFARM_OFFLOAD=true"
    assert change(90 * GIB, several, on_gpu=False) is None


def test_what_was_measured_scales_the_estimate():
    twice = predict(CASE._replace(scale=2.0))
    assert twice.activations + twice.passing == 2 * sum(working()) and twice.certain == 8400


# The check itself, on a tiny model.


class Trained:
    """A tiny policy with its largest micro-batch."""

    def __init__(self, folder: Path) -> None:
        self.model = load_policy(folder, CHECKED).model
        self.batch = padded([Tokens([5, 6, 4], [7, 8, 9, 1])] * 8)
        self.work = trial.work_of(self.batch, 8, 4 * self.batch.ids.numel(), CHECKED)
        self.steps = 0

    def micro_step(self) -> None:
        torch.rand(3)
        self.steps += 1
        response_logprobs(self.model, self.batch).sum().backward()

    def check(self, machine: Machine = CHECKED) -> trial.Found | None:
        return trial.check([self.model], self.micro_step, self.work, machine)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(folder: Path) -> Trained:
    return Trained(folder)


def test_one_micro_step_is_taken_and_leaves_no_trace(tiny):
    torch.manual_seed(3)
    before, state = (
        {n: w.clone() for n, w in tiny.model.state_dict().items()},
        torch.get_rng_state(),
    )
    found = tiny.check()
    assert tiny.steps == 1 and found.measured and found.need.seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in tiny.model.parameters())
    assert all(torch.equal(before[n], w) for n, w in tiny.model.state_dict().items())


def test_too_little_memory_is_refused_before_anything_is_tried(tiny):
    with pytest.raises(DoesNotFit, match=r"needs [\d,]+ bytes .*predicted\) and 1,000 "):
        tiny.check(CHECKED.replace(memory=1000))
    assert tiny.steps == 0


def test_the_line_names_the_change_that_fits(tiny):
    case = Case([trial.shape_of(tiny.model, CHECKED)], Frozen(), tiny.work)
    needed = [
        predict(case._replace(work=tiny.work._replace(rows=n, examples=n))).total for n in (4, 8)
    ]
    with pytest.raises(DoesNotFit, match=r"ALPACAFARM_MICRO_BATCH=4\. ALPACAFARM_FIT"):
        tiny.check(CHECKED.replace(memory=sum(needed) // 2))


def test_a_step_that_takes_more_than_predicted_is_refused_after_it(tiny):
    hoard: list[torch.Tensor] = []

    def greedy() -> None:
        hoard.append(torch.ones(16 << 20))  # 64 MiB

    machine = CHECKED.replace(memory=32 << 20)
    with pytest.raises(DoesNotFit, match="measured"):
        trial.check([tiny.model], greedy, tiny.work, machine)


def test_the_check_is_for_jobs_and_gpus_unless_told_otherwise(tiny):
    cpu = torch.device("cpu")
    machine = CHECKED.replace(fit_check="auto", apart="no")
    assert not trial.wanted(machine, cpu) and tiny.check(machine) is None and tiny.steps == 0
    assert trial.wanted(machine.replace(apart="yes"), cpu)
    assert trial.wanted(machine, torch.device("cuda"))
    assert not trial.wanted(machine.replace(fit_check="no"), torch.device("cuda"))


def test_several_processes_are_judged_by_the_prediction(tiny):
    found = tiny.check(CHECKED.replace(processes=2, zero=2))
    assert tiny.steps == 0 and not found.measured


def test_the_shape_of_a_model_is_that_of_its_layers(folder):
    shape = trial.shape_of(load_policy(folder, CHECKED).model, CHECKED)
    # 2 layers: q, k, v 32 x 64 and o 64 x 32; gate, up and down 32 x 64.
    assert shape.dense == 2 * 7 * 32 * 64 and shape.edges == 2 * 7 * 96
    assert shape.parameters == shape.trainable == 2 * 384 * 32 + shape.dense + 5 * 32
    assert (shape.vocabulary, shape.eager, shape.lean) == (384, True, True)
    assert trial.shape_of(load_scorer(folder, CHECKED).model, CHECKED).vocabulary == 0


def test_an_adapted_model_has_little_to_learn_and_the_critic_no_base(folder):
    model = load_policy(folder, CHECKED).model
    whole = trial.shape_of(model, CHECKED)
    lora.adapt(model, Lora(rank=4), seed=0)
    critic = lora.SharedCritic(model, Lora(rank=4), seed=1)
    ours, theirs = (trial.shape_of(each, CHECKED) for each in (model, critic))
    assert ours.trainable == 2 * 4 * whole.edges and not ours.lean
    assert ours.parameters == whole.parameters + ours.trainable
    assert theirs.parameters == theirs.trainable == 32 and theirs.layers == 2


def machine_files(root: Path, limit: str, used: int, folder: str, names: tuple[str, str]) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5000 kB\n")
    group = root / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    for name, said in zip(names, (limit, str(used)), strict=True):
        (group / name).write_text(f"{said}\n")
    (group / "memory.stat").write_text("anon 7\ninactive_file 500\n")
    return root


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("", ("memory.max", "memory.current")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_free_is_what_the_host_has_or_the_control_group_allows(tmp_path, folder, names):
    for place, (limit, free) in enumerate(
        [("3000000", 3_000_000 - 1_000_000 + 500), ("9000000", 5_120_000)]
    ):
        root = tmp_path / str(place)
        root.mkdir()
        assert trial.free_of_host(machine_files(root, limit, 1_000_000, folder, names)) == free


def test_a_control_group_without_a_limit_allows_all(tmp_path):
    names = ("memory.max", "memory.current")
    assert trial.free_of_host(machine_files(tmp_path, "max", 9, "", names)) == 5_120_000
