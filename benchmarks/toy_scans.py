"""What the toy is asked beyond every method once: scans of a setting, controls, and rounds."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.farm import Start
from alpacafarm_core.settings import Fitting, Sampling
from alpacafarm_core.weights import BestOf, RewardModel
from benchmarks.toy_farm import Toy, ToyFarm
from benchmarks.toy_runs import Run, aiming, in_toy, paced, run
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


def sppo_by_eta(toy: Toy, etas: tuple[float, ...] = ETAS) -> Iterator[tuple[float, Run]]:
    """One round of SPPO, its winner judged by gold."""
    toy = paced("sppo", toy).replace(judge="gold")
    for eta in etas:
        yield eta, run(aiming("sppo", eta=eta).replace(rounds=1), toy)


def sppo_by_gold(toy: Toy) -> Run:
    """Three rounds of SPPO at eta 10, its winner judged by gold."""
    return run(in_toy("sppo"), paced("sppo", toy).replace(judge="gold"))


def drift_rounds(toy: Toy, is_shown: bool = True) -> Run:
    """A warm start and five rounds of DRIFT, the complaint shown or not when it answers anew."""
    method: Any = in_toy("drift", rounds=5)
    if not is_shown:
        method = method.replace(guidance=method.guidance.replace(layout="{prompt}"))
    return run(method, paced("drift", toy))


def spin_rounds(toy: Toy) -> Run:
    """Five rounds of SPIN on the 24 best answers of each world."""
    return run(in_toy("spin", rounds=5), paced("spin", toy))


def tpo_by_alpha(toy: Toy, alphas: tuple[float, ...] = ALPHAS) -> Iterator[tuple[float, Run]]:
    """TPO from the raw base; how much the gold answer is imitated beside the contrast."""
    for alpha in alphas:
        yield alpha, run(aiming("tpo", alpha=alpha, beta=0.1), toy.replace(judge="gold"))


def tpo_without_contrast(toy: Toy) -> Run:
    """Imitation alone of the same gold answers: TPO where beta is next to nothing."""
    return run(aiming("tpo", alpha=1.0, beta=1e-9), toy.replace(judge="gold"))


def selfie_by_labels(
    toy: Toy, seeds: tuple[int, ...] = SEEDS, flip: float = 0.1
) -> Iterator[tuple[int, Run]]:
    """SPA from so many labels, two rounds; stage 0 is DPO on the labels alone."""
    toy = paced("selfie", toy).replace(flip=flip)
    for count in seeds:
        yield count, run(in_toy("selfie", one_in=toy.pairs // count, rounds=2), toy)


def curricula(toy: Toy) -> Iterator[tuple[str, Run]]:
    """Curry-DPO and its controls, the same steps each."""
    yield "easy to hard", curry_dpo(toy, (-1, 3, 2))
    yield "hard to easy", curry_dpo(toy, (2, 3, -1))
    yield "easy to hard, static reference", curry_dpo(toy, (-1, 3, 2), refresh=False)
    yield "pooled", curry_dpo(toy, (-1, 3, 2), pooled=True)
    yield "easy alone, three refreshes", curry_dpo(toy, (-1, -1, -1))
    yield "easy alone, static reference", curry_dpo(toy, (-1,))
    yield "hard alone, three refreshes", curry_dpo(toy, (2, 2, 2))


def curry_dpo(
    toy: Toy, rejected: tuple[int, ...], pooled: bool = False, refresh: bool = True
) -> Run:
    """Curry-DPO by ratings with noise of 0.25; a single training takes the steps of three."""
    method = in_toy("curry_dpo", rejected=rejected, pooled=pooled, refresh=refresh)
    rated = toy.replace(judge="gold", sharpness=1.0, noise=0.25)
    is_single = pooled or len(rejected) == 1
    return run(method, rated if is_single else paced("curry_dpo", rated))


def by_flips(toy: Toy, name: str, flips: tuple[float, ...] = FLIPS) -> Iterator[tuple[float, Run]]:
    """DPO, or cDPO with smoothing of 0.2, on pairs of which a share is labelled wrongly."""
    settings = {"epsilon": 0.2} if name == "cdpo" else {}
    for flip in flips:
        yield flip, run(in_toy(name, **settings), toy.replace(flip=flip))


def best_of(
    toy: Toy, sizes: tuple[int, ...] = SIZES, judge: Literal["fitted", "gold"] = "fitted"
) -> Iterator[tuple[int, Many]]:
    """Best-of-n by a reward model that was fitted to labels of which 15% are wrong."""
    farm, start, reward = _with_reward(toy, judge)
    prompts = farm.share(start.instructions, 1, 3)
    for size in sizes:
        policy = start.policy.replace(decode=BestOf(n=size, reward=reward))
        yield size, _measured(farm, farm.generate(policy, prompts, Sampling()), reward)


def reward_accuracy(toy: Toy) -> Tensor:
    """How many fresh pairs with a true difference that reward model puts in order, [S]."""
    farm, start, reward = _with_reward(toy, "fitted")
    answers = farm.generate(start.policy, start.instructions, Sampling(n=2, temperature=1.0))
    both = _both(farm, answers, reward)
    true, guess = (numbers.view(toy.worlds, -1, 2).diff(dim=-1)[..., 0] for numbers in both)
    right = ((true * guess > 0) & (true != 0)).float().sum(1)
    return right / (true != 0).float().sum(1)


def _with_reward(toy: Toy, judge: Literal["fitted", "gold"]) -> tuple[ToyFarm, Start, RewardModel]:
    farm = ToyFarm(toy.replace(flip=0.15, judge=judge))
    start = farm.start
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
    return gold(Answers.of(rows, "output")), torch.tensor(scored["score"].to_list())
