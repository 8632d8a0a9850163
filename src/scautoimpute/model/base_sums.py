"""Sums over observed entries that fitting gene and cell effects takes: of a matrix, or of blocks of many cells.

Shape legend: N cells, G genes, Z stored (observed) entries.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["BlockSums", "EntrySums", "Sums", "gene_cell_effects"]

Floats = NDArray[np.float64]


class Sums(Protocol):
    """What is summed of the entries x, whose mean is m, with effects g of genes and c of cells."""

    mean: float
    n_entries: int
    square: float  # Σ (x − m)²
    count_N: Floats
    count_G: Floats

    def by_gene(self, cell_effect_N: Floats) -> Floats:
        """Σ x − m − c over the entries of each gene."""

    def by_cell(self, gene_effect_G: Floats) -> Floats:
        """Σ x − m − g over the entries of each cell."""

    def of_squares(self, gene_effect_G: Floats, cell_effect_N: Floats) -> float:
        """Σ (x − m − g − c)² over all entries."""


class EntrySums:
    """Sums over the entries of a matrix in memory.

    Parameters
    ----------
    x
        N × G, observed entries stored.
    """

    def __init__(self, x: sparse.csr_array) -> None:
        n_cells, n_genes = x.shape
        self._row_Z, self._column_Z = np.repeat(np.arange(n_cells), np.diff(x.indptr)), x.indices
        self._value_Z = x.data.astype(np.float64)
        self.mean, self.n_entries = float(self._value_Z.mean()), len(self._value_Z)
        self.square = float(np.square(self._value_Z - self.mean).sum())
        self.count_N = np.bincount(self._row_Z, minlength=n_cells).astype(np.float64)
        self.count_G = np.bincount(self._column_Z, minlength=n_genes).astype(np.float64)

    def by_gene(self, cell_effect_N: Floats) -> Floats:
        """Σ x − m − c over the entries of each gene."""
        residual_Z = self._value_Z - self.mean - cell_effect_N[self._row_Z]
        return _totals(self._column_Z, residual_Z, len(self.count_G))

    def by_cell(self, gene_effect_G: Floats) -> Floats:
        """Σ x − m − g over the entries of each cell."""
        residual_Z = self._value_Z - self.mean - gene_effect_G[self._column_Z]
        return _totals(self._row_Z, residual_Z, len(self.count_N))

    def of_squares(self, gene_effect_G: Floats, cell_effect_N: Floats) -> float:
        """Σ (x − m − g − c)² over all entries."""
        residual_Z = self._value_Z - self.mean - gene_effect_G[self._column_Z] - cell_effect_N[self._row_Z]
        return float(residual_Z @ residual_Z)


class BlockSums:
    """Sums over entries that are read block by block, again and again; little is kept of each cell.

    Parameters
    ----------
    blocks
        Gives the cells from the first to the last, each time that it is called: rows of G genes, entries stored.
    n_genes
        G.

    Notes
    -----
    Effects are constant in a gene or a cell, so which entries there are is all that a pass has to look at; sums of
    values and of their squares are taken once. Σ (r − c)² of a cell is Σ r² − 2c·Σ r + n·c².
    """

    def __init__(self, blocks: Callable[[], Iterable[sparse.csr_array]], n_genes: int) -> None:
        self._blocks = blocks
        self.count_G, self._sum_G = np.zeros(n_genes), np.zeros(n_genes)
        counts, sums = [], []
        square = 0.0
        for x in blocks():
            value_Z = x.data.astype(np.float64)
            self.count_G += np.bincount(x.indices, minlength=n_genes)
            self._sum_G += np.bincount(x.indices, value_Z, minlength=n_genes)
            counts.append(np.diff(x.indptr).astype(np.float64))
            sums.append(_row_totals(x, value_Z))
            square += float(value_Z @ value_Z)
        self.count_N, self._sum_N = np.concatenate(counts), np.concatenate(sums)
        self.n_entries = int(self.count_G.sum())
        self.mean = float(self._sum_G.sum() / max(self.n_entries, 1))
        self.square = square - self.n_entries * self.mean**2
        self._of_genes: tuple[Floats, Floats] | None = None

    @property
    def gene_means(self) -> Floats:
        """Mean of the entries of each gene; of one without any, that of all."""
        mean_G = np.full(len(self.count_G), self.mean)
        np.divide(self._sum_G, self.count_G, out=mean_G, where=self.count_G > 0)
        return mean_G

    def by_gene(self, cell_effect_N: Floats) -> Floats:
        """Σ x − m − c over the entries of each gene."""
        total_G, start = self._sum_G - self.mean * self.count_G, 0
        for x in self._blocks():
            effect_B = cell_effect_N[start : start + x.shape[0]]
            total_G -= _totals(x.indices, np.repeat(effect_B, np.diff(x.indptr)), len(total_G))
            start += x.shape[0]
        return total_G

    def by_cell(self, gene_effect_G: Floats) -> Floats:
        """Σ x − m − g over the entries of each cell."""
        explained = [_row_totals(x, gene_effect_G[x.indices]) for x in self._blocks()]
        total_N: Floats = self._sum_N - self.mean * self.count_N - np.concatenate(explained)
        self._of_genes = gene_effect_G.copy(), total_N
        return total_N

    def of_squares(self, gene_effect_G: Floats, cell_effect_N: Floats) -> float:
        """Σ (x − m − g − c)² over all entries."""
        if self._of_genes is None or not np.array_equal(self._of_genes[0], gene_effect_G):
            self.by_cell(gene_effect_G)
        total_N = self._of_genes[1]  # type: ignore[index]
        of_genes = self.square - 2 * gene_effect_G @ (self._sum_G - self.mean * self.count_G)
        of_genes += self.count_G @ gene_effect_G**2
        return float(of_genes - 2 * cell_effect_N @ total_N + self.count_N @ cell_effect_N**2)


def gene_cell_effects(
    sums: Sums, *, gene_prior: float = 1.0, cell_prior: float = 5.0, n_sweeps: int = 10
) -> tuple[Floats, Floats]:
    """Do as `scautoimpute.metrics.recovery.gene_cell_bias` does, by sums.

    Parameters
    ----------
    sums
        Of the visible entries.
    gene_prior, cell_prior, n_sweeps
        As there.
    """
    gene_G, cell_N = np.zeros(len(sums.count_G)), np.zeros(len(sums.count_N))
    for _ in range(n_sweeps):
        gene_G = sums.by_gene(cell_N) / np.maximum(sums.count_G + gene_prior, 1)
        cell_N = sums.by_cell(gene_G) / np.maximum(sums.count_N + cell_prior, 1)
    return sums.mean + gene_G, cell_N


def _totals(group_Z: NDArray[Any], value_Z: Floats, n_groups: int) -> Floats:
    return np.asarray(np.bincount(group_Z, value_Z, minlength=n_groups), dtype=np.float64)


def _row_totals(x: sparse.csr_array, value_Z: Floats) -> Floats:
    return _totals(np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), value_Z, x.shape[0])
