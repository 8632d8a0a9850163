"""Which genes to model: the read filter and the dispersion ranking of AutoImpute's pre-processing.

Matrices here are canonical `csr_array`s, cells × genes. The reference is `functions.R` of the original program
(github.com/divyanshu-talwar/AutoImpute, commit b09485d), called "the R code" below.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Flavor = Literal["dispersion", "cv"]
TopGenes = int | Literal["all"] | None

_MAD_TO_SD = 1.4826  # R's mad(): the median absolute deviation of a normal sample times this is its sd
_MEAN_AD_TO_SD = 1.253314  # sqrt(pi / 2), the same for the mean absolute deviation


def genes_passing(x: Any, *, min_counts: float, min_cells: int, reference: bool) -> IntArray:
    """Return the positions of the genes with at least `min_counts` reads in at least `min_cells` cells.

    `reference=True` compares as the R code does: more than ``min_counts - 1`` reads in more than `min_cells` cells.
    """
    enough = x.data > min_counts - 1 if reference else x.data >= min_counts
    n_cells = np.bincount(x.indices[enough], minlength=x.shape[1])
    asked: dict[str, Any] = {"min_counts": min_counts, "min_cells": min_cells, "reference": reference}
    return genes_passing_by(n_cells, x.shape[0], x.data.max(initial=0), **asked)


def genes_passing_by(
    n_cells: NDArray[np.int64], n_all: int, largest: float, *, min_counts: float, min_cells: int, reference: bool
) -> IntArray:
    """Do as `genes_passing` does by the number of cells with enough reads of each gene.

    Parameters
    ----------
    n_cells
        Of each gene.
    n_all, largest
        Number of all cells, and the largest count.
    min_counts, min_cells, reference
        As of `genes_passing`.
    """
    passing = np.flatnonzero(n_cells > min_cells if reference else n_cells >= min_cells)
    if passing.size == 0:
        asked = (
            f"> {min_counts - 1} reads in > {min_cells}" if reference else f">= {min_counts} reads in >= {min_cells}"
        )
        msg = (
            f"no gene of {n_cells.size} has {asked} cells (largest count {largest:g}; at best "
            f"{n_cells.max(initial=0)} of {n_all} cells have enough reads): give more or deeper cells, or lower "
            "min_counts or min_cells in scautoimpute.pp"
        )
        raise ValueError(msg)
    return passing.astype(np.int64)


def top_genes(x: Any, *, n_top_genes: TopGenes, flavor: Flavor, reference: bool) -> IntArray:
    """Return the positions of the `n_top_genes` most variable genes of normalised values.

    In gene order; with `reference=True` in rank order, ties in gene order and NaN scores last. All genes when there
    are no more than asked.
    """
    return top_genes_by(
        lambda: mean_variance(lambda: [x], *x.shape), x.shape[1], n_top_genes, flavor=flavor, reference=reference
    )


def top_genes_by(
    moments: Callable[[], tuple[FloatArray, FloatArray]],
    n_genes: int,
    n_top_genes: TopGenes,
    *,
    flavor: Flavor,
    reference: bool,
) -> IntArray:
    """Do as `top_genes` does by mean and variance of each gene, which are asked for only if they are needed."""
    _check_choice(n_top_genes, flavor)
    n_top = n_genes if n_top_genes in {None, "all"} else min(int(n_top_genes), n_genes)
    if n_top == n_genes and not reference:
        return np.arange(n_genes, dtype=np.int64)
    score = _scores(*moments(), flavor=flavor, reference=reference)
    ranked = np.argsort(-score, kind="stable")[:n_top].astype(np.int64)
    return ranked if reference else np.sort(ranked)


def _check_choice(n_top_genes: TopGenes, flavor: Flavor) -> None:
    if flavor not in get_args(Flavor):
        msg = f'flavor is {flavor!r}; allowed are "dispersion" and "cv"'
        raise ValueError(msg)
    whole = isinstance(n_top_genes, int | np.integer) and not isinstance(n_top_genes, bool) and n_top_genes > 0
    if not (whole or n_top_genes is None or n_top_genes == "all"):
        msg = f'n_top_genes is {n_top_genes!r}; give a whole number above 0, or "all" (or None) to keep every gene'
        raise ValueError(msg)


def gene_scores(x: Any, *, flavor: Flavor, reference: bool) -> FloatArray:
    """Score the variability of each gene by its normalised dispersion, or its coefficient of variation.

    Genes without any reads score NaN, which ranks last.
    """
    return _scores(*mean_variance(lambda: [x], *x.shape), flavor=flavor, reference=reference)


def _scores(mean: FloatArray, variance: FloatArray, *, flavor: Flavor, reference: bool) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        if flavor == "cv":
            return np.sqrt(variance) / mean
        dispersion = variance / mean
    if reference:
        return _reference_scores(mean, dispersion)
    score = np.full(mean.size, np.nan)
    seen = mean > 0
    score[seen] = _signed_scores(mean[seen], dispersion[seen])
    return score


def mean_variance(blocks: Callable[[], Iterable[Any]], n_cells: int, n_genes: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance (n - 1) of each gene over all cells, zeros included; two passes against rounding.

    Each pass takes the cells from `blocks`, and the sums do not depend on how these are cut, to the last bit.
    """
    if n_cells < 2:
        msg = f"{n_cells} cell found; the variance of a gene needs at least 2 cells; give more cells"
        raise ValueError(msg)
    total, squares, n_entries = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
    for x in blocks():
        np.add.at(total, x.indices, x.data)
        n_entries += np.bincount(x.indices, minlength=n_genes)
    mean = total / n_cells
    for x in blocks():
        np.add.at(squares, x.indices, (x.data - mean[x.indices]) ** 2)
    return mean, (squares + (n_cells - n_entries) * mean**2) / (n_cells - 1)


