"""Matrices that grow in an h5ad or zarr file a block of rows at a time, as anndata describes them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ._copying import new_array

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["CsrOnDisk", "mark", "new_dense"]

_ENTRIES_PER_CHUNK = 2**17  # 0.5 MB of float32
_VALUES_PER_CHUNK = 2**20  # 4 MB


def mark(item: Any, kind: str, version: str) -> None:
    """Say what an element is, for anndata to read it."""
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version


def new_dense(group: Any, name: str, *, shape: tuple[int, int], dtype: Any, compression: str | None = None) -> Any:
    """Make a dense matrix, to be filled by rows."""
    rows = 2 ** int(np.log2(max(1, _VALUES_PER_CHUNK // max(1, shape[1]))))
    rows = max(1, min(rows, 2048, shape[0]))
    array = new_array(group, name, shape=shape, dtype=dtype, rows=rows, compression=compression)
    mark(array, "array", "0.2.0")
    return array


class CsrOnDisk:
    """A sparse matrix of known shape, whose rows are appended in their order.

    Parameters
    ----------
    group, name
        Where to make it.
    shape
        Of the whole.
    dtype
        Of its values.
    compression
        `"gzip"`, `"none"`, or None for what the format does by default.
    """

    def __init__(
        self, group: Any, name: str, *, shape: tuple[int, int], dtype: Any, compression: str | None = None
    ) -> None:
        self._group = group.create_group(name)
        mark(self._group, "csr_matrix", "0.1.0")
        self._group.attrs["shape"] = list(shape)
        indices = np.int32 if shape[1] < 2**31 else np.int64
        for part, kind in (("data", dtype), ("indices", indices)):
            array = new_array(
                self._group, part, shape=(0,), dtype=kind, rows=_ENTRIES_PER_CHUNK, compression=compression
            )
            mark(array, "array", "0.2.0")
        plain = None if compression == "gzip" else compression  # or each block would have its one chunk packed anew
        starts = new_array(self._group, "indptr", shape=(shape[0] + 1,), dtype=np.int64, compression=plain)
        mark(starts, "array", "0.2.0")
        starts[0:1] = np.zeros(1, dtype=np.int64)
        self._n_rows = self._n_entries = 0

    def append(self, rows: "sparse.csr_matrix | sparse.csr_array") -> None:
        """Add some more rows."""
        first, before = self._n_rows, self._n_entries
        self._n_rows, self._n_entries = first + rows.shape[0], before + rows.nnz
        for name in ("data", "indices"):
            array = self._group[name]
            array.resize((self._n_entries,))
            if rows.nnz:
                array[before : self._n_entries] = getattr(rows, name).astype(array.dtype, copy=False)
        self._group["indptr"][first + 1 : self._n_rows + 1] = rows.indptr[1:].astype(np.int64) + before
