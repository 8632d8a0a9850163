"""Counts in, normalised values out: reading, checking and the arithmetic of pre-processing, without AnnData's slots.

Matrices here are canonical `csr_array`s, cells × genes, except where one is read or put back into its container.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._genes import FloatArray
from .io.find import LARGEST_LOG
from .io.matrix import block_csr, counts_matrix, row_blocks, rows_per_block

if TYPE_CHECKING:
    from anndata import AnnData


def checked_counts(adata: "AnnData", layer: str | None) -> Any:
    """Return finite non-negative values as a canonical ``csr_array`` of their own type; `adata` is not changed."""
    x = _csr(counts_matrix(adata, layer))
    if not x.has_canonical_format or not x.data.all():
        x = x.copy()  # may share memory with `adata`
        x.sum_duplicates()
        x.eliminate_zeros()
    refuse_values(x)
    refuse_all_zero(x.nnz, x.shape)
    return x


_BAD_VALUES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "NaN": (np.isnan, "counts are finite: correct or remove them"),
    "infinite": (np.isinf, "counts are finite: correct or remove them"),
    "negative": (lambda values: values < 0, "counts are not negative: give those from before any scaling"),
}


def refuse_values(x: Any, *, first_row: int = 0) -> None:
    """Refuse values that are no counts, whatever the scale; `x` may be a block that begins at `first_row`."""
    for what, (is_bad, remedy) in _BAD_VALUES.items():
        bad = np.flatnonzero(is_bad(x.data))
        if bad.size:
            row, column = first_row + np.searchsorted(x.indptr, bad[0], side="right"), x.indices[bad[0]] + 1
            part = f" in rows {first_row + 1} to {first_row + x.shape[0]}" if first_row else ""
            found = f"{bad.size} of {x.shape[0]} × {x.shape[1]} values{part} are {what}"
            msg = f"{found}, first in row {row}, column {column}; {remedy}"
            raise ValueError(msg)


def refuse_all_zero(n_entries: int, shape: tuple[int, int]) -> None:
    """Refuse a matrix without any entry."""
    if n_entries == 0:
        size = f"{shape[0]} × {shape[1]}"
        msg = f"all of {size} values are zero; counts are needed: check the input, or pass layer= with counts"
        raise ValueError(msg)


def _csr(matrix: Any) -> Any:
    """Return any accepted matrix as a ``csr_array`` in memory; a dense one goes block of rows by block."""
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    if sparse.issparse(matrix):
        return block_csr(matrix)
    blocks = [block_csr(matrix[rows]) for rows in row_blocks(matrix, rows_per_block(matrix.shape[1]))]
    return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_array(matrix.shape)


def refuse_logs(x: Any, *, flagged: bool) -> None:
    """Refuse values that are no counts but logs of them; whole numbers are never logs."""
    if has_fractions(x):
        refuse_small(x.data.max(), flagged=flagged)


def has_fractions(x: Any) -> bool:
    """Return whether some values are not whole numbers."""
    return x.dtype.kind == "f" and not np.array_equal(x.data, np.rint(x.data))


def refuse_small(largest: float, *, flagged: bool) -> None:
    """Refuse values that are not whole numbers if they are said to be logs, or the largest may be one."""
    if flagged or may_be_log(largest):
        why = 'uns["log1p"] is set' if flagged else f"the largest is {largest:.4g}"
        msg = (
            f"values are not whole numbers and look logged already ({why}); counts are needed: "
            "pass layer= with counts, or give processed logs to AutoImpute in Python"
        )
        raise ValueError(msg)


def may_be_log(value: float) -> bool:
    """Return whether a value is so small that it may be the logarithm of a count."""
    return value < LARGEST_LOG


def median_normalised(x: Any, *, reference: bool) -> tuple[Any, FloatArray, dict[str, Any]]:
    """Return values over size factors in float64, the size factor per cell, and what to record.

    The median total, which a cell of size factor 1 has, is over the cells with reads.
    """
    total = np.asarray(x.astype(np.float64).sum(axis=1))
    facts = library_facts(total, reference=reference, stacklevel=5)
    normalised, size_factor, _ = normalised_by(x, facts["median_total"])
    return normalised, size_factor, facts


def library_facts(total_N: FloatArray, *, reference: bool, stacklevel: int) -> dict[str, Any]:
    """Return what to record of the cells' totals, and warn of cells without any; see `report_empty`."""
    report_empty(total_N == 0, reference=reference, stacklevel=stacklevel)
    median, n_empty = float(np.median(total_N[total_N > 0])), int(np.count_nonzero(total_N == 0))
    return {"median_total": median, "n_cells": int(total_N.size), "n_empty_cells": n_empty}


def normalised_by(x: Any, median: float) -> tuple[Any, FloatArray, NDArray[np.bool_]]:
    """Return values over size factors in float64, the size factor (total over `median`), and which cells are empty."""
    x = x.astype(np.float64)
    total = np.asarray(x.sum(axis=1))
    is_empty: NDArray[np.bool_] = total == 0
    size_factor = np.where(is_empty, 1.0, total / median)
    x.data /= np.repeat(size_factor, np.diff(x.indptr))
    return x, size_factor, is_empty


def report_empty(is_empty: NDArray[np.bool_], *, reference: bool, stacklevel: int) -> None:
    """Warn of cells without reads, or refuse them as the R code does; `stacklevel` counts from the caller."""
    n_empty, n_cells = int(np.count_nonzero(is_empty)), is_empty.size
    if n_empty == 0:
        return
    found = f"{n_empty} of {n_cells} cells have no reads in the genes that were kept"
    if reference:
        msg = f"{found}, over which the R code fails; remove them, or use reference=False, which leaves them zero"
        raise ValueError(msg)
    warnings.warn(
        f"{found}; they stay zero and their size factor is 1; consider removing them", stacklevel=stacklevel + 1
    )


def log2_plus_one(x: Any) -> Any:
    result = x.copy()
    result.data = np.log2(x.data + 1)  # as R's log2(x + 1); log1p(x) / log(2) differs in the last bits
    return result


def in_container_of(matrix: Any, values: Any) -> Any:
    """Return `values` (a ``csr_array``) in the container that `matrix` has: dense, or its sparse format and class."""
    if not sparse.issparse(matrix):
        return values.toarray()
    is_matrix = isinstance(matrix, sparse.spmatrix)
    if matrix.format == "csc":
        return sparse.csc_matrix(values) if is_matrix else values.tocsc()
    return sparse.csr_matrix(values) if is_matrix else values
