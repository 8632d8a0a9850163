"""Squared error of log-normalised estimates, and the part of it that no estimate could remove."""

from typing import Any

import numpy as np

from ..io.matrix import row_sums
from ._matrices import Floats, check_rates, check_shapes, dense_blocks

__all__ = ["log_normalised_error"]


def log_normalised_error(held_out: Any, estimate: Any, *, second: Any, train: Any) -> dict[str, float]:
    """Squared error of the log-normalised estimate at the held-out molecules, beside what no estimate can go below.

    Parameters
    ----------
    held_out
        Molecules that the estimate has not seen.
    estimate
        Rates on any scale.
    second
        Another thinning at the depth of `held_out` and without any of its molecules. Nothing but the noise is learned
        from it, so it may be taken from `train`: ``thin(train, share=share / (1 - share))[1]``.
    train
        The molecules that the estimate was made from: without imputation they are the estimate.

    Returns
    -------
    ``mse``, of the estimate; ``mse_none``, of no imputation; ``mse_floor``, half the mean squared difference of the
    two thinnings, which is the error of the expectation itself; and ``removed``, the share of the removable error
    that the estimate removed: (none − mse) / (none − floor).

    Raises
    ------
    ValueError
        As `poisson_deviance`, if no cell has molecules in all three, or if the estimate of one is zero throughout.

    Notes
    -----
    Values are ln(1 + share of the cell × median total of the held-out molecules); cells without a molecule in one of
    the matrices are left out. The floor is that of E[ln(1 + y)], which is not ln(1 + E[y]): at a low depth the
    best rates are not the best score, here as in every squared error of logs. The likelihoods have no such bias.

    Examples
    --------
    >>> y = np.array([[2, 2], [2, 2]])
    >>> log_normalised_error(y, np.ones((2, 2)), second=y, train=np.array([[8, 0], [0, 8]]))["removed"]
    1.0
    """
    check_shapes(held_out=held_out, estimate=estimate, second=second, train=train)
    totals = [row_sums(matrix) for matrix in (held_out, second, train)]
    used = np.flatnonzero(np.min(totals, axis=0) > 0)
    if used.size == 0:
        msg = "no cell has molecules in the held-out, the second and the training counts; give more, or a larger share"
        raise ValueError(msg)
    depth = float(np.median(totals[0][used]))
    squares, n = np.zeros(3), 0
    for y, estimated, own, again in dense_blocks(held_out, estimate, train, second, rows=used):
        check_rates(estimated)
        truth = _log_share(y, depth)
        errors = [
            _log_share(estimated, depth) - truth,
            _log_share(own, depth) - truth,
            _log_share(again, depth) - truth,
        ]
        squares += [np.sum(error**2) for error in errors]
        n += y.size
    mse, none, floor = squares[0] / n, squares[1] / n, squares[2] / n / 2
    removed = (none - mse) / (none - floor) if none > floor else np.nan
    return {"mse": float(mse), "mse_none": float(none), "mse_floor": float(floor), "removed": float(removed)}


def _log_share(values: Floats, depth: float) -> Floats:
    n_empty = int(np.count_nonzero(values.sum(axis=1) == 0))
    if n_empty:
        msg = f"the estimates of {n_empty} cells are zero throughout, so they have no shares; leave those cells out"
        raise ValueError(msg)
    return np.asarray(np.log1p(values * (depth / values.sum(axis=1, keepdims=True))), dtype=np.float64)
