"""Logistic regression of a few terms with an L1 penalty, solved until nothing moves.

Minimised are, for each of K fits over the same rows, weights w [K, n] and strengths c [K],

    sum_i w_i * cross-entropy(share_i, sigmoid(terms_i . theta)) + |theta|_1 / c

by proximal Newton steps. The quadratic model of a step is solved exactly: with the signs that theta
has, mended where they turn out wrong, and at last with every pattern of signs, 27 for three terms.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STRENGTHS = np.logspace(-4, 4, 10)  # of c, among which cross-validation chooses
FOLDS = 5
SETTLED = 1e-7  # move of a logit; the error left is about its square
NEARLY = 1e-2  # the same, for fits that are only compared
SAFE = 1.0  # a full step descends for certain when no logit moves further
MOST_STEPS = 200
RIDGE = 1e-12  # keeps the equations of a term that is 0 in every row solvable


class Rows(NamedTuple):
    """Terms [n, p], targets from 0 to 1 [n] and weights [n]; see `rows_of` for the others."""

    terms: Array
    share: Array
    weight: Array
    products: Array
    widest: Array


def rows_of(terms: Array, share: Array, weight: Array) -> Rows:
    """Rows with the products of their terms, and the largest size of each term [p]."""
    return Rows(terms, share, weight, by_pairs(terms), np.abs(terms).max(axis=0, initial=0.0))


class Start(NamedTuple):
    """Where fits begin, [K, p], and the move of a logit below which they end."""

    theta: Array
    settled: float


def fit(rows: Rows, c: float, start: Array | None = None) -> Array:
    """The parameters [p] at strength c."""
    theta = np.zeros(rows.terms.shape[1]) if start is None else start
    (found,) = fits(rows, rows.weight[None], [c], Start(theta[None], SETTLED))
    return np.asarray(found[0])


def fits(rows: Rows, weights: Array, strengths: Iterable[float], start: Start) -> Iterator[Array]:
    """The parameters [K, p] of fits that differ in their weights [K, n], at every strength.

    One strength goes on from the other; what was summed over the rows serves until theta moves.
    """
    theta = start.theta
    bend, pull = _expanded(rows, weights, theta)
    for c in strengths:
        for _ in range(MOST_STEPS):
            target = lasso(bend, pull, 1 / c, np.sign(theta))
            reach = np.abs(target - theta) @ rows.widest
            if reach.max() < start.settled:
                break
            theta = theta + (target - theta) * _step(reach)[:, None]
            bend, pull = _expanded(rows, weights, theta)
        yield target


def cross_validated(rows: Rows) -> tuple[float, Array]:
    """The strength with the least mean loss on rows left out, and the fit to all rows at it.

    Of equals it is the smallest. Of n rows, row i counted from 0 is in fold (n - 1 - i) mod 5, as
    scikit-learn deals out groups of equal size.
    """
    n = len(rows.share)
    row, fold = np.arange(n), (n - 1 - np.arange(n)) % FOLDS
    kept = (fold != np.arange(FOLDS)[:, None]) * rows.weight
    part = rows.weight / np.bincount(fold)[fold] / FOLDS  # of each row in the mean over folds
    loose = fit(rows, STRENGTHS[-1])
    losses = [
        float(part @ cross_entropy(rows.share, (theta @ rows.terms.T)[fold, row]))
        for theta in fits(rows, kept, STRENGTHS[::-1], Start(loose[None].repeat(FOLDS, 0), NEARLY))
    ]
    c = float(STRENGTHS[np.argmin(losses[::-1])])
    return c, fit(rows, c, loose)


def objective(rows: Rows, theta: Array, c: float) -> float:
    """What a fit minimises, at parameters [p]."""
    losses = rows.weight * cross_entropy(rows.share, rows.terms @ theta)
    return float(losses.sum() + np.abs(theta).sum() / c)


def cross_entropy(share: Array, logit: Array) -> Array:
    """Of a target share from 0 to 1 and a predicted logit, in nats."""
    return np.asarray(np.maximum(logit, 0) + np.log1p(np.exp(-np.abs(logit))) - share * logit)


def sigmoid(logit: Array) -> Array:
    """Chance of a logit; no logit is too large."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logit))


