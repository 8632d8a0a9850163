"""Cells that stay on disk: an h5ad or zarr file of which names are read, and matrices a block of rows at a time."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .matrix import block_csr, counts_matrix, row_blocks, rows_per_block
from .read import format_of, parsing
from .read_anndata import refuse_incomplete

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StoredCells", "names_at", "open_cells", "stored_cells"]

_NAMES_LOOKED_AT = 100_000
_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc"}


class StoredCells:
    """What `AnnData` tells of an object, of one that stays on disk.

    Attributes
    ----------
    path
        Where it is.
    root
        Its group, of h5py or zarr.
    layers
        Each layer as it is stored: a backed sparse matrix or an array, of which rows can be taken.
    """

    def __init__(self, path: Path, root: Any) -> None:
        from anndata.io import sparse_dataset

        def opened(item: Any) -> Any:
            return sparse_dataset(item) if item.attrs.get("encoding-type") in _SPARSE else item

        self.path, self.root = path, root
        self.X = opened(root["X"]) if "X" in root else None
        self.layers = {str(name): opened(item) for name, item in root["layers"].items()} if "layers" in root else {}
        self.uns = root["uns"] if "uns" in root else {}  # noqa: SIM401 (groups of zarr have no get with a default)
        self.n_obs, self.n_vars = (int(_index(root[frame]).shape[0]) for frame in ("obs", "var"))
        self.var_names, self.n_repeats = _unique(names_at(root["var"], slice(None)))

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.n_obs, self.n_vars

    @property
    def obs_names(self) -> "pd.Index[str]":
        """Names of cells, of evenly spaced ones if they are many."""
        return names_at(self.root["obs"], slice(None, None, -(-self.n_obs // _NAMES_LOOKED_AT) or 1))

    def rows(self, layer: str | None, size: int) -> Iterator[Any]:
        """Yield the counts as canonical ``csr_array``s of `size` cells, fewer in the last."""
        matrix = _row_wise(counts_matrix(self, layer), self.path)
        for rows in row_blocks(matrix, size):
            block = _block(matrix, rows, self.path)
            block.sum_duplicates()
            block.eliminate_zeros()
            yield block


@contextmanager
def open_cells(path: Path) -> Iterator[StoredCells]:
    """Open a file that `stored_cells` is true of; damage is told in one line."""
    with parsing(path):
        root: Any = _root(path)
    try:
        with parsing(path):
            if path.is_dir():
                refuse_incomplete(root)
            cells = StoredCells(path, root)
        if cells.n_repeats:
            msg = f"{cells.n_repeats} repeated gene names were made unique with -1, -2, ..."
            warnings.warn(msg, stacklevel=4)
        yield cells
    finally:
        if hasattr(root, "close"):
            root.close()


def stored_cells(path: Path) -> bool:
    """Return whether a file can be read a block of rows at a time: h5ad, or zarr in a folder, of anndata 0.8 or later.

    Everything else is read as a whole.
    """
    if format_of(path) not in {".h5ad", ".zarr"}:
        return False
    try:
        root = _root(path)
    except Exception:  # the reader of whole files says what is wrong
        return False
    try:
        frames = [root[name].attrs.get("encoding-version") == "0.2.0" for name in ("obs", "var")]
        return all(frames) and root.attrs.get("encoding-type") == "anndata" and _holds_rows(root)
    except Exception:
        return False
    finally:
        if hasattr(root, "close"):
            root.close()


def names_at(frame: Any, rows: slice) -> "pd.Index[str]":
    """Return names from the index of a stored data frame."""
    import pandas as pd

    index = _index(frame)
    values = (index.asstr() if hasattr(index, "asstr") and index.dtype.kind in "OS" else index)[rows]
    return pd.Index(np.asarray(values).astype(str).astype(object), dtype=object)


def _root(path: Path) -> Any:
    if path.is_dir():
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def _holds_rows(root: Any) -> bool:
    has_layers = "layers" in root and len(list(root["layers"])) > 0
    shape = [_index(root[frame]).shape for frame in ("obs", "var")]
    return ("X" in root or has_layers) and all(len(size) == 1 and size[0] > 0 for size in shape)


def _index(frame: Any) -> Any:
    return frame[frame.attrs["_index"]]


def _unique(names: "pd.Index[str]") -> tuple["pd.Index[str]", int]:
    from anndata.utils import make_index_unique

    n_repeats = int(names.duplicated().sum())
    if not n_repeats:
        return names, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make_index_unique(names), n_repeats


def _row_wise(matrix: Any, path: Path) -> Any:
    """Return a stored matrix that rows can be taken of; one stored by columns is read as a whole."""
    if getattr(matrix, "format", "csr") == "csr":
        return matrix
    warnings.warn(
        f"the counts in {path} are stored by genes (CSC), so their non-zeros are read into memory at once: "
        "store them by cells (CSR) to have them read a block at a time",
        stacklevel=6,
    )
    with parsing(path):
        return matrix.to_memory().tocsr()


def _block(matrix: Any, rows: slice, path: Path) -> Any:
    """Return rows as a ``csr_array``; of a dense matrix only a few at a time are held dense."""
    from scipy import sparse

    size = rows.stop - rows.start if hasattr(matrix, "format") else rows_per_block(matrix.shape[1])
    pieces = []
    for start in range(rows.start, rows.stop, size):
        with parsing(path):
            piece = matrix[start : min(start + size, rows.stop)]
        pieces.append(block_csr(piece))
    return pieces[0] if len(pieces) == 1 else sparse.vstack(pieces, format="csr")
