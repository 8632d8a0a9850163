"""k-means for many small clusterings: all restarts side by side, then single moves of points between clusters.

With single moves sixty starts reach what sweeps alone do not in three hundred. Shapes: B clusterings, R runs, N points,
D dimensions, K clusters (of the most that a run has), T draws tried.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._arrays import FloatArray, IntArray
from ._moves import Points, Runs, move_points, objective

__all__ = ["kmeans", "within_cluster_squares"]


_STARTS, _FEWEST_STARTS = 60, 16
_DRAWS = 3  # per centre of a start: the best is taken, which a hundred starts of one draw each do not better
_SQUARED_DISTANCES = 250_000  # held at once: fewer starts for more points
_FINALISTS = 0.25  # share of the starts
_STARTING_SWEEPS, _SWEEPS = 2, 10  # single moves do the rest


def kmeans(points_ND: FloatArray, *, n_clusters: Sequence[int], rng: np.random.Generator) -> IntArray:
    """Cluster points so that their squared distances to their cluster's mean are small in sum.

    Parameters
    ----------
    points_ND
        Points × dimensions.
    n_clusters
        Of each clustering; at most the number of points. Fewer are found where fewer points are distinct.
    rng
        Draws the starts.

    Returns
    -------
    Clusterings × points: cluster of every point, from 0.

    Notes
    -----
    Starts as in greedy k-means++ (Arthur & Vassilvitskii, 2007), the first so many centres of which are those of
    every clustering; two sweeps of each, then the best quarter of them is swept up to ten times more, and improved by
    single moves until none helps (Hartigan & Wong, 1979). There are 60 starts while points × clusters stay below some
    4,000, then fewer, from 16,000 on sixteen.
    """
    points, most = Points(points_ND, np.sum(points_ND**2, axis=1)), max(n_clusters)
    n_starts = int(np.clip(_SQUARED_DISTANCES // (len(points_ND) * most), _FEWEST_STARTS, _STARTS))
    start_SKD = _start(points, most, n_starts, rng)
    at_once = max(1, _SQUARED_DISTANCES // (len(points_ND) * most * n_starts))
    numbers = np.asarray(n_clusters)
    return np.concatenate([_best(points, numbers[i : i + at_once], start_SKD) for i in range(0, len(numbers), at_once)])


def _best(points: Points, number_B: IntArray, start_SKD: FloatArray) -> IntArray:
    """Cluster from every start into each of some numbers of clusters, and return the best of each: B × N."""
    n_numbers, n_starts = len(number_B), len(start_SKD)
    absent_RK = np.repeat(np.arange(number_B.max()) >= number_B[:, None], n_starts, axis=0)
    centres_RKD = np.tile(start_SKD[:, : number_B.max()], (n_numbers, 1, 1))
    runs = _sweep(points, centres_RKD, absent_RK, _STARTING_SWEEPS)
    n_finalists = max(1, round(_FINALISTS * n_starts))
    ranked_BS = np.argsort(objective(runs).reshape(n_numbers, n_starts), axis=1, kind="stable")
    finalist = (ranked_BS[:, :n_finalists] + n_starts * np.arange(n_numbers)[:, None]).ravel()
    runs = _sweep(points, runs.centres_RKD[finalist], absent_RK[finalist], _SWEEPS)
    move_points(runs)
    best_B = objective(runs).reshape(n_numbers, n_finalists).argmin(axis=1)
    labels_BN: IntArray = runs.labels_RN.reshape(n_numbers, n_finalists, -1)[np.arange(n_numbers), best_B]
    return labels_BN


def within_cluster_squares(points_ND: FloatArray, labels_N: IntArray) -> float:
    """Return what `kmeans` minimises: squared distances of `points_ND` to the means of the clusters in `labels_N`."""
    groups = [points_ND[labels_N == one] for one in np.unique(labels_N)]
    return float(sum(np.sum((group - group.mean(axis=0)) ** 2) for group in groups))


def _start(points: Points, k: int, n_starts: int, rng: np.random.Generator) -> FloatArray:
    """Draw the first centre of each run; then each next one by the squared distances to the nearest so far.

    Of a few draws the one that leaves the least in sum is taken.
    """
    n, run = len(points.x_ND), np.arange(n_starts)
    chosen_RK = np.empty((n_starts, k), dtype=np.int64)
    chosen_RK[:, 0] = rng.integers(n, size=n_starts)
    nearest_RN = points.squared_distances(points.x_ND[chosen_RK[:, 0]])
    for j in range(1, k):
        cumulated_RN = nearest_RN.cumsum(axis=1)
        drawn_RT = rng.random((n_starts, _DRAWS)) * cumulated_RN[:, -1:]
        tried_RT = np.minimum((cumulated_RN[:, None, :] <= drawn_RT[:, :, None]).sum(axis=2), n - 1)
        squared_RTN = points.squared_distances(points.x_ND[tried_RT.ravel()]).reshape(n_starts, _DRAWS, n)
        left_RTN = np.minimum(nearest_RN[:, None, :], squared_RTN, out=squared_RTN)
        best_R = left_RTN.sum(axis=2).argmin(axis=1)
        chosen_RK[:, j], nearest_RN = tried_RT[run, best_R], left_RTN[run, best_R]
    return points.x_ND[chosen_RK]


def _sweep(points: Points, centres_RKD: FloatArray, absent_RK: NDArray[np.bool_], n_sweeps: int) -> Runs:
    """Assign points to the nearest centre and move the centres to the mean, until no run changes (Lloyd)."""
    n_runs, k, n_dims = centres_RKD.shape
    labels_RN = np.full((n_runs, len(points.x_ND)), -1)
    size_RK = np.zeros((n_runs, k))
    for sweep in range(n_sweeps + 1):
        squared_RKN = points.squared_distances(centres_RKD.reshape(-1, n_dims)).reshape(n_runs, k, -1)
        squared_RKN[absent_RK] = np.inf
        nearest_RN = squared_RKN.argmin(axis=1) if sweep < n_sweeps else labels_RN
        if np.array_equal(nearest_RN, labels_RN):
            break
        labels_RN = nearest_RN
        member_RKN = (labels_RN[:, None, :] == np.arange(k)[:, None]).astype(np.float64)
        size_RK = member_RKN.sum(axis=2)
        mean_RKD = member_RKN @ points.x_ND / np.maximum(size_RK, 1)[:, :, None]
        centres_RKD = np.where(size_RK[:, :, None] > 0, mean_RKD, centres_RKD)  # without points: it stays
    return Runs(points, labels_RN, centres_RKD, size_RK, squared_RKN, absent_RK)
