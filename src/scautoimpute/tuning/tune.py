"""Choosing the settings of a model on held-out entries."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.matrix import as_observed
from .result import Tuning
from .search import Search
from .split import check_share, split_counts, split_processed

if TYPE_CHECKING:
    from anndata import AnnData

    from .._genes import Flavor, TopGenes
    from ..autoimpute import Data

__all__ = ["tune", "tune_processed"]


def tune(
    adata: "AnnData",
    *,
    layer: str | None = None,
    n_top_genes: "TopGenes" = 1000,
    flavor: "Flavor" = "dispersion",
    preset: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    factor: float = 3,
    min_resources: int | None = None,
    max_resources: int | None = None,
    share: float = 0.1,
    device: str = "auto",
    random_state: int | np.random.Generator = 0,
) -> Tuning:
    """Choose λ, learning rate, threshold and hidden size of the masked objective, and say whether that helped.

    That objective estimates expression *given that it was detected*. For molecules, whose default is the counts
    objective, and for reads, whose default is ``estimand="expected"``, it is another than `tl.autoimpute` takes.

    Two equal shares of the counts are hidden before anything else: totals, genes and training know neither. The first
    decides between candidates; the second, untouched, gives the error of the winner and of the defaults. All
    candidates train for few epochs, the best third for three times as many, and so on (successive halving); the
    defaults are a candidate that is never dropped.

    Parameters
    ----------
    adata
        Counts, cells × genes; not changed.
    layer
        Where the counts are; `X` by default.
    n_top_genes, flavor
        Genes to model, and by what they are chosen; see `scautoimpute.pp.select_genes`.
    preset
        None for this package's recipe, `"paper"` for the published one; see `AutoImpute`.
    grid
        Values to combine, by name: `l2`, `learning_rate`, `threshold`, `hidden`; what is not named stays as the
        preset has it. Default: 36 combinations around the preset's own values.
    factor
        A rung keeps one candidate in `factor` and gives each `factor` times the epochs.
    min_resources, max_resources
        Epochs (full-batch steps with `preset="paper"`) of the first and last rung. Default: the preset's
        `max_epochs` for the last, and for the first what leaves the last with one candidate or two.
    share
        Of the non-zero counts to hide for choosing, and as much again to report on.
    device
        `"auto"`, `"cpu"`, `"cuda"`, …
    random_state
        Seed or NumPy Generator. Same seed, same machine, same table (but for the seconds).

    Returns
    -------
    Tuning
        `table` of what was tried, `best` settings, `scores` on untouched entries, `verdict` in words, and `model()`
        of the masked objective, to be given to `scautoimpute.tl.autoimpute`.

    Raises
    ------
    ValueError
        If the matrix is not one of counts, the grid is empty or names something else, a value is out of range, or
        there are too few entries to compare by.

    Notes
    -----
    Time: each rung costs about as much as the first, and training starts afresh in each; candidates whose training
    had stopped by itself, or that differ in a threshold not yet met, are not trained twice. Memory: one model.

    The paper (Talwar et al., Sci Rep 8:16329, 2018) tunes the same four by grid search. Successive halving:
    Jamieson & Talwalkar, AISTATS 2016; names as in scikit-learn's ``HalvingGridSearchCV``. The grids' values
    are this package's own.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> tuning = sai.tl.tune(adata, grid={"hidden": [8, 32]}, max_resources=4)
    >>> len(tuning.table), sorted(tuning.best), tuning.model().is_fitted
    (3, ['hidden'], False)
    """
    search = Search.checked(
        n_cells=adata.n_obs,
        preset=preset,
        grid=grid,
        factor=factor,
        min_resources=min_resources,
        max_resources=max_resources,
        device=device,
        random_state=random_state,
    )
    check_share(share)
    return search.run(split_counts(adata, layer, share, search.rng, n_top_genes=n_top_genes, flavor=flavor))


def tune_processed(
    data: "Data",
    *,
    layer: str | None = None,
    preset: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    factor: float = 3,
    min_resources: int | None = None,
    max_resources: int | None = None,
    share: float = 0.1,
    device: str = "auto",
    random_state: int | np.random.Generator = 0,
) -> Tuning:
    """Do as `tune`, on data that are processed already (cells × genes, log2 scale), as `AutoImpute.fit` takes them.

    Parameters
    ----------
    data
        AnnData, DataFrame, array or sparse matrix; zeros and NaN are missing.
    layer
        With AnnData, the layer to take.
    preset, grid, factor, min_resources, max_resources, share, device, random_state
        As in `tune`.

    Returns
    -------
    Tuning
        As `tune`.
    """
    x, _, _ = as_observed(data, layer=layer, dtype=np.float32)
    search = Search.checked(
        n_cells=x.shape[0],
        preset=preset,
        grid=grid,
        factor=factor,
        min_resources=min_resources,
        max_resources=max_resources,
        device=device,
        random_state=random_state,
    )
    check_share(share)
    return search.run(split_processed(x, share, search.rng))
