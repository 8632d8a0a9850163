"""Every score of one estimate on one split; NaN where the data have no labels, no bulk or no reference."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoising_data import Split
from denoising_rivals import Estimate
from scautoimpute.metrics import (
    bulk_similarity,
    log_normalised_error,
    multinomial_gain,
    open_problems_mse,
    open_problems_poisson,
    poisson_deviance,
    reference_correlation,
)

__all__ = ["scores"]

_N_PCS = 20
_N_STARTS = 5  # of k-means, whose result depends on where it starts; each is the best of ten


def scores(estimate: Estimate, split: Split) -> dict[str, float]:
    """Likelihoods of the shares with their floor, everything else of the shares as the method gives them."""
    library = np.asarray(split.train.sum(axis=1))[:, None]
    found = {
        "deviance": poisson_deviance(split.held_out, estimate.scored_NG * (library * split.depth)),
        "gain": multinomial_gain(split.held_out, estimate.scored_NG, train=split.train),
        **_of_logs(estimate, split),
        **_of_types(estimate, split),
        **_of_truth(estimate, split),
    }
    return found | _of_open_problems(estimate, split, library)


def _of_logs(estimate: Estimate, split: Split) -> dict[str, float]:
    if split.second is None:
        return dict.fromkeys(("mse", "mse_none", "mse_floor", "removed"), np.nan)
    return log_normalised_error(split.held_out, estimate.own_NG, second=split.second, train=split.train)


def _of_types(estimate: Estimate, split: Split) -> dict[str, float]:
    """K-means with as many groups as types, on 20 components of the log; ARI is the mean of five starts."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    if split.labels is None:
        return {"ari": np.nan, "silhouette": np.nan}
    typed = np.flatnonzero(split.labels != "")
    labels = split.labels[typed]
    logs = np.log1p(estimate.own_NG[typed] * np.float32(np.median(split.train.sum(axis=1))))
    if not np.ptp(logs, axis=0).max() > 1e-6:  # every cell alike: nothing to cluster
        return {"ari": 0.0, "silhouette": np.nan}
    n_pcs = min(_N_PCS, min(logs.shape) - 1)
    scores_NP = PCA(n_pcs, svd_solver="randomized", random_state=0).fit_transform(logs)
    starts = [KMeans(len(np.unique(labels)), n_init=10, random_state=seed) for seed in range(_N_STARTS)]
    ari = np.mean([adjusted_rand_score(labels, start.fit_predict(scores_NP)) for start in starts])
    return {"ari": float(ari), "silhouette": float(silhouette_score(scores_NP, labels))}


def _of_truth(estimate: Estimate, split: Split) -> dict[str, float]:
    found = dict.fromkeys(("gene_r", "cell_r", "bulk_r", "fold_change_r"), np.nan)
    if split.is_pair:
        filled = np.flatnonzero(split.held_out.sum(axis=1) > 0)
        deep, own = split.held_out[filled], estimate.own_NG[filled]
        found |= {
            "gene_r": reference_correlation(deep, own, curve="linear")["gene"],
            "cell_r": reference_correlation(deep, own, curve="sqrt")["cell"],
        }
    if split.bulk is not None:
        genes, samples, kind = split.bulk.genes, split.bulk.samples, split.bulk.kind
        bulk = bulk_similarity(estimate.own_NG[:, genes], samples, kind=kind)
        found |= {"bulk_r": bulk["cell"], "fold_change_r": bulk["fold_change"]}
    return found


def _of_open_problems(estimate: Estimate, split: Split, library: NDArray[Any]) -> dict[str, float]:
    if split.is_pair:
        return {"op_mse": np.nan, "op_poisson": np.nan}
    denoised = estimate.own_NG * library if estimate.submitted_NG is None else estimate.submitted_NG
    return {
        "op_mse": open_problems_mse(split.held_out, denoised),
        "op_poisson": open_problems_poisson(split.held_out, denoised, train=split.train),
    }
