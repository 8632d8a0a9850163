"""How often each count occurs: all that quantiles need, of as many counts as there are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CountHistogram"]

FREQUENT = 2**16  # counts below have a place of their own; above there are few


class CountHistogram:
    """An exact histogram of values above zero, gathered in pieces.

    Examples
    --------
    >>> histogram = CountHistogram()
    >>> histogram.add(np.array([1, 1, 2, 0]))
    >>> histogram.add(np.array([7.0, 2**20]))
    >>> histogram.quantile(0.5), histogram.largest
    (2.0, 1048576.0)
    """

    def __init__(self) -> None:
        self._frequent = np.zeros(0, dtype=np.int64)  # as long as the largest of them
        self._others: dict[float, int] = {}

    def add(self, values_Z: NDArray[Any]) -> None:
        """Take some more values into account."""
        is_frequent_Z = (values_Z < FREQUENT) & (values_Z == np.rint(values_Z))
        others, n_of_each = np.unique(values_Z[~is_frequent_Z], return_counts=True)
        found = np.bincount(values_Z[is_frequent_Z].astype(np.int64))
        self._add(found, dict(zip(others.tolist(), n_of_each.tolist(), strict=True)))

    def merge(self, other: "CountHistogram") -> None:
        """Take into account what another has gathered."""
        self._add(other._frequent, other._others)

    def _add(self, frequent: NDArray[np.int64], others: dict[float, int]) -> None:
        self._frequent = np.pad(self._frequent, (0, max(0, len(frequent) - len(self._frequent))))
        self._frequent[: len(frequent)] += frequent
        for value, n in others.items():
            self._others[value] = self._others.get(value, 0) + n

    @property
    def largest(self) -> float:
        """Largest value; 0 if there is none above."""
        return float(max(self._others, default=np.flatnonzero(self._frequent).max(initial=0)))

    def quantile(self, share: float) -> float:
        """Return what ``numpy.quantile`` gives of the values above zero; 0 if there are none."""
        value, n_of_each = self._above_zero()
        n_before = np.cumsum(n_of_each)
        if not len(value):
            return 0.0
        index = share * (int(n_before[-1]) - 1)
        low, high = value[np.searchsorted(n_before, [np.floor(index), np.ceil(index)], side="right")]
        return float(low + (high - low) * (index - np.floor(index)))

    def _above_zero(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        frequent = np.flatnonzero(self._frequent[1:]) + 1
        value = np.concatenate([frequent, np.array(list(self._others), dtype=np.float64)])
        n_of_each = np.concatenate([self._frequent[frequent], np.array(list(self._others.values()), dtype=np.int64)])
        order = np.argsort(value, kind="stable")
        return value[order], n_of_each[order]
