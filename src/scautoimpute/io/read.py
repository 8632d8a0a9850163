"""Read a file or a folder by its suffix into cells × genes."""

import gzip
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import sparse

from ..errors import MissingDependencyError
from .checks import BadContentError, NoRoomError, UnreadableFileError, one_line, recognised_suffix
from .matrix import named_layers
from .read_10x import read_10x_folder, read_10x_h5, read_mtx
from .read_anndata import is_zarr, read_h5ad, read_loom, read_zarr
from .read_text import read_text

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = [
    "SUFFIXES",
    "format_of",
    "make_names_unique",
    "parsing",
    "read",
    "refuse_no_matrix",
    "streaming",
    "unique_names",
    "unpacked",
]

_Reader = Callable[[Path], "AnnData"]
_READERS: dict[str, _Reader] = {
    ".h5ad": read_h5ad,
    ".zarr": read_zarr,
    ".zarr.zip": read_zarr,
    ".h5": read_10x_h5,
    ".loom": read_loom,
    ".mtx": read_mtx,
    ".csv": read_text,
    ".tsv": read_text,
    ".txt": read_text,
}
_ZIPPED = (".h5ad", ".h5", ".loom", ".mtx", ".csv", ".tsv", ".txt")
SUFFIXES = tuple(s for suffix in _READERS for s in (suffix, *([f"{suffix}.gz"] if suffix in _ZIPPED else [])))
_READ_GZIPPED = {".mtx", ".csv", ".tsv", ".txt"}  # by their readers themselves


def read(path: str | Path, *, transpose: bool = False) -> "AnnData":
    """Read counts or expression from a file or a folder; cells are rows, genes are columns.

    - ``.h5ad``: the object as it was written.
    - ``.zarr``, a folder, or ``.zarr.zip``: the same; zarr formats 2 and 3.
    - ``.loom``: the main matrix as `X`, all layers, and the attributes of cells and genes; needs the extra ``loom``.
    - ``.h5``: 10x Genomics, Cell Ranger 2 and later.
    - a folder: 10x ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` or ``genes.tsv``, each also ``.gz``.
    - ``.mtx``: Matrix Market. Names are taken from files beside ``x.mtx`` if there are any: ``x_genes``,
      ``x_features``, ``x_cells``, ``x_barcodes``, ``x_rows`` or ``x_cols``, with ``.tsv`` or ``.txt``; beside
      ``x_matrix.mtx`` also ``x_barcodes.tsv`` and so on; else ``genes.tsv``, ``barcodes.tsv`` in its folder. How many
      names there are decides which side holds the cells; where they do not, a warning tells what was assumed.
    - ``.csv``, ``.tsv``, ``.txt``: gene names in the first line (which may lack a field over the cell names), cell
      names in the first column; ``.txt`` is split at tabs, else commas, else spaces.

    All but zarr may be gzipped (``.gz``); ``.h5ad``, ``.h5`` and ``.loom`` are then unpacked to a temporary file.

    Parameters
    ----------
    path
        The file or folder.
    transpose
        The file holds genes × cells; turn it.

    Returns
    -------
    AnnData with unique names. 10x features other than gene expression are left out. Text, loom, Matrix Market and 10x
    matrices are CSR, float32, or float64 if they hold whole numbers above 2²⁴ or values out of the range of float32.

    Raises
    ------
    FileNotFoundError, PermissionError
        If there is no such file, or it cannot be opened.
    ValueError
        If the suffix is unknown, or the contents are not what it promises: the message says where.
    OSError
        If there is no room to unpack a gzipped file.
    MissingDependencyError
        If a loom file is read and loompy is not installed.

    Warns
    -----
    UserWarning
        For repeated names (made unique), names or an orientation that are not known, 10x features left out, and empty
        fields in a text file.
    """
    path = Path(path).expanduser()
    suffix = format_of(path)
    adata = _parse(_reader(suffix, transpose=transpose), path, suffix)
    refuse_no_matrix(adata, path)
    # Of a Matrix Market file its reader has decided which side holds the cells, with the names beside it.
    adata = _turned(adata) if transpose and suffix.removesuffix(".gz") != ".mtx" else adata
    make_names_unique(adata)
    return adata


def format_of(path: Path) -> str:
    """Return the suffix that tells the format of a file that exists, or "folder" for one written by 10x."""
    if not path.exists():
        msg = f"{path} does not exist; give a file or a 10x folder that does"
        raise FileNotFoundError(msg)
    if not os.access(path, os.R_OK):
        msg = f"{path} cannot be read; change its permissions"
        raise PermissionError(msg)
    if path.is_dir():
        return ".zarr" if is_zarr(path) else _folder_kind(path)
    if not path.is_file():
        msg = f"{path} is a device or a pipe, which cannot be searched; save it as a file first"
        raise ValueError(msg)
    suffix = recognised_suffix(path, SUFFIXES)
    if suffix == ".zarr":
        msg = f"{path} is a file, but a .zarr is a folder; unpack it, or name it .zarr.zip if it is a zipped store"
        raise ValueError(msg)
    return suffix


def _folder_kind(path: Path) -> str:
    if path.name.lower().endswith(".zarr"):
        msg = f"{path} is no zarr store (it holds no .zgroup or zarr.json): it is incomplete, copy it again"
        raise ValueError(msg)
    return "folder"


