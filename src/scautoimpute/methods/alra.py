"""ALRA: low-rank approximation of the matrix, in which each gene's smallest values are set back to zero.

Shapes: N cells, G genes, R rank.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import FloatArray
from ._checks import share, whole_number
from ._eigen import symmetric_eigen
from ._record import Imputed, Method, Preparation

__all__ = ["METHOD", "impute"]


_N_SINGULAR = 100  # singular values looked at for the rank, in the original too
_FEWEST_SINGULAR = 10  # below, there are no spacings to tell noise by
_SPACING_SDS = 6.0
_EXACT_UP_TO = 1000  # cells or genes: an exact decomposition then takes about a second
_OVERSAMPLES = 10
_GENES_AT_ONCE = 1024


def impute(
    x_NG: Any,
    *,
    rng: np.random.Generator,
    rank: int | None = None,
    quantile: float = 0.001,
    n_iter: int = 10,
) -> Imputed:
    """Impute with adaptively thresholded low-rank approximation (ALRA).

    The matrix is approximated at low rank. Values of a gene no larger than the size of its most negative ones
    (there should be none: they are the error of the approximation around true zeros) become zero; the rest is
    scaled and shifted to the mean and standard deviation of the gene's observed values. Observed values that would
    become zero are kept; all others are replaced too.

    Parameters
    ----------
    x_NG
        Canonical ``csr_array``, cells × genes: ln(1 + counts per 10,000).
    rng
        Generator that seeds the randomised decomposition; of no effect up to 1000 cells or 1000 genes.
    rank
        Rank of the approximation. None takes the last of the first 100 singular values that stands out: its distance
        to the next exceeds the mean of the last fifth of such spacings by more than 6 of their standard deviations.
    quantile
        Which quantile of a gene's approximation stands for its most negative values.
    n_iter
        Power iterations of the randomised decomposition.

    Returns
    -------
    Dense array, cells × genes, on the scale of `x_NG`, in which nothing is negative; and the ``rank`` that was used.

    Raises
    ------
    ValueError
        If `rank` is below 1 or above the number of cells or genes, if it is None with fewer than 10 cells or genes
        that hold any count, if `quantile` is not between 0 and 1, or if `n_iter` is no whole number of at least 0.

    Notes
    -----
    Source: Linderman et al., Nat Commun 13:192 (2022), and github.com/KlugerLab/ALRA (commit f34d465, MIT).
    Deliberate differences from that program:

    - Up to 1000 cells or genes the decomposition is exact. Elsewhere it is randomised, as there, by which the chosen
      rank depends on the seed: on 150 cells of three cell lines the original chose 7 to 39 in 30 seeds.
    - It needs 100 cells and 100 genes to choose a rank; here as many singular values are used as there are, from 10
      on, and again the last fifth of the spacings (at least five) count as noise.
    - Where no singular value stands out it fails; here the rank is 1. A rank of 1 fails there; here it works.
    - Genes without any count stay exactly zero (there: noise of about 1e-20), and cells without any count stay in the
      matrix as zeros (there: they are removed first, so in both they affect no other cell).

    Memory beyond the result: the factors and a block of 1024 genes; the matrix itself stays sparse.

    Examples
    --------
    >>> from scipy import sparse
    >>> x = sparse.csr_array(np.outer([1.0, 2.0, 3.0], [1.0, 0.0, 2.0]))
    >>> impute(x, rng=np.random.default_rng(0), rank=1).values[:, 1]
    array([0., 0., 0.])
    """
    cells = np.flatnonzero(np.diff(x_NG.indptr))
    genes = np.flatnonzero(np.bincount(x_NG.indices, minlength=x_NG.shape[1]))
    _check(x_NG.shape, rank, quantile, n_iter)
    imputed = np.zeros(x_NG.shape)
    if cells.size == 0:
        return Imputed(imputed, {})
    x = x_NG[cells][:, genes]
    left_NR, right_RG = _factors(x, rank, n_iter, rng)
    x = x.tocsc()
    for start in range(0, genes.size, _GENES_AT_ONCE):
        block = slice(start, start + _GENES_AT_ONCE)
        values = _match(left_NR @ right_RG[:, block], x[:, block].toarray(), quantile)
        imputed[np.ix_(cells, genes[block])] = values
    return Imputed(imputed, {"rank": left_NR.shape[1]})


def _check(shape: tuple[int, int], rank: Any, quantile: Any, n_iter: Any) -> None:
    if rank is not None:
        hint = f" for {shape[0]} cells × {shape[1]} genes, or None to choose it from the singular values"
        whole_number("rank", rank, low=1, high=min(shape), hint=hint)
    share("quantile", quantile, hint=" (the original takes 0.001)")
    whole_number("n_iter", n_iter, low=0)


def _factors(x: Any, rank: int | None, n_iter: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return left and right factors whose product is `x` at low rank; no centring, so `x` stays sparse."""
    if min(x.shape) <= _EXACT_UP_TO:
        return _exact_factors(x, rank)
    seed = int(rng.integers(2**31))
    if rank is None:
        rank = _choose_rank(_randomised(x, _N_SINGULAR, n_iter=2, seed=seed)[1])
    u_NR, singular_R, v_RG = _randomised(x, min(rank, *x.shape), n_iter=n_iter, seed=seed)
    return u_NR * singular_R, v_RG