def lasso(bend: Array, pull: Array, penalty: float, signs: Array, guesses: int = 4) -> Array:
    """Minima [K, p] of theta' bend theta / 2 - pull' theta + penalty |theta|_1.

    `bend` is [K, p, p]; `signs` [K, p] is a guess of theirs, mended where it is wrong: a parameter
    that changes its sign is 0 next, one that should not be 0 gets the sign it leans to.
    """
    theta = _with_signs(bend, pull - penalty * signs, signs)
    rest = pull - _times(bend, theta)
    turned, missing = theta * signs < 0, (signs == 0) & (np.abs(rest) > penalty)
    wrong = (turned | missing).any(axis=1)
    if not wrong.any():
        return theta
    if not guesses:
        theta[wrong] = _best_of_all(bend[wrong], pull[wrong], penalty)
        return theta
    mended = np.where(turned, 0.0, np.where(missing, np.sign(rest), signs))[wrong]
    theta[wrong] = lasso(bend[wrong], pull[wrong], penalty, mended, guesses - 1)
    return theta


def by_pairs(terms: Array) -> Array:
    """Products of two terms [n, p (p + 1) / 2]: what `symmetric` reads a matrix from."""
    first, second = _upper(terms.shape[1])
    return np.asarray(terms[:, first] * terms[:, second])


def symmetric(upper: Array) -> Array:
    """Matrices [K, p, p] from their upper triangles [K, p (p + 1) / 2]."""
    p = int((2 * upper.shape[1]) ** 0.5)
    first, second = _upper(p)
    full = np.empty((len(upper), p, p))
    full[:, first, second] = full[:, second, first] = upper
    return full + RIDGE * np.eye(p)


def _expanded(rows: Rows, weights: Array, theta: Array) -> tuple[Array, Array]:
    """The quadratic model of every fit's loss at theta, as `lasso` takes it."""
    chance = sigmoid(theta @ rows.terms.T)
    slope = (weights * (chance - rows.share)) @ rows.terms
    bend = symmetric((weights * chance * (1 - chance)) @ rows.products)
    return bend, _times(bend, theta) - slope


def _step(reach: Array) -> Array:
    """Share of a step that is sure to descend.

    While logits move by r, the curvature grows e^r-fold at most (Bach 2010, arXiv:0910.4627); a
    share log(1 + r) / r makes the most of that bound, and a full step meets it for r up to 1.79.
    """
    return np.where(reach <= SAFE, 1.0, np.log1p(reach) / np.maximum(reach, SAFE))


def _best_of_all(bend: Array, pull: Array, penalty: float) -> Array:
    """The minima by every pattern of signs: of the points that have their pattern, the lowest."""
    patterns = _patterns(pull.shape[1])
    shape = (len(pull), *patterns.shape)
    signs = np.broadcast_to(patterns, shape).reshape(-1, shape[2])
    repeated, pulls = np.repeat(bend, shape[1], axis=0), np.repeat(pull, shape[1], axis=0)
    theta = _with_signs(repeated, pulls - penalty * signs, signs)
    height = (theta * (_times(repeated, theta) / 2 - pulls)).sum(axis=1)
    height += penalty * np.abs(theta).sum(axis=1)
    height[(theta * signs < 0).any(axis=1)] = np.inf
    lowest = height.reshape(shape[:2]).argmin(axis=1)
    return np.asarray(theta.reshape(shape)[np.arange(len(pull)), lowest])


def _with_signs(bend: Array, right: Array, signs: Array) -> Array:
    """Solve for the parameters whose sign is not 0; the others are 0."""
    if signs.all():
        return np.asarray(np.linalg.solve(bend, right[:, :, None])[:, :, 0])
    there = np.abs(signs)
    system = bend * there[:, :, None] * there[:, None, :]
    system = system + (1 - there)[:, :, None] * np.eye(signs.shape[1])
    return np.asarray(np.linalg.solve(system, (there * right)[:, :, None])[:, :, 0])


@lru_cache
def _upper(p: int) -> tuple[NDArray[np.intp], ...]:
    return np.triu_indices(p)


@lru_cache
def _patterns(p: int) -> Array:
    return np.array(list(product((0.0, -1.0, 1.0), repeat=p)))


def _times(matrices: Array, vectors: Array) -> Array:
    return np.asarray(np.einsum("kij,kj->ki", matrices, vectors))
