"""Counts that are a dask array, as `anndata.experimental.read_lazy` gives them: rows are computed when asked for."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._staging import Staging
from ._stored_counts import StoredCounts
from .io.matrix import block_csr, counts_matrix, is_lazy

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["LazyRows", "counts_by_rows", "lazy_counts", "staging_of"]


class LazyRows:
    """Rows of a dask array, of which one chunk is held at a time.

    Parameters
    ----------
    matrix
        Cells × genes.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix.rechunk({1: -1})
        self.shape = tuple(map(int, matrix.shape))
        self._starts = np.concatenate([[0], np.cumsum(self._matrix.chunks[0])])
        self._kept: tuple[int, Any] | None = None
        if hasattr(matrix._meta, "format"):
            self.format = "csr"

    def __getitem__(self, rows: slice) -> Any:
        """Return rows as a canonical ``csr_array`` without zeros."""
        from scipy import sparse

        first, last = np.searchsorted(self._starts, [rows.start, rows.stop - 1], side="right") - 1
        parts = []
        for number in range(first, last + 1):
            start = int(self._starts[number])
            parts.append(self._chunk(number)[max(rows.start - start, 0) : rows.stop - start])
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    def block(self, layer: str | None, rows: slice) -> Any:  # noqa: ARG002 (as of `StoredCells`, of its one matrix)
        """Return rows, as `StoredCells` does."""
        return self[rows]

    def by_rows(self, layer: str | None) -> Any:  # noqa: ARG002
        """Return what rows are taken of, as `StoredCells` does."""
        return self

    def stays_on_disk(self, layer: str | None) -> bool:  # noqa: ARG002
        """Whether another process could open it, as `StoredCells` does: dask itself knows where to compute it."""
        return False

    def _chunk(self, number: int) -> Any:
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # before the next is there
            chunk = block_csr(self._matrix.blocks[number])
            chunk.sum_duplicates()
            chunk.eliminate_zeros()
            self._kept = number, chunk
        return self._kept[1]


def counts_by_rows(adata: "AnnData", layer: str | None) -> Any:
    """Return the counts of an object as they are, or as `LazyRows`: as what rows are taken of.

    Parameters
    ----------
    adata, layer
        Where they are.
    """
    matrix = counts_matrix(adata, layer)
    return LazyRows(matrix) if is_lazy(matrix) else matrix


def lazy_counts(adata: "AnnData", layer: str | None) -> StoredCounts | None:
    """Return the counts of an object if they are a dask array, of which blocks are read, else None.

    Parameters
    ----------
    adata, layer
        Where they are.
    """
    rows = counts_by_rows(adata, layer)
    return StoredCounts(rows, layer) if isinstance(rows, LazyRows) else None  # type: ignore[arg-type]


def staging_of(adata: "AnnData", layer: str | None) -> Staging | None:
    """Return where to keep what is trained on: of a dask array on disk if it is much, among the temporary files.

    Parameters
    ----------
    adata, layer
        Where the counts are.
    """
    return Staging(Path(tempfile.gettempdir()), may_refuse=False) if is_lazy(counts_matrix(adata, layer)) else None
