"""Which bulk RNA-seq belongs to which single cells, and reading it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..io.checks import BadContentError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAIRS", "Pair", "columns_of_lines", "find_bulk", "read_bulk"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Single cells and the bulk of the same lines.

    Attributes
    ----------
    dataset, bulk
        Names of their files: without ``.h5ad``, and the beginning of the bulk's.
    lines
        Label in `obs` of the cells (None for all) → what the names of its columns in the bulk have in them.
    """

    dataset: str
    bulk: str
    lines: dict[str | None, str]


_FIVE: dict[str | None, str] = {line: f"{line}_" for line in ("A549", "H838", "H2228", "H1975", "HCC827")}
_THREE: dict[str | None, str] = {line: _FIVE[line] for line in ("H1975", "H2228", "HCC827")}
PAIRS = (
    Pair("tung_NA19098", "bulk_tung_ipsc", {None: "NA19098."}),
    Pair("jurkat_293t", "bulk_jurkat_293t", {"293t": "_293t", "jurkat": "_jurkat"}),
    Pair("mixology_sc_celseq2", "bulk_5cl", _THREE),
    Pair("mixology_sc_dropseq", "bulk_5cl", _THREE),
    Pair("mixology_sc_celseq2_5cl", "bulk_5cl", _FIVE),
)
_SUFFIXES = (".csv", ".csv.gz")


def find_bulk(dataset: str, *, folders: Iterable[Path]) -> tuple[Path, dict[str | None, str]] | None:
    """Look for the bulk of a data set: that of the table, else ``bulk_NAME.csv``, all columns of which are replicates.

    Parameters
    ----------
    dataset
        Its name.
    folders
        Where to look, the first that has it wins.

    Returns
    -------
    The file, and what `Pair.lines` is; None if there is none.
    """
    pair = next((pair for pair in PAIRS if pair.dataset == dataset), Pair(dataset, f"bulk_{dataset}", {None: ""}))
    for folder in folders:
        found = sorted(p for suffix in _SUFFIXES for p in folder.glob(f"{pair.bulk}*{suffix}"))
        if found:
            return found[0], pair.lines
    return None


def columns_of_lines(path: Path, *, lines: dict[str | None, str]) -> dict[str, tuple[str | None, list[str]]]:
    """Say which columns of a bulk file are replicates of which line.

    Parameters
    ----------
    path
        The file.
    lines
        As in `Pair`.

    Returns
    -------
    Name of the line → label of its cells, and its columns.

    Raises
    ------
    ValueError
        If a line has no column.
    """
    columns = list(read_bulk(str(path)).columns)
    found = {label: [name for name in columns if part in name] for label, part in lines.items()}
    missing = [lines[label] for label, names in found.items() if not names]
    if missing:
        msg = f"{path.name} has no column with {missing[0]!r} in its name, found are {', '.join(columns)}: rename them"
        raise BadContentError(msg)
    return {label or lines[label].rstrip(".") or "all cells": (label, names) for label, names in found.items()}


def read_bulk(path: str) -> "pd.DataFrame":
    """Read bulk counts, genes × replicates, from the CSV file at `path`; genes of one symbol are added up.

    Returns
    -------
    Numeric columns only; named by the column ``symbol`` if there is one, else by the first.

    Raises
    ------
    ValueError
        If no column holds non-negative numbers.
    """
    import pandas as pd

    table = pd.read_csv(path, index_col=0)
    if "symbol" in table.columns:
        table = table.set_index("symbol")
    counts = table.select_dtypes("number")
    if counts.empty or not (counts >= 0).all(axis=None):
        msg = (
            f"{Path(path).name} holds no bulk counts: give genes in rows, replicates in columns, numbers of at least 0"
        )
        raise BadContentError(msg)
    return counts.groupby(level=0).sum()
