"""Progress bars in bytes, for what is read and for what libraries write."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._stops import kept_stop, stops_kept
from ..progress import progress_bar

if TYPE_CHECKING:
    import h5py

__all__ = ["Bytes", "counted_bytes", "counted_store", "hdf5_file"]

_MB = 1_000_000
_SMALL = 4 * _MB


class Bytes:
    """A progress bar in whole megabytes, which is told bytes."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Count `n_bytes` more; never beyond the total, which may be an estimate."""
        self._n_bytes += n_bytes
        passed = min(self._n_bytes // _MB, self._bar.total) - self._bar.n
        if passed:
            self._bar.update(passed)


@contextmanager
def counted_bytes(total: int, *, description: str) -> Iterator[Bytes]:
    """Show a bar over `total` bytes if the work takes over two seconds."""
    with progress_bar(max(1, total // _MB), description, "MB") as bar:
        yield Bytes(bar)


@contextmanager
def hdf5_file(path: Path, written: Bytes | None = None) -> "Iterator[tuple[h5py.File, Callable[[], None]]]":
    """Give a new HDF5 file, what is `written` to which is counted, and a check to call in between.

    A full disk is an ``OSError`` of the check, or at the end. HDF5 itself must not meet it: it could not close the file
    then, would keep what it has not written, and bring down the process later. Nor must it meet Ctrl-C, so that what
    writes to the file does it under `stops_kept`.
    """
    import h5py

    with _SteadyFile(path, written) as steady:
        opened = ExitStack()
        try:
            with stops_kept():
                file = opened.enter_context(h5py.File(steady, "w"))
            yield file, steady.check
        finally:
            with stops_kept():
                opened.close()
            steady.check()


class _SteadyFile(io.FileIO):
    """A file whose writes are counted and never fail: after an error, which is kept, small ones stay in memory.

    So they do after a Ctrl-C that is kept. They are HDF5's own records, which it reads again; the large ones are data,
    which it does not.
    """

    def __init__(self, path: Path, written: Bytes | None) -> None:
        super().__init__(path, "w+b")
        self._error: BaseException | None = None
        self._kept: list[tuple[int, bytes]] = []
        self._written = written

    def check(self) -> None:
        """Raise the error that was met, if any, or the Ctrl-C."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        self._error = self._error or kept_stop()
        while len(left) and self._error is None:  # one call of the system writes 2 GB at most
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self._error = error
        if 0 < len(left) <= _SMALL:
            self._kept.append((self.tell(), bytes(left)))
        if self._written is not None:
            self._written.add(size)
        return size

    def readinto(self, buffer: Any) -> int:
        start, view = self.tell(), memoryview(buffer).cast("B")
        n_bytes: int = super().readinto(view)
        if self._error is None:
            return n_bytes
        for position, kept in self._kept:
            first, last = max(start, position), min(start + len(view), position + len(kept))
            if first < last:
                view[first - start : last - start] = kept[first - position : last - position]
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0


@contextmanager
def counted_store(folder: Path, written: Bytes) -> Iterator[Any]:
    """Give a new zarr store in `folder` which counts the arrays that are written, as they were before compression.

    Its end waits for the chunks that are still being written: after an error in one of them, the others go on.
    """
    from zarr.storage import LocalStore, WrapperStore

    class Counted(WrapperStore):  # type: ignore[type-arg]
        _supports_sync_io = False  # or zarr 3.4 passes `set` by

        async def set(self, key: str, value: Any) -> None:
            if ended.is_set():
                return
            under_way.append(key)
            try:
                await self._store.set(key, value)
            finally:
                under_way.remove(key)
            parent, _, name = key.rpartition("/")
            if name in {".zarray", "zarr.json"}:
                chunk_bytes[parent] = _bytes_per_chunk(value.to_bytes())
            elif not name.startswith("."):
                written.add(chunk_bytes.get(key.partition("/c/")[0], chunk_bytes.get(parent, 0)))

    chunk_bytes: dict[str, int] = {}
    under_way: list[str] = []
    ended = threading.Event()
    try:
        yield Counted(LocalStore(folder))
    finally:
        ended.set()
        while under_way:
            time.sleep(0.01)


def _bytes_per_chunk(metadata: bytes) -> int:
    """Return the bytes of a chunk in memory by the metadata of an array, in format 2 or 3; 0 for a group's."""
    import numpy as np

    described = json.loads(metadata)
    if "shape" not in described:
        return 0
    chunks = described["chunks"] if "chunks" in described else described["chunk_grid"]["configuration"]["chunk_shape"]
    kind = described.get("dtype") or described["data_type"]
    item = np.dtype(kind).itemsize if isinstance(kind, str) and kind != "string" else 0
    return int(np.prod([min(pair) for pair in zip(chunks, described["shape"], strict=True)])) * item
