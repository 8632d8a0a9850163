"""Where counts are kept while a network is trained on them: in memory, or on disk where that would take too much."""

import math
import re
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model.counts_store import CountsRows
    from .model.masked_store import LogRows
    from .model.settings import Settings

__all__ = ["Staging", "bytes_of", "masked_bytes", "working_bytes"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SHARE_OF_FREE = 0.5  # of the memory that is free, where none was stated
_SMALL = 100 * 10**6  # bytes that are kept in memory where none was stated: more would let the peak grow with the cells
_COPIES = 8  # of the weights: their gradient, two moments, the average, the best, and those that products round to
_DENSE_BLOCK = 64  # bytes of a cell and gene while a block is estimated: some sixteen matrices
_SPARSE_BLOCK = 128  # bytes of a stored count while a block is read, checked and parted, and one made ahead
_OF_AN_INPUT = 32  # bytes of a cell and an input or hidden unit, where the error of the masked objective is evaluated
_OF_AN_ENTRY = 100  # bytes of a stored value, where the base is fitted to all at once
_OF_A_CELL = 64  # bytes: library sizes, starts of rows, batches, the order
_FIRST_STEP = 30 * 10**6  # bytes of what torch loads, and its threads take, when a network is first trained


def bytes_of(size: int | str) -> int:
    """Return a number of bytes, which may be given as a text such as ``"500M"`` or ``"2G"``.

    Parameters
    ----------
    size
        Bytes, or a number with one of the units K, M, G, T: thousands of each other.

    Raises
    ------
    ValueError
        If it is no size.

    Examples
    --------
    >>> bytes_of("1.5G"), bytes_of("500 MB"), bytes_of(4096)
    (1500000000, 500000000, 4096)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(size), flags=re.IGNORECASE)
    n_bytes = 0 if found is None else int(float(found[1]) * _UNITS[found[2].upper()])
    if n_bytes == 0:
        msg = f"max_memory={size!r} is no amount of memory: give bytes above 0, or a text such as '500M' or '2G'"
        raise ValueError(msg)
    return n_bytes


def _resident_bytes() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


@dataclass
class Staging:
    """The choice between memory and disk.

    Attributes
    ----------
    folder
        Where a file would be made, which has no name and goes with the process; several on one machine share it.
    max_memory
        Bytes that the process may take in all. By default what it has and half of what is free, which several
        processes on one machine share; more than 100 MB of counts are then kept on disk, if it has room for them.
        Counts that several processes share are on disk whatever is allowed, if it has room.
    may_refuse
        Whether what does not fit is refused: not where nobody can allow more.
    in_words
        What was chosen, once it has been.
    """

    folder: Path
    max_memory: int | None = None
    may_refuse: bool = True
    in_words: str | None = None

    def place(self, x: "CountsRows", settings: "Settings", n_batches: int) -> Path | None:
        """Return the folder to keep counts in, None for memory.

        Raises
        ------
        MemoryError
            If not even the network fits.
        """
        from .model.counts_store import entry_type

        store = x.nnz * entry_type(x.shape[1], float(x.max())).itemsize
        return self._placed(store, working_bytes(x, settings.hidden, n_batches), x.shape[1])

    def place_logs(self, x: "LogRows", settings: "Settings") -> Path | None:
        """Return the folder to keep log expression in, None for memory; as `place`."""
        from .model.counts_store import entry_type

        entry = entry_type(x.shape[1], math.inf).itemsize
        return self._placed(settings.n_folds * x.nnz * entry, masked_bytes(x, settings), x.shape[1])

    def hold_logs(self, x: "LogRows", settings: "Settings") -> None:
        """Take note that log expression of few cells is in memory as a whole, if that fits; as `place`."""
        n_cells, n_genes = x.shape
        dense, entries = 4 * settings.n_folds * n_cells * n_genes, _OF_AN_ENTRY * x.nnz
        self._left_besides(dense + entries + masked_bytes(x, settings), n_genes)
        self.in_words = f"{_in_words(dense)} in memory"

    def _placed(self, store: int, working: float, n_genes: int) -> Path | None:
        from .model.processes import current

        left = self._left_besides(working, n_genes)
        to_disk = current().n_here > 1 or (self.max_memory is None and store > _SMALL)  # several share a file
        fits = store <= left and not (to_disk and self._has_room(store))
        folder = current().from_first_here(None if fits else self.folder)
        self.in_words = f"{_in_words(store)} {'in memory' if folder is None else f'on disk, in {folder}'}"
        return folder

    def _has_room(self, store: int) -> bool:
        return store <= shutil.disk_usage(self.folder).free

    def _left_besides(self, working: float, n_genes: int) -> float:
        """What may be taken besides so much, or refuse if not even that."""
        left = self._left() - working
        if left < 0 and self.may_refuse:
            self._refuse(n_genes, -left)
        return left

    def _left(self) -> float:
        """What may be taken besides what the process has by now, libraries among it."""
        from .methods._memory import available_bytes
        from .model.processes import current

        if self.max_memory is None:
            return available_bytes() * _SHARE_OF_FREE / current().n_here
        return self.max_memory - _resident_bytes() - _FIRST_STEP

    def _refuse(self, n_genes: int, missing: float) -> None:
        told = "half of what is free" if self.max_memory is None else f"max_memory={_in_words(self.max_memory)}"
        msg = (
            f"a network of {n_genes:,} genes needs {_in_words(missing)} more than {told}: allow more, "
            "or model fewer genes with n_top_genes= or genes="
        )
        raise MemoryError(msg)


def working_bytes(x: "CountsRows", hidden: tuple[int, ...], n_batches: int) -> float:
    """Return what training takes besides the counts: the network, a block of cells, and little for each cell.

    Parameters
    ----------
    x
        Counts, cells × genes.
    hidden, n_batches
        Widths of the hidden layers, and number of batches.
    """
    from .model.counts_store import CELLS_PER_BLOCK

    n_cells, n_genes = x.shape
    n_weights = _weights_between(n_genes + n_batches, *hidden, n_genes)
    block = CELLS_PER_BLOCK * (_DENSE_BLOCK * n_genes + _SPARSE_BLOCK * x.nnz / n_cells)
    return 4.0 * _COPIES * n_weights + block + _OF_A_CELL * n_cells


def masked_bytes(x: "LogRows", settings: "Settings") -> float:
    """Return what training the masked objective takes besides the values, as `working_bytes`.

    Parameters
    ----------
    x
        Log expression, cells × genes.
    settings
        Widths of the hidden layers, and number of folds.
    """
    import torch

    from .model.masked_store import CELLS_PER_PASS, STOPPING_CELLS
    from .model.masked_training import VARIANTS
    from .model.settings import MANY_CELLS

    n_cells, n_genes = x.shape
    n_weights = _weights_between(2 * n_genes, *settings.hidden, n_genes)
    n_networks = settings.n_folds * len(VARIANTS)
    at_once = min(n_networks, torch.get_num_threads())
    begun = n_networks if settings.preset is None and n_cells > MANY_CELLS else at_once
    evaluated = _OF_AN_INPUT * STOPPING_CELLS * (2 * n_genes + sum(settings.hidden))
    block = CELLS_PER_PASS * (_DENSE_BLOCK * n_genes + _SPARSE_BLOCK * x.nnz / n_cells)
    return 4.0 * n_weights * (_COPIES * begun + n_networks) + evaluated * at_once + block + _OF_A_CELL * n_cells


def _weights_between(*widths: int) -> int:
    return sum(one * other for one, other in pairwise(widths))


def _in_words(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
