"""Who the processes of a run are, and what becomes of them: which ended with which word, which without one."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Roster"]

SECONDS_TO_DIE = 1.0  # a connection breaks a moment before its process is gone


class Roster:
    """The others, as known to one process of a run; `machines` are the ranks on each, `here` those on its own.

    Parameters
    ----------
    store
        A `torch.distributed.Store` that all write to and read from, also while some are in trouble.
    rank, size
        Which of how many this is.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank, self.size, self._store = rank, size, store
        store.set(f"process {rank}", json.dumps([_machine(), os.getpid()]))
        known: list[tuple[str, int]] = [tuple(json.loads(store.get(f"process {one}"))) for one in range(size)]
        self._others = {other: process for other, process in enumerate(known) if other != rank}
        names = [name for name, _ in known]
        self.machines = [[r for r, name in enumerate(names) if name == machine] for machine in dict.fromkeys(names)]
        self.here = next(ranks for ranks in self.machines if rank in ranks)

    def say_farewell(self, error: str = "") -> None:
        """Leave word for the others that this process ends in an orderly way, with which error if any."""
        with suppress(RuntimeError):  # what holds the words may itself be lost
            self._store.set(f"farewell {self.rank}", error)

    def farewell_of(self, rank: int, *, seconds: float = 0.0) -> str | None:
        """Return the word that another one left within so many seconds, None if it did not."""
        with suppress(RuntimeError):
            for _ in _looks(seconds):
                if self._store.check([f"farewell {rank}"]):
                    return str(self._store.get(f"farewell {rank}").decode())
        return None

    def lost(self) -> list[int]:
        """Return the processes of this machine that are gone without a word."""
        return [rank for rank in self._others if _is_gone(*self._others[rank]) and self.farewell_of(rank) is None]

    def trouble(self) -> str | None:
        """Say which others are lost, or ended with which error; None if that is not to be seen."""
        for _ in _looks(SECONDS_TO_DIE):
            lost, words = self.lost(), {rank: self.farewell_of(rank) for rank in self._others}
            if lost:
                were = (
                    f"es {', '.join(map(str, lost))} of {self.size} were"
                    if lost[1:]
                    else f" {lost[0]} of {self.size} was"
                )
                return f"process{were} lost (killed, or out of memory)"
            failed = next(((rank, word) for rank, word in words.items() if word), None)
            if failed is not None:
                return f"process {failed[0]} of {self.size} ended with an error ({failed[1]})"
            if None not in words.values():
                break
        return None


def _machine() -> str:
    """Name of this machine, and since when it runs: some are all called alike."""
    since = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {since.read_text().strip() if since.exists() else ''}"


def _is_gone(machine: str, number: int) -> bool:
    """Whether a process of this machine has ended; of others that is not to be seen."""
    import psutil

    if machine != _machine():
        return False
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _looks(seconds: float) -> Iterator[None]:
    """Yield once, and again until so many seconds are over."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        time.sleep(0.02)
        yield
