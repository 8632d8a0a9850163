"""The scales that imputed expression can be given in.

Everything passes through *normalised counts*: counts divided by the cell's size factor (its total over the
median total), which is what the model's log2(x + 1) is the logarithm of.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["PER_CELL", "CountsScale", "Scale", "check_masked_scale", "check_scale", "from_normalised", "to_log1p"]

Scale = Literal["counts", "cp10k", "log1p", "log2", "expected_log1p"]
CountsScale = Literal["counts", "cp10k", "log1p", "expected_log1p"]  # of the counts objective; the masked has log2
PER_CELL = 1e4  # counts of a cell, of which the logs are

_WORDS = {
    "counts": "counts at each cell's own library size",
    "cp10k": "counts per 10,000",
    "log1p": "ln(1 + counts per 10,000)",
    "log2": "log2(1 + counts at the median library size), the model's own scale",
    "expected_log1p": "expectation of ln(1 + counts per 10,000) of a cell counted at a given depth",
}


def check_scale(scale: str) -> str:
    """Return what `scale` means in words, or refuse it; not every objective has every scale."""
    if scale not in _WORDS:
        msg = f"scale={scale!r} is not known: choose {', '.join(repr(s) for s in get_args(Scale))}"
        raise ValueError(msg)
    return _WORDS[scale]


def check_masked_scale(scale: str, depth: Any = None) -> None:
    """Refuse what the masked objective, and other methods, do not have: an expectation over counts."""
    check_scale(scale)
    if scale == "expected_log1p" or depth is not None:
        given = f"scale={scale!r}" if depth is None else "depth="
        msg = f"{given} is for objective='counts': choose 'log1p', 'cp10k', 'counts', 'log2', or that objective"
        raise ValueError(msg)


def from_normalised(
    values: NDArray[Any], scale: str, *, size_factor: NDArray[Any] | float, median_total: float
) -> NDArray[np.float32]:
    """Convert normalised counts to `scale`.

    Parameters
    ----------
    values
        Normalised counts of any shape; zeros stay zeros on every scale.
    size_factor
        Of the cell of each value, broadcastable to `values`.
    median_total
        Median total per cell, in counts.
    """
    if scale == "counts":
        converted = values * size_factor
    elif scale == "log2":
        converted = np.log2(values + 1)
    elif scale == "log1p":
        converted = np.log1p(values * (PER_CELL / median_total))
    else:
        converted = values * (PER_CELL / median_total)
    return np.asarray(converted, dtype=np.float32)


def to_log1p(
    values: NDArray[Any], scale: str, *, size_factor: NDArray[Any] | float, median_total: float
) -> NDArray[np.float32]:
    """Bring values on `scale` to ln(1 + counts per 10,000); parameters as in `from_normalised`."""
    if scale in {"log1p", "expected_log1p"}:
        return np.asarray(values, dtype=np.float32)
    if scale == "cp10k":
        return np.asarray(np.log1p(values), dtype=np.float32)
    normalised = values / size_factor if scale == "counts" else np.exp2(values) - 1
    return from_normalised(normalised, "log1p", size_factor=size_factor, median_total=median_total)
