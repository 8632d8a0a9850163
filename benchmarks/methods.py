"""Every method of the package on the same real data, and the ports beside what the original programs gave.

    python -m pip install -e ".[compare]"             # adds MAGIC; ".[scvi]" adds scVI
    python benchmarks/methods.py --data DIR           # DIR holds paper/blakeley.h5ad, paper/zeisel.h5ad, extra/…
    python benchmarks/methods.py --golden DIR         # and stored outputs of the original programs
    python benchmarks/methods.py --data DIR --cli     # each through the command line, in place of the recovery test
    python benchmarks/methods.py --merge FILE.csv     # rows of another --output take the place of those there are
    python benchmarks/methods.py --table              # only print the tables of the rows there are

Recovery: counts go through the paper's recipe (1000 genes by coefficient of variation, log2), 10 % of the non-zeros are
hidden, each method imputes what is visible in a process of its own with one thread, and is scored at what was hidden.
With --cli the counts of a file go through `scautoimpute impute --method …`, start to end, and the file that it wrote is
read again. Rows already in `benchmarks/results/methods.csv` are not run again.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "methods.csv"
SETS = ("paper/blakeley", "paper/zeisel", "extra/pbmc_zheng_combined_9k")
PORTS = ("scimpute", "drimpute", "alra", "magic")
COMMAND_LINE = ["--n-top-genes", "1000"]
SHORTENED = {"autoimpute-paper": ("paper/blakeley", ["--max-epochs", "100"], "100 of its 7000 epochs")}
COLUMNS = ["kind", "data", "method", "cells", "genes", "rmse", "mae", "nmse", "r", "r_imputed"]
COLUMNS += ["seconds", "cpu_seconds", "original_seconds", "peak_gb", "note"]


# ---------------------------------------------------------------------------------------------- one run


def recovery(data: str, method: str, folder: Path) -> dict[str, Any]:
    """Hide, impute, score: the paper's test."""
    from recovery import check_split, processed
    from scautoimpute import methods
    from scautoimpute.metrics import hide_entries, recovery_scores

    full = processed(data, "cv", folder)
    hidden = hide_entries(full, share=0.1, random_state=0)
    check_split(full, hidden)
    load(method)
    forget_peak()
    before = current_gb()
    started, cpu_before = time.perf_counter(), time.process_time()
    imputed = methods.impute_matrix(hidden.visible, method=method, rng=np.random.default_rng([0, 2]))
    times = elapsed(started, time.process_time() - cpu_before)
    scores = recovery_scores(hidden.truth, imputed[hidden.rows, hidden.cols])
    size = {"cells": full.shape[0], "genes": full.shape[1]}
    return {**size, **scores, **times, "peak_gb": round(peak_gb() - before, 2)}


