"""Binomial thinning of counts: every molecule is kept, or not, by itself; only stored values are visited.

Shape legend: N cells, B rows of a block, Z stored values, L large ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["split_molecules", "thin_values", "with_values"]

LARGEST_COUNTED = 12  # counts up to here are drawn molecule by molecule, which is faster than a binomial sampler
VALUES_AT_A_TIME = 2**18  # a molecule takes some 28 bytes while it is drawn


def thin_values(
    values_Z: NDArray[Any], share_B: Any, rng: np.random.Generator, *, indptr: NDArray[np.integer[Any]] | None = None
) -> NDArray[np.float32]:
    """Draw Binomial(value, share) for every value.

    Parameters
    ----------
    values_Z
        Whole numbers.
    share_B
        Probability of each molecule to be kept: one for all, or one for each row.
    rng
        What is drawn from.
    indptr
        Where each row starts, and the last one ends.

    Examples
    --------
    >>> thin_values(np.array([3.0, 50.0, 2.0]), [1.0, 0.0], np.random.default_rng(0), indptr=np.array([0, 1, 3]))
    array([3., 0., 0.], dtype=float32)
    """
    share_B = np.atleast_1d(np.asarray(share_B, dtype=np.float32))
    indptr = np.array([0, len(values_Z)]) if indptr is None else indptr
    thinned_Z = np.empty(len(values_Z), dtype=np.float32)
    for start in range(0, len(values_Z), VALUES_AT_A_TIME):
        part = slice(start, start + VALUES_AT_A_TIME)
        thinned_Z[part] = _thin_small(values_Z[part], share_B, indptr - start, rng)
    large = np.flatnonzero(values_Z > LARGEST_COUNTED)
    share_L = share_B[np.searchsorted(indptr, large, side="right") - 1].astype(np.float64)
    thinned_Z[large] = rng.binomial(values_Z[large].astype(np.int64), np.minimum(share_L, 1.0))
    return thinned_Z


def _thin_small(
    values_Z: NDArray[Any], share_B: NDArray[np.float32], indptr: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draw molecule by molecule where there are few; none are kept of the others."""
    n_molecules_Z = np.where(values_Z <= LARGEST_COUNTED, values_Z, 0).astype(np.int32)
    start_Z = _sums_before(n_molecules_Z)
    n_molecules_B = np.diff(start_Z[np.clip(indptr, 0, len(values_Z))])
    kept = rng.random(int(start_Z[-1]), dtype=np.float32) < np.repeat(share_B, n_molecules_B)
    return np.diff(_sums_before(kept)[start_Z])


def _sums_before(values: NDArray[Any]) -> NDArray[np.int32]:
    """Sum of what is before each value, and of all; of so few at a time that it is no large number."""
    sums = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum(values, out=sums[1:])
    return sums


def split_molecules(
    x: sparse.csr_array, share: float, rng: np.random.Generator
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Part the molecules of `x` in two at random: those that stay, and a `share` of them; neither stores zeros."""
    taken_Z = thin_values(x.data, share, rng)
    return with_values(x, x.data - taken_Z), with_values(x, taken_Z)


def with_values(x: sparse.csr_array, values_Z: NDArray[Any]) -> sparse.csr_array:
    """Return a matrix with the entries of `x` and other values, of which the K above zero stay."""
    kept_K = np.flatnonzero(values_Z > 0)
    before_N = np.searchsorted(kept_K, x.indptr).astype(x.indptr.dtype)
    parts = (values_Z[kept_K].astype(np.float32, copy=False), x.indices[kept_K], before_N)
    return sparse.csr_array(parts, shape=x.shape)
