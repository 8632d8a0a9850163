"""What the measures of harm share: splitting molecules, the scale that they compare on, correlations by row blocks.

Shape suffixes: N cells, G genes, S sampled genes. "Logs" are ln(1 + counts per 10,000).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..io.matrix import row_sums
from ..scales import PER_CELL

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
# Imputes counts (csr_array, cells × genes) to dense logs of the same shape.
Impute = Callable[[Any, np.random.Generator], FloatArray]

_ENTRIES_PER_BLOCK = 2_000_000


def checked_molecules(counts: Any) -> Any:
    """Return whole non-negative counts as a canonical float64 ``csr_array``, or refuse them."""
    x = sparse.csr_array(counts, dtype=np.float64, copy=True)
    x.sum_duplicates()
    x.eliminate_zeros()
    if x.nnz == 0 or not np.isfinite(x.data).all() or x.data.min() < 0 or (x.data != np.rint(x.data)).any():
        msg = (
            f"the {x.shape[0]} × {x.shape[1]} values are no counts (whole, not negative, not all zero): give raw counts"
        )
        raise ValueError(msg)
    return x


def thinned(counts: Any, share: float | FloatArray, rng: np.random.Generator) -> tuple[Any, Any]:
    """Split the molecules in two at random: those kept, and `share` of them (one, or one per entry) held out.

    Given the rates, Poisson counts split this way are independent (Neufeld et al., Biostatistics 25:270, 2024).
    """
    held_out, kept = counts.copy(), counts.copy()
    held_out.data = rng.binomial(counts.data.astype(np.int64), share).astype(counts.dtype)
    kept.data = counts.data - held_out.data
    held_out.eliminate_zeros()
    kept.eliminate_zeros()
    return kept, held_out


def totals(counts: Any) -> FloatArray:
    """Molecules of each cell; 1 for an empty one, which can then be divided by."""
    total_N = row_sums(counts)
    return np.where(total_N > 0, total_N, 1.0)


def logs_of(counts: Any) -> Any:
    """Ln(1 + counts per 10,000), sparse."""
    logs = rates_of(counts)
    logs.data = np.log1p(logs.data)
    return logs


def rates_of(counts: Any) -> Any:
    """Counts per 10,000, sparse."""
    rates = sparse.csr_array(counts, dtype=np.float64, copy=True)
    rates.data *= np.repeat(PER_CELL / totals(counts), np.diff(rates.indptr))
    return rates


def columns_of(x: Any, genes: NDArray[np.int64]) -> FloatArray:
    """Dense copy of a few columns of a dense or sparse matrix."""
    chosen = x[:, genes]
    return np.asarray(chosen.toarray() if sparse.issparse(chosen) else chosen, dtype=np.float64)


def sampled_genes(
    counts: Any, n_genes: int, rng: np.random.Generator, *, min_cells: int = 10, among: BoolArray | None = None
) -> NDArray[np.int64]:
    """Draw genes seen in at least `min_cells` cells and not in all with one value; sorted."""
    n_cells_G = np.bincount(counts.indices, minlength=counts.shape[1])
    found = np.flatnonzero((n_cells_G >= min_cells) & (True if among is None else among))
    if found.size < 2:
        msg = (
            f"{found.size} of {counts.shape[1]} genes are seen in {min_cells} or more of {counts.shape[0]} cells, "
            "and 2 are needed: give more cells or genes"
        )
        raise ValueError(msg)
    return np.sort(rng.choice(found, size=min(n_genes, found.size), replace=False))


def blocks(n_cells: int, n_genes: int) -> Iterator[slice]:
    """Rows in blocks of some millions of entries."""
    step = max(1, _ENTRIES_PER_BLOCK // max(1, n_genes))
    for start in range(0, n_cells, step):
        yield slice(start, start + step)


def pair_correlations(x_NS: FloatArray) -> FloatArray:
    """Pearson's r of every pair of columns, as a vector; 0 where a column does not vary beyond rounding."""
    centred = x_NS - x_NS.mean(axis=0)
    norm_S = np.sqrt((centred**2).sum(axis=0))
    varies = norm_S > 1e-9 * np.maximum(1.0, np.abs(x_NS).max(axis=0)) * np.sqrt(len(x_NS))
    unit = np.divide(centred, norm_S, out=np.zeros_like(centred), where=varies)
    r_SS = unit.T @ unit
    r_pairs: FloatArray = np.clip(r_SS[np.triu_indices(len(r_SS), 1)], -1, 1)
    return r_pairs
