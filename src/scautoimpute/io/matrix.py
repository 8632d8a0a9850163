"""Everything that knows dense from sparse from backed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import DTypeLike, NDArray

__all__ = [
    "CELLS_PER_BLOCK",
    "RAW",
    "as_observed",
    "block_csr",
    "blocks_of",
    "counts_matrix",
    "evenly_spaced",
    "is_integer_counts",
    "is_lazy",
    "matrix_and_names",
    "named_layers",
    "narrowed",
    "of_columns",
    "raw_positions",
    "refuse_shape",
    "row_blocks",
    "row_sums",
    "rows_per_block",
    "to_csr",
]

RAW = "raw"  # how ``adata.raw`` is called where a layer is asked for
CELLS_PER_BLOCK = 2048  # where blocks of modelled genes are processed
_VALUES_PER_BLOCK = 4_000_000  # 32 MB of float64
_LARGEST_COUNT = 2**53  # float64 holds no odd number above
_LARGEST_EXACT = 2**24  # whole numbers up to here survive float32


def counts_matrix(adata: "AnnData", layer: str | None = None) -> Any:
    """Return ``adata.X``, or ``adata.layers[layer]``, as it is stored: dense, sparse or backed.

    `layer="raw"` is ``adata.raw``, unless a layer has that name: its values of the object's genes, in their order.

    Raises
    ------
    ValueError
        If there is no such layer (the message lists those that exist), no `X`, or `raw` lacks genes of the object.

    Examples
    --------
    >>> import anndata
    >>> adata = anndata.AnnData(np.array([[1.0, 2.0]]))
    >>> adata.raw = adata.copy()
    >>> counts_matrix(adata[:, ["1"]], "raw").tolist()
    [[2.0]]
    """
    if layer is None:
        if adata.X is None:
            msg = f"the object has no X; {_layers_in_words(adata)}: name the one that holds the counts with layer="
            raise ValueError(msg)
        return adata.X
    if layer == RAW and layer not in adata.layers and adata.raw is not None:
        return _raw_matrix(adata)
    if layer not in adata.layers:
        msg = f"there is no layer {layer!r}; {_layers_in_words(adata)}: leave layer= out to take X, or name another"
        raise ValueError(msg)
    return adata.layers[layer]


def named_layers(adata: "AnnData") -> dict[str, Any]:
    """Layers by name; since anndata 0.13 its own mapping holds `X` as well, under None."""
    return {name: matrix for name, matrix in adata.layers.items() if name is not None}


def as_observed(
    data: Any, *, layer: str | None = None, dtype: "DTypeLike | None" = None
) -> tuple[Any, "pd.Index[str] | None", "pd.Index[str] | None"]:
    """Return the observed entries of a cells × genes matrix, and the names of its cells and genes.

    Zeros, stored or not, and NaN count as missing: only positive entries are observed (eq. 8).

    Parameters
    ----------
    data
        AnnData, DataFrame, array or scipy sparse matrix of any format; it is not changed.
    layer
        With AnnData, the layer to take instead of `X`.
    dtype
        Floating type of the values; float32 by default.

    Returns
    -------
    A canonical ``csr_array`` (sorted indices, no duplicates, no stored zeros), the cell names and the gene names;
    the names are None for matrices that have none.

    Raises
    ------
    ValueError
        If the matrix is not two-dimensional, empty, not numeric, or holds negative or infinite entries.
    TypeError
        If `data` is none of the accepted kinds.

    Notes
    -----
    Time and memory grow with the number of observed entries plus one block of rows of a dense or backed matrix.

    Examples
    --------
    >>> matrix, cells, genes = as_observed(np.array([[0.0, 2.0], [np.nan, 1.0]]))
    >>> matrix.nnz, cells, genes
    (2, None, None)
    """
    matrix, obs_names, var_names = matrix_and_names(data, layer=layer)
    refuse_shape(matrix)
    observed = to_csr(matrix)
    observed.data[np.isnan(observed.data)] = 0
    _refuse_values(observed.data)
    with np.errstate(over="ignore"):
        observed = observed.astype(np.float32 if dtype is None else dtype)
    _refuse_infinite(observed.data)
    observed.eliminate_zeros()
    return observed, obs_names, var_names


def evenly_spaced(n: int, at_most: int) -> "NDArray[np.intp]":
    """Positions of at most so many of `n` things, from the first to the last.

    Examples
    --------
    >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, n - 1, min(n, at_most)).astype(np.intp)


