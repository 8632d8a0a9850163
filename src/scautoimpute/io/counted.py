"""Files and zarr stores that tell a progress bar how many bytes went through them."""

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..progress import progress_bar

__all__ = ["Bytes", "CountedFile", "counted_bytes", "counted_store", "folder_size", "growing"]

_MB = 1_000_000
_SECONDS_BETWEEN_LOOKS = 0.5


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


class CountedFile(io.FileIO):
    """A file opened for reading whose reads are counted; HDF5 reads whole chunks, so that counting costs nothing."""

    def __init__(self, path: Path, passed: Bytes) -> None:
        super().__init__(path, "rb")
        self._passed = passed

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`, as `io.FileIO` does."""
        n_bytes = super().readinto(buffer)
        self._passed.add(n_bytes)
        return n_bytes


@contextmanager
def growing(path: Path, total: int, *, description: str) -> Iterator[None]:
    """Show how far a file has grown to about `total` bytes, while a library writes it."""
    finished = threading.Event()
    with counted_bytes(total, description=description) as written:

        def watch() -> None:
            seen = 0
            while not finished.wait(_SECONDS_BETWEEN_LOOKS):
                size = path.stat().st_size if path.exists() else 0
                written.add(size - seen)
                seen = size

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()


def folder_size(folder: Path) -> int:
    """Return the bytes in all files of a folder, or of one file."""
    if folder.is_file():
        return folder.stat().st_size
    return sum((Path(parent) / name).stat().st_size for parent, _, names in os.walk(folder) for name in names)


def counted_store(path: Path, passed: Bytes, *, write: bool = False) -> Any:
    """Return a zarr store, a folder or a zipped one, of which is counted what is read, or the arrays that are written.

    What is read is counted as it is stored, what is written as it was before it was compressed.
    """
    from zarr.storage import LocalStore, WrapperStore, ZipStore

    class Counted(WrapperStore):  # type: ignore[type-arg]
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            value = await self._store.get(key, prototype, byte_range)
            passed.add(0 if value is None else len(value))
            return value

        async def set(self, key: str, value: Any) -> None:
            await self._store.set(key, value)
            parent, _, name = key.rpartition("/")
            if name in {".zarray", "zarr.json"}:
                chunk_bytes[parent] = _bytes_per_chunk(value.to_bytes())
            elif not name.startswith("."):
                passed.add(chunk_bytes.get(key.partition("/c/")[0], chunk_bytes.get(parent, 0)))

    chunk_bytes: dict[str, int] = {}
    return Counted(ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=not write))


def _bytes_per_chunk(metadata: bytes) -> int:
    """Return the bytes of a chunk in memory by the metadata of an array, in format 2 or 3; 0 for a group's."""
    import numpy as np

    described = json.loads(metadata)
    if "shape" not in described:
        return 0
    chunks = described.get("chunks") or described["chunk_grid"]["configuration"]["chunk_shape"]
    kind = described.get("dtype") or described["data_type"]
    item = np.dtype(kind).itemsize if isinstance(kind, str) and kind != "string" else 0
    return int(np.prod([min(pair) for pair in zip(chunks, described["shape"], strict=True)])) * item
