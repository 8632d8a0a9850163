"""What harm every method does: false signals and over-smoothing on real data, each measure beside its null.

    python benchmarks/harm.py --data DIR              # DIR holds extra/pbmc3k.h5ad, paper/zeisel.h5ad, …
    python benchmarks/harm.py --data DIR --methods knn magic
    python benchmarks/harm.py --table                 # only print the tables of the rows there are

Of each data set at most 500 cells drawn at random and the 500 genes with the most molecules among them; a method
runs four times: on counts of which 10 % of the molecules are held out, permuted, with a fifth of the genes permuted,
and with a spiked-in type. One row per data set, method and seed is appended to `benchmarks/results/harm.csv` as soon as
it is known; rows already there are not run again.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from harm_tables import write_tables
from scautoimpute import methods, trust
from scautoimpute._umi import umi_like
from scautoimpute.errors import MissingDependencyError

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "harm.csv"
SETS = ("paper/blakeley", "extra/mixology_sc_dropseq", "extra/pbmc3k", "paper/zeisel")
SLOW = ("autoimpute-paper",)  # minutes to hours a run
UNLABELLED = "unassigned"
COLUMNS = ["data", "method", "seed", "cells", "genes", "verdict"]
COLUMNS += [
    "gain_gene_mean",
    "gain_gene_mean_se",
    "gain_own_counts",
    "gain_own_counts_se",
    "gain_none",
    "gain_added",
    "gain_added_se",
]
COLUMNS += ["permuted", "permuted_null", "permuted_limit", "halves_mean", "halves_worst", "halves_splits"]
COLUMNS += ["markers", "markers_null", "silent_pairs", "silent", "r_before", "r_after", "r_held_out", "r_limit"]
COLUMNS += ["local_before", "local_after", "local_held_out", "rare_pull", "rare_limit", "beyond_null"]
COLUMNS += ["seconds", "note"]


def measured(data: str, method: str, seed: int, folder: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Take every measure of one method on one data set."""
    adata = anndata.read_h5ad(folder / f"{data}.h5ad")
    labels = adata.obs["cell_type"].astype(str)
    known = (labels != UNLABELLED).to_numpy()
    impute = trust.imputer(method)
    started = time.process_time()  # of one thread, which other programs on the machine do not change
    harm = trust.measure_harm(
        adata.X[known],
        impute=impute,
        labels=labels[known],
        are_molecules=bool(umi_like(adata.X)),
        max_cells=size[0],
        max_genes=size[1],
        random_state=seed,
    )
    return row_of(harm) | {"seconds": round(time.process_time() - started, 1)}


def row_of(harm: trust.Harm) -> dict[str, Any]:
    """Flatten what was measured; gains are relative, in shares of the simpler prediction's deviance."""
    row: dict[str, Any] = {"cells": harm.n_cells, "genes": harm.n_genes}
    if harm.gain:  # of reads no molecules can be held out, so that there is no verdict
        row["verdict"] = trust.judge(harm.gain, found=harm.found).word
    for name, gain in harm.gain.items():
        row[f"gain_{name}"] = gain.relative
        row[f"gain_{name}_se"] = gain.standard_error * abs(gain.relative / gain.mean) if gain.mean else 0.0
    if harm.permuted:
        row |= {"permuted": harm.permuted.share_after, "permuted_null": harm.permuted.share_before}
        row["permuted_limit"] = harm.permuted.limit
    if harm.halves:
        row |= {"halves_mean": harm.halves.after.mean(), "halves_worst": harm.halves.after.max()}
        row["halves_splits"] = harm.halves.share_of_splits
    if harm.markers:
        row |= {"markers": harm.markers.after, "markers_null": harm.markers.before}
    if harm.silent:
        row |= {"silent_pairs": harm.silent.n_pairs, "silent": harm.silent.share_beyond}
    if harm.correlations:
        row |= dict(zip(("r_before", "r_after", "r_held_out"), harm.correlations.sizes, strict=True))
        row["r_limit"] = harm.correlations.limit
    if harm.neighbours:
        row |= {f"local_{n}": np.median(getattr(harm.neighbours, n)) for n in ("before", "after", "held_out")}
    if harm.rare:
        row |= {"rare_pull": harm.rare.pull, "rare_limit": harm.rare.limit}
    row["beyond_null"] = " ".join(name for name, beyond in harm.found.items() if beyond)
    row["note"] = "; ".join(f"{name}: {why}" for name, why in harm.left_out.items())
    return row


def run_all(arguments: argparse.Namespace) -> None:
    for data in arguments.sets:
        for method in arguments.methods:
            for seed in range(arguments.seeds):
                run(data, method, seed, arguments)


def run(data: str, method: str, seed: int, arguments: argparse.Namespace) -> None:
    """Run one task, unless its row is there; what goes wrong becomes the row's note."""
    row: dict[str, Any] = {"data": Path(data).name, "method": method, "seed": seed}
    rows = finished(arguments.output)
    if ((rows["data"] == row["data"]) & (rows["method"] == method) & (rows["seed"] == seed)).any():
        return
    try:
        row |= measured(data, method, seed, arguments.data, (arguments.cells, arguments.genes))
    except (ValueError, MemoryError, MissingDependencyError) as error:
        row["note"] = f"{type(error).__name__}: {error}"
    print({name: row.get(name) for name in ("data", "method", "verdict", "seconds", "note")}, file=sys.stderr)
    line = pd.DataFrame([row], columns=COLUMNS).round(5)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    line.to_csv(arguments.output, mode="a", header=not arguments.output.exists(), index=False)


def finished(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)


def main() -> None:
    fast = [name for name in methods.METHODS if name not in SLOW]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data", help="folder of data sets")
    parser.add_argument("--sets", nargs="+", default=SETS, help="which data sets, as paths under --data without .h5ad")
    parser.add_argument("--methods", nargs="+", choices=methods.METHODS, default=fast, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N - 1 (default: 1)")
    parser.add_argument("--cells", type=int, default=500, help="cells to sample (default: 500)")
    parser.add_argument("--genes", type=int, default=500, help="genes to take (default: 500)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the tables of the rows there are")
    arguments = parser.parse_args()
    if not arguments.table:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            run_all(arguments)
    print(write_tables(finished(arguments.output), arguments.output.with_suffix(".md")))


if __name__ == "__main__":
    main()
