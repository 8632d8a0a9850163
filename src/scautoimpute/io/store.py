"""Zarr stores: what zarr itself would pass over in one is refused, and its notices of formats to come are not shown."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .checks import BadContentError

if TYPE_CHECKING:
    from .counted import Bytes

__all__ = ["bytes_in_chunks", "open_zarr", "without_notices"]

_SIZE = slice(12, 16)  # where the header of a Blosc chunk holds its length
_HINTS = {  # what else to do about parts of a sparse matrix of which a chunk is not there
    "data": "; if its values are all stored zeros, write it after eliminate_zeros()",
    "indptr": "; if its first cells are empty, leave them out",
    "indices": "",
}


@contextmanager
def without_notices() -> Iterator[None]:
    """Ignore what zarr and anndata say, where a store is written, of formats and settings to come."""
    to_come = (
        "Writing zarr v2 data|zarr v3 (autosharding|will become)|Consolidated metadata|This setting will be removed"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=to_come)
        yield


@contextmanager
def open_zarr(path: Path, *, passed: "Bytes | None" = None) -> Iterator[Any]:
    """Give the root of a zarr folder, or of a zipped one, whose sparse matrices lack no chunk.

    Missing chunks read as zeros, and chunks cut short as whatever lies behind them in memory; both are refused, the
    latter when they are read, as are those that go missing meanwhile. What is read is counted in `passed`, as it is
    stored.
    """
    import zarr
    from zarr.storage import LocalStore, WrapperStore, ZipStore

    class WholeChunks(WrapperStore):  # type: ignore[type-arg]
        _supports_sync_io = False  # or zarr 3.4 passes `get` by

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            value = await self._store.get(key, prototype, byte_range)
            stored = _array_of(key, arrays)
            if stored is not None and value is None:
                if not stored.has_gaps or not await self._store.exists(stored.described_in):
                    msg = f"the chunk {key} was there and is gone: put it back, or copy the store again"
                    raise BadContentError(msg)
            elif stored is not None and byte_range is None and stored.is_blosc:
                expected = int.from_bytes(value[_SIZE].to_bytes(), "little")
                if len(value) != expected:
                    msg = f"the chunk {key} has {len(value)} bytes instead of {expected}: copy the store again"
                    raise BadContentError(msg)
            if passed is not None and value is not None:
                passed.add(len(value))
            return value

    arrays: dict[str, _Stored] = {}
    store = WholeChunks(ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True))
    try:
        group = zarr.open_group(store, mode="r")
        for name, item in group.members(max_depth=None):
            if hasattr(item, "shape"):
                arrays[name] = _Stored.of(name, item)
            else:
                _refuse_missing_chunks(name, item)
        yield group
    finally:
        store.close()


def bytes_in_chunks(path: Path) -> int:
    """Return the bytes that all arrays of a store take on disk."""
    if path.is_file():
        return path.stat().st_size
    chunks = (file for file in path.rglob("*") if not file.name.startswith(".") and file.name != "zarr.json")
    return sum(file.stat().st_size for file in chunks if file.is_file())


class _Stored(NamedTuple):
    """What is known of an array when it is opened: whether chunks of it were left out, as those of zeros may be."""

    is_blosc: bool
    has_gaps: bool
    described_in: str

    @classmethod
    def of(cls, name: str, item: Any) -> "_Stored":
        described_in = f"{name}/{'.zarray' if item.metadata.zarr_format == 2 else 'zarr.json'}"
        return cls(_is_packed_with_blosc(item), item.nchunks_initialized < item.nchunks, described_in)


def _array_of(key: str, arrays: dict[str, _Stored]) -> _Stored | None:
    """Return the array that a chunk is of, such as X/data of X/data/0 and X/data/c/0, or None for what is no chunk."""
    parts = key.split("/")
    for n_parts in range(len(parts) - 1, 0, -1):
        stored = arrays.get("/".join(parts[:n_parts]))
        if stored is not None:
            return stored if parts[-1].replace(".", "").isdigit() or parts[n_parts] == "c" else None
    return None


def _is_packed_with_blosc(item: Any) -> bool:
    compressors = getattr(item, "compressors", ())
    return any("blosc" in type(one).__name__.lower() for one in compressors) and item.shards is None


def _refuse_missing_chunks(name: str, group: Any) -> None:
    """Refuse a sparse matrix without all of its chunks: zarr leaves out those of nothing but zeros, and reads zeros."""
    if not _HINTS.keys() <= set(group) or not group["data"].size:
        return
    for part, hint in _HINTS.items():
        array = group[part]
        if array.nchunks_initialized < array.nchunks and not (part == "indices" and _are_first_once(group)):
            found = f"only {array.nchunks_initialized} of the {array.nchunks} chunks of {name}/{part} are there"
            msg = f"{found}: copy the store again{hint}"
            raise BadContentError(msg)


def _are_first_once(group: Any) -> bool:
    """Whether no row has two entries of the first gene, as one whose chunk of indices is missing would have."""
    row_Z = np.repeat(np.arange(group["indptr"].size - 1), np.diff(group["indptr"][:]))
    return bool(np.bincount(row_Z[group["indices"][:] == 0], minlength=1).max() <= 1)
