"""Ctrl-C and SIGTERM while a library written in C calls Python back, which cannot bear them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["raise_kept_stop", "stops_kept"]

_kept: list[BaseException] = []  # signals are the process's, and so is what is kept of them


@contextmanager
def stops_kept() -> Iterator[None]:
    """Have what Ctrl-C and SIGTERM raise come out of `raise_kept_stop`, or of the end; a second one raises at once.

    For a library that calls Python back and goes on, or never closes, if it meets an exception there. Where signals
    raise nothing, as in threads, there is nothing to keep.
    """
    handlers: dict[int, Callable[..., Any]] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}

    def keep(number: int, frame: Any) -> None:
        signal.signal(number, handlers[number])
        try:
            handlers[number](number, frame)
        except BaseException as stop:
            _kept.append(stop)

    for number in handlers:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        raise_kept_stop()


def raise_kept_stop() -> None:
    """Raise what is kept, if anything is."""
    if _kept:
        raise _kept.pop()
