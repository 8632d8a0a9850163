"""Which cells the table has, and which of them come first: the cheap ones."""

from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from ..methods import METHODS
from .experiments import EXPERIMENTS
from .settings import SHARES, SIZES, Settings
from .task import DataSet, Task

__all__ = ["HOURS", "SLOW", "planned", "why_not"]

SLOW = "autoimpute-paper"
_SLOW_SHARES = SHARES[:1]
HOURS = (SLOW, "scvi")  # what these take of a file, where others take minutes
_SLOW_EXPERIMENTS = ("recovery", "structure")

# Seconds for a million entries of cells × genes, one thread; of any other method what AutoImpute takes.
_PACE = {
    "none": 0.1, "gene_mean": 0.1, "gene_cell_bias": 0.2, "als": 30, "soft_impute": 18, "knn": 0.5, "magic": 0.5,
    "scimpute": 12, "drimpute": 4, "alra": 1, "scvi": 140, SLOW: 600,
}  # fmt: skip
_USUAL_PACE, _OVERHEAD = 15.0, 1.0


def planned(datasets: Sequence[DataSet], *, settings: Settings) -> list[Task]:
    """Return every task that is asked for, cheap ones first; tasks that wait for others stay behind them.

    Parameters
    ----------
    datasets
        What there is.
    settings
        What is asked.
    """
    tasks = [
        task
        for experiment in settings.experiments
        for data in datasets
        if data.facts.get("experiments") is None or experiment in data.facts["experiments"]
        for method in settings.methods
        for task in _tasks(experiment, data, method, datasets, settings)
    ]
    return sorted(tasks, key=lambda task: task.cost)


def _tasks(
    experiment: str, data: DataSet, method: str, datasets: Sequence[DataSet], settings: Settings
) -> Iterator[Task]:
    if experiment == "zeros" and not data.lines:
        return
    if experiment == "molecules" and not data.is_counts:
        return
    if experiment == "scale":
        yield from _sizes(data, method, datasets)
        return
    is_rare = method == SLOW and not settings.full
    seeds = settings.seeds if EXPERIMENTS[experiment].is_seeded and not is_rare else 1
    asked: dict[str, Any] = {}
    if experiment == "recovery":
        asked["shares"] = list(_SLOW_SHARES if is_rare else settings.shares)
    n_genes = min(data.genes, 3000 if experiment == "zeros" else 1000)
    cost = _cost(method, data.cells, n_genes) * len(asked.get("shares", [0]))
    first = None
    for seed in range(seeds):
        task = Task(experiment, data.name, method, seed, data, asked, after=first, cost=cost + _OVERHEAD)
        yield task
        first = first or task.name


def _sizes(data: DataSet, method: str, datasets: Sequence[DataSet]) -> Iterator[Task]:
    """One task for each number of cells, each after the one before."""
    if data is not _to_resample(datasets):
        return
    before = None
    for n_cells in SIZES:
        cost = _cost(method, n_cells, min(data.genes, 1000)) + _OVERHEAD
        of = f"{data.name}@{n_cells}"
        task = Task("scale", of, method, 0, data, {"n_cells": n_cells}, after=before, cost=cost)
        yield task
        before = task.name


def _to_resample(datasets: Sequence[DataSet]) -> DataSet | None:
    """The paper's own, else the counts with the most cells."""
    usable = [data for data in datasets if data.is_counts and data.facts.get("experiments") is None]
    return max(usable, key=lambda data: (data.name.startswith("pbmc68k"), data.cells), default=None)


def _cost(method: str, n_cells: int, n_genes: int) -> float:
    return _PACE.get(method, _USUAL_PACE) * n_cells * n_genes / 1e6


def why_not(task: Task, *, settings: Settings) -> str:
    """Say why a task is not run: an extra is missing, or it is the published training and would take too long.

    Parameters
    ----------
    task
        Which.
    settings
        With `full` the published training is run everywhere.

    Returns
    -------
    The reason, "" if there is none.
    """
    if task.method == SLOW and not settings.full:
        if task.experiment not in _SLOW_EXPERIMENTS:
            return "the published training is not run here: --full runs it everywhere"
        if task.cost > settings.time_limit:
            return f"the published training would take about {task.cost / 60:.0f} minutes: --full runs it everywhere"
    return _missing_extra(task.method)


def _missing_extra(method: str) -> str:
    """Say what `method` needs that is not installed, and how to install it; "" if there is nothing."""
    record = METHODS[method]
    for name in record.distributions if record.extra else ():
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return f'needs {name}, which is not installed: pip install "scautoimpute[{record.extra}]"'
    return ""
