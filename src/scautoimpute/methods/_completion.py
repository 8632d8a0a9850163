"""What the matrix factorisations share: a base below them, and a setting chosen on entries hidden from it.

They work on the residuals of a base, a function from the observed entries to a dense estimate of all. Shape suffixes:
B cells, G genes.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..metrics.recovery import hide_entries
from ._arrays import Base, FloatArray

Setting = TypeVar("Setting")

VALIDATION_SHARE = 0.05
FEWEST_ENTRIES = 20  # of which one is held out


def validated(
    x: sparse.csr_array,
    rng: np.random.Generator,
    candidates: Callable[[sparse.csr_array], Iterable[tuple[Setting, FloatArray]]],
    *,
    patience: int | None = None,
) -> Setting:
    """Return the setting whose prediction has the least squared error at entries hidden from it.

    With `patience`, stop after so many candidates in a row that do not improve on the best.
    """
    if x.nnz < FEWEST_ENTRIES:
        msg = (
            f"{x.nnz} observed entries in {x.shape[0]} cells × {x.shape[1]} genes are too few to validate on: "
            f"at least {FEWEST_ENTRIES} are needed; give more cells or genes"
        )
        raise ValueError(msg)
    held_out = hide_entries(x, share=VALIDATION_SHARE, random_state=rng)
    errors: list[tuple[float, Setting]] = []
    for setting, prediction in candidates(held_out.visible):
        error = np.mean((prediction[held_out.rows, held_out.cols] - held_out.truth) ** 2)
        errors.append((float(error), setting))
        best = min(range(len(errors)), key=lambda i: errors[i][0])
        if patience is not None and len(errors) - 1 - best >= patience:
            break
    return errors[best][1]


def split_base(x: sparse.csr_array, base: Base) -> tuple[FloatArray, sparse.csr_array]:
    """Return the base estimate, and what it leaves unexplained at the observed entries."""
    base_BG = base(x)
    residual = x.astype(np.float64, copy=True)
    residual.data -= base_BG[rows_of(x), x.indices]
    return base_BG, residual


def rows_of(matrix: sparse.csr_array) -> NDArray[np.intp]:
    """Row of every stored entry, in storage order."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
