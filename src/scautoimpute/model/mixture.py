"""The mixture: how much to believe each expert, learned where the truth was held out.

Shape legend: V held-out entries, K experts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["mixture_weights"]

RIDGE = 1e-3


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
