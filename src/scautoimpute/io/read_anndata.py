"""Read the formats that hold a whole AnnData object: h5ad, zarr, loom."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError
from .checks import BadContentError
from .counted import CountedFile, counted_bytes, counted_store, folder_size
from .matrix import narrowed

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["is_zarr", "quietly", "read_h5ad", "read_loom", "read_zarr", "refuse_incomplete"]

_NAMES = {
    "cell": ("CellID", "obs_names", "cell_names", "Barcode", "barcode"),
    "gene": ("Gene", "var_names", "gene_names", "Accession"),
}


def read_h5ad(path: Path) -> "AnnData":
    """Read a file of anndata, of any of its versions."""
    from anndata.io import read_h5ad as parse

    with (
        quietly(),
        counted_bytes(path.stat().st_size, description="reading") as passed,
        CountedFile(path, passed) as file,
    ):
        return cast("AnnData", parse(file))


def read_zarr(path: Path) -> "AnnData":
    """Read a zarr store of anndata, format 2 or 3, a folder or one file (.zip)."""
    import zarr
    from anndata.io import read_zarr as parse

    with quietly(), counted_bytes(folder_size(path), description="reading") as passed:
        group = zarr.open_group(counted_store(path, passed), mode="r")
        refuse_incomplete(group)
        return cast("AnnData", parse(group))


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


def refuse_incomplete(group: Any) -> None:
    """Refuse sparse matrices with chunks that are not there, which zarr would take for zeros without a word."""
    for name, item in group.groups():
        if "data" in item and "indptr" in item:
            values = item["data"]
            if values.nchunks_initialized < values.nchunks:
                found = f"{values.nchunks_initialized} of the {values.nchunks} chunks"
                msg = f"only {found} of {name} are there, the store is incomplete: copy it again"
                raise BadContentError(msg)
        else:
            refuse_incomplete(item)


def read_loom(path: Path) -> "AnnData":
    """Read a loom file: its main matrix as `X`, its layers, and the attributes of its cells and genes."""
    from anndata.io import read_loom as parse

    try:
        import loompy  # noqa: F401
    except ImportError as error:
        msg = 'reading .loom needs loompy: pip install "scautoimpute[loom]", or convert the file to .h5ad'
        raise MissingDependencyError(msg) from error
    names = _names_of_axes(path)
    found = {kind: name for kind, name in names.items() if name is not None}
    adata = parse(
        path, X_name="", dtype="float64", obs_names=found.get("cell", "CellID"), var_names=found.get("gene", "Gene")
    )
    adata.X = narrowed(adata.X)
    for kind, index in (("cell", "obs_names"), ("gene", "var_names")):
        if names[kind] is None:
            setattr(adata, index, [f"{kind}_{number}" for number in range(1, len(getattr(adata, index)) + 1)])
            warnings.warn(f"{path} holds no {kind} names: they are numbered", stacklevel=5)
        getattr(adata, index[:3]).index.name = None
    return cast("AnnData", adata)


def _names_of_axes(path: Path) -> dict[str, str | None]:
    import h5py

    with h5py.File(path) as file:
        if "matrix" not in file or "row_attrs" not in file or "col_attrs" not in file:
            msg = "this HDF5 file is not loom (no matrix, row_attrs and col_attrs); name an AnnData file .h5ad"
            raise BadContentError(msg)
        inside = {"cell": file["col_attrs"], "gene": file["row_attrs"]}
        return {kind: next((n for n in _NAMES[kind] if n in inside[kind]), None) for kind in _NAMES}
