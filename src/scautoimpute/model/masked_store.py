"""Log expression of many cells, kept row by row for training: read once, and the entries that a fold hides marked.

An entry that is hidden from a fold is stored as a negative number, which logs of counts never are. Draws are made block
by block, so that they are the same wherever the cells come from.

Shape legend: N cells, B cells of a block, G genes, Z stored entries.
"""

import hashlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..io.matrix import blocks_of, row_blocks
from .counts_staging import SampledCells, read_once
from .counts_store import CountsStore
from .inputs import Encoding
from .settings import Settings
from .thinning import with_values
from .training import HeldOut

__all__ = ["FoldStore", "LogRows", "StagedFold", "StoredFold", "in_memory", "stage_folds"]

STOPPING_CELLS, SCORED_CELLS = 2000, 20_000  # whose hidden entries decide when to stop, and weigh and score
CELLS_PER_PASS = 2048


class LogRows(Protocol):
    """Log expression of which rows can be taken: a ``csr_array``, or rows of a file that are processed when read."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""

    @property
    def nnz(self) -> int:
        """Number of observed entries."""

    def __getitem__(self, rows: Any) -> sparse.csr_array:
        """Canonical float32 values of some cells, B × G; `rows` is a slice."""


def in_memory(x: LogRows) -> sparse.csr_array:
    """All of `x` as one matrix."""
    if isinstance(x, sparse.csr_array):
        return x
    return sparse.vstack([block for _, block in blocks_of(x, CELLS_PER_PASS)], format="csr")


class FoldStore:
    """What one fold sees, and what it does not; several threads may read it.

    Parameters
    ----------
    shape
        Cells and genes.
    n_entries
        How many entries will come at most.
    folder
        Where to keep them on disk; in memory by default.
    """

    def __init__(self, shape: tuple[int, int], *, n_entries: int, folder: Path | None) -> None:
        self.shape = shape
        self._store = CountsStore(shape, largest=math.inf, n_entries=n_entries, folder=folder)
        self._lock = threading.Lock()

    def append(self, x: sparse.csr_array, hidden_Z: NDArray[np.bool_]) -> None:
        """Add the next rows, of whose entries some are hidden."""
        signed_Z = np.where(hidden_Z, -x.data, x.data)
        self._store.append(sparse.csr_array((signed_Z, x.indices, x.indptr), shape=x.shape))

    def visible(self, rows: slice | NDArray[np.intp]) -> sparse.csr_array:
        """Entries of some cells that the fold sees."""
        x = self._signed(rows)
        return with_values(x, x.data)

    def dense(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Do as `visible` does, with zeros where there is no such entry."""
        x_BG: NDArray[np.float32] = self._signed(rows).toarray()
        return np.maximum(x_BG, 0, out=x_BG)

    def visible_blocks(self) -> Iterator[sparse.csr_array]:
        """Yield what the fold sees of all cells."""
        return (self.visible(rows) for rows in row_blocks(self, CELLS_PER_PASS))

    def whole_blocks(self) -> Iterator[sparse.csr_array]:
        """Yield all entries of all cells, hidden or not."""
        for rows in row_blocks(self, CELLS_PER_PASS):
            x = self._signed(rows)
            x.data = np.abs(x.data)
            yield x

    def _signed(self, rows: Any) -> sparse.csr_array:
        with self._lock:
            return self._store[rows]


@dataclass(frozen=True)
class StagedFold:
    """One fold: its entries, and those hidden ones by which to stop, and to weigh and score."""

    store: FoldStore
    stopping: SampledCells
    scored: SampledCells


@dataclass(frozen=True)
class StoredFold:
    """One fold's view of stored data, as training takes it."""

    store: FoldStore
    encoding: Encoding
    stopping: HeldOut

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.store.shape

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values and observed mask of some cells."""
        x_BG = torch.from_numpy(self.store.dense(rows.cpu().numpy())).to(rows.device)
        return x_BG, (x_BG > 0).float()


def stage_folds(
    x: LogRows, settings: Settings, rng: np.random.Generator, *, folder: Path | None = None
) -> tuple[list[StagedFold], str]:
    """Hide a share of the observed entries from each fold, no entry from two, half of them to stop by.

    Parameters
    ----------
    x
        Log expression, N × G, which is read once.
    settings
        How many folds, and what share.
    rng
        What is drawn from.
    folder
        Where the entries are kept; in memory by default.

    Returns
    -------
    The folds, and a digest of all entries, by which they are told from others.
    """
    folds = [
        StagedFold(
            FoldStore(x.shape, n_entries=x.nnz, folder=folder), SampledCells(STOPPING_CELLS), SampledCells(SCORED_CELLS)
        )
        for _ in range(settings.n_folds)
    ]
    digest = hashlib.sha256()
    for cells_B, block in read_once(x, digest):
        fold_Z = rng.random(block.nnz) // settings.held_out_share  # the fold that hides it, if there are so many
        stops_Z = rng.random(block.nnz) < 0.5
        for index, fold in enumerate(folds):
            hidden_Z = fold_Z == index
            fold.store.append(block, hidden_Z)
            for sample, chosen_Z in ((fold.stopping, stops_Z), (fold.scored, ~stops_Z)):
                part = with_values(block, np.where(hidden_Z & chosen_Z, block.data, 0))
                sample.offer(cells_B, part, np.diff(part.indptr) > 0, rng)
    return folds, digest.hexdigest()[:32]
