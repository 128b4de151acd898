"""Best-of-n: which of n answers, how far it is from the policy, and what it earns. Pure."""

from collections.abc import Sequence
from math import comb, isfinite, log

from alpacafarm_core.errors import TrainingFailed


def best(scores: Sequence[float]) -> int:
    """Index of the highest score; the first of equals.

    Raises TrainingFailed where a score is no finite number.
    """
    for number, score in enumerate(scores):
        if not isfinite(score):
            raise TrainingFailed(
                f"answer {number} of {len(scores)} has the score {score}, which is no finite "
                "number; fit the reward model again at a lower learning rate"
            )
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n || policy) in nats; an upper bound when answers repeat or scores tie.

    Gao et al. 2023 (arXiv 2210.10760).
    """
    return log(n) - (n - 1) / n


def expected_best_of_n(proxy: Sequence[float], gold: Sequence[float], n: int) -> float:
    """Expected gold of the answer with the highest proxy among n, from K >= n scored answers.

    The exact mean over all subsets of size n: with answers sorted by proxy, the i-th (from 0) wins
    C(i, n-1) of C(K, n) subsets. The later of two equal proxies wins.
    """
    order = sorted(range(len(proxy)), key=lambda i: proxy[i])
    total = comb(len(proxy), n)
    return sum(comb(rank, n - 1) / total * gold[i] for rank, i in enumerate(order))