def row_blocks(matrix: Any, size: int, *, among: slice | None = None) -> Iterator[slice]:
    """Yield slices of `size` consecutive rows (fewer in the last) that cover `matrix`.

    Parameters
    ----------
    matrix
        What has rows.
    size
        Of a slice.
    among
        Which rows to cover; by default all.

    Examples
    --------
    >>> list(row_blocks(np.zeros((5, 2)), 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    if size < 1:
        msg = f"a block of {size} rows was asked for; at least 1 is needed"
        raise ValueError(msg)
    first, last = (0, matrix.shape[0]) if among is None else (among.start, among.stop)
    return (slice(start, min(start + size, last)) for start in range(first, last, size))


def blocks_of(matrix: Any, size: int) -> Iterator[tuple[slice, Any]]:
    """Yield what `row_blocks` yields, and these rows; by way of `matrix.blocks` if it has a way of its own to them.

    Examples
    --------
    >>> [(rows.stop, block.shape) for rows, block in blocks_of(np.zeros((5, 2)), 3)]
    [(3, (3, 2)), (5, (2, 2))]
    """
    if hasattr(matrix, "blocks"):
        yield from matrix.blocks(size)
        return
    for rows in row_blocks(matrix, size):
        yield rows, matrix[rows]


def of_columns(block: Any, positions: "NDArray[np.intp]") -> Any:
    """Return some columns of a matrix, or the matrix itself if they are as many as it has."""
    return block if positions.size == block.shape[1] else block[:, positions]


def rows_per_block(n_columns: int) -> int:
    """Return how many rows of `n_columns` values make a dense block of about 32 MB of float64."""
    return max(1, _VALUES_PER_BLOCK // max(1, n_columns))


def row_sums(matrix: Any) -> "NDArray[np.float64]":
    """Return the total of each row of a dense or sparse matrix, in float64 whatever the type of its values."""
    return np.asarray(matrix.sum(axis=1, dtype=np.float64), dtype=np.float64).ravel()


def is_lazy(matrix: Any) -> bool:
    """Return whether a matrix is an array of dask, which is computed when it is asked to be."""
    return hasattr(matrix, "dask") and hasattr(matrix, "compute")


def block_csr(block: Any) -> Any:
    """Return rows that were read from a dense, sparse, backed or dask matrix as a ``csr_array`` of numbers."""
    if is_lazy(block):
        block = block.compute()
    if not sparse.issparse(block):
        block = np.asarray(block)
    if block.dtype.kind not in "biuf":
        msg = f"found values of type {block.dtype}; a matrix of numbers is needed: convert it, or drop that column"
        raise ValueError(msg)
    return sparse.csr_array(block.astype(np.float32) if block.dtype == np.float16 else block)


def narrowed(matrix: Any) -> Any:
    """Return `matrix` as float32 unless whole numbers would lose digits or values would leave its range."""
    values = matrix.data[np.isfinite(matrix.data)]
    size = np.abs(values)
    large = values[size > _LARGEST_EXACT]
    with np.errstate(over="ignore", under="ignore"):
        loses = np.any(large.astype(np.float32) != large) or np.any(size.astype(np.float32) == 0)
    return matrix if loses else matrix.astype(np.float32)


def is_integer_counts(matrix: Any) -> bool:
    """Return whether every value is a whole number and none is negative, reading a block of rows at a time.

    Examples
    --------
    >>> is_integer_counts(np.array([[0.0, 2.0]])), is_integer_counts(np.array([[0.0, 2.5]]))
    (True, False)
    """
    return all(_are_counts(values) for values in _stored_values(matrix))


def _are_counts(values: "NDArray[Any]") -> bool:
    return bool(np.all((values >= 0) & (values <= _LARGEST_COUNT) & (values == np.floor(values))))


def _layers_in_words(adata: "AnnData") -> str:
    names = named_layers(adata)
    layers = f"its layers are {', '.join(map(repr, names))}" if names else "it has no layers"
    return layers if adata.raw is None else f"{layers}, and it has {RAW!r}"


def _raw_matrix(adata: "AnnData") -> Any:
    """Return ``adata.raw.X`` as it is stored where it has the genes of `adata`, else those of its columns."""
    position = raw_positions(adata)
    return adata.raw.X if position is None else adata.raw.X[:, position]


def raw_positions(adata: "AnnData") -> "NDArray[np.intp] | None":
    """Return where the genes of `adata` are among those of its `raw`, or None if they are the same in this order."""
    from anndata.utils import make_index_unique

    raw = adata.raw
    if raw.var_names.equals(adata.var_names):
        return None
    names = raw.var_names if raw.var_names.is_unique else make_index_unique(raw.var_names)
    position = names.get_indexer(adata.var_names)
    n_missing = int(np.count_nonzero(position < 0))
    if n_missing:
        gene = adata.var_names[np.flatnonzero(position < 0)[0]]
        msg = f"raw lacks {n_missing} of the object's {adata.n_vars} genes, such as {gene!r}: put the counts in a layer"
        raise ValueError(msg)
    return None if np.array_equal(position, np.arange(len(names))) else position


def matrix_and_names(data: Any, *, layer: str | None = None) -> tuple[Any, Any, Any]:
    """Return the matrix of an AnnData (or its `layer`), DataFrame or array as it is, and its cell and gene names."""
    import pandas as pd
    from anndata import AnnData

    if isinstance(data, AnnData):
        return counts_matrix(data, layer), data.obs_names, data.var_names
    if layer is not None:
        msg = f"layer={layer!r} was given with a {type(data).__name__}; only AnnData has layers: leave it out"
        raise ValueError(msg)
    if isinstance(data, pd.DataFrame):
        names = (pd.Index(np.asarray(axis).astype(str), dtype=object) for axis in (data.index, data.columns))
        return data.to_numpy(), *names
    if not (isinstance(data, np.ndarray) or sparse.issparse(data)):
        msg = f"found a {type(data).__name__}; allowed are AnnData, DataFrame, ndarray and scipy sparse matrices"
        raise TypeError(msg)
    return data, None, None


def refuse_shape(matrix: Any) -> None:
    """Refuse a matrix that is not two-dimensional, or is empty."""
    shape = tuple(matrix.shape)
    if len(shape) != 2:
        msg = f"found {len(shape)} dimension{'s' * (len(shape) != 1)}, shape {shape}; cells × genes is needed: reshape"
        raise ValueError(msg)
    if 0 in shape:
        msg = f"found an empty matrix, {shape[0]} cells × {shape[1]} genes; at least one of each is needed"
        raise ValueError(msg)


def to_csr(matrix: Any) -> Any:
    """Return a new ``csr_array`` that shares no memory with `matrix` and holds floats without duplicate entries."""
    if sparse.issparse(matrix):
        merged = _floating(block_csr(matrix)).copy()
    elif hasattr(matrix, "to_memory"):  # backed sparse
        merged = _floating(block_csr(matrix.to_memory()))
    else:
        blocks = row_blocks(matrix, rows_per_block(matrix.shape[1]))
        merged = sparse.vstack([_floating(block_csr(matrix[rows])) for rows in blocks], format="csr")
    merged.sum_duplicates()
    return merged


def _floating(matrix: Any) -> Any:
    return matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64)


def _refuse_values(values: "NDArray[np.floating[Any]]") -> None:
    _refuse_infinite(values)
    n_negative = int(np.count_nonzero(values < 0))
    if n_negative:
        msg = (
            f"found {n_negative} negative {'entry' if n_negative == 1 else 'entries'} (min {values.min():.4g}): "
            f"the masked objective takes log2(normalised + 1), which is never negative; give unscaled data"
        )
        raise ValueError(msg)


def _refuse_infinite(values: "NDArray[np.floating[Any]]") -> None:
    n_infinite = int(np.count_nonzero(np.isinf(values)))
    if n_infinite:
        entries = "entry" if n_infinite == 1 else "entries"
        msg = (
            f"found {n_infinite} infinite {entries}; finite values are needed: set them to NaN (missing) or remove them"
        )
        raise ValueError(msg)


def _stored_values(matrix: Any) -> Iterator["NDArray[Any]"]:
    """Yield the values of a matrix in pieces; zeros that a sparse matrix does not store are left out."""
    if sparse.issparse(matrix):
        data = matrix.data if matrix.format in {"csr", "csc", "coo", "bsr"} else matrix.tocsr().data
        for piece in row_blocks(data, _VALUES_PER_BLOCK):
            yield data[piece]
        return
    for rows in row_blocks(matrix, rows_per_block(matrix.shape[1])):
        block = matrix[rows].compute() if is_lazy(matrix) else matrix[rows]
        yield block.data if sparse.issparse(block) else np.asarray(block)
