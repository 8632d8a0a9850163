"""Single moves of points between clusters (Hartigan), which leave the poor optima that sweeps (Lloyd) end in.

Of few points, many runs side by side, the best move of each at a time; of many, one run after another, every point that
gains in turn: a move then costs the distances of one point, not those of all of them to two new centres.

Shapes: R runs, N points, D dimensions, K clusters (of the most that a run has), X any number of centres.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._arrays import FloatArray, IntArray

__all__ = ["Points", "Runs", "move_points", "objective"]


_IN_TURN_FROM = 500  # points: about where the two take the same time
_GAIN = 1e-10  # of the points' total: less is rounding


class Points(NamedTuple):
    """Points and their squared norms, which every distance needs."""

    x_ND: FloatArray
    squared_norm_N: FloatArray

    def squared_distances(self, centres_XD: FloatArray) -> FloatArray:
        """Centres × points."""
        squared: FloatArray = centres_XD @ self.x_ND.T
        squared *= -2
        squared += self.squared_norm_N
        squared += np.einsum("xd,xd->x", centres_XD, centres_XD)[:, None]
        return np.maximum(squared, 0, out=squared)


@dataclass(slots=True)
class Runs:
    """Runs side by side; the squared distances are those to the centres, of which each is the mean of its points.

    A run may have fewer clusters than the others: `absent_RK` are those that it lacks, infinitely far from all.
    """

    points: Points
    labels_RN: IntArray
    centres_RKD: FloatArray
    size_RK: FloatArray
    squared_RKN: FloatArray
    absent_RK: NDArray[np.bool_]


def objective(runs: Runs) -> FloatArray:
    """Return what k-means minimises, of every run."""
    own_RN = np.take_along_axis(runs.squared_RKN, runs.labels_RN[:, None], axis=1)[:, 0]
    totals_R: FloatArray = own_RN.sum(axis=1)
    return totals_R


def move_points(runs: Runs) -> None:
    """In every run, move points to other clusters as long as one gains; `runs` is changed."""
    x_ND = runs.points.x_ND
    smallest = _GAIN * float(np.sum((x_ND - x_ND.mean(axis=0)) ** 2))
    if len(x_ND) < _IN_TURN_FROM:
        _move_best(runs, smallest)
        return
    for run in range(len(runs.labels_RN)):
        _move_in_turn(runs, run, smallest)


# ------------------------------------------------------------------------------------- the best of each run at a time


def _move_best(runs: Runs, smallest: float) -> None:
    active = np.arange(len(runs.labels_RN))
    while True:
        gain, point, target = _best_moves(runs, active)
        helps = gain > smallest
        if not helps.any():
            return
        active, point, target = active[helps], point[helps], target[helps]
        _resize(runs, active, runs.labels_RN[active, point], point, -1)
        _resize(runs, active, target, point, 1)
        runs.labels_RN[active, point] = target


def _best_moves(runs: Runs, active: IntArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Gain, point and target cluster of the best move of each active run."""
    gain_RN, cost_RKN = _gains(runs, active)
    point = gain_RN.argmax(axis=1)
    run = np.arange(len(active))
    return gain_RN[run, point], point, cost_RKN[run, :, point].argmin(axis=1)


def _gains(runs: Runs, active: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return what each point's best move gains, and what it costs to join each cluster, its own aside.

    Leaving a cluster of n saves n / (n - 1) of the squared distance to its mean, joining one costs n / (n + 1) of it.
    """
    labels_RN, size_RK, cost_RKN = runs.labels_RN[active], runs.size_RK[active], runs.squared_RKN[active]
    own_RN = np.take_along_axis(cost_RKN, labels_RN[:, None], axis=1)[:, 0]
    own_size_RN = np.take_along_axis(size_RK, labels_RN, axis=1)
    saved_RN = own_RN * (own_size_RN / np.maximum(own_size_RN - 1, 1))
    cost_RKN *= np.where(runs.absent_RK[active], 1, size_RK / (size_RK + 1))[:, :, None]
    np.put_along_axis(cost_RKN, labels_RN[:, None], np.inf, axis=1)
    return saved_RN - cost_RKN.min(axis=1), cost_RKN


def _resize(runs: Runs, active: IntArray, cluster: IntArray, point: IntArray, change: int) -> None:
    """Take each active run's point into (`change` 1) or out of (-1) its cluster."""
    before = runs.size_RK[active, cluster][:, None]
    total_RD = runs.centres_RKD[active, cluster] * before + change * runs.points.x_ND[point]
    centres_RD = total_RD / np.maximum(before + change, 1)
    runs.size_RK[active, cluster] += change
    runs.centres_RKD[active, cluster] = centres_RD
    runs.squared_RKN[active, cluster] = runs.points.squared_distances(centres_RD)


# ------------------------------------------------------------------------------------- one run, point after point


def _move_in_turn(runs: Runs, run: int, smallest: float) -> None:
    """Move every point of the run that gains, from the one that gains most down, until none does."""
    labels_N, centres_KD, size_K = runs.labels_RN[run], runs.centres_RKD[run], runs.size_RK[run]
    has_moved = True
    while has_moved:
        gain_N = _gains(runs, np.array([run]))[0][0]
        candidates = np.flatnonzero(gain_N > smallest)
        has_moved = False
        for point in candidates[np.argsort(-gain_N[candidates])]:
            x_D, own = runs.points.x_ND[point], labels_N[point]
            target = _target(centres_KD - x_D, size_K, own, runs.absent_RK[run], smallest)
            if target != own:
                _carry(x_D, centres_KD, size_K, own, target)
                labels_N[point], has_moved = target, True
        runs.squared_RKN[run] = runs.points.squared_distances(centres_KD)
        runs.squared_RKN[run, runs.absent_RK[run]] = np.inf


def _target(apart_KD: FloatArray, size_K: FloatArray, own: int, absent_K: NDArray[np.bool_], smallest: float) -> int:
    """Cluster that a point gains most by joining, or its own; `_gains` for one point, earlier moves counted."""
    squared_K = np.einsum("kd,kd->k", apart_KD, apart_KD)
    cost_K = squared_K * size_K / (size_K + 1)
    cost_K[absent_K] = np.inf
    cost_K[own] = np.inf
    target = int(cost_K.argmin())
    saved = squared_K[own] * size_K[own] / max(size_K[own] - 1, 1)
    return target if saved - cost_K[target] > smallest else own


def _carry(x_D: FloatArray, centres_KD: FloatArray, size_K: FloatArray, own: int, target: int) -> None:
    """Move a point from its cluster to another: means and sizes of both are changed."""
    centres_KD[own] -= (x_D - centres_KD[own]) / max(size_K[own] - 1, 1)
    centres_KD[target] += (x_D - centres_KD[target]) / (size_K[target] + 1)
    size_K[own] -= 1
    size_K[target] += 1
