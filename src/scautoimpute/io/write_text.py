"""Write one matrix as text: a table, or a folder in Matrix Market format as 10x Genomics writes it."""

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ..progress import progress_bar
from .matrix import is_integer_counts, row_blocks, rows_per_block

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["dense", "row_wise", "text_file", "write_mtx_folder", "write_rows", "write_table"]

_LARGEST_WHOLE = 2**53  # above, a float64 need not be a whole number that was meant
_UNWRITABLE = "\t\n\r"  # they part the names of a file of names


def write_table(adata: "AnnData", matrix: Any, path: Path, *, separator: str) -> None:
    """Write cells × genes with both names, a block of rows at a time."""
    import pandas as pd

    names = pd.Index(adata.obs_names)
    with text_file(path) as handle, _bar(adata) as bar:
        for rows in row_blocks(matrix, rows_per_block(matrix.shape[1])):
            block = dense(matrix[rows])
            write_rows(handle, block, names[rows], adata.var_names, separator=separator, with_header=rows.start == 0)
            bar.update(len(block))


def write_rows(
    handle: IO[str],
    values: "NDArray[Any]",
    cells: "pd.Index[str]",
    genes: "pd.Index[str]",
    *,
    separator: str,
    with_header: bool,
) -> None:
    """Write the lines of some cells, after one of gene names if these are the first."""
    lines = csv.writer(handle, delimiter=separator, lineterminator="\n")
    if with_header:
        lines.writerow(["", *genes])
    lines.writerows([name, *row] for name, row in zip(cells, _as_text(values).tolist(), strict=True))


def _as_text(values: "NDArray[Any]") -> "NDArray[np.object_]":
    """Write each number as short as it can be told from others of its type: 3, not 3.0; nothing for NaN.

    This does not depend on the other values, of which not all may be known yet.
    """
    if values.dtype.kind != "f":
        return (values.astype(np.int8) if values.dtype.kind == "b" else values).astype(object)
    is_whole = (np.abs(values) <= _LARGEST_WHOLE) & (values == np.rint(values))
    text = np.empty(values.shape, dtype=object)
    text[is_whole] = values[is_whole].astype(np.int64)
    text[~is_whole] = values[~is_whole].astype(str)
    text[np.isnan(values)] = ""
    return text


def write_mtx_folder(adata: "AnnData", matrix: Any, folder: Path, *, gz: bool) -> None:
    """Write ``matrix.mtx`` (genes × cells), ``features.tsv`` and ``barcodes.tsv`` into a new folder, as 10x does.

    A feature has its id (``var["gene_ids"]`` if that is there), its name and its type.
    """
    var = adata.var
    ids = np.asarray(var.get("gene_ids", adata.var_names)).astype(str)
    kinds = np.asarray(var.get("feature_types", ["Gene Expression"] * adata.n_vars)).astype(str)
    features: list[tuple[str, ...]] = list(zip(ids.tolist(), adata.var_names, kinds.tolist(), strict=True))
    barcodes: list[tuple[str, ...]] = [(name,) for name in adata.obs_names]
    _refuse_names(features + barcodes)
    end = ".gz" if gz else ""
    folder.mkdir()
    for name, rows in (("features", features), ("barcodes", barcodes)):
        with _binary(folder / f"{name}.tsv{end}") as file:
            file.write("".join("\t".join(row) + "\n" for row in rows).encode())
    with _binary(folder / f"matrix.mtx{end}") as file, _bar(adata) as bar:
        _write_entries(matrix, file, bar)


def row_wise(matrix: Any) -> Any:
    """Return a matrix that has entries and can be cut into rows."""
    if 0 in matrix.shape:
        msg = f"the matrix is {matrix.shape[0]} cells × {matrix.shape[1]} genes; there is nothing to write"
        raise ValueError(msg)
    return matrix.tocsr() if sparse.issparse(matrix) else matrix


def dense(block: Any) -> Any:
    """Return rows of any matrix as an array."""
    return block.toarray() if sparse.issparse(block) else np.asarray(block)


def _write_entries(matrix: Any, file: IO[bytes], bar: Any) -> None:
    from scipy.io import mmwrite

    whole = is_integer_counts(matrix)
    blocks = list(row_blocks(matrix, rows_per_block(matrix.shape[1])))
    shape = matrix.shape[::-1]
    n_entries = sum(_entries(matrix[rows]).nnz for rows in blocks)
    kind = "integer" if whole else "real"
    file.write(f"%%MatrixMarket matrix coordinate {kind} general\n{shape[0]} {shape[1]} {n_entries}\n".encode())
    for rows in blocks:
        entries = _entries(matrix[rows])
        values = entries.data.astype(np.int64) if whole else entries.data
        block = sparse.coo_array((values, (entries.col, entries.row + rows.start)), shape=shape)
        text = io.BytesIO()
        mmwrite(text, block, field=kind, symmetry="general")
        text.seek(0)
        while text.readline().startswith(b"%"):  # its header: comments, then the size
            pass
        file.write(text.read())
        bar.update(rows.stop - rows.start)


def _entries(block: Any) -> Any:
    entries = sparse.coo_array(block)
    entries.eliminate_zeros()
    return entries


def _refuse_names(rows: list[tuple[str, ...]]) -> None:
    for row in rows:
        for name in row:
            if not name.strip() or any(mark in name for mark in _UNWRITABLE):
                msg = f"the name {name!r} cannot be written to a file of names, one a line: rename that cell or gene"
                raise ValueError(msg)


def _bar(adata: "AnnData") -> Any:
    return progress_bar(adata.n_obs, "writing", "cell")


@contextmanager
def text_file(path: Path) -> Iterator[IO[str]]:
    """Open a file to write text, gzipped if its suffix says so."""
    with _binary(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as handle:
        yield handle


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write; a gzipped one holds no time and no name, so that the same contents are the same bytes."""
    with path.open("wb") as plain:
        if path.suffix != ".gz":
            yield plain
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=plain, mtime=0) as packed:
            yield packed  # type: ignore[misc]
