"""Pre-processing of counts: AutoImpute's gene filter, median normalisation, gene selection and log2(x + 1).

Every verb works in place on ``X`` (or on ``layer``) and returns None, or leaves the object alone and returns a changed
copy with ``copy=True``. Dense stays dense and sparse keeps its format. A view becomes an object of its own. A backed
object cannot be changed in place; ``copy=True`` reads the result into memory.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ._counts import checked_counts, in_container_of, log2_plus_one, median_normalised
from ._genes import Flavor, IntArray, TopGenes, genes_passing, top_genes
from ._recipe import MIN_CELLS, MIN_COUNTS, Processed, gene_counts, processed_as, processed_matrix, selection_choices
from .io.matrix import counts_matrix

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "Processed",
    "filter_genes",
    "log2p1",
    "normalize_median",
    "processed_as",
    "processed_matrix",
    "recipe_autoimpute",
    "select_genes",
]

_RECORD = "autoimpute_recipe"


def filter_genes(
    adata: "AnnData",
    *,
    min_counts: float = MIN_COUNTS,
    min_cells: int = MIN_CELLS,
    reference: bool = False,
    layer: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Keep the genes with at least `min_counts` reads in at least `min_cells` cells.

    Parameters
    ----------
    adata
        Counts, cells × genes.
    min_counts, min_cells
        A gene stays if `min_cells` cells hold `min_counts` reads of it each.
    reference
        Compare as the published R code does: more than ``min_counts - 1`` reads in *more than* `min_cells` cells.
    layer
        Where the counts are; ``X`` by default. All layers are subset.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.uns["autoimpute_recipe"]``
        The choices made, and how many genes came in and stayed.

    Raises
    ------
    ValueError
        If no gene passes, or the matrix is empty or holds NaN, infinite or negative entries.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.array([[3.0, 9.0], [4.0, 0.0], [5.0, 1.0]]))
    >>> filter_genes(adata)
    >>> adata.shape
    (3, 1)
    """
    _refuse_in_place(adata, copy=copy)
    x = checked_counts(adata, layer)
    kept = genes_passing(x, min_counts=min_counts, min_cells=min_cells, reference=reference)
    result = _subset(adata, kept, copy=copy)
    choices = {"min_counts": min_counts, "min_cells": min_cells, "reference": reference, "layer": layer or "X"}
    _record(result, **choices, **gene_counts(x, kept))
    return result if copy else None


def normalize_median(
    adata: "AnnData", *, reference: bool = False, layer: str | None = None, copy: bool = False
) -> "AnnData | None":
    """Divide each cell by its total and multiply by the median total.

    The median is over the cells that have reads; empty cells stay zero and are reported.

    Parameters
    ----------
    adata
        Counts, cells × genes.
    reference
        Refuse empty cells, over which the published R code fails, and return float64.
    layer
        The matrix to normalise; ``X`` by default.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.X`` or ``adata.layers[layer]``
        Normalised values; float64 if the counts are float64 or `reference`, else float32.
    ``adata.obs["size_factor"]``
        Total of the cell over the median total; 1 for an empty cell.
    ``adata.uns["autoimpute_recipe"]``
        ``median_total`` and ``n_empty_cells``.

    Raises
    ------
    ValueError
        If all entries are zero, some are NaN, infinite or negative, or `reference` meets an empty cell.

    Warns
    -----
    UserWarning
        If there are empty cells.
    """
    _refuse_in_place(adata, copy=copy)
    x = checked_counts(adata, layer)
    normalised, size_factor, facts = median_normalised(x, reference=reference)
    result = _subset(adata, None, copy=copy)
    _store(result, normalised, layer, double=reference or x.dtype == np.float64)
    result.obs["size_factor"] = size_factor
    _record(result, **facts)
    return result if copy else None


