"""Outputs that appear under their name only when they are complete."""

import glob
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["complete_or_absent", "remove_abandoned"]


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, renamed to `path` on success and removed on whatever else happens.

    What is made under that name may be a file or a folder. What processes that were killed left behind is removed.
    If `path` is a link, what it leads to is replaced, whatever its suffix: the temporary name has that of the link.
    """
    before, after = _temporary_name(path, "partial")
    target = path.expanduser().resolve()
    beside = target.with_name(f"{before}{os.getpid()}{after}")
    remove_abandoned(path)
    try:
        yield beside
        if beside.is_dir() or target.is_dir():
            _exchange(beside, target)
        else:
            _reach_disk(beside)
            beside.replace(target)
    finally:
        _remove(beside)


def remove_abandoned(path: Path) -> None:
    """Remove what processes that no longer live left behind while they were writing `path`; bring back what they moved.

    A folder that was to be replaced is moved aside for a moment, and comes back if nothing took its place.
    """
    target = path.expanduser().resolve()
    for kind, named in (("partial", path), ("replaced", target)):
        before, after = _temporary_name(named, kind)
        for found in target.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}"):
            pid = found.name[len(before) : len(found.name) - len(after)]
            if not pid.isdecimal() or _is_alive(int(pid)):
                continue
            if kind == "replaced" and not target.exists():
                found.rename(target)
            else:
                _remove(found)


def _temporary_name(path: Path, kind: str) -> tuple[str, str]:
    """What stands before and after the number of the process in a temporary name for `path`."""
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
    return f".{path.name.removesuffix(suffix)}.{kind}-", suffix.lower()


def _reach_disk(path: Path) -> None:
    """Wait until the contents are on the disk, so that after a power cut no name stands for half of them."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # a number that was given out again, to this process


def _exchange(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`, if that exists; a folder cannot be renamed onto another, so that is moved first.

    Whatever happens in between, `old` comes back.
    """
    before, after = _temporary_name(old, "replaced")
    aside = old.with_name(f"{before}{os.getpid()}{after}")
    try:
        if old.exists():
            old.rename(aside)
        new.rename(old)
    except BaseException:
        if aside.exists() and not old.exists():
            aside.rename(old)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
