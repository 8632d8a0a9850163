"""The benchmark of every method: its runs through the command line, and what it checks of the files they write."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scautoimpute as sai

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("methods")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def counts():
    return sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)


@pytest.mark.slow
def test_rows_of_the_command_line_are_run_and_put_into_the_table(counts, tmp_path):
    counts[:12].write_h5ad(tmp_path / "cells.h5ad")
    output = tmp_path / "rows.csv"
    command = [sys.executable, BENCHMARKS / "methods.py", "--data", tmp_path, "--cli", "cells", "--output", output]
    done = subprocess.run([*command, "--methods", "gene_mean", "drimpute"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(output).set_index("method")
    assert rows.loc["gene_mean", ["kind", "data", "cells"]].tolist() == ["cli", "cells", 12]
    assert 0 < rows.loc["gene_mean", "cpu_seconds"] < 60
    assert 0.05 < rows.loc["gene_mean", "peak_gb"] < 2
    assert "n_clusters=range(10, 16)" in rows.loc["drimpute", "note"]  # what the command line said
    table = output.with_suffix(".md").read_text(encoding="utf-8")
    assert "| gene_mean | cells (12 × " in table
    assert "| drimpute | cells | – | – | – | " in table


@pytest.mark.parametrize("change", ["value", "counts", "cells"])
def test_a_file_that_does_not_hold_what_it_should_is_told(benchmark, counts, tmp_path, change):
    source, output = tmp_path / "cells.h5ad", tmp_path / "imputed.h5ad"
    counts.write_h5ad(source)
    made = sai.methods.impute(counts, method="gene_mean", copy=True)
    made.write_h5ad(output)
    assert benchmark.written(source, output) == {"cells": 60, "genes": len(made.uns["imputed"]["genes"])}
    if change == "value":
        made.layers["imputed"] = np.full(made.shape, np.nan)
    elif change == "counts":
        made.X = made.X * 2
    else:
        made = made[::-1].copy()
    made.write_h5ad(output)
    with pytest.raises(RuntimeError, match=r"imputed\.h5ad does not hold a finite, non-negative layer"):
        benchmark.written(source, output)


def test_rows_of_another_file_take_the_place_of_the_same(benchmark, tmp_path):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    head = ",".join(benchmark.COLUMNS)
    blank = "," * (len(benchmark.COLUMNS) - 4)
    old.write_text(f"{head}\nrecovery,zeisel,scvi{blank},not run\nrecovery,zeisel,knn,1799{blank}\n")
    new.write_text(f"{head}\nrecovery,zeisel,scvi,1799{blank}\n")
    merged = benchmark.merged([old, new]).set_index("method")
    assert merged["cells"].to_dict() == {"knn": "1799", "scvi": "1799"}
    assert merged["note"].isna().all()