def command_line(data: str, method: str, folder: Path) -> dict[str, Any]:
    """Impute a file by the command line; read what it wrote."""
    options, note = SHORTENED[method][1:] if method in SHORTENED else ([], "")
    source = folder / f"{data}.h5ad"
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "imputed.h5ad"
        command = [sys.executable, "-m", "scautoimpute", "impute", str(source), "--output", str(output)]
        started = time.perf_counter()
        command += ["--method", method, *COMMAND_LINE, *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(last_line(done))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        times = elapsed(started, used.ru_utime + used.ru_stime)
        size = written(source, output)
    return {**size, **times, "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2), "note": note}


def written(source: Path, output: Path) -> dict[str, Any]:
    """Size of what was imputed, if the file has it for every cell and gene of the source and nothing else changed."""
    import anndata
    from scipy import sparse

    given, made = anndata.read_h5ad(source), anndata.read_h5ad(output)
    layer = made.layers["imputed"]
    values = layer.data if sparse.issparse(layer) else layer
    is_kept = made.obs_names.equals(given.obs_names) and made.var_names.equals(given.var_names)
    if not is_kept or (made.X != given.X).sum() or not np.isfinite(values).all() or values.min() < 0:
        msg = f"{output.name} does not hold a finite, non-negative layer for the cells and genes of {source.name}"
        raise RuntimeError(msg)
    return {"cells": made.n_obs, "genes": len(made.uns["imputed"]["genes"])}


def elapsed(started: float, cpu_seconds: float) -> dict[str, float]:
    return {"seconds": round(time.perf_counter() - started, 3), "cpu_seconds": round(cpu_seconds, 3)}


def original(data: str, method: str, golden: Path) -> dict[str, Any]:
    """Impute what an original program was given; compare with what it gave."""
    from scautoimpute import methods

    x, stored, seconds_then, options = stored_run(data, method, golden)
    record = methods.METHODS[method]
    load(method)
    forget_peak()
    before = current_gb()
    started, cpu_before = time.perf_counter(), time.process_time()
    result = record.impute(x, rng=np.random.default_rng(1), **options)
    times = elapsed(started, time.process_time() - cpu_before)
    ours = getattr(result, "values", result)
    given = x.toarray()
    changed = ~np.isclose(stored, given, atol=1e-3)
    comparison = {"r": correlation(ours, stored), "r_imputed": correlation(ours[changed], stored[changed])}
    size = {"cells": x.shape[0], "genes": x.shape[1]}
    return {**size, **comparison, **times, "original_seconds": seconds_then, "peak_gb": round(peak_gb() - before, 2)}


def load(method: str) -> None:
    """Run the method on a few numbers, so that no time includes an import or a compilation."""
    from scautoimpute import methods

    rng = np.random.default_rng(0)
    x = rng.random((40, 50)) * (rng.random((40, 50)) < 0.7) * 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        methods.impute_matrix(x, method=method, rng=rng)


def correlation(ours: Any, stored: Any) -> float:
    return round(float(np.corrcoef(np.ravel(ours), np.ravel(stored))[0, 1]), 5)


def current_gb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def forget_peak() -> None:
    """Let the peak begin anew at what the process holds now: reading the data held more (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9  # type: ignore[index]


# ---------------------------------------------------------------------------------------------- stored outputs


def stored_run(data: str, method: str, golden: Path) -> tuple[Any, Any, float, dict[str, Any]]:
    """What the original was given on the scale that it takes, what it gave, how long it took, and its options."""
    from scipy import sparse

    counts = np.load(golden / f"input_{data}.npz")["counts"].astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    if method == "scimpute":
        file = np.load(golden / f"scimpute_{data}_K3.npz")
        x, stored = counts, file["imputed_counts_hundredths"] / 100
        return sparse.csr_array(x), stored, wall(file), {"n_clusters": 3}
    if method == "drimpute":
        file = np.load(golden / f"drimpute_{data}.npz")
        kept = counts[:, file["kept_index"]]
        x = np.log1p(kept / kept.mean(axis=1, keepdims=True))
        return sparse.csr_array(x), file["imputed"], wall(file), {}
    if method == "alra":
        rank = {"mix150": 10, "blake30": 4}[data]
        file = np.load(golden / ("alra_mix150.npz" if data == "mix150" else "alra_blake30_k4.npz"))
        return sparse.csr_array(np.log1p(counts / total * 1e4)), file["imputed"], wall(file), {"rank": rank}
    file = np.load(golden / "magic_mix150.npz")
    return sparse.csr_array(np.sqrt(counts / total * 1e4)), file["imputed"], wall(file), {}


def wall(file: Any) -> float:
    names = [name for name in file.files if name in {"wall_s", "wall_warm_s"}]
    return round(float(file[names[0]]), 2) if names else float("nan")


# ---------------------------------------------------------------------------------------------- all runs


def tasks(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str, Path]]:
    from scautoimpute.methods import METHODS

    if arguments.golden:
        for method in PORTS:
            for data in ("mix150", "blake30") if method != "magic" else ("mix150",):
                yield "original", data, method, arguments.golden
    if arguments.data and arguments.cli:
        for method in METHODS:
            yield "cli", SHORTENED[method][0] if method in SHORTENED else arguments.cli, method, arguments.data
    elif arguments.data:
        for data in arguments.sets:
            for method in METHODS:
                yield "recovery", data, method, arguments.data


def run(kind: str, data: str, method: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one task in a process of its own; what goes wrong there becomes the row's note."""
    command = [arguments.python, __file__, "--one", kind, data, method, str(folder)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    row: dict[str, Any] = {"kind": kind, "data": Path(data).name, "method": method}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | threads, timeout=arguments.limit
        )
    except subprocess.TimeoutExpired:
        return row | {"note": f"stopped after {arguments.limit:.0f} s"}
    if done.returncode == 0:
        return row | json.loads(done.stdout.splitlines()[-1])
    return row | {"note": last_line(done)}


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    return (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:300]


def finished(path: Path) -> "pd.DataFrame":
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)


def merged(paths: list[Path]) -> "pd.DataFrame":
    """Rows of all files; of the same run those of the last one."""
    together = pd.concat([pd.read_csv(path, dtype=object) for path in paths], ignore_index=True)
    return together.drop_duplicates(["kind", "data", "method"], keep="last")[COLUMNS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--golden", type=Path, help="folder of stored outputs of the original programs")
    parser.add_argument("--sets", nargs="+", default=SETS, help="which data sets, as paths under --data without .h5ad")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--skip", nargs="+", default=[], help="not these")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the methods")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a run is stopped")
    parser.add_argument("--cli", nargs="?", const="paper/zeisel", help="through the command line, on this data set")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--merge", type=Path, nargs="+", help="files of rows that are to be in the output too")
    parser.add_argument("--table", action="store_true", help="only print the tables of the rows there are")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, data, method, folder = arguments.one
        kinds = {"recovery": recovery, "original": original, "cli": command_line}
        print(json.dumps(kinds[kind](data, method, Path(folder))))
        return
    if arguments.merge:
        merged([arguments.output, *arguments.merge]).to_csv(arguments.output, index=False)
    elif not arguments.table:
        run_all(arguments)
    from methods_tables import write_tables

    write_tables(finished(arguments.output), arguments.output.with_suffix(".md"))


def run_all(arguments: argparse.Namespace) -> None:
    for kind, data, method, folder in tasks(arguments):
        rows = finished(arguments.output)
        is_done = ((rows["kind"] == kind) & (rows["data"] == Path(data).name) & (rows["method"] == method)).any()
        if is_done or method in arguments.skip or (arguments.methods and method not in arguments.methods):
            continue
        row = run(kind, data, method, folder.resolve(), arguments)
        print({name: value for name, value in row.items() if name != "kind"}, file=sys.stderr)
        line = pd.DataFrame([row], columns=COLUMNS)
        line.to_csv(arguments.output, mode="a", header=not arguments.output.exists(), index=False)


if __name__ == "__main__":
    main()
