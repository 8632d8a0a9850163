"""Copy what an anndata file holds of some genes: a piece at a time, what has a row for each cell."""

from typing import TYPE_CHECKING, Any

from .._stops import raise_kept_stop
from ._arrays_on_disk import CsrOnDisk, new_dense
from ._copying import any_strings, copy_attributes, is_hdf5, packing
from .matrix import CELLS_PER_BLOCK, row_blocks
from .read import streaming

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .stream import StoredCells, StoredMatrix

__all__ = ["OF_GENES", "copy_columns", "copy_genes"]

OF_GENES = ("X", "layers", "var", "varm", "varp")


def copy_genes(
    cells: "StoredCells", target: Any, *, genes_O: "NDArray[Any]", but: set[str], compression: str | None
) -> None:
    """Write all that `OF_GENES` names to the root of a new file, of the genes at the positions `genes_O`.

    Parameters
    ----------
    cells
        What to copy.
    target
        The root of the new file.
    genes_O
        Positions, in the order of the output.
    but
        Names of layers that are left out.
    compression
        Of the matrices; as of `Storage`.
    """
    if cells.X is not None:
        copy_columns(cells.X, target, "X", genes_O, compression)
    layers = target.create_group("layers")
    if "layers" in cells.root:
        copy_attributes(cells.root["layers"], layers, cells.path)
    for name, layer in cells.layers.items():
        if name not in but:
            copy_columns(layer, layers, name, genes_O, compression)
    _copy_annotation(cells, target, genes_O)


def copy_columns(
    matrix: "StoredMatrix", group: Any, name: str, genes_O: "NDArray[Any]", compression: str | None
) -> None:
    """Write a matrix, some columns of it, a block of rows at a time."""
    shape = matrix.shape[0], len(genes_O)
    if getattr(matrix, "format", None) == "csc":
        from anndata.io import write_elem

        packed = packing(compression, hdf5=is_hdf5(group))
        write_elem(group, name, matrix.by_rows()[:, genes_O].tocsc(), dataset_kwargs=packed)
        return
    is_sparse = hasattr(matrix, "format")
    dtype = matrix[0:1].dtype  # half precision is widened where it is sparse
    make: Any = CsrOnDisk if is_sparse else new_dense
    written = make(group, name, shape=shape, dtype=dtype, compression=compression)
    for rows in row_blocks(matrix, CELLS_PER_BLOCK):
        raise_kept_stop()
        block = matrix[rows][:, genes_O]
        if is_sparse:
            block.sort_indices()
            written.append(block)
        else:
            written[rows] = block


def _copy_annotation(cells: "StoredCells", target: Any, genes_O: "NDArray[Any]") -> None:
    """Write `var`, `varm` and `varp` as anndata has them of ``adata[:, genes]``."""
    from anndata import AnnData
    from anndata.io import read_elem, write_elem

    with streaming(cells.path):
        found = {name: read_elem(cells.root[name]) for name in ("var", "varm", "varp") if name in cells.root}
    if "var" in cells.renamed:
        found["var"].index = cells.var_names
    some = AnnData(**found)[:, genes_O].copy()
    with any_strings():
        for name in found:
            value = getattr(some, name)
            write_elem(target, name, value if name == "var" else dict(value))
