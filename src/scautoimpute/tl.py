"""Tools: what is done to an AnnData."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ._application import check_key
from ._counts_run import impute_counts
from ._estimand import Estimand, keeps_observed
from ._masked_run import impute_masked
from ._objective import check_model, objective_for, objective_of_model
from ._output_form import OutputForm
from ._refusals import refuse_for_counts, refuse_for_masked
from .autoimpute import AutoImpute
from .scales import check_scale
from .tuning import tune

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._genes import Flavor, TopGenes
    from ._output_form import ValueType
    from .scales import Scale

__all__ = ["autoimpute", "objective_for", "tune"]


def autoimpute(
    adata: "AnnData",
    *,
    layer: str | None = None,
    objective: str | None = None,
    n_top_genes: "TopGenes | None" = None,
    flavor: "Flavor" = "dispersion",
    genes: Iterable[str] | None = None,
    preset: str | None = None,
    estimand: Estimand | None = None,
    model: AutoImpute | None = None,
    batch_key: str | None = None,
    as_batch: str | None = None,
    scale: "Scale" = "log1p",
    depth: "float | NDArray[np.floating[Any]] | None" = None,
    keep_observed: bool | None = None,
    posterior_sd: bool = False,
    output_genes: Iterable[str] | None = None,
    sparse_below: float | None = None,
    dtype: "ValueType" = "float32",
    matrix: bool = True,
    key_added: str = "imputed",
    random_state: int | np.random.Generator = 0,
    checkpoint: "str | Path | None" = None,
    copy: bool = False,
) -> "AnnData | None":
    """Impute a count matrix: choose the objective, train, estimate (Talwar et al., Sci Rep 8:16329, 2018).

    Parameters
    ----------
    adata
        Counts, cells × genes. Of dask arrays, as `anndata.experimental.read_lazy` gives them, a chunk is in memory at a
        time; of counts, and of more than 5,000 cells with the masked objective, what the recipe trains on is kept among
        the temporary files (`TMPDIR`) if it is more than 100 MB and there is room.
    layer
        Where the counts are; `X` by default.
    objective
        `"counts"`: zeros are data, and how many molecules are expected of every gene in every cell is estimated.
        `"masked"`: zeros are missing, and how much there is of a gene given that it was detected is estimated. By
        default that of `model`; else `"counts"` for counts of molecules (UMIs), `"masked"` for reads and values that
        are not whole numbers, and where `preset` or `estimand` is given. What was chosen, and why, is recorded.
    n_top_genes, flavor
        How many genes to model, and by what they are chosen; see `scautoimpute.pp.select_genes`. By default 1000 with
        the masked objective, of counts all that have a molecule in any cell.
    genes
        Names of the genes to model instead; `objective="counts"` only.
    preset
        None for this package's recipe, `"paper"` for the published one; see `AutoImpute`.
    estimand
        `"detected"`, expression given that it was detected, or `"expected"`, expected expression with zeros counted,
        which suits clustering; see `AutoImpute`. Of the masked objective only; by default what `model` was made with;
        else `"expected"` where the objective was chosen by the data, `"detected"` where it was asked for.
    model
        An `AutoImpute` to use instead of a new one: trained here if it has not been trained; applied as it is,
        with the genes it was trained on, if it has (`n_top_genes`, `flavor` and `genes` are then ignored).
    batch_key
        Column of `obs` that names each cell's batch (sample, donor, run), of which the network is told;
        `objective="counts"` only.
    as_batch
        Name of the batch to estimate for instead of each cell's own.
    scale
        Of the result: `"log1p"`, ln(1 + counts per 10,000); `"cp10k"`, without the logarithm;
        `"counts"`, at each cell's own library size; `"log2"`, the masked model's own, at the median library size;
        `"expected_log1p"`, see Notes. Of counts the library size is over *all* genes, as
        `scanpy.pp.normalize_total` takes it; with the masked objective over the genes that pass the read filter.
    depth
        Molecules per cell that `"expected_log1p"` is for: one number, or one for each cell; by default each cell's own.
    keep_observed
        Fill only the zeros (True, the default with ``estimand="detected"``), or replace observed values by their
        estimates too (False, the default where what is expected is estimated). Of counts all are estimates, in which
        a cell's own count has its share.
    posterior_sd
        Also give the standard deviation of what is estimated; `objective="counts"` only.
    output_genes
        Names of the genes to give estimates of, in this order: all are modelled, these are left in `adata`, as in
        ``adata[:, output_genes]``, and the layer has no others. By default all stay.
    sparse_below
        Values below it, on the asked `scale`, are not stored: the layer is sparse, and zero there.
    dtype
        Of the layer: `"float32"`, or `"float16"`, which takes half as much, has three digits, and is always dense.
    matrix
        Whether to give a layer at all; without one, `scautoimpute.imputed_lazy` computes what is looked at.
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
        Cells × all genes, float32, never negative. Genes that were not modelled keep their observed values. Of counts
        dense, unless the counts are sparse and at most half of the genes are modelled; else sparse if the counts are.
        With `output_genes`, `sparse_below`, `dtype` or `matrix` as said there.
    ``adata.layers[key_added + "_sd"]``
        With `posterior_sd`, on the same scale, on log scales to first order (also for `"expected_log1p"`); zero for
        genes that were not modelled. It tells how uncertain the estimate is; a new count would scatter beyond it.
        Without `posterior_sd`, those of an earlier run of the same `key_added` are removed.
    ``adata.var["autoimpute_modelled"]``
        Which genes were modelled.
    ``adata.obsm["X_autoimpute"]``
        Hidden layer of the network, one row per cell.
    ``adata.obs["autoimpute_size_factor"]``
        Total of the cell over the median total.
    ``adata.uns[key_added]``
        Objective, scale, genes modelled, settings, version, pre-processing, and how many zeros of these genes (of
        those in the output) were filled; `held_out`, `history`, `weights` and `converged` of the training, which with
        `trained_before` was an earlier one. Of counts also `objective_reason`, `n_networks`, `batches`,
        `own_count_share` and `weights_in_words`: how much of the estimate is structure, and how much the cell's own
        count.

    The fields in `var`, `obsm` and `obs` are those of the last run.

    `adata.X` and everything else stay as they are.

    Raises
    ------
    ValueError
        If the matrix is not one of counts (logged, negative, NaN, transposed), or of molecules where these are needed;
        or if an option is unknown, or has no effect with the objective, or `output_genes` are not in the data.
    MemoryError
        If the estimates would not fit in memory, with their size.

    Notes
    -----
    The masked objective estimates log expression *given detection*: right for recovering what was there and not
    seen, biased upward as the mean over all cells. Exponentiating it (`scale="counts"`, `"cp10k"`) gives a typical
    rather than a mean count.

    `scale="log1p"` is the logarithm of what is expected. `"expected_log1p"` is the expectation of the logarithm, E[ln(1
    + 10,000 · n / depth)], over how uncertain the estimate is and over which molecules n happen to be counted in a cell
    of `depth` molecules. It is lower, the more so the shallower the cell, and it is what minimises the squared error
    against log-normalised counts of that depth: what denoising benchmarks measure, not a better estimate of expression.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> sai.tl.autoimpute(adata, model=sai.AutoImpute("masked", n_folds=1, random_state=0))
    >>> adata.layers["imputed"].shape
    (60, 80)
    """
    check_scale(scale)
    check_key(key_added, layer)
    form = OutputForm.of(output_genes, sparse_below=sparse_below, dtype=dtype, matrix=matrix, posterior_sd=posterior_sd)
    form.refuse_absent(adata.var_names)
    if output_genes is not None and adata.isbacked and not copy:
        msg = (
            "output_genes= leaves these genes alone in adata, which is backed by a file and so cannot be changed: take "
            "adata.to_memory(), copy=True, or impute_file"
        )
        raise ValueError(msg)
    check_model(model, objective, preset, estimand, checkpoint=checkpoint)
    if copy:
        adata = adata.to_memory(copy=True) if adata.isbacked else adata.copy()
    asked = {"objective": objective, "preset": preset, "estimand": estimand}
    chosen = (
        objective_for(adata, layer=layer, **asked)
        if model is None
        else objective_of_model(model.settings, is_fitted=model.is_fitted)
    )
    estimator = model or AutoImpute(
        chosen.objective, estimand=chosen.estimand, preset=preset, random_state=random_state
    )
    selection: dict[str, Any] = {"layer": layer, "flavor": flavor, "scale": scale, "key_added": key_added}
    selection |= {"checkpoint": checkpoint, "reason": chosen.reason, "form": form}
    had_before = key_added in adata.uns
    of_counts = {"genes": genes, "batch_key": batch_key, "as_batch": as_batch, "posterior_sd": posterior_sd}
    if chosen.objective == "counts":
        refuse_for_counts(scale, depth, keep_observed, estimand)
        impute_counts(adata, estimator, n_top_genes=n_top_genes, depth=depth, **of_counts, **selection)  # type: ignore[arg-type]
    else:
        refuse_for_masked(scale, depth, of_counts)
        estimand = estimand or estimator.estimand
        keep = {"keep_observed": keeps_observed(keep_observed, estimand), "estimand": estimand}
        impute_masked(adata, estimator, n_top_genes=1000 if n_top_genes is None else n_top_genes, **keep, **selection)  # type: ignore[arg-type]
    if had_before and not posterior_sd:
        adata.layers.pop(f"{key_added}_sd", None)  # of the layer that was replaced
    return adata if copy else None
