"""What the toy is asked beyond every method once: scans of a setting, controls, and rounds."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.farm import Start
from alpacafarm_core.settings import Fitting, Sampling
from alpacafarm_core.weights import BestOf, RewardModel
from benchmarks.toy_farm import Toy, ToyFarm
from benchmarks.toy_runs import Run, aiming, in_toy, run, steps_of
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
        yield eta, run(aiming("sppo", eta=eta).replace(rounds=1), toy)


def sppo_by_gold(worlds: int) -> Run:
    """Three rounds of SPPO at eta 10, its winner judged by gold."""
    return run(in_toy("sppo"), Toy(worlds=worlds, steps=steps_of("sppo"), judge="gold"))


def tpo_by_alpha(worlds: int, alphas: tuple[float, ...] = ALPHAS) -> Iterator[tuple[float, Run]]:
    """TPO from the raw base; how much the gold answer is imitated beside the contrast."""
    for alpha in alphas:
        yield alpha, run(aiming("tpo", alpha=alpha, beta=0.1), Toy(worlds=worlds, judge="gold"))


def tpo_without_contrast(worlds: int) -> Run:
    """Imitation alone of the same gold answers: TPO where beta is next to nothing."""
    return run(aiming("tpo", alpha=1.0, beta=1e-9), Toy(worlds=worlds, judge="gold"))


def selfie_by_labels(
    worlds: int, seeds: tuple[int, ...] = SEEDS, flip: float = 0.1
) -> Iterator[tuple[int, Run]]:
    """SPA from so many labels, two rounds; stage 0 is DPO on the labels alone."""
    toy = Toy(worlds=worlds, steps=steps_of("selfie"), flip=flip)
    for count in seeds:
        yield count, run(in_toy("selfie", one_in=toy.pairs // count, rounds=2), toy)


def curricula(worlds: int) -> Iterator[tuple[str, Run]]:
    """Curry-DPO and its controls, the same steps each, by ratings with noise of 0.25."""
    toy = Toy(worlds=worlds, steps=steps_of("curry_dpo"), judge="gold", sharpness=1.0, noise=0.25)
    whole = toy.replace(steps=3 * toy.steps)
    yield "easy to hard", run(in_toy("curry_dpo"), toy)
    yield "hard to easy", run(in_toy("curry_dpo", rejected=(2, 3, -1)), toy)
    yield "easy to hard, static reference", run(in_toy("curry_dpo", refresh=False), toy)
    yield "pooled", run(in_toy("curry_dpo", pooled=True), whole)
    yield "easy alone, three refreshes", run(in_toy("curry_dpo", rejected=(-1, -1, -1)), toy)
    yield "easy alone, static reference", run(in_toy("curry_dpo", rejected=(-1,)), whole)
    yield "hard alone, three refreshes", run(in_toy("curry_dpo", rejected=(2, 2, 2)), toy)


def by_flips(
    worlds: int, name: str, flips: tuple[float, ...] = FLIPS
) -> Iterator[tuple[float, Run]]:
    """DPO, or cDPO with smoothing of 0.2, on pairs of which a share is labelled wrongly."""
    settings = {"epsilon": 0.2} if name == "cdpo" else {}
    for flip in flips:
        yield flip, run(in_toy(name, **settings), Toy(worlds=worlds, flip=flip))


def best_of(
    worlds: int, sizes: tuple[int, ...] = SIZES, judge: Literal["fitted", "gold"] = "fitted"
) -> Iterator[tuple[int, Many]]:
    """Best-of-n by a reward model that was fitted to labels of which 15% are wrong."""
    farm, start, reward = _with_reward(worlds, judge)
    prompts = farm.share(start.instructions, 1, 3)
    for size in sizes:
        policy = start.policy.replace(decode=BestOf(n=size, reward=reward))
        yield size, _measured(farm, farm.generate(policy, prompts, Sampling()), reward)


def reward_accuracy(worlds: int) -> Tensor:
    """How many fresh pairs with a true difference that reward model puts in order, [S]."""
    farm, start, reward = _with_reward(worlds, "fitted")
    answers = farm.generate(start.policy, start.instructions, Sampling(n=2, temperature=1.0))
    true, guess = (
        numbers.view(worlds, -1, 2).diff(dim=-1)[..., 0] for numbers in _both(farm, answers, reward)
    )
    right = ((true * guess > 0) & (true != 0)).float().sum(1)
    return right / (true != 0).float().sum(1)


def _with_reward(
    worlds: int, judge: Literal["fitted", "gold"]
) -> tuple[ToyFarm, Start, RewardModel]:
    farm = ToyFarm(Toy(worlds=worlds, flip=0.15, judge=judge))
    start = farm.start()
    return farm, start, farm.fit_reward(start.policy, start.preferences, Fitting())


def _measured(farm: ToyFarm, answers: Candidates, reward: RewardModel) -> Many:
    """Means of both numbers in each world."""
    rows = farm.held[answers.folder]
    true, proxy = (farm.means(rows, each) for each in _both(farm, answers, reward))
    return Many(true, proxy)


def _both(farm: ToyFarm, answers: Candidates, reward: RewardModel) -> tuple[Tensor, Tensor]:
    """True reward and the reward model's number of each answer, [N]."""
    rows = farm.held[answers.folder]
    scored = farm.held[farm.score(answers, reward).folder]
    return gold(Answers.of(rows, "output_ids")), torch.tensor(scored["score"].to_list())
