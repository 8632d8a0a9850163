"""The methods that the recovery benchmark compares AutoImpute with, each as one small function.

Every method has the same form, ``method(visible, seed) -> prediction``: `visible` is a sparse cells × genes matrix on
the log2 scale whose absent entries are missing, and the prediction is dense, on the same scale, for every entry.
Matrix factorisations work on the residuals of a `base`, a function from `visible` to a dense cells × genes estimate,
so that another base can be put under them.

Shape suffixes: B cells, G genes, K rank.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any, TypeVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy import sparse

from scautoimpute import AutoImpute
from scautoimpute.errors import MissingDependencyError
from scautoimpute.metrics import recovery
from scautoimpute.model.base import fit_base

__all__ = ["DEFAULT_METHODS", "METHODS", "Base", "Method", "preload"]

Dense = NDArray[np.float64]
Base = Callable[[sparse.csr_array], Dense]
Method = Callable[[sparse.csr_array, int], Dense]
Setting = TypeVar("Setting")

RANKS = (0, 1, 2, 3, 5, 8, 12, 20, 30)
RIDGES = (0.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # in units of the residual variance
N_THRESHOLDS = 20
THRESHOLD_RANGE = 0.02  # the smallest threshold of the path, as a share of the largest singular value
VALIDATION_SHARE = 0.05


# Floors: no structure beyond gene and cell effects ------------------------------------------------------------------


def gene_mean(visible: sparse.csr_array, seed: int = 0) -> Dense:  # noqa: ARG001
    """Mean of each gene's non-zero values; the overall mean for a gene that has none."""
    return np.tile(recovery.gene_mean(visible), (visible.shape[0], 1))


def gene_cell_bias(visible: sparse.csr_array, seed: int = 0) -> Dense:  # noqa: ARG001
    """Gene effect + cell effect, shrunk as by one and by five more observations of no effect."""
    gene_G, cell_B = recovery.gene_cell_bias(visible, gene_prior=1.0, cell_prior=5.0)
    return cell_B[:, None] + gene_G[None, :]


# Low rank by alternating least squares ------------------------------------------------------------------------------


def als(
    visible: sparse.csr_array,
    seed: int,
    *,
    base: Base = gene_cell_bias,
    ranks: Sequence[int] = RANKS,
    ridges: Sequence[float] = RIDGES,
) -> Dense:
    """Ridge matrix factorisation of the residuals of `base`, rank and ridge validated on held-out visible entries.

    Rank 0 is the base itself. The chosen rank and ridge are fitted again to everything visible.
    """

    def fits(matrix: sparse.csr_array) -> Iterator[tuple[tuple[int, float], Dense]]:
        base_BG, residual = _split_base(matrix, base)
        start_GK = _leading_directions(residual, max(ranks))
        for rank, ridge in _rank_ridge_pairs(ranks, ridges):
            yield (rank, ridge), base_BG + als_residual(residual, rank, ridge, start_GK)

    rank, ridge = _validate(visible, seed, fits)
    base_BG, residual = _split_base(visible, base)
    return base_BG + als_residual(residual, rank, ridge, _leading_directions(residual, rank))


def als_residual(residual: sparse.csr_array, rank: int, ridge: float, start_GK: Dense, n_sweeps: int = 15) -> Dense:
    """U Vᵀ with the least Σ (residual − u·v)² + ridge σ² (‖U‖² + ‖V‖²), the sum over the stored entries."""
    if rank == 0:
        return np.zeros(residual.shape)
    cells_BK, genes_GK = als_factors(residual, ridge * _variance(residual), start_GK[:, :rank], n_sweeps)
    return cells_BK @ genes_GK.T


def als_factors(
    residual: sparse.csr_array, penalty: float, start_GK: Dense, n_sweeps: int = 15, tolerance: float = 1e-4
) -> tuple[Dense, Dense]:
    """Alternate the two ridge regressions until the fit moves by less than `tolerance` of it or of the target."""
    # Dense, because these sets are small and up to 90 % full: the products are several times faster.
    target, seen = residual.toarray(), np.zeros(residual.shape)
    seen[_rows(residual), residual.indices] = 1.0
    genes_GK, previous = start_GK, np.zeros(residual.shape)
    for _ in range(n_sweeps):
        cells_BK = _ridge_rows(target, seen, genes_GK, penalty)
        genes_GK = _ridge_rows(target.T, seen.T, cells_BK, penalty)
        fitted = cells_BK @ genes_GK.T
        if np.linalg.norm(fitted - previous) <= tolerance * max(np.linalg.norm(fitted), np.linalg.norm(target)):
            break
        previous = fitted
    return cells_BK, genes_GK


