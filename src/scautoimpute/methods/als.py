"""Low rank by alternating least squares: ridge matrix factorisation of what gene and cell effects leave unexplained.

Zeros are missing. Rank and ridge are validated on held-out observed entries; rank 0 is the base itself. Shape
suffixes: B cells, G genes, K rank.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import scipy.linalg
from scipy import sparse

from ._arrays import Base, FloatArray
from ._checks import numbers, whole_numbers
from ._completion import rows_of, split_base, validated
from ._record import Imputed, Method, Preparation
from .floors import gene_cell_bias

__all__ = ["METHOD", "als_factors", "complete", "impute", "leading_directions"]


RANKS = (0, 1, 2, 3, 5, 8, 12, 20, 30)
RIDGES = (0.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # in units of the residual variance


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    ranks: Sequence[int] = RANKS,
    ridges: Sequence[float] = RIDGES,
) -> Imputed:
    """Complete `x` on the gene and cell effects by ridge matrix factorisation.

    Parameters
    ----------
    x
        Log2 of normalised counts, cells × genes; entries that are not stored are missing.
    rng
        Chooses the entries that are held out.
    ranks
        To try; 0 is the gene and cell effects alone. Of the default those that `x` can have.
    ridges
        To try, in units of the residual variance.

    Returns
    -------
    An estimate of every entry, and the ``rank`` and ``ridge`` that predicted held-out entries best.

    Raises
    ------
    ValueError
        If a rank is not from 0 to the smaller number of cells and genes, a ridge is below 0, or there are fewer than
        20 entries.
    """
    return complete(x, rng=rng, base=gene_cell_bias, ranks=ranks, ridges=ridges)


def complete(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    base: Base = gene_cell_bias,
    ranks: Sequence[int] = RANKS,
    ridges: Sequence[float] = RIDGES,
) -> Imputed:
    """Factorise the residuals of `base` at the rank and ridge that predict held-out entries best, fitted to all."""
    ranks, ridges = _checked_ranks(ranks, min(x.shape)), numbers("ridges", ridges, low=0, hint=", e.g. (1.0, 8.0)")

    def fits(matrix: sparse.csr_array) -> Iterator[tuple[tuple[int, float], FloatArray]]:
        base_BG, residual = split_base(matrix, base)
        start_GK = leading_directions(residual, max(ranks))
        for rank, ridge in _rank_ridge_pairs(ranks, ridges):
            yield (rank, ridge), base_BG + _low_rank(residual, rank, ridge, start_GK)

    rank, ridge = validated(x, rng, fits)
    base_BG, residual = split_base(x, base)
    values = base_BG + _low_rank(residual, rank, ridge, leading_directions(residual, rank))
    return Imputed(values, {"rank": int(rank), "ridge": float(ridge)})


def als_factors(
    residual: sparse.csr_array, penalty: float, start_GK: FloatArray, *, n_sweeps: int = 15, tolerance: float = 1e-4
) -> tuple[FloatArray, FloatArray]:
    """Alternate the two ridge regressions until the fit moves by less than `tolerance` of it or of the target.

    Minimises Σ (residual − u·v)² + penalty (‖U‖² + ‖V‖²), the sum over the stored entries; in the type of `residual`.
    """
    # Dense, because these matrices are small and up to 90 % full: the products are several times faster.
    target, seen = residual.toarray(), np.zeros(residual.shape, residual.dtype)
    seen[rows_of(residual), residual.indices] = 1.0
    genes_GK, previous = start_GK.astype(residual.dtype), np.zeros_like(target)
    for _ in range(n_sweeps):
        cells_BK = _ridge_rows(target, seen, genes_GK, penalty)
        genes_GK = _ridge_rows(target.T, seen.T, cells_BK, penalty)
        fitted = cells_BK @ genes_GK.T
        if np.linalg.norm(fitted - previous) <= tolerance * max(np.linalg.norm(fitted), np.linalg.norm(target)):
            break
        previous = fitted
    return cells_BK, genes_GK


def leading_directions(residual: sparse.csr_array, rank: int) -> FloatArray:
    """Gene directions of the zero-filled residual, longest first: where the alternation starts (genes × rank)."""
    _, scale, right = scipy.linalg.svd(residual.toarray(), full_matrices=False)
    directions_GK: FloatArray = (right[:rank] * np.sqrt(scale[:rank, None])).T
    return directions_GK


def _low_rank(residual: sparse.csr_array, rank: int, ridge: float, start_GK: FloatArray) -> FloatArray:
    """U Vᵀ with the ridge in units of the residual variance.

    In single precision, two thirds of the time, the error at hidden entries is the same to six digits; where nothing
    keeps the normal equations from being singular, it would not be.
    """
    if rank == 0:
        return np.zeros(residual.shape)
    penalty = ridge * float(np.mean(residual.data**2))
    solvable = residual.astype(np.float32) if ridge > 0 else residual
    cells_BK, genes_GK = als_factors(solvable, penalty, start_GK[:, :rank])
    return cells_BK @ genes_GK.T


def _ridge_rows(target: FloatArray, seen: FloatArray, factors: FloatArray, penalty: float) -> FloatArray:
    """Regress every row of `target` (zero where not seen) on `factors`: all the normal equations in one batch."""
    rank = factors.shape[1]
    upper = np.triu_indices(rank)
    products = seen @ (factors[:, upper[0]] * factors[:, upper[1]])
    gram = np.empty((target.shape[0], rank, rank), target.dtype)
    gram[:, upper[0], upper[1]] = products
    gram[:, upper[1], upper[0]] = products
    # Of fewer stored entries than factors the Gram matrix is singular: the tiny jitter is for when there is no penalty
    diagonal = np.arange(rank)
    jitter = 1e-12 * (1 + gram[:, diagonal, diagonal].max(axis=1, keepdims=True))
    gram[:, diagonal, diagonal] += penalty + jitter
    return np.asarray(np.linalg.solve(gram, (target @ factors)[:, :, None])[:, :, 0])


def _rank_ridge_pairs(ranks: Iterable[int], ridges: Sequence[float]) -> Iterator[tuple[int, float]]:
    return ((rank, ridge) for rank, ridge in product(ranks, ridges) if rank > 0 or ridge == ridges[0])


def _checked_ranks(ranks: Sequence[int], largest: int) -> list[int]:
    """Ranks that a matrix can have: of the default those, and nothing else of one's own."""
    if ranks is RANKS:
        return [rank for rank in RANKS if rank <= largest]
    return whole_numbers("ranks", ranks, low=0, high=largest, hint=", the smaller number of cells and genes")


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """Eight dense matrices, and the normal equations of the largest rank for the longer side."""
    rank = max(RANKS)
    return 8.0 * (8 * n_cells * n_genes + 3 * max(n_cells, n_genes) * rank**2 + min(n_cells, n_genes) ** 2)


METHOD = Method(
    name="als",
    title="Alternating least squares",
    impute=impute,
    takes=Preparation("median", "log2p1"),
    keeps_observed=True,
    estimates_observed=True,
    reference="Hastie, Mazumder, Lee & Zadeh, Matrix completion and low-rank SVD via fast alternating least squares, "
    "J Mach Learn Res 16:3367 (2015); on gene + cell effects, rank and ridge validated.",
    limits="Takes every zero for missing, so it overestimates genes that are truly off; dense, and minutes beyond some "
    "thousand cells × a thousand genes.",
    peak_bytes=_peak_bytes,
    min_cells=3,
)
