"""Copy the elements of an anndata file to another without changing them, and without holding their matrices.

Between files of the same kind the bytes are copied, after all of them have been read, for a copy of damage would look
like a whole file; from h5ad to zarr and back, arrays are copied, a piece at a time.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._stops import raise_kept_stop, stops_kept
from .matrix import row_blocks
from .read import streaming

# Higher levels take longer and save nothing of estimates, whose low bits are as good as random
_GZIP: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_PLAIN: dict[str, Any] = {"compressors": None}  # as zarr calls it
_VALUES_PER_PIECE = 4_000_000
_TEXTS_PER_PIECE = 100_000
# Groups of which each member is an element of its own; others, such as categories, anndata reads and writes as one.
_OPENED = {"anndata", "csc_matrix", "csr_matrix", "dataframe", "dict", "raw"}


def copy_members(source: Any, target: Any, *, paths: tuple[Path, Path], but: dict[str, set[str] | None]) -> None:
    """Copy everything in a file to an empty one, but what `but` names, as ``{"layers": {"imputed"}}``; None is all.

    `source` and `target` are the roots of the files, `paths` says where these are.

    Raises
    ------
    ValueError
        If `source` is damaged, as by `read`.
    OSError
        If `target` cannot be written.
    """
    copy_attributes(source, target, paths[0])
    for name in list(source):
        if name not in but:
            _copy(source, target, name, paths)
            continue
        left_out = but[name]
        if left_out is None:
            continue
        inner = target.create_group(name)
        with streaming(paths[0]):
            group = source[name]
            members = [member for member in group if member not in left_out]
        copy_attributes(group, inner, paths[0])
        for member in members:
            _copy(group, inner, member, paths)


def copy_attributes(source: Any, target: Any, path: Path) -> None:
    """Copy the attributes of an element of the file at `path`."""
    with streaming(path), stops_kept():
        # As a list: h5py holds its lock while it goes through them, and zarr's threads wait in vain
        attributes = list(source.attrs.items())
    for name, value in attributes:
        target.attrs[name] = _attribute(value, json=not is_hdf5(target))


@contextmanager
def any_strings() -> Iterator[None]:
    """Have anndata 0.12 write strings as 0.13 stores them: it reads them, and refuses to write them unless told."""
    from anndata import settings

    with settings.override(allow_write_nullable_strings=True):
        yield


def is_hdf5(item: Any) -> bool:
    """Return whether a group or array is one of HDF5, rather than of zarr."""
    import h5py

    return isinstance(item, h5py.Group | h5py.Dataset)


def _copy(source: Any, target: Any, name: str, paths: tuple[Path, Path]) -> None:
    if is_hdf5(source) != is_hdf5(target):
        _convert(source, target, name, paths[0])
        return
    with streaming(paths[0]):
        _read_through(source[name])
    if is_hdf5(source):
        source.copy(name, target)
    else:
        shutil.copytree(Path(paths[0], source.path, name), Path(paths[1], target.path, name))


def _read_through(item: Any) -> None:
    """Unpack everything, which tells whether it can be."""
    if not hasattr(item, "shape"):
        for member in list(item):
            _read_through(item[member])
    elif not item.shape:
        item[()]
    else:
        for rows in _pieces(item):
            item[rows]


def _pieces(array: Any) -> Iterator[slice]:
    """Yield rows to be read at once: whole chunks, so that none is unpacked twice."""
    n_values = max(1, int(np.prod(array.shape[1:], dtype=np.int64)))
    along = array.chunks[0] if array.chunks else 1
    at_once = _VALUES_PER_PIECE if array.dtype.kind in "biuf" else _TEXTS_PER_PIECE
    for rows in row_blocks(array, max(1, at_once // n_values // along) * along):
        raise_kept_stop()
        yield rows


def _convert(source: Any, target: Any, name: str, path: Path) -> None:
    from anndata.io import read_elem, write_elem

    with streaming(path):
        item = source[name]
        is_array, members = hasattr(item, "shape"), () if hasattr(item, "shape") else list(item)
    if not is_array and item.attrs.get("encoding-type") in _OPENED:
        group = target.create_group(name)
        copy_attributes(item, group, path)
        for member in members:
            _convert(item, group, member, path)
    elif is_array and item.shape and item.dtype.kind in "biuf" and item.dtype.names is None:
        _copy_array(item, target, name, path)
    else:
        with streaming(path):
            element = read_elem(item)
        with any_strings():
            write_elem(target, name, element)


def _copy_array(source: Any, target: Any, name: str, path: Path) -> None:
    array = new_array(target, name, shape=source.shape, dtype=source.dtype)
    copy_attributes(source, array, path)
    for rows in _pieces(source):
        with streaming(path):
            values = source[rows]
        array[rows] = values


def new_array(
    group: Any,
    name: str,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    rows: int | None = None,
    compression: str | None = None,
) -> Any:
    """Make an array that can grow, in chunks of `rows` rows (by default of about a million values)."""
    packed = packing(compression, hdf5=is_hdf5(group))
    row = max(1, int(np.prod(shape[1:], dtype=np.int64)))
    rows = rows or max(1, min(_VALUES_PER_PIECE // 4 // row, max(shape[0], 1)))
    chunks = (rows, *(max(1, size) for size in shape[1:]))
    if not is_hdf5(group):
        return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks, **packed)
    return group.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, maxshape=(None, *shape[1:]), **packed)


def packing(compression: str | None, *, hdf5: bool) -> dict[str, Any]:
    """Return the options of new arrays: `"gzip"` is for HDF5, which else has `"none"`; zarr else does as it chooses."""
    if hdf5:
        return _GZIP if compression == "gzip" else {}
    return _PLAIN if compression == "none" else {}


def _attribute(value: Any, *, json: bool) -> Any:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if json or not isinstance(plain, list) or (plain and not isinstance(plain[0], str)):
        return plain
    import h5py

    return np.array(plain, dtype=h5py.string_dtype())
