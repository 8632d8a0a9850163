"""Read a file or a 10x folder by its suffix into cells × genes."""

import csv
import gzip
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from scipy import sparse

from .checks import one_line, recognised_suffix
from .matrix import rows_per_block

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["read"]

_TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_GENE_EXPRESSION = "Gene Expression"
_LARGEST_EXACT = 2**24  # whole numbers up to here survive float32


def read(path: str | Path, *, transpose: bool = False) -> "AnnData":
    """Read counts or expression from a file or a 10x folder; cells are rows, genes are columns.

    - ``.h5ad``: the object as it was written.
    - ``.h5``: 10x Genomics, Cell Ranger 2 and later.
    - a folder: 10x ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` or ``genes.tsv``, each also ``.gz``.
    - ``.csv``, ``.tsv``, ``.txt``, each also ``.gz``: gene names in the first line (which may lack a field over the
      cell names), cell names in the first column; ``.txt`` is split at tabs, else commas, else spaces.

    Parameters
    ----------
    path
        The file or folder.
    transpose
        The file holds genes × cells; turn it.

    Returns
    -------
    AnnData with unique names. 10x features other than gene expression are left out. Text and 10x matrices are CSR;
    text becomes float32, or float64 if it holds whole numbers above 2²⁴ or values out of the range of float32.

    Raises
    ------
    FileNotFoundError, PermissionError
        If there is no such file, or it cannot be opened.
    ValueError
        If the suffix is unknown, or the contents are not what it promises: the message says where.

    Warns
    -----
    UserWarning
        For repeated names (made unique), 10x features left out, and empty fields in a text file.
    """
    path = Path(path).expanduser()
    reader = _reader(path)
    adata = _parse(reader, path)
    if (adata.X is None and not len(adata.layers)) or 0 in adata.shape:
        msg = f"{path} holds no matrix: X is {'missing' if adata.X is None else f'{adata.n_obs} × {adata.n_vars}'}; "
        msg += f"cells × genes is needed in X (layers: {', '.join(adata.layers) or 'none'})"
        raise ValueError(msg)
    adata = _turned(adata) if transpose else adata
    _make_names_unique(adata)
    return adata


def _reader(path: Path) -> "Callable[[Path], AnnData]":
    if not path.exists():
        msg = f"{path} does not exist; give a file or a 10x folder that does"
        raise FileNotFoundError(msg)
    if not os.access(path, os.R_OK):
        msg = f"{path} cannot be read; change its permissions"
        raise PermissionError(msg)
    if path.is_dir():
        return _read_10x_folder
    suffix = recognised_suffix(path, (".h5ad", ".h5", *_TEXT_SUFFIXES))
    return {".h5ad": _read_h5ad, ".h5": _read_10x_h5}.get(suffix, _read_text)


