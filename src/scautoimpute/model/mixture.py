"""The mixture: how much to believe each expert, learned where the truth was held out.

Shape legend: V held-out entries, K experts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["expert_weights", "mixture_weights"]

RIDGE = 1e-3
MAX_STEPS = 500
SMALLEST = 1e-300


def mixture_weights(corrections_VK: NDArray[np.float64], residual_V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares weights of the experts' corrections to the base, w ≥ 0 and Σw ≤ 1.

    What is left of one goes to the base itself, so that the mixture never does worse than the base on the
    entries it was fitted to, and "no network at all" is a possible outcome.

    Parameters
    ----------
    corrections_VK
        Expert minus base at the held-out entries.
    residual_V
        Truth minus base there.
    """
    n_entries, n_experts = corrections_VK.shape
    gram_KK = corrections_VK.T @ corrections_VK / n_entries
    gram_KK += RIDGE * (np.trace(gram_KK) / n_experts + 1e-12) * np.eye(n_experts)
    target_K = corrections_VK.T @ residual_V / n_entries
    solution = minimize(
        lambda w: (0.5 * w @ gram_KK @ w - target_K @ w) / gram_KK.max(),
        np.full(n_experts, 0.5 / n_experts),
        jac=lambda w: (gram_KK @ w - target_K) / gram_KK.max(),
        bounds=[(0, 1)] * n_experts,
        constraints={"type": "ineq", "fun": lambda w: 1 - w.sum(), "jac": lambda w: -np.ones_like(w)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 200},
    )
    weights: NDArray[np.float64] = np.clip(solution.x, 0, 1)
    weights /= max(1.0, weights.sum())
    return weights


def expert_weights(
    share_VK: NDArray[np.floating[Any]], count_V: NDArray[np.floating[Any]], *, tolerance: float = 1e-9
) -> NDArray[np.float64]:
    """Weights that maximise the likelihood of held-out molecules under a mixture of experts, by EM.

    Parameters
    ----------
    share_VK
        Share of the cell's molecules that each expert gives to the gene, at the held-out counts.
    count_V
        Molecules held out there.
    tolerance
        Rise of the mean log-likelihood of a molecule at which to stop.

    Notes
    -----
    The likelihood is concave in the weights; every step raises it: Σ_V n·log Σ_K w·p, with w ← Σ_V n·w·p / Σ_K w·p
    over the molecules held out.
    """
    share_VK, total = share_VK.astype(np.float64), count_V.sum()
    weights_K = np.full(share_VK.shape[1], 1 / share_VK.shape[1])
    before = -np.inf
    for _ in range(MAX_STEPS):
        mixed_V = share_VK @ weights_K
        likelihood = float(count_V @ np.log(np.maximum(mixed_V, SMALLEST)) / total)
        if likelihood - before < tolerance:
            break
        before = likelihood
        weights_K *= (count_V / np.maximum(mixed_V, SMALLEST)) @ share_VK / total
        weights_K /= weights_K.sum()
    return weights_K
