"""Estimates beside what is known otherwise: the same cells sequenced deeply, or bulk RNA-seq of the same kind."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ._matrices import Floats, check_shapes, dense

__all__ = ["bulk_similarity", "reference_correlation"]

_GENES_AT_ONCE = 512
_CURVES: dict[str, Callable[[Floats], Any]] = {"linear": np.asarray, "sqrt": np.sqrt, "log1p": np.log1p}


def reference_correlation(
    reference: Any, estimate: Any, *, curve: Literal["linear", "sqrt", "log1p"] = "sqrt"
) -> dict[str, float]:
    """Correlate the estimate from few molecules with the same cells sequenced deeply, per gene and per cell.

    Parameters
    ----------
    reference
        Counts of the deep reference, cells × genes, dense or sparse. If the input was drawn from it, take what is
        left of it (reference − input), or the estimate is scored on its own input.
    estimate
        Rates on any scale.
    curve
        What the shares, times the median total of the reference, are put through: the square root makes the noise
        of counts even; `"linear"` is what Huang et al. (SAVER, Nat Methods 15:539, 2018) show.

    Returns
    -------
    ``gene``, the median over genes of Pearson's correlation across cells, and ``cell``, the median over cells of that
    across genes. Genes (cells) that do not vary in the reference are left out; an estimate that does not vary
    correlates 0.

    Raises
    ------
    ValueError
        If the two differ in shape or are empty, or a cell of the reference or the estimate is empty.

    Examples
    --------
    >>> counts = np.array([[90, 5, 5], [10, 30, 60]])
    >>> {name: round(value, 6) for name, value in reference_correlation(counts, counts * 2.5).items()}
    {'gene': 1.0, 'cell': 1.0}
    """
    check_shapes(reference=reference, estimate=estimate)
    truth, guess = dense(reference), dense(estimate)
    depth = float(np.median(truth.sum(axis=1)))
    truth, guess = (_CURVES[curve](_shares(values) * depth) for values in (truth, guess))
    by_gene = [
        _correlations(truth[:, start : start + _GENES_AT_ONCE].T, guess[:, start : start + _GENES_AT_ONCE].T)
        for start in range(0, truth.shape[1], _GENES_AT_ONCE)
    ]
    by_cell = _correlations(truth, guess)
    return {"gene": _median(np.concatenate(by_gene)), "cell": _median(by_cell)}


def bulk_similarity(estimate: Any, bulk: ArrayLike, *, kind: ArrayLike) -> dict[str, float]:
    """Compare imputed cells with bulk RNA-seq of their own kind (Hou et al., Genome Biol 21:218, 2020).

    Parameters
    ----------
    estimate
        Rates on any scale, cells × genes, dense or sparse.
    bulk
        Kinds × genes, the same genes: counts or rates of bulk samples, replicates already added up.
    kind
        Which row of `bulk` each cell belongs to.

    Returns
    -------
    ``cell``, the median over cells of Spearman's correlation with the bulk of the cell's kind, across genes; and
    ``fold_change``, the mean over pairs of kinds of Spearman's correlation between the log fold changes of the cells'
    mean shares and those of the bulk. NaN for the latter with one kind only.

    Raises
    ------
    ValueError
        If genes differ in number, `kind` does not fit, or a cell or a bulk sample is empty.

    Examples
    --------
    >>> bulk = np.array([[8.0, 1.0, 3.0], [1.0, 8.0, 2.0]])
    >>> {name: round(value, 6) for name, value in bulk_similarity(bulk[[0, 0, 1]], bulk, kind=[0, 0, 1]).items()}
    {'cell': 1.0, 'fold_change': 1.0}
    """
    from scipy.stats import rankdata

    cells, samples, of_cell = _shares(dense(estimate)), _shares(dense(bulk)), np.asarray(kind)
    _check_kinds(cells.shape, samples.shape, of_cell)
    of_sample = rankdata(samples, axis=1)
    per_cell = np.concatenate(
        [_correlations(of_sample[[k]], rankdata(row)[None]) for k, row in zip(of_cell, cells, strict=True)]
    )
    present = np.unique(of_cell)
    means = np.stack([cells[of_cell == k].mean(axis=0) for k in present])
    folds = [
        _correlations(rankdata(_log_change(samples[present], a, b))[None], rankdata(_log_change(means, a, b))[None])[0]
        for a, b in combinations(range(len(present)), 2)
    ]
    return {"cell": _median(per_cell), "fold_change": float(np.mean(folds)) if folds else float("nan")}


def _correlations(truth: Floats, guess: Floats) -> Floats:
    """Return Pearson's correlation of each row; NaN where the truth is constant, 0 where only the guess is."""
    a, b = truth - truth.mean(axis=1, keepdims=True), guess - guess.mean(axis=1, keepdims=True)
    size_a, size_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    # Rounding leaves about 1e-16 of the size in rows that are constant
    varies_a, varies_b = (s > 1e-12 * np.linalg.norm(v, axis=1) for s, v in ((size_a, truth), (size_b, guess)))
    product = np.sum(a * b, axis=1)
    found = np.divide(product, size_a * size_b, out=np.zeros_like(product), where=varies_a & varies_b)
    return np.asarray(np.where(varies_a, np.clip(found, -1, 1), np.nan), dtype=np.float64)


def _median(values: Floats) -> float:
    kept = values[np.isfinite(values)]
    return float(np.median(kept)) if kept.size else float("nan")


def _log_change(shares: Floats, a: int, b: int) -> Floats:
    per_million = np.log2(shares[[a, b]] * 1e6 + 1)
    return np.asarray(per_million[0] - per_million[1])


def _shares(values: Floats) -> Floats:
    totals = values.sum(axis=1, keepdims=True)
    if not np.all(totals > 0):
        msg = f"{int(np.sum(~(totals > 0)))} rows add up to nothing, so they have no shares; leave those cells out"
        raise ValueError(msg)
    shares: Floats = values / totals
    return shares


def _check_kinds(cells: tuple[int, ...], samples: tuple[int, ...], of_cell: Any) -> None:
    fits = of_cell.shape == cells[:1] and cells[1] == samples[1]
    if not fits or not np.all((of_cell >= 0) & (of_cell < samples[0])):
        msg = (
            f"estimate is {cells[0]} × {cells[1]}, bulk {samples[0]} × {samples[1]}, kind has {of_cell.size} values; "
            "give the same genes, and for each cell the row of its bulk sample, from 0"
        )
        raise ValueError(msg)
