"""What the posterior of a cell's expected counts is on each scale, with the expected log of a count worked out.

A cell of L molecules in all genes, of which the model expects `mean` of a gene with standard deviation `sd`, has the
share mean / L of that gene. The logs are natural, of 1 + counts per 10,000.

Shape legend: B cells of a block, P genes of the model.
"""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from .scales import PER_CELL, CountsScale

__all__ = ["check_counts_scale", "expected_log1p", "from_counts", "sd_from_counts"]

STEP = 0.5  # of the trapezoid rule in ln t: the error is of the order exp(-π²/STEP), 3e-9
LARGEST_LOG_T = 3.6  # e^{-t} is 1e-16 beyond
SMALLEST_T = 1e-4  # where the integrand is as good as linear in t
SMALLEST_RATIO = 1e-6  # of variance to mean, below which the rate is as good as known
ENTRIES_AT_A_TIME = 2**15  # stay in the processor's cache


def check_counts_scale(scale: str, depth: Any) -> None:
    """Refuse a scale that the counts objective does not have, and a depth where none is meant."""
    if scale not in get_args(CountsScale):
        msg = (
            f"scale={scale!r} is not for objective='counts': choose "
            f"{', '.join(map(repr, get_args(CountsScale)))}, or objective='masked'"
        )
        raise ValueError(msg)
    if depth is None:
        return
    if scale != "expected_log1p":
        msg = f"depth= has no effect with scale={scale!r}: leave it out, or choose scale='expected_log1p'"
        raise ValueError(msg)
    try:
        depth_N = np.asarray(depth, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        depth_N = np.full(1, np.nan)
    bad_N = ~(np.isfinite(depth_N) & (depth_N > 0))
    if bad_N.any():
        found = f"depth={depth!r}" if np.ndim(depth) == 0 else f"{int(bad_N.sum())} of {bad_N.size} values of depth="
        what = "is no number of molecules" if np.ndim(depth) == 0 else "are no numbers of molecules"
        msg = f"{found} {what}: give a finite one above 0, or one for each cell"
        raise ValueError(msg)


def from_counts(
    mean_BP: NDArray[Any],
    sd_BP: NDArray[Any],
    scale: str,
    *,
    library_B: NDArray[np.float64],
    depth_B: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Bring expected counts to `scale`; zero for a cell without molecules.

    Parameters
    ----------
    mean_BP, sd_BP
        Posterior mean and standard deviation of the counts expected at the cell's own library; the latter is needed
        for `"expected_log1p"` alone.
    library_B
        Molecules of each cell, in all genes.
    depth_B
        Molecules that `"expected_log1p"` is for; by default `library_B`.
    """
    if scale == "counts":
        return mean_BP.astype(np.float32)
    library_B1 = np.maximum(library_B, 1)[:, None]
    if scale == "expected_log1p":
        depth_B1 = library_B1 if depth_B is None else depth_B[:, None]
        ratio_B1 = depth_B1 / library_B1
        mean, sd = mean_BP * ratio_B1, sd_BP * ratio_B1
        return expected_log1p(mean, sd, factor=PER_CELL / depth_B1).astype(np.float32)
    per_10k_BP = mean_BP.astype(np.float32, copy=False) * (PER_CELL / library_B1).astype(np.float32)
    if scale == "log1p":
        from torch import from_numpy

        from_numpy(per_10k_BP).log1p_()  # five times as fast as NumPy's
    return per_10k_BP


def sd_from_counts(
    mean_BP: NDArray[Any], sd_BP: NDArray[Any], scale: str, *, library_B: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Standard deviation of what `from_counts` gives; on the log scales to first order, sd / (1 + mean) per 10,000."""
    if scale == "counts":
        return sd_BP.astype(np.float32)
    factor_B1 = PER_CELL / np.maximum(library_B, 1)[:, None]
    sd = sd_BP * factor_B1
    return np.asarray(sd if scale == "cp10k" else sd / (1 + mean_BP * factor_B1), dtype=np.float32)


def expected_log1p(mean: NDArray[Any], sd: NDArray[Any], *, factor: NDArray[Any] | float) -> NDArray[np.float64]:
    """E[ln(1 + factor · n)] of counts n that are Poisson about a rate of given mean and standard deviation.

    The rate is taken to be gamma distributed, so that n is negative binomial. With its generating function G(z) =
    (1 + θ(1 − z))^(−mean/θ), θ = sd²/mean, ln(1 + y) = ∫ (1 − e^(−ty)) e^(−t) / t dt over t > 0 gives
    ∫ (1 − G(e^(−t·factor))) e^(−t) / t dt, to which the trapezoid rule in ln t converges exponentially: the result is
    good to about 1e-7.

    Parameters
    ----------
    mean, sd
        Of the rate, at the depth that n is counted at.
    factor
        What counts are multiplied with before the logarithm: 10,000 over that depth.

    Examples
    --------
    >>> float(expected_log1p(np.array([2.0]), np.array([0.0]), factor=1.0)[0].round(6))  # Σ Poisson(n; 2) ln(1 + n)
    0.977998
    """
    mean, sd, factor = np.broadcast_arrays(mean, sd, factor)
    result = np.empty(mean.shape)
    flat = [array.reshape(-1) for array in (mean, sd, factor)]
    for start in range(0, mean.size, ENTRIES_AT_A_TIME):
        part = slice(start, start + ENTRIES_AT_A_TIME)
        result.reshape(-1)[part] = _expected_log1p(*(array[part].astype(np.float64) for array in flat))
    return result


def _expected_log1p(
    mean_E: NDArray[np.float64], sd_E: NDArray[np.float64], factor_E: NDArray[np.float64]
) -> NDArray[np.float64]:
    mean_E = np.maximum(mean_E, 1e-300)
    ratio_E = np.maximum(sd_E**2 / mean_E, SMALLEST_RATIO)
    shape_E = mean_E / ratio_E
    first = np.log(SMALLEST_T / max(1.0, float((factor_E * (1 + mean_E + ratio_E)).max(initial=0))))
    below_E = factor_E * mean_E  # d/dt of 1 − G at t = 0
    total_E = below_E * np.exp(first) / np.expm1(STEP)  # the nodes below `first`, a geometric series
    for log_t in np.arange(first, LARGEST_LOG_T, STEP):
        t = np.exp(log_t)
        missing_E = ratio_E * -np.expm1(-t * factor_E)
        total_E += -np.expm1(-shape_E * np.log1p(missing_E)) * np.exp(-t)
    result: NDArray[np.float64] = total_E * STEP
    return result
