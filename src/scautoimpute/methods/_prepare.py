"""From an AnnData to what a method works on, and what it takes to come back.

Shape suffixes: N cells of the object, M those of them with entries, G modelled genes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._counts import checked_counts, refuse_logs
from .._recipe import processed_matrix
from ..io.checks import refuse_transposed
from ..io.matrix import as_observed
from ._arrays import FloatArray
from ._record import COUNTS, Preparation

if TYPE_CHECKING:
    from anndata import AnnData

    from .._genes import Flavor, TopGenes


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare_counts` and `prepare_logs` return.

    Attributes
    ----------
    x_MG
        Canonical float64 ``csr_array`` on the scale that the method takes.
    cells_M, genes_G
        Positions of its rows and columns in the object. Cells without an entry in the modelled genes are left out.
    size_factor_N, median_total
        As `scautoimpute.scales.from_normalised` takes them; 1 for logs, which stay on their scale.
    curve
        What `x_MG` went through last.
    back_N
        What values off the curve are multiplied with to become normalised counts.
    choices
        Every choice made and count found, in plain types.
    """

    x_MG: Any
    cells_M: NDArray[np.int64]
    genes_G: NDArray[np.int64]
    size_factor_N: FloatArray
    median_total: float
    curve: Preparation
    back_N: FloatArray
    choices: dict[str, Any]


def prepare_counts(
    adata: "AnnData", takes: Preparation, *, layer: str | None, n_top_genes: "TopGenes", flavor: "Flavor"
) -> Prepared:
    """Filter and choose genes as `recipe_autoimpute` does, then bring the counts of those to the scale asked for."""
    processed = processed_matrix(adata, layer=layer, n_top_genes=n_top_genes, flavor=flavor)
    counts = checked_counts(adata, layer)[:, processed.genes].astype(np.float64)
    counts.sort_indices()
    unit_N = _units(takes, processed.size_factor, processed.median_total, processed.kept.size)
    x, cells_M = _without_empty(scale_cells(counts, unit_N, takes))
    return Prepared(
        x_MG=x,
        cells_M=cells_M,
        genes_G=processed.genes,
        size_factor_N=processed.size_factor,
        median_total=processed.median_total,
        curve=takes,
        back_N=unit_N / processed.size_factor,
        choices=processed.choices,
    )


def prepare_logs(adata: "AnnData", *, layer: str | None) -> Prepared:
    """Take processed logs as they are; genes that no cell shows are left out."""
    refuse_transposed(adata)
    x, _, _ = as_observed(adata, layer=layer, dtype=np.float64)
    _refuse_no_logs(x)
    genes_G = np.flatnonzero(np.bincount(x.indices, minlength=x.shape[1])).astype(np.int64)
    seen, cells_M = _without_empty(x[:, genes_G])
    choices = {"layer": layer or "X", "n_genes_in": x.shape[1], "n_genes_selected": int(genes_G.size)}
    one_N = np.ones(x.shape[0])
    return Prepared(seen, cells_M, genes_G, one_N, 1.0, COUNTS, one_N, choices)


def scaled_alone(counts: Any, takes: Preparation) -> tuple[Any, FloatArray]:
    """Bring a matrix of counts, whose totals are over its own columns, to `takes`; and return the unit of each cell."""
    total_N = np.asarray(counts.sum(axis=1))
    median = float(np.median(total_N[total_N > 0]))
    unit_N = _units(takes, np.where(total_N > 0, total_N / median, 1.0), median, counts.shape[1])
    return scale_cells(counts, unit_N, takes), unit_N


def scale_cells(counts: Any, unit_N: FloatArray, takes: Preparation) -> Any:
    """Return the counts of each cell over its unit, along the curve of `takes`."""
    scaled = counts.copy()
    scaled.data = np.asarray(takes.apply(scaled.data / np.repeat(unit_N, np.diff(scaled.indptr))), dtype=np.float64)
    return scaled


def _units(takes: Preparation, size_factor_N: FloatArray, median_total: float, n_genes: int) -> FloatArray:
    """How many counts of each cell are one on the scale of `takes`, before its curve."""
    if takes.total is None:
        return np.ones_like(size_factor_N)
    if takes.total == "median":
        return size_factor_N
    return size_factor_N * (median_total / (n_genes if takes.total == "genes" else takes.total))


def _without_empty(x: Any) -> tuple[Any, NDArray[np.int64]]:
    cells = np.flatnonzero(np.diff(x.indptr)).astype(np.int64)
    return (x if cells.size == x.shape[0] else x[cells]), cells


def _refuse_no_logs(x: Any) -> None:
    """Refuse what `refuse_logs` would take for counts: whole numbers, and values that no logarithm reaches."""
    if x.nnz == 0:
        msg = f"all of {x.shape[0]} × {x.shape[1]} values are zero or NaN: check the input, or layer="
        raise ValueError(msg)
    try:
        refuse_logs(x, flagged=False)
    except ValueError:
        return
    msg = (
        f"values='logs' was given, and the values are whole numbers or too large for logs (the largest is "
        f"{x.data.max():.4g}): pass values='counts', or layer= with the logs"
    )
    raise ValueError(msg)
