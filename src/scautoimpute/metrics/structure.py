"""Whether cells of one type lie together: clusters found against types known, and how far types lie apart.

Shape suffixes: N cells, G genes.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cluster_agreement", "first_components", "silhouette"]

_MOST_PAIRWISE = 5000  # cells that the silhouette is averaged over: its distances grow with their square


def cluster_agreement(
    x_NG: Any, *, types: ArrayLike, n_restarts: int = 5, n_init: int = 10, random_state: int = 0
) -> NDArray[np.float64]:
    """Cluster cells by k-means into as many clusters as there are types, and compare with these.

    Parameters
    ----------
    x_NG
        Dense, cells × genes, on a log scale.
    types
        Of each cell.
    n_restarts
        Runs of k-means, scored one by one.
    n_init
        Starts of each run, of which the tightest clusters are taken: the more, the less an index says of k-means.
    random_state
        Seed of the first run; the others take the seeds that follow.

    Returns
    -------
    Adjusted Rand index of every run: 1 if clusters and types are the same, about 0 if they have nothing in common.

    Raises
    ------
    ValueError
        If there are fewer than two types, or one for every cell.

    Examples
    --------
    >>> cluster_agreement(np.array([[0.0], [0.1], [5.0], [5.1]]), types=list("aabb"), n_restarts=2)
    array([1., 1.])
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    known = _types(types, len(x_NG))
    n_types = int(known.max()) + 1
    scores = []
    for start in range(n_restarts):
        clusters = KMeans(n_types, n_init=n_init, random_state=random_state + start).fit_predict(x_NG)
        scores.append(float(adjusted_rand_score(known, clusters)))
    return np.array(scores)


def silhouette(x_NG: Any, *, types: ArrayLike, random_state: int = 0) -> float:
    """Average silhouette of cells in their types.

    Parameters
    ----------
    x_NG
        Dense, cells × genes or × components.
    types
        Of each cell.
    random_state
        Draws the 5000 cells that the average is taken over, where there are more.

    Returns
    -------
    Between -1 and 1, which is reached where every cell is far nearer to its own type than to any other.

    Raises
    ------
    ValueError
        If there are fewer than two types, or one for every cell.

    Examples
    --------
    >>> round(silhouette(np.array([[0.0], [1.0], [9.0], [10.0]]), types=list("aabb")), 3)
    0.889
    """
    from sklearn.metrics import silhouette_score

    known = _types(types, len(x_NG))
    sample = _MOST_PAIRWISE if len(x_NG) > _MOST_PAIRWISE else None
    return float(silhouette_score(x_NG, known, sample_size=sample, random_state=random_state))


def first_components(x_NG: Any, *, n_components: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of the genes as they are, centred and not scaled.

    Parameters
    ----------
    x_NG
        Dense, cells × genes.
    n_components
        How many.

    Returns
    -------
    Coordinates, cells × components, and the share of the variance that each explains. Zeros where all cells are alike.

    Examples
    --------
    >>> coordinates, explained = first_components(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), n_components=1)
    >>> np.abs(coordinates).ravel().round(6).tolist(), explained.round(6).tolist()
    ([2.0, 0.0, 2.0], [1.0])
    """
    from sklearn.decomposition import PCA

    x_NG = np.asarray(x_NG, dtype=np.float64)
    if not np.ptp(x_NG, axis=0).any():
        return np.zeros((len(x_NG), n_components)), np.zeros(n_components)
    found = PCA(n_components, svd_solver="arpack" if min(x_NG.shape) > n_components else "full", random_state=0)
    coordinates = found.fit_transform(x_NG)
    return np.asarray(coordinates), np.asarray(found.explained_variance_ratio_)


def _types(types: ArrayLike, n_cells: int) -> NDArray[np.int64]:
    """Number of the type of every cell, from 0."""
    names, number_N = np.unique(np.asarray(types).astype(str), return_inverse=True)
    if len(number_N) != n_cells or not 2 <= len(names) < n_cells:
        msg = f"{len(names)} types are given for {len(number_N)} of {n_cells} cells: give one for each, of at least 2"
        raise ValueError(msg)
    return np.asarray(number_N, dtype=np.int64)
