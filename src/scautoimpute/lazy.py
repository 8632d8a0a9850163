"""Imputed expression that is computed when it is looked at: a dask array of cells × genes.

Shape legend: N cells, B cells of a block, G genes of the data, S modelled genes of the array.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._application import recipe_of
from ._batches import batch_positions
from ._counts import refuse_logs, refuse_values
from ._counts_layer import Batches, CountsOutput
from ._counts_run import batch_labels, depths
from ._estimand import keeps_observed
from ._masked_layer import MaskedOutput
from ._output_form import OutputForm, Shown
from ._recipe import FittedRecipe, aligned_genes
from ._refusals import refuse_for_counts, refuse_for_masked
from ._umi import molecules, refuse_fractions
from .autoimpute import AutoImpute
from .errors import MissingDependencyError
from .io.checks import refuse_transposed
from .io.matrix import block_csr, counts_matrix, row_sums
from .scales import check_scale

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from dask.array import Array
    from numpy.typing import NDArray

    from .scales import Scale

    Estimate = Callable[[Any, slice], NDArray[np.float32]]

__all__ = ["imputed_lazy"]

CELLS_PER_CHUNK = 2048


def imputed_lazy(
    adata: "AnnData",
    model: "AutoImpute | str | Path",
    *,
    layer: str | None = None,
    output_genes: Iterable[str] | None = None,
    batch_key: str | None = None,
    as_batch: str | None = None,
    scale: "Scale" = "log1p",
    depth: "float | NDArray[np.floating[Any]] | None" = None,
    keep_observed: bool | None = None,
    cells_per_chunk: int = CELLS_PER_CHUNK,
) -> "Array":
    """Return imputed expression as a dask array, of which only what is computed takes time and memory.

    Its values are those of the modelled genes in the layer that `scautoimpute.tl.autoimpute` makes with the same
    `model` and options. Each chunk is of some cells, and reads and imputes these alone: a few genes of many cells cost
    as much as all genes of them, a few cells of many cost little.

    Parameters
    ----------
    adata
        Counts, cells × genes: in memory, backed by a file, or of `anndata.experimental.read_lazy`; it is not changed.
    model
        A trained `AutoImpute` that knows its pre-processing, or the file that it was saved to.
    layer
        Where the counts are; `X` by default.
    output_genes
        Names of the genes to give, in this order: some that the model and the data have. By default all of these, in
        the order of the data, so that with `names = adata.var_names[adata.var_names.isin(model.genes_)]` column `i` is
        gene `names[i]`.
    batch_key, as_batch, scale, depth, keep_observed
        As of `scautoimpute.tl.autoimpute`.
    cells_per_chunk
        Cells that are computed at a time, if the counts are no dask array, which has chunks of its own.

    Returns
    -------
    Array of float32, cells × genes.

    Raises
    ------
    MissingDependencyError
        If dask is not installed.
    NotFittedError
        If `model` has not been trained.
    ValueError
        If the data do not fit the model, or an option is unknown or has no effect with its objective; when it is
        computed, if values are no counts, or logs by ``uns["log1p"]``.

    Warns
    -----
    UserWarning
        If genes of the model are missing.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> model = sai.AutoImpute("masked", n_folds=1, random_state=0)
    >>> sai.tl.autoimpute(adata, model=model, matrix=False)
    >>> imputed = sai.imputed_lazy(adata, model, output_genes=model.genes_[:3])
    >>> imputed[:5].compute().shape
    (5, 3)
    """
    array = _dask_array()
    check_scale(scale)
    estimator = model if isinstance(model, AutoImpute) else AutoImpute.load(model)
    recipe_of(estimator)
    refuse_transposed(adata)
    asked: dict[str, Any] = {"scale": scale, "genes": output_genes}
    if estimator.settings.objective == "counts":
        refuse_for_counts(scale, depth, keep_observed, None)
        asked |= {"batch_key": batch_key, "as_batch": as_batch, "depth": depth}
        estimate, n_genes = _of_counts(adata, estimator, **asked)
    else:
        refuse_for_masked(scale, depth, {"batch_key": batch_key, "as_batch": as_batch})
        logs_said = layer is None and "log1p" in adata.uns
        estimate, n_genes = _of_masked(adata, estimator, keep_observed=keep_observed, logs_said=logs_said, **asked)
    counts = _by_rows(counts_matrix(adata, layer), cells_per_chunk, array)
    return cast(
        "Array",
        counts.map_blocks(
            _block, estimate, dtype=np.float32, chunks=(counts.chunks[0], (n_genes,)), meta=np.empty((0, 0), np.float32)
        ),
    )


def _dask_array() -> Any:
    try:
        import dask.array
    except ImportError as error:
        msg = 'imputed_lazy needs dask, which is not installed: pip install "scautoimpute[lazy]"'
        raise MissingDependencyError(msg) from error
    return dask.array


def _by_rows(matrix: Any, cells_per_chunk: int, array: Any) -> Any:
    """Return counts as a dask array whose chunks hold all genes."""
    if isinstance(matrix, array.Array):
        return matrix.rechunk({1: -1})
    if cells_per_chunk < 1:
        msg = f"cells_per_chunk={cells_per_chunk} is no number of cells: give at least 1"
        raise ValueError(msg)
    if getattr(matrix, "format", "csr") != "csr":  # rows cannot be taken one block at a time
        matrix = (matrix.to_memory() if hasattr(matrix, "to_memory") else matrix).tocsr()
    meta = np.empty((0, 0), matrix.dtype)
    return array.from_array(matrix, chunks=(cells_per_chunk, -1), name=False, asarray=False, meta=meta)


def _block(block: Any, estimate: "Estimate", block_info: Any = None) -> "NDArray[np.float32]":
    (first, last), _ = block_info[0]["array-location"]
    counts = block_csr(block)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    refuse_values(counts, first_row=first)
    return estimate(counts, slice(first, last))


def _of_counts(
    adata: "AnnData",
    estimator: AutoImpute,
    *,
    scale: str,
    genes: Any,
    batch_key: str | None,
    as_batch: str | None,
    depth: Any,
) -> "tuple[Estimate, int]":
    alignment = aligned_genes(adata.var_names, recipe_of(estimator), stacklevel=3)
    shown = _shown(genes, adata, alignment.columns_P, alignment.positions_P)
    model: Any = estimator.model_
    batches = Batches(*batch_positions(batch_labels(adata.obs, batch_key), as_batch, adata.n_obs, model.batches))
    depth_N = depths(depth, adata.n_obs)
    output = CountsOutput(model, alignment.columns_P, shown, scale, with_sd=False, is_sparse=False)

    def estimate(counts: Any, rows: slice) -> "NDArray[np.float32]":
        refuse_fractions(counts)
        depth_B = None if depth_N is None else depth_N[rows]
        x = molecules(alignment.apply(counts))
        made = output.rows(counts, x, batches.part(rows), library_B=row_sums(counts), depth_B=depth_B)
        return cast("NDArray[np.float32]", made.layer)

    return estimate, shown.columns_S.size


def _of_masked(
    adata: "AnnData", estimator: AutoImpute, *, scale: str, genes: Any, keep_observed: bool | None, logs_said: bool
) -> "tuple[Estimate, int]":
    recipe = FittedRecipe.to(adata.var_names, recipe_of(estimator), stacklevel=4)
    shown = _shown(genes, adata, recipe.alignment.columns_P, recipe.alignment.positions_P)
    output = MaskedOutput(
        estimator.model_,  # type: ignore[arg-type]
        shown,
        recipe.recipe["median_total"],
        scale,
        keeps_observed(keep_observed, estimator.estimand),
        estimator.estimand == "expected",
        is_sparse=False,
    )

    def estimate(counts: Any, rows: slice) -> "NDArray[np.float32]":  # noqa: ARG001 (as of counts)
        if logs_said:
            refuse_logs(counts, flagged=True)
        log2, size_factor_B, _ = recipe.process(counts)
        return cast("NDArray[np.float32]", output.rows(counts, log2, size_factor_B).layer)

    return estimate, shown.columns_S.size


def _shown(genes: Any, adata: "AnnData", columns_P: Any, positions_P: Any) -> Shown:
    """Find the columns of the array, which are modelled genes of the data."""
    names = adata.var_names[np.sort(positions_P)] if genes is None else genes
    form = OutputForm.of(names, sparse_below=None, dtype="float32", matrix=True, posterior_sd=False)
    shown = form.shown(adata.var_names, columns_P, positions_P)
    names = form.output_genes or ()
    if shown.columns_S.size < len(names):
        place = int(np.setdiff1d(np.arange(len(names)), shown.places_S)[0])
        msg = (
            f"{len(names) - shown.columns_S.size} of {len(names)} names in output_genes= are no genes of the model "
            f"(e.g. {names[place]!r}): give names that are in model.genes_"
        )
        raise ValueError(msg)
    return shown
