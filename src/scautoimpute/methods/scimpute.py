"""scImpute (Li & Li, 2018): each cell's likely dropouts from a non-negative regression on cells of its cluster.

Written from the paper and from what the program was seen to do, without its source code. Arrays are named by their
axes: N all cells, n the cells of one cluster, G genes, V the genes of a cluster that can be imputed.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from . import _populations
from ._arrays import FloatArray, IndexArray
from ._checks import per_cell, share, whole_number
from ._mixture import Mixture, dropout_probabilities, fit_mixtures, usable
from ._nonnegative import nonnegative_weights
from ._record import COUNTS, Imputed, Method

__all__ = ["METHOD", "impute"]


_FEWEST_GENES = 11  # that a cluster needs for a regression
_MOST_NEIGHBOURS = 500
_EXACT, _EXACT_OF_LABEL = 5000, 1000  # from so many, principal components are approximated


class _Cluster(NamedTuple):
    """Cells that are imputed from one another, and their principal component scores."""

    cells: IndexArray
    scores_nP: FloatArray


class _Filled(NamedTuple):
    """New values of one cell, on the scale of the regression."""

    cell: int
    genes: IndexArray
    values: FloatArray


def impute(
    counts_NG: sparse.csr_array,
    *,
    rng: np.random.Generator,
    n_clusters: int | None = None,
    labels: ArrayLike | None = None,
    dropout_threshold: float = 0.5,
    clusters: ArrayLike | None = None,
) -> Imputed:
    """Impute counts by scImpute.

    Works on log10(counts per million + 1.01). Cells far from all others are set aside, the rest clustered; in each
    cluster a mixture of a gamma and a normal distribution is fitted to every gene; values that probably come from the
    gamma are replaced by what a non-negative regression on the cluster's other cells, fitted to the cell's remaining
    genes, predicts for them, up to the largest value of the gene in the cluster.

    Parameters
    ----------
    counts_NG
        Counts, cells × genes, not negative.
    rng
        For the clustering (and, from 5000 cells, the principal components).
    n_clusters
        Number of cell populations. The original demands it; here None takes the number from 2 to 8 with the widest
        mean silhouette on the principal components, or 1 where none reaches 0.25 (no substantial structure, by
        Kaufman & Rousseeuw 1990) or there are fewer than 20 cells. With 1 no cell is set aside.
    labels
        Cell type of every cell, in place of clusters that are found. Cells whose label is missing are not imputed.
    dropout_threshold
        Values are replaced if they come from the gamma with more than this probability.
    clusters
        Cluster number of every cell, as an earlier run found them; -1 marks a cell set aside. Unlike with `labels`,
        cells are compared by principal components of all cells.

    Returns
    -------
    Imputed
        Counts, dense, not negative, rounded to two decimals like the original's; and `n_clusters`, as chosen or given.

    Raises
    ------
    ValueError
        If more than one of `n_clusters`, `labels` and `clusters` is given, one of them does not fit the cells, there
        are fewer cells to cluster than clusters, or the threshold is not between 0 and 1.

    Notes
    -----
    As in the original: small non-zero counts can be replaced as well as zeros; a cell of which no or every gene is
    a dropout stays as it is, and so do outliers, clusters of one cell or of at most ten usable genes. A gene that has
    fewer than two non-zero counts in a cluster, or whose mean there is not above one count per million, stays as it
    is. Where a cell would have no more genes to fit than the cluster has other cells, or the cluster has more than
    500, only the nearest take part: two thirds as many as genes, 500 at most.

    Deliberately different: (1) a cell with exactly one dropout is imputed; in the original an error on the way leaves
    it untouched. (2) The regression is solved exactly, where the original's iteration may stop early. (3) Clustering
    is Ng, Jordan & Weiss's with one fixed kernel width, at which 1 % of all pairs of cells are closer, where the
    original's `kernlab::specc` searches a width on a random part of the cells. (4) Values that are not replaced are
    returned as they came, not carried through the logarithm and back. (5) Labels may be of any kind; the original
    wants numbers to run from 1 without a gap.

    Time grows with the square of the number of cells, and so does memory where clusters are found.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(rng.gamma(2, 4, size=(1, 30)) * np.ones((12, 1)))
    >>> counts[3, :4] = 0
    >>> imputed = impute(sparse.csr_array(counts.astype(float)), rng=rng, n_clusters=1)
    >>> bool((imputed.values[3, :4] > 0).any())
    True
    """
    _check(counts_NG.shape[0], n_clusters, labels, clusters, dropout_threshold)
    totals = counts_NG.sum(axis=1)
    scale_N = np.where(totals == 0, 1, totals) / 1e6
    x_NG = np.asarray(counts_NG.toarray(), dtype=np.float64)
    imputed_NG = np.round(x_NG, 2)
    x_NG /= scale_N[:, np.newaxis]
    x_NG += 1.01
    np.log10(x_NG, out=x_NG)
    found = _clusters(x_NG, n_clusters, clusters, rng) if labels is None else _labelled(x_NG, labels, rng)
    for cell, genes, values in _predictions(x_NG, found, dropout_threshold):
        imputed_NG[cell, genes] = np.round(np.maximum(10**values - 1.01, 0) * scale_N[cell], 2)
    return Imputed(imputed_NG, {"n_clusters": len(found)})


# ------------------------------------------------------------------------------------------------- populations


def _check(n_cells: int, n_clusters: Any, labels: Any, clusters: Any, threshold: float) -> None:
    given = {"n_clusters": n_clusters, "labels": labels, "clusters": clusters}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        msg = f"options= has {' and '.join(named)}, which exclude each other: give one of them"
        raise ValueError(msg)
    share("dropout_threshold", threshold, inside=True, hint=" (0.5 is usual)")
    for name in {"labels", "clusters"}.intersection(named):
        if per_cell(name, given[name], n_cells).ndim != 1:
            msg = (
                f"options= has {name} of shape {np.shape(given[name])}: give a single value for each of {n_cells} cells"
            )
            raise ValueError(msg)
    if n_clusters is not None:
        hint = ", the number of cells, or None to have it chosen"
        whole_number("n_clusters", n_clusters, low=1, high=n_cells, hint=hint)


def _numbers(clusters: ArrayLike) -> IndexArray:
    numbers = np.asarray(clusters)
    lowest = f" from {numbers.min()}" if numbers.dtype.kind in "iuf" else ""
    if numbers.dtype.kind not in "iu" or (numbers < -1).any():
        msg = f"options= has clusters of {numbers.dtype}{lowest}: give whole numbers from 0, -1 for outliers"
        raise ValueError(msg)
    return numbers.astype(np.intp)


def _clusters(
    x_NG: FloatArray, n_clusters: int | None, clusters: ArrayLike | None, rng: np.random.Generator
) -> list[_Cluster]:
    """Clusters as given, or found among the cells that are no outliers."""
    x_NH = x_NG[:, _populations.variable_genes(x_NG)]
    if clusters is not None:
        number_N = _numbers(clusters)
        n_clusters = np.unique(number_N[number_N >= 0]).size
        scores_NP = _components(x_NH, n_clusters, rng)
    else:
        n_clusters = n_clusters or _chosen_number(x_NH, rng)
        scores_NP = _components(x_NH, n_clusters, rng)
        number_N = _found_numbers(scores_NP, n_clusters, rng)
    members = (np.flatnonzero(number_N == number) for number in np.unique(number_N[number_N >= 0]))
    return [_Cluster(cells, scores_NP[cells]) for cells in members]


def _components(x_NH: FloatArray, at_least: int, rng: np.random.Generator) -> FloatArray:
    return _populations.principal_components(x_NH, at_least=at_least, exact_below=_EXACT, rng=rng)


def _chosen_number(x_NH: FloatArray, rng: np.random.Generator) -> int:
    scores_NP = _components(x_NH, 1, rng)
    return _populations.number_of_clusters(scores_NP[~_populations.outlying(scores_NP)], rng=rng)


def _found_numbers(scores_NP: FloatArray, n_clusters: int, rng: np.random.Generator) -> IndexArray:
    """Cluster of every cell, -1 for outliers."""
    if n_clusters == 1:
        return np.zeros(len(scores_NP), dtype=np.intp)
    inlying = np.flatnonzero(~_populations.outlying(scores_NP))
    if inlying.size < n_clusters:
        msg = (
            f"options= has n_clusters={n_clusters}, but only {inlying.size} cells are no outliers: give at most as many"
        )
        raise ValueError(msg)
    numbers = np.full(len(scores_NP), -1, dtype=np.intp)
    numbers[inlying] = _populations.spectral_clusters(scores_NP[inlying], n_clusters=n_clusters, rng=rng)
    return numbers


def _labelled(x_NG: FloatArray, labels: ArrayLike, rng: np.random.Generator) -> list[_Cluster]:
    """One cluster per label, each with principal components of its own."""
    import pandas as pd

    code_N, names = pd.factorize(pd.Series(labels))  # a missing label becomes -1
    x_NH = x_NG[:, _populations.variable_genes(x_NG)]
    return [
        _Cluster(
            cells, _populations.principal_components(x_NH[cells], at_least=1, exact_below=_EXACT_OF_LABEL, rng=rng)
        )
        for cells in (np.flatnonzero(code_N == code) for code in range(len(names)))
    ]


# -------------------------------------------------------------------------------------------------- imputation


def _predictions(x_NG: FloatArray, clusters: list[_Cluster], threshold: float) -> Iterator[_Filled]:
    """New values, not yet rounded, of every cell that gets any."""
    for cells, scores_nP in clusters:
        mixture = fit_mixtures(x_NG[cells])
        valid = np.flatnonzero(usable(mixture))
        if cells.size < 2 or valid.size < _FEWEST_GENES:
            continue
        x_nV = x_NG[np.ix_(cells, valid)]
        for row, dropped_V, values in _predictions_of_cluster(x_nV, scores_nP, mixture.take(valid), threshold):
            yield _Filled(cells[row], valid[dropped_V], values)


def _predictions_of_cluster(
    x_nV: FloatArray, scores_nP: FloatArray, mixture: Mixture, threshold: float
) -> Iterator[tuple[int, NDArray[np.bool_], FloatArray]]:
    largest_V, norm_n = x_nV.max(axis=0), np.linalg.norm(x_nV, axis=1)
    for row, x_V in enumerate(x_nV):
        dropped_V = _dropped(x_V, mixture, threshold)
        if dropped_V.any() and not dropped_V.all():
            candidates = _neighbours(scores_nP, row, n_genes=int((~dropped_V).sum()))
            weights = nonnegative_weights(x_nV, norm_n, row, candidates, ~dropped_V)
            used = np.flatnonzero(weights)
            predicted = weights[used] @ x_nV[used][:, dropped_V]
            yield row, dropped_V, np.minimum(predicted, largest_V[dropped_V])


def _dropped(x_V: FloatArray, mixture: Mixture, threshold: float) -> NDArray[np.bool_]:
    """Values that probably come from the gamma; one above the normal's mean never counts as dropped out."""
    return np.asarray((dropout_probabilities(x_V, mixture) > threshold) & (x_V <= mixture.mean))


