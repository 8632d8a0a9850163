"""How many processors a network is trained on: more threads than the work or the machine has room for cost time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from joblib import cpu_count

__all__ = ["room_beside", "threads_for", "torch_threads"]

# Values of the largest matrix of a step. Below, two threads are no faster than one and take twice the processor time:
# 128 cells × 765 genes 6.3 and 6.2 ms a step, × 2,000 genes 10.7 and 11.5 ms, × 13,714 genes 30 and 52 ms
FEW_VALUES = 128 * 1500


def threads_for(n_values: int, device: torch.device) -> int:
    """Return how many threads to train on: one if the largest matrix of a step is small, else as many as there are.

    Parameters
    ----------
    n_values
        Of that matrix.
    device
        Where it is.
    """
    return 1 if device.type == "cpu" and n_values <= FEW_VALUES else torch.get_num_threads()


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def room_beside() -> bool:
    """Return whether something can be made beside the products: by a processor that torch does not use."""
    n_processors: int = cpu_count()
    return n_processors > torch.get_num_threads()
