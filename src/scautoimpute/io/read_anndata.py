"""Read the formats that hold a whole AnnData object: h5ad, zarr, loom."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError
from .checks import BadContentError
from .matrix import narrowed
from .pieces import read_in_pieces

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["is_described", "is_zarr", "open_zarr", "quietly", "read_h5ad", "read_loom", "read_zarr"]

_NAMES = {
    "cell": ("CellID", "obs_names", "cell_names", "Barcode", "barcode"),
    "gene": ("Gene", "var_names", "gene_names", "Accession"),
}


def read_h5ad(path: Path) -> "AnnData":
    """Read a file of anndata, of any of its versions."""
    import h5py
    from anndata.io import read_h5ad as parse

    with quietly():
        with h5py.File(path) as file:
            if is_described(file):
                return read_in_pieces(file)
        return cast("AnnData", parse(path))  # of anndata before 0.7


def read_zarr(path: Path) -> "AnnData":
    """Read a zarr store of anndata, format 2 or 3, a folder or one file (.zip)."""
    from anndata.io import read_zarr as parse

    with quietly(), open_zarr(path) as group:
        return read_in_pieces(group) if is_described(group) else cast("AnnData", parse(group))


@contextmanager
def open_zarr(path: Path) -> Iterator[Any]:
    """Open a complete zarr store to read."""
    import zarr
    from zarr.storage import LocalStore, ZipStore

    store = ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
    try:
        group = zarr.open_group(store, mode="r")
        _refuse_incomplete(group)
        yield group
    finally:
        store.close()


def is_described(group: Any) -> bool:
    """Return whether a file says what each of its parts is, as anndata writes it since 0.7."""
    return bool(group.attrs.get("encoding-type") == "anndata")


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore warnings about files of old versions: they are read in full, and there is nothing for the user to do."""
    from anndata import OldFormatWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldFormatWarning)
        warnings.filterwarnings("ignore", message="(Observation|Variable) names are not unique")
        yield


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a zarr store, which holds its metadata at the top."""
    return any((folder / name).is_file() for name in (".zgroup", "zarr.json"))


def _refuse_incomplete(group: Any) -> None:
    """Refuse sparse matrices with chunks that are not there, which zarr would take for zeros without a word."""
    for name, item in group.groups():
        if "data" in item and "indptr" in item:
            values = item["data"]
            if values.nchunks_initialized < values.nchunks:
                found = f"{values.nchunks_initialized} of the {values.nchunks} chunks"
                msg = f"only {found} of {name} are there, the store is incomplete: copy it again"
                raise BadContentError(msg)
        else:
            _refuse_incomplete(item)


def read_loom(path: Path) -> "AnnData":
    """Read a loom file: its main matrix as `X`, its layers, and the attributes of its cells and genes."""
    from anndata.io import read_loom as parse

    try:
        import loompy  # noqa: F401
    except ImportError as error:
        msg = 'reading .loom needs loompy: pip install "scautoimpute[loom]", or convert the file to .h5ad'
        raise MissingDependencyError(msg) from error
    names, stored = _axes_and_type(path)
    found = {kind: name for kind, name in names.items() if name is not None}
    adata = parse(
        path, X_name="", dtype="float64", obs_names=found.get("cell", "CellID"), var_names=found.get("gene", "Gene")
    )
    adata.X = adata.X.astype(stored) if stored.kind == "f" and stored.itemsize > 2 else narrowed(adata.X)
    for kind, index in (("cell", "obs_names"), ("gene", "var_names")):
        if names[kind] is None:
            setattr(adata, index, [f"{kind}_{number}" for number in range(1, len(getattr(adata, index)) + 1)])
            warnings.warn(f"{path} holds no {kind} names: they are numbered", stacklevel=5)
        getattr(adata, index[:3]).index.name = None
    return cast("AnnData", adata)


def _axes_and_type(path: Path) -> tuple[dict[str, str | None], Any]:
    """Return which attributes hold the names of cells and genes, and the type of the main matrix."""
    import h5py

    with h5py.File(path) as file:
        if "matrix" not in file or "row_attrs" not in file or "col_attrs" not in file:
            msg = "this HDF5 file is not loom (no matrix, row_attrs and col_attrs); name an AnnData file .h5ad"
            raise BadContentError(msg)
        inside = {"cell": file["col_attrs"], "gene": file["row_attrs"]}
        found = {kind: next((n for n in _NAMES[kind] if n in inside[kind]), None) for kind in _NAMES}
        return found, file["matrix"].dtype
