"""Tools: what is done to an AnnData."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._application import all_genes, check_key, recipe_of, record_of, zeros_filled
from ._estimand import Estimand, check_estimand
from .autoimpute import AutoImpute
from .io.matrix import CELLS_PER_BLOCK, counts_matrix, row_blocks
from .pp import Processed, processed_as, processed_matrix
from .scales import check_scale
from .tuning import tune

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._genes import Flavor, TopGenes
    from .scales import Scale

__all__ = ["autoimpute", "tune"]

FEW_CELLS = 30


def autoimpute(
    adata: "AnnData",
    *,
    layer: str | None = None,
    n_top_genes: "TopGenes" = 1000,
    flavor: "Flavor" = "dispersion",
    preset: str | None = None,
    estimand: Estimand | None = None,
    model: AutoImpute | None = None,
    scale: "Scale" = "log1p",
    keep_observed: bool = True,
    key_added: str = "imputed",
    random_state: int | np.random.Generator = 0,
    checkpoint: "str | Path | None" = None,
    copy: bool = False,
) -> "AnnData | None":
    """Impute the dropouts of a count matrix: pre-process, train, fill (Talwar et al., Sci Rep 8:16329, 2018).

    Parameters
    ----------
    adata
        Counts, cells × genes.
    layer
        Where the counts are; `X` by default.
    n_top_genes, flavor
        Genes to model, and by what they are chosen; see `scautoimpute.pp.select_genes`.
    preset
        None for this package's recipe, `"paper"` for the published one; see `AutoImpute`.
    estimand
        `"detected"`, expression given that it was detected, or `"expected"`, expected expression with zeros counted,
        which suits clustering; see `AutoImpute`. By default what `model` was made with, `"detected"` without one.
    model
        An `AutoImpute` to use instead of a new one: trained here if it has not been trained; applied as it is,
        with the genes and library size it was trained on, if it has (`n_top_genes` and `flavor` are then ignored).
    scale
        Of the result: `"log1p"`, ln(1 + counts per 10,000); `"cp10k"`, without the logarithm;
        `"counts"`, at each cell's own library size; `"log2"`, the model's own, at the median library size.
        Totals are over the genes that pass the read filter (`scanpy.pp.normalize_total` takes all genes).
    keep_observed
        Fill only the zeros (True), or replace observed values by their estimates too (False).
    key_added
        Name of the new layer, and of the record in `uns`.
    random_state
        Seed or NumPy Generator, for a model made here.
    checkpoint
        Folder in which the progress of training is kept, so that it can be stopped and gone on with; see
        `AutoImpute.fit`.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.layers[key_added]``
        Cells × all genes, float32, never negative; sparse if the counts are. Genes that were not modelled keep
        their observed values.
    ``adata.var["autoimpute_modelled"]``
        Which genes were modelled.
    ``adata.obsm["X_autoimpute"]``
        Hidden layer of the network, one row per cell.
    ``adata.obs["autoimpute_size_factor"]``
        Total of the cell over the median total.
    ``adata.uns[key_added]``
        Scale, genes modelled, settings, version, pre-processing, and how many zeros were filled; `held_out`,
        `history` and `converged` of the training, which with `trained_before` was on other data.

    The fields in `var`, `obsm` and `obs` are those of the last run.

    `adata.X` and everything else stay as they are.

    Raises
    ------
    ValueError
        If the matrix is not one of counts (logged, negative, NaN, transposed), or an option is unknown.

    Notes
    -----
    The masked objective estimates log expression *given detection*: right for recovering what was there and not
    seen, biased upward as the mean over all cells. Exponentiating it (`scale="counts"`, `"cp10k"`) gives a typical
    rather than a mean count.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> sai.tl.autoimpute(adata, model=sai.AutoImpute(n_folds=1, random_state=0))
    >>> adata.layers["imputed"].shape
    (60, 80)
    """
    check_scale(scale)
    _check_options(model, preset, estimand, key_added, layer)
    if copy:
        adata = adata.to_memory(copy=True) if adata.isbacked else adata.copy()
    estimator = model or AutoImpute(estimand=estimand, preset=preset, random_state=random_state)
    if estimator.is_fitted and checkpoint is not None:
        msg = f"checkpoint={str(checkpoint)!r} has no effect with a trained model: leave it out"
        raise ValueError(msg)
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
    )
    adata.layers[key_added] = _layer(counts_matrix(adata, layer), processed, imputed, scale, keep_observed)
    return adata if copy else None


def _check_options(
    model: AutoImpute | None, preset: str | None, estimand: str | None, key_added: str, layer: str | None
) -> None:
    if model is not None and preset is not None:
        msg = (
            f"both model= and preset={preset!r} were given: set the preset of the model, AutoImpute(preset={preset!r})"
        )
        raise ValueError(msg)
    if model is not None and estimand == "expected" and model.estimand != "expected":
        msg = (
            "estimand='expected' asks for what this model does not learn: make it with AutoImpute(estimand='expected')"
        )
        raise ValueError(msg)
    check_estimand(estimand, preset=preset)
    check_key(key_added, layer)


def _zeros(observed: sparse.csr_array, imputed: "NDArray[np.float32]") -> tuple[int, int]:
    blocks = [zeros_filled(observed[rows], imputed[rows]) for rows in row_blocks(observed, CELLS_PER_BLOCK)]
    return sum(zeros for zeros, _ in blocks), sum(filled for _, filled in blocks)


def _process_and_fit(
    adata: "AnnData",
    estimator: AutoImpute,
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
    if adata.n_obs < FEW_CELLS:
        warnings.warn(f"{adata.n_obs} cells are few for learning structure: judge by the held-out scores", stacklevel=3)
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