def select_genes(
    adata: "AnnData",
    *,
    n_top_genes: TopGenes = 1000,
    flavor: Flavor = "dispersion",
    reference: bool = False,
    layer: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Keep the most variable genes of normalised, not yet logged values.

    ``"dispersion"`` ranks (d - median d) / (1.4826 MAD), where d is a gene's variance over its mean, and median and
    MAD are over the genes of similar mean: the first bin holds the lowest 10 % of the means, each other one 5 %.
    ``"cv"`` ranks standard deviation over mean.

    Parameters
    ----------
    adata
        Normalised values, cells × genes.
    n_top_genes
        How many genes to keep; all of them if there are fewer, or for ``"all"`` and None.
    flavor
        What to rank by.
    reference
        Reproduce the published R code: its score is absolute, so under-dispersed genes are chosen as well; a MAD of 0
        gives Inf (ranked first) or NaN (last); columns come in rank order, ties in input order. By default the
        score is signed, equal bins are merged, the mean absolute deviation stands in for a MAD of 0, bins without any
        spread score 0, and columns stay in input order.
    layer
        Where the normalised values are; ``X`` by default. All layers are subset.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.uns["autoimpute_recipe"]``
        ``flavor``, ``n_top_genes``, ``reference`` and ``n_genes_selected``.

    Raises
    ------
    ValueError
        If `n_top_genes` or `flavor` is not allowed, there are fewer than 2 cells, or `reference` meets equal bins.
    """
    _refuse_in_place(adata, copy=copy)
    x = checked_counts(adata, layer).astype(np.float64)
    chosen = top_genes(x, n_top_genes=n_top_genes, flavor=flavor, reference=reference)
    result = _subset(adata, chosen, copy=copy)
    _record(result, **selection_choices(n_top_genes, flavor, reference), n_genes_selected=int(chosen.size))
    return result if copy else None


def log2p1(adata: "AnnData", *, layer: str | None = None, copy: bool = False) -> "AnnData | None":
    """Take log2(x + 1) of every value.

    Parameters
    ----------
    adata
        Normalised values, cells × genes.
    layer
        The matrix to change; ``X`` by default.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.X`` or ``adata.layers[layer]``
        log2(x + 1); float64 stays float64, everything else becomes float32.
    ``adata.uns["autoimpute_recipe"]``
        ``scale="log2"``.

    Raises
    ------
    ValueError
        If all entries are zero, or some are NaN, infinite or negative.
    """
    _refuse_in_place(adata, copy=copy)
    x = checked_counts(adata, layer)
    result = _subset(adata, None, copy=copy)
    _store(result, log2_plus_one(x.astype(np.float64)), layer, double=x.dtype == np.float64)
    _record(result, scale="log2")
    return result if copy else None


def recipe_autoimpute(
    adata: "AnnData",
    *,
    n_top_genes: TopGenes = 1000,
    flavor: Flavor = "dispersion",
    reference: bool = False,
    layer: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Turn counts into the matrix that AutoImpute learns from.

    `filter_genes`, `normalize_median`, `select_genes` and `log2p1` in one go, in float64 up to the end. The object
    keeps the selected genes only; use `processed_matrix` to leave it whole.

    Parameters
    ----------
    adata
        Counts, cells × genes; values proportional to counts (RPM, FPKM) are accepted.
    n_top_genes, flavor
        How many genes to keep, and by what; see `select_genes`.
    reference
        Reproduce the published R code in every step; see each.
    layer
        Where the counts are; ``X`` by default.
    copy
        Return a changed copy instead; required for a backed object, whose selected genes are then read into memory.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.X``, or ``adata.layers[layer]``
        log2(normalised counts + 1); float32, or float64 with `reference`; dense or sparse as the counts were.
    ``adata.obs["size_factor"]``
        Total of the cell over the median total; 1 for an empty cell.
    ``adata.uns["autoimpute_recipe"]``
        Every choice made and count found.

    Raises
    ------
    ValueError
        If the matrix looks logged, is empty, or holds NaN, infinite or negative entries; or if no gene passes.

    Warns
    -----
    UserWarning
        If cells have no reads in the genes that pass the filter.

    Notes
    -----
    Time and memory grow with the number of non-zero entries. Source: Talwar, Mongia, Sengupta & Majumdar, Sci Rep
    8:16329 (2018), Methods, and the pre-processing code published with it.

    Examples
    --------
    >>> from scautoimpute.datasets import simulate
    >>> adata = simulate(n_cells=50, n_genes=200)
    >>> recipe_autoimpute(adata, n_top_genes=100)
    >>> adata.shape, adata.X.dtype.name, adata.uns["autoimpute_recipe"]["n_genes_in"]
    ((50, 100), 'float32', 200)
    """
    _refuse_in_place(adata, copy=copy)
    done = processed_matrix(adata, layer=layer, n_top_genes=n_top_genes, flavor=flavor, reference=reference)
    result = _subset(adata, done.genes, copy=copy)
    _store(result, done.log2, layer, double=reference)
    result.obs["size_factor"] = done.size_factor
    _record(result, **done.choices)
    return result if copy else None


def _refuse_in_place(adata: "AnnData", *, copy: bool) -> None:
    if adata.isbacked and not copy:
        msg = f"the object is backed by {adata.filename} and cannot be changed in place; pass copy=True"
        raise ValueError(msg)


def _subset(adata: "AnnData", genes: IntArray | None, *, copy: bool) -> "AnnData":
    """Return the object with only `genes` (all of them for None), in that order: itself, or a copy in memory."""
    if copy:
        return (adata if genes is None else adata[:, genes]).to_memory(copy=True)
    if genes is not None:
        adata._inplace_subset_var(genes)
    elif adata.is_view:
        adata._init_as_actual(adata.copy())
    return adata


def _store(adata: "AnnData", values: Any, layer: str | None, *, double: bool) -> None:
    matrix = in_container_of(counts_matrix(adata, layer), values.astype(np.float64 if double else np.float32))
    if layer is None:
        adata.X = matrix
    else:
        adata.layers[layer] = matrix


def _record(adata: "AnnData", **choices: Any) -> None:
    adata.uns[_RECORD] = {**adata.uns.get(_RECORD, {}), **choices}
