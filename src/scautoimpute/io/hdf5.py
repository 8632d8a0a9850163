"""HDF5 files to read: damage that its library would go round in a circle over is refused.

Strings of any length lie in *global heaps*, collections of entries each of which says where the next one begins. The
library believes them: an entry of no size has it read that entry for ever, and Python's lock with it, so that neither
a thread nor a signal ends it; one that leads out of its collection has it read whatever lies there. So all heaps that
a file refers to are looked at before it is read.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._stops import raise_kept_stop, stops_kept
from .checks import BadContentError
from .matrix import row_blocks

if TYPE_CHECKING:
    import h5py

__all__ = ["open_hdf5", "state_of"]

_HEAP = b"GCOL\x01"  # the signature of a global heap, and the only version of it
_HEADER = 16  # bytes, of a heap and of each entry: number (0 is free space), references, size
_ENTRY = {width: struct.Struct(f"<H6x{kind}") for width, kind in ((2, "H"), (4, "I"), (8, "Q"))}
_STRINGS_AT_ONCE = 100_000


@contextmanager
def open_hdf5(path: Path) -> "Iterator[h5py.File]":
    """Open a file to read whose global heaps are sound, whatever will be read of it, here or by another library.

    They are read once per process and state of the file, which takes as long as reading its strings does.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    BadContentError
        If a global heap is damaged.
    OSError, RuntimeError
        If it is no HDF5 file, it is being written, or its groups or attributes cannot be listed.
    """
    import h5py

    with h5py.File(path) as file:  # first, for it also locks the file
        _refuse_damaged_heaps(path, state_of(path))
        yield file


def state_of(path: Path) -> tuple[int, int, int, int]:
    """Which file lies at a path (device and number), and what changes when it is written to (size and time)."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache
def _refuse_damaged_heaps(path: Path, _state: tuple[int, ...]) -> None:
    """Read all that lies in global heaps through a file that looks at them before the library does."""
    import h5py

    with _HeapCheckedFile(path) as checked, stops_kept():
        with h5py.File(checked, "r") as file:
            _, checked.width = file.id.get_create_plist().get_sizes()
            for item in _objects(file):
                raise_kept_stop()
                _read_from_heaps(item)
                if checked.damaged_at is not None:
                    break
        if checked.damaged_at is not None:
            msg = f"its table of strings at byte {checked.damaged_at:,} is damaged: get it again"
            raise BadContentError(msg)


def _objects(file: "h5py.File") -> Iterator[Any]:
    """Yield the root and all that hard links lead to, each once; a damaged file may hold circles."""
    import h5py

    pending: list[Any] = [file["/"]]
    seen = {h5py.h5o.get_info(file.id).addr}
    while pending:
        item = pending.pop()
        yield item
        for name in item.id if isinstance(item, h5py.Group) else ():
            with suppress(Exception):  # an object that cannot be opened here cannot be read either
                if item.id.links.get_info(name).type == h5py.h5l.TYPE_HARD:
                    address = h5py.h5o.get_info(item.id, name).addr
                    if address not in seen:
                        pending.append(item[name])
                    seen.add(address)


def _read_from_heaps(item: Any) -> None:
    for name in item.attrs:
        with suppress(Exception):  # of types that h5py does not read
            item.attrs[name]
    with suppress(Exception):  # and what is wrong with an array, whoever reads it is told
        if item.dtype.hasobject and not item.is_virtual:
            for rows in row_blocks(item, _STRINGS_AT_ONCE) if item.shape else [()]:
                item[rows]
                raise_kept_stop()


class _HeapCheckedFile(io.FileIO):
    """A file of which the library gets no damaged global heap, but zeros in place of its signature: it stops there.

    Attributes
    ----------
    width
        Bytes of a length in the file.
    damaged_at
        Where the first damaged heap is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.width = 8
        self.damaged_at: int | None = None

    def readinto(self, buffer: Any) -> int:
        start, view = self.tell(), memoryview(buffer).cast("B")
        n_bytes: int = super().readinto(view)
        if view[: len(_HEAP)] == _HEAP and not self._is_sound(start, view[:n_bytes]):
            view[: len(_HEAP)] = bytes(len(_HEAP))
            self.damaged_at = start if self.damaged_at is None else self.damaged_at
        return n_bytes

    def _is_sound(self, start: int, heap: Any) -> bool:
        """Whether entries of a heap follow each other to its end; `heap` may be its beginning only."""
        entry, end = _ENTRY.get(self.width), int.from_bytes(heap[8 : 8 + self.width], "little")
        if entry is None or end > os.fstat(self.fileno()).st_size - start:
            return False
        heap = os.pread(self.fileno(), end, start) if end > len(heap) else heap
        at = _HEADER
        while at + _HEADER <= end:
            number, size = entry.unpack_from(heap, at)
            # As the library goes on: entries are padded to 8 bytes; the size of free space includes its header.
            step = _HEADER + (size + 7 & -8) if number else size
            if step == 0 or at + step > end:
                return False
            at += step
        return True
