"""Counts kept row by row, in memory or on disk: what training reads again and again, whatever the number of cells.

An entry is a pair of column and count in the smallest types that hold them: 4 bytes where neither exceeds 65,535. A
file is read rather than mapped into memory: pages of a mapping count as memory of the process, and one of a file that
was cut short ends it without a word.

Shape legend: N cells, B cells that are asked for, G genes, Z stored counts.
"""

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..io.checks import one_line
from .processes import Processes

__all__ = ["CELLS_PER_BLOCK", "CountsRows", "CountsStore", "entry_type", "shared_file"]

CELLS_PER_BLOCK = 512  # that are read, parted and summed at a time; what is drawn depends on it
_IN_MEMORY = ", or allow more memory with max_memory="


class CountsRows(Protocol):
    """Counts of which rows can be taken: a ``csr_array``, a `CountsStore`, or those of a file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""

    @property
    def nnz(self) -> int:
        """Number of counts above zero."""

    def max(self) -> Any:
        """Largest count."""

    def __getitem__(self, rows: Any) -> sparse.csr_array:
        """Canonical float32 counts of some cells, B × G; `rows` is a slice or an array of positions."""


class CountsStore:
    """Rows of counts that are appended and then read; a file of its own goes with the process, however that ends.

    Parameters
    ----------
    shape
        Cells and genes.
    largest
        Largest count that may come.
    n_entries
        How many counts above zero will come at most.
    folder
        Where to keep them on disk; in memory by default.
    file
        A file there, as `shared_file` gives it; by default one of its own.

    Raises
    ------
    OSError
        If they cannot be kept in `folder`, with the reason.

    Examples
    --------
    >>> store = CountsStore((2, 3), largest=4, n_entries=3)
    >>> store.append(sparse.csr_array(np.array([[0, 4, 1], [2, 0, 0]])))
    >>> store[[1, 0]].toarray().tolist()
    [[2.0, 0.0, 0.0], [0.0, 4.0, 1.0]]
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        largest: float,
        n_entries: int,
        folder: Path | None = None,
        file: FileIO | None = None,
    ) -> None:
        self.shape, self._n_rows = (int(shape[0]), int(shape[1])), 0
        self.indptr = np.zeros(self.shape[0] + 1, dtype=np.int64)
        self._type, self._largest, self._folder = entry_type(self.shape[1], largest), largest, folder
        self._entries = np.empty(n_entries if folder is None else 0, dtype=self._type)
        self._instead = _IN_MEMORY if file is None else ""
        self._file = None if folder is None else file or self._opened(folder)
        if self._file is not None:
            weakref.finalize(self, self._file.close)

    @property
    def nnz(self) -> int:
        """Number of counts above zero."""
        return int(self.indptr[self._n_rows])

    def max(self) -> float:
        """Largest count that was to be expected."""
        return self._largest

    def append(self, x: sparse.csr_array) -> None:
        """Add the next rows."""
        if x.max() > self._largest or (self._file is None and self.nnz + x.nnz > len(self._entries)):
            msg = "the counts have changed while they were read: run again when nothing writes to them"
            raise ValueError(msg)
        entries = np.empty(x.nnz, dtype=self._type)
        entries["column"], entries["count"] = x.indices, x.data
        first, self._n_rows = self._n_rows, self._n_rows + x.shape[0]
        start = int(self.indptr[first])
        self.indptr[first : self._n_rows + 1] = start + x.indptr.astype(np.int64)
        if self._file is None:
            self._entries[start : start + len(entries)] = entries
        else:
            self._write(self._file, entries)

    def take_as_filled(self, indptr: NDArray[np.int64]) -> None:
        """Take note that another process has filled the file that both have open, and where its rows start."""
        self.indptr, self._n_rows = indptr, self.shape[0]

    def __getitem__(self, rows: Any) -> sparse.csr_array:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(self.shape[0])
            starts_B, ends_B = self.indptr[first:last], self.indptr[first + 1 : last + 1]
            pieces = [(int(self.indptr[first]), int(self.indptr[max(first, last)]))]
        else:
            position_B = np.asarray(rows, dtype=np.intp)
            starts_B, ends_B = self.indptr[position_B], self.indptr[position_B + 1]
            pieces = list(zip(starts_B.tolist(), ends_B.tolist(), strict=True))
        before_B = np.concatenate([[0], np.cumsum(ends_B - starts_B)])
        entries = self._read(pieces, int(before_B[-1]))
        parts = entries["count"].astype(np.float32), entries["column"].astype(np.int32), before_B.astype(np.int32)
        return sparse.csr_array(parts, shape=(len(starts_B), self.shape[1]))

    def _read(self, pieces: list[tuple[int, int]], n_entries: int) -> NDArray[Any]:
        """Return the entries of some spans, one after the other."""
        if self._file is None:
            whole = self._entries.view(f"V{self._type.itemsize}")  # NumPy compares the fields of every span otherwise
            spans = [whole[start:end] for start, end in pieces]
            return (spans[0] if len(spans) == 1 else np.concatenate([whole[:0], *spans])).view(self._type)
        entries = np.empty(n_entries, dtype=self._type)
        left = _bytes_of(entries)
        for start, end in pieces:
            size = (end - start) * self._type.itemsize
            self._file.seek(start * self._type.itemsize)
            _fill(self._file, left[:size])
            left = left[size:]
        return entries

    def _opened(self, folder: Path) -> FileIO:
        """Return a file without a name, whose room is free again when the process ends."""
        with _kept_in(folder, instead=_IN_MEMORY):
            return tempfile.TemporaryFile(dir=folder, buffering=0)

    def _write(self, file: FileIO, entries: NDArray[Any]) -> None:
        left = _bytes_of(entries)
        with _kept_in(self._folder, instead=self._instead):
            while len(left):  # one call of the system writes 2 GB at most
                left = left[file.write(left) :]


