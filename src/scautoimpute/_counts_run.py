"""The counts objective on an AnnData in memory: check, train, estimate, record.

Shape legend: N cells, G genes of the data.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ._application import recipe_of, record_of
from ._batches import batch_positions, learned_batches
from ._counted import Counted, counted_as, counted_matrix, size_factors
from ._counts_layer import Batches, CountsOutput, is_sparse_better, own_count_share
from ._lazy_counts import counts_by_rows, staging_of
from ._memory import refuse_too_large_layer
from ._output_form import Collected, OutputForm, Rows, set_layers
from ._training_report import report_few_cells
from .io.matrix import block_csr, row_blocks
from .progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._genes import Flavor, TopGenes
    from ._staging import Staging
    from .autoimpute import AutoImpute
    from .model.counts import CountsModel

__all__ = ["batch_labels", "depths", "impute_counts", "train_on", "weights_in_words", "words_of"]

CELLS_AT_A_TIME = 512  # a multiple of what the model takes, so that a file's blocks give the same bytes


def impute_counts(
    adata: "AnnData",
    estimator: "AutoImpute",
    *,
    layer: str | None,
    n_top_genes: "TopGenes",
    flavor: "Flavor",
    genes: Iterable[str] | None,
    batch_key: str | None,
    as_batch: str | None,
    scale: str,
    depth: Any,
    posterior_sd: bool,
    key_added: str,
    checkpoint: "str | Path | None",
    reason: str,
    form: OutputForm,
) -> None:
    """Set the fields of `scautoimpute.tl.autoimpute`, whose parameters these are, by the counts objective."""
    batch = batch_labels(adata.obs, batch_key)
    names = tuple(estimator.batches_) if estimator.is_fitted else learned_batches(batch, adata.n_obs)[1]
    batches = Batches(*batch_positions(batch, as_batch, adata.n_obs, names))
    depth_N = depths(depth, adata.n_obs)
    if estimator.is_fitted:
        counted = counted_as(adata, recipe_of(estimator), layer=layer)
    else:
        counted = counted_matrix(adata, layer=layer, n_top_genes=n_top_genes, flavor=flavor, genes=genes)
    counts = counts_by_rows(adata, layer)
    shown = form.shown(adata.var_names, counted.columns, counted.genes)
    is_sparse = form.is_sparse(by_default=is_sparse_better(counts, shown))
    shape = adata.n_obs, shown.n_genes(adata.n_vars)
    n_layers = 1 + posterior_sd
    refuse_too_large_layer(shape, shown.columns_S.size, is_sparse=is_sparse, n_layers=n_layers, form=form)
    if not estimator.is_fitted:
        kept: dict[str, Any] = {"checkpoint": checkpoint, "staging": staging_of(adata, layer)}
        train_on(counted, estimator, adata.var_names, batch=batch, **kept)
    model: CountsModel = estimator.model_  # type: ignore[assignment]
    output = CountsOutput(model, counted.columns, shown, scale, posterior_sd, is_sparse, form)
    result = _all_rows(counts, counted, output, batches, depth_N) if form.matrix else Rows(None, None, 0, 0)
    adata.obsm["X_autoimpute"] = model.embed(counted.x, batches.own_N)
    adata.obs["autoimpute_size_factor"] = size_factors(counted.library_N, counted.median_total)
    adata.var["autoimpute_modelled"] = np.isin(np.arange(adata.n_vars), counted.genes)
    adata.uns[key_added] = record_of(
        estimator,
        scale=scale,
        keep_observed=False,
        zeros=(result.n_zeros, result.n_filled) if form.matrix else None,
        genes=adata.var_names[counted.genes],
        choices=counted.choices,
        alignment=counted.alignment,
        more=words_of(estimator, reason=reason, as_batch=as_batch, depth=depth) | form.record(),
    )
    set_layers(adata, key_added, result, shown)


def batch_labels(obs: Any, batch_key: str | None) -> "NDArray[Any] | None":
    """Label of each cell's batch, from a column of `obs`."""
    if batch_key is None:
        return None
    if batch_key not in obs:
        columns = ", ".join(map(repr, list(obs)[:20])) or "none"
        msg = f"there is no column {batch_key!r} in obs (batch_key); its columns are {columns}: give one of them"
        raise ValueError(msg)
    labels: NDArray[Any] = np.asarray(obs[batch_key])
    return labels