def _reference_scores(mean: FloatArray, dispersion: FloatArray) -> FloatArray:
    """Return the R code's ``abs(dispersion - bin median) / bin MAD``; a MAD of 0 gives Inf or NaN, as there."""
    breaks = _mean_breaks(mean)
    if np.unique(breaks).size < breaks.size:
        msg = (
            f"the mean bins of {mean.size} genes are not distinct (R: 'breaks' are not unique); "
            "use reference=False, which merges equal bins, or give more genes"
        )
        raise ValueError(msg)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, mad, _ = _bin_statistics(dispersion, np.searchsorted(breaks, mean))
        score: FloatArray = np.abs(dispersion - centre) / mad
    return score


def _signed_scores(mean: FloatArray, dispersion: FloatArray) -> FloatArray:
    """Return (dispersion - bin median) / bin MAD over merged bins.

    Where half of a bin or more has the same dispersion (MAD 0) the mean absolute deviation stands in for it (the
    modified z-score of Iglewicz & Hoaglin, 1993); where all of it has (one-gene bins too) the score is 0.
    """
    centre, mad, mean_ad = _bin_statistics(dispersion, np.searchsorted(np.unique(_mean_breaks(mean)), mean))
    scale = np.where(mad > 0, mad, mean_ad)
    deviation = dispersion - centre
    return np.divide(deviation, scale, out=np.zeros_like(deviation), where=scale > 0)


def _bin_statistics(dispersion: FloatArray, bins: NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return median, scaled median and scaled mean absolute deviation of the dispersions in each gene's bin."""
    centre, mad, mean_ad = (np.empty_like(dispersion) for _ in range(3))
    for one in np.unique(bins):
        inside = bins == one
        centre[inside] = np.median(dispersion[inside])
        deviation = np.abs(dispersion[inside] - centre[inside])
        mad[inside] = _MAD_TO_SD * np.median(deviation)
        mean_ad[inside] = _MEAN_AD_TO_SD * deviation.mean()
    return centre, mad, mean_ad


def _mean_breaks(mean: FloatArray) -> FloatArray:
    """Return the R code's bin edges ``quantile(mean, seq(0.1, 1, 0.05))``: type 7, in R's order of operations.

    Bins are open below and closed above: the first holds 10 % of the genes, each other 5 %.
    """
    ordered = np.sort(mean)
    index = 1 + (mean.size - 1) * np.minimum(0.1 + 0.05 * np.arange(19), 1.0)
    below = np.floor(index)
    low, high = ordered[below.astype(int) - 1], ordered[np.ceil(index).astype(int) - 1]
    part = index - below
    breaks: FloatArray = np.where(low == high, low, (1 - part) * low + part * high)
    return breaks
