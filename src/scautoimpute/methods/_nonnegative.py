"""Non-negative least squares of one cell on many others, of which few get a weight."""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from ._arrays import FloatArray, IndexArray

_BATCH = 64  # cells that join the regression at a time
_TOLERANCE = 1e-9  # of the gradient, relative to the lengths of the vectors in it
_INDEPENDENT = 1e-5  # smallest pivot, relative to the largest, for which the Gram matrix is accurate enough


def nonnegative_weights(
    x_nV: FloatArray, norm_n: FloatArray, row: int, candidates: IndexArray, kept_V: NDArray[np.bool_]
) -> FloatArray:
    """Weights w ≥ 0 of the candidate cells that minimise ‖x[row] - w x‖ over the kept genes.

    A growing set of candidates is solved exactly; while the gradient says that others would lower the residual
    (Karush-Kuhn-Tucker), the best of them join.
    """
    weights_n, chosen = np.zeros(len(x_nV)), candidates[:0]
    target_V = x_nV[row] * kept_V
    residual_V, smallest = target_V, _TOLERANCE * np.linalg.norm(target_V)
    while True:
        gain = (x_nV @ residual_V)[candidates] / norm_n[candidates]
        gain[np.isin(candidates, chosen)] = 0
        best = np.argsort(-gain)[:_BATCH]
        best = best[gain[best] > smallest]
        if best.size == 0:
            return weights_n
        chosen = np.concatenate([chosen, candidates[best]])
        x_cV = x_nV[chosen] * kept_V
        weights_n[chosen] = _solve(x_cV, target_V)
        residual_V = target_V - weights_n[chosen] @ x_cV


def _solve(x_cV: FloatArray, target_V: FloatArray) -> FloatArray:
    """Lawson-Hanson on the Cholesky factor of the Gram matrix, or on the data where cells are nearly dependent."""
    try:
        factor = linalg.cholesky(x_cV @ x_cV.T, lower=True)
    except linalg.LinAlgError:
        factor = np.zeros((1, 1))
    pivots = np.diagonal(factor)
    rounds = 100 * len(x_cV)
    if pivots.min() <= _INDEPENDENT * pivots.max():
        return np.asarray(optimize.nnls(x_cV.T, target_V, maxiter=rounds)[0])
    projected = linalg.solve_triangular(factor, x_cV @ target_V, lower=True)
    return np.asarray(optimize.nnls(factor.T, projected, maxiter=rounds)[0])
