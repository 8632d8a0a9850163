"""The child's side: one task in a process of its own, one thread, which tells its parent what comes of it.

It is imported once by the server that forks children, and so are the libraries here; whatever happens to a child
happens to its task alone.
"""

import os
import signal
import threading
import warnings
from multiprocessing.connection import Connection
from typing import Any

import anndata  # noqa: F401
import scanpy  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.cluster
import sklearn.decomposition  # noqa: F401
import threadpoolctl
import torch
from tqdm import tqdm

from ..methods import method_named
from .experiments import EXPERIMENTS
from .task import Task
from .trial import Trial

__all__ = ["run_task"]

_LONGEST_NOTE = 300
_NOTED = (UserWarning, RuntimeWarning)  # others are about versions of libraries, not about results


def run_task(task: Task, connection: Connection, alive: Connection) -> None:
    """Run a task and send what comes of it: lists of scores, then a dictionary of the fields of an `Outcome`.

    Parameters
    ----------
    task
        What to do.
    connection
        Where to send it.
    alive
        Closed by the parent's death, with which this process ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own holds a semaphore, which a process that is killed leaves to the system
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    trial = Trial(task, connection.send)
    with warnings.catch_warnings(record=True) as caught:
        for category in _NOTED:
            warnings.simplefilter("always", category)
        last = _outcome(trial)
    notes = {" ".join(str(w.message).split()) for w in caught if w.category in _NOTED}
    if notes and not last.get("note"):
        last["note"] = "; ".join(sorted(notes))[:_LONGEST_NOTE]
    connection.send(last)
    connection.close()


def _outcome(trial: Trial) -> dict[str, Any]:
    try:
        load = method_named(trial.task.method).load
        if load is not None:
            load()
        figure = EXPERIMENTS[trial.task.experiment].run(trial)
    except MemoryError as error:
        return {"status": "out of memory", "note": _in_words(error) or "no memory was left"}
    except Exception as error:
        return {"status": "failed", "note": _in_words(error)}
    return {"status": "done", "seconds": round(trial.seconds, 3), "peak_gb": round(trial.peak_gb, 3), "figure": figure}


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    named = text if isinstance(error, (ValueError, MemoryError, ImportError)) else f"{type(error).__name__}: {text}"
    return named[:_LONGEST_NOTE]


def _end_with_parent(alive: Connection) -> None:
    try:
        alive.recv()
    except (EOFError, OSError):
        os._exit(1)
