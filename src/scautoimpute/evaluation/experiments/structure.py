"""Clusters, variance and separability of known cell types after one imputation.

Shape suffixes: N cells that have a type, H half of them, G modelled genes.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..trial import BY_DEFAULT, FLAVOR, N_TOP_GENES, Trial, impute_layer

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["WHAT", "run"]

N_RESTARTS, N_STARTS = 5, 10
N_HALVES = 5
MOST_POINTS = 500  # of a scatter plot

WHAT = (
    "The counts of the recipe's 1000 genes are imputed as a user would, without the labels. k-means with as many "
    f"clusters as there are types on log2(x + 1), {N_RESTARTS} runs of {N_STARTS} starts, adjusted Rand index; the "
    "coefficient of variation of every gene within each type, anti-logged, its natural log; the first two components "
    "and the average silhouette of the types on them (and on all genes); the fraction of zeros that is left. Index and "
    f"silhouette are taken again in {N_HALVES} random halves of the cells, the same for every method. "
    f"{BY_DEFAULT}"
)


def run(trial: Trial) -> dict[str, Any]:
    """Impute once, then score what needs the types, or of data without types the variance alone."""
    adata = trial.read()
    x_NG, _ = impute_layer(trial, adata, layer=trial.task.data.layer, scale="log2")
    trial.score("all cells", {"zero_fraction": _zeros_left(trial, adata, x_NG)})
    column = trial.task.data.labels
    if column is None:
        return _variance(trial, x_NG, np.full(len(x_NG), "all cells"))
    known = ~np.asarray(adata.obs[column].isna())
    types = adata.obs[column].to_numpy()[known].astype(str)
    x_NG = x_NG[known]
    return _variance(trial, x_NG, types) | _clusters_and_components(trial, x_NG, types)


def _zeros_left(trial: Trial, adata: "AnnData", x_NG: "NDArray[np.float64]") -> float:
    """Fraction of entries that count as zero, for which the cell's own scale is needed."""
    from ..._recipe import processed_matrix
    from ...metrics import counts_as_zero

    recipe = processed_matrix(adata, layer=trial.task.data.layer, n_top_genes=N_TOP_GENES, flavor=FLAVOR)
    return float(counts_as_zero((np.exp2(x_NG) - 1) * recipe.size_factor[:, None]).mean())


def _variance(trial: Trial, x_NG: "NDArray[np.float64]", types: Any) -> dict[str, Any]:
    from ...metrics import five_numbers, variation_by_type

    logs = variation_by_type(np.exp2(x_NG) - 1, types=types)
    boxes = {name: _rounded(five_numbers(values)) for name, values in logs.items()}
    medians = {name: box[2] for name, box in boxes.items() if box}
    for name, median in medians.items():
        trial.score(name, {"log_cv_median": median})
    if medians:
        trial.score("all types", {"log_cv_median": float(np.mean(list(medians.values())))})
    return {"log_cv": boxes, "varying_genes": {name: int(values.size) for name, values in logs.items()}}


def _clusters_and_components(trial: Trial, x_NG: "NDArray[np.float64]", types: Any) -> dict[str, Any]:
    from ...metrics import cluster_agreement, first_components, silhouette

    starts = {"n_restarts": N_RESTARTS, "n_init": N_STARTS, "random_state": trial.task.seed * N_RESTARTS}
    agreement = cluster_agreement(x_NG, types=types, **starts)
    components_NC, explained = first_components(x_NG)
    trial.score("all types", {"ari": float(agreement.mean()), "ari_sd": float(agreement.std(ddof=1))})
    trial.score("all types", {"silhouette": silhouette(components_NC, types=types)})
    trial.score("all types", {"silhouette_all_genes": silhouette(x_NG, types=types)})
    _score_halves(trial, x_NG, types)
    names, number_N = np.unique(types, return_inverse=True)
    drawn = np.sort(np.random.default_rng(0).permutation(len(types))[:MOST_POINTS])  # the same for every method
    return {
        "ari": _rounded(agreement),
        "pca": [_rounded(point) for point in components_NC[drawn]],
        "types": number_N[drawn].tolist(),
        "type_names": names.tolist(),
        "explained": _rounded(explained),
    }


def _score_halves(trial: Trial, x_NG: "NDArray[np.float64]", types: Any) -> None:
    """Score random halves of the cells: how the scores spread says what other cells might have brought.

    The variance of a mean over random halves drawn without replacement is that of the mean over all cells (the
    delete-half jackknife: Shao & Tu, The Jackknife and Bootstrap, 1995, ch. 2).
    """
    from ...metrics import cluster_agreement, first_components, silhouette

    rng = np.random.default_rng([trial.task.seed, 5])
    for number in range(1, N_HALVES + 1):
        half = np.sort(rng.permutation(len(types))[: len(types) // 2])
        x_HG, of_half = x_NG[half], types[half]
        if not 2 <= len(np.unique(of_half)) < half.size:
            continue
        (agreement,) = cluster_agreement(x_HG, types=of_half, n_restarts=1, n_init=N_STARTS, random_state=number)
        separation = silhouette(first_components(x_HG)[0], types=of_half)
        trial.score(f"half {number}", {"ari_of_half": agreement, "silhouette_of_half": separation})


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]
