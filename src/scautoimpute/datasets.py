"""Counts to try things on: a real sample that comes with scanpy, and simulations whose truth is known."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


__all__ = ["pbmc68k_reduced", "simulate"]


def pbmc68k_reduced() -> "AnnData":
    """UMI counts of 700 peripheral blood cells × 765 variable genes, no download needed.

    Recovered from the log-normalised values that scanpy ships: within a cell they are multiples of one molecule, and
    the smallest is one. The 700 cells were drawn from 68,579 with rare types enriched.

    Returns
    -------
    AnnData with integer counts as a float32 ``csr_matrix`` in ``X``, and the ten cell types in ``obs["cell_type"]``.

    Notes
    -----
    Source: 10x Genomics "Fresh 68k PBMCs (Donor A)", Zheng et al., Nat Commun 8:14049 (2017), cut down and labelled by
    scanpy (`scanpy.datasets.pbmc68k_reduced`).

    Examples
    --------
    >>> adata = pbmc68k_reduced()
    >>> adata.shape, int(adata.X.sum()), adata.obs["cell_type"].nunique()
    ((700, 765), 486651, 10)
    """
    import pandas as pd
    import scanpy
    from anndata import AnnData

    shipped = scanpy.datasets.pbmc68k_reduced()
    obs = pd.DataFrame({"cell_type": shipped.obs["bulk_labels"].astype("category")}, index=shipped.obs_names)
    counts = _molecules(shipped.raw.X)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=shipped.raw.var_names))


def _molecules(logged: Any) -> Any:
    """Return the counts behind log1p(count × size factor of the cell); every cell must hold a gene seen once."""
    counts = sparse.csr_matrix(logged, dtype=np.float64)
    counts.data = np.expm1(counts.data)
    one_molecule = np.minimum.reduceat(counts.data, counts.indptr[:-1])
    counts.data = np.rint(counts.data / np.repeat(one_molecule, np.diff(counts.indptr)))
    return counts.astype(np.float32)


def simulate(
    *,
    n_cells: int = 300,
    n_genes: int = 1000,
    n_types: int = 3,
    library_size: float = 5000,
    marker_share: float = 0.2,
    marker_log_fold: float = 1.0,
    overdispersion: float = 0.1,
    dropout: float = 0.3,
    random_state: int | np.random.Generator = 0,
) -> "AnnData":
    """Simulate counts with known expression, cell types and dropouts.

    Gene means are log-normal. In every type a share of the genes, drawn anew, is changed by a log-normal factor;
    types are equally large. Library sizes are log-normal. Counts are gamma-Poisson (negative binomial) around the
    truth. Then entries are lost with probability K / (K + truth), so weak expression is lost most often
    (Andrews & Hemberg, Bioinformatics 35:2865, 2019); K is such that `dropout` of all entries are lost on average.

    Parameters
    ----------
    n_cells, n_genes, n_types
        Size of the data.
    library_size
        Median of the expected molecules per cell before dropout.
    marker_share
        Share of the genes that are changed in each type, 0 to 1.
    marker_log_fold
        Standard deviation of their natural log fold change.
    overdispersion
        Variance is truth + `overdispersion` × truth²; 0 gives Poisson counts.
    dropout
        Mean probability of an entry to be lost, from 0 to below 1.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    AnnData, cells × genes, with

    ``X``
        Counts after dropout, float32 ``csr_matrix``.
    ``layers["truth"]``
        Expected counts before dropout, dense float32.
    ``obs["cell_type"]``
        ``"type_1"``, ``"type_2"``, …

    Raises
    ------
    ValueError
        If a parameter is outside its range.

    Notes
    -----
    Time and memory grow with cells × genes: the truth is dense.

    Examples
    --------
    >>> adata = simulate(n_cells=60, n_genes=100)
    >>> adata.shape, list(adata.obs["cell_type"].cat.categories)
    ((60, 100), ['type_1', 'type_2', 'type_3'])
    """
    import pandas as pd
    from anndata import AnnData

    _check_range(n_cells=(n_cells, 1, np.inf), n_genes=(n_genes, 1, np.inf), n_types=(n_types, 1, n_cells))
    _check_range(library_size=(library_size, 1, np.inf), overdispersion=(overdispersion, 0, np.inf))
    _check_range(
        marker_share=(marker_share, 0, 1), marker_log_fold=(marker_log_fold, 0, 10), dropout=(dropout, 0, 0.99)
    )
    rng = np.random.default_rng(random_state)
    profiles = _profiles(rng, n_types, n_genes, marker_share, marker_log_fold)
    type_of_cell = rng.permutation(np.arange(n_cells) % n_types)
    truth = profiles[type_of_cell] * library_size * rng.lognormal(0.0, 0.4, size=(n_cells, 1))
    counts = rng.poisson(_noisy(rng, truth, overdispersion)) * (rng.random(truth.shape) >= _loss(truth, dropout))
    names = [f"type_{number + 1}" for number in range(n_types)]
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical.from_codes(type_of_cell.tolist(), names)},
        index=[f"cell_{number + 1}" for number in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene_{number + 1}" for number in range(n_genes)])
    layers = {"truth": truth.astype(np.float32)}
    return AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var, layers=layers)


def _check_range(**parameters: tuple[float, float, float]) -> None:
    for name, (value, low, high) in parameters.items():
        if not low <= value <= high:
            msg = f"{name} is {value}; allowed is {low:g} to {high:g}"
            raise ValueError(msg)


def _profiles(
    rng: np.random.Generator, n_types: int, n_genes: int, share: float, log_fold: float
) -> "NDArray[np.float64]":
    """Draw the expected share of each gene in the molecules of a cell, types × genes."""
    changed = rng.random((n_types, n_genes)) < share
    log_mean = rng.normal(0.0, 1.5, size=n_genes) + changed * rng.normal(0.0, log_fold, size=(n_types, n_genes))
    mean = np.exp(log_mean)
    profiles: NDArray[np.float64] = mean / mean.sum(axis=1, keepdims=True)
    return profiles


def _noisy(rng: np.random.Generator, truth: "NDArray[np.float64]", overdispersion: float) -> "NDArray[np.float64]":
    """Draw the rates of the Poisson counts: gamma of mean `truth`, so that the counts are negative binomial."""
    if overdispersion == 0:
        return truth
    return truth * rng.gamma(1 / overdispersion, overdispersion, size=truth.shape)


def _loss(truth: "NDArray[np.float64]", dropout: float) -> "NDArray[np.float64] | float":
    """Return the probability K / (K + truth) of each entry to be lost, with K such that its mean is `dropout`."""
    from scipy.optimize import brentq

    if dropout == 0:
        return 0.0
    span = np.log(truth.min()) - 10, np.log(truth.max()) + 10
    log_k = brentq(lambda log: float(np.mean(1 / (1 + truth / np.exp(log)))) - dropout, *span)
    probability: NDArray[np.float64] = 1 / (1 + truth / np.exp(log_k))
    return probability
