"""What all cells together show of counts, gathered in one pass; the same in memory and from a file.

Shape legend: N cells, G genes of the data.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ._histogram import CountHistogram
from ._umi import UmiVerdict, verdict_on
from .io.matrix import row_sums

if TYPE_CHECKING:
    from ._genes import FloatArray, IntArray

__all__ = ["CountsFacts"]


class CountsFacts:
    """Totals of genes and cells, and how often each count occurs.

    Attributes
    ----------
    total_G
        Molecules of each gene.
    cells_G
        Cells with a molecule of it.
    histogram
        Of the counts above zero.
    """

    def __init__(self, n_genes: int) -> None:
        self.total_G, self.cells_G = np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
        self.histogram = CountHistogram()
        self._library: list[FloatArray] = []

    @classmethod
    def of(cls, blocks: Iterable[Any], n_genes: int) -> "CountsFacts":
        """Gather from canonical blocks of checked counts."""
        facts = cls(n_genes)
        for block in blocks:
            facts.add(block)
        return facts

    def add(self, block: Any) -> None:
        """Take more cells into account."""
        n_genes = self.total_G.size
        self.total_G += np.bincount(block.indices, block.data, minlength=n_genes)
        self.cells_G += np.bincount(block.indices, minlength=n_genes)
        self.histogram.add(block.data)
        self._library.append(row_sums(block))

    def merge(self, other: "CountsFacts") -> None:
        """Take the cells of another into account, after its own; all are sums of whole numbers, and exact."""
        self.total_G += other.total_G
        self.cells_G += other.cells_G
        self.histogram.merge(other.histogram)
        self._library += other._library

    def libraries(self) -> "FloatArray":
        """Return the molecules of each cell."""
        return np.concatenate(self._library)

    @property
    def seen(self) -> "IntArray":
        """Positions of the genes that have a molecule."""
        return np.flatnonzero(self.cells_G).astype(np.int64)

    @property
    def verdict(self) -> UmiVerdict:
        """Whether they look like molecules."""
        return verdict_on(self.histogram, self.libraries())
