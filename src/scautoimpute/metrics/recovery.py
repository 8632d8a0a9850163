"""The paper's recovery test: hide observed entries, impute, compare at the hidden entries."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

__all__ = ["Hidden", "gene_cell_bias", "gene_mean", "hide_entries", "recovery_scores"]


@dataclass(frozen=True, slots=True)
class Hidden:
    """What `hide_entries` returns.

    Attributes
    ----------
    visible
        ``csr_array``, cells × genes, without the hidden entries.
    rows, cols
        Cell and gene of each hidden entry, in row-major order.
    truth
        Its value.
    """

    visible: Any
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    truth: NDArray[Any]


def hide_entries(x: Any, *, share: float, random_state: int | np.random.Generator) -> Hidden:
    """Hide a random share of the non-zero entries.

    Parameters
    ----------
    x
        Dense or scipy sparse matrix, cells × genes; it is not changed.
    share
        How many of the non-zero entries to hide, above 0 and below 1: ``round(share * number)`` of them.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    Hidden
        The visible matrix (hidden entries are not stored) and what was hidden.

    Raises
    ------
    ValueError
        If `share` is not above 0 and below 1.

    Examples
    --------
    >>> hidden = hide_entries(np.arange(6).reshape(2, 3), share=0.4, random_state=0)
    >>> hidden.visible.nnz, hidden.truth.size
    (3, 2)
    """
    if not 0 < share < 1:
        msg = f"share is {share}; allowed is above 0 and below 1: give 0.1 to hide 10 % of the non-zero entries"
        raise ValueError(msg)
    full = _canonical_csr(x)
    rng = np.random.default_rng(random_state)
    chosen = np.sort(rng.choice(full.nnz, size=round(share * full.nnz), replace=False))
    rows = np.repeat(np.arange(full.shape[0]), np.diff(full.indptr))[chosen]
    cols, truth = full.indices[chosen].astype(np.int64), full.data[chosen]
    full.data[chosen] = 0
    full.eliminate_zeros()
    return Hidden(full, rows, cols, truth)


def recovery_scores(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Errors at the hidden entries.

    Parameters
    ----------
    truth, predicted
        Hidden values and their estimates, on one scale.

    Returns
    -------
    ``rmse`` (root mean squared error), ``mae`` (mean absolute error) and ``nmse``. The paper's NMSE is no squared
    error but ‖truth - predicted‖ / ‖truth‖: 0 is perfect, and predicting zero scores 1.

    Raises
    ------
    ValueError
        If the two differ in shape, are empty, hold NaN or infinite values, or the truth is zero throughout.

    Notes
    -----
    Source: Talwar et al., Sci Rep 8:16329 (2018), and ``AutoImpute.py`` (commit b09485d), which prints
    ``norm(truth - predicted) / norm(truth)`` as NMSE.

    Examples
    --------
    >>> recovery_scores([3.0, 4.0], [3.0, 3.0])
    {'rmse': 0.7071067811865476, 'mae': 0.5, 'nmse': 0.2}
    """
    expected, estimate = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    _check_pair(expected, estimate)
    error = estimate - expected
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "nmse": float(np.linalg.norm(error) / np.linalg.norm(expected)),
    }


def _check_pair(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
    if truth.shape != predicted.shape or truth.size == 0:
        msg = f"truth has shape {truth.shape}, predicted {predicted.shape}; give two of one shape, not empty"
        raise ValueError(msg)
    n_bad = int(np.count_nonzero(~np.isfinite(truth)) + np.count_nonzero(~np.isfinite(predicted)))
    if n_bad:
        msg = f"{n_bad} values are NaN or infinite; only finite ones can be scored: leave those entries out"
        raise ValueError(msg)
    if not truth.any():
        msg = "every true value is zero, so NMSE has no scale; hide non-zero entries, as hide_entries does"
        raise ValueError(msg)


def gene_mean(visible: Any) -> NDArray[np.float64]:
    """Mean of the non-zero entries of each gene: the simplest prediction for a hidden one.

    Parameters
    ----------
    visible
        Dense or scipy sparse matrix, cells × genes.

    Returns
    -------
    One value per gene; a gene without any non-zero entry gets the mean of all non-zero entries.

    Raises
    ------
    ValueError
        If there is no non-zero entry at all.

    Examples
    --------
    >>> gene_mean(np.array([[1.0, 0.0, 4.0], [3.0, 0.0, 0.0]])).round(2)
    array([2.  , 2.67, 4.  ])
    """
    x = _observed(visible)
    n_observed = np.bincount(x.indices, minlength=x.shape[1])
    total = np.bincount(x.indices, weights=x.data, minlength=x.shape[1])
    return np.divide(total, n_observed, out=np.full(x.shape[1], x.data.mean(dtype=np.float64)), where=n_observed > 0)


def gene_cell_bias(
    visible: Any, *, gene_prior: float = 1.0, cell_prior: float = 5.0, n_sweeps: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gene effect + cell effect: the next simplest prediction for a hidden entry, ``gene[col] + cell[row]``.

    Parameters
    ----------
    visible
        Dense or scipy sparse matrix, cells × genes; zeros are missing.
    gene_prior, cell_prior
        Each effect is shrunk towards none as if by so many more observations.
    n_sweeps
        Alternating least-squares sweeps.

    Returns
    -------
    One value per gene (the overall mean included) and one per cell.

    Examples
    --------
    >>> gene, cell = gene_cell_bias(np.array([[1.0, 2.0], [3.0, 4.0]]), gene_prior=0, cell_prior=0)
    >>> (gene + cell[:, None]).round(6).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    x = _observed(visible)
    rows, cols = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.indices
    count_cell, count_gene = np.bincount(rows, minlength=x.shape[0]), np.bincount(cols, minlength=x.shape[1])
    mean = float(x.data.mean(dtype=np.float64))
    gene, cell = np.zeros(x.shape[1]), np.zeros(x.shape[0])
    for _ in range(n_sweeps):
        gene = np.bincount(cols, x.data - mean - cell[rows], minlength=len(gene)) / np.maximum(
            count_gene + gene_prior, 1
        )
        cell = np.bincount(rows, x.data - mean - gene[cols], minlength=len(cell)) / np.maximum(
            count_cell + cell_prior, 1
        )
    return mean + gene, cell


def _observed(visible: Any) -> Any:
    x = _canonical_csr(visible)
    if x.nnz == 0:
        msg = f"all {x.shape[0]} × {x.shape[1]} entries are zero, so there is no mean; give observed values"
        raise ValueError(msg)
    return x


def _canonical_csr(x: Any) -> Any:
    """Return a copy without duplicates and stored zeros."""
    full = sparse.csr_array(x, copy=True)
    full.sum_duplicates()
    full.eliminate_zeros()
    return full