def _exact_factors(x: Any, rank: int | None) -> tuple[FloatArray, FloatArray]:
    """From the eigenvectors of the smaller of ``x xᵀ`` and ``xᵀ x``: ``U Uᵀ x``, or ``x V Vᵀ``."""
    wide = x.shape[0] <= x.shape[1]
    eigenvalues, vectors = symmetric_eigen((x @ x.T if wide else x.T @ x).toarray())
    if rank is None:
        rank = _choose_rank(np.sqrt(np.maximum(eigenvalues[::-1], 0))[:_N_SINGULAR])
    top = vectors[:, ::-1][:, :rank]
    return (top, top.T @ x) if wide else (x @ top, top.T)


def _randomised(x: Any, rank: int, *, n_iter: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    from sklearn.utils.extmath import randomized_svd

    u, singular, v = randomized_svd(
        x, rank, n_oversamples=_OVERSAMPLES, n_iter=n_iter, power_iteration_normalizer="QR", random_state=seed
    )
    return u, singular, v


def _choose_rank(singular: FloatArray) -> int:
    """Return the last singular value, counted from 1, whose distance to the next is out of line with the noise."""
    if singular.size < _FEWEST_SINGULAR:
        msg = (
            f"{singular.size} cells or genes have entries; choosing a rank takes at least {_FEWEST_SINGULAR} of both: "
            "give rank (options=), or more cells and genes"
        )
        raise ValueError(msg)
    spacings = singular[:-1] - singular[1:]
    noise = spacings[-max(5, singular.size // 5 + 1) :]  # of 100 values the last 21 spacings, as in the original
    significant = np.flatnonzero(spacings - noise.mean() > _SPACING_SDS * noise.std(ddof=1))
    return int(significant[-1]) + 1 if significant.size else 1


def _match(low_rank_NG: FloatArray, x_NG: FloatArray, quantile: float) -> FloatArray:
    """Threshold the approximation gene by gene, match it to the observed values, restore what was lost of them."""
    kept = low_rank_NG > np.abs(np.quantile(low_rank_NG, quantile, axis=0))
    scale, shift = _matching(_moments(low_rank_NG, kept), _moments(x_NG, x_NG > 0))
    values = np.where(kept, np.maximum(low_rank_NG * scale + shift, 0), 0)
    return np.where((x_NG > 0) & (values == 0), x_NG, values)


def _moments(values_NG: FloatArray, chosen_NG: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (n - 1) of the chosen values of each gene; NaN where there are too few."""
    n = chosen_NG.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.sum(values_NG, axis=0, where=chosen_NG) / n
        squares = np.sum((values_NG - mean) ** 2, axis=0, where=chosen_NG)
        return mean, np.sqrt(squares / (n - 1))


def _matching(
    found: tuple[FloatArray, FloatArray], wanted: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Scale and shift from one mean and standard deviation to another; none where either has no spread to go by."""
    (mean, sd), (target_mean, target_sd) = found, wanted
    usable = (sd > 0) & np.isfinite(target_sd)
    scale = np.divide(target_sd, sd, out=np.ones_like(sd), where=usable)
    return scale, np.where(usable, target_mean - mean * scale, 0)


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """Result, copies of the sparse matrix, six of a block of genes, and the decomposition."""
    smaller = min(n_cells, n_genes)
    decomposition = (
        3 * smaller**2 if smaller <= _EXACT_UP_TO else 3 * (_N_SINGULAR + _OVERSAMPLES) * (n_cells + n_genes)
    )
    return 8.0 * (n_cells * n_genes * 2.5 + 6 * n_cells * min(n_genes, _GENES_AT_ONCE) + decomposition)


METHOD = Method(
    name="alra",
    title="ALRA",
    impute=impute,
    takes=Preparation(1e4, "log1p"),
    keeps_observed=False,
    reference="Linderman et al., Nat Commun 13:192 (2022); github.com/KlugerLab/ALRA commit f34d465",
    limits="Replaces observed values too; the rank that it chooses is unstable on small data, and has to be given "
    "below 10 cells.",
    peak_bytes=_peak_bytes,
    distributions=("numpy", "scipy", "scikit-learn"),
)
