"""Ctrl-C and SIGTERM while a library written in C calls Python back, which cannot bear them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["kept_stop", "raise_kept_stop", "stops_kept"]

_kept: list[BaseException] = []  # signals are the process's, and so is what is kept of them


@contextmanager
def stops_kept() -> Iterator[None]:
    """Have what Ctrl-C and SIGTERM raise come out of `raise_kept_stop`, or at the end: around calls of h5py.

    HDF5 goes on after an exception in what it calls, cannot close a file then, and h5py tells it as one of another
    kind. Where signals raise nothing, as in threads, there is nothing to keep.
    """
    handlers: dict[int, Callable[..., Any]] = {}
    if _signals_raise_here():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}

    def keep(number: int, frame: Any) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as stop:
            _kept.append(stop)

    try:
        for number in handlers:
            signal.signal(number, keep)
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is keep:
                signal.signal(number, handler)
        raise_kept_stop()


def kept_stop() -> BaseException | None:
    """Return what this thread is to raise, if anything."""
    return _kept[0] if _kept and _signals_raise_here() else None


def raise_kept_stop() -> None:
    """Raise what this thread is to raise, if anything: of several stops the first."""
    if stop := kept_stop():
        _kept.clear()
        raise stop


def _signals_raise_here() -> bool:
    return threading.current_thread() is threading.main_thread()
