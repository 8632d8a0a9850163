"""Counts to try things on: a real sample that comes with scanpy, and simulations whose truth is known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from ._permutation import permute_columns
from ._simulation import (
    batch_profiles,
    check_range,
    checked_shares,
    loss,
    noisy,
    type_profiles,
    types_of_cells,
)

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["pbmc68k_reduced", "permute_genes", "simulate"]

Structure = Literal["types", "none"]


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
    structure: Structure = "types",
    type_shares: Sequence[float] | None = None,
    library_spread: float = 0.4,
    n_batches: int = 1,
    batch_effect: float = 0.3,
) -> "AnnData":
    """Simulate counts with known expression, cell types and dropouts.

    Gene means are log-normal. In every type a share of the genes, drawn anew, is changed by a log-normal factor;
    types are equally large unless `type_shares` says otherwise. Library sizes are log-normal. Counts are
    gamma-Poisson (negative binomial) around the truth. Then entries are lost with probability K / (K + truth), so weak
    expression is lost most often (Andrews & Hemberg, Bioinformatics 35:2865, 2019); K is such that `dropout` of all
    entries are lost on average.

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
    structure
        `"none"` gives every cell the same profile: types are then labels without meaning, and there is nothing that
        imputation could find.
    type_shares
        Share of the cells of each type, summing to 1: ``n_types=3, type_shares=(0.6, 0.39, 0.01)`` has a rare one.
    library_spread
        Standard deviation of the natural log of the library sizes.
    n_batches
        Batches, equally large and independent of the types.
    batch_effect
        Standard deviation of the natural log factor of each gene in each batch, where there are several.

    Returns
    -------
    AnnData, cells × genes, with

    ``X``
        Counts after dropout, float32 ``csr_matrix``.
    ``layers["truth"]``
        Expected counts before dropout, in the cell's batch; dense float32.
    ``obs["cell_type"]``
        ``"type_1"``, ``"type_2"``, …
    ``obs["batch"]``
        ``"batch_1"``, …, with several batches.

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
    >>> adata = simulate(n_cells=200, n_types=2, type_shares=(0.99, 0.01))
    >>> adata.obs["cell_type"].value_counts().to_list()
    [198, 2]
    """
    check_range(n_cells=(n_cells, 1, np.inf), n_genes=(n_genes, 1, np.inf), n_types=(n_types, 1, n_cells))
    check_range(library_size=(library_size, 1, np.inf), overdispersion=(overdispersion, 0, np.inf))
    check_range(marker_share=(marker_share, 0, 1), marker_log_fold=(marker_log_fold, 0, 10), dropout=(dropout, 0, 0.99))
    check_range(library_spread=(library_spread, 0, 10), n_batches=(n_batches, 1, n_cells))
    check_range(batch_effect=(batch_effect, 0, 10))
    if structure not in get_args(Structure):
        msg = f"structure={structure!r} is not known: choose {' or '.join(map(repr, get_args(Structure)))}"
        raise ValueError(msg)
    shares = checked_shares(type_shares, n_types)
    rng = np.random.default_rng(random_state)
    profiles = type_profiles(rng, n_types, n_genes, 0.0 if structure == "none" else marker_share, marker_log_fold)
    labels = {"type": types_of_cells(rng, n_cells, n_types, shares)}
    expected = profiles[labels["type"]]
    if n_batches > 1:
        labels["batch"] = rng.permutation(np.arange(n_cells) % n_batches)
        expected = expected * batch_profiles(rng, n_batches, n_genes, batch_effect)[labels["batch"]]
        expected /= expected.sum(axis=1, keepdims=True)
    truth = expected * library_size * rng.lognormal(0.0, library_spread, size=(n_cells, 1))
    counts = rng.poisson(noisy(rng, truth, overdispersion)) * (rng.random(truth.shape) >= loss(truth, dropout))
    return _annotated(counts, truth, labels)


def _annotated(counts: Any, truth: Any, labels: dict[str, Any]) -> "AnnData":
    """Name the cells, genes and labels of simulated counts."""
    import pandas as pd
    from anndata import AnnData

    columns = {
        {"type": "cell_type"}.get(kind, kind): pd.Categorical.from_codes(
            codes.tolist(), [f"{kind}_{number + 1}" for number in range(codes.max() + 1)]
        )
        for kind, codes in labels.items()
    }
    obs = pd.DataFrame(columns, index=[f"cell_{number + 1}" for number in range(counts.shape[0])])
    var = pd.DataFrame(index=[f"gene_{number + 1}" for number in range(counts.shape[1])])
    layers = {"truth": truth.astype(np.float32)}
    return AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var, layers=layers)


def permute_genes(adata: "AnnData", *, random_state: int | np.random.Generator = 0) -> "AnnData":
    """Return a copy of the counts with each gene permuted across cells on its own, so that no structure is left.

    Every gene keeps its values; cells do not keep theirs. Library sizes become sums of unrelated genes and nearly
    equal, types and batches mean nothing any more: whatever structure a method finds in it is invented.

    Parameters
    ----------
    adata
        Cells × genes; `X` is taken, layers are left out.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    AnnData with the same names and annotations, and the permuted `X`; a ``csr_matrix`` if it was sparse.

    Notes
    -----
    The test of Andrews & Hemberg, False signals induced by single-cell imputation, F1000Research 7:1740 (2018).

    Examples
    --------
    >>> adata = simulate(n_cells=60, n_genes=100)
    >>> permuted = permute_genes(adata)
    >>> bool((permuted.X.sum(axis=0) == adata.X.sum(axis=0)).all())
    True
    """
    from anndata import AnnData

    permuted = permute_columns(adata.X, np.random.default_rng(random_state))
    x = sparse.csr_matrix(permuted) if sparse.issparse(permuted) else permuted
    return AnnData(x, obs=adata.obs.copy(), var=adata.var.copy())
