"""What the counts network sees of a cell: log-normalised counts, each gene in its own unit, and the cell's batch.

Shape legend: N cells, B cells in a block, G genes, K batches, I = G + K inputs (G alone where there is one batch).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..io.matrix import row_blocks, row_sums
from .counts_store import CELLS_PER_BLOCK, CountsRows
from .tensors import HoldsTensors

__all__ = ["CountsEncoding", "batch_frequencies"]

SMALLEST_SD = 0.15  # of log-normalised counts: rarely seen genes are not blown up beyond this
INPUT_SCALE = 3.0
SMALLEST_EXCESS = 1e-5  # relative variance of a gene between batches, below which they count as alike
PSEUDO_COUNT = 0.05  # molecules of each gene, so that no frequency is zero


@dataclass(frozen=True)
class CountsEncoding(HoldsTensors):
    """Scales of the inputs and what the outputs start from, learned from the visible molecules alone.

    Attributes
    ----------
    centre_I, unit_G
        Mean of the inputs, and what log-normalised counts are multiplied with.
    log_frequency_KG
        Log of the share of each gene among the molecules of each batch: the base.
    median_library
        What cells are normalised to.
    """

    centre_I: Tensor
    unit_G: Tensor
    log_frequency_KG: Tensor
    median_library: float

    @classmethod
    def fit(cls, x: CountsRows, batch_N: NDArray[np.intp]) -> "CountsEncoding":
        """Learn from counts, N × G, and the batch of each cell."""
        n_cells, n_genes = x.shape
        library_N = np.concatenate([row_sums(block) for _, block in _blocks(x)])
        median = float(np.median(library_N[library_N > 0]))
        sum_G, square_G = np.zeros(n_genes), np.zeros(n_genes)
        for _, block in _blocks(x):
            value_Z = _log_normalised(block, median)
            # In the order of the entries, whatever the blocks
            np.add.at(sum_G, block.indices, value_Z)
            np.add.at(square_G, block.indices, value_Z**2)
        mean_G = sum_G / n_cells
        sd_G = np.maximum(np.sqrt(np.maximum(square_G / n_cells - mean_G**2, 0)), SMALLEST_SD)
        unit_G = INPUT_SCALE / math.sqrt(n_genes) / sd_G
        log_frequency_KG = np.log(batch_frequencies(x, batch_N))
        n_batches = len(log_frequency_KG)
        one_hot = np.bincount(batch_N) / n_cells if n_batches > 1 else np.zeros(0)
        return cls(_float(np.concatenate([mean_G * unit_G, one_hot])), _float(unit_G), _float(log_frequency_KG), median)

    @property
    def n_batches(self) -> int:
        """Number of batches (K)."""
        return len(self.log_frequency_KG)

    def encode(self, x: sparse.csr_array, batch_B: NDArray[np.intp]) -> sparse.csr_array:
        """Inputs before their centre is subtracted, which would make them dense, B × I."""
        value_Z = _log_normalised(x, self.median_library).astype(np.float32)
        value_Z *= self._units[x.indices]
        inputs = sparse.csr_array((value_Z, x.indices, x.indptr), shape=x.shape)
        return inputs if self.n_batches == 1 else sparse.hstack([inputs, self.one_hot(batch_B)], format="csr")

    @cached_property
    def _units(self) -> NDArray[np.float32]:
        """`unit_G`, wherever that is, as an array."""
        units: NDArray[np.float32] = self.unit_G.cpu().numpy()
        return units

    @cached_property
    def frequency_roots(self) -> NDArray[np.float32]:
        """Square root of the share of each gene among the molecules of each batch, K × G."""
        roots: NDArray[np.float32] = self.log_frequency_KG.div(2).exp().cpu().numpy()
        return roots

    def one_hot(self, batch_B: NDArray[np.intp]) -> sparse.csr_array:
        """One column per batch, B × K."""
        ones, rows = np.ones(len(batch_B), dtype=np.float32), np.arange(len(batch_B) + 1)
        return sparse.csr_array((ones, batch_B, rows), shape=(len(batch_B), self.n_batches))


def batch_frequencies(x: CountsRows, batch_N: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of each gene among the molecules of each batch, K × G, shrunk towards its share in all of them.

    The shrinkage is empirical-Bayes: a gene's shares vary between batches as a gamma distribution whose shape k is
    estimated by the method of moments, and n molecules where E were expected make the share (n + k) / (E + k) times
    that in all cells.
    """
    n_batches, n_genes = int(batch_N.max()) + 1, x.shape[1]
    count_F = np.zeros(n_batches * n_genes)
    for rows, block in _blocks(x):
        batch_Z = np.repeat(batch_N[rows].astype(np.int64), np.diff(block.indptr))
        np.add.at(count_F, batch_Z * n_genes + block.indices, block.data.astype(np.float64))
    count_KG = count_F.reshape(n_batches, n_genes)
    total_G = count_KG.sum(axis=0) + PSEUDO_COUNT
    share_G = total_G / total_G.sum()
    if n_batches == 1:
        return np.asarray(share_G[None])
    expected_KG = count_KG.sum(axis=1, keepdims=True) * share_G
    excess = ((count_KG - expected_KG) ** 2 - expected_KG).sum() / (expected_KG**2).sum()
    k = 1 / max(excess, SMALLEST_EXCESS)
    frequency_KG: NDArray[np.float64] = share_G * (count_KG + k) / (expected_KG + k)
    frequency_KG /= frequency_KG.sum(axis=1, keepdims=True)
    return frequency_KG


def _blocks(x: CountsRows) -> Iterator[tuple[slice, sparse.csr_array]]:
    return ((rows, x[rows]) for rows in row_blocks(x, CELLS_PER_BLOCK))


def _log_normalised(x: sparse.csr_array, median: float) -> NDArray[np.float64]:
    library_N = row_sums(x)
    value_Z: NDArray[np.float64] = np.log1p(x.data * np.repeat(median / np.maximum(library_N, 1), np.diff(x.indptr)))
    return value_Z


def _float(values: NDArray[Any]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
