"""Over-smoothing: genes that correlate more, and neighbours that differ less, than the molecules say.

Imputed values come as logs, ln(1 + counts per 10,000), and are compared as counts per 10,000: the mean of logs of a few
molecules depends on the depth of a cell, which would look like structure. What the counts themselves say is noisy, and
is freed of the noise here by splitting the molecules: halves of them are independent given the rates, so that products
across halves hold no noise variance. Shape suffixes: N cells, G genes, S sampled genes, K neighbours, P components.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ._molecules import (
    BoolArray,
    FloatArray,
    checked_molecules,
    columns_of,
    logs_of,
    pair_correlations,
    rates_of,
    sampled_genes,
    thinned,
)

__all__ = [
    "CorrelationShift",
    "NeighbourVariance",
    "correlation_shift",
    "neighbour_variance_share",
]


# ------------------------------------------------------------------------------------- correlations


@dataclass(frozen=True, slots=True)
class CorrelationShift:
    """What `correlation_shift` returns.

    Attributes
    ----------
    before, after
        r of each pair of the sampled genes, before and after imputation.
    held_out
        Their r in the counts, freed of noise.
    limit
        99 % point of the root mean square of `held_out` for molecules split anew.
    """

    before: FloatArray
    after: FloatArray
    held_out: FloatArray
    limit: float

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Root mean square of r before, after, and in the counts freed of noise."""
        before, after, held_out = (float(np.sqrt(np.mean(r**2))) for r in (self.before, self.after, self.held_out))
        return before, after, held_out

    @property
    def harmful(self) -> bool:
        """Whether genes correlate more after imputation than the counts, freed of noise, say that they do."""
        return self.sizes[1] > self.limit


def correlation_shift(
    counts: Any, *, after: Any, n_genes: int = 200, n_splits: int = 10, random_state: int | np.random.Generator = 0
) -> CorrelationShift:
    """Compare gene-gene correlations before and after imputation with those of the counts freed of noise.

    The molecules are split into halves A and B. Noise lowers every correlation before imputation; the covariance of
    gene i in A with gene j in B holds none, and neither does that of i in A with i in B, whose root replaces the
    standard deviation (Spearman's correction for attenuation). Genes are sampled from those for which it is reliable:
    a correlation, of another third of the molecules with the rest, above the 99 % point of no correlation and above 0.3
    (the correction multiplies every error by its inverse). Chosen by the molecules that are then compared, genes would
    be those that chance had made reliable, and their correlations, so corrected, too small.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    after
        Imputed logs of the same cells and genes.
    n_genes
        Genes to sample.
    n_splits
        Splits to average over; they also give the limit.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    CorrelationShift

    Raises
    ------
    ValueError
        If these are no counts, or fewer than 2 genes are reliable: then there is nothing to compare with.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=200, n_genes=100, dropout=0, random_state=0).X
    >>> shift = correlation_shift(counts, after=logs_of(counts))
    >>> np.allclose(shift.before, shift.after), shift.harmful
    (True, False)
    """
    rng = np.random.default_rng(random_state)
    x = checked_molecules(counts)
    rest, chooses = thinned(x, 1 / 3, rng)
    genes = sampled_genes(x, n_genes, rng, among=_reliable(rates_of(chooses), rates_of(rest), least=0.3))
    crosses = np.stack([_across_halves(rest, genes, rng) for _ in range(n_splits)])
    held_out = _corrected(crosses.mean(axis=0))
    spread = np.std([np.sqrt(np.mean(_corrected(cross) ** 2)) for cross in crosses], ddof=1)
    return CorrelationShift(
        before=pair_correlations(columns_of(rates_of(x), genes)),
        after=pair_correlations(np.expm1(columns_of(after, genes))),
        held_out=held_out,
        limit=float(np.sqrt(np.mean(held_out**2)) + special.stdtrit(n_splits - 1, 0.99) * spread),
    )


def _reliable(a: Any, b: Any, *, least: float) -> BoolArray:
    """Genes whose parts of the molecules correlate by at least so much, and beyond chance."""
    n_cells = a.shape[0]
    product_G = np.asarray(a.multiply(b).sum(axis=0)).ravel() / n_cells
    mean_a, mean_b = (np.asarray(x.sum(axis=0)).ravel() / n_cells for x in (a, b))
    variances = [np.asarray(x.multiply(x).sum(axis=0)).ravel() / n_cells - m**2 for x, m in ((a, mean_a), (b, mean_b))]
    scale = np.sqrt(variances[0] * variances[1])
    r_G = np.divide(product_G - mean_a * mean_b, scale, out=np.zeros(a.shape[1]), where=scale > 1e-12)
    reliable: BoolArray = r_G > max(least, float(special.ndtri(0.99)) / np.sqrt(n_cells))
    return reliable


def _across_halves(x: Any, genes: NDArray[np.int64], rng: np.random.Generator) -> FloatArray:
    """Covariance of each gene in one half of the molecules with each in the other; genes × genes."""
    a, b = (columns_of(rates_of(half), genes) for half in thinned(x, 0.5, rng))
    cross = (a - a.mean(axis=0)).T @ (b - b.mean(axis=0)) / len(a)
    both_ways: FloatArray = (cross + cross.T) / 2
    return both_ways