def _ridge_rows(target: Dense, seen: Dense, factors: Dense, penalty: float) -> Dense:
    """Regress every row of `target` (zero where not seen) on `factors`: all the normal equations in one batch."""
    rank = factors.shape[1]
    upper = np.triu_indices(rank)
    products = seen @ (factors[:, upper[0]] * factors[:, upper[1]])
    gram = np.empty((target.shape[0], rank, rank))
    gram[:, upper[0], upper[1]] = products
    gram[:, upper[1], upper[0]] = products
    # A row without a stored entry has a zero Gram matrix; the tiny jitter keeps it solvable when there is no penalty.
    gram[:, np.arange(rank), np.arange(rank)] += penalty + 1e-12
    return np.linalg.solve(gram, (target @ factors)[:, :, None])[:, :, 0]


def _leading_directions(residual: sparse.csr_array, rank: int) -> Dense:
    """Gene directions of the zero-filled residual, longest first: where the alternation starts (genes × rank)."""
    _, scale, right = scipy.linalg.svd(residual.toarray(), full_matrices=False)
    return (right[:rank] * np.sqrt(scale[:rank, None])).T


def _rank_ridge_pairs(ranks: Iterable[int], ridges: Sequence[float]) -> Iterator[tuple[int, float]]:
    return ((rank, ridge) for rank, ridge in product(ranks, ridges) if rank > 0 or ridge == ridges[0])


# Low rank by singular value soft-thresholding -----------------------------------------------------------------------


def soft_impute(
    visible: sparse.csr_array, seed: int, *, base: Base = gene_cell_bias, n_thresholds: int = N_THRESHOLDS
) -> Dense:
    """Soft-impute (Mazumder, Hastie & Tibshirani, JMLR 2010) of the residuals of `base`, with validated threshold.

    The path runs from the threshold that leaves nothing (the base itself) downwards, each solution starting the next.
    """
    shares = np.geomspace(1.0, THRESHOLD_RANGE, n_thresholds)

    def path(matrix: sparse.csr_array, shares: NDArray[np.float64] = shares) -> Iterator[tuple[float, Dense]]:
        base_BG, residual = _split_base(matrix, base)
        for share, estimate in zip(shares, soft_path(residual, shares * _top_value(residual)), strict=True):
            yield share, base_BG + estimate

    chosen = _validate(visible, seed, path, patience=3)
    *_, (_, prediction) = path(visible, shares[shares >= chosen])
    return prediction


def soft_path(
    residual: sparse.csr_array, thresholds: Iterable[float], *, n_steps: int = 200, tolerance: float = 1e-3
) -> Iterator[Dense]:
    """Solutions of ½ Σ (residual − z)² + threshold ‖Z‖_* over the stored entries, largest threshold first."""
    seen, values = (_rows(residual), residual.indices), residual.data
    estimate = np.zeros(residual.shape)
    for threshold in thresholds:
        previous, weight = estimate, 1.0
        for _ in range(n_steps):
            # Fill what is missing with the estimate and shrink, with Nesterov's momentum, until it stands still.
            next_weight = (1 + np.sqrt(1 + 4 * weight**2)) / 2
            filled = estimate + (weight - 1) / next_weight * (estimate - previous)
            filled[seen] = values
            previous, estimate, weight = estimate, shrink_singular_values(filled, threshold), next_weight
            if np.linalg.norm(estimate - previous) <= tolerance * np.linalg.norm(estimate):
                break
        yield estimate


def shrink_singular_values(matrix: Dense, threshold: float) -> Dense:
    """Lower every singular value by `threshold`, not below zero; from the eigenvectors of the smaller Gram matrix."""
    if matrix.shape[0] < matrix.shape[1]:
        return shrink_singular_values(matrix.T, threshold).T
    squared, vectors = scipy.linalg.eigh(matrix.T @ matrix, subset_by_value=(threshold**2, np.inf))
    return (matrix @ vectors) * (1 - threshold / np.sqrt(squared)) @ vectors.T


