"""Molecular cross-validation: whether an estimate predicts molecules that it has not seen.

Thin the counts into two sets of molecules that are independent given the expression behind them, impute the one,
score on the other (Batson, Royer & Webber, bioRxiv 786269, 2019). No model can do well here by copying its input, and
none by smoothing away what differs between cells. Shapes: cells × genes throughout.
"""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import gammaln

from .._seed import generator_of
from ._matrices import Floats, check_counts, check_rates, check_shapes, csr_blocks, dense_blocks
from ._molecules import thinned

__all__ = [
    "gene_frequencies",
    "multinomial_gain",
    "poisson_deviance",
    "poisson_log_likelihood",
    "thin",
]


def thin(counts: Any, *, share: float, random_state: int | np.random.Generator) -> tuple[Any, Any]:
    """Split the molecules at random: each goes to the second matrix with probability `share`.

    Parameters
    ----------
    counts
        Whole numbers, cells × genes: dense, scipy sparse, or on disk (anything that blocks of rows can be taken of).
    share
        Above 0 and below 1.
    random_state
        Seed, or a Generator to draw from. What is drawn depends on the counts, not on how they are stored.

    Returns
    -------
    Two ``csr_array`` matrices that add up to `counts`: what is left (to train on) and what was taken (to score on).

    Raises
    ------
    ValueError
        If `share` is not above 0 and below 1, or some values are no counts.

    Notes
    -----
    Only stored values are drawn for, and dense or on-disk matrices are read a block of rows at a time, so the memory
    is that of the two results and a block. If the counts are Poisson, the two are independent given the rates.

    Examples
    --------
    >>> left, taken = thin(np.array([[5, 0], [100, 1]]), share=0.1, random_state=0)
    >>> (left + taken).toarray().tolist()
    [[5, 0], [100, 1]]
    """
    if not 0 < share < 1:
        msg = f"share is {share}; allowed is above 0 and below 1: give 0.1 to hold out 10 % of the molecules"
        raise ValueError(msg)
    rng = generator_of(random_state)
    parts = [_thin_block(block, share, rng) for block in csr_blocks(counts)]
    if not parts:
        empty = sparse.csr_array(counts.shape)
        return empty, empty.copy()
    left, taken = zip(*parts, strict=True)
    return sparse.vstack(left, format="csr"), sparse.vstack(taken, format="csr")


def _thin_block(block: Any, share: float, rng: np.random.Generator) -> tuple[Any, Any]:
    check_counts(block)
    return thinned(block, share, rng)


def poisson_deviance(held_out: Any, expected: Any) -> float:
    """Poisson deviance of the held-out molecules, per held-out molecule: less is better, and 0 is perfect.

    Parameters
    ----------
    held_out
        Molecules that the estimate has not seen, dense or sparse.
    expected
        How many were expected: the estimated rate at the depth of the held-out molecules, e.g. the estimate of the
        training molecules times share / (1 − share).

    Returns
    -------
    2 Σ (y ln(y / μ) − y + μ) / Σ y; infinite if a molecule was found where none was thought possible.

    Raises
    ------
    ValueError
        If the two differ in shape, there is no held-out molecule, or an expectation is negative or not finite.

    Examples
    --------
    >>> poisson_deviance(np.array([[1.0, 0.0]]), np.array([[1.0, 0.5]]))
    1.0
    """
    total, n_molecules = 0.0, 0.0
    for y, mu in _checked_blocks(held_out, expected):
        seen = y > 0
        total += 2 * (np.sum(y[seen] * (np.log(y[seen]) - _log(mu[seen]))) - y.sum() + mu.sum())
        n_molecules += y.sum()
    return float(total / n_molecules)


