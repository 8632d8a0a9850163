"""Where a result goes a block of cells at a time: a copy of an anndata file with more in it, or a text table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._stops import stops_kept
from ._arrays_on_disk import CsrOnDisk, mark, new_dense
from ._copying import copy_members, is_hdf5
from ._copying_genes import OF_GENES, copy_columns, copy_genes
from .checks import one_line
from .counted import hdf5_file
from .read import streaming
from .store import without_notices
from .stream import StoredCells
from .write_text import dense, text_file, write_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Storage", "StoredResult", "TextResult", "stored_result"]

_EMBEDDING = "X_autoimpute"
_SIZE_FACTOR = "autoimpute_size_factor"
_MODELLED = "autoimpute_modelled"


@dataclass(frozen=True)
class Storage:
    """How the matrices of a result are stored.

    Attributes
    ----------
    is_sparse
        Whether they are sparse.
    with_sd
        Whether there is a layer ``key + "_sd"`` of standard deviations too.
    matrix
        Whether there is any.
    dtype
        Of their values.
    genes_O
        Positions of the genes of the output among those of the data; None for all.
    compression
        `"gzip"` for h5ad, `"none"`, or None for what the format does by default.
    """

    is_sparse: bool
    with_sd: bool = False
    matrix: bool = True
    dtype: str = "float32"
    genes_O: "NDArray[Any] | None" = None
    compression: str | None = None

    def keys(self, key: str) -> list[str]:
        """Return the names of the layers."""
        return [key, f"{key}_sd"][: self.matrix * (1 + self.with_sd)]

    def new(self, layers: Any, name: str, shape: tuple[int, int]) -> Any:
        """Make a layer, to which rows are appended (sparse) or assigned (dense)."""
        make: Any = CsrOnDisk if self.is_sparse else new_dense
        return make(layers, name, shape=shape, dtype=self.dtype, compression=self.compression)


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
    storage
        How the layers are stored, and of which genes.
    check
        Raises if something could not be written.
    """

    @stops_kept()
    def __init__(
        self, path: Path, root: Any, cells: StoredCells, *, key: str, storage: Storage, check: Callable[[], None]
    ) -> None:
        self.check = check
        self.root, self.cells, self.key, self.storage = root, cells, key, storage
        keys = storage.keys(key)
        with streaming(cells.path):
            was_ours = key in cells.uns
        self._copy(path, {key, *keys} | ({f"{key}_sd"} if was_ours else set()))
        shape = cells.n_obs, cells.n_vars if storage.genes_O is None else len(storage.genes_O)
        self.layers = [storage.new(root["layers"], name, shape) for name in keys]
        self.n_rows = 0
        self.embedding: Any = None

    def _copy(self, path: Path, outdated: set[str]) -> None:
        """Copy all but the layers that are replaced, of the genes of the output."""
        cells, root, storage = self.cells, self.root, self.storage
        replaced: dict[str, set[str] | None] = {"layers": outdated, "obsm": {_EMBEDDING}, "uns": {self.key}}
        if storage.genes_O is not None:
            replaced |= dict.fromkeys(OF_GENES)
        copy_members(cells.root, root, paths=(cells.path, path), but=replaced)
        if storage.genes_O is not None:
            copy_genes(cells, root, genes_O=storage.genes_O, but=outdated, compression=storage.compression)
        elif cells.X is not None and "X" not in root:
            copy_columns(cells.X, root, "X", np.arange(cells.n_vars), storage.compression)
        for name in ("layers", "obsm", "uns"):
            if name not in root:
                root.create_group(name)
            mark(root[name], "dict", "0.1.0")
        for frame in cells.renamed:
            names = cells.var_names if frame == "var" else cells.cell_names(slice(None))
            some = slice(None) if frame == "obs" or storage.genes_O is None else storage.genes_O
            _replace(root[frame], root[frame].attrs["_index"], names[some].to_numpy())

    @stops_kept()
    def append(self, layer: Any, embedding: "NDArray[np.float32]", sd: Any = None) -> None:
        """Add the rows of some more cells."""
        rows = slice(self.n_rows, self.n_rows + embedding.shape[0])
        if self.embedding is None:
            shape = self.cells.n_obs, embedding.shape[1]
            self.embedding = new_dense(
                self.root["obsm"], _EMBEDDING, shape=shape, dtype=embedding.dtype, compression=self.storage.compression
            )
        self.embedding[rows] = embedding
        for written, values in zip(self.layers, (layer, sd), strict=False):
            if self.storage.is_sparse:
                written.append(values)
            else:
                written[rows] = values
        self.n_rows = rows.stop
        self.check()

    @stops_kept()
    def finish(self, size_factor: "NDArray[np.float64]", modelled: "NDArray[np.bool_]", record: dict[str, Any]) -> None:
        """Add what is known when all cells have been seen."""
        from anndata.io import write_elem

        _add_column(self.root["obs"], _SIZE_FACTOR, size_factor)
        genes_O = self.storage.genes_O
        _add_column(self.root["var"], _MODELLED, modelled if genes_O is None else modelled[genes_O])
        write_elem(self.root["uns"], self.key, record)


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
    genes_O
        As of `Storage`.
    """

    def __init__(self, handle: Any, cells: StoredCells, *, separator: str, genes_O: "NDArray[Any] | None") -> None:
        self.handle, self.cells, self.separator, self.n_rows = handle, cells, separator, 0
        self.genes = cells.var_names if genes_O is None else cells.var_names[genes_O]

    def append(self, layer: Any, embedding: "NDArray[np.float32]", sd: Any = None) -> None:  # noqa: ARG002
        """Add the lines of some more cells; embedding and standard deviations have no place in a table."""
        first, self.n_rows = self.n_rows, self.n_rows + embedding.shape[0]
        names = self.cells.cell_names(slice(first, self.n_rows))
        write_rows(self.handle, dense(layer), names, self.genes, separator=self.separator, with_header=first == 0)

    def finish(self, size_factor: "NDArray[np.float64]", modelled: "NDArray[np.bool_]", record: dict[str, Any]) -> None:
        """Add nothing: a table holds no more than the layer."""


@contextmanager
def stored_result(
    path: Path, cells: StoredCells, *, name: Path, key: str, storage: Storage
) -> "Iterator[StoredResult | TextResult]":
    """Open a new file at `path`, of the kind that its suffix tells; in errors it is called `name`."""
    opened = {".h5ad": _hdf5, ".zarr": _zarr}.get(path.suffix)
    try:
        if opened is None:
            separator = "," if ".csv" in path.suffixes[-2:] else "\t"
            with text_file(path) as handle:
                yield TextResult(handle, cells, separator=separator, genes_O=storage.genes_O)
            return
        with opened(path, cells) as (root, check):
            yield StoredResult(path, root, cells, key=key, storage=storage, check=check)
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

    with without_notices():
        root = _new_store(path, cells)
        yield root, lambda: None  # what goes wrong is raised where it does
        zarr.consolidate_metadata(root.store)


def _new_store(path: Path, cells: StoredCells) -> Any:
    """Return an empty zarr group, of the zarr format that `cells` have, else of anndata's default."""
    import anndata
    import zarr

    default: Any = getattr(anndata.settings, "zarr_write_format", 3)  # the setting ends with anndata 0.14
    return zarr.open_group(
        path, mode="w", zarr_format=default if is_hdf5(cells.root) else cells.root.metadata.zarr_format
    )


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
