"""The arithmetic behind simulated counts: profiles of types and batches, noise, lost entries; and resampled cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse


def check_range(**parameters: tuple[float, float, float]) -> None:
    """Refuse a parameter outside its range."""
    for name, (value, low, high) in parameters.items():
        if not low <= value <= high:
            msg = f"{name} is {value}; allowed is {low:g} to {high:g}"
            raise ValueError(msg)


def type_profiles(
    rng: np.random.Generator, n_types: int, n_genes: int, share: float, log_fold: float
) -> "NDArray[np.float64]":
    """Draw the expected share of each gene in the molecules of a cell, types × genes."""
    changed = rng.random((n_types, n_genes)) < share
    log_mean = rng.normal(0.0, 1.5, size=n_genes) + changed * rng.normal(0.0, log_fold, size=(n_types, n_genes))
    mean = np.exp(log_mean)
    profiles: NDArray[np.float64] = mean / mean.sum(axis=1, keepdims=True)
    return profiles


def noisy(rng: np.random.Generator, truth: "NDArray[np.float64]", overdispersion: float) -> "NDArray[np.float64]":
    """Draw the rates of the Poisson counts: gamma of mean `truth`, so that the counts are negative binomial."""
    if overdispersion == 0:
        return truth
    return truth * rng.gamma(1 / overdispersion, overdispersion, size=truth.shape)


def loss(truth: "NDArray[np.float64]", dropout: float) -> "NDArray[np.float64] | float":
    """Return the probability K / (K + truth) of each entry to be lost, with K such that its mean is `dropout`."""
    from scipy.optimize import brentq

    if dropout == 0:
        return 0.0
    span = np.log(truth.min()) - 10, np.log(truth.max()) + 10
    log_k = brentq(lambda log: float(np.mean(1 / (1 + truth / np.exp(log)))) - dropout, *span)
    probability: NDArray[np.float64] = 1 / (1 + truth / np.exp(log_k))
    return probability


def checked_shares(type_shares: Sequence[float] | None, n_types: int) -> "NDArray[np.float64] | None":
    """Return the shares of the types as an array, or refuse what cannot be such."""
    if type_shares is None:
        return None
    shares = np.asarray(type_shares, dtype=np.float64)
    if shares.shape != (n_types,) or not (shares > 0).all() or not np.isclose(shares.sum(), 1):
        msg = f"type_shares is {list(type_shares)}; give {n_types} (n_types) shares above 0 that sum to 1"
        raise ValueError(msg)
    return shares


def types_of_cells(
    rng: np.random.Generator, n_cells: int, n_types: int, shares: "NDArray[np.float64] | None"
) -> "NDArray[np.int64]":
    """Give each cell a type, in random order; every type gets its share to the cell, and at least one."""
    if shares is None:
        return rng.permutation(np.arange(n_cells) % n_types)
    exact = shares * n_cells
    sizes = np.maximum(np.floor(exact), 1).astype(np.int64)
    for number in np.argsort(sizes - exact)[: max(0, n_cells - sizes.sum())]:  # largest remainders first
        sizes[number] += 1
    sizes[sizes.argmax()] += n_cells - sizes.sum()
    return rng.permutation(np.repeat(np.arange(n_types), sizes))


def batch_profiles(rng: np.random.Generator, n_batches: int, n_genes: int, effect: float) -> "NDArray[np.float64]":
    """Draw the factor of each gene in each batch, batches × genes."""
    return rng.lognormal(0.0, effect, size=(n_batches, n_genes))


def redrawn(
    counts: "sparse.csr_matrix | sparse.csr_array", rows: "NDArray[np.integer[Any]]", rng: np.random.Generator
) -> "sparse.csr_matrix | sparse.csr_array":
    """Return cells drawn anew: those at `rows` of real counts, with Poisson counts around the real ones.

    Library sizes and means of genes stay what they were in expectation; real zeros stay zeros.
    """
    cells = counts[rows]
    cells.data = rng.poisson(cells.data).astype(np.float32)
    cells.eliminate_zeros()
    return cells