def poisson_log_likelihood(held_out: Any, expected: Any) -> float:
    """Poisson log-likelihood of the held-out molecules in nats, per held-out molecule: more is better.

    Parameters
    ----------
    held_out, expected
        As in `poisson_deviance`, which is 2 (log-likelihood of μ = y − log-likelihood of μ) and ranks alike.

    Returns
    -------
    Σ (y ln μ − μ − ln y!) / Σ y over all entries, zeros included; minus infinity if a molecule was found where none
    was thought possible.

    Raises
    ------
    ValueError
        As `poisson_deviance`.

    Examples
    --------
    >>> round(poisson_log_likelihood(np.array([[1.0, 0.0]]), np.array([[1.0, 0.5]])), 6)
    -1.5
    """
    total, n_molecules = 0.0, 0.0
    for y, mu in _checked_blocks(held_out, expected):
        seen = y > 0
        total += np.sum(y[seen] * _log(mu[seen]) - gammaln(y[seen] + 1)) - mu.sum()
        n_molecules += y.sum()
    return float(total / n_molecules)


def gene_frequencies(train: Any, *, pseudocount: float = 0.05) -> Floats:
    """Share of each gene in all training molecules: the estimate that knows nothing of the cell.

    Parameters
    ----------
    train
        Counts, cells × genes.
    pseudocount
        Added to every gene, so that a gene without a training molecule is not thought impossible.

    Returns
    -------
    One value per gene; they add up to one.

    Examples
    --------
    >>> gene_frequencies(np.array([[3, 0], [0, 1]]), pseudocount=0).tolist()
    [0.75, 0.25]
    """
    of_gene = np.sum([block.sum(axis=0, dtype=np.float64) for block in csr_blocks(train)], axis=0) + pseudocount
    return np.asarray(of_gene / of_gene.sum(), dtype=np.float64)


def multinomial_gain(held_out: Any, estimate: Any, *, train: Any) -> float:
    """Log-likelihood of the held-out molecules above that of gene mean × library, in milli-nats per molecule.

    Which gene a molecule of a cell belongs to is a multinomial draw; cells' totals play no part. Zero says that the
    estimate knows no more of the cells than the mean of each gene; 100, that every molecule was e^0.1 times as likely.

    Parameters
    ----------
    held_out
        Molecules that the estimate has not seen, dense or sparse.
    estimate
        Rates on any scale: every cell's are divided by their sum.
    train
        The molecules that the estimate was made from; `gene_frequencies` of them are what it is compared with.

    Returns
    -------
    1000 Σ y (ln p − ln f) / Σ y; minus infinity if a molecule was found where none was thought possible.

    Raises
    ------
    ValueError
        As `poisson_deviance`.

    Notes
    -----
    With every cell's expectation at its own total, −2/1000 of it is, up to a constant of the data, the deviance.

    Examples
    --------
    >>> train = np.array([[4, 0], [0, 4]])
    >>> round(multinomial_gain(np.array([[1, 0], [0, 1]]), np.array([[3.0, 1.0], [1.0, 3.0]]), train=train), 1)
    405.5
    """
    check_shapes(held_out=held_out, train=train)
    log_frequency_G = np.log(gene_frequencies(train))
    total, n_molecules = 0.0, 0.0
    for y, rate in _checked_blocks(held_out, estimate):
        cells, genes = np.nonzero(y)
        of_cell = rate.sum(axis=1)
        log_share = _log(rate[cells, genes]) - _log(np.where(of_cell > 0, of_cell, 1))[cells]
        total += np.sum(y[cells, genes] * (log_share - log_frequency_G[genes]))
        n_molecules += y.sum()
    return float(1000 * total / n_molecules)


def _log(values: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _checked_blocks(held_out: Any, expected: Any) -> Any:
    """Yield dense blocks of both after the checks that every likelihood needs."""
    check_shapes(held_out=held_out, expected=expected)
    found = False
    for y, mu in dense_blocks(held_out, expected):
        check_rates(mu)
        found = found or bool(y.any())
        yield y, mu
    if not found:
        msg = "there is no held-out molecule to score at; hold out a larger share"
        raise ValueError(msg)
