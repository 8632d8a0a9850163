"""The paper's recovery test: hide a share of the non-zeros, impute, score at what was hidden."""

from typing import Any

from ..trial import FLAVOR, N_TOP_GENES, Trial

__all__ = ["WHAT", "run"]

WHAT = (
    "A share of the non-zeros of the processed matrix (1000 genes by coefficient of variation, log2) is hidden; "
    "RMSE, MAE and NMSE at the hidden entries, lower is better. A method that takes counts is given 2^x − 1. The test "
    "asks how much there was given that it was detected: AutoImpute is its masked objective here, which estimates "
    "expression given detection, of molecules too."
)


def run(trial: Trial) -> dict[str, Any]:
    """Score every share asked for, each on its own split."""
    import numpy as np

    from ..._recipe import processed_matrix
    from ...methods import impute_matrix
    from ...metrics import hide_entries, recovery_scores

    task = trial.task
    processed = processed_matrix(trial.read(), layer=task.data.layer, n_top_genes=N_TOP_GENES, flavor=FLAVOR)
    for share in task.asked["shares"]:
        hidden = hide_entries(processed.log2.astype(np.float64), share=share, random_state=task.seed)
        before = trial.seconds
        with trial.measured():
            imputed = impute_matrix(hidden.visible, method=task.method, rng=np.random.default_rng([task.seed, 2]))
        scores = recovery_scores(hidden.truth, imputed[hidden.rows, hidden.cols])
        trial.score(f"{share:.0%}", scores | {"seconds": trial.seconds - before})
    return {"entries": int(processed.log2.nnz), "genes": int(processed.log2.shape[1])}
