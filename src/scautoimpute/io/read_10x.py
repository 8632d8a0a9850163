"""Read Matrix Market and 10x Genomics files: a matrix, and the names of its rows and columns in files beside it."""

import csv
import gzip
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from scipy import sparse

from .checks import BadContentError, WithoutNul
from .hdf5 import open_hdf5
from .matrix import narrowed

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData

__all__ = ["gene_expression_only", "group_10x", "read_10x_folder", "read_10x_h5", "read_mtx"]

_GENE_EXPRESSION = "Gene Expression"
_ROLES = {"genes": ("features", "genes"), "cells": ("barcodes", "cells"), "rows": ("rows",), "columns": ("cols",)}
_Names = dict[str, "pd.DataFrame"]


def read_10x_h5(path: Path) -> "AnnData":
    """Read the HDF5 file of Cell Ranger, version 2 or later."""
    import scanpy

    with open_hdf5(path) as file:
        group_10x(file)
    return gene_expression_only(scanpy.read_10x_h5(path, gex_only=False), stacklevel=6)


def group_10x(file: "h5py.File") -> "h5py.Group":
    """Return the group that holds the counts, or refuse a file that has none, or several."""
    import h5py

    groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and "barcodes" in item]
    if not groups:
        msg = "this HDF5 file is not 10x output (no barcodes in it); give a 10x .h5, or name an AnnData file .h5ad"
        raise BadContentError(msg)
    if len(groups) > 1:
        msg = f"it holds several genomes ({', '.join(groups)}); save the one you want as .h5ad with "
        msg += "scanpy.read_10x_h5(file, genome=...)"
        raise BadContentError(msg)
    return file[groups[0]]


def read_10x_folder(folder: Path) -> "AnnData":
    """Read a folder of Cell Ranger, any version: ``matrix.mtx``, barcodes and features."""
    matrix_file = _file_of(folder, "matrix.mtx")
    features = _names_table(_file_of(folder, "features.tsv", "genes.tsv"))
    barcodes = _names_table(_file_of(folder, "barcodes.tsv"))
    matrix = _matrix(matrix_file)
    if matrix.shape != (len(features), len(barcodes)):
        msg = (
            f"{matrix_file.name} is {matrix.shape[0]} × {matrix.shape[1]}, but there are {len(features)} features and "
            f"{len(barcodes)} barcodes; genes × cells is needed: the files do not belong together"
        )
        raise BadContentError(msg)
    return _assembled(matrix.T, cells=barcodes, genes=features)


def read_mtx(path: Path, *, transpose: bool = False) -> "AnnData":
    """Read a matrix in Matrix Market format, with the names in files beside it if there are any.

    Their number decides which side of the matrix holds the cells; with no names, or as many of both, it is what is
    assumed: a warning says so.
    """
    names, matrix = _names_beside(path), _matrix(path)
    is_turned = _is_genes_by_cells(path, matrix.shape, names, transpose=transpose)
    sides = ("columns", "rows") if is_turned else ("rows", "columns")
    matrix = matrix.T if is_turned else matrix
    cells, genes = names.get("cells", names.get(sides[0])), names.get("genes", names.get(sides[1]))
    return _assembled(
        matrix,
        cells=_numbered("cell", matrix.shape[0]) if cells is None else cells,
        genes=_numbered("gene", matrix.shape[1]) if genes is None else genes,
    )


def _matrix(path: Path) -> Any:
    """Return the values of a Matrix Market file as a ``csr_matrix`` of floats, rows as in the file."""
    from scipy.io import mmread

    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "rb") as stream, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The default value for `spmatrix`")  # either kind of matrix will do
        matrix = mmread(WithoutNul(stream))
    if matrix.dtype.kind not in "biuf":
        msg = f"it holds values of type {matrix.dtype}; a matrix of numbers is needed: convert it"
        raise BadContentError(msg)
    return narrowed(sparse.csr_matrix(matrix, dtype=np.float64))


def _assembled(matrix: Any, *, cells: "pd.DataFrame", genes: "pd.DataFrame") -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    # Columns of the table: gene id, gene symbol, feature type; older and other writers leave out the last ones.
    var = pd.DataFrame(index=genes[min(1, genes.shape[1] - 1)].to_numpy())
    if genes.shape[1] > 1:
        var["gene_ids"] = genes[0].to_numpy()
    if genes.shape[1] > 2:
        var["feature_types"] = genes[2].to_numpy()
    obs = pd.DataFrame(index=cells[0].to_numpy())
    return gene_expression_only(AnnData(sparse.csr_matrix(matrix), obs=obs, var=var), stacklevel=7)


