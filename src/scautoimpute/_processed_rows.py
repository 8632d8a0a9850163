"""The masked objective's recipe on counts of which rows are read: statistics by passes, processed values on demand.

Everything is as `scautoimpute.pp.processed_matrix` has it of the whole, to the last bit.

Shape legend: N cells, B cells of a block, G genes of the data, K genes that pass the filter, P genes of the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._cluster import each_block
from ._counts import (
    has_fractions,
    library_facts,
    log2_plus_one,
    normalised_by,
    refuse_all_zero,
    refuse_small,
    refuse_values,
)
from ._genes import Flavor, FloatArray, IntArray, TopGenes, genes_passing_by, mean_variance, top_genes_by
from ._recipe import MIN_CELLS, MIN_COUNTS, Processed, gene_facts, refuse_few_cells, selection_choices
from .io.checks import refuse_transposed
from .io.matrix import CELLS_PER_BLOCK, of_columns
from .progress import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from .io.stream import StoredCells

__all__ = ["ProcessedRows", "processed_rows"]


def _counts_of(block: Any, rows: slice, _: None, *, genes: IntArray | None) -> Any:
    refuse_values(block, first_row=rows.start)
    return block if genes is None else of_columns(block, genes)


class _Facts:
    """What all cells together show of the genes."""

    def __init__(self, blocks: Iterator[Any], shape: tuple[int, int]) -> None:
        n_cells, n_genes = shape
        self.total_G = np.zeros(n_genes)
        self.enough_G, self.cells_G = (np.zeros(n_genes, dtype=np.int64) for _ in range(2))
        self.largest, self.has_fractions = 0.0, False
        with progress_bar(n_cells, "looking at the counts", "cell") as bar:
            for x in blocks:
                np.add.at(self.total_G, x.indices, x.data)  # one after the other, however the cells are cut
                self.enough_G += np.bincount(x.indices[x.data >= MIN_COUNTS], minlength=n_genes)
                self.cells_G += np.bincount(x.indices, minlength=n_genes)
                self.largest = max(self.largest, float(x.data.max(initial=0)))
                self.has_fractions = self.has_fractions or has_fractions(x)
                bar.update(x.shape[0])


@dataclass(frozen=True)
class _ToLogs:
    """What is done to each block of counts: log2(normalised + 1) of the `chosen` of the genes that are `kept`."""

    kept: IntArray
    chosen: IntArray
    median_total: float

    def __call__(self, block: Any, rows: slice, _: None) -> "sparse.csr_array":
        normalised = normalised_by(_counts_of(block, rows, None, genes=self.kept), self.median_total)[0]
        log2: sparse.csr_array = log2_plus_one(normalised[:, self.chosen]).astype(np.float32)
        log2.sort_indices()
        return log2


class ProcessedRows:
    """log2(normalised counts + 1) of the modelled genes of a file, float32, of which rows can be taken.

    Parameters
    ----------
    cells, layer
        Where the counts are.
    to_logs
        What is done to a block of them.
    n_entries
        How many values there are.
    """

    def __init__(self, cells: "StoredCells", layer: str | None, to_logs: _ToLogs, *, n_entries: int) -> None:
        self._cells, self._layer, self._to_logs = cells, layer, to_logs
        self.shape, self.nnz = (cells.n_obs, int(to_logs.chosen.size)), n_entries

    def __getitem__(self, rows: slice) -> "sparse.csr_array":
        return self._to_logs(self._cells.block(self._layer, rows), rows, None)

    def blocks(self, size: int) -> "Iterator[tuple[slice, sparse.csr_array]]":
        """Yield the rows of all cells, `size` at a time, and which they are."""
        return each_block(self._cells, self._layer, size, self._to_logs)


def processed_rows(
    cells: "StoredCells", *, layer: str | None = None, n_top_genes: TopGenes = 1000, flavor: Flavor = "dispersion"
) -> Processed:
    """Do as `scautoimpute.pp.processed_matrix` does with cells that stay on disk; see there for errors and warnings.

    Parameters
    ----------
    cells
        Where the counts are.
    layer, n_top_genes, flavor
        As there.
    """
    refuse_transposed(cast("AnnData", cells))

    def blocks(genes: IntArray | None = None) -> Iterator[Any]:
        work = partial(_counts_of, genes=genes)
        return (block for _, block in each_block(cells, layer, CELLS_PER_BLOCK, work))

    facts = _Facts(blocks(), cells.shape)
    refuse_all_zero(int(facts.cells_G.sum()), cells.shape)
    if facts.has_fractions:
        refuse_small(facts.largest, flagged=layer is None and "log1p" in cells.uns)
    refuse_few_cells(cells.n_obs)
    asked: dict[str, Any] = {"min_counts": MIN_COUNTS, "min_cells": MIN_CELLS}
    kept = genes_passing_by(facts.enough_G, cells.n_obs, facts.largest, **asked, reference=False)
    total_N = np.concatenate([np.asarray(x.astype(np.float64).sum(axis=1)) for x in blocks(kept)])
    found = library_facts(total_N, reference=False, stacklevel=4)
    median = found["median_total"]

    def moments() -> tuple[FloatArray, FloatArray]:
        return mean_variance(lambda: (normalised_by(x, median)[0] for x in blocks(kept)), cells.n_obs, kept.size)

    chosen = top_genes_by(moments, kept.size, n_top_genes, flavor=flavor, reference=False)
    n_seen = int(np.count_nonzero(facts.cells_G))
    choices = {
        "layer": layer or "X",
        **asked,
        **selection_choices(n_top_genes, flavor, reference=False),
        **found,
        **gene_facts(cells.n_vars, n_kept=kept.size, n_seen=n_seen),
        "n_genes_selected": int(chosen.size),
        "scale": "log2",
    }
    n_entries = int(facts.cells_G[kept[chosen]].sum())
    log2 = ProcessedRows(cells, layer, _ToLogs(kept, chosen, median), n_entries=n_entries)
    reads_K = facts.total_G[kept]
    size_factor = np.where(total_N == 0, 1.0, total_N / median)
    return Processed(log2, kept[chosen], kept, reads_K / reads_K.sum(), size_factor, median, choices)
