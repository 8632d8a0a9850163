"""Where a result goes a block of cells at a time: a copy of an anndata file with more in it, or a text table."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._copying import copy_members, is_hdf5, new_array
from .checks import one_line
from .counted import hdf5_file
from .stream import StoredCells
from .write_text import dense, text_file, write_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["StoredResult", "TextResult", "stored_result"]

_EMBEDDING = "X_autoimpute"
_SIZE_FACTOR = "autoimpute_size_factor"
_MODELLED = "autoimpute_modelled"
_ENTRIES_PER_CHUNK = 2**17  # 0.5 MB of float32
_VALUES_PER_CHUNK = 2**20  # 4 MB


class StoredResult:
    """A copy of `cells` in an h5ad or zarr file, to which the layer `key` and all that goes with it are added.

    Parameters
    ----------
    path, root
        The empty file to fill, and its group.
    cells
        What to copy.
    key
        Name of the new layer and of the record in `uns`; whatever had that name is left out.
    is_sparse
        How to store the layer.
    with_sd
        Whether a layer ``key + "_sd"`` of standard deviations is added too.
    check
        Raises if something could not be written.
    """

    def __init__(
        self,
        path: Path,
        root: Any,
        cells: StoredCells,
        *,
        key: str,
        is_sparse: bool,
        check: Callable[[], None],
        with_sd: bool = False,
    ) -> None:
        self.check = check
        self.root, self.cells, self.key, self.is_sparse = root, cells, key, is_sparse
        keys = [key, f"{key}_sd"] if with_sd else [key]
        outdated = {f"{key}_sd"} if key in cells.uns else set()  # of the layer that is replaced
        replaced = {"layers": {*keys} | outdated, "obsm": {_EMBEDDING}, "uns": {key}}
        copy_members(cells.root, root, paths=(cells.path, path), but=replaced)
        for name in ("layers", "obsm", "uns"):
            if name not in root:
                _mark(root.create_group(name), "dict", "0.1.0")
        for frame in cells.renamed:
            names = cells.var_names if frame == "var" else cells.cell_names(slice(None))
            _replace(root[frame], root[frame].attrs["_index"], names.to_numpy())
        self.layers = [self._new_layer(root["layers"], name) for name in keys]
        self.n_rows, self.n_entries = 0, [0 for _ in keys]
        self.embedding: Any = None

    def append(self, layer: Any, embedding: "NDArray[np.float32]", sd: Any = None) -> None:
        """Add the rows of some more cells."""
        rows = slice(self.n_rows, self.n_rows + embedding.shape[0])
        if self.embedding is None:
            shape = self.cells.n_obs, embedding.shape[1]
            self.embedding = _dense(self.root["obsm"], _EMBEDDING, shape, embedding.dtype)
        self.embedding[rows] = embedding
        for position, values in enumerate((layer, sd)[: len(self.layers)]):
            if self.is_sparse:
                self._append_entries(position, values, rows)
            else:
                self.layers[position][rows] = values
        self.n_rows = rows.stop
        self.check()

    def finish(self, size_factor: "NDArray[np.float64]", modelled: "NDArray[np.bool_]", record: dict[str, Any]) -> None:
        """Add what is known when all cells have been seen."""
        from anndata.io import write_elem

        _add_column(self.root["obs"], _SIZE_FACTOR, size_factor)
        _add_column(self.root["var"], _MODELLED, modelled)
        write_elem(self.root["uns"], self.key, record)

    def _new_layer(self, layers: Any, name: str) -> Any:
        n_obs, n_vars = self.cells.shape
        if not self.is_sparse:
            return _dense(layers, name, (n_obs, n_vars), np.float32)
        group = layers.create_group(name)
        _mark(group, "csr_matrix", "0.1.0")
        group.attrs["shape"] = [n_obs, n_vars]
        indices = np.int32 if n_vars < 2**31 else np.int64
        for part, dtype in (("data", np.float32), ("indices", indices)):
            _mark(new_array(group, part, shape=(0,), dtype=dtype, rows=_ENTRIES_PER_CHUNK), "array", "0.2.0")
        starts = new_array(group, "indptr", shape=(n_obs + 1,), dtype=np.int64)
        _mark(starts, "array", "0.2.0")
        starts[0:1] = np.zeros(1, dtype=np.int64)
        return group

    def _append_entries(self, position: int, values: sparse.csr_matrix, rows: slice) -> None:
        layer, n_before = self.layers[position], self.n_entries[position]
        new = slice(n_before, n_before + values.nnz)
        for name in ("data", "indices"):
            array = layer[name]
            array.resize((new.stop,))
            if values.nnz:
                array[new] = getattr(values, name).astype(array.dtype, copy=False)
        layer["indptr"][rows.start + 1 : rows.stop + 1] = values.indptr[1:].astype(np.int64) + n_before
        self.n_entries[position] = new.stop


class TextResult:
    """A table of the layer, cells × genes with both names.

    Parameters
    ----------
    handle
        Open text.
    cells
        Whose names to write.
    separator
        What stands between the fields.
    """

    def __init__(self, handle: Any, cells: StoredCells, *, separator: str) -> None:
        self.handle, self.cells, self.separator, self.n_rows = handle, cells, separator, 0

    def append(self, layer: Any, embedding: "NDArray[np.float32]", sd: Any = None) -> None:  # noqa: ARG002
        """Add the lines of some more cells; embedding and standard deviations have no place in a table."""
        first, self.n_rows = self.n_rows, self.n_rows + embedding.shape[0]
        names, genes = self.cells.cell_names(slice(first, self.n_rows)), self.cells.var_names
        write_rows(self.handle, dense(layer), names, genes, separator=self.separator, with_header=first == 0)

    def finish(self, size_factor: "NDArray[np.float64]", modelled: "NDArray[np.bool_]", record: dict[str, Any]) -> None:
        """Add nothing: a table holds no more than the layer."""


@contextmanager
def stored_result(
    path: Path, cells: StoredCells, *, name: Path, key: str, is_sparse: bool, with_sd: bool = False
) -> "Iterator[StoredResult | TextResult]":
    """Open a new file at `path`, of the kind that its suffix tells; in errors it is called `name`."""
    opened = {".h5ad": _hdf5, ".zarr": _zarr}.get(path.suffix)
    try:
        if opened is None:
            separator = "," if ".csv" in path.suffixes[-2:] else "\t"
            with text_file(path) as handle:
                yield TextResult(handle, cells, separator=separator)
            return
        with opened(path, cells) as (root, check):
            yield StoredResult(path, root, cells, key=key, is_sparse=is_sparse, check=check, with_sd=with_sd)
    except OSError as error:
        msg = f"cannot write {name}: {one_line(error)}; no file was left behind"
        raise OSError(msg) from error


@contextmanager
def _hdf5(path: Path, cells: StoredCells) -> Iterator[tuple[Any, Callable[[], None]]]:  # noqa: ARG001 (as of _zarr)
    with hdf5_file(path) as (root, check):
        yield root, check


@contextmanager
def _zarr(path: Path, cells: StoredCells) -> Iterator[tuple[Any, Callable[[], None]]]:
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data|zarr v3 autosharding")
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        root = _new_store(path, cells)
        yield root, lambda: None  # what goes wrong is raised where it does
        zarr.consolidate_metadata(root.store)


def _new_store(path: Path, cells: StoredCells) -> Any:
    """Return an empty zarr group, of the zarr format that `cells` have, else of anndata's default."""
    import anndata
    import zarr

    default = anndata.settings.zarr_write_format
    return zarr.open_group(
        path, mode="w", zarr_format=default if is_hdf5(cells.root) else cells.root.metadata.zarr_format
    )


def _dense(group: Any, name: str, shape: tuple[int, int], dtype: Any) -> Any:
    rows = 2 ** int(np.log2(max(1, _VALUES_PER_CHUNK // max(1, shape[1]))))
    array = new_array(group, name, shape=shape, dtype=dtype, rows=min(rows, 2048, shape[0]))
    _mark(array, "array", "0.2.0")
    return array


def _mark(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version


def _add_column(frame: Any, name: str, values: "NDArray[Any]") -> None:
    columns = [str(column) for column in frame.attrs["column-order"]]
    _replace(frame, name, values)
    order = columns if name in columns else [*columns, name]
    if is_hdf5(frame):
        import h5py

        frame.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
    else:
        frame.attrs["column-order"] = order


def _replace(group: Any, name: str, values: "NDArray[Any]") -> None:
    from anndata.io import write_elem

    if name in group:
        del group[name]
    write_elem(group, name, values)
