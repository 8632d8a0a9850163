"""The parent's side: tasks in processes of their own, so many at a time, each within its time and memory."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from types import ModuleType
from typing import Any

from .task import Outcome, Task

__all__ = ["Limits", "run_tasks"]

_LOOK_EVERY = 0.2  # seconds
_WALL_FACTOR = 4  # a child that hardly gets a processor, or waits for ever, is stopped after so many times its limit
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
) | {"TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may use.

    Attributes
    ----------
    seconds
        Processor time; four times as long by the clock.
    gigabytes
        Memory of its process; None for no limit but the machine's.
    """

    seconds: float
    gigabytes: float | None = None


def run_tasks(
    tasks: Sequence[Task], *, jobs: int, limits: Limits, ended: dict[str, str], keep: Callable[[Task, Outcome], None]
) -> None:
    """Run tasks in the order given, each in a process of its own; one that dies takes no other with it.

    Parameters
    ----------
    tasks
        What to do. A task that comes `after` one that did not end well is not run.
    jobs
        Processes at a time.
    limits
        Of each.
    ended
        Status of the tasks that have ended before, by name; it grows.
    keep
        Called with every task and what came of it.
    """

    def finish(task: Task, outcome: Outcome) -> None:
        ended[task.name] = outcome.status
        keep(task, outcome)

    waiting, running = list(tasks), list[_Child]()
    with _server() as context:
        try:
            while waiting or running:
                while len(running) < jobs and (task := _next(waiting, running)):
                    note = _why_not(task, ended)
                    if note:
                        finish(task, Outcome("not run", note))
                    else:
                        running.append(_Child(task, context, limits))
                connection.wait([child.receiving for child in running], timeout=_LOOK_EVERY)
                for child in list(running):
                    outcome = child.look()
                    if outcome is not None:
                        running.remove(child)
                        finish(child.task, outcome)
        finally:
            for child in running:
                child.kill()


def _next(waiting: list[Task], running: list["_Child"]) -> Task | None:
    """Take the first task that waits for no other."""
    to_come = {task.name for task in waiting} | {child.task.name for child in running}
    for task in waiting:
        if task.after not in to_come:
            waiting.remove(task)
            return task
    return None


def _why_not(task: Task, ended: dict[str, str]) -> str:
    """Say why a task is not worth trying, if it is not; one before it that nobody asked for is no reason."""
    before = ended.get(task.after or "", "done")
    other_seed = task.seed > 0
    if before == "done" or (other_seed and before == "failed"):  # by chance, it may be
        return ""
    of = "another seed" if other_seed else "fewer cells"
    return f"not tried: nor was it with {of}" if before == "not run" else f"not tried: {before} with {of}"


def _work(task: Task, sending: connection.Connection, alive: connection.Connection) -> None:
    from .worker import run_task  # which the server has imported; the parent never does

    run_task(task, sending, alive)


class _Child:
    """A process at work on a task."""

    def __init__(self, task: Task, context: Any, limits: Limits) -> None:
        self.task, self.limits, self.outcome = task, limits, Outcome()
        self.receiving, sending = context.Pipe(duplex=False)
        alive, self._alive = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(task, sending, alive), daemon=True)
        with _no_main():
            self.process.start()
        sending.close()
        alive.close()
        self.started, self.has_ended = time.monotonic(), False

    def look(self) -> Outcome | None:
        """Take what was sent; return the outcome if that was all, or if no more is to come."""
        ended = not self.process.is_alive()  # asked first: what a dead child has sent is there by now
        self._receive()
        if not self.has_ended and ended:
            self._stop("failed", _death(self.process.exitcode))
        elif not self.has_ended:
            self._check_limits()
        if not self.has_ended:
            return None
        self.kill()
        return self.outcome

    def _receive(self) -> None:
        try:
            while self.receiving.poll():
                message = self.receiving.recv()
                if isinstance(message, list):
                    self.outcome.scores += message
                else:
                    self.has_ended = True
                    for name, value in message.items():
                        setattr(self.outcome, name, value)
        except (EOFError, OSError):
            return

    def _check_limits(self) -> None:
        import psutil

        try:
            process = psutil.Process(self.process.pid)
            times, held = process.cpu_times(), process.memory_info().rss / 1e9
        except psutil.Error:  # it has just ended
            return
        used, clock = times.user + times.system, time.monotonic() - self.started
        if used > self.limits.seconds or clock > _WALL_FACTOR * self.limits.seconds:
            by_clock = "" if used > self.limits.seconds else f", by the clock {_WALL_FACTOR} times as many"
            self._stop("timed out", f"stopped after {self.limits.seconds:g} s{by_clock} (--time-limit)")
            self.outcome.seconds = round(used, 1)
        elif self.limits.gigabytes is not None and held > self.limits.gigabytes:
            self._stop("out of memory", f"stopped at {held:.1f} GB (--memory-limit {self.limits.gigabytes:g})")

    def _stop(self, status: Any, note: str) -> None:
        self.has_ended, self.outcome.status, self.outcome.note = True, status, note

    def kill(self) -> None:
        """End the process if it has not ended."""
        self.process.join(timeout=2 if self.outcome.status == "done" else 0)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.receiving.close()
        self._alive.close()


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the script that this process runs, which a child would run again: it needs nothing of it."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with code {code} and said nothing"
    name = signal.Signals(-code).name
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


@contextmanager
def _server() -> Iterator[Any]:
    """Give what makes processes: a server that has imported everything and forks them, where systems have that.

    It is started in an environment of one thread, since libraries read it when they are loaded.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        if sys.platform == "win32":
            yield multiprocessing.get_context("spawn")
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["scautoimpute.evaluation.worker"])
        forkserver.ensure_running()
        yield context
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
