"""Results as one CSV row each, which is all that a run that was cut off needs to go on, and a pool to make them."""

import csv
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any


def read_rows(path: Path, kind: type[Any]) -> list[Any]:
    """Rows of the CSV file, as instances of a dataclass; none if there is no file.

    A last line cut off by a crash is left out.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        records = [record for record in csv.DictReader(file) if None not in record.values()]
    columns = columns_of(kind)
    if records and tuple(records[0]) != columns:
        msg = f"{path} has columns {', '.join(records[0])}; expected {', '.join(columns)}: give another --output"
        raise ValueError(msg)
    return [kind(**{field.name: field.type(record[field.name]) for field in fields(kind)}) for record in records]


def write_rows(path: Path, rows: Sequence[Any], kind: type[Any]) -> None:
    """Write the whole file, beside and then over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        csv.writer(file).writerows([columns_of(kind), *map(astuple, rows)])
    partial.replace(path)


def append_rows(path: Path, rows: Sequence[Any]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerows(map(astuple, rows))


def columns_of(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def one_thread_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which end with this one, however it ends."""
    # Set before the processes start: numerical libraries read the threads when they are loaded.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", TQDM_DISABLE="1")
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def use_one_thread() -> None:
    import threadpoolctl
    import torch

    threadpoolctl.threadpool_limits(1)
    torch.set_num_threads(1)
