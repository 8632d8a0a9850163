"""Signals that imputation invents: correlations of permuted genes, and markers in types that do not express them.

Every measure compares logs, ln(1 + counts per 10,000), and returns its null beside it. A method is given as
``impute(counts, rng)``: counts, a ``csr_array`` of cells × genes, to dense logs of the same shape. Shape suffixes:
N cells, G genes, S sampled genes, T types.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from .._permutation import permute_columns
from ._molecules import (
    BoolArray,
    FloatArray,
    Impute,
    blocks,
    checked_molecules,
    columns_of,
    logs_of,
    pair_correlations,
    sampled_genes,
    totals,
)

__all__ = [
    "PermutedCorrelations",
    "SilentMarkers",
    "permuted_correlations",
    "silent_markers",
]


# ------------------------------------------------------------------------------------- correlations of permuted genes


@dataclass(frozen=True, slots=True)
class PermutedCorrelations:
    """What `permuted_correlations` returns.

    Attributes
    ----------
    n_genes, n_pairs
        Genes compared, and pairs of them.
    null_99
        |r| that 1 % of the pairs of permuted, not imputed genes exceed.
    analytic_99
        The same for independent normal values (Fisher's z): ``tanh(2.58 / sqrt(cells - 3))``.
    share_before
        Share of the pairs beyond `null_99` in the permuted data that were imputed, before it.
    share_after
        After it. 0.01 is expected of a method that invents nothing.
    limit
        99 % point of the share under the null, from as many permutations as asked for.
    before, after
        |r| of every pair.
    """

    n_genes: int
    n_pairs: int
    null_99: float
    analytic_99: float
    share_before: float
    share_after: float
    limit: float
    before: FloatArray
    after: FloatArray

    @property
    def harmful(self) -> bool:
        """Whether more pairs correlate than chance allows."""
        return self.share_after > self.limit


def permuted_correlations(
    counts: Any,
    *,
    impute: Impute,
    n_genes: int = 200,
    n_permutations: int = 10,
    random_state: int | np.random.Generator = 0,
) -> PermutedCorrelations:
    """Count the gene pairs that correlate after imputation of data in which none can.

    Each gene is permuted across cells on its own, the result is imputed, and r of the logs of sampled genes is
    compared with that before imputation. The null is drawn anew by further permutations that are not imputed.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    impute
        The method: counts and a Generator to dense logs.
    n_genes
        Genes to sample, among those seen in at least 10 cells.
    n_permutations
        Permutations that the null is drawn from.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    PermutedCorrelations

    Raises
    ------
    ValueError
        If these are no counts, or fewer than 2 genes can be sampled.

    Notes
    -----
    Source: Andrews & Hemberg, False signals induced by single-cell imputation, F1000Research 7:1740 (2018). Besides
    the imputed matrix itself, cells × `n_genes` values are held.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=100, n_genes=60, random_state=0).X
    >>> unchanged = permuted_correlations(counts, impute=lambda x, rng: logs_of(x).toarray())
    >>> unchanged.share_after == unchanged.share_before, unchanged.harmful
    (True, False)
    """
    rng = np.random.default_rng(random_state)
    x = checked_molecules(counts)
    genes = sampled_genes(x, n_genes, rng)
    permuted = permute_columns(x, rng)
    before, after = (_sizes_of_r(logs, genes) for logs in (logs_of(permuted), impute(permuted, rng)))
    null = np.stack([_sizes_of_r(logs_of(permute_columns(x, rng)), genes) for _ in range(n_permutations)])
    null_99 = float(np.quantile(null, 0.99))
    shares = (null > null_99).mean(axis=1)
    # Of one further permutation, whose distance from the mean of few holds the error of that mean.
    spread = float(shares.std(ddof=1) * np.sqrt(1 + 1 / n_permutations)) if n_permutations > 1 else 0.0
    return PermutedCorrelations(
        n_genes=genes.size,
        n_pairs=before.size,
        null_99=null_99,
        analytic_99=float(np.tanh(special.ndtri(0.995) / np.sqrt(max(1, x.shape[0] - 3)))),
        share_before=float((before > null_99).mean()),
        share_after=float((after > null_99).mean()),
        # Student's t: the spread is estimated from few permutations.
        limit=float(shares.mean() + special.stdtrit(max(1, n_permutations - 1), 0.99) * spread),
        before=before,
        after=after,
    )


def _sizes_of_r(logs: Any, genes: NDArray[np.int64]) -> FloatArray:
    return np.abs(pair_correlations(columns_of(logs, genes)))


# ------------------------------------------------------------------------------------- markers


@dataclass(frozen=True, slots=True)
class SilentMarkers:
    """What `silent_markers` returns.

    Attributes
    ----------
    n_pairs
        Pairs of a gene and a type in which it is silent.
    bound
        Level, relative to the type that expresses the gene most, that the silent genes are known to be below.
    levels
        Mean imputed level in the silent type over that in the expressing type, of each pair. 0 before imputation.
    """

    n_pairs: int
    bound: float
    levels: FloatArray

    @property
    def share_beyond(self) -> float:
        """Share of the pairs imputed beyond the bound; 1 % may be, the bound being a 99 % one."""
        return float((self.levels > self.bound).mean()) if self.levels.size else 0.0

    @property
    def harmful(self) -> bool:
        """Whether more pairs are beyond the bound than the 1 % that may be, at 1 %."""
        n_beyond = int((self.levels > self.bound).sum())
        return bool(self.levels.size and special.bdtrc(n_beyond - 1, self.levels.size, 0.01) < 0.01)


def silent_markers(
    counts: Any, *, after: Any, labels: Any, bound: float = 0.05, silent: BoolArray | None = None
) -> SilentMarkers:
    """Measure how far imputation lifts genes off zero in types that do not express them.

    A gene is silent in a type if none of the type's molecules is of it although, at `bound` times its level in the
    type that expresses it most, one would have been with 99 % probability (Poisson).

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    after
        Imputed logs of the same cells and genes.
    labels
        Type of each cell.
    bound
        Relative level, above 0 and below 1.
    silent
        Types (sorted by name) × genes: what bulk data or biology says is silent, instead.

    Returns
    -------
    SilentMarkers

    Raises
    ------
    ValueError
        If these are no counts, there is one type only, or `bound` is outside its range.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = np.kron(np.eye(2), np.full((10, 5), 40.0))
    >>> smeared = np.tile(logs_of(counts).toarray().mean(axis=0), (20, 1))
    >>> found = silent_markers(counts, after=smeared, labels=np.repeat(["a", "b"], 10))
    >>> found.n_pairs, found.share_beyond, found.harmful
    (10, 1.0, True)
    """
    if not 0 < bound < 1:
        msg = f"bound is {bound}; allowed is above 0 and below 1"
        raise ValueError(msg)
    x = checked_molecules(counts)
    names, type_N = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    if names.size < 2:
        msg = f"all cells are {names[0]!r}, and a marker needs two types: give other labels"
        raise ValueError(msg)
    member_TN = (np.arange(names.size)[:, None] == type_N).astype(np.float64)
    molecules_TG = member_TN @ x
    depth_T1 = member_TN @ totals(x)[:, None]
    level_TG = molecules_TG / depth_T1
    if silent is None:
        expected_TG = bound * level_TG.max(axis=0) * depth_T1
        silent = (molecules_TG == 0) & (expected_TG > -np.log(0.01))
    linear_TG = _mean_levels(after, member_TN)
    best_G = level_TG.argmax(axis=0)
    top_G = np.maximum(linear_TG[best_G, np.arange(x.shape[1])], 1e-12)
    levels = (linear_TG / top_G)[silent]
    return SilentMarkers(int(levels.size), bound, levels)


def _mean_levels(logs: Any, member_TN: FloatArray) -> FloatArray:
    """Mean counts per 10,000 of each type, types × genes."""
    sum_TG = np.zeros((len(member_TN), logs.shape[1]))
    for rows in blocks(*logs.shape):
        part = logs[rows]
        sum_TG += member_TN[:, rows] @ np.expm1(part.toarray() if sparse.issparse(part) else part)
    mean_TG: FloatArray = sum_TG / member_TN.sum(axis=1, keepdims=True)
    return mean_TG
