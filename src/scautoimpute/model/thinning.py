"""Binomial thinning of counts: every molecule is kept, or not, by itself; only stored values are visited.

Shape legend: N cells, Z stored values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["split_molecules", "thin_values", "with_values"]

LARGEST_COUNTED = 12  # counts up to here are drawn molecule by molecule, which is faster than a binomial sampler
VALUES_AT_A_TIME = 2**18  # a molecule takes some 28 bytes while it is drawn


def thin_values(values_Z: NDArray[Any], share_Z: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw Binomial(value, share) for every value.

    Parameters
    ----------
    values_Z
        Whole numbers.
    share_Z
        Probability of each molecule to be kept.
    rng
        What is drawn from.

    Examples
    --------
    >>> thin_values(np.array([3.0, 50.0]), np.array([1.0, 0.0]), np.random.default_rng(0))
    array([3., 0.], dtype=float32)
    """
    thinned_Z = np.empty(len(values_Z), dtype=np.float32)
    for start in range(0, len(values_Z), VALUES_AT_A_TIME):
        part = slice(start, start + VALUES_AT_A_TIME)
        thinned_Z[part] = _thin_small(values_Z[part], share_Z[part], rng)
    large = np.flatnonzero(values_Z > LARGEST_COUNTED)
    share_L = share_Z[large].astype(np.float32).astype(np.float64)
    thinned_Z[large] = rng.binomial(values_Z[large].astype(np.int64), np.minimum(share_L, 1.0))
    return thinned_Z


def _thin_small(values_Z: NDArray[Any], share_Z: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw molecule by molecule where there are few; none are kept of the others."""
    n_molecules_Z = np.where(values_Z <= LARGEST_COUNTED, values_Z, 0).astype(np.int64)
    kept = rng.random(int(n_molecules_Z.sum()), dtype=np.float32) < np.repeat(share_Z.astype(np.float32), n_molecules_Z)
    before_Z = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(n_molecules_Z)])]
    thinned_Z: NDArray[np.intp] = np.diff(before_Z)
    return thinned_Z


def split_molecules(
    x: sparse.csr_array, share: float, rng: np.random.Generator
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Part the molecules of `x` in two at random: those that stay, and a `share` of them; neither stores zeros."""
    taken_Z = thin_values(x.data, np.broadcast_to(np.float32(share), x.nnz), rng)
    return with_values(x, x.data - taken_Z), with_values(x, taken_Z)


def with_values(x: sparse.csr_array, values_Z: NDArray[Any]) -> sparse.csr_array:
    """Return a matrix with the entries of `x` and other values, of which the K above zero stay."""
    kept_K = np.flatnonzero(values_Z > 0)
    before_N = np.searchsorted(kept_K, x.indptr).astype(x.indptr.dtype)
    parts = (values_Z[kept_K].astype(np.float32, copy=False), x.indices[kept_K], before_N)
    return sparse.csr_array(parts, shape=x.shape)
