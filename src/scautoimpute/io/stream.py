"""Cells that stay on disk: an h5ad or zarr file of which names are read, and matrices a block of rows at a time."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import NAMES_LOOKED_AT, UnreadableFileError
from .hdf5 import open_hdf5, state_of
from .lazy import holds_raw, stored_matrix
from .matrix import RAW, block_csr, counts_matrix, raw_positions, row_blocks, rows_per_block
from .read import format_of, parsing, refuse_wild_indices, streaming, unique_names
from .read_anndata import is_described
from .store import open_zarr

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StoredCells", "StoredMatrix", "is_stored_by_rows", "names_at", "open_cells", "reopened"]


class StoredCells:
    """What `AnnData` tells of an object, of one that stays on disk.

    Attributes
    ----------
    path
        Where it is.
    root
        Its group, of h5py or zarr.
    layers
        Each layer as a `StoredMatrix`.
    X
        The same; in some formats it is not where anndata has it, under the root.
    """

    def __init__(self, path: Path, root: Any, *, X: "StoredMatrix | None" = None) -> None:
        self.path, self.root, self._state = path, root, state_of(path)
        layers = root["layers"] if "layers" in root else {}  # noqa: SIM401 (groups of zarr have no get with a default)
        self.X = StoredMatrix(root["X"], path) if "X" in root else X
        self.layers = {name: StoredMatrix(layers[name], path) for name in layers}
        self.raw = _StoredRaw(root["raw"], path) if holds_raw(root) else None
        self.uns = root["uns"] if "uns" in root else {}  # noqa: SIM401
        self.n_obs, self.n_vars = (int(_index(root[frame]).shape[0]) for frame in ("obs", "var"))
        self.var_names = names_at(root["var"], slice(None))
        self._cell_names: pd.Index[str] | None = None
        self.renamed: set[str] = set()
        self._by_rows: dict[str | None, Any] = {}

    def refuse_changed(self) -> None:
        """Raise if the file was written to since it was opened: what was cut off reads as zeros, what is new as counts.

        One that was removed or replaced is read to its end all the same, as it was. Of a folder of zarr, chunks that
        are gone are refused when they are read.
        """
        try:
            now = state_of(self.path)
        except OSError:
            return
        if self.path.is_file() and now[:2] == self._state[:2] and now != self._state:
            msg = f"{self.path} was changed while it was read: put back what it was"
            raise UnreadableFileError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.n_obs, self.n_vars

    @property
    def obs_names(self) -> "pd.Index[str]":
        """Names of cells, of evenly spaced ones if they are many."""
        return self.cell_names(slice(None, None, -(-self.n_obs // NAMES_LOOKED_AT) or 1))

    def cell_names(self, rows: slice) -> "pd.Index[str]":
        """Return the names of some cells."""
        return names_at(self.root["obs"], rows) if self._cell_names is None else self._cell_names[rows]

    def make_names_unique(self, *, stacklevel: int) -> None:
        """Make repeated names unique, as `read` does; those of cells are held only if some repeat."""
        unique = unique_names(self.var_names, kind="gene", stacklevel=stacklevel + 1)
        if unique is not self.var_names:
            self.var_names = unique
            self.renamed.add("var")
        if self._has_equal_cell_names():
            names = names_at(self.root["obs"], slice(None))
            self._cell_names = unique_names(names, kind="cell", stacklevel=stacklevel + 1)
            self.renamed.add("obs")

    def _has_equal_cell_names(self) -> bool:
        """Tell by 8 bytes of each name; that two others share them is all but impossible, and harmless."""
        from pandas.util import hash_array

        blocks = row_blocks(_index(self.root["obs"]), NAMES_LOOKED_AT)
        hashes = [hash_array(names_at(self.root["obs"], rows).to_numpy(), categorize=False) for rows in blocks]
        return bool(np.unique(np.concatenate(hashes)).size < self.n_obs)

    def by_rows(self, layer: str | None) -> Any:
        """Return the counts as a matrix that rows can be taken of; one stored by columns is read, once, as a whole."""
        if layer not in self._by_rows:
            matrix, columns = self._counts(layer)
            matrix = _row_wise(matrix, self.path)
            self._by_rows[layer] = matrix if columns is None else _SomeGenes(matrix, columns)
        return self._by_rows[layer]

    def stays_on_disk(self, layer: str | None) -> bool:
        """Whether rows of the counts are read when they are asked for, rather than the whole before."""
        return _is_by_rows(self._counts(layer)[0])

    def rows(self, layer: str | None, size: int) -> Iterator[Any]:
        """Yield the counts as canonical ``csr_array``s of `size` cells, fewer in the last."""
        return (self.block(layer, rows) for rows in row_blocks(self.by_rows(layer), size))

    def block(self, layer: str | None, rows: slice) -> Any:
        """Return the counts of some cells as a canonical ``csr_array``; refuse those of a file that was written to."""
        block = _block(self.by_rows(layer), rows)
        self.refuse_changed()  # or training would go on from what was cut off, and be kept to go on with
        block.sum_duplicates()
        block.eliminate_zeros()
        return block

    def _counts(self, layer: str | None) -> tuple[Any, Any]:
        """Return the matrix that holds them, and which of its columns are the genes, None for all."""
        if layer == RAW and layer not in self.layers and self.raw is not None:
            return self.raw.X, raw_positions(self)
        return counts_matrix(self, layer), None


class StoredMatrix:
    """A matrix on disk, of which rows are read: it has a `format` if it is sparse. Damage is told in one line.

    Sparse matrices in half precision, which scipy does not have, are widened.
    """

    def __init__(self, item: Any, path: Path) -> None:
        self._matrix, self._path = stored_matrix(item), path
        self.shape, self.dtype = tuple(map(int, self._matrix.shape)), self._matrix.dtype
        self._stored_shape = self.shape
        if self._matrix is not item:
            self.format, self.group = self._matrix.format, item

    def __getitem__(self, rows: Any) -> Any:
        with streaming(self._path):
            if not hasattr(self, "format"):
                return self._matrix[rows]
            return self._read(rows)

    def by_rows(self) -> Any:
        """Return the whole matrix, in memory and by rows."""
        with streaming(self._path):
            return self._read(slice(None) if self.format == "csr" else np.s_[:, :]).tocsr()

    @cached_property
    def _arrays(self) -> tuple[Any, Any, Any]:
        """Values, their columns (or rows), and where rows (or columns) begin, which is read: 8 bytes of a cell."""
        return self.group["data"], self.group["indices"], self.group["indptr"][:]

    def _read(self, key: Any) -> Any:
        """Return rows of a CSR matrix, or ``[:, columns]`` of a CSC."""
        from scipy import sparse

        first, last, _ = (key[1] if isinstance(key, tuple) else key).indices(self._stored_shape[self.format == "csc"])
        data, indices, starts = self._arrays
        starts = starts[first : last + 1]
        entries = slice(int(starts[0]), int(starts[-1]))
        values = data[entries].astype(np.float32) if data.dtype == np.float16 else data[entries]
        parts = values, indices[entries], starts - starts[0]
        block: Any
        if self.format == "csr":
            block = sparse.csr_array(parts, shape=(last - first, self._stored_shape[1]))
        else:
            block = sparse.csc_array(parts, shape=(self._stored_shape[0], last - first))
        refuse_wild_indices(block)
        return block


class _StoredRaw:
    """What is asked of ``adata.raw``."""

    def __init__(self, group: Any, path: Path) -> None:
        self.X, self.var_names = StoredMatrix(group["X"], path), names_at(group["var"], slice(None))


class _SomeGenes:
    """Some columns of a matrix, which are taken when rows are read."""

    def __init__(self, matrix: Any, positions: Any) -> None:
        self._matrix, self._positions = matrix, positions
        self.shape = matrix.shape[0], len(positions)
        if hasattr(matrix, "format"):
            self.format = matrix.format

    def __getitem__(self, rows: slice) -> Any:
        return self._matrix[rows][:, self._positions]


@contextmanager
def open_cells(path: Path, *, stacklevel: int = 1) -> Iterator[StoredCells]:
    """Open a file that `is_stored_by_rows` is true of; damage is told in one line.

    Repeated names are made unique, with a warning; `stacklevel` counts from where the block is entered.
    """
    with ExitStack() as opened:
        with parsing(path):
            cells = opened.enter_context(_cells(path, stacklevel=stacklevel + 7))
            cells.make_names_unique(stacklevel=stacklevel + 3)
        yield cells


@contextmanager
def reopened(path: Path, names: "pd.Index[str]") -> Iterator[StoredCells]:
    """Open for its counts a file that `open_cells` has opened elsewhere, whose genes have these, unique, `names`.

    What that warned of is not said again.
    """
    with ExitStack() as opened:
        with parsing(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cells = opened.enter_context(_cells(path, stacklevel=1))
        cells.var_names = names
        yield cells


def is_stored_by_rows(path: Path) -> bool:
    """Return whether a file can be read a block of rows at a time.

    Such are h5ad, or zarr in a folder, of anndata 0.8 or later, and the HDF5 of 10x. Everything else is read as a
    whole, which also says what is wrong with a file that cannot be read.
    """
    from .stream_10x import is_10x

    kind = format_of(path)
    if kind not in {".h5", ".h5ad", ".zarr"}:
        return False
    try:
        if kind == ".h5":
            return is_10x(path)
        with _root(path) as root:
            current = all(root[name].attrs["encoding-version"] == "0.2.0" for name in ("obs", "var"))
            return current and is_described(root) and _holds_rows(root)
    except Exception:
        return False


def names_at(frame: Any, rows: slice) -> "pd.Index[str]":
    """Return names from the index of a stored data frame."""
    import pandas as pd

    index = _index(frame)
    values = (index.asstr() if hasattr(index, "asstr") and index.dtype.kind in "OS" else index)[rows]
    return pd.Index([str(value) for value in values], dtype=object)


@contextmanager
def _root(path: Path) -> Iterator[Any]:
    with open_zarr(path) if path.is_dir() else open_hdf5(path) as root:
        yield root


@contextmanager
def _cells(path: Path, *, stacklevel: int) -> Iterator[StoredCells]:
    if format_of(path) == ".h5":
        from .stream_10x import cells_of_10x

        with cells_of_10x(path, stacklevel=stacklevel) as cells:
            yield cells
        return
    with _root(path) as root:
        yield StoredCells(path, root)


def _holds_rows(root: Any) -> bool:
    has_layers = "layers" in root and len(list(root["layers"])) > 0
    shape = [_index(root[frame]).shape for frame in ("obs", "var")]
    return ("X" in root or has_layers) and all(len(size) == 1 and size[0] > 0 for size in shape)


def _index(frame: Any) -> Any:
    """Names as they are stored: an array, or since anndata 0.13 a group of one and of which of them are missing."""
    index = frame[frame.attrs["_index"]]
    return index if hasattr(index, "shape") else index["values"]


def _is_by_rows(matrix: Any) -> bool:
    """Whether rows can be taken of a stored matrix, which is dense or stored by rows."""
    return getattr(matrix, "format", "csr") == "csr"


def _row_wise(matrix: StoredMatrix, path: Path) -> Any:
    """Return a stored matrix that rows can be taken of; one stored by columns is read as a whole."""
    if _is_by_rows(matrix):
        return matrix
    warnings.warn(
        f"the counts in {path} are stored by genes (CSC), so their non-zeros are read into memory at once: "
        "store them by cells (CSR) to have them read a block at a time",
        stacklevel=6,
    )
    return matrix.by_rows()


def _block(matrix: Any, rows: slice) -> Any:
    """Return rows as a ``csr_array``; of a dense matrix only a few at a time are held dense."""
    from scipy import sparse

    size = rows.stop - rows.start if hasattr(matrix, "format") else rows_per_block(matrix.shape[1])
    starts = range(rows.start, rows.stop, size)
    pieces = [block_csr(matrix[start : min(start + size, rows.stop)]) for start in starts]
    return pieces[0] if len(pieces) == 1 else sparse.vstack(pieces, format="csr")
