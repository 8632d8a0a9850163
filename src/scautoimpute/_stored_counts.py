"""Counts of a file, of which rows are read when they are asked for, and checked whenever they are read.

Shape legend: B cells of a block, G genes of the data, P genes of the model.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import sparse

from ._cluster import each_block
from ._counts import has_fractions, refuse_all_zero, refuse_values
from ._counts_facts import CountsFacts
from ._objective import OF_FRACTIONS, Chosen, objective_by
from ._umi import molecules, refuse_fractions
from .io.matrix import CELLS_PER_BLOCK, of_columns
from .model.processes import current
from .progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._genes import IntArray
    from .io.stream import StoredCells

__all__ = ["CountsOfGenes", "StoredCounts"]


class StoredCounts:
    """Counts of all genes of a file.

    Parameters
    ----------
    cells, layer
        Where they are.
    """

    def __init__(self, cells: "StoredCells", layer: str | None) -> None:
        self.cells, self.layer, self.shape = cells, layer, cells.shape
        self._facts: CountsFacts | None = None

    def __getitem__(self, rows: slice) -> Any:
        return _checked(self.cells.block(self.layer, rows), rows)

    def blocks(self, size: int) -> Iterator[tuple[slice, Any]]:
        """Yield the rows of all cells, `size` at a time, and which they are."""
        return each_block(self.cells, self.layer, size, _checked)

    def choose(self) -> Chosen:
        """Choose the objective by the data, as far as they have to be read for that."""
        if not self._looked_at():
            return OF_FRACTIONS
        refuse_all_zero(int(self.facts().cells_G.sum()), self.shape)
        return objective_by(self.facts().verdict)

    def facts(self) -> CountsFacts:
        """Return what all cells together show, for which they are read once."""
        if not self._looked_at():
            for _ in self.blocks(CELLS_PER_BLOCK):  # which refuses the first fraction
                pass
        return self._facts  # type: ignore[return-value]

    def _looked_at(self) -> bool:
        """Read the cells for their facts, unless that was done; return False if some are fractions, which have none.

        Of several processes each reads its own cells, and all know what all show.
        """
        if self._facts is None:
            first, *others = current().all(self._facts_of_own_cells())
            if first is None or None in others:
                return False
            for other in others:
                first.merge(cast("CountsFacts", other))
            self._facts = first
        return True

    def _facts_of_own_cells(self) -> CountsFacts | None:
        own, facts = current().part(self.shape[0]), CountsFacts(self.shape[1])
        with progress_bar(own.stop - own.start, "looking at the counts", "cell") as bar:
            for rows, found in each_block(self.cells, self.layer, CELLS_PER_BLOCK, _facts_of, among=own):
                if found is None:
                    return None
                facts.merge(found)
                bar.update(rows.stop - rows.start)
        return facts

    def of_genes(self, genes: "IntArray") -> "CountsOfGenes":
        """Return the counts of some genes, as training takes them."""
        return CountsOfGenes(self, genes)


def _facts_of(block: Any, rows: slice, _: None) -> CountsFacts | None:
    """Return what a block shows, or None of fractions."""
    refuse_values(block, first_row=rows.start)
    return None if has_fractions(block) else CountsFacts.of([block], block.shape[1])


def _checked(block: Any, rows: slice, _: None = None) -> Any:
    refuse_values(block, first_row=rows.start)
    refuse_fractions(block)
    return block


class CountsOfGenes:
    """Counts of some genes of a file, float32, of which rows can be taken; see `scautoimpute.model.counts_store`.

    Parameters
    ----------
    counts
        Of all genes.
    genes
        Positions of those to take.
    """

    def __init__(self, counts: StoredCounts, genes: "IntArray") -> None:
        self._counts, self._genes, facts = counts, genes, counts.facts()
        self.shape = counts.shape[0], int(genes.size)
        self.nnz, self._n_molecules = int(facts.cells_G[genes].sum()), float(facts.total_G[genes].sum())

    def __getitem__(self, rows: "slice | NDArray[np.intp]") -> sparse.csr_array:
        if not isinstance(rows, slice):
            return sparse.vstack([self[row : row + 1] for row in np.asarray(rows).tolist()], format="csr")
        return molecules(of_columns(self._counts[rows], self._genes))

    def blocks(self, size: int) -> Iterator[tuple[slice, sparse.csr_array]]:
        """Yield the rows of all cells, `size` at a time, and which they are."""
        counts = self._counts
        return each_block(counts.cells, counts.layer, size, partial(_read_block, genes=self._genes))

    def max(self) -> float:
        """Largest count, of any gene."""
        return self._counts.facts().histogram.largest

    def sum(self, dtype: Any = np.float64) -> Any:
        """All molecules."""
        return dtype(self._n_molecules)


def _read_block(block: Any, rows: slice, _: None = None, *, genes: "IntArray") -> sparse.csr_array:
    return molecules(of_columns(_checked(block, rows), genes))
