"""DrImpute: zeros become the mean over the cells that cluster with theirs, averaged over many clusterings.

Written from the paper and from outputs of the original program; nothing was taken from its code (GPL).

Shapes: N cells, G genes, B clusterings, K clusters of one, C clusters of all, D components.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..io.matrix import row_blocks
from ._arrays import FloatArray, IntArray
from ._checks import choice, choices, whole_numbers
from ._completion import rows_of
from ._eigen import symmetric_eigen
from ._kmeans import kmeans
from ._record import Method, Preparation

__all__ = ["METHOD", "impute"]


_DISTANCES = ("spearman", "pearson")
_COMPONENTS_PER_CELL = 0.05
_GENES_AT_ONCE = 1024
_CELLS_AT_ONCE = 1024
_RANKED_AT_ONCE = 50_000  # entries
_ONE_LESS = ", one less than the cells that differ between genes (for few cells e.g. [2, 3])"
_FEWEST_FOR_MEDIAN = 5  # cells in a cluster


def impute(
    x_NG: Any,
    *,
    rng: np.random.Generator,
    n_clusters: Sequence[int] = range(10, 16),
    distances: Sequence[str] = ("spearman", "pearson"),
    average: Literal["mean", "median"] = "mean",
    clusterings: ArrayLike | None = None,
) -> FloatArray:
    """Impute zeros by averages over clusters of similar cells (DrImpute).

    For every number of clusters and every correlation between cells (1 - correlation is the distance) the cells are
    clustered by k-means on the leading components of the distance matrix. Each clustering estimates a zero by the
    average of the gene over the cell's cluster; the result is the mean of these estimates.

    Parameters
    ----------
    x_NG
        Canonical ``csr_array``, cells × genes: ln(1 + counts over the cell's mean count).
    rng
        Generator that k-means draws its starts from.
    n_clusters
        Numbers of clusters; each must be below the number of cells, so the default takes 16 cells or more.
    distances
        Correlations: ``"spearman"``, ``"pearson"`` or both.
    average
        ``"mean"`` over all cells of the cluster, zeros included, or ``"median"``, likewise, of which clusters of
        fewer than five cells have none.
    clusterings
        Labels, clusterings × cells, to average over instead of clustering here; a negative one puts the cell into no
        cluster. `n_clusters` and `distances` are then of no effect.

    Returns
    -------
    Dense array, cells × genes, on the scale of `x_NG`. Non-zeros are as they were; a zero stays zero where no cell of
    any of its clusters has the gene.

    Raises
    ------
    ValueError
        If there are not more cells than clusters, or an option is not among those named above.

    Notes
    -----
    Source: Gong et al., BMC Bioinformatics 19:220 (2018); outputs of DrImpute 1.0 (CRAN). Deliberate differences:

    - Cells without any count, or equal in all genes, have no correlation, at which the original stops; here they are
      put into no cluster, and their zeros stay.
    - k-means runs up to 60 greedy k-means++ starts, of which the best are refined by single moves (Hartigan). In 24
      stored clusterings the objective stays within 1 % of the original's, which starts 1000 times. From about a
      thousand cells on the starts are 16, of which 4 are refined.
    - With more than 20 times as many cells as genes there are fewer components than 5 % of the cells: the original
      then fills up with directions that are rounding, which are left out here.
    - The original seeds R itself, at every call alike; here `rng` decides.
    - Its option to set the smallest imputed values back to zero (``zerop``) and its gene filter (``preprocessSC``),
      a step before the method, are left out. Genes without any count stay zero.

    Memory beyond the result: with more cells than genes, the components (two matrices of cells × 5 % of the cells)
    and, at a time, three of cells × genes and five of genes × genes; else four of cells × cells. k-means takes time
    that grows with the square of the cells, and with more genes than cells the components take their cube.

    Examples
    --------
    >>> from scipy import sparse
    >>> x = sparse.csr_array([[4.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    >>> impute(x, rng=np.random.default_rng(0), clusterings=[[1, 1, 2], [1, 1, 1]]).tolist()
    [[4.0, 0.9166666666666666], [2.0, 1.0], [1.0, 3.0]]
    """
    choices("distances", distances, _DISTANCES)
    choice("average", average, ("mean", "median"))
    if clusterings is None:
        labels_BN = _clusterings(x_NG, n_clusters, distances, rng)
    else:
        labels_BN = _checked_labels(clusterings, x_NG.shape[0])
    return _fill(x_NG, labels_BN, average)


# ------------------------------------------------------------------------------------- options


def _checked_labels(clusterings: ArrayLike, n_cells: int) -> IntArray:
    labels_BN = np.asarray(clusterings)
    if labels_BN.ndim != 2 or labels_BN.shape[1] != n_cells or labels_BN.dtype.kind not in "iu" or not labels_BN.size:
        msg = (
            f"options= has clusterings of shape {labels_BN.shape} and type {labels_BN.dtype}: give whole numbers, one "
            f"row per clustering and one column for each of the {n_cells} cells"
        )
        raise ValueError(msg)
    return labels_BN.astype(np.int64)


# ------------------------------------------------------------------------------------- distances and components


def _clusterings(x: Any, n_clusters: Sequence[int], distances: Sequence[str], rng: np.random.Generator) -> IntArray:
    """Cluster the cells that have a correlation; the others get -1."""
    varied = np.flatnonzero(_varies(x))
    if varied.size < 2:
        msg = (
            f"{varied.size} of {x.shape[0]} cells differ between genes, and method='drimpute' correlates cells: "
            "check the input, or choose another method="
        )
        raise ValueError(msg)
    whole_numbers("n_clusters", n_clusters, low=1, high=varied.size - 1, hint=_ONE_LESS)
    points = [_components(x[varied], ranked=name == "spearman") for name in distances]
    labels_BN = np.full((len(n_clusters) * len(distances), x.shape[0]), -1)
    of_distance = [kmeans(points_ND, n_clusters=n_clusters, rng=rng) for points_ND in points]
    labels_BN[:, varied] = np.stack(of_distance, axis=1).reshape(-1, varied.size)
    return labels_BN


def _varies(x: Any) -> NDArray[np.bool_]:
    smallest, largest = (getattr(x, side)(axis=1).toarray().ravel() for side in ("min", "max"))
    differs: NDArray[np.bool_] = smallest < largest
    return differs


def _components(x: Any, *, ranked: bool) -> FloatArray:
    """Cells × leading components of their distances, by whichever of cells and genes are fewer."""
    values = _shifted_ranks(x) if ranked else x
    return _loadings_by_genes(values) if x.shape[0] > x.shape[1] else _loadings(1 - _correlation(values))


def _correlation(values: Any) -> FloatArray:
    """Correlate all cells, in blocks of genes because the centred matrix is dense."""
    centre_N = values.mean(axis=1)[:, None]
    by_gene = values.tocsc()
    products_NN = np.zeros((values.shape[0], values.shape[0]))
    for start in range(0, values.shape[1], _GENES_AT_ONCE):
        block = by_gene[:, start : start + _GENES_AT_ONCE].toarray() - centre_N
        products_NN += block @ block.T
    norm = np.sqrt(products_NN.diagonal())
    products_NN /= norm
    products_NN /= norm[:, None]
    return products_NN


def _shifted_ranks(x: Any) -> Any:
    """Rank the genes of each cell (ties share the mean rank), less the rank of zero: that keeps the matrix sparse."""
    from scipy import sparse

    ranks = np.empty(x.nnz)
    for cells in row_blocks(x, max(1, _RANKED_AT_ONCE // x.shape[1])):
        block = x[cells]
        ranks[x.indptr[cells.start] : x.indptr[cells.stop]] = _shifted_ranks_of_stored(block)
    return sparse.csr_array((ranks, x.indices, x.indptr), shape=x.shape)


def _shifted_ranks_of_stored(x: Any) -> FloatArray:
    cells = rows_of(x)
    order = np.lexsort((x.data, cells))  # cell after cell, each from its smallest value up
    value, cell = x.data[order], cells[order]
    first = np.flatnonzero((np.diff(value, prepend=0) != 0) | (np.diff(cell, prepend=-1) != 0))
    n_tied = np.diff(first, append=x.nnz)
    n_zero = x.shape[1] - np.diff(x.indptr)
    rank = first + (n_tied + 1) / 2 - x.indptr[cell[first]] + (n_zero[cell[first]] - 1) / 2
    ranks = np.empty(x.nnz)
    ranks[order] = np.repeat(rank, n_tied)
    return ranks


def _loadings(distance_NN: FloatArray) -> FloatArray:
    """Loadings of the leading principal components of the distance matrix, its columns standardised."""
    n = len(distance_NN)
    z_NN = distance_NN - distance_NN.mean(axis=0)
    spread = z_NN.std(axis=0, ddof=1)
    z_NN /= _or_infinite(spread, n)
    loadings_ND: FloatArray = symmetric_eigen(z_NN.T @ z_NN, n_largest=_n_components(n))[1]
    return loadings_ND[:, ::-1]


def _loadings_by_genes(values: Any) -> FloatArray:
    """Return the `_loadings` of the distances 1 - U Uᵀ without making them, U being the standardised cells.

    The standardised distances are Z = -H U Uᵀ S, where H centres columns and S scales them. With (HU)ᵀ(HU) = L Lᵀ,
    ZᵀZ = T Tᵀ for T = S U L, and S makes the rows of T equally long: the loadings are T's left singular vectors.
    """
    n = values.shape[0]
    u_NG = values.toarray()
    u_NG -= u_NG.mean(axis=1)[:, None]
    u_NG /= np.sqrt(np.einsum("ng,ng->n", u_NG, u_NG))[:, None]
    variance_G, axes_GG = symmetric_eigen(_centred_products(u_NG))
    t_NG = u_NG @ (axes_GG * np.sqrt(np.maximum(variance_G, 0)))
    length_N = np.sqrt(np.einsum("ng,ng->n", t_NG, t_NG))
    t_NG /= _or_infinite(length_N / np.sqrt(n - 1), n)[:, None]
    squared_G, axes_GG = symmetric_eigen(t_NG.T @ t_NG)
    n_distinct = int(np.count_nonzero(squared_G > np.finfo(float).eps * n * squared_G[-1]))
    leading = slice(-1, -1 - max(1, min(_n_components(n), n_distinct)), -1)
    loadings_ND: FloatArray = t_NG @ axes_GG[:, leading]
    loadings_ND /= np.sqrt(np.maximum(squared_G[leading], np.finfo(float).tiny))
    return loadings_ND


def _centred_products(u_NG: FloatArray) -> FloatArray:
    """Genes × genes: inner products less the genes' means, in blocks of cells."""
    mean_G = u_NG.mean(axis=0)
    products_GG = np.zeros((u_NG.shape[1], u_NG.shape[1]))
    for cells in row_blocks(u_NG, _CELLS_AT_ONCE):
        block = u_NG[cells] - mean_G
        products_GG += block.T @ block
    return products_GG


def _n_components(n_cells: int) -> int:
    return max(1, round(_COMPONENTS_PER_CELL * n_cells))  # a half goes to the even number, as in R


def _or_infinite(spread_N: FloatArray, n_cells: int) -> FloatArray:
    """Spreads to divide by; of cells that are all alike there is only rounding, which becomes nothing."""
    return np.where(spread_N > np.finfo(float).eps * n_cells, spread_N, np.inf)


# ------------------------------------------------------------------------------------- averages


def _fill(x: Any, labels_BN: IntArray, average: str) -> FloatArray:
    """Average each gene over each cell's clusters and write the non-zeros over it."""
    members_NC = _members(labels_BN)
    profiles_CG = _means(x, members_NC) if average == "mean" else _medians(x, members_NC)
    imputed: FloatArray = members_NC @ profiles_CG / len(labels_BN)
    imputed[rows_of(x), x.indices] = x.data
    return imputed


def _members(labels_BN: IntArray) -> Any:
    """Return cells × clusters of all clusterings, 1 where the cell is in the cluster."""
    from scipy import sparse

    clustered = labels_BN >= 0
    _, cells = np.nonzero(clustered)
    distinct_BN = labels_BN + np.arange(len(labels_BN))[:, None] * (labels_BN.max() + 1)
    names, clusters = np.unique(distinct_BN[clustered], return_inverse=True)
    return sparse.csr_array((np.ones(cells.size), (cells, clusters)), shape=(labels_BN.shape[1], names.size))


def _means(x: Any, members_NC: Any) -> FloatArray:
    means_CG: FloatArray = (members_NC.T @ x).toarray() / members_NC.sum(axis=0)[:, None]
    return means_CG


def _medians(x: Any, members_NC: Any) -> FloatArray:
    medians_CG = np.zeros((members_NC.shape[1], x.shape[1]))
    by_cluster = members_NC.tocsc()
    for cluster, cells in enumerate(np.split(by_cluster.indices, by_cluster.indptr[1:-1])):
        if cells.size >= _FEWEST_FOR_MEDIAN:
            medians_CG[cluster] = np.median(x[cells].toarray(), axis=0)
    return medians_CG


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """Result and copies of the matrix (dense data), profiles of 150 clusters, and what finds the clusters.

    That is a block of genes and four cells × cells; with fewer genes than cells five genes × genes, the components and
    the distances of k-means. And the ranks that are sorted at a time. Measured: 0.9 of this or less.
    """
    if n_cells > n_genes:
        of_cells = 5 * n_genes**2 + 0.15 * n_cells**2 + 900 * n_cells
    else:
        of_cells = n_cells * min(n_genes, _GENES_AT_ONCE) + 4 * n_cells**2
    return 8.0 * (n_cells * n_genes * 4.5 + 150 * n_genes + of_cells) + 3e6


METHOD = Method(
    name="drimpute",
    title="DrImpute",
    impute=impute,
    takes=Preparation("genes", "log1p"),
    keeps_observed=True,
    reference="Gong et al., BMC Bioinformatics 19:220 (2018); DrImpute 1.0 (CRAN)",
    limits="Time grows with the square of the cells (9,470 cells × 1000 genes: about a minute of one core), with more "
    "genes than cells with their cube, and memory with the square; from about a thousand cells on k-means has 16 "
    "starts; n_clusters has to be given below 16 cells.",
    peak_bytes=_peak_bytes,
    min_cells=3,
    per_cell=("clusterings",),
)
