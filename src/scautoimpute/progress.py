"""Progress of long work, on the standard error stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["SECONDS_BEFORE_BAR", "no_progress", "progress_bar"]

SECONDS_BEFORE_BAR = 2.0
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def progress_bar(total: float, description: str, unit: str) -> Any:
    """Return a tqdm bar with the time left, which appears once the work has taken over two seconds.

    It goes to stderr, leaves nothing behind, and is switched off by the environment variable ``TQDM_DISABLE=1``.
    """
    from tqdm.auto import tqdm

    look: dict[str, Any] = {"desc": description, "unit": unit, "leave": False, "dynamic_ncols": True}
    if _quiet.get():
        look["disable"] = True
    return tqdm(total=total, delay=SECONDS_BEFORE_BAR, **look)


@contextmanager
def no_progress() -> Iterator[None]:
    """Show no bars within: for many short works of which another bar tells."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)
