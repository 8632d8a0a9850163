"""Ctrl-C, and what stands for it, that a library written in C tells as an error of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["raise_stop_behind", "stop_behind", "suppress_errors"]


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that an error came of: one that comes while h5py is in C may end as its ``SystemError``."""
    while not (error is None or isinstance(error, KeyboardInterrupt)):
        error = error.__cause__
    return error


def raise_stop_behind(error: BaseException) -> None:
    """Raise the Ctrl-C that an error came of, if it did."""
    if stop := stop_behind(error):
        raise stop from None


@contextmanager
def suppress_errors() -> Iterator[None]:
    """Suppress whatever a library raises, but not a Ctrl-C that it disguises."""
    try:
        yield
    except Exception as error:
        raise_stop_behind(error)
