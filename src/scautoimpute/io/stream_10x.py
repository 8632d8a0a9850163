"""Cells of a 10x Genomics HDF5 file that stay on disk: it holds genes × cells by columns, so cells are read by rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from .hdf5 import open_hdf5
from .matrix import of_columns
from .read_10x import gene_expression_only, group_10x
from .read_anndata import quietly
from .stream import StoredCells, StoredMatrix

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Stored10x", "cells_of_10x", "is_10x"]

_PARTS = ("data", "indices", "indptr", "barcodes", "shape")
# What scanpy, which reads such files as a whole, calls otherwise, or leaves out
_OF_FEATURES = {"name", "feature_type", "id", "gene_id", "_all_tag_keys"}


class Stored10x(StoredMatrix):
    """Counts of some features of a 10x file, cells × features.

    Parameters
    ----------
    group
        Which holds ``data``, ``indices`` and ``indptr``.
    path
        The file.
    columns
        Positions of the features to take.
    """

    def __init__(self, group: "h5py.Group", path: Path, columns: "NDArray[np.intp]") -> None:
        self._path, self.group, self.format = path, group, "csr"
        n_features, n_cells = (int(size) for size in group["shape"][:])
        self.shape, self._columns = (n_cells, len(columns)), columns
        self._stored_shape = n_cells, n_features
        kept = group["data"].dtype
        self.dtype = np.dtype(np.float32) if kept == np.int32 else kept  # as scanpy takes them

    def _read(self, key: Any) -> Any:
        return of_columns(super()._read(key), self._columns).astype(self.dtype, copy=False)


@contextmanager
def cells_of_10x(path: Path, *, stacklevel: int) -> Iterator[StoredCells]:
    """Open a file of Cell Ranger; names and what is known of the features are read, and kept as anndata would.

    Raises
    ------
    BadContentError
        If it is no such file, or holds several genomes.
    """
    import h5py
    from anndata import AnnData
    from anndata.io import write_elem

    # A process may hold several open; files of one name would be one file to HDF5, in memory too
    in_memory = {"name": f"names {uuid4()}", "driver": "core", "backing_store": False}
    with open_hdf5(path) as file, h5py.File(mode="w", **in_memory) as root:
        group = group_10x(file)
        with quietly():
            whole = AnnData(obs=_of_cells(group), var=_of_features(group))
            whole.var["position"] = np.arange(whole.n_vars)
            kept = gene_expression_only(whole, stacklevel=stacklevel + 1)
        columns = kept.var.pop("position").to_numpy()
        kept.strings_to_categoricals()
        for name in ("obs", "var"):
            write_elem(root, name, getattr(kept, name))
        root.attrs["encoding-type"], root.attrs["encoding-version"] = "anndata", "0.1.0"
        yield StoredCells(path, root, X=Stored10x(group, path, columns))


def is_10x(path: Path) -> bool:
    """Return whether a file is one of Cell Ranger that can be read a block of cells at a time."""
    with open_hdf5(path) as file:
        group = group_10x(file)
        has_names = {"genes", "gene_names"} <= set(group) if "features" not in group else "name" in group["features"]
        return has_names and set(_PARTS) <= set(group) and 0 not in group["shape"][:]


def _of_cells(group: "h5py.Group") -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame(index=_text(group["barcodes"]))
    if "filtered_barcodes" in group:
        frame["filtered_barcodes"] = group["filtered_barcodes"][:].astype(bool)
    return frame


def _of_features(group: "h5py.Group") -> "pd.DataFrame":
    """Return what scanpy does: of version 2 names and ids, of version 3 all that there is of each feature."""
    import h5py
    import pandas as pd

    if "features" not in group:
        return pd.DataFrame({"gene_ids": _text(group["genes"])}, index=_text(group["gene_names"]))
    features = group["features"]
    frame = pd.DataFrame(index=_text(features["name"]))
    frame["gene_ids"] = _text(features["gene_id" if "gene_id" in features else "id"])
    if "gene_id" in features:
        frame["probe_ids"] = _text(features["id"])
    frame["feature_types"] = _text(features["feature_type"])
    for name, item in features.items():
        if isinstance(item, h5py.Dataset) and name not in _OF_FEATURES:
            frame[name] = item[:].astype(bool) if item.dtype.kind == "b" else _text(item)
    return frame


def _text(item: "h5py.Dataset") -> "NDArray[np.object_]":
    text: NDArray[np.object_] = item[:].astype(str).astype(object)
    return text
