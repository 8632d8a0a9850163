"""Molecular cross-validation of every method on count data: hold out a tenth of the molecules, impute, score.

    python benchmarks/denoising.py                                # what has no row yet, small sets and seed 0 first
    python benchmarks/denoising.py --datasets zeisel --seeds 0 --methods magic autoimpute_counts
    python benchmarks/denoising.py --table                        # print the tables of the rows there are

One row per data set, seed and method is appended to a CSV file as soon as it is known, and rows already there are not
run again. Methods of one family (MAGIC, MAGIC tuned, each with the empirical-Bayes step) are fitted together.
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from denoising_data import BUNDLED, PAIRS, SETS, Split, find, split_of
from denoising_rivals import FAMILIES, METHODS, Estimate, estimates, family_of, unavailable
from denoising_scores import scores
from denoising_tables import write_tables
from row_files import append_rows, one_thread_pool, read_rows, write_rows

HERE = Path(__file__).parent
ON_GPU = ("scvi", "autoimpute", "autoimpute_counts")  # which take one where there is one
NOTED = (UserWarning, RuntimeWarning)  # others are about versions of libraries, not about results


@dataclass(frozen=True)
class Row:
    """One method on one split: what it chose, its scores, seconds to choose and fit, and the warnings it gave."""

    dataset: str
    seed: int
    method: str
    n_cells: int
    n_genes: int
    choice: str
    deviance: float
    gain: float
    mse: float
    mse_none: float
    mse_floor: float
    removed: float
    ari: float
    silhouette: float
    gene_r: float
    cell_r: float
    bulk_r: float
    fold_change_r: float
    op_mse: float
    op_poisson: float
    seconds: float
    note: str


Task = tuple[str, int, str]  # data set, seed, family


# One run ------------------------------------------------------------------------------------------------------------


def run_task(task: Task, data: Path) -> list[Row]:
    """Fit a family to the training molecules of a split and score each of its methods."""
    dataset, seed, family = task
    split = split_of(dataset, seed, data)
    rows: list[Row] = []
    with warnings.catch_warnings(record=True) as caught:
        for category in NOTED:
            warnings.simplefilter("always", category)
        for estimate in estimates(family, split.train, seed):
            rows.append(row_of(estimate, split, dataset, seed))
    said = {" ".join(str(w.message).split()) for w in caught if w.category in NOTED}
    if family in ON_GPU and torch.cuda.is_available():
        said.add(f"on an {torch.cuda.get_device_name()}")
    note = "; ".join(sorted(said))[:300]
    return [replace(row, note=note) for row in rows]


def row_of(estimate: Estimate, split: Split, dataset: str, seed: int) -> Row:
    found = {name: round(value, 6) for name, value in scores(estimate, split).items()}
    choice, seconds = json.dumps(estimate.choice), round(estimate.seconds, 2)
    return Row(dataset, seed, estimate.method, *split.train.shape, choice, **found, seconds=seconds, note="")


# Many runs ----------------------------------------------------------------------------------------------------------


def run_all(tasks: Sequence[Task], done: Sequence[Row], *, data: Path, jobs: int, output: Path) -> int:
    """Run the tasks in `jobs` processes of one thread each; return how many failed."""
    write_rows(output, done, Row)
    started, n_failed, n_ended = time.monotonic(), 0, 0
    with one_thread_pool(jobs) as pool:
        running = {pool.submit(run_task, task, data): task for task in tasks}
        try:
            for future in as_completed(running):
                n_ended += 1
                outcome = future.exception()
                if outcome is None:
                    append_rows(output, future.result())
                    told = ", ".join(f"{row.method} {row.gain:.1f}" for row in future.result())
                else:
                    n_failed += 1
                    told = f"failed: {type(outcome).__name__}: {outcome}"
                passed = f"{(time.monotonic() - started) / 60:.0f} min"
                print(f"[{n_ended}/{len(tasks)}, {passed}] {running[future]}: {told}", file=sys.stderr, flush=True)
        finally:  # when interrupted, do not run the whole queue first
            pool.shutdown(cancel_futures=True)
    return n_failed


def planned(options: argparse.Namespace, done: Sequence[Row]) -> Iterator[Task]:
    """Yield what has no row yet: the first seed of all sets first; small sets first; a split's methods together."""
    have: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row in done:
        have[row.dataset, row.seed].add(row.method)
    asked = dict.fromkeys(map(family_of, options.methods))
    for seed in options.seeds:
        for dataset in options.datasets:
            if dataset in PAIRS and seed != options.seeds[0]:
                continue
            for family in asked:
                wanted = set(FAMILIES[family][0]) & set(options.methods)
                if not wanted <= have[dataset, seed]:
                    yield dataset, seed, family


# Command line -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    done = read_rows(options.output, Row)
    absent = unavailable()
    n_failed = 0
    if not options.table:
        for family, why in absent.items():
            print(f"left out: {family}: {why}", file=sys.stderr)
        tasks = [task for task in planned(options, done) if task[2] not in absent]
        redone = {(dataset, seed, method) for dataset, seed, family in tasks for method in FAMILIES[family][0]}
        done = [row for row in done if (row.dataset, row.seed, row.method) not in redone]
        print(f"{len(tasks)} runs to do, {len(done)} rows in {options.output}", file=sys.stderr)
        n_failed = run_all(tasks, done, data=options.data, jobs=options.jobs, output=options.output)
        done = read_rows(options.output, Row)
    if not done:
        print(f"no rows in {options.output}: run without --table first", file=sys.stderr)
        return 1
    print(write_tables(pd.DataFrame(map(asdict, done)), options.output.with_suffix(".md"), jobs=options.jobs))
    return 1 if n_failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    known = [*SETS, BUNDLED]
    add("--data", type=Path, default=HERE.parent.parent / "shared/data", help="folder of the .h5ad and bulk files")
    add("--datasets", nargs="+", choices=known, metavar="NAME", help="default: all that are in --data")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME", help=", ".join(METHODS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="of the thinning (default: 0 1 2)")
    add("--jobs", type=int, default=1, metavar="N", help="processes, one thread each (default: 1)")
    add("--output", type=Path, default=HERE / "results/denoising.csv", help="CSV file to write or to complete")
    add("--table", action="store_true", help="run nothing; print the tables of the rows in --output")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or min(options.seeds) < 0:
        parser.error(f"--jobs is {options.jobs}, --seeds {options.seeds}; at least 1, and at least 0 each")
    found = [name for name in SETS if find(name, options.data)]
    options.datasets = options.datasets or found or [BUNDLED]
    absent = [name for name in options.datasets if name != BUNDLED and name not in found]
    if absent and not options.table:
        parser.error(f"no file of {', '.join(absent)} in {options.data}; leave out of --datasets, or --data DIR")
    return options


if __name__ == "__main__":
    sys.exit(main())
