"""Who is alike, for scImpute: highly variable genes, principal components, outliers, spectral clusters.

Arrays: x_NG is log10(CPM + 1.01), cells × genes; scores_NP are the cells' principal component scores.
"""

import warnings
from inspect import signature

import numpy as np
from numpy.typing import NDArray

from ._arrays import FloatArray, IndexArray
from ._eigen import symmetric_eigen
from ._mixture import ZERO

_FEWEST_VARIABLE = 500
_BLOCK = 512  # genes, or cells, at a time where a second full matrix would be needed
_DENSE_EIGEN = 1000  # cells above which a few eigenvectors are cheaper by Lanczos' method
_NUMBERS = range(2, 9)
_ENOUGH_CELLS = 20  # with fewer, no number of clusters is looked for
_STRUCTURE = 0.25  # mean silhouette; below, "no substantial structure has been found" (Kaufman & Rousseeuw 1990)


def variable_genes(x_NG: FloatArray) -> IndexArray:
    """Genes with mean ≥ 1 and a coefficient of variation above the lowest quarter; all where that leaves < 500.

    Both are taken over the distinct expressed values of a gene.
    """
    blocks = [_mean_and_variation(x_NG[:, start : start + _BLOCK]) for start in range(0, x_NG.shape[1], _BLOCK)]
    mean, variation = np.concatenate(blocks, axis=1)
    chosen = np.flatnonzero((mean >= 1) & (variation >= np.quantile(variation, 0.25)))
    return chosen if chosen.size >= _FEWEST_VARIABLE else np.arange(x_NG.shape[1])


def _mean_and_variation(x_NB: FloatArray) -> tuple[FloatArray, FloatArray]:
    ordered = np.sort(x_NB, axis=0)
    distinct = np.diff(ordered, axis=0, prepend=ZERO) > 0
    n = distinct.sum(axis=0)
    mean = (ordered * distinct).sum(axis=0) / np.maximum(n, 1)
    squares = ((ordered - mean) ** 2 * distinct).sum(axis=0)
    return mean, np.sqrt(squares / np.maximum(n - 1, 1)) / np.where(n > 1, mean, 1)


def principal_components(x_NG: FloatArray, *, at_least: int, exact_below: int, rng: np.random.Generator) -> FloatArray:
    """Scores on the first components that hold more than 40 % of the variance, `at_least` or 3 at the least.

    From `exact_below` cells on, of the first 1000 components (approximated) those that hold 60 % of their variance.
    """
    centred = x_NG - x_NG.mean(axis=0)
    if len(x_NG) < exact_below:
        scores, variances, share = *_exact_scores(centred), 0.4
    else:
        scores, variances, share = *_approximate_scores(centred, rng), 0.6
    above = np.cumsum(variances) > share * variances.sum()
    return scores[:, : max(int(np.argmax(above)) + 1, at_least, 3)]


def _exact_scores(centred: FloatArray) -> tuple[FloatArray, FloatArray]:
    """All scores and variances, largest first, by the smaller of the two Gram matrices."""
    by_cell = centred.shape[0] <= centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if by_cell else centred.T @ centred)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    return (vectors * np.sqrt(values) if by_cell else centred @ vectors), values


def _approximate_scores(centred: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    from sklearn.utils.extmath import randomized_svd

    n_components = min(1000, *centred.shape)
    left, singular, _ = randomized_svd(centred, n_components, n_iter=2, random_state=int(rng.integers(2**32)))
    return left * singular, singular**2


def nearest_distances(scores_NP: FloatArray) -> FloatArray:
    """Distance of every cell to the nearest other."""
    from scipy.spatial.distance import cdist

    nearest = np.empty(len(scores_NP))
    for start in range(0, len(scores_NP), _BLOCK):
        distances = cdist(scores_NP[start : start + _BLOCK], scores_NP)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        nearest[start : start + _BLOCK] = distances.min(axis=1)
    return nearest


def outlying(scores_NP: FloatArray) -> NDArray[np.bool_]:
    """Cells whose nearest neighbour is unusually far: 1.5 interquartile ranges above the upper quartile."""
    nearest = nearest_distances(scores_NP)
    low, high = np.quantile(nearest, [0.25, 0.75])
    return np.asarray(nearest > high + 1.5 * (high - low))


def spectral_clusters(scores_NP: FloatArray, *, n_clusters: int, rng: np.random.Generator) -> IndexArray:
    """Spectral clusters as Ng, Jordan & Weiss (2001), numbered from 0."""
    return _grouped(_eigenvectors(scores_NP, n_clusters, rng), rng)


def number_of_clusters(scores_NP: FloatArray, *, rng: np.random.Generator) -> int:
    """From 2 to 8 clusters, the number with the widest mean silhouette; 1 if that is below 0.25, or of < 20 cells."""
    from sklearn.metrics import silhouette_score

    if len(scores_NP) < _ENOUGH_CELLS:
        return 1
    vectors, widths = _eigenvectors(scores_NP, _NUMBERS[-1], rng), {1: _STRUCTURE}
    for number in _NUMBERS:
        clusters = _grouped(vectors[:, :number], rng)
        if np.unique(clusters).size == number:
            widths[number] = float(silhouette_score(scores_NP, clusters))
    return max(widths, key=lambda number: widths[number])


def _eigenvectors(scores_NP: FloatArray, n_vectors: int, rng: np.random.Generator) -> FloatArray:
    """Leading eigenvectors of the normalised affinity of the cells, the first first.

    The affinity is exp(-d² / w²), where the hundredth part of all pairs is closer than w.
    """
    from scipy.sparse.linalg import eigsh
    from scipy.spatial.distance import pdist, squareform

    squares = pdist(scores_NP, "sqeuclidean")
    width = np.quantile(squares, 0.01)
    affinity = squareform(squares)
    np.fill_diagonal(affinity, np.inf)
    # A cell far from all others keeps a neighbour: exp(-30) is small, exp(-800) would be zero.
    width = max(width, affinity.min(axis=1).max() / 30) or 1.0
    np.exp(np.divide(affinity, -width, out=affinity), out=affinity)
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    affinity *= scale
    affinity *= scale[:, np.newaxis]
    n = len(affinity)
    if n > _DENSE_EIGEN:
        drawn = {"rng": rng} if "rng" in signature(eigsh).parameters else {}  # where it starts anew (SciPy 1.17)
        _, vectors = eigsh(affinity, n_vectors, which="LA", v0=rng.random(n), **drawn)
    else:
        _, vectors = symmetric_eigen(affinity, n_largest=n_vectors)
    return np.asarray(vectors[:, ::-1])


def _grouped(vectors_NK: FloatArray, rng: np.random.Generator) -> IndexArray:
    """K groups of the cells' directions in the space of K eigenvectors."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    lengths = np.linalg.norm(vectors_NK, axis=1, keepdims=True)
    directions = vectors_NK / np.maximum(lengths, np.finfo(np.float64).tiny)
    model = KMeans(vectors_NK.shape[1], n_init=10, random_state=int(rng.integers(2**32)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal cells: fewer groups than asked for
        return np.asarray(model.fit_predict(directions), dtype=np.intp)
