"""Hidden entries: whether imputation foretells values that were there, where molecules cannot be held out.

Shape suffixes: N cells, G genes, V hidden entries. Values are log2(1 + normalised counts), zeros missing.
"""

from typing import Any

import numpy as np

from ._molecules import FloatArray
from .gain import Gain
from .recovery import Hidden, gene_mean

__all__ = ["entry_gains", "score_entries"]


def score_entries(hidden: Hidden, *, imputed: Any) -> dict[str, FloatArray]:
    """Squared error of each cell at its hidden entries, summed over them, under three predictions.

    Parameters
    ----------
    hidden
        What `hide_entries` returned.
    imputed
        Dense estimate of every entry of ``hidden.visible``.

    Returns
    -------
    ``model``, and what it has to beat: ``gene_mean`` (of each gene's visible entries) and ``none`` (zero). One value
    for each cell that has hidden entries.

    Examples
    --------
    >>> from scautoimpute.metrics import hide_entries
    >>> x = 1 + np.add.outer(np.arange(20.0), np.arange(5.0))
    >>> losses = score_entries(hide_entries(x, share=0.2, random_state=0), imputed=x)
    >>> float(losses["model"].sum()), bool(losses["gene_mean"].mean() < losses["none"].mean())
    (0.0, True)
    """
    at = hidden.rows, hidden.cols
    predicted = {
        "model": np.asarray(imputed)[at],
        "gene_mean": gene_mean(hidden.visible)[hidden.cols],
        "none": np.zeros(hidden.truth.size),
    }
    cells, position_V = np.unique(hidden.rows, return_inverse=True)
    return {
        name: np.bincount(position_V, (hidden.truth - values) ** 2, minlength=cells.size).astype(np.float64)
        for name, values in predicted.items()
    }


def entry_gains(hidden: Hidden, *, losses: dict[str, FloatArray]) -> dict[str, Gain]:
    """Compare the model with each of the others.

    Parameters
    ----------
    hidden
        What `hide_entries` returned.
    losses
        What `score_entries` returned of it.

    Returns
    -------
    The `Gain` over each, in squared error per cell.

    Notes
    -----
    A gene mean is estimated itself: of n visible entries with variance s², it loses s² / n at each hidden entry. So
    much, `attainable`, is gained without any structure.
    """
    spare = float(_loss_of_means(hidden)[hidden.cols].sum() / losses["model"].size)
    return {
        name: Gain.between(loss_N, losses["model"], attainable=spare if name == "gene_mean" else 0.0)
        for name, loss_N in losses.items()
        if name != "model"
    }


def _loss_of_means(hidden: Hidden) -> FloatArray:
    """Variance of the mean of each gene's visible entries."""
    visible = hidden.visible
    mean_G, n_genes = gene_mean(visible), visible.shape[1]
    n_G = np.bincount(visible.indices, minlength=n_genes)
    square_G = np.bincount(visible.indices, (visible.data - mean_G[visible.indices]) ** 2, minlength=n_genes)
    variance_G: FloatArray = square_G / np.maximum(n_G - 1, 1) / np.maximum(n_G, 1)
    return variance_G
