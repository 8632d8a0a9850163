"""k-means for many small clusterings: all restarts side by side, then single moves of cells between clusters.

Single moves (Hartigan) leave the poor optima that sweeps (Lloyd) end in, so sixty starts reach what sweeps alone
do not in three hundred. Shapes: R runs, N points, D dimensions, K clusters, T draws tried.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["kmeans", "within_cluster_squares"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STARTS = 60
_DRAWS = 3  # per centre of a start: the best is taken, which a hundred starts of one draw each do not better
_SQUARED_DISTANCES = 250_000  # held at once: fewer starts for more points
_FINALISTS = 0.25  # share of the starts
_STARTING_SWEEPS, _SWEEPS = 2, 10  # single moves do the rest
_GAIN = 1e-10  # of the points' total: less is rounding


class _Points(NamedTuple):
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
class _Runs:
    """Runs side by side; the squared distances are those to the centres, of which each is the mean of its points."""

    points: _Points
    labels_RN: IntArray
    centres_RKD: FloatArray
    size_RK: FloatArray
    squared_RKN: FloatArray


def kmeans(points_ND: FloatArray, *, n_clusters: int, rng: np.random.Generator) -> IntArray:
    """Cluster points so that their squared distances to their cluster's mean are small in sum.

    Parameters
    ----------
    points_ND
        Points × dimensions.
    n_clusters
        At most the number of points. Fewer are found where fewer points are distinct.
    rng
        Draws the starts.

    Returns
    -------
    Cluster of every point, from 0.

    Notes
    -----
    Starts as in greedy k-means++ (Arthur & Vassilvitskii, 2007); two sweeps of each, then the best quarter of them is swept
    up to ten times more, and those that differ are improved by the best single move at a time (Hartigan & Wong, 1979).
    """
    points = _Points(points_ND, np.sum(points_ND**2, axis=1))
    n_starts = int(np.clip(_SQUARED_DISTANCES // (len(points_ND) * n_clusters), 4, _STARTS))
    runs = _sweep(points, _start(points, n_clusters, n_starts, rng), _STARTING_SWEEPS)
    best = np.argsort(_objective(runs), kind="stable")[: max(1, round(_FINALISTS * n_starts))]
    runs = _sweep(points, runs.centres_RKD[best], _SWEEPS)
    runs = _distinct(runs)
    _move_points(runs)
    labels_N: IntArray = runs.labels_RN[_objective(runs).argmin()]
    return labels_N


def within_cluster_squares(points_ND: FloatArray, labels_N: IntArray) -> float:
    """Return what `kmeans` minimises: squared distances of `points_ND` to the means of the clusters in `labels_N`."""
    groups = [points_ND[labels_N == one] for one in np.unique(labels_N)]
    return float(sum(np.sum((group - group.mean(axis=0)) ** 2) for group in groups))


def _start(points: _Points, k: int, n_starts: int, rng: np.random.Generator) -> FloatArray:
    """Draw the first centre of each run; then each next one by the squared distances to the nearest so far.

    Of a few draws the one that leaves the least in sum is taken.
    """
    n, run = len(points.x_ND), np.arange(n_starts)
    chosen_RK = np.empty((n_starts, k), dtype=np.int64)
    chosen_RK[:, 0] = rng.integers(n, size=n_starts)
    apart_NN = points.squared_distances(points.x_ND)
    nearest_RN = apart_NN[chosen_RK[:, 0]]
    for j in range(1, k):
        cumulated_RN = nearest_RN.cumsum(axis=1)
        drawn_RT = rng.random((n_starts, _DRAWS)) * cumulated_RN[:, -1:]
        tried_RT = np.minimum((cumulated_RN[:, None, :] <= drawn_RT[:, :, None]).sum(axis=2), n - 1)
        left_RTN = np.minimum(nearest_RN[:, None, :], apart_NN[tried_RT])
        best_R = left_RTN.sum(axis=2).argmin(axis=1)
        chosen_RK[:, j], nearest_RN = tried_RT[run, best_R], left_RTN[run, best_R]
    return points.x_ND[chosen_RK]


def _sweep(points: _Points, centres_RKD: FloatArray, n_sweeps: int) -> _Runs:
    """Assign points to the nearest centre and move the centres to the mean, until no run changes (Lloyd)."""
    n_runs, k, n_dims = centres_RKD.shape
    labels_RN = np.full((n_runs, len(points.x_ND)), -1)
    squared_RKN = points.squared_distances(centres_RKD.reshape(-1, n_dims)).reshape(n_runs, k, -1)
    for _ in range(n_sweeps):
        nearest_RN = squared_RKN.argmin(axis=1)
        if np.array_equal(nearest_RN, labels_RN):
            break
        labels_RN = nearest_RN
        member_RKN = (labels_RN[:, None, :] == np.arange(k)[:, None]).astype(np.float64)
        size_RK = member_RKN.sum(axis=2)
        mean_RKD = member_RKN @ points.x_ND / np.maximum(size_RK, 1)[:, :, None]
        centres_RKD = np.where(size_RK[:, :, None] > 0, mean_RKD, centres_RKD)  # without points: it stays
        squared_RKN = points.squared_distances(centres_RKD.reshape(-1, n_dims)).reshape(n_runs, k, -1)
    return _Runs(points, labels_RN, centres_RKD, size_RK, squared_RKN)


def _objective(runs: _Runs) -> FloatArray:
    own_RN = np.take_along_axis(runs.squared_RKN, runs.labels_RN[:, None], axis=1)[:, 0]
    totals_R: FloatArray = own_RN.sum(axis=1)
    return totals_R


def _distinct(runs: _Runs) -> _Runs:
    """Leave out runs that have arrived where another has: at the same objective, to twelve digits."""
    total_R = _objective(runs)
    _, which = np.unique(np.round(total_R / max(total_R.max(), np.finfo(float).tiny), 12), return_index=True)
    arrays = (runs.labels_RN, runs.centres_RKD, runs.size_RK, runs.squared_RKN)
    return _Runs(runs.points, *(array[which] for array in arrays))


def _move_points(runs: _Runs) -> None:
    """In every run, move the point that gains most, as long as one gains; `runs` is changed."""
    x_ND = runs.points.x_ND
    smallest = _GAIN * np.sum((x_ND - x_ND.mean(axis=0)) ** 2)
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


def _best_moves(runs: _Runs, active: IntArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Gain, point and target cluster of the best move of each active run.

    Leaving a cluster of n saves n / (n - 1) of the squared distance to its mean, joining one costs n / (n + 1) of it.
    """
    labels_R1N, size_RK = runs.labels_RN[active][:, None], runs.size_RK[active][:, :, None]
    squared_RKN = runs.squared_RKN[active]
    saved_RN = np.take_along_axis(squared_RKN * (size_RK / np.maximum(size_RK - 1, 1)), labels_R1N, axis=1)[:, 0]
    squared_RKN *= size_RK / (size_RK + 1)
    np.put_along_axis(squared_RKN, labels_R1N, np.inf, axis=1)
    gain_RN = saved_RN - squared_RKN.min(axis=1)
    point = gain_RN.argmax(axis=1)
    run = np.arange(len(active))
    return gain_RN[run, point], point, squared_RKN[run, :, point].argmin(axis=1)


def _resize(runs: _Runs, active: IntArray, cluster: IntArray, point: IntArray, change: int) -> None:
    """Take each active run's point into (`change` 1) or out of (-1) its cluster."""
    before = runs.size_RK[active, cluster][:, None]
    total_RD = runs.centres_RKD[active, cluster] * before + change * runs.points.x_ND[point]
    centres_RD = total_RD / np.maximum(before + change, 1)
    runs.size_RK[active, cluster] += change
    runs.centres_RKD[active, cluster] = centres_RD
    runs.squared_RKN[active, cluster] = runs.points.squared_distances(centres_RD)
