"""One process at a time in a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["sole_owner"]

_NAME = "lock"


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock of a process that has died does not count.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    path = folder / _NAME
    handle = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


def _acquire(path: Path) -> IO[str]:
    while True:
        handle = path.open("a+", encoding="utf-8")
        if not _try_lock(handle):
            handle.seek(0)
            owner = handle.read().strip()
            handle.close()
            msg = f"process {owner or 'unknown'} is at work in {path.parent}: let it finish or stop it first"
            raise BlockingIOError(msg)
        if _is_still(path, handle):
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            return handle
        handle.close()  # the owner before removed the file between our opening and locking it


def _is_still(path: Path, handle: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(handle: IO[str]) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: working unguarded is better than not at all
        return True
    return True
