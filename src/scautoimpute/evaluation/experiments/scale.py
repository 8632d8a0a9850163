"""Time and memory against the number of cells."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..trial import BY_DEFAULT, FLAVOR, N_TOP_GENES, Trial, impute_layer

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["WHAT", "run", "setting_of"]

WHAT = (
    "RESAMPLED cells: drawn with replacement from a real set, their counts drawn anew from a Poisson distribution "
    "around the real ones, of the recipe's 1000 genes. Processor seconds in one thread and peak memory of the whole "
    "way from counts to imputed counts, normalising included. A method that ran out of time or memory is not tried "
    "with more cells. "
    f"{BY_DEFAULT}"
)


def run(trial: Trial) -> dict[str, Any]:
    """Impute so many resampled cells."""
    n_cells = trial.task.asked["n_cells"]
    adata = _resampled(trial.read(), trial.task.data.layer, n_cells, np.random.default_rng([trial.task.seed, 3]))
    _, names = impute_layer(trial, adata, layer=None, scale="counts", n_top_genes="all")  # the draws are in X
    trial.score(setting_of(n_cells), {"seconds": trial.seconds, "peak_gb": trial.peak_gb})
    return {"cells": n_cells, "genes": len(names), "resampled": True, "source": trial.task.data.name}


def setting_of(n_cells: int) -> str:
    """Call so many cells what they are, wherever their number is shown."""
    return f"{n_cells:,} cells, resampled"


def _resampled(adata: "AnnData", layer: str | None, n_cells: int, rng: np.random.Generator) -> "AnnData":
    from anndata import AnnData
    from scipy import sparse

    from ..._recipe import processed_matrix
    from ..._simulation import redrawn
    from ...io import counts_matrix

    genes = processed_matrix(adata, layer=layer, n_top_genes=N_TOP_GENES, flavor=FLAVOR).genes
    rows = np.sort(rng.integers(adata.n_obs, size=n_cells))
    counts = redrawn(sparse.csr_matrix(counts_matrix(adata, layer))[:, genes], rows, rng)
    return AnnData(counts, var=adata.var[[]].iloc[genes].copy())
