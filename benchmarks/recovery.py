"""The paper's recovery test: hide a share of the non-zeros of real data, impute, score at the hidden entries.

    python benchmarks/recovery.py                                     # everything but the published training
    python benchmarks/recovery.py --datasets blakeley --seeds 1 --methods autoimpute autoimpute_paper
    python benchmarks/recovery.py --table                             # print the tables of the rows there are

One row per data set, share, seed and method is appended to a CSV file as soon as it is known, and rows already there
are not run again, so a run that was cut off goes on where it stopped. Tables go to standard output and beside the CSV.
"""

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from recovery_tables import write_tables
from rivals import DEFAULT_METHODS, METHODS, preload
from row_files import append_rows, one_thread_pool, read_rows, write_rows
from scautoimpute import datasets, pp
from scautoimpute.metrics.recovery import Hidden, hide_entries, recovery_scores

HERE = Path(__file__).parent
PAPER_SETS = (
    "blakeley",
    "usoskin",
    "preimplantation_deng",
    "kolodziejczyk",
    "jurkat_293t",
    "quake_darmanis",
    "zeisel",
)
BUNDLED_SET = "pbmc68k_reduced"
NOTED = (UserWarning, RuntimeWarning)  # others are about versions of libraries, not about results
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Task:
    """One run: what identifies a row of the CSV file."""

    dataset: str
    flavor: str
    share: float
    seed: int
    method: str


@dataclass(frozen=True)
class Row(Task):
    """A task and its outcome; `note` holds the warnings that the method gave."""

    n_hidden: int
    rmse: float
    mae: float
    nmse: float
    seconds: float
    note: str


