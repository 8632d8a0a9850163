"""The Dask cluster that was named on the command line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["on_cluster"]

SECONDS_TO_ANSWER = 10


@contextmanager
def on_cluster(scheduler: str | None) -> Iterator[None]:
    """Have passes over the cells of a file made by the workers of the scheduler at this address, if one is given."""
    if scheduler is None:
        yield
        return
    with _connected(scheduler) as client, client.as_current():
        yield


def _connected(scheduler: str) -> Any:
    from ..errors import MissingDependencyError
    from ..io.checks import one_line

    try:
        import distributed
    except ImportError as error:
        msg = '--scheduler needs dask.distributed, which is not installed: pip install "scautoimpute[cluster]"'
        raise MissingDependencyError(msg) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said by who waits for it
    try:
        # Not as the default, which it would stay although nobody answers it
        return distributed.Client(scheduler, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except Exception as error:
        msg = (
            f"--scheduler {scheduler}: no Dask scheduler answers there ({one_line(error, limit=120)}): start one "
            "(dask scheduler), and give the address that it prints, as in tcp://10.0.0.1:8786"
        )
        raise ValueError(msg) from error
