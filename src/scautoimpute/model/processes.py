"""Several processes that train one network together: who takes part, and what they tell each other.

A launcher such as torchrun starts them and tells each, by its environment, which one it is. Every one of them goes the
same way: it draws the same random numbers, computes its share of each step, and takes part in every sum, so that all
come to the same weights and the same decisions. The first alone reads and writes checkpoints, models and results. A
process on its own takes part in nothing, and pays nothing.

torch is imported when there are several, since the command line asks for them before anything else.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import LostProcessError
from ..io.checks import one_line
from .roster import Roster

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup

__all__ = ["ALONE", "Processes", "current", "joined"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # PyTorch's names, which every launcher sets
_TO_MEET = timedelta(minutes=5)
_TO_ANSWER = timedelta(minutes=30)  # the slowest may take so much longer for a pass over the data; the dead are found
_TO_READ = timedelta(days=30)  # all of the data, for the others on the machine
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_LONG_LOOKS = 5e-5, 0.02

Value = TypeVar("Value")


class Processes:
    """The processes of a run, seen by one of them.

    Parameters
    ----------
    rank, size
        Which of how many this is, from 0.
    roster
        Who they are, and what becomes of them; None of a process alone.
    group_here
        Those on this machine, as torch knows them.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, *, roster: Roster | None = None, group_here: "ProcessGroup | None" = None
    ) -> None:
        self.rank, self.size, self.roster, self._group_here = rank, size, roster, group_here
        self._here = [rank] if roster is None else roster.here
        self._buffer: Tensor | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that reads checkpoints and writes files."""
        return self.rank == 0

    @property
    def n_here(self) -> int:
        """How many are on this machine."""
        return len(self._here)

    @property
    def is_first_here(self) -> bool:
        """Whether this is the one that does what needs to be done once on each machine."""
        return self.rank == self._here[0]

    @property
    def is_apart(self) -> bool:
        """Whether it goes on alone."""
        return _current is not self

    # ------------------------------------------------------------------------------------------ who does what

    def part(self, n: int) -> slice:
        """Return the span of `n` items that is this process's own; those of all processes cover every item once."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def every(self, items: Iterable[Value]) -> Iterator[Value]:
        """Yield this process's own of many items, dealt out in turn."""
        return islice(items, self.rank, None, self.size)

    def share(self, rows: Value) -> Value:
        """Return this process's own rows, for a mean; all of them where there are fewer rows than processes."""
        n: int = rows.shape[0]  # type: ignore[attr-defined]
        return rows if self.size == 1 or n < self.size else rows[self.part(n)]  # type: ignore[index]

    def own_device(self, device: "torch.device") -> "torch.device":
        """Return this process's own GPU if `device` is any, or refuse to share one.

        Raises
        ------
        ValueError
            If this machine has fewer GPUs than processes.
        """
        import torch

        if self.size == 1 or device.type != "cuda":
            return device
        place, n_gpus = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if place >= n_gpus:
            msg = f"device 'cuda' has {n_gpus} GPUs here for {self.n_here} processes: start one for each, or use 'cpu'"
            raise ValueError(msg)
        torch.cuda.set_device(place)
        return torch.device("cuda", place)

    # ------------------------------------------------------------------------------------------ what they tell

    def sum(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the sum of what each process has; the same bits for all."""
        if self.size == 1:
            return values
        import torch

        total = torch.from_numpy(np.array(values, dtype=np.float64))
        self._all_reduce(total)
        summed: NDArray[np.float64] = total.numpy()
        return summed

    def mean(self, loss: "Tensor", parameters: "Iterable[nn.Parameter]", weight: "float | Tensor") -> "Tensor":
        """Replace gradients by their mean over the processes, each as important as its `weight`; return that of `loss`.

        Parameters
        ----------
        loss
            Of this process's share of a batch, a mean over `weight` molecules.
        parameters
            Whose gradients are those of `loss`.
        weight
            Molecules in it.
        """
        if self.size == 1:
            return loss.detach()
        import torch

        gradients = [_in_memory_order(p.grad) for p in parameters if p.grad is not None]
        pieces = [torch.stack([loss.detach(), torch.ones_like(loss)]), *(g.reshape(-1) for g in gradients)]
        flat = torch.cat(pieces, out=self._taken(sum(map(len, pieces)), loss))
        self._all_reduce(flat.mul_(weight))
        flat.div_(flat[1].clamp(min=1))
        for gradient, piece in zip(gradients, flat.split([len(piece) for piece in pieces])[1:], strict=True):
            gradient.copy_(piece.view_as(gradient))
        return flat[0]

    def from_first(self, value: Value) -> Value:
        """Return what the first process gives as `value`."""
        if self.size == 1:
            return value
        from torch import distributed

        told = [value]
        with self._lost_found_out():
            distributed.broadcast_object_list(told, src=0)
        return told[0]

    def from_first_here(self, value: Value) -> Value:
        """Return what the first process on this machine gives as `value`, however long that takes it."""
        if self.n_here == 1:
            return value
        import torch
        from torch import distributed

        told = [value]
        self._all_reduce(torch.zeros(1), self._group_here, seconds=SECONDS_BETWEEN_LONG_LOOKS)
        with self._lost_found_out():
            distributed.broadcast_object_list(told, src=self._here[0], group=self._group_here)
        return told[0]

    def all(self, value: Value) -> list[Value]:
        """Return what each process gives as `value`, in the order of their ranks."""
        if self.size == 1:
            return [value]
        from torch import distributed

        told = [value] * self.size
        with self._lost_found_out():
            distributed.all_gather_object(told, value)
        return told

    def _taken(self, size: int, like: "Tensor") -> "Tensor":
        """Memory that one step leaves to the next."""
        if self._buffer is None or len(self._buffer) != size or self._buffer.device != like.device:
            self._buffer = like.new_empty(size)
        return self._buffer

    def _all_reduce(
        self, values: "Tensor", group: "ProcessGroup | None" = None, *, seconds: float = SECONDS_BETWEEN_LOOKS
    ) -> None:
        from torch import distributed

        with self._lost_found_out():
            work = distributed.all_reduce(values, group=group, async_op=True)
            while not work.is_completed():  # waiting in C++ would put off signals, for ever if another is lost
                time.sleep(seconds)
            work.wait()

    # ------------------------------------------------------------------------------------------ how they part

    def leave(self) -> None:
        """Go on alone, as all others do at this point; what is left to do is for the first."""
        global _current  # noqa: PLW0603
        if self.size == 1 or self.is_apart:
            return
        from torch import distributed

        distributed.destroy_process_group()
        _current = ALONE

    @contextmanager
    def _lost_found_out(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, which ends the others in a moment
            cause = f"one of the {self.size} processes was lost ({one_line(error, limit=100)})"
            raise LostProcessError((self.roster and self.roster.trouble()) or cause) from error


ALONE = Processes()
_current = ALONE


def current() -> Processes:
    """Return the processes that take part in what is being done, `ALONE` by default."""
    return _current


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that were started together with this one; alone if none were.

    Raises
    ------
    ConnectionError
        If they cannot be found.
    """
    global _current  # noqa: PLW0603
    if any(name not in os.environ for name in _NEEDED) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    _current = here = _join()
    try:
        yield here
        here.leave()
    finally:
        _current = ALONE


def _join() -> Processes:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # pages of stack about a lost process, of which we tell
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    gpus = torch.cuda.is_available() and distributed.is_nccl_available()
    try:
        store, rank, size = next(rendezvous("env://", timeout=_TO_MEET))
        roster = Roster(store, rank, size)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=_TO_ANSWER,
        )
        groups = {ranks[0]: distributed.new_group(ranks, timeout=_TO_READ) for ranks in roster.machines}
    except (RuntimeError, ValueError) as error:
        at = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        msg = (
            f"the {os.environ['WORLD_SIZE']} processes of this run did not find each other at {at} "
            f"({one_line(error, limit=100)}): start all of them at once, with torchrun"
        )
        raise ConnectionError(msg) from error
    return Processes(rank, size, roster=roster, group_here=groups[roster.here[0]])


def _in_memory_order(gradient: "Tensor") -> "Tensor":
    return gradient.t() if gradient.ndim == 2 and not gradient.is_contiguous() else gradient
