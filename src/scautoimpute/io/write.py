"""Write an object or a matrix: beside the final name first, then renamed, so that no file is ever half-written."""

import glob
import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from scipy import sparse

from ..progress import progress_bar
from .checks import one_line, recognised_suffix
from .matrix import counts_matrix, is_integer_counts, row_blocks, rows_per_block

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["check_writable", "complete_or_absent", "remove_abandoned", "write"]

_SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_SUFFIXES = (".h5ad", *_SEPARATORS)


def write(adata: "AnnData", path: str | Path, *, layer: str | None = None, overwrite: bool = False) -> None:
    """Write an object to ``.h5ad``, or one of its matrices to ``.csv`` or ``.tsv`` (each also ``.gz``).

    The file appears under its name only when it is complete. After an error or an interruption there is no new file,
    and an older one of that name is as it was.

    Parameters
    ----------
    adata
        What to write. A ``.h5ad`` holds all of it; as anndata does, repeated strings in `obs` and `var` become
        categories.
    path
        Where to write; the suffix chooses the format.
    layer
        The matrix that a text file holds, cells × genes with both names; `X` by default. A ``.h5ad`` holds every
        layer, so there it must only exist.
    overwrite
        Replace a file that exists.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is False.
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If the folder is missing or cannot be written.
    ValueError
        If the suffix is unknown, the layer does not exist, or the object holds something the format cannot store.

    Notes
    -----
    Text is written a block of rows at a time; the dense matrix is never held.
    """
    check_writable(path, overwrite=overwrite)
    matrix = None if layer is None and _suffix(path) == ".h5ad" else counts_matrix(adata, layer)
    if _suffix(path) in _SEPARATORS:
        matrix = _row_wise(matrix)
    with complete_or_absent(Path(path).expanduser().resolve()) as partial:
        try:
            if partial.suffix == ".h5ad":
                _write_h5ad(adata, partial)
            else:
                _write_text(adata, matrix, partial)
        except OSError as error:
            msg = f"cannot write {path}: {one_line(error)}; no file was left behind"
            raise OSError(msg) from error


def check_writable(path: str | Path, *, overwrite: bool = False, any_suffix: bool = False) -> None:
    """Raise the error that `write` would meet at `path`; meant to be called before long computations.

    Parameters
    ----------
    path
        Where something is to be written.
    overwrite
        Whether a file that exists may be replaced.
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
    if not any_suffix:
        _suffix(path)
    if path.exists() and not path.is_file():
        msg = f"{path} is a folder or a device; a file name is needed: choose another"
        raise IsADirectoryError(msg)
    if path.exists() and not overwrite:
        msg = f"{path} exists; give overwrite=True (--overwrite on the command line) to replace it, or another name"
        raise FileExistsError(msg)
    _check_folder(path.resolve().parent)


def _suffix(path: str | Path) -> str:
    return recognised_suffix(Path(path), _SUFFIXES)


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
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, renamed to `path` on success and removed on whatever else happens."""
    before, after = _partial_name(path)
    partial = path.with_name(f"{before}{os.getpid()}{after}")
    try:
        yield partial
        _reach_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what processes that no longer live left behind while they were writing `path`."""
    before, after = _partial_name(path)
    for found in path.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}"):
        pid = found.name[len(before) : len(found.name) - len(after)]
        if pid.isdecimal() and not _is_alive(int(pid)):
            found.unlink(missing_ok=True)


def _partial_name(path: Path) -> tuple[str, str]:
    """What stands before and after the number of the process in the temporary name for `path`."""
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
    return f".{path.name.removesuffix(suffix)}.partial-", suffix.lower()


def _reach_disk(path: Path) -> None:
    """Wait until the contents are on the disk, so that after a power cut no name stands for half a file."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # a number that was given out again, to this process


def _write_h5ad(adata: "AnnData", path: Path) -> None:
    from anndata.io import write_h5ad

    try:
        # The function, not the method: the method would tie a backed object to the temporary name.
        # A view is copied: writing turns its strings into categories, which a view does not allow.
        write_h5ad(path, adata.to_memory(copy=True) if adata.is_view else adata)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        if "errno" in str(error):  # HDF5 reports a disk that fills up while closing as a RuntimeError
            raise OSError(str(error)) from error
        msg = f"the object holds something that .h5ad cannot store ({one_line(error)}): convert or remove it"
        raise ValueError(msg) from error


def _write_text(adata: "AnnData", matrix: Any, path: Path) -> None:
    import pandas as pd

    whole = is_integer_counts(matrix)  # 3, not 3.0
    names = pd.Index(adata.obs_names)
    with _open_text(path) as handle, progress_bar(len(names), "writing", "cell") as bar:
        for rows in row_blocks(matrix, rows_per_block(matrix.shape[1])):
            dense = _dense(matrix[rows])
            block = pd.DataFrame(dense.astype(np.int64) if whole else dense, names[rows], adata.var_names)
            block.to_csv(handle, sep=_SEPARATORS[_suffix(path)], header=rows.start == 0, index_label="")
            bar.update(len(block))


def _row_wise(matrix: Any) -> Any:
    """Return a matrix that has entries and can be cut into rows."""
    if 0 in matrix.shape:
        msg = f"the matrix is {matrix.shape[0]} cells × {matrix.shape[1]} genes; there is nothing to write"
        raise ValueError(msg)
    return matrix.tocsr() if sparse.issparse(matrix) else matrix


def _dense(block: Any) -> Any:
    return block.toarray() if sparse.issparse(block) else np.asarray(block)


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "wt", compresslevel=6, encoding="utf-8", newline=""))
    return path.open("w", encoding="utf-8", newline="")