def _neighbours(scores_nP: FloatArray, row: int, *, n_genes: int) -> IndexArray:
    """Cells that the regression of a cell may use: all others, or the nearest where they outnumber the genes."""
    others = np.delete(np.arange(len(scores_nP)), row)
    if others.size < min(_MOST_NEIGHBOURS, n_genes):
        return others
    n_nearest = _MOST_NEIGHBOURS if n_genes > _MOST_NEIGHBOURS else round(2 * n_genes / 3)
    distances = np.linalg.norm(scores_nP[others] - scores_nP[row], axis=1)
    return others[np.argsort(distances, kind="stable")[:n_nearest]]


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """Logs, result, and at most two copies of a cluster; affinities of the cells. Measured: 0.9 of this or less."""
    return 8.0 * (5 * n_cells * n_genes + 2.5 * n_cells**2)


METHOD = Method(
    name="scimpute",
    title="scImpute",
    impute=impute,
    takes=COUNTS,
    keeps_observed=False,
    reference="Li & Li (2018) Nat Commun 9:997; held to the results of scImpute 0.0.9 (commit 78556ee)",
    limits=(
        "Needs cells that fall into clusters: outliers and genes that a cluster hardly expresses stay as they are; "
        "small counts may be replaced; time and memory grow with the square of the number of cells."
    ),
    peak_bytes=_peak_bytes,
    distributions=("numpy", "scipy", "scikit-learn"),
    per_cell=("labels", "clusters"),
)