def _corrected(cross_SS: FloatArray) -> FloatArray:
    """Correlate each pair of genes by what they share across halves, over what each shares with itself."""
    scale_S = np.sqrt(np.maximum(np.diag(cross_SS), 0))
    product = np.outer(scale_S, scale_S)
    r_SS = np.divide(cross_SS, product, out=np.zeros_like(cross_SS), where=product > 0)
    r_pairs: FloatArray = np.clip(r_SS[np.triu_indices(len(r_SS), 1)], -1, 1)
    return r_pairs


# ------------------------------------------------------------------------------------- neighbours


@dataclass(frozen=True, slots=True)
class NeighbourVariance:
    """What `neighbour_variance_share` returns: for each gene, its variance between neighbours over its whole variance.

    Attributes
    ----------
    genes
        Positions of the genes.
    before, after
        In the counts per 10,000 before and after imputation; 1 if neighbours differ as much as any two cells.
    held_out
        In the counts, freed of noise: what there is to be kept.
    null
        Before imputation, with random cells for neighbours.
    """

    genes: NDArray[np.int64]
    before: FloatArray
    after: FloatArray
    held_out: FloatArray
    null: FloatArray

    @property
    def lost(self) -> float:
        """Median of what imputation took below the counts freed of noise; 0 if nothing, 1 if there was only that."""
        kept = float(np.median(self.after)) / max(float(np.median(self.held_out)), 1e-12)
        return min(1.0, max(0.0, 1.0 - kept)) if float(np.median(self.held_out)) > 0 else 0.0

    @property
    def share_below(self) -> float:
        """Share of the genes that lie below the counts freed of noise; a half is expected of the truth."""
        return float(np.mean(self.after < self.held_out))

    @property
    def limit_below(self) -> float:
        """99 % point of that share: the noise of each gene's counts is its own."""
        from scipy.stats import binom

        return float(binom.isf(0.01, self.genes.size, 0.5) / self.genes.size)

    @property
    def harmful(self) -> bool:
        """Whether significantly more than half of the genes lie below the counts freed of noise."""
        return self.share_below > self.limit_below


def neighbour_variance_share(
    counts: Any,
    *,
    after: Any,
    n_neighbors: int = 15,
    n_genes: int = 200,
    n_pcs: int = 20,
    random_state: int | np.random.Generator = 0,
) -> NeighbourVariance:
    """Measure how much neighbouring cells still differ.

    Half of the mean squared difference between a cell and its neighbours, over the variance of the gene. A third of
    the molecules finds the neighbours; the other two thirds, multiplied with each other, give the differences free of
    noise (neighbours found in the molecules that are then compared would look more alike than they are; genes chosen
    by them would vary less than they seem to).

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    after
        Imputed logs of the same cells and genes.
    n_neighbors, n_pcs
        Neighbours per cell, found among so many principal components.
    n_genes
        Genes to sample, of those whose first third correlates with the rest beyond chance, and by 0.1.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    NeighbourVariance

    Raises
    ------
    ValueError
        If these are no counts, or fewer than 2 genes vary beyond noise.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=100, n_genes=100, dropout=0, random_state=0).X
    >>> kept = neighbour_variance_share(counts, after=logs_of(counts))
    >>> bool(np.median(kept.null) > 0.9), np.allclose(kept.before, kept.after)
    (True, True)
    """
    rng = np.random.default_rng(random_state)
    x = checked_molecules(counts)
    first, rest = thinned(x, 2 / 3, rng)
    a, b = (rates_of(half) for half in thinned(rest, 0.5, rng))
    genes = sampled_genes(x, n_genes, rng, among=_reliable(rates_of(first), rates_of(rest), least=0.1))
    neighbour_NK = _neighbours(logs_of(first), n_neighbors, n_pcs, rng)
    random_NK = rng.integers(0, x.shape[0], size=neighbour_NK.shape)
    before, imputed = columns_of(rates_of(x), genes), np.expm1(columns_of(after, genes))
    halves = columns_of(a, genes), columns_of(b, genes)
    return NeighbourVariance(
        genes=genes,
        before=_local_share(before, before, neighbour_NK),
        after=_local_share(imputed, imputed, neighbour_NK),
        held_out=_local_share(*halves, neighbour_NK),
        null=_local_share(before, before, random_NK),
    )


def _neighbours(logs: Any, n_neighbors: int, n_pcs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Nearest other cells, cells × neighbours."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    n_pcs, n_neighbors = min(n_pcs, min(logs.shape) - 1), min(n_neighbors, logs.shape[0] - 1)
    seed = int(rng.integers(2**31))
    scores_NP = PCA(n_pcs, svd_solver="arpack", random_state=seed).fit_transform(logs)
    found: NDArray[np.int64] = (
        NearestNeighbors(n_neighbors=n_neighbors).fit(scores_NP).kneighbors(return_distance=False)
    )
    return found


def _local_share(a_NS: FloatArray, b_NS: FloatArray, neighbour_NK: NDArray[np.int64]) -> FloatArray:
    """Half of the mean product of differences over the covariance; 0 for a gene without any."""
    local_S = np.zeros(a_NS.shape[1])
    for neighbour_N in neighbour_NK.T:
        local_S += ((a_NS - a_NS[neighbour_N]) * (b_NS - b_NS[neighbour_N])).mean(axis=0) / 2
    whole_S = ((a_NS - a_NS.mean(axis=0)) * (b_NS - b_NS.mean(axis=0))).mean(axis=0)
    share: FloatArray = np.divide(
        local_S / neighbour_NK.shape[1], whole_S, out=np.zeros_like(whole_S), where=whole_S > 1e-12
    )
    return share
