"""Read the formats that hold a whole AnnData object: h5ad, zarr, loom."""

import html
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import MissingDependencyError
from .checks import BadContentError
from .counted import counted_bytes
from .hdf5 import open_hdf5
from .matrix import narrowed
from .pieces import read_in_pieces
from .store import bytes_in_chunks, open_zarr

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["is_described", "is_zarr", "quietly", "read_h5ad", "read_loom", "read_zarr"]

_NAMES = {
    "cell": ("CellID", "obs_names", "cell_names", "Barcode", "barcode"),
    "gene": ("Gene", "var_names", "gene_names", "Accession"),
}


def read_h5ad(path: Path) -> "AnnData":
    """Read a file of anndata, of any of its versions."""
    from anndata.io import read_h5ad as parse

    with quietly():
        with open_hdf5(path) as file:
            if is_described(file):
                return read_in_pieces(file)
        return cast("AnnData", parse(path))  # of anndata before 0.7


def read_zarr(path: Path) -> "AnnData":
    """Read a zarr store of anndata, format 2 or 3, a folder or one file (.zip)."""
    from anndata.io import read_zarr as parse

    # Its arrays are read whole: zarr reads many chunks at once, and is slower in pieces.
    with (
        quietly(),
        counted_bytes(bytes_in_chunks(path), description="reading") as passed,
        open_zarr(path, passed=passed) as group,
    ):
        return cast("AnnData", parse(group))


def is_described(group: Any) -> bool:
    """Return whether a file says what each of its parts is, as anndata writes it since 0.7."""
    return bool(group.attrs.get("encoding-type") == "anndata")


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore warnings about files of old versions: they are read in full, and there is nothing for the user to do."""
    from anndata import ImplicitModificationWarning, OldFormatWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldFormatWarning)
        warnings.simplefilter("ignore", ImplicitModificationWarning)  # of a loom without names, which get some
        warnings.filterwarnings(
            "ignore", message="(Observation|Variable) names are not unique|.*read_loom is deprecated"
        )
        yield


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a zarr store, which holds its metadata at the top."""
    return any((folder / name).is_file() for name in (".zgroup", "zarr.json"))


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
    axes = {"obs_names": found.get("cell", "CellID"), "var_names": found.get("gene", "Gene")}
    with quietly():
        adata = parse(path, X_name="", dtype="float64", **axes)
    adata.X = adata.X.astype(stored) if stored.kind == "f" and stored.itemsize > 2 else narrowed(adata.X)
    _restore_text(adata, path, names)
    for kind, index in (("cell", "obs_names"), ("gene", "var_names")):
        if names[kind] is None:
            setattr(adata, index, [f"{kind}_{number}" for number in range(1, len(getattr(adata, index)) + 1)])
            warnings.warn(f"{path} holds no {kind} names: they are numbered", stacklevel=5)
        getattr(adata, index[:3]).index.name = None
    return cast("AnnData", adata)


def _restore_text(adata: "AnnData", path: Path, names: dict[str, str | None]) -> None:
    """Take text from the file itself: loompy drops what is not ASCII of text that is stored as UTF-8."""
    with open_hdf5(path) as file:
        for kind, frame, axis in (("cell", adata.obs, "col_attrs"), ("gene", adata.var, "row_attrs")):
            for name, item in file[axis].items():
                if item.dtype.kind not in "OS" or item.ndim != 1:
                    continue
                text = [html.unescape(value.decode("utf-8", "replace")) for value in item[:]]
                if name == names[kind]:
                    frame.index = text
                elif name in frame:
                    frame[name] = text


def _axes_and_type(path: Path) -> tuple[dict[str, str | None], Any]:
    """Return which attributes hold the names of cells and genes, and the type of the main matrix."""
    with open_hdf5(path) as file:
        if "matrix" not in file or "row_attrs" not in file or "col_attrs" not in file:
            msg = "this HDF5 file is not loom (no matrix, row_attrs and col_attrs); name an AnnData file .h5ad"
            raise BadContentError(msg)
        inside = {"cell": file["col_attrs"], "gene": file["row_attrs"]}
        found = {kind: next((n for n in _NAMES[kind] if n in inside[kind]), None) for kind in _NAMES}
        return found, file["matrix"].dtype
