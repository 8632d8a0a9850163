"""The cells on principal components before and after imputation, and how far apart their classes are on them.

Shape suffixes: N cells, G genes, P components, K classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.structure import silhouette

__all__ = ["Structure", "checked_classes", "fine_clusters", "measure_structure"]

FloatArray = NDArray[np.float64]

GENES = 1000  # those that vary most before imputation
COMPONENTS = 10
MOST_CLUSTERS = 8
CELLS_PER_CLUSTER = 40  # on average, of fine clusters: what is tested within one needs 20
MOST_CLASSES = 15  # told apart by colour; rarer ones are drawn, and scored, together
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Structure:
    """What `measure_structure` returns.

    Attributes
    ----------
    before, after
        First two principal components, cells × 2.
    classes
        Of each cell: the given ones, or clusters.
    given
        Whether they were given; else they are clusters (k-means) of the data before imputation.
    silhouette_before, silhouette_after
        Mean silhouette of the classes on the first components; None where there is one class only.
    n_components
        Components that the silhouettes were taken on.
    """

    before: FloatArray
    after: FloatArray
    classes: tuple[str, ...]
    given: bool
    silhouette_before: float | None
    silhouette_after: float | None
    n_components: int


def checked_classes(labels: Any, *, name: str) -> NDArray[Any]:
    """Return labels as text, or refuse those that tell no classes apart.

    Parameters
    ----------
    labels
        One per cell.
    name
        What to call them in the message.

    Returns
    -------
    An array of text.

    Raises
    ------
    ValueError
        If all cells are in one class, or each cell in a class of its own.
    """
    label_N = np.asarray(labels).astype(str)
    n_classes = np.unique(label_N).size
    if n_classes == 0:
        msg = f"{name} is empty for every cell: give a column with two or more classes, or leave it out"
        raise ValueError(msg)
    if n_classes < 2:
        msg = f"{name} holds one class, {str(label_N[0])!r}, for all cells: give one with two or more, or leave it out"
        raise ValueError(msg)
    if n_classes > label_N.size // 2:
        msg = f"{name} holds {n_classes} classes for {label_N.size} cells: give a column with fewer, such as cell types"
        raise ValueError(msg)
    return label_N


def measure_structure(
    before: FloatArray, *, after: FloatArray, labels: Any | None, rng: np.random.Generator
) -> Structure:
    """Find principal components before and after imputation, each of its own, and score the classes on them.

    Parameters
    ----------
    before, after
        Dense logs of the same cells and genes.
    labels
        Class of each cell, or None for clusters of the data before.
    rng
        Seeds the approximate components and the clusters.

    Returns
    -------
    Structure

    Examples
    --------
    >>> logs = np.random.default_rng(0).normal(size=(60, 12)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> found = measure_structure(logs, after=logs, labels=None, rng=np.random.default_rng(0))
    >>> len(set(found.classes)), found.silhouette_before == found.silhouette_after
    (2, True)
    """
    seed, genes = int(rng.integers(2**31)), _most_varying(before)
    score_before_NP, score_after_NP = (_components(x[:, genes], seed) for x in (before, after))
    class_N = _clusters(score_before_NP, seed) if labels is None else _commonest(np.asarray(labels).astype(str))
    return Structure(
        before=score_before_NP[:, :2],
        after=score_after_NP[:, :2],
        classes=tuple(class_N.tolist()),
        given=labels is not None,
        silhouette_before=_silhouette(score_before_NP, class_N),
        silhouette_after=_silhouette(score_after_NP, class_N),
        n_components=score_before_NP.shape[1],
    )


def fine_clusters(logs: FloatArray, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Cluster cells where no types are known, finely: a type may be cut, but few clusters hold cells of two.

    k-means on principal components. As many clusters as have the highest silhouette, by which `measure_structure`
    chooses, often hold related types together.

    Parameters
    ----------
    logs
        Dense, cells × genes.
    rng
        Seeds the approximate components and the clusters.

    Returns
    -------
    The number of each cell's cluster; one for all where there are fewer than 80 cells.

    Examples
    --------
    >>> logs = np.random.default_rng(0).normal(size=(80, 12)) + 9 * np.repeat([[0], [1]], 40, axis=0)
    >>> np.unique(fine_clusters(logs, rng=np.random.default_rng(0)), return_counts=True)[1].tolist()
    [40, 40]
    """
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31))
    n_clusters = min(MOST_CLUSTERS, max(1, len(logs) // CELLS_PER_CLUSTER))
    score_NP = _components(logs[:, _most_varying(logs)], seed)
    return np.asarray(KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(score_NP), dtype=np.int64)


def _most_varying(logs_NG: FloatArray) -> NDArray[np.intp]:
    return np.sort(np.argsort(-logs_NG.var(axis=0), kind="stable")[:GENES])


def _components(logs_NG: FloatArray, seed: int) -> FloatArray:
    from sklearn.decomposition import PCA

    n = max(2, min(COMPONENTS, *(size - 1 for size in logs_NG.shape)))
    if np.ptp(logs_NG, axis=0).max() == 0:  # all cells are alike: there are no components
        return np.zeros((len(logs_NG), n))
    return np.asarray(PCA(n, svd_solver="randomized", random_state=seed).fit_transform(logs_NG), dtype=np.float64)


def _clusters(score_NP: FloatArray, seed: int) -> NDArray[Any]:
    """Name k-means clusters, as many as have the highest silhouette."""
    from sklearn.cluster import KMeans

    best, found_N = -np.inf, np.zeros(len(score_NP), dtype=int)
    for k in range(2, min(MOST_CLUSTERS, len(score_NP) // 5) + 1):
        cluster_N = KMeans(k, n_init=3, random_state=seed).fit_predict(score_NP)
        apart = _silhouette(score_NP, cluster_N)
        if apart is not None and apart > best:
            best, found_N = apart, cluster_N
    names = np.argsort(np.argsort(-np.bincount(found_N), kind="stable"))  # the largest first
    return np.array([f"cluster {names[cluster] + 1}" for cluster in found_N])


def _commonest(label_N: NDArray[Any]) -> NDArray[Any]:
    names, sizes = np.unique(label_N, return_counts=True)
    if names.size <= MOST_CLASSES:
        return label_N
    kept = names[np.argsort(-sizes, kind="stable")[:MOST_CLASSES]]
    return np.where(np.isin(label_N, kept), label_N, OTHERS)


def _silhouette(score_NP: FloatArray, class_N: NDArray[Any]) -> float | None:
    if not 2 <= np.unique(class_N).size < len(class_N) or np.ptp(score_NP) == 0:
        return None
    return silhouette(score_NP, types=class_N)
