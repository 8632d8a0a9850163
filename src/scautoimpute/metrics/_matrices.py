"""Blocks of rows of counts and of estimates, for scores that never hold more than a block of dense cells × genes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..io.matrix import block_csr, row_blocks, rows_per_block

Floats = NDArray[np.float64]


def csr_blocks(matrix: Any) -> Iterator[Any]:
    """Yield canonical ``csr_array`` blocks of rows of a dense, sparse or on-disk matrix."""
    rows_at_once = matrix.tocsr() if sparse.issparse(matrix) else matrix
    for rows in row_blocks(rows_at_once, rows_per_block(matrix.shape[1])):
        block = block_csr(rows_at_once[rows]).copy()
        block.sum_duplicates()
        block.eliminate_zeros()
        yield block


def dense_blocks(*matrices: Any, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[Floats, ...]]:
    """Yield the same rows (all of them by default) of several matrices of one shape, dense, a block at a time."""
    by_row = [matrix.tocsr() if sparse.issparse(matrix) else matrix for matrix in matrices]
    chosen = np.arange(matrices[0].shape[0]) if rows is None else rows
    for block in row_blocks(chosen, rows_per_block(matrices[0].shape[1])):
        yield tuple(dense(matrix[chosen[block]]) for matrix in by_row)


def dense(matrix: Any) -> Floats:
    """Return a matrix as a dense float64 array, which may be the same one."""
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=np.float64)


def check_shapes(**matrices: Any) -> None:
    """Refuse matrices that differ in shape or hold nothing."""
    shapes = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
    if len(set(shapes.values())) > 1 or min(next(iter(shapes.values()))) == 0:
        found = ", ".join(f"{name} {shape[0]} × {shape[1]}" for name, shape in shapes.items())
        msg = f"found {found}; all have to be one size, cells × genes, and not empty: give the same cells and genes"
        raise ValueError(msg)


def check_counts(block: Any) -> None:
    """Refuse a block with values that are no counts of molecules."""
    values = block.data
    n_bad = values.size - int(np.count_nonzero(np.isfinite(values) & (values >= 0) & (values == np.floor(values))))
    if n_bad:
        msg = (
            f"{n_bad} values are negative, fractional or not finite; molecules are counted in whole numbers: give the "
            "raw counts"
        )
        raise ValueError(msg)


def check_rates(values: Floats) -> None:
    """Refuse estimates that are no rates."""
    n_bad = values.size - int(np.count_nonzero(np.isfinite(values) & (values >= 0)))
    if n_bad:
        msg = f"{n_bad} expected values are negative or not finite; rates are at least zero: set those to zero"
        raise ValueError(msg)