def entry_type(n_genes: int, largest: float) -> np.dtype[Any]:
    """Type of an entry: its column and its count, each no larger than needed.

    Parameters
    ----------
    n_genes
        Number of columns.
    largest
        Largest count.

    Examples
    --------
    >>> entry_type(20_000, 300).itemsize, entry_type(100_000, 70_000).itemsize
    (4, 8)
    """
    small = np.iinfo(np.uint16).max
    column = np.uint16 if n_genes <= small + 1 else np.int32
    return np.dtype([("column", column), ("count", np.uint16 if largest <= small else np.float32)])


def shared_file(folder: Path, processes: Processes) -> FileIO:
    """Open a file for the processes of this machine; its room is free again when all of them have ended.

    Parameters
    ----------
    folder
        Where it is, without a name as soon as all have opened it.
    processes
        The first of which on this machine writes, and the others read.

    Raises
    ------
    OSError
        If it cannot be made or opened.
    """
    if not processes.is_first_here:
        path = processes.from_first_here("")
        with _kept_in(folder):
            file = FileIO(path)
        processes.from_first_here(None)
        return file
    with _kept_in(folder):
        number, path = tempfile.mkstemp(prefix=".counts-", dir=folder)
    try:
        processes.from_first_here(path)
        processes.from_first_here(None)  # all have opened it
    finally:
        Path(path).unlink()
    return FileIO(number, "r+")


@contextmanager
def _kept_in(folder: Path | None, *, instead: str = "") -> Iterator[None]:
    """Say what an error of the system came of, and what may be done `instead`."""
    try:
        yield
    except OSError as error:
        what = f"cannot keep the counts to train on in {folder}: {one_line(error)}"
        raise OSError(f"{what}; make room there{instead}") from error


def _bytes_of(entries: NDArray[Any]) -> memoryview:
    return memoryview(entries.view(np.uint8).data)


def _fill(file: FileIO, buffer: memoryview) -> None:
    while len(buffer):
        n_bytes = file.readinto(buffer)
        if not n_bytes:
            msg = "the file of counts to train on has been cut short by somebody else: run again"
            raise OSError(msg)
        buffer = buffer[n_bytes:]