# One run ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def processed(dataset: str, flavor: str, data: Path) -> sparse.csr_array:
    """Run the paper's recipe on the counts of the data set: cells × 1000 genes, log2 scale."""
    adata = datasets.pbmc68k_reduced() if dataset == BUNDLED_SET else anndata.read_h5ad(data / f"{dataset}.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty cells: every method gets the same ones
        return sparse.csr_array(pp.recipe_autoimpute(adata, flavor=flavor, copy=True).X, dtype=np.float64)


def run_task(task: Task, data: Path) -> Row:
    """Hide, predict from what is visible, score at what is hidden."""
    full = processed(task.dataset, task.flavor, data)
    hidden = hide_entries(full, share=task.share, random_state=task.seed)
    check_split(full, hidden)
    preload(task.method)
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        for category in NOTED:
            warnings.simplefilter("always", category)
        prediction = METHODS[task.method](hidden.visible, task.seed)
    seconds = time.perf_counter() - started
    # Expression is never negative: clipped for every method alike, which can only lower an error.
    predicted = np.maximum(prediction[hidden.rows, hidden.cols], 0)
    scores = recovery_scores(hidden.truth, predicted)
    note = "; ".join(sorted({" ".join(str(w.message).split()) for w in caught if w.category in NOTED}))
    return Row(**asdict(task), n_hidden=hidden.truth.size, **scores, seconds=round(seconds, 3), note=note)


def check_split(full: sparse.csr_array, hidden: Hidden) -> None:
    """Raise unless the visible matrix lacks every hidden entry and the two together are the whole."""
    back = hidden.visible.toarray()
    leaked = int(np.count_nonzero(back[hidden.rows, hidden.cols]))
    back[hidden.rows, hidden.cols] = hidden.truth
    if leaked or not np.array_equal(back, full.toarray()):
        msg = (
            f"the split is not sound: {leaked} hidden entries are visible, or visible + hidden is not the whole matrix"
        )
        raise RuntimeError(msg)


# Many runs ----------------------------------------------------------------------------------------------------------


def run_all(tasks: Sequence[Task], done: Sequence[Row], *, data: Path, jobs: int, output: Path) -> int:
    """Run the tasks in `jobs` processes of one thread each; return how many failed."""
    write_rows(output, done, Row)
    progress, n_failed = Progress(tasks, done, jobs), 0
    with one_thread_pool(jobs) as pool:
        running: dict[Future[Row], Task] = {pool.submit(run_task, task, data): task for task in tasks}
        try:
            for future in as_completed(running):
                n_failed += not keep(future, running[future], output, progress)
        finally:  # when interrupted, do not run the whole queue first
            pool.shutdown(cancel_futures=True)
    return n_failed


def keep(future: "Future[Row]", task: Task, output: Path, progress: "Progress") -> bool:
    """Append the row of a finished run; a run that failed is reported, and the others go on."""
    try:
        row = future.result()
    except Exception as error:
        progress.show(task, f"failed: {type(error).__name__}: {error}")
        return False
    append_rows(output, [row])
    progress.show(row, f"RMSE {row.rmse:.4f} in {row.seconds:.1f} s")
    return True


class Progress:
    """A line per finished task on standard error, with the time left."""

    def __init__(self, tasks: Sequence[Task], done: Sequence[Row], jobs: int) -> None:
        self.jobs, self.left, self.n_tasks = jobs, list(tasks), len(tasks)
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row in done:
            self.seconds[row.dataset, row.method].append(row.seconds)

    def show(self, finished: Task, outcome: str) -> None:
        """Take the task off what is left and print what came of it."""
        self.left.remove(Task(*astuple(finished)[: len(fields(Task))]))
        if isinstance(finished, Row):
            self.seconds[finished.dataset, finished.method].append(finished.seconds)
        label = f"{finished.dataset} {finished.share:.0%} seed {finished.seed} {finished.method}"
        count = f"[{self.n_tasks - len(self.left)}/{self.n_tasks}]"
        print(f"{count} {label}: {outcome} · {self.minutes_left():.0f} min left", file=sys.stderr, flush=True)

    def minutes_left(self) -> float:
        """Time of the tasks left at the mean time of their kind so far (of all kinds, where none has run)."""
        every = [seconds for kind in self.seconds.values() for seconds in kind] or [0.0]
        return sum(np.mean(self.seconds[t.dataset, t.method] or every) for t in self.left) / self.jobs / 60


# Command line -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    done = read_rows(options.output, Row)
    n_failed = 0
    if not options.table:
        finished = {Task(*astuple(row)[: len(fields(Task))]) for row in done}
        tasks = [task for task in planned(options) if task not in finished]
        print(f"{len(tasks)} runs to do, {len(finished)} rows in {options.output}", file=sys.stderr)
        n_failed = run_all(tasks, done, data=options.data, jobs=options.jobs, output=options.output)
        done = read_rows(options.output, Row)
    if not done:
        print(f"no rows in {options.output}: run without --table first", file=sys.stderr)
        return 1
    print(write_tables(pd.DataFrame(map(asdict, done)), options.output.with_suffix(".md"), jobs=options.jobs))
    return 1 if n_failed else 0


def planned(options: argparse.Namespace) -> Iterator[Task]:
    """Small sets first, and all methods on one split together."""
    for dataset in options.datasets:
        for seed in range(options.seeds):
            for share in options.shares:
                for method in options.methods:
                    yield Task(dataset, options.flavor, share, seed, method)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=HERE.parent.parent / "shared/data/paper", help="folder of the paper's .h5ad files")
    add("--datasets", nargs="+", choices=[*PAPER_SETS, BUNDLED_SET], metavar="NAME", help="default: the paper's seven")
    add("--methods", nargs="+", choices=METHODS, default=DEFAULT_METHODS, metavar="NAME", help=", ".join(METHODS))
    add("--shares", nargs="+", type=float, default=SHARES, metavar="SHARE", help="of the non-zeros to hide, in (0, 1)")
    add("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N - 1 (default: 10)")
    add("--flavor", choices=["cv", "dispersion"], default="cv", help="how genes are selected (default: the paper's cv)")
    add("--jobs", type=int, default=2, metavar="N", help="processes, one thread each (default: 2)")
    add("--output", type=Path, default=HERE / "results/recovery.csv", help="CSV file to write or to complete")
    add("--table", action="store_true", help="run nothing; print the tables of the rows in --output")
    options = parser.parse_args(arguments)
    if not all(0 < share < 1 for share in options.shares):
        parser.error(f"--shares is {options.shares}; each must be above 0 and below 1, e.g. 0.1")
    if options.seeds < 1 or options.jobs < 1:
        parser.error(f"--seeds is {options.seeds} and --jobs is {options.jobs}; both must be at least 1")
    if options.table:
        return options
    options.datasets = available(options.datasets, options.data, parser)
    return options


def available(asked: Sequence[str] | None, data: Path, parser: argparse.ArgumentParser) -> Sequence[str]:
    """Choose the data sets to run: those asked for, else the paper's if their folder is there, else the bundled one."""
    if asked is None and not data.is_dir():
        print(
            f"No folder {data}: the paper's data sets are not shipped with the package, so only {BUNDLED_SET} is run. "
            "Give the folder of the .h5ad files with --data.",
            file=sys.stderr,
        )
        return [BUNDLED_SET]
    asked = asked or PAPER_SETS
    absent = [name for name in asked if name != BUNDLED_SET and not (data / f"{name}.h5ad").is_file()]
    if absent:
        parser.error(
            f"no {', '.join(f'{name}.h5ad' for name in absent)} in {data}; leave out of --datasets, or --data DIR"
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
