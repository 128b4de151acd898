"""What the toy is asked beyond every method once: scans of a setting, controls, and rounds."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.farm import Start
from alpacafarm_core.settings import Fitting, Sampling
from alpacafarm_core.weights import BestOf, RewardModel
from benchmarks.toy_farm import Toy, ToyFarm
from benchmarks.toy_runs import Run, in_toy, run, steps_of
from benchmarks.toy_world import Answers, gold

ETAS = (1.0, 5.0, 10.0, 30.0, 1000.0)
ALPHAS = (1.0, 0.3, 0.1, 0.05, 0.0)
SEEDS = (16, 64, 128, 256)
FLIPS = (0.0, 0.2, 0.4)
SIZES = (1, 2, 4, 8, 16)


class Many(NamedTuple):
    """Best-of-n: true reward, and the reward model's number, in each world, [S]."""

    gold: Tensor
    proxy: Tensor


def sppo_by_eta(worlds: int, etas: tuple[float, ...] = ETAS) -> Iterator[tuple[float, Run]]:
    """One round of SPPO, its winner judged by gold."""
    toy = Toy(worlds=worlds, steps=steps_of("sppo"), judge="gold")
    for eta in etas:
        yield eta, run(in_toy("sppo", eta=eta, rounds=1), toy)


def tpo_by_alpha(worlds: int, alphas: tuple[float, ...] = ALPHAS) -> Iterator[tuple[float, Run]]:
    """TPO from the raw base; how much the gold answer is imitated beside the contrast."""
    for alpha in alphas:
        yield alpha, run(in_toy("tpo", alpha=alpha, beta=0.1), Toy(worlds=worlds, judge="gold"))


def selfie_by_labels(
    worlds: int, seeds: tuple[int, ...] = SEEDS, flip: float = 0.1
) -> Iterator[tuple[int, Run]]:
    """SPA from so many labels, two rounds; stage 0 is DPO on the labels alone."""
    toy = Toy(worlds=worlds, steps=steps_of("selfie"), flip=flip)
    for count in seeds:
        yield count, run(in_toy("selfie", one_in=toy.pairs // count, rounds=2), toy)


def dpo_by_flips(
    worlds: int, name: str = "dpo", flips: tuple[float, ...] = FLIPS
) -> Iterator[tuple[float, Run]]:
    """A loss on pairs of which a share is labelled wrongly."""
    for flip in flips:
        yield flip, run(in_toy(name), Toy(worlds=worlds, flip=flip))


def best_of(worlds: int, sizes: tuple[int, ...] = SIZES) -> Iterator[tuple[int, Many]]:
    """Best-of-n by a reward model that was fitted to labels of which 15% are wrong."""
    farm = ToyFarm(Toy(worlds=worlds, flip=0.15))
    start = farm.start()
    reward = farm.fit_reward(start.policy, start.preferences, Fitting())
    for size in sizes:
        policy = start.policy.replace(decode=BestOf(n=size, reward=reward))
        prompts = farm.share(start.instructions, 1, 3)
        yield size, _measured(farm, farm.generate(policy, prompts, Sampling()), reward)


def reward_accuracy(worlds: int) -> Tensor:
    """How many fresh pairs with a true difference that reward model puts in order, [S]."""
    farm = ToyFarm(Toy(worlds=worlds, flip=0.15))
    start = farm.start()
    reward = farm.fit_reward(start.policy, start.preferences, Fitting())
    return _accuracy(farm, start, reward)


def _accuracy(farm: ToyFarm, start: Start, reward: RewardModel) -> Tensor:
    answers = farm.generate(start.policy, start.instructions, Sampling(n=2, temperature=1.0))
    true, guess = (
        numbers.view(farm.toy.worlds, -1, 2).diff(dim=-1)[..., 0]
        for numbers in _both(farm, answers, reward)
    )
    right = ((true * guess > 0) & (true != 0)).float().sum(1)
    return right / (true != 0).float().sum(1)


def _measured(farm: ToyFarm, answers: Candidates, reward: RewardModel) -> Many:
    """Means of both numbers in each world; answers lie world after world."""
    true, proxy = (each.view(farm.toy.worlds, -1).mean(1) for each in _both(farm, answers, reward))
    return Many(true, proxy)


def _both(farm: ToyFarm, answers: Candidates, reward: RewardModel) -> tuple[Tensor, Tensor]:
    """True reward and the reward model's number of each answer, [N]."""
    rows = farm.held[answers.folder]
    scored = farm.held[farm.score(answers, reward).folder]
    return gold(Answers.of(rows, "output_ids")), torch.tensor(scored["score"].to_list())
