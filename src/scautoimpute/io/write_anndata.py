"""Write the formats that hold more than a matrix: h5ad and zarr, which hold a whole AnnData object, and loom."""

import html
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._stops import stops_kept
from ._copying import any_strings, packing
from .checks import one_line
from .counted import counted_bytes, counted_store, hdf5_file
from .matrix import named_layers, row_blocks, rows_per_block
from .sample import stored_bytes
from .store import without_notices
from .write_text import dense, row_wise

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData

__all__ = ["write_h5ad", "write_loom", "write_zarr"]

_MAPPINGS = ("obsm", "varm", "obsp", "varp", "layers", "uns")
_SLOTS = ("X", "raw", "obs", "var", *_MAPPINGS)
_MATRICES = {"X", "layers", "obsm", "varm", "obsp", "varp"}  # of which the others are small, or hold scalars
_LOOM_CHUNK = 64  # as loompy's, which parts a matrix in squares
_LOOM_SHRINKS = 10  # about how much compression saves of a matrix that is mostly zeros
_LOOM_NAMES = {"col_attrs": "CellID", "row_attrs": "Gene"}


def write_h5ad(adata: "AnnData", path: Path, *, compression: str | None = None) -> None:
    """Write a whole object, element by element as anndata's own function does."""
    from anndata.io import write_elem

    whole = _writable(adata)
    packed = packing(compression, hdf5=True)

    def store() -> None:
        with (
            counted_bytes(_expected_bytes(whole), description="writing") as written,
            hdf5_file(path, written) as (file, check),
            stops_kept(),
        ):
            file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
            for slot in _SLOTS:
                value = named_layers(whole) if slot == "layers" else getattr(whole, slot)
                if value is not None:
                    kept = packed if slot in _MATRICES else {}
                    write_elem(file, slot, dict(value) if slot in _MAPPINGS else value, dataset_kwargs=kept)
                check()

    _stored(store, ".h5ad")


def write_zarr(adata: "AnnData", path: Path, *, compression: str | None = None) -> None:
    """Write a whole object with anndata, in the zarr format that is its default (2 in anndata 0.12, 3 since)."""
    from anndata.io import write_zarr as store

    whole = _writable(adata)
    packed = packing(compression, hdf5=False)
    with (
        counted_bytes(_expected_bytes(whole), description="writing") as written,
        counted_store(path, written) as folder,
        without_notices(),
    ):
        _stored(lambda: store(folder, whole, **packed), ".zarr")


def write_loom(adata: "AnnData", path: Path) -> None:
    """Write `X`, the layers, `obs` and `var` in the loom format, version 3; a warning names what is left out.

    With h5py rather than loompy, which would write the time into the file and hold a dense matrix.
    """
    if adata.X is None:
        msg = "a .loom needs a main matrix, and the object has no X: write .h5ad, or put a layer in X"
        raise ValueError(msg)
    _report_left_out(adata)
    _stored(lambda: _write_loom(adata, path), ".loom")


def _writable(adata: "AnnData") -> "AnnData":
    """Turn repeated strings into categories, as anndata does; a view, which does not allow that, is copied."""
    whole = adata.to_memory(copy=True) if adata.is_view else adata
    whole.strings_to_categoricals()
    if whole.raw is not None:
        whole.strings_to_categoricals(whole.raw.var)
    return whole


def _stored(store: Any, suffix: str) -> None:
    """Call a writer; whatever a library raises over what the object holds becomes one ``ValueError`` line."""
    try:
        with any_strings():
            store()
    except (OSError, MemoryError):
        raise
    except Exception as error:
        msg = f"the object holds something that {suffix} cannot store ({one_line(error)}): convert or remove it"
        raise ValueError(msg) from error


def _expected_bytes(adata: "AnnData") -> int:
    matrices = [adata.X, *named_layers(adata).values(), *adata.obsm.values(), *adata.obsp.values()]
    if adata.raw is not None:
        matrices.append(adata.raw.X)
    return sum(stored_bytes(matrix) for matrix in matrices if matrix is not None)


