"""Write an object or a matrix: beside the final name first, then renamed, so that nothing is ever half-written."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from .checks import one_line, recognised_suffix
from .complete import complete_or_absent
from .matrix import counts_matrix
from .read_anndata import is_zarr
from .write_anndata import write_h5ad, write_loom, write_zarr
from .write_text import row_wise, write_mtx_folder, write_table

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Compression", "check_compression", "check_writable", "suffix_of", "write"]

Compression = Literal["none", "gzip"]
_OBJECTS: dict[str, Callable[..., None]] = {".h5ad": write_h5ad, ".zarr": write_zarr, ".loom": write_loom}
_MATRICES: dict[str, Callable[..., None]] = {
    ".csv": partial(write_table, separator=","),
    ".csv.gz": partial(write_table, separator=","),
    ".tsv": partial(write_table, separator="\t"),
    ".tsv.gz": partial(write_table, separator="\t"),
    ".mtx": partial(write_mtx_folder, gz=False),
    ".mtx.gz": partial(write_mtx_folder, gz=True),
}
_SUFFIXES = (*_OBJECTS, *_MATRICES)
_CHOICES = {".h5ad": get_args(Compression), ".zarr": ("none",)}
_MTX_FILES = {f"{name}{gz}" for name in ("matrix.mtx", "features.tsv", "barcodes.tsv") for gz in ("", ".gz")}


def write(
    adata: "AnnData",
    path: str | Path,
    *,
    layer: str | None = None,
    overwrite: bool = False,
    compression: "Compression | None" = None,
) -> None:
    """Write an object, or one of its matrices, in the format that the suffix of `path` tells.

    - ``.h5ad`` and ``.zarr`` (a folder, in the zarr format that is anndata's default) hold the whole object.
    - ``.loom`` holds `X`, all layers, `obs` and `var`; a warning names what is left out.
    - ``.csv``, ``.tsv``, each also ``.gz``: one matrix, cells × genes with both names.
    - ``.mtx``, also ``.mtx.gz``: one matrix, as a *folder* of that name like Cell Ranger's: ``matrix.mtx`` (genes ×
      cells), ``features.tsv`` and ``barcodes.tsv``, or each with ``.gz``. A folder can be put in place at once, three
      files cannot.

    It appears under its name only when it is complete. After an error or an interruption there is no new output, and
    an older one of that name is as it was. The same object gives the same bytes.

    Parameters
    ----------
    adata
        What to write. As anndata does, repeated strings in `obs` and `var` become categories in ``.h5ad`` and
        ``.zarr``.
    path
        Where to write; the suffix chooses the format.
    layer
        The matrix that a text file or ``.mtx`` folder holds; `X` by default, `"raw"` for ``adata.raw``. The other
        formats hold every layer, so there it must only exist.
    overwrite
        Replace an output that exists. A folder is replaced only if it holds nothing but what is written here.
    compression
        `"gzip"` (level 1, bytes shuffled) for the matrices of an ``.h5ad``, `"none"` for an ``.h5ad`` or ``.zarr``. By
        default zarr compresses as it does, and h5ad does not; the other formats know their own.

    Raises
    ------
    FileExistsError
        If the output exists and `overwrite` is False.
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If the folder is missing or cannot be written.
    ValueError
        If the suffix is unknown, the layer does not exist, or the object holds something the format cannot store.

    Notes
    -----
    Text, Matrix Market and loom are written a block of rows at a time; the dense matrix is never held.
    """
    check_writable(path, overwrite=overwrite)
    suffix = suffix_of(path)
    check_compression(compression, suffix)
    matrix = None if layer is None and suffix in _OBJECTS else counts_matrix(adata, layer)
    with complete_or_absent(Path(path)) as beside, _disk_errors(path):
        if suffix in _OBJECTS:
            _OBJECTS[suffix](adata, beside, **({"compression": compression} if suffix in _CHOICES else {}))
        else:
            _MATRICES[suffix](adata, row_wise(matrix), beside)


def check_writable(path: str | Path, *, overwrite: bool = False, any_suffix: bool = False) -> None:
    """Raise the error that `write` would meet at `path`; meant to be called before long computations.

    Parameters
    ----------
    path
        Where something is to be written.
    overwrite
        Whether an output that exists may be replaced.
    any_suffix
        Whether the file is no matrix (a model, a picture), so that its suffix does not matter.

    Raises
    ------
    ValueError
        If the suffix is none that `write` knows.
    IsADirectoryError, FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError
        As the name says.
    """
    path = Path(path).expanduser()
    suffix = "" if any_suffix else suffix_of(path)
    if path.exists() and not path.is_file():
        _check_replaceable(path, suffix)
    if path.exists() and not overwrite:
        msg = f"{path} exists; give overwrite=True (--overwrite on the command line) to replace it, or another name"
        raise FileExistsError(msg)
    _check_folder(path.resolve().parent)


def check_compression(compression: str | None, suffix: str) -> None:
    """Refuse an unknown compression, and one that the format does not leave to choose."""
    if compression is None:
        return
    if compression not in get_args(Compression):
        msg = f"compression={compression!r} is not known: choose 'gzip' or 'none', or leave it out"
        raise ValueError(msg)
    if compression not in _CHOICES.get(suffix, ()):
        instead = {"none": suffix.removesuffix(".gz"), "gzip": f"{suffix}.gz"}[compression]
        others = f", or write {instead}" if instead in _MATRICES and instead != suffix else ""
        others = ", or choose 'none'" if suffix == ".zarr" else others
        msg = f"compression= is of .h5ad; {suffix} has its own: leave it out{others}"
        raise ValueError(msg)


def suffix_of(path: str | Path) -> str:
    """Return which of the suffixes that `write` knows a path has, or refuse it."""
    return recognised_suffix(Path(path), _SUFFIXES)


def _check_replaceable(path: Path, suffix: str) -> None:
    """Refuse what is no file where a file is to be, and a folder that holds more than `write` would put in it."""
    if not path.is_dir() or suffix not in {".zarr", ".mtx", ".mtx.gz"}:
        msg = f"{path} is a folder or a device; a file name is needed: choose another"
        raise IsADirectoryError(msg)
    inside = {found.name for found in path.iterdir()}
    if not (is_zarr(path) if suffix == ".zarr" else inside <= _MTX_FILES):
        kind = "zarr store" if suffix == ".zarr" else "folder of matrix, features and barcodes"
        msg = f"{path} is a folder but no {kind}, and is not replaced: choose another name, or move it away"
        raise FileExistsError(msg)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        msg = f"the folder {folder} does not exist; create it, or choose another"
        raise FileNotFoundError(msg)
    if not folder.is_dir():
        msg = f"{folder} is a file, not a folder; choose a folder to write in"
        raise NotADirectoryError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"the folder {folder} cannot be written; change its permissions, or choose another"
        raise PermissionError(msg)


@contextmanager
def _disk_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"cannot write {path}: {one_line(error)}; no file was left behind"
        raise OSError(msg) from error