def _top_value(residual: sparse.csr_array) -> float:
    return float(np.linalg.norm(residual.toarray(), ord=2))


# Libraries ----------------------------------------------------------------------------------------------------------


def magic(visible: sparse.csr_array, seed: int) -> Dense:
    """MAGIC (van Dijk et al., Cell 2018) at its defaults; it has no notion of missing, so hidden entries are zeros."""
    try:
        library = importlib.import_module("magic")
    except ImportError as error:
        msg = "the method 'magic' needs magic-impute: pip install magic-impute, or leave magic out of --methods"
        raise MissingDependencyError(msg) from error
    operator = library.MAGIC(random_state=seed, n_jobs=1, verbose=0)
    return np.asarray(operator.fit_transform(visible.toarray()), dtype=np.float64)


def empirical_bayes_base(visible: sparse.csr_array) -> Dense:
    """AutoImpute's own base, for asking how much of its lead a rival gets from that alone."""
    return fit_base(visible).predict(visible)


def autoimpute(visible: sparse.csr_array, seed: int, **settings: Any) -> Dense:
    """AutoImpute as installed, in its default configuration or with other settings."""
    # A stream of its own: the run's seed already drew which entries are hidden.
    model = AutoImpute(random_state=np.random.default_rng([seed, 2]), **settings).fit(visible)
    return np.asarray(model.impute(visible, keep_observed=False), dtype=np.float64)


def autoimpute_paper(visible: sparse.csr_array, seed: int) -> Dense:
    """AutoImpute trained exactly as published, to its own stop."""
    return autoimpute(visible, seed, preset="paper")


def preload(method: str) -> None:
    """Import the library that `method` needs, where it is installed, so that no run time includes an import."""
    with suppress(ImportError):  # the method itself says what is missing
        importlib.import_module("magic" if method == "magic" else "torch")


METHODS: dict[str, Method] = {
    "gene_mean": gene_mean,
    "gene_cell_bias": gene_cell_bias,
    "als": als,
    "soft_impute": soft_impute,
    "magic": magic,
    "autoimpute": autoimpute,
    # Only when named: minutes to hours a run, or no rival as commonly defined
    "autoimpute_paper": autoimpute_paper,
    "autoimpute_2000": partial(autoimpute, hidden=2000),
    "als_eb": partial(als, base=empirical_bayes_base),
    "soft_impute_eb": partial(soft_impute, base=empirical_bayes_base),
}
DEFAULT_METHODS = tuple(METHODS)[:6]


# Shared steps -------------------------------------------------------------------------------------------------------


def _validate(
    visible: sparse.csr_array,
    seed: int,
    candidates: Callable[[sparse.csr_array], Iterable[tuple[Setting, Dense]]],
    patience: int | None = None,
) -> Setting:
    """Return the setting whose prediction has the least squared error at entries hidden from it.

    With `patience`, stop after so many candidates in a row that do not improve on the best.
    """
    # A stream of its own: the run's seed already drew which entries are hidden.
    held_out = recovery.hide_entries(visible, share=VALIDATION_SHARE, random_state=np.random.default_rng([seed, 1]))
    errors: list[tuple[float, Setting]] = []
    for setting, prediction in candidates(held_out.visible):
        error = np.mean((prediction[held_out.rows, held_out.cols] - held_out.truth) ** 2)
        errors.append((float(error), setting))
        best = min(range(len(errors)), key=lambda i: errors[i][0])
        if patience is not None and len(errors) - 1 - best >= patience:
            break
    return errors[best][1]


def _split_base(visible: sparse.csr_array, base: Base) -> tuple[Dense, sparse.csr_array]:
    """Return the base estimate, and what it leaves unexplained at the visible entries."""
    base_BG = base(visible)
    residual = visible.astype(np.float64, copy=True)
    residual.data -= base_BG[_rows(visible), visible.indices]
    return base_BG, residual


def _rows(matrix: sparse.csr_array) -> NDArray[np.intp]:
    """Row of every stored entry, in storage order."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _variance(residual: sparse.csr_array) -> float:
    return float(np.mean(residual.data**2))