# ------------------------------------------------------------------------------------------------------- loom


def _report_left_out(adata: "AnnData") -> None:
    slots = [name for name in ("obsm", "varm", "obsp", "varp", "uns") if len(getattr(adata, name))]
    slots += ["raw"] if adata.raw is not None else []
    if slots:
        left_out = ", ".join(slots)
        warnings.warn(f"a .loom holds X, layers, obs and var; left out: {left_out} (.h5ad holds all)", stacklevel=4)
    for axis, frame in (("row_attrs", adata.var), ("col_attrs", adata.obs)):
        names = _LOOM_NAMES[axis]
        if names in frame and not np.array_equal(frame[names].astype(str), frame.index):
            said = f"a .loom holds the names under {names!r}; left out: the column of that name, which is another"
            warnings.warn(said, stacklevel=4)


def _write_loom(adata: "AnnData", path: Path) -> None:
    matrices = {"matrix": adata.X, **{f"layers/{name}": layer for name, layer in named_layers(adata).items()}}
    n_bytes = sum(int(np.prod(matrix.shape)) * matrix.dtype.itemsize for matrix in matrices.values())
    with (
        counted_bytes(n_bytes // _LOOM_SHRINKS, description="writing") as written,
        hdf5_file(path, written) as (file, check),
        stops_kept(),
    ):
        file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        for name in ("layers", "row_graphs", "col_graphs"):
            file.create_group(name)
        for axis, frame in (("row_attrs", adata.var), ("col_attrs", adata.obs)):
            _write_attributes(file.create_group(axis), frame, names=_LOOM_NAMES[axis])
        for name, matrix in matrices.items():
            _write_turned(file, name, row_wise(matrix), check)


def _write_attributes(group: "h5py.Group", frame: "pd.DataFrame", *, names: str) -> None:
    columns = {names: frame.index.to_series()} | {str(name): frame[name] for name in frame if name != names}
    for name, values in columns.items():
        if "/" in name:
            msg = f"the column {name!r} has a '/' in its name"
            raise ValueError(msg)
        group[name] = _attribute(values)


def _attribute(values: "pd.Series[Any]") -> Any:
    """Numbers as they are, truth values as 0 and 1, everything else as text; loom knows nothing missing in text."""
    import h5py

    if values.dtype.kind in "iuf" and isinstance(values.dtype, np.dtype):
        return values.to_numpy()
    if values.dtype == bool:
        return values.to_numpy(np.int8)
    text = values.astype(object).where(values.notna(), "").astype(str)
    return np.array([_as_ascii(value) for value in text], dtype=h5py.string_dtype("ascii"))


def _as_ascii(text: str) -> bytes:
    """Return text with XML's names for what is not ASCII; loompy drops that without a word where it is UTF-8."""
    escaped = text if html.unescape(text) == text else text.replace("&", "&amp;")
    stored = escaped.encode("ascii", "xmlcharrefreplace")
    if html.unescape(stored.decode("ascii")) != text:
        msg = f"the text {text!r} holds a character that loom has no name for"
        raise ValueError(msg)
    return stored


def _write_turned(file: "h5py.File", name: str, matrix: Any, check: Callable[[], None]) -> None:
    n_cells, n_genes = matrix.shape
    kind = {"b": np.uint8, "e": np.float32}.get(matrix.dtype.char if matrix.dtype.kind == "f" else matrix.dtype.kind)
    chunks = (min(_LOOM_CHUNK, n_genes), min(_LOOM_CHUNK, n_cells))
    turned = file.create_dataset(
        name, (n_genes, n_cells), kind or matrix.dtype, chunks=chunks, compression="gzip", compression_opts=2
    )
    whole_chunks = max(1, rows_per_block(n_genes) // _LOOM_CHUNK) * _LOOM_CHUNK
    for rows in row_blocks(matrix, whole_chunks):
        turned[:, rows] = dense(matrix[rows]).T
        check()
