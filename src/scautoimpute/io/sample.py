"""How much a matrix holds, and a sample of its rows, wherever it is: in memory, or in an h5ad or zarr file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .matrix import block_csr, rows_per_block

__all__ = ["Sample", "n_stored", "sample_rows", "stored_bytes"]

_BLOCKS = 16  # consecutive rows are read together; so many places are looked at
_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a matrix.

    Attributes
    ----------
    values
        ``csr_array`` of the rows that were read.
    rows
        Their positions in the matrix.
    is_whole
        Whether these are all rows.
    """

    values: Any
    rows: NDArray[np.int64]
    is_whole: bool


def n_stored(matrix: Any) -> int:
    """Return how many values a matrix holds: the stored ones of a sparse matrix, all of a dense one."""
    if sparse.issparse(matrix):
        return int(matrix.nnz)
    if (group := _group_of(matrix)) is not None:
        return int(group["data"].shape[0])
    return int(np.prod(matrix.shape))


def _group_of(matrix: Any) -> Any:
    """Where a sparse matrix of anndata's is on disk; None for others, of which a table may have such a column."""
    return None if _is_table(matrix) else getattr(matrix, "group", None)


def _is_table(matrix: Any) -> bool:
    from pandas import DataFrame

    return isinstance(matrix, DataFrame)


def stored_bytes(matrix: Any) -> int:
    """Return the bytes that a matrix takes in memory, or would."""
    if sparse.issparse(matrix):
        arrays = (getattr(matrix, name, None) for name in ("data", "indices", "indptr", "row", "col"))
        return sum(int(array.nbytes) for array in arrays if isinstance(array, np.ndarray))
    if _is_table(matrix):
        return int(matrix.memory_usage().sum())
    if (group := _group_of(matrix)) is not None:
        parts = [group[name] for name in ("data", "indices", "indptr")]
        return sum(int(np.prod(part.shape)) * part.dtype.itemsize for part in parts)
    return int(getattr(matrix, "nbytes", 0))


def sample_rows(matrix: Any, *, n_values: int) -> Sample:
    """Return all rows, or, of a matrix that holds more than `n_values` values, blocks of rows evenly spread over it."""
    n_rows = matrix.shape[0]
    share = n_values / max(1, n_stored(matrix))
    if share >= 1:
        rows = np.arange(n_rows)
    else:
        length = max(1, int(n_rows * share / _BLOCKS))
        starts = np.linspace(0, n_rows - length, _BLOCKS).astype(np.int64)
        rows = np.unique(starts[:, None] + np.arange(length))
    return Sample(_rows_of(matrix, rows), rows, rows.size == n_rows)


def _rows_of(matrix: Any, rows: NDArray[np.int64]) -> Any:
    """Return rows, read in pieces that lie together on disk."""
    if sparse.issparse(matrix):
        return block_csr(matrix if rows.size == matrix.shape[0] else matrix.tocsr()[rows])
    if getattr(matrix, "format", "") == "csc":
        parts = (matrix[:, start : start + _COLUMNS] for start in range(0, matrix.shape[1], _COLUMNS))
        return sparse.csr_array(sparse.hstack([sparse.csc_array(part)[rows] for part in parts], format="csr"))
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    longest = rows_per_block(matrix.shape[1])
    pieces = [piece[i : i + longest] for piece in np.split(rows, breaks) for i in range(0, piece.size, longest)]
    return sparse.vstack([block_csr(matrix[piece[0] : piece[-1] + 1]) for piece in pieces], format="csr")
