"""The two questions, from data to one dictionary of results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count

from .claims import claims_of
from .folder import EVALUATION, Folder, described
from .inputs import describe, find_datasets
from .plan import HOURS, SLOW, planned, why_not
from .pool import Limits, run_tasks
from .recommendation import recommendation_of
from .results import manifest_of, write_results
from .settings import PAPER_EXPERIMENTS, SHARES, Settings
from .task import DataSet, Outcome, Task

__all__ = ["evaluate", "reproduce"]

_FILE_EXPERIMENTS = ("molecules", "recovery", "structure")


def reproduce(
    folder: str | Path,
    *,
    output: str | Path,
    labels: str = "cell_type",
    bulk: str | Path | None = None,
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    seeds: int = 3,
    full: bool = False,
    jobs: int | None = None,
    time_limit: float = 300,
    memory_limit: float | None = None,
    retry: bool = False,
    table_only: bool = False,
) -> dict[str, Any]:
    """Run the paper's experiments over the data sets of a folder and hold its claims against the results.

    What has ended is kept in `output`, so that the same call goes on where an interrupted one stopped.

    Parameters
    ----------
    folder
        With one ``.h5ad`` file per data set.
    output
        Folder for results; new, empty, or of the same run.
    labels
        Column of `obs` with the cell types. A data set without it is left out of the experiments that need types.
    bulk
        Folder with bulk RNA-seq of cell lines and their single cells; by default `folder`, then ``extra`` beside it.
    datasets, methods, experiments
        Only these; by default all, of which `autoimpute` stands for the counts objective where counts are of molecules
        (in recovery it is the masked one). Experiments are ``"zeros"``, ``"recovery"``, ``"structure"`` and
        ``"scale"``.
    seeds
        Seeds 0 to so many less one.
    full
        Run the published training with every seed and share too; by default in recovery and structure with the first
        only, and where it should end in time, since it takes minutes to hours.
    jobs
        Processes at a time, one thread each; by default as many as there are processors for this one.
    time_limit, memory_limit
        Processor seconds and gigabytes that one cell of the table may use.
    retry
        Run again what failed, ran out of time or memory.
    table_only
        Run nothing; results of what has ended.

    Returns
    -------
    What ``results.json`` in `output` holds: ``manifest``, ``cells``, ``claims``. ``results.csv`` has a row for each
    score, or for each cell without one and why, and in its last columns versions, hardware and command of the run.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no data sets, or a name is unknown, or `output` holds the results of others.
    BlockingIOError
        If another run is at work in `output`.
    """
    settings = Settings.checked(
        methods=methods,
        experiments=experiments,
        allowed=PAPER_EXPERIMENTS,
        labels=labels,
        seeds=seeds,
        full=full,
        jobs=jobs or cpu_count(),
        time_limit=time_limit,
        memory_limit=memory_limit,
        retry=retry,
    )
    kept = Folder(Path(output).expanduser())
    with kept.owned():
        found = find_datasets(
            Path(folder).expanduser(),
            labels=labels,
            bulk=None if bulk is None else Path(bulk).expanduser(),
            names=datasets,
        )
        results = _fill(kept, found, settings, "paper", table_only=table_only)
        results["claims"] = claims_of(results)
        write_results(results, kept.path)
    return results


def evaluate(
    path: str | Path,
    *,
    output: str | Path,
    labels: str | None = None,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    full: bool = False,
    jobs: int | None = None,
    time_limit: float = 300,
    memory_limit: float | None = None,
    retry: bool = False,
    table_only: bool = False,
) -> dict[str, Any]:
    """Try every method on one file and say in words which to use, if any.

    Parameters
    ----------
    path
        Any file that `scautoimpute.read` reads.
    labels
        Column of `obs` with cell types that were found without imputation; clusters and silhouettes need it.
    methods
        Only these; by default all but scVI and the published training, which take hours.
    full
        Also run those two, and hide 20 to 50 % of the entries too, which the recommendation does not need.
    output, seeds, jobs, time_limit, memory_limit, retry, table_only
        As in `reproduce`.

    Returns
    -------
    What ``results.json`` in `output` holds: ``manifest``, ``cells``, ``recommendation``; ``results.csv`` as in
    `reproduce`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or no counts in it, or `labels` cannot be used, or a name is unknown, or `output`
        holds the results of others.
    BlockingIOError
        If another run is at work in `output`.
    """
    settings = Settings.checked(
        methods=methods,
        experiments=None,
        allowed=_FILE_EXPERIMENTS,
        leave_out=() if full else HOURS,
        shares=SHARES if full else SHARES[:1],
        labels=labels,
        seeds=seeds,
        full=full,
        jobs=jobs or cpu_count(),
        time_limit=time_limit,
        memory_limit=memory_limit,
        retry=retry,
    )
    kept = Folder(Path(output).expanduser())
    with kept.owned():
        data = describe(Path(path).expanduser(), labels=labels)
        if labels is not None and data.labels is None:
            msg = (
                f"--labels {labels}: {data.facts['note'].partition(':')[0]}; name a column with at least two cell types"
            )
            raise ValueError(msg)
        results = _fill(kept, [data], settings, EVALUATION, table_only=table_only)
        results["recommendation"] = recommendation_of(results)
        write_results(results, kept.path)
    return results


def _fill(kept: Folder, datasets: list[DataSet], settings: Settings, kind: str, *, table_only: bool) -> dict[str, Any]:
    """Run what has not ended yet, and gather all cells in the order of the plan."""
    tasks = planned(datasets, settings=settings)
    manifest = kept.begin(manifest_of(kind, settings, described(datasets), _notes(tasks, datasets, settings)))
    cells = kept.cells(tasks)
    again = {name for name, cell in cells.items() if cell["status"] == "not run"}
    again |= {name for name, cell in cells.items() if settings.retry and cell["status"] != "done"}
    cells = {name: cell for name, cell in cells.items() if name not in again}
    to_do = []
    for task in tasks:
        if task.name in cells:
            continue
        if reason := why_not(task, settings=settings):
            cells[task.name] = Outcome("not run", reason).as_cell(task)
        else:
            to_do.append(task)
    if not table_only:
        _run(kept, to_do, cells, settings)
    for task in to_do:
        cells.setdefault(task.name, Outcome("not run", "not yet").as_cell(task))
    ordered = sorted(tasks, key=lambda task: (settings.experiments.index(task.experiment), task.data.cells))
    return {"manifest": manifest, "cells": [cells[task.name] for task in ordered]}


def _run(kept: Folder, to_do: list[Task], cells: dict[str, dict[str, Any]], settings: Settings) -> None:
    from ..progress import progress_bar

    ended = {name: cell["status"] for name, cell in cells.items()}
    total = sum(task.cost for task in to_do) + 1e-6  # a sum in another order may be that much more
    bar = progress_bar(total, "starting", "s")
    bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"  # its unit is a guess of seconds
    left = len(to_do)

    def keep(task: Task, outcome: Outcome) -> None:
        nonlocal left
        kept.keep(task, outcome)
        cells[task.name] = outcome.as_cell(task)
        left -= 1
        said = f"{task.experiment} {task.dataset} {task.method}: {outcome.status}; {left:,} left"
        bar.set_description_str(said, refresh=False)
        bar.update(task.cost)

    with bar:
        limits = Limits(settings.time_limit, settings.memory_limit)
        run_tasks(to_do, jobs=settings.jobs or 1, limits=limits, ended=ended, keep=keep)


def _notes(tasks: Sequence[Task], datasets: Sequence[DataSet], settings: Settings) -> list[str]:
    notes = [f"{data.name}: {data.facts['note']}" for data in datasets if data.facts["note"]]
    if SLOW in settings.methods and not settings.full:
        notes.append(f"{SLOW} takes minutes to hours a run: with seed 0 only, and 10 % hidden (--full for all)")
    if settings.left_out:
        notes.append(f"left out, since they take hours: {', '.join(settings.left_out)} (--full, or --methods)")
    if "zeros" in settings.experiments and not any(task.experiment == "zeros" for task in tasks):
        notes.append("no data set has bulk RNA-seq of the same line: true zeros were not tested (--bulk DIR)")
    return notes
