"""Read a text table of numbers, a block of rows at a time."""

import csv
import gzip
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from scipy import sparse

from .checks import BadContentError, WithoutNul, one_line
from .matrix import narrowed, rows_per_block

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["read_text"]

_AS_TEXT = ":"  # before a name, or pandas 3.1 finds numbers and missing values among them


def read_text(path: Path) -> "AnnData":
    """Read a table with gene names in its first line and cell names in its first column, gzipped or not."""
    import pandas as pd
    from anndata import AnnData

    try:
        names, header, matrix = _text_parts(path)
    except pd.errors.ParserError as error:
        raise BadContentError(_ragged_in_words(error)) from error
    except UnicodeDecodeError as error:
        msg = "it is not UTF-8 text; save it as plain CSV in UTF-8"
        raise BadContentError(msg) from error
    n_missing = int(np.count_nonzero(np.isnan(matrix.data)))
    if n_missing:
        warnings.warn(
            f"{path} has {n_missing} empty or NA fields: they are NaN; fill or remove them before imputing counts",
            stacklevel=4,
        )
    obs, var = pd.DataFrame(index=pd.Index(names, dtype=object)), pd.DataFrame(index=pd.Index(header, dtype=object))
    return AnnData(narrowed(matrix), obs=obs, var=var)


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
            if frame.iloc[:, -1].isna().any():  # which a short row looks like too
                _refuse_short_rows(path, separator, frame.shape[1])
            names += frame[0].tolist()
            blocks.append(sparse.csr_matrix(frame.iloc[:, 1:].to_numpy(np.float64)))
    if not blocks:
        msg = "it has no rows; a line of gene names and one line for each cell are needed"
        raise BadContentError(msg)
    return names, genes, sparse.vstack(blocks, format="csr")


@contextmanager
def _open_text(path: Path) -> Iterator[tuple[TextIO, str]]:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else Path.open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
        first = handle.readline()
        handle.seek(0)
        kind = path.name.lower().removesuffix(".gz")[-4:]
        separator = {".csv": ",", ".tsv": "\t"}.get(kind) or next((mark for mark in "\t, " if mark in first), "\t")
        yield cast("TextIO", WithoutNul(handle)), separator


def _frames(handle: TextIO, *, separator: str, n_columns: int) -> "Iterator[pd.DataFrame]":
    """Yield blocks of rows; cell names stay text, and numbers are found column by column."""
    import pandas as pd

    # The nearest number to what is written, which pandas reads by default since 3.1
    is_old = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if is_old else {}
    try:
        for frame in pd.read_csv(
            handle,
            sep=separator,
            header=None,
            converters={0: _AS_TEXT.__add__},
            low_memory=False,
            chunksize=rows_per_block(n_columns),
            **exact,
        ):
            frame[0] = frame[0].str.removeprefix(_AS_TEXT)
            yield frame
    except pd.errors.EmptyDataError:
        return


def _refuse_width(header: list[str], n_fields: int) -> None:
    if n_fields < 2:
        msg = (
            "its rows have one field; fields are separated by commas in .csv and by tabs in .tsv: rename or convert it"
        )
        raise BadContentError(msg)
    is_short = len(header) == n_fields - 1 and header[0] != ""
    if len(header) != n_fields and not is_short:
        msg = f"its first line has {len(header)} fields, its rows {n_fields}; one name for each column is needed"
        raise BadContentError(msg)


def _refuse_short_rows(path: Path, separator: str, n_fields: int) -> None:
    """Refuse a row that ends too early, which the parser fills up with NaN."""
    with _open_text(path) as (handle, _):
        reader = csv.reader(handle, delimiter=separator)
        next(reader)
        for row in reader:
            if row and len(row) < n_fields:
                msg = (
                    f"line {reader.line_num} has {len(row)} fields, others {n_fields}; every row needs the same number"
                )
                raise BadContentError(msg)


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
            raise BadContentError(msg)
        frame[column] = numbers


def _ragged_in_words(error: Exception) -> str:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found is None:
        return f"the text cannot be parsed ({one_line(error)}); one line for each cell is needed"
    expected, line, saw = (int(number) for number in found.groups())
    # The parser's first line is the file's second: the gene names are read before.
    return f"line {line + 1} has {saw} fields, the lines before it {expected}; every row needs the same number"