def _reader(suffix: str, *, transpose: bool) -> _Reader:
    if suffix == "folder":
        return read_10x_folder
    reader = _READERS[suffix.removesuffix(".gz")]
    return partial(read_mtx, transpose=transpose) if reader is read_mtx else reader


def _parse(reader: _Reader, path: Path, suffix: str) -> "AnnData":
    with parsing(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(Observation|Variable) names are not unique")
        with unpacked(path, suffix) as plain:
            adata = reader(plain)
        _check_matrices(adata)
        return adata


def _check_matrices(adata: "AnnData") -> None:
    matrices = [
        adata.X,
        *named_layers(adata).values(),
        *adata.obsm.values(),
        *adata.obsp.values(),
        *adata.varp.values(),
    ]
    for matrix in [*matrices, None if adata.raw is None else adata.raw.X]:
        if sparse.issparse(matrix) and matrix.format in {"csr", "csc"}:
            refuse_wild_indices(matrix)


def refuse_wild_indices(matrix: Any) -> None:
    """Raise if the indices of a sparse matrix lead out of it, as they may in a damaged file: using it would crash."""
    matrix.check_format(full_check=True)
    if (np.diff(matrix.indptr) < 0).any():  # which scipy does not look at if the last of them is zero
        msg = "the row pointers of a sparse matrix fall; it is damaged: get it again"
        raise BadContentError(msg)


@contextmanager
def parsing(path: Path, kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Whatever a library raises over bad contents becomes one line with the file, in an error of some `kind`."""
    try:
        yield
    except (MemoryError, MissingDependencyError, NoRoomError, UnreadableFileError):
        raise
    except BadContentError as error:
        msg = f"{path}: {error}"
        raise kind(msg) from error.__cause__
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        msg = f"{path}: the gzip file is damaged or cut short ({one_line(error)}): get it again"
        raise kind(msg) from error
    except Exception as error:
        msg = f"{path} cannot be read, it is damaged or not what its suffix says ({one_line(error)}): get it again"
        raise kind(msg) from error


def streaming(path: Path) -> AbstractContextManager[None]:
    """Do as `parsing` does, where a file is read piece by piece, which may have been damaged since work on it began."""
    return parsing(path, UnreadableFileError)


@contextmanager
def unpacked(path: Path, suffix: str) -> Iterator[Path]:
    """Give the path of a file that is not gzipped, a temporary one if need be; for formats that need to jump in it."""
    plain = suffix.removesuffix(".gz")
    if plain == suffix or plain in _READ_GZIPPED:
        yield path
        return
    with ExitStack() as opened:
        with _room_for(path):
            temporary = opened.enter_context(tempfile.NamedTemporaryFile(suffix=plain, buffering=0))
        with parsing(path), gzip.open(path) as packed:
            while left := memoryview(packed.read(1 << 20)):
                with _room_for(path):
                    while left:  # a disk that is all but full takes a part of it
                        left = left[temporary.write(left) :]
        yield Path(temporary.name)


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Tell an error of the temporary folder from one of the file that is unpacked to it."""
    try:
        yield
    except OSError as error:
        msg = f"cannot unpack {path} to {tempfile.tempdir or 'a temporary folder'} ({one_line(error)}): "
        raise NoRoomError(msg + "make room there, name another folder in TMPDIR, or unpack it yourself") from error


def refuse_no_matrix(adata: "AnnData", path: Path) -> None:
    """Refuse an object without a matrix of numbers."""
    layers = named_layers(adata)
    if (adata.X is None and not layers) or 0 in adata.shape:
        msg = f"{path} holds no matrix: X is {'missing' if adata.X is None else f'{adata.n_obs} × {adata.n_vars}'}; "
        msg += f"cells × genes is needed in X (layers: {', '.join(layers) or 'none'})"
        raise ValueError(msg)
    matrices: dict[str, Any] = {"X": adata.X, **layers}
    for name, matrix in matrices.items():
        if getattr(matrix, "dtype", None) is not None and matrix.dtype.kind not in "biuf":
            msg = f"{path} holds {matrix.dtype.name} values in {name}, not numbers: take out what is no number"
            raise ValueError(msg)


def _turned(adata: "AnnData") -> "AnnData":
    turned = adata.T
    if sparse.issparse(turned.X):
        turned.X = turned.X.tocsr()
    for name, layer in named_layers(turned).items():
        if sparse.issparse(layer):
            turned.layers[name] = layer.tocsr()
    return cast("AnnData", turned)


def make_names_unique(adata: "AnnData") -> None:
    """Make repeated names of cells and of genes unique, and warn how many there were."""
    adata.var_names = unique_names(adata.var_names, kind="gene", stacklevel=4)
    adata.obs_names = unique_names(adata.obs_names, kind="cell", stacklevel=4)


def unique_names(names: "pd.Index[str]", *, kind: str, stacklevel: int) -> "pd.Index[str]":
    """Return names of which the repeated ones are numbered, and warn how many there were."""
    from anndata.utils import make_index_unique

    n_repeats = int(names.duplicated().sum())
    if not n_repeats:
        return names
    warnings.warn(f"{n_repeats} repeated {kind} names were made unique with -1, -2, ...", stacklevel=stacklevel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the suffix, which ours says
        warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about what anndata asks of it
        return make_index_unique(names)
