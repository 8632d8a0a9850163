"""Read an AnnData from an open h5ad, its large arrays piece by piece, and tell a progress bar how far it is."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import sparse

from .counted import counted_bytes

if TYPE_CHECKING:
    from anndata import AnnData

    from .counted import Bytes

__all__ = ["read_in_pieces"]

_PIECE = 128_000_000  # bytes
_SPARSE = {"csr_matrix": (sparse.csr_matrix, sparse.csr_array), "csc_matrix": (sparse.csc_matrix, sparse.csc_array)}


def read_in_pieces(group: Any) -> "AnnData":
    """Return the whole object that `group`, the root of a file of anndata 0.7 or later, holds."""
    from anndata import AnnData, settings
    from anndata.experimental import read_dispatched

    def callback(read: Any, name: str, item: Any, iospec: Any) -> Any:
        if iospec.encoding_type == "anndata" and name in {"", "/"}:
            return AnnData(**{key: read_dispatched(item[key], callback) for key in item})
        if iospec.encoding_type == "raw":
            return {key: read_dispatched(item[key], callback) for key in item}
        if iospec.encoding_type in _SPARSE:
            kind = _SPARSE[iospec.encoding_type][settings.use_sparse_array_on_read]
            return _sparse(item, kind, passed)
        return _array(item, passed) if iospec.encoding_type == "array" and _is_numbers(item) else read(item)

    with counted_bytes(_bytes_in(group), description="reading") as passed:
        return cast("AnnData", read_dispatched(group, callback))


def _sparse(group: Any, kind: Any, passed: "Bytes") -> Any:
    """Assemble a matrix as anndata does, from its parts as they are stored; scipy has no half precision."""
    values = _array(group["data"], passed)
    values = values.astype(np.float32) if values.dtype == np.float16 else values
    matrix = kind(tuple(int(size) for size in group.attrs["shape"]), dtype=values.dtype)
    matrix.data = values
    matrix.indices, matrix.indptr = _array(group["indices"], passed), _array(group["indptr"], passed)
    matrix.check_format(full_check=False)
    return matrix


def _is_numbers(item: Any) -> bool:
    return bool(item.shape) and item.dtype.kind in "biuf" and item.dtype.names is None


def _array(item: Any, passed: "Bytes") -> Any:
    values = np.empty(item.shape, item.dtype)
    along = item.chunks[0] if item.chunks else 1
    row_bytes = max(1, values.nbytes // max(1, len(values)))
    step = max(1, _PIECE // row_bytes // along) * along  # whole chunks, so that none is unpacked twice
    for start in range(0, len(values), step):
        piece = np.s_[start : start + step]
        item.read_direct(values, piece, piece)
        passed.add(min(step, len(values) - start) * row_bytes)
    return values


def _bytes_in(group: Any) -> int:
    """Return the bytes in memory of all arrays of numbers in the file."""
    total = 0
    for item in (group[key] for key in group):
        if hasattr(item, "shape"):
            total += int(np.prod(item.shape)) * item.dtype.itemsize if _is_numbers(item) else 0
        else:
            total += _bytes_in(item)
    return total
