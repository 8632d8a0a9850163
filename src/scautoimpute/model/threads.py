"""How many processors a network is trained on: more threads than the work or the machine has room for cost time."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["at_once", "each_at_once", "room_beside", "threads_for", "torch_threads"]

Job = TypeVar("Job")
Made = TypeVar("Made")

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


def at_once(n_networks: int, device: torch.device) -> int:
    """Return how many networks are trained at a time: on the CPU as many as torch has threads.

    Parameters
    ----------
    n_networks
        How many there are.
    device
        Where they are.
    """
    return min(n_networks, torch.get_num_threads()) if device.type == "cpu" else 1


def each_at_once(
    jobs: Sequence[Job], train: Callable[[Job, threading.Event], Made], *, n_at_once: int, n_threads: int
) -> list[Made]:
    """Return what becomes of each job, in their order.

    Parameters
    ----------
    jobs
        What to do.
    train
        Does one, on a thread of its own; when the event is set, it keeps what it has and returns soon.
    n_at_once
        How many are under way at a time.
    n_threads
        That torch uses for each.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(n_at_once) as executor, torch_threads(n_threads):
        try:
            futures = [executor.submit(train, job, stop) for job in jobs]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # one that fails (its progress cannot be kept) does not wait for the others
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C must not wait for the networks that are being trained
            stop.set()
            executor.shutdown(cancel_futures=True)
            raise


def room_beside(device: torch.device, n_at_once: int = 1) -> bool:
    """Return whether something can be made beside the products: by a processor that they do not use.

    Parameters
    ----------
    device
        Where the products are made.
    n_at_once
        How many networks are trained on it at a time.
    """
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return device.type != "cpu" or n_processors > n_at_once * torch.get_num_threads()