def _parse(reader: "Callable[[Path], AnnData]", path: Path) -> "AnnData":
    """Call a reader; whatever a library raises over bad contents becomes one ``ValueError`` line with the file."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(Observation|Variable) names are not unique")
            return reader(path)
    except MemoryError:
        raise
    except _BadContentError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error.__cause__
    except Exception as error:
        msg = f"{path} cannot be read, it is damaged or not what its suffix says ({one_line(error)}): get it again"
        raise ValueError(msg) from error


class _BadContentError(ValueError):
    """What a reader found, in words; the name of the file is put before it."""


def _read_h5ad(path: Path) -> "AnnData":
    from anndata import OldFormatWarning
    from anndata.io import read_h5ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldFormatWarning)  # old files are read in full; nothing for the user to do
        return read_h5ad(path)


def _read_10x_h5(path: Path) -> "AnnData":
    import h5py
    import scanpy

    with h5py.File(path) as file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and "barcodes" in item]
    if not groups:
        msg = "this HDF5 file is not 10x output (no barcodes in it); give a 10x .h5, or name an AnnData file .h5ad"
        raise _BadContentError(msg)
    if len(groups) > 1:
        msg = f"it holds several genomes ({', '.join(groups)}); save the one you want as .h5ad with "
        msg += "scanpy.read_10x_h5(file, genome=...)"
        raise _BadContentError(msg)
    return _gene_expression_only(scanpy.read_10x_h5(path, gex_only=False))


def _read_10x_folder(folder: Path) -> "AnnData":
    import pandas as pd
    from anndata import AnnData
    from scipy.io import mmread

    matrix_file = _file_of(folder, "matrix.mtx")
    features = _names_table(_file_of(folder, "features.tsv", "genes.tsv"))
    barcodes = _names_table(_file_of(folder, "barcodes.tsv"))
    matrix = sparse.csr_matrix(mmread(matrix_file).T).astype(np.float32)
    if matrix.shape != (len(barcodes), len(features)):
        msg = (
            f"{matrix_file.name} is {matrix.shape[1]} × {matrix.shape[0]}, but there are {len(features)} features and "
        )
        msg += f"{len(barcodes)} barcodes; genes × cells is needed: the files do not belong together"
        raise _BadContentError(msg)
    # Columns of the table: gene id, gene symbol, feature type; older and other writers leave out the last ones.
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=features[min(1, features.shape[1] - 1)].to_numpy())
    if features.shape[1] > 2:
        var["feature_types"] = features[2].to_numpy()
    return _gene_expression_only(AnnData(matrix, obs=pd.DataFrame(index=barcodes[0].to_numpy()), var=var))


def _file_of(folder: Path, *names: str) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    inside = sorted(found.parent.name for found in folder.glob("*/matrix.mtx*"))
    hint = f"the folder {inside[0]} in it does: give that" if inside else "give a file, or a folder written by 10x"
    msg = f"this folder holds no {' or '.join(names)} (or .gz), so it is not 10x output; {hint}"
    raise _BadContentError(msg)


def _names_table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    # Genes called "NA" and quotes within names are names like any other.
    table = pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
    return cast("pd.DataFrame", table)


def _gene_expression_only(adata: "AnnData") -> "AnnData":
    if "feature_types" not in adata.var:
        return adata
    kinds = adata.var["feature_types"].astype(str)
    others = kinds[kinds != _GENE_EXPRESSION].value_counts()
    if others.empty:
        return adata
    left_out = ", ".join(f"{count} {kind}" for kind, count in others.items())
    warnings.warn(f"only {_GENE_EXPRESSION} is kept; left out: {left_out}", stacklevel=5)
    return cast("AnnData", adata[:, (kinds == _GENE_EXPRESSION).to_numpy()].copy())


def _read_text(path: Path) -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    try:
        names, header, matrix = _text_parts(path)
    except pd.errors.ParserError as error:
        raise _BadContentError(_ragged_in_words(error)) from error
    except UnicodeDecodeError as error:
        msg = "it is not UTF-8 text; save it as plain CSV in UTF-8"
        raise _BadContentError(msg) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        msg = f"the gzip file is damaged or cut short ({one_line(error)}): get it again"
        raise _BadContentError(msg) from error
    n_missing = int(np.count_nonzero(np.isnan(matrix.data)))
    if n_missing:
        warnings.warn(
            f"{path} has {n_missing} empty or NA fields: they are NaN; fill or remove them before imputing counts",
            stacklevel=4,
        )
    obs, var = pd.DataFrame(index=pd.Index(names, dtype=object)), pd.DataFrame(index=pd.Index(header, dtype=object))
    return AnnData(_narrowed(matrix), obs=obs, var=var)


def _text_parts(path: Path) -> tuple[list[str], list[str], Any]:
    """Return the cell names, the gene names and the float64 CSR matrix of a text file, read in blocks of rows."""
    names: list[str] = []
    blocks = []
    with _open_text(path) as (handle, separator):
        header = next(csv.reader(handle, delimiter=separator), [])
        for frame in _frames(handle, separator=separator, n_columns=len(header)):
            # The first name stands over the cell names, unless the header is one field short (R's write.table).
            genes = header if len(header) == frame.shape[1] - 1 else header[1:]
            _refuse_width(header, frame.shape[1])
            _refuse_text(frame, genes)
            names += frame[0].tolist()
            blocks.append(sparse.csr_matrix(frame.iloc[:, 1:].to_numpy(np.float64)))
    if not blocks:
        msg = "it has no rows; a line of gene names and one line for each cell are needed"
        raise _BadContentError(msg)
    return names, genes, sparse.vstack(blocks, format="csr")


@contextmanager
def _open_text(path: Path) -> Iterator[tuple[TextIO, str]]:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else Path.open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
        first = handle.readline()
        handle.seek(0)
        kind = path.name.lower().removesuffix(".gz")[-4:]
        separator = {".csv": ",", ".tsv": "\t"}.get(kind) or next((mark for mark in "\t, " if mark in first), "\t")
        yield handle, separator


def _frames(handle: TextIO, *, separator: str, n_columns: int) -> "Iterator[pd.DataFrame]":
    """Yield blocks of rows; cell names stay text, and numbers are found column by column."""
    import pandas as pd

    try:
        yield from pd.read_csv(
            handle,
            sep=separator,
            header=None,
            converters={0: str},
            low_memory=False,
            float_precision="round_trip",
            chunksize=rows_per_block(n_columns),
        )
    except pd.errors.EmptyDataError:
        return


def _refuse_width(header: list[str], n_fields: int) -> None:
    if n_fields < 2:
        msg = (
            "its rows have one field; fields are separated by commas in .csv and by tabs in .tsv: rename or convert it"
        )
        raise _BadContentError(msg)
    is_short = len(header) == n_fields - 1 and header[0] != ""
    if len(header) != n_fields and not is_short:
        msg = f"its first line has {len(header)} fields, its rows {n_fields}; one name for each column is needed"
        raise _BadContentError(msg)


def _refuse_text(frame: "pd.DataFrame", genes: list[str]) -> None:
    """Refuse a field that is not a number, naming the first such column and its row; numbers are converted in place."""
    import pandas as pd

    for column in frame.columns[1:]:
        values = frame[column]
        if values.dtype.kind in "iuf":
            continue
        numbers = pd.to_numeric(values.astype(str).where(values.notna()), errors="coerce")
        bad = np.flatnonzero(numbers.isna() & values.notna())
        if bad.size:
            where = f"column {genes[column - 1]!r}, row {frame.iloc[bad[0], 0]!r}"
            msg = f"found {str(values.iloc[bad[0]])[:40]!r} in {where}; a number is needed: remove that column or row"
            raise _BadContentError(msg)
        frame[column] = numbers


def _ragged_in_words(error: Exception) -> str:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found is None:
        return f"the text cannot be parsed ({one_line(error)}); one line for each cell is needed"
    expected, line, saw = (int(number) for number in found.groups())
    # The parser's first line is the file's second: the gene names are read before.
    return f"line {line + 1} has {saw} fields, the lines before it {expected}; every row needs the same number"


def _narrowed(matrix: Any) -> Any:
    """Return float32 unless whole numbers would lose digits or values would leave its range."""
    values = matrix.data[np.isfinite(matrix.data)]
    size = np.abs(values)
    large = values[size > _LARGEST_EXACT]
    with np.errstate(over="ignore", under="ignore"):
        loses = np.any(large.astype(np.float32) != large) or np.any(size.astype(np.float32) == 0)
    return matrix if loses else matrix.astype(np.float32)


def _turned(adata: "AnnData") -> "AnnData":
    turned = adata.T
    if sparse.issparse(turned.X):
        turned.X = turned.X.tocsr()
    for name, layer in list(turned.layers.items()):
        if sparse.issparse(layer):
            turned.layers[name] = layer.tocsr()
    return cast("AnnData", turned)


def _make_names_unique(adata: "AnnData") -> None:
    for names, kind, repair in (
        (adata.var_names, "gene", adata.var_names_make_unique),
        (adata.obs_names, "cell", adata.obs_names_make_unique),
    ):
        n_repeats = int(names.duplicated().sum())
        if n_repeats:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about the suffix; ours says it
                repair()
            warnings.warn(f"{n_repeats} repeated {kind} names were made unique with -1, -2, ...", stacklevel=3)
