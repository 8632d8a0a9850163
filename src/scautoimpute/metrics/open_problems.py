"""The scores of the Open Problems denoising task, version 1, exactly as published, for comparison with its table.

Neither says whether an estimate is good; each function names what is wrong with it. Use the likelihoods of
`scautoimpute.metrics.counts`. Source: github.com/openproblems-bio/openproblems at v1.0.0 (MIT),
``openproblems/tasks/denoising/metrics``; reimplemented.
"""

from typing import Any

import numpy as np

from ._matrices import Floats, check_shapes, dense_blocks

__all__ = ["open_problems_mse", "open_problems_poisson"]

_TARGET_SUM = 1e4
_OFFSET = 1e-6  # in the published logarithm


def open_problems_mse(held_out: Any, denoised: Any) -> float:
    """Mean squared error between ln(1 + counts per 10,000) of the held-out molecules and of the estimate.

    Parameters
    ----------
    held_out
        Molecules held out, cells × genes, dense or sparse; 10 % of all in the published task.
    denoised
        The estimate, on any scale: each cell is brought to 10,000.

    Returns
    -------
    The published score; less is better.

    Raises
    ------
    ValueError
        If the two differ in shape or are empty.

    Notes
    -----
    What is wrong with it: the truth is the logarithm of counts at a tenth of the depth, scaled up. A molecule among
    the 200 held out of a cell counts as 50 per 10,000, and 90 % of the entries are zeros, so the best score is had by
    E[ln(1 + y)] at that depth, far below the logarithm of the rate: the right rates score worse than shrunken ones.

    Examples
    --------
    >>> open_problems_mse(np.array([[1.0, 1.0]]), np.array([[2.0, 2.0]]))
    0.0
    """
    check_shapes(held_out=held_out, denoised=denoised)
    total = sum(np.sum((_per_10k(y) - _per_10k(mu)) ** 2) for y, mu in dense_blocks(held_out, denoised))
    return float(total / np.prod(held_out.shape))


def _per_10k(values: Floats) -> Floats:
    totals = values.sum(axis=1, keepdims=True)
    return np.log1p(values * (_TARGET_SUM / np.where(totals == 0, 1, totals)))


def open_problems_poisson(held_out: Any, denoised: Any, *, train: Any) -> float:
    """What is published as the Poisson loss: mean of y − μ ln(y + 10⁻⁶), with the two arguments swapped.

    Parameters
    ----------
    held_out
        Molecules held out, y; cells × genes, dense or sparse.
    denoised
        The estimate at the depth of the training molecules; μ is it times the held-out over the training molecules.
    train
        The training molecules.

    Returns
    -------
    The published score; less is called better.

    Raises
    ------
    ValueError
        If the three differ in shape or are empty, or there is no training molecule.

    Notes
    -----
    What is wrong with it: the loss is defined as μ − y ln(μ), and is called with y where it takes μ. So it is linear in
    the estimate; an expectation where no molecule was held out costs 13.8 a molecule, whatever its size, and the rest
    gains next to nothing. Shrinking any estimate towards zero makes it better, and all zeros score y's mean. Version 2
    (github.com/openproblems-bio/task_denoising) passes them in the right order.

    Examples
    --------
    >>> y = np.array([[2.0, 0.0]])
    >>> open_problems_poisson(y, np.zeros((1, 2)), train=y) < open_problems_poisson(y, np.ones((1, 2)), train=y)
    True
    """
    check_shapes(held_out=held_out, denoised=denoised, train=train)
    if train.sum() == 0:
        msg = "there is no training molecule, so no depth to bring the estimate to; give the counts it was made from"
        raise ValueError(msg)
    depth = held_out.sum() / train.sum()
    total = sum(np.sum(y - mu * depth * np.log(y + _OFFSET)) for y, mu in dense_blocks(held_out, denoised))
    return float(total / np.prod(held_out.shape))
