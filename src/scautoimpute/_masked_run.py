"""The masked objective on an AnnData in memory: process, train, fill, record."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._application import recipe_of, record_of
from ._estimand import check_learned
from ._lazy_counts import counts_by_rows, staging_of
from ._masked_estimates import cell_blocks
from ._masked_layer import MaskedOutput
from ._output_form import Collected, OutputForm, Rows, set_layers
from ._training_report import report_few_cells
from .pp import Processed, processed_as, processed_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from ._estimand import Estimand
    from ._genes import Flavor, TopGenes
    from ._staging import Staging
    from .autoimpute import AutoImpute

__all__ = ["impute_masked", "train_masked"]


def impute_masked(
    adata: "AnnData",
    estimator: "AutoImpute",
    *,
    layer: str | None,
    n_top_genes: "TopGenes",
    flavor: "Flavor",
    scale: str,
    keep_observed: bool,
    estimand: "Estimand | None",
    key_added: str,
    checkpoint: "str | Path | None",
    reason: str,
    form: OutputForm,
) -> None:
    """Set the fields of `scautoimpute.tl.autoimpute`, whose parameters these are, by the masked objective."""
    processed = _process_and_fit(
        adata, estimator, layer=layer, n_top_genes=n_top_genes, flavor=flavor, checkpoint=checkpoint
    )
    check_learned(estimand, estimator.settings, learned=estimator.detection_ is not None)
    counts = counts_by_rows(adata, layer)
    shown = form.shown(adata.var_names, processed.columns, processed.genes)
    output = MaskedOutput(
        estimator.model_,  # type: ignore[arg-type]
        shown,
        processed.median_total,
        scale,
        keep_observed,
        (estimand or estimator.estimand) == "expected",
        form.is_sparse(by_default=sparse.issparse(counts) or hasattr(counts, "format")),
        form,
    )
    result = _all_rows(counts, processed, output) if form.matrix else Rows(None, None, 0, 0)
    adata.obsm["X_autoimpute"] = estimator.embed(processed.log2)
    adata.obs["autoimpute_size_factor"] = processed.size_factor
    adata.var["autoimpute_modelled"] = np.isin(np.arange(adata.n_vars), processed.genes)
    adata.uns[key_added] = record_of(
        estimator,
        scale=scale,
        keep_observed=keep_observed,
        zeros=(result.n_zeros, result.n_filled) if form.matrix else None,
        genes=adata.var_names[processed.genes],
        choices=processed.choices,
        alignment=processed.alignment,
        estimand=estimand,
        more={"objective_reason": reason} | form.record(),
    )
    set_layers(adata, key_added, result, shown)


def _process_and_fit(
    adata: "AnnData",
    estimator: "AutoImpute",
    *,
    layer: str | None,
    n_top_genes: "TopGenes",
    flavor: "Flavor",
    checkpoint: "str | Path | None",
) -> Processed:
    """Processed matrix for `estimator`, which is trained on it unless it was trained before."""
    if estimator.is_fitted:
        return processed_as(adata, recipe_of(estimator), layer=layer)
    processed = processed_matrix(adata, layer=layer, n_top_genes=n_top_genes, flavor=flavor)
    staging = staging_of(adata, layer)
    train_masked(processed, estimator, adata.var_names, checkpoint=checkpoint, staging=staging)
    return processed


def train_masked(
    processed: Processed,
    estimator: "AutoImpute",
    names: Any,
    *,
    checkpoint: "str | Path | None",
    staging: "Staging | None" = None,
) -> None:
    """Train on processed values of genes called so; the estimator then knows how others are processed alike."""
    report_few_cells(processed.size_factor.size)
    estimator._fit(processed.log2, names[processed.genes], None, checkpoint, staging=staging)
    estimator.recipe_ = processed.recipe(names)


def _all_rows(counts: Any, processed: Processed, output: MaskedOutput) -> Rows:
    """Every row of the result."""
    shape = counts.shape[0], output.shown.n_genes(counts.shape[1])
    collected = Collected(shape, output.form, is_sparse=output.is_sparse, with_sd=False)
    for rows in cell_blocks(processed.log2, "imputing"):
        collected.add(rows, output.rows(counts[rows], processed.log2[rows], processed.size_factor[rows]))
    return collected.finish()
