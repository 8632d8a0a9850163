"""Floors: what is known of an entry without any structure beyond gene and cell effects.

A method that does not beat them has found nothing in the data. Zeros are missing. Shape suffixes: B cells, G genes.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from ..metrics import recovery
from ._arrays import Base, FloatArray
from ._record import Method, Preparation

__all__ = ["GENE_CELL_BIAS", "GENE_MEAN", "NONE", "gene_cell_bias", "gene_mean"]


def gene_mean(x: sparse.csr_array) -> FloatArray:
    """Mean of each gene's non-zero values, in every cell; the overall mean for a gene that has none."""
    return np.tile(recovery.gene_mean(x), (x.shape[0], 1))


def gene_cell_bias(x: sparse.csr_array) -> FloatArray:
    """Gene effect + cell effect, shrunk as by one and by five more observations of no effect."""
    gene_G, cell_B = recovery.gene_cell_bias(x, gene_prior=1.0, cell_prior=5.0)
    bias_BG: FloatArray = cell_B[:, None] + gene_G[None, :]
    return bias_BG


def _observed(x: sparse.csr_array) -> FloatArray:
    return np.asarray(x.toarray(), dtype=np.float64)


def _drawing_nothing(estimate: Base) -> Callable[..., FloatArray]:
    def impute(x: sparse.csr_array, *, rng: np.random.Generator) -> FloatArray:
        del rng  # nothing is random
        return estimate(x)

    return impute


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """The result, and of every observed entry its row."""
    return 22.0 * n_cells * n_genes


def _peak_bytes_of_effects(n_cells: int, n_genes: int) -> float:
    """Of every observed entry (all of them, in dense data) its row, and what is left of it after each effect."""
    return 37.5 * n_cells * n_genes


def _floor(name: str, title: str, estimate: Base, limits: str, reference: str) -> Method:
    return Method(
        name=name,
        title=title,
        impute=_drawing_nothing(estimate),
        takes=Preparation("median", "log2p1"),
        keeps_observed=True,
        estimates_observed=estimate is not _observed,
        reference=reference,
        limits=limits,
        peak_bytes=_peak_bytes_of_effects if estimate is gene_cell_bias else _peak_bytes,
        min_cells=1,
    )


NONE = _floor("none", "No imputation", _observed, "Fills nothing: what every other method is compared with.", "None.")
GENE_MEAN = _floor(
    "gene_mean",
    "Gene mean",
    gene_mean,
    "Gives every cell the same value of a gene: a floor to beat, not a method to use.",
    "The mean of each gene's non-zero log2 values.",
)
GENE_CELL_BIAS = _floor(
    "gene_cell_bias",
    "Gene + cell bias",
    gene_cell_bias,
    "Knows no cell types: a floor to beat, not a method to use.",
    "Two-way additive model by alternating shrunken means (as the baseline of Koren, Bell & Volinsky, Computer 42:30, "
    "2009).",
)