def _file_of(folder: Path, *names: str) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    inside = sorted(found.parent.name for found in folder.glob("*/matrix.mtx*"))
    hint = f"the folder {inside[0]} in it does: give that" if inside else "give a file, or a folder written by 10x"
    msg = f"this folder holds no {' or '.join(names)} (or .gz), so it is not 10x output; {hint}"
    raise BadContentError(msg)


def _names_table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    # Genes called "NA" and quotes within names are names like any other.
    table = pd.read_csv(
        path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE, encoding="utf-8"
    )
    return cast("pd.DataFrame", table)


# -------------------------------------------------------------------------------------- names beside a matrix


def _names_beside(path: Path) -> _Names:
    """Return the tables of names that lie beside a matrix, under what they name."""
    stem = path.name[: path.name.lower().rindex(".mtx")]
    beginnings = [f"{stem}_", f"{stem}.", f"{stem}-", *([stem[:-6]] if stem.lower().endswith("matrix") else []), ""]
    for beginning in beginnings:
        found = {role: file for role, kinds in _ROLES.items() if (file := _first_file(path.parent, beginning, kinds))}
        if found:
            return {role: _names_table(file) for role, file in found.items()}
    return {}


def _first_file(folder: Path, beginning: str, kinds: tuple[str, ...]) -> Path | None:
    ends = (f"{beginning}{kind}{suffix}{gz}" for kind in kinds for suffix in (".tsv", ".txt") for gz in ("", ".gz"))
    return next((folder / end for end in ends if (folder / end).is_file()), None)


def _is_genes_by_cells(path: Path, shape: tuple[int, int], names: _Names, *, transpose: bool) -> bool:
    """Decide by the number of names; refuse names that fit neither way, and say what is assumed where both would."""
    lengths = {side: len(table) for side, table in names.items()}
    fits = {turned: _fits(lengths, shape, turned=turned) for turned in (False, True)}
    if not any(fits.values()):
        found = ", ".join(f"{count} {side}" for side, count in lengths.items())
        msg = f"it is {shape[0]} × {shape[1]}, but the files beside it name {found}: they do not belong together"
        raise BadContentError(msg)
    if transpose and not fits[True]:
        msg = f"it is cells × genes by the names beside it ({shape[0]} cells): leave out transpose (--transpose)"
        raise BadContentError(msg)
    if all(fits.values()) and not transpose:
        return _assumed(path, shape, names)
    return transpose or fits[True]


def _fits(lengths: dict[str, int], shape: tuple[int, int], *, turned: bool) -> bool:
    n_cells, n_genes = shape[::-1] if turned else shape
    expected = {"cells": n_cells, "genes": n_genes, "rows": shape[0], "columns": shape[1]}
    return all(expected[side] == count for side, count in lengths.items())


def _assumed(path: Path, shape: tuple[int, int], names: _Names) -> bool:
    by_10x = bool(names.keys() & {"cells", "genes"})
    axes: Literal["genes × cells", "cells × genes"] = "genes × cells" if by_10x else "cells × genes"
    unnamed = " and no file beside it names its rows and columns, which are numbered" if not names else ""
    advice = "" if by_10x else ": give transpose=True (--transpose on the command line) if it is genes × cells"
    warnings.warn(
        f"{path} is {shape[0]} × {shape[1]}{unnamed}; nothing tells cells from genes, it is taken as {axes}{advice}",
        stacklevel=6,
    )
    return by_10x


def _numbered(kind: str, count: int) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({0: [f"{kind}_{number}" for number in range(1, count + 1)]})


def gene_expression_only(adata: "AnnData", *, stacklevel: int) -> "AnnData":
    """Return an object without other features, and warn of what is left out."""
    if "feature_types" not in adata.var:
        return adata
    kinds = np.asarray(adata.var["feature_types"]).astype(str)
    others = Counter(kinds[kinds != _GENE_EXPRESSION].tolist())
    if not others:
        return adata
    left_out = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
    warnings.warn(f"only {_GENE_EXPRESSION} is kept; left out: {left_out}", stacklevel=stacklevel)
    return cast("AnnData", adata[:, kinds == _GENE_EXPRESSION].copy())
