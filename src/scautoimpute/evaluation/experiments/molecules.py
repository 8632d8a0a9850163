"""Held-out molecules: a tenth of all molecules is set aside, and predicted from the rest.

Shape suffixes: N cells, G modelled genes.
"""

from typing import Any

import numpy as np

from ..trial import BY_DEFAULT, Trial, impute_layer

__all__ = ["WHAT", "run"]

SHARE = 0.1
FLOOR = 0.01  # share of gene frequencies mixed into every prediction, so that none is zero

WHAT = (
    "A tenth of the molecules of every cell, drawn at random, is set aside, and its number predicted from the other "
    "nine tenths (molecular cross-validation, Batson, Royer & Webber, 2019); mean Poisson deviance per entry, zeros "
    f"included, lower is better. Every prediction is mixed with {FLOOR:.0%} of the gene's frequency in all cells, so "
    "that a prediction of none costs much, but not everything. The gene mean is that frequency here, zeros counted. "
    f"{BY_DEFAULT}"
)


def run(trial: Trial) -> dict[str, Any]:
    """Thin, impute what is left, and score what was set aside."""
    from anndata import AnnData
    from scipy import sparse

    from ...io import counts_matrix
    from ...metrics import poisson_deviance, thin

    adata, rng = trial.read(), np.random.default_rng([trial.task.seed, 4])
    left, aside = thin(counts_matrix(adata, trial.task.data.layer), share=SHARE, random_state=rng)
    left = sparse.csr_matrix(left, dtype=np.float32)
    kept = AnnData(left, obs=adata.obs[[]].copy(), var=adata.var[[]].copy())
    if trial.task.data.layer is not None:
        kept.layers[trial.task.data.layer] = left
    x_NG, names = impute_layer(trial, kept, layer=trial.task.data.layer, scale="counts")
    genes = kept.var_names.get_indexer(names)
    truth_NG, seen_NG = aside[:, genes].toarray().astype(np.float64), left[:, genes].toarray().astype(np.float64)
    if trial.task.method == "gene_mean":
        x_NG = _frequencies(seen_NG)
    expected_NG = SHARE / (1 - SHARE) * ((1 - FLOOR) * x_NG + FLOOR * _frequencies(seen_NG))
    deviance = poisson_deviance(truth_NG, expected_NG) * truth_NG.mean()  # per entry, not per molecule
    trial.score(f"{SHARE:.0%}", {"held_out_deviance": deviance})
    return {}


def _frequencies(seen_NG: Any) -> Any:
    """What each cell would have if all genes had the same share in all cells."""
    share_G = seen_NG.sum(axis=0) / max(seen_NG.sum(), 1)
    return np.maximum(seen_NG.sum(axis=1)[:, None] * share_G, 1e-9)
