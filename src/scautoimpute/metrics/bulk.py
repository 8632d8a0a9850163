"""Bulk expression as the yardstick of zeros: replicates made comparable, genes binned by their expression.

Shape suffixes: R replicates, G genes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bins", "bulk_bins", "bulk_expression", "tmm_factors"]

_LOG_RATIO_TRIM, _SUM_TRIM = 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Bins:
    """Genes by their expression in bulk.

    Attributes
    ----------
    bin_G
        Number of the bin of every gene; 0 is that of the silent ones.
    labels
        Of the bins: ``"silent"``, then the range of the natural log of the counts per million.
    """

    bin_G: NDArray[np.int64]
    labels: list[str]


def tmm_factors(counts_RG: Any) -> NDArray[np.float64]:
    """Scale of each library beside its total, by the trimmed mean of log ratios.

    Parameters
    ----------
    counts_RG
        Reads, replicates × genes.

    Returns
    -------
    One factor per replicate, their geometric mean being 1; an effective library size is the total times the factor.

    Raises
    ------
    ValueError
        If a replicate has no reads.

    Notes
    -----
    Source: Robinson & Oshlack, Genome Biol 11:R25 (2010). The reference is the replicate whose upper quartile is
    nearest to the mean of all; 30 % of the log ratios and 5 % of the mean expressions are trimmed at either end, and
    the rest is weighted by the inverse of its approximate variance.

    Examples
    --------
    >>> tmm_factors(np.array([[10, 20, 30, 40], [20, 40, 60, 80]])).tolist()
    [1.0, 1.0]
    """
    counts_RG = np.asarray(counts_RG, dtype=np.float64)
    total_R = counts_RG.sum(axis=1)
    if not (total_R > 0).all():
        msg = f"replicate {int(np.argmin(total_R)) + 1} of {len(total_R)} has no reads: leave it out"
        raise ValueError(msg)
    expressed = counts_RG[:, counts_RG.any(axis=0)]
    quartile_R = np.quantile(expressed, 0.75, axis=1) / total_R
    reference = int(np.argmin(np.abs(quartile_R - quartile_R.mean())))
    log_factor_R = np.array([_log2_factor(row, expressed[reference]) for row in expressed])
    return np.asarray(np.exp2(log_factor_R - log_factor_R.mean()))


def _log2_factor(row_G: NDArray[np.float64], reference_G: NDArray[np.float64]) -> float:
    """Weighted mean of the log ratios that are left after trimming."""
    total, total_of_reference = row_G.sum(), reference_G.sum()
    both = (row_G > 0) & (reference_G > 0)
    share, share_of_reference = row_G[both] / total, reference_G[both] / total_of_reference
    ratio, level = np.log2(share / share_of_reference), np.log2(share * share_of_reference) / 2
    if not ratio.size or np.abs(ratio).max() < 1e-6:
        return 0.0
    kept = _within(ratio, _LOG_RATIO_TRIM) & _within(level, _SUM_TRIM)
    variance = (1 - share) / row_G[both] + (1 - share_of_reference) / reference_G[both]
    return float(np.average(ratio[kept], weights=1 / variance[kept])) if kept.any() else 0.0


def _within(values: NDArray[np.float64], trim: float) -> NDArray[np.bool_]:
    """Whether the rank of each value is not among the share that is trimmed at either end."""
    from scipy.stats import rankdata

    rank, trimmed = rankdata(values), np.floor(len(values) * trim)
    return np.asarray((rank >= trimmed + 1) & (rank <= len(values) - trimmed))


def bulk_expression(counts_RG: Any) -> NDArray[np.float64]:
    """Median over replicates of ln(1 + counts per million), after normalisation by `tmm_factors`.

    Parameters
    ----------
    counts_RG
        Reads, replicates × genes.

    Returns
    -------
    One value per gene.
    """
    counts_RG = np.asarray(counts_RG, dtype=np.float64)
    library_R = counts_RG.sum(axis=1) * tmm_factors(counts_RG)
    return np.asarray(np.median(np.log1p(counts_RG / library_R[:, None] * 1e6), axis=0))


def bulk_bins(expression_G: Any, *, n_bins: int = 8) -> Bins:
    """Bin genes by bulk expression, as many in each bin; silent ones, which are zero, in a bin of their own.

    Parameters
    ----------
    expression_G
        As `bulk_expression` returns.
    n_bins
        Of the genes that are not silent.

    Returns
    -------
    The bin of every gene, and what the bins are called.

    Examples
    --------
    >>> bulk_bins([0.0, 1.0, 2.0, 3.0, 4.0], n_bins=2)
    Bins(bin_G=array([0, 1, 1, 2, 2]), labels=['silent', '1.0 to 2.5', '2.5 to 4.0'])
    """
    expression_G = np.asarray(expression_G, dtype=np.float64)
    loud = expression_G[expression_G > 0]
    if not loud.size:
        return Bins(np.zeros(expression_G.size, dtype=np.int64), ["silent"])
    edges = np.unique(np.quantile(loud, np.linspace(0, 1, n_bins + 1)))
    labels = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)] or ["expressed"]
    bin_G = 1 + np.clip(np.searchsorted(edges, expression_G, side="right") - 1, 0, len(labels) - 1)
    return Bins(np.where(expression_G > 0, bin_G, 0).astype(np.int64), ["silent", *labels])
