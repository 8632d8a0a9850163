"""The masked objective on an AnnData in memory: process, train, fill, record."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._application import all_genes, recipe_of, record_of, zeros_filled
from ._training_report import report_few_cells
from .io.matrix import CELLS_PER_BLOCK, counts_matrix, row_blocks
from .pp import Processed, processed_as, processed_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._estimand import Estimand
    from ._genes import Flavor, TopGenes
    from .autoimpute import AutoImpute

__all__ = ["impute_masked"]


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
) -> None:
    """Set the fields of `scautoimpute.tl.autoimpute`, whose parameters these are, by the masked objective."""
    processed = _process_and_fit(
        adata, estimator, layer=layer, n_top_genes=n_top_genes, flavor=flavor, checkpoint=checkpoint
    )
    imputed = estimator.impute(processed.log2, keep_observed=keep_observed, estimand=estimand)[:, processed.columns]
    adata.obsm["X_autoimpute"] = estimator.embed(processed.log2)
    adata.obs["autoimpute_size_factor"] = processed.size_factor
    adata.var["autoimpute_modelled"] = np.isin(np.arange(adata.n_vars), processed.genes)
    adata.uns[key_added] = record_of(
        estimator,
        scale=scale,
        keep_observed=keep_observed,
        zeros=_zeros(processed.log2[:, processed.columns], imputed),
        genes=adata.var_names[processed.genes],
        choices=processed.choices,
        alignment=processed.alignment,
        estimand=estimand,
        more={"objective_reason": reason},
    )
    adata.layers[key_added] = _layer(counts_matrix(adata, layer), processed, imputed, scale, keep_observed)


def _zeros(observed: sparse.csr_array, imputed: "NDArray[np.float32]") -> tuple[int, int]:
    blocks = [zeros_filled(observed[rows], imputed[rows]) for rows in row_blocks(observed, CELLS_PER_BLOCK)]
    return sum(zeros for zeros, _ in blocks), sum(filled for _, filled in blocks)


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
    report_few_cells(adata.n_obs)
    estimator.fit(processed.log2, checkpoint=checkpoint)
    estimator.genes_ = [str(gene) for gene in adata.var_names[processed.genes]]
    estimator.recipe_ = processed.recipe(adata.var_names)
    return processed


def _layer(counts: Any, processed: Processed, imputed: "NDArray[np.float32]", scale: str, keep_observed: bool) -> Any:
    """Layer of every gene; sparse if `counts` are."""
    is_sparse = sparse.issparse(counts) or hasattr(counts, "to_memory")
    blocks = [
        all_genes(
            counts[rows],
            imputed[rows],
            genes_P=processed.genes,
            size_factor_B=processed.size_factor[rows],
            median_total=processed.median_total,
            scale=scale,
            keep_observed=keep_observed,
            is_sparse=is_sparse,
        )
        for rows in row_blocks(imputed, CELLS_PER_BLOCK)
    ]
    return sparse.vstack(blocks, format="csr") if is_sparse else np.concatenate(blocks)
