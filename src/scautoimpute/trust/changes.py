"""What imputation changed: zeros and variation of genes by their expression, and the genes that changed most and least.

Shape suffixes: N cells, G genes, Q groups of genes. Logs are ln(1 + counts per 10,000), rates counts per 10,000.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..scales import PER_CELL

__all__ = ["Changes", "GeneChange", "measure_changes"]

FloatArray = NDArray[np.float64]

GROUPS = 12
GENES_SHOWN = 8
SEEN_SHARE = 0.1  # of the cells: of a gene that is hardly ever seen no change says anything


@dataclass(frozen=True, slots=True)
class GeneChange:
    """One gene.

    Attributes
    ----------
    name
        Of the gene.
    change
        Root mean square of the change of its log, over cells.
    mean_before, mean_after
        Counts per 10,000.
    zeros_before, zeros_after
        Share of the cells.
    correlation
        Pearson's r of its logs before and after; 0 if it does not vary.
    """

    name: str
    change: float
    mean_before: float
    mean_after: float
    zeros_before: float
    zeros_after: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What `measure_changes` returns; arrays have one value per group of genes of similar expression.

    Attributes
    ----------
    mean
        Mean counts per 10,000 before imputation.
    zeros_before, zeros_after
        Share of zeros.
    zeros_foretold
        Share of zeros that counting molecules at the imputed rates and each cell's own depth would give (Poisson).
    cv_before, cv_after
        Median coefficient of variation of the genes over all cells.
    most, least
        The genes that changed most and least, the first ones first.
    n_considered
        Genes among which these were looked for.
    """

    mean: FloatArray
    zeros_before: FloatArray
    zeros_after: FloatArray
    zeros_foretold: FloatArray
    cv_before: FloatArray
    cv_after: FloatArray
    most: tuple[GeneChange, ...]
    least: tuple[GeneChange, ...]
    n_considered: int


def measure_changes(before: FloatArray, *, after: FloatArray, depth: FloatArray, names: Sequence[str]) -> Changes:
    """Compare each gene before and after.

    Parameters
    ----------
    before, after
        Dense logs of the same cells and genes.
    depth
        Molecules of each cell.
    names
        Of the genes.

    Returns
    -------
    Changes

    Examples
    --------
    >>> before = np.log1p(np.array([[0.0, 5.0], [0.0, 5.0], [9.0, 5.0]]))
    >>> found = measure_changes(before, after=np.maximum(before, 1.0), depth=np.full(3, 1e4), names=["a", "b"])
    >>> [gene.name for gene in found.most], found.zeros_before.round(2).tolist()
    (['a'], [0.67, 0.0])
    """
    rates = [np.expm1(x) for x in (before, after)]
    mean_before_G, mean_after_G = (x.mean(axis=0, dtype=np.float64) for x in rates)
    zeros_G = [(x == 0).mean(axis=0) for x in (before, after)]
    foretold_G = np.exp(-rates[1] * (depth[:, None] / PER_CELL)).mean(axis=0, dtype=np.float64)
    cv_G = [_variation(x) for x in rates]
    groups = _groups(mean_before_G)
    change_G = np.sqrt(((after - before) ** 2).mean(axis=0, dtype=np.float64))
    considered = np.flatnonzero(zeros_G[0] <= 1 - SEEN_SHARE)
    order = considered[np.argsort(-change_G[considered], kind="stable")]

    def described(gene: int) -> GeneChange:
        return GeneChange(
            str(names[gene]),
            float(change_G[gene]),
            float(mean_before_G[gene]),
            float(mean_after_G[gene]),
            float(zeros_G[0][gene]),
            float(zeros_G[1][gene]),
            _correlation(before[:, gene], after[:, gene]),
        )

    n_shown = min(GENES_SHOWN, max(1, order.size // 2))

    def by_group(x_G: FloatArray, summary: Callable[[FloatArray], Any]) -> FloatArray:
        return np.array([summary(x_G[group]) for group in groups], dtype=np.float64)

    return Changes(
        mean=by_group(mean_before_G, np.mean),
        zeros_before=by_group(zeros_G[0], np.mean),
        zeros_after=by_group(zeros_G[1], np.mean),
        zeros_foretold=by_group(foretold_G, np.mean),
        cv_before=by_group(cv_G[0], np.median),
        cv_after=by_group(cv_G[1], np.median),
        most=tuple(described(int(gene)) for gene in order[:n_shown]),
        least=tuple(described(int(gene)) for gene in order[::-1][:n_shown]),
        n_considered=int(considered.size),
    )


def _variation(rate_NG: FloatArray) -> FloatArray:
    """Coefficient of variation of each gene; 0 for one without expression."""
    mean_G = rate_NG.mean(axis=0, dtype=np.float64)
    sd_G = rate_NG.std(axis=0, dtype=np.float64)
    variation_G: FloatArray = np.divide(sd_G, mean_G, out=np.zeros_like(mean_G), where=mean_G > 0)
    return variation_G


def _groups(mean_G: FloatArray) -> list[NDArray[np.intp]]:
    """Positions of the genes that are expressed at all, in groups of equal size from the least expressed up."""
    order = np.argsort(mean_G, kind="stable")
    order = order[mean_G[order] > 0]
    return [group for group in np.array_split(order, min(GROUPS, max(1, order.size))) if group.size]


def _correlation(before_N: FloatArray, after_N: FloatArray) -> float:
    if np.ptp(before_N) == 0 or np.ptp(after_N) == 0:
        return 0.0
    return float(np.corrcoef(before_N, after_N)[0, 1])
