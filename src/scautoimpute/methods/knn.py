"""Smoothing over nearest neighbours: every cell becomes the weighted mean of itself and the cells most like it.

Neighbours are found among the first principal components of ln(1 + counts per 10,000); what is averaged is the
counts per 10,000 themselves, zeros included. A mean of counts estimates the rate behind them, which a mean of logs, or
of non-zeros only, would not: so the method is for counts. Shape suffixes: B cells, G genes, K neighbours, P components.
"""

from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse

from ._arrays import FloatArray
from ._checks import choice, whole_number
from ._record import Method, Preparation

__all__ = ["METHOD", "cell_weights", "impute", "principal_components"]

Weights = Literal["gaussian", "uniform"]

N_NEIGHBORS, N_PCS = 15, 50


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    n_neighbors: int | None = None,
    n_pcs: int = N_PCS,
    weights: Weights = "gaussian",
) -> FloatArray:
    """Average every cell with its neighbours.

    Parameters
    ----------
    x
        Counts per 10,000, cells × genes.
    rng
        Starts the eigensolver of the principal components.
    n_neighbors
        Other cells to average with; 15 by default, or all others where there are fewer.
    n_pcs
        Principal components to find them by; at most one less than there are cells or genes.
    weights
        `"uniform"`, or `"gaussian"`: exp(−(d / d_K)²), where d_K is the distance to the last neighbour.
    """
    n_others = x.shape[0] - 1
    n_neighbors = min(N_NEIGHBORS, n_others) if n_neighbors is None else n_neighbors
    whole_number("n_neighbors", n_neighbors, low=1, high=n_others, hint=", the number of other cells")
    whole_number("n_pcs", n_pcs, low=1)
    choice("weights", weights, get_args(Weights))
    scores_BP = principal_components(np.log1p(x), min(n_pcs, min(x.shape) - 1), rng)
    # Nearly every entry of the means is above zero: a sparse product would be larger than two dense matrices.
    smoothed: FloatArray = cell_weights(scores_BP, n_neighbors, weights) @ x.toarray()
    return smoothed


def principal_components(x: Any, n_pcs: int, rng: np.random.Generator) -> FloatArray:
    """Scores of the cells on the first components, without making a sparse `x` dense; cells × 1 zeros for none."""
    from sklearn.decomposition import PCA

    if n_pcs < 1 or (x.max(axis=0) != x.min(axis=0)).nnz == 0:  # no cell differs from another
        return np.zeros((x.shape[0], 1))
    seed = int(rng.integers(2**31))
    scores: FloatArray = PCA(n_pcs, svd_solver="arpack", random_state=seed).fit_transform(x)
    return scores


def cell_weights(scores_BP: FloatArray, n_neighbors: int, weights: Weights) -> Any:
    """Weight of every cell in every cell's mean: a sparse cells × cells matrix whose rows sum to one."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=n_neighbors).fit(scores_BP).kneighbors()  # leaves out the cell itself
    distance_BK, neighbor_BK = found
    weight_BK = np.ones_like(distance_BK)
    if weights == "gaussian":
        last_B1 = distance_BK[:, -1:]
        # Cells as far as the last neighbour, at distance zero as well, are all alike: exp(-1) each.
        ratio_BK = np.divide(distance_BK, last_B1, out=np.ones_like(distance_BK), where=last_B1 > 0)
        weight_BK = np.exp(-(ratio_BK**2))
    n_cells = len(scores_BP)
    rows = np.repeat(np.arange(n_cells), n_neighbors)
    others = sparse.csr_array((weight_BK.ravel(), (rows, neighbor_BK.ravel())), shape=(n_cells, n_cells))
    whole = sparse.eye_array(n_cells, format="csr") + others
    return sparse.diags_array(1 / whole.sum(axis=1)) @ whole


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """The counts and the result, dense; the logs of the counts; and the scores and neighbours."""
    return 22.0 * n_cells * n_genes + 8.0 * n_cells * (3 * N_PCS + 6 * N_NEIGHBORS)


METHOD = Method(
    name="knn",
    title="k-nearest-neighbour smoothing",
    impute=impute,
    takes=Preparation(1e4, "linear"),
    keeps_observed=False,
    reference="One step of nearest-neighbour averaging, as in Wagner, Yan & Yanai, bioRxiv 217737 (2018), with "
    "Euclidean neighbours in principal components.",
    limits="For counts only, zeros being data; smears rare cell types into their neighbours and makes genes look more "
    "correlated than they are.",
    peak_bytes=_peak_bytes,
    min_cells=3,
    distributions=("numpy", "scipy", "scikit-learn"),
)
