"""Differential expression that imputation invents: between random halves of one type, and of permuted genes.

Values are logs, ln(1 + counts per 10,000). A method is given as ``impute(counts, rng)``: counts, a ``csr_array`` of
cells × genes, to dense logs of the same shape. Shape suffixes: N cells, G genes, S sampled genes, H ways to
halve the cells.
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
    checked_molecules,
    columns_of,
    logs_of,
    sampled_genes,
    thinned,
    totals,
)

__all__ = [
    "FalseMarkers",
    "NullExpression",
    "false_markers",
    "null_differential_expression",
    "tested_types",
    "wilcoxon",
]

# One-sided 99 % point of the normal distribution.
Z_99 = float(special.ndtri(0.99))
_RARE = 0.01  # share of the splits that may call more genes than the limit


@dataclass(frozen=True, slots=True)
class NullExpression:
    """What `null_differential_expression` returns.

    Attributes
    ----------
    alpha
        The nominal false-positive rate.
    n_genes, n_cells
        Genes tested, and cells of the type.
    before, after
        Share of the genes with p < `alpha`, of each split into halves.
    limit
        What 1 % of the splits before imputation reach, and at least the 99 % point for independent genes.
    share_of_splits
        Splits in which more genes than `limit` are called after imputation; 1 % are expected.
    """

    alpha: float
    n_genes: int
    n_cells: int
    before: FloatArray
    after: FloatArray
    limit: float
    share_of_splits: float

    @property
    def limit_of_splits(self) -> float:
        """99 % point of `share_of_splits` where genes are called as before imputation."""
        from scipy.stats import betabinom

        n_splits, rank = self.after.size, _rank_of_limit(self.after.size)
        # The limit is itself drawn: among as many splits again, those above the rank-th largest are beta-binomial.
        return float(betabinom.isf(0.01, n_splits, rank, n_splits - rank + 1) / n_splits)

    @property
    def harmful(self) -> bool:
        """Whether splits with too many false positives are more frequent than chance allows."""
        return self.share_of_splits > self.limit_of_splits


def null_differential_expression(
    before: Any,
    *,
    after: Any,
    n_splits: int = 1000,
    n_genes: int = 200,
    alpha: float = 0.05,
    random_state: int | np.random.Generator = 0,
) -> NullExpression:
    """Test random halves of cells of one type against each other: every call is false.

    Since the halves are drawn at random, the rate over all splits is nominal for every method that does not know
    them. What imputation changes is how the calls come: values borrowed from the same cells make genes wrong
    together, so that some splits call hardly any gene and others a great part. The share of such splits is measured,
    against splits of the cells before imputation, in which the genes correlate as they do.

    Parameters
    ----------
    before, after
        Logs of the cells of one type, cells × genes.
    n_splits
        Random splits into halves.
    n_genes
        Genes to sample, among those that vary before imputation and are seen in at least 10 cells.
    alpha
        The nominal rate.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    NullExpression

    Raises
    ------
    ValueError
        If there are fewer than 20 cells or 2 such genes, or the two matrices differ in shape.

    Notes
    -----
    Wilcoxon's rank-sum test with correction for ties, as analysts use it. Source: Andrews & Hemberg, F1000Research
    7:1740 (2018). Any splits are exchangeable, so that under the null of one distribution before and after imputation
    the splits beyond the r-th largest of those before follow a beta-binomial law whatever the genes' correlation (a
    precedence test: Balakrishnan & Ng, Precedence-Type Tests and Applications, 2006).

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((60, 50))
    >>> unchanged = null_differential_expression(noise, after=noise)
    >>> bool(abs(unchanged.after.mean() - 0.05) < 0.02), unchanged.harmful
    (True, False)
    """
    if before.shape == after.shape and before.shape[0] < 20:
        msg = f"{before.shape[0]} cells are too few to be halved and compared: give at least 20 of one type"
        raise ValueError(msg)
    if before.shape != after.shape:
        msg = f"before has shape {before.shape}, after {after.shape}; give two of one shape with at least 20 cells"
        raise ValueError(msg)
    rng = np.random.default_rng(random_state)
    n_cells_G = np.asarray((before != 0).sum(axis=0)).ravel()
    genes = _drawn(np.flatnonzero(n_cells_G >= 10), n_genes, rng)
    values = [columns_of(x, genes) for x in (before, after)]
    halves = np.stack([rng.permutation(before.shape[0]) < before.shape[0] // 2 for _ in range(n_splits)])
    shares = np.stack([(wilcoxon(x, halves) < alpha).mean(axis=1) for x in values])
    chance = np.sqrt(alpha * (1 - alpha) / genes.size)
    limit = max(alpha + Z_99 * chance, float(np.sort(shares[0])[-_rank_of_limit(n_splits)]))
    return NullExpression(
        alpha=alpha,
        n_genes=genes.size,
        n_cells=before.shape[0],
        before=shares[0],
        after=shares[1],
        limit=limit,
        share_of_splits=float((shares[1] > limit).mean()),
    )


def _rank_of_limit(n_splits: int) -> int:
    """Which of the splits, from the most calls down, is the limit."""
    return max(1, round(_RARE * n_splits))


def _drawn(genes: NDArray[np.int64], n_genes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if genes.size < 2:
        msg = f"{genes.size} genes are seen in 10 or more of these cells, and 2 are needed: give more cells or genes"
        raise ValueError(msg)
    return np.sort(rng.choice(genes, size=min(n_genes, genes.size), replace=False))


def wilcoxon(x_NS: FloatArray, halves_HN: NDArray[np.bool_]) -> FloatArray:
    """Return p of the rank-sum test of each column for each way to halve the cells; 1 for a constant column.

    Two-sided, asymptotic, with corrections for ties and continuity, as `scipy.stats.mannwhitneyu`; ranks are the same
    for every way, so that many cost one.
    """
    from scipy.stats import rankdata

    # Differences of rounding are none: a method may return a mean as many numbers that differ in the last bit.
    rounded = x_NS.astype(np.float32)
    rank_NS = rankdata(np.where(np.ptp(rounded, axis=0) > 1e-6, rounded, 0), axis=0).astype(np.float64)
    n, n_H1 = len(rank_NS), halves_HN.sum(axis=1, keepdims=True)
    deviation_HS = halves_HN @ (rank_NS - (n + 1) / 2)
    # Variance of the rank sum, ties included: that of drawing ranks without replacement.
    sd_HS = np.sqrt(n_H1 * (n - n_H1) / n * rank_NS.var(axis=0, ddof=1))
    beyond_HS = np.maximum(np.abs(deviation_HS) - 0.5, 0)
    z_HS = np.divide(beyond_HS, sd_HS, out=np.zeros_like(beyond_HS), where=sd_HS > 0)
    p_HS: FloatArray = np.where(sd_HS > 0, 2 * special.ndtr(-z_HS), 1.0)
    return p_HS


@dataclass(frozen=True, slots=True)
class FalseMarkers:
    """What `false_markers` returns.

    Attributes
    ----------
    alpha
        The nominal false-positive rate.
    n_genes, n_tests
        Genes that were permuted, and tests: each of them in each type against the others.
    before, after
        Share of the tests with p < `alpha`, before and after imputation.
    limit
        99 % point of that share for a nominal test, the genes being independent.
    """

    alpha: float
    n_genes: int
    n_tests: int
    before: float
    after: float
    limit: float

    @property
    def harmful(self) -> bool:
        """Whether more of the permuted genes are called than a nominal test does, and than before imputation."""
        return self.after > max(self.limit, self.before)


def false_markers(
    counts: Any,
    *,
    labels: Any,
    impute: Impute,
    share: float = 0.2,
    max_genes: int = 200,
    max_types: int = 3,
    alpha: float = 0.05,
    random_state: int | np.random.Generator = 0,
) -> FalseMarkers:
    """Permute some genes across cells, leave the others, and see whether imputation makes them markers of types.

    Cells are thinned to about one depth first: a permuted gene of a type with larger cells would else be lower in it
    once cells are scaled.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    labels
        Type of each cell; those with at least 10 cells are tested against all others.
    impute
        The method: counts and a Generator to dense logs.
    share
        Of the genes seen in at least 10 cells, how many to permute.
    max_genes, max_types
        Permute and test no more than so many: the most frequent types.
    alpha
        The nominal rate.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    FalseMarkers

    Raises
    ------
    ValueError
        If these are no counts, or no type has 10 cells inside and outside.

    Notes
    -----
    Source: Andrews & Hemberg, F1000Research 7:1740 (2018), who permuted genes of the Tabula Muris.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> adata = datasets.simulate(n_cells=100, n_genes=100, random_state=0)
    >>> found = false_markers(adata.X, labels=adata.obs["cell_type"], impute=lambda x, rng: logs_of(x).toarray())
    >>> found.before == found.after
    True
    """
    rng = np.random.default_rng(random_state)
    x = _one_depth(checked_molecules(counts), rng)
    types = tested_types(labels, max_types)
    n_seen = int((np.bincount(x.indices, minlength=x.shape[1]) >= 10).sum())
    genes = sampled_genes(x, min(max_genes, max(2, round(share * n_seen))), rng)
    mixed = _with_columns(x, permute_columns(x[:, genes], rng), genes)
    values = [columns_of(logs, genes) for logs in (logs_of(mixed), impute(mixed, rng))]
    called = [np.mean(wilcoxon(v, types) < alpha) for v in values]
    # Tests of one gene in several types are not independent of each other: as if there were one per gene.
    chance = np.sqrt(alpha * (1 - alpha) / genes.size)
    return FalseMarkers(
        alpha=alpha,
        n_genes=genes.size,
        n_tests=genes.size * len(types),
        before=float(called[0]),
        after=float(called[1]),
        limit=float(alpha + Z_99 * chance),
    )


def tested_types(labels: Any, max_types: int) -> BoolArray:
    """Return which cells are of each of the most frequent types with 10 cells inside and outside; types × cells."""
    label_N = np.asarray(labels).astype(str)
    names, sizes = np.unique(label_N, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    found = [label_N == names[i] for i in order if 10 <= sizes[i] <= label_N.size - 10]
    if not found:
        msg = f"none of {names.size} types has 10 cells inside and outside it: give other labels or more cells"
        raise ValueError(msg)
    return np.stack(found[:max_types])


def _one_depth(x: Any, rng: np.random.Generator) -> Any:
    """Thin every cell to the depth of the shallowest quarter; shallower cells stay as they are."""
    total_N = totals(x)
    keep_N = np.minimum(1.0, np.quantile(total_N, 0.25) / total_N)
    return thinned(x, np.repeat(keep_N, np.diff(x.indptr)), rng)[1]


def _with_columns(x: Any, columns: Any, genes: NDArray[np.int64]) -> Any:
    """Replace some columns of a sparse matrix."""
    others = ~np.isin(np.arange(x.shape[1]), genes)
    back = sparse.csr_array((np.ones(genes.size), (np.arange(genes.size), genes)), shape=(genes.size, x.shape[1]))
    mixed = sparse.csr_array(x @ sparse.diags_array(others.astype(np.float64)) + columns @ back)
    mixed.eliminate_zeros()
    mixed.sort_indices()
    return mixed
