"""Progress of long work, on the standard error stream."""

from typing import Any

__all__ = ["SECONDS_BEFORE_BAR", "progress_bar"]

SECONDS_BEFORE_BAR = 2.0


def progress_bar(total: float, description: str, unit: str) -> Any:
    """Return a tqdm bar with the time left, which appears once the work has taken over two seconds.

    It goes to stderr, leaves nothing behind, and is switched off by the environment variable ``TQDM_DISABLE=1``.
    """
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=description, unit=unit, delay=SECONDS_BEFORE_BAR, leave=False, dynamic_ncols=True)
