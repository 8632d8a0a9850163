"""From what a method returned to a layer of every gene, a block of rows at a time.

Shape suffixes as in `_prepare`; B rows of a block.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..io.matrix import row_blocks, rows_per_block
from ..scales import from_normalised
from ._prepare import Prepared


def imputed_layer(
    counts: Any, prepared: Prepared, values_MG: NDArray[np.float64], *, scale: str, keep_observed: bool
) -> tuple[Any, int]:
    """Return the layer, sparse if `counts` are, and how many zeros of the modelled genes it fills.

    Genes that were not modelled and cells without an entry keep their observed values. Values below zero become zero.
    """
    blocks: list[Any] = []
    n_filled = 0
    for rows in row_blocks(counts, rows_per_block(counts.shape[1])):
        block = counts[rows]
        is_sparse = sparse.issparse(block)
        observed = np.nan_to_num(np.asarray(block.toarray() if is_sparse else block, dtype=np.float64), nan=0.0)
        factor = prepared.size_factor_N[rows, None]
        normalised = observed / factor
        n_filled += _fill(normalised, rows, prepared, values_MG, keep_observed=keep_observed)
        scaled = from_normalised(normalised, scale, size_factor=factor, median_total=prepared.median_total)
        blocks.append(sparse.csr_matrix(scaled) if is_sparse else scaled)
    layer = sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.concatenate(blocks)
    return layer, n_filled


def layer_bytes(n_cells: int, *, n_genes: int, n_modelled: int, is_sparse: bool) -> float:
    """Peak of making the layer, whose blocks are there twice when they are joined: float32, with int32 indices."""
    return 2.0 * n_cells * (8 * n_modelled if is_sparse else 4 * n_genes)


def _fill(
    normalised: NDArray[np.float64],
    rows: slice,
    prepared: Prepared,
    values_MG: NDArray[np.float64],
    *,
    keep_observed: bool,
) -> int:
    """Write the estimates of these rows into `normalised`; return how many of its zeros are filled."""
    first, last = np.searchsorted(prepared.cells_M, [rows.start, rows.stop])
    cells = prepared.cells_M[first:last]
    place = np.ix_(cells - rows.start, prepared.genes_G)
    # Clipped on the method's own scale: a square would make a negative positive.
    estimate = prepared.curve.undo(np.maximum(values_MG[first:last], 0)) * prepared.back_N[cells, None]
    seen = normalised[place]
    was_zero = seen == 0
    # The exact counts, rather than what is left of them after a curve and back.
    normalised[place] = np.where(was_zero, estimate, seen) if keep_observed else estimate
    return int(np.count_nonzero(estimate[was_zero]))


def zeros_filled(n_cells: int, prepared: Prepared, n_filled: int) -> dict[str, int]:
    """How many entries of the modelled genes were zero, and how many of those no longer are."""
    return {"n_zeros": n_cells * int(prepared.genes_G.size) - int(prepared.x_MG.nnz), "n_zeros_filled": n_filled}