def depths(depth: Any, n_cells: int) -> "NDArray[np.float64] | None":
    """Depth of each cell, if one was stated."""
    if depth is None:
        return None
    values = np.asarray(depth, dtype=np.float64)
    if values.shape not in {(), (n_cells,)}:
        msg = f"depth= has shape {values.shape} for {n_cells} cells: give one number, or one for each cell"
        raise ValueError(msg)
    return np.broadcast_to(values, (n_cells,))


def train_on(
    counted: Counted,
    estimator: "AutoImpute",
    names: Any,
    *,
    batch: "NDArray[Any] | None",
    checkpoint: "str | Path | None",
    staging: "Staging | None" = None,
) -> None:
    """Train on counts of genes called so; the estimator then knows how others are processed alike."""
    report_few_cells(counted.library_N.size)
    estimator._fit(counted.x, names[counted.genes], batch, checkpoint, staging=staging)
    model: CountsModel = estimator.model_  # type: ignore[assignment]
    own_N = batch_positions(batch, None, counted.library_N.size, model.batches)[0]
    counted.choices["own_count_share"] = own_count_share(model, counted.x, own_N)
    estimator.recipe_ = counted.recipe(names)


def _all_rows(
    counts: Any, counted: Counted, output: CountsOutput, batches: Batches, depth_N: "NDArray[np.float64] | None"
) -> Rows:
    """Every row of the result."""
    shape = counts.shape[0], output.shown.n_genes(counts.shape[1])
    collected = Collected(shape, output.form, is_sparse=output.is_sparse, with_sd=output.with_sd)
    with progress_bar(counts.shape[0], "imputing", "cell") as bar:
        for rows in row_blocks(counted.x, CELLS_AT_A_TIME):
            depth_B = None if depth_N is None else depth_N[rows]
            library_B, part = counted.library_N[rows], batches.part(rows)
            block = _canonical(counts[rows])
            collected.add(rows, output.rows(block, counted.x[rows], part, library_B=library_B, depth_B=depth_B))
            bar.update(rows.stop - rows.start)
    return collected.finish()


def _canonical(rows: Any) -> Any:
    block = block_csr(rows)
    block.sum_duplicates()
    return block


def words_of(estimator: "AutoImpute", *, reason: str, as_batch: str | None, depth: Any) -> dict[str, Any]:
    """What is recorded of the counts objective besides what every run records."""
    share = recipe_of(estimator)["choices"]["own_count_share"]
    model: CountsModel = estimator.model_  # type: ignore[assignment]
    record: dict[str, Any] = {
        "n_networks": len(model.networks),
        "objective_reason": reason,
        "own_count_share": share,
        "weights_in_words": weights_in_words(estimator.weights_, share),
    }
    if estimator.batches_:
        record["batches"] = np.asarray(estimator.batches_, dtype=object)
    if as_batch is not None:
        record["as_batch"] = as_batch
    if depth is not None:
        record["depth"] = np.asarray(depth, dtype=np.float64)
    return record


def weights_in_words(weights: dict[str, float], own_share: float) -> str:
    """Say how much of the estimate is structure and how much the cell's own count, and what the experts are worth."""
    said = {name: name.replace("_own_counts", " + own counts").replace("_", " ") for name in weights}
    worth = ", ".join(f"{said[name]} {weight:.0%}" for name, weight in weights.items() if weight >= 0.005)
    return f"{1 - own_share:.0%} of the estimate is structure, {own_share:.0%} the cell's own count ({worth})"
