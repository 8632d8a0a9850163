"""Before training: counts are read once, block by block, and their molecules parted in visible and held-out ones.

What is held out is kept of as many cells as are scored; what is visible goes to a store, in memory or on disk. Draws
are made block by block, so that they are the same wherever the counts come from.

Shape legend: N cells, B cells of a block, G genes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..io.matrix import blocks_of, row_blocks
from ..progress import progress_bar
from .checkpoint import digest_of
from .counts_store import CELLS_PER_BLOCK, CountsRows, CountsStore, shared_file
from .processes import Processes
from .thinning import split_molecules

__all__ = ["MAX_HELD_OUT_CELLS", "SampledCells", "Staged", "other_counts", "read_once", "stage", "stage_together"]

MAX_HELD_OUT_CELLS = 2000  # whose molecules decide when to stop, and weigh the experts: enough for six weights


@dataclass
class SampledCells:
    """At most `size` of the cells that are offered, any as likely as any other: those of the smallest random keys."""

    size: int
    cells: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    rows: sparse.csr_array | None = None
    _keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def offer(
        self, cells_B: NDArray[np.intp], x: sparse.csr_array, allowed_B: NDArray[np.bool_], rng: np.random.Generator
    ) -> None:
        """Take cells of a block into account, those that are `allowed`; `x` are their rows, B × G."""
        key_B = rng.random(len(cells_B))[allowed_B]
        rows = x[allowed_B] if self.rows is None else sparse.vstack([self.rows, x[allowed_B]], format="csr")
        cells, keys = np.concatenate([self.cells, cells_B[allowed_B]]), np.concatenate([self._keys, key_B])
        if len(cells) > self.size:
            kept = np.sort(np.argpartition(keys, self.size - 1)[: self.size])
            cells, keys, rows = cells[kept], keys[kept], rows[kept]
        self.cells, self._keys, self.rows = cells, keys, rows


@dataclass(frozen=True)
class Staged:
    """What training works on.

    Attributes
    ----------
    visible
        Molecules of all cells but the held-out ones, N × G.
    stopping, weighing
        Held-out molecules of some cells which have visible ones too: by which to stop (and to tell
        the noise of components), and to weigh the experts by.
    digest
        Of all counts, by which they are told from others.
    """

    visible: CountsStore
    stopping: SampledCells
    weighing: SampledCells
    digest: str


def read_once(x: Any, digest: Any) -> Iterator[tuple[NDArray[np.intp], sparse.csr_array]]:
    """Yield positions and rows of all cells, block by block, and add the rows to `digest`, an object of hashlib."""
    with progress_bar(x.shape[0], "reading", "cell") as bar:
        for rows, block in blocks_of(x, CELLS_PER_BLOCK):
            for array in (np.diff(block.indptr).astype(np.int64), block.indices.astype(np.int32), block.data):
                digest.update(np.ascontiguousarray(array).data)
            yield np.arange(rows.start, rows.stop, dtype=np.intp), block
            bar.update(block.shape[0])


def stage_together(
    x: CountsRows, held_out_share: float, rng: np.random.Generator, processes: Processes, *, folder: Path | None = None
) -> Staged:
    """As `stage`, on each machine by its first process, if there is a folder for a file that the others read too."""
    if folder is None or processes.n_here == 1:
        return stage(x, held_out_share, rng, folder=folder)
    file = shared_file(folder, processes)
    if processes.is_first_here:
        staged = stage(x, held_out_share, rng, folder=folder, file=file)
        parts = staged.visible.indptr, staged.stopping, staged.weighing, staged.digest, rng.bit_generator.state
        processes.from_first_here((*parts, _glimpse(x)))
        return staged
    told: Any = processes.from_first_here(None)
    indptr, stopping, weighing, digest, rng.bit_generator.state, glimpse = told
    if glimpse != _glimpse(x):
        raise other_counts(processes.rank, processes.size)
    visible = CountsStore(x.shape, largest=float(x.max()), n_entries=x.nnz, folder=folder, file=file)
    visible.take_as_filled(indptr)
    return Staged(visible, stopping, weighing, digest)


def _glimpse(x: CountsRows) -> tuple[tuple[int, int], str]:
    """What tells counts from most others, for little."""
    return x.shape, digest_of(x[next(row_blocks(x, CELLS_PER_BLOCK))])


def other_counts(rank: int, size: int) -> ValueError:
    """Return the error of a process that has read other counts than the first."""
    msg = f"process {rank} of {size} has read other counts than process 0: give all of them the same file"
    return ValueError(msg)


def stage(
    x: CountsRows,
    held_out_share: float,
    rng: np.random.Generator,
    *,
    folder: Path | None = None,
    file: FileIO | None = None,
) -> Staged:
    """Part the molecules, each by itself: a `held_out_share` is held out, half of it to stop by and half to weigh by.

    Parameters
    ----------
    x
        Counts, N × G.
    held_out_share
        Share of the molecules.
    rng
        What is drawn from.
    folder
        Where the visible molecules are kept; in memory by default.
    file
        A file there that others read too; by default one of its own.
    """
    visible = CountsStore(x.shape, largest=float(x.max()), n_entries=x.nnz, folder=folder, file=file)
    stopping, weighing = (SampledCells(MAX_HELD_OUT_CELLS) for _ in range(2))
    digest = hashlib.sha256()
    for cells_B, block in read_once(x, digest):
        seen, hidden = split_molecules(block, held_out_share, rng)
        to_weigh, to_stop = split_molecules(hidden, 0.5, rng)
        visible.append(seen)
        is_seen_B = np.diff(seen.indptr) > 0  # nothing can be said of the molecules of a cell that has no others
        for sample, part in ((stopping, to_stop), (weighing, to_weigh)):
            sample.offer(cells_B, part, is_seen_B & (np.diff(part.indptr) > 0), rng)
    return Staged(visible, stopping, weighing, digest.hexdigest()[:32])
