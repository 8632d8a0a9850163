"""The scale benchmark: its floor against a count by hand, its tables, and a run through the command line."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import scautoimpute as sai

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("scale")
    finally:
        sys.path.remove(str(BENCHMARKS))


def floor_module():
    return importlib.import_module("scale_floor")


class CountedProducts(torch.utils._python_dispatch.TorchDispatchMode):
    """Multiply-adds of all dense products that torch carries out."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in {torch.ops.aten.mm, torch.ops.aten.addmm}:
            a, b = args[-2:]
            self.total += a.shape[0] * a.shape[1] * b.shape[1]
        return function(*args, **(kwargs or {}))


def test_the_multiply_adds_of_a_masked_step_are_those_that_torch_carries_out(benchmark):
    from scautoimpute.model.masked_training import VARIANTS

    n_cells, n_genes, hidden = 12, 20, 7
    network = VARIANTS[0].build(n_genes, (hidden,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    with CountedProducts() as counted:
        network(torch.randn(n_cells, 2 * n_genes), torch.randn(n_cells, 2)).sum().backward()
    side = counted.total - 7 * n_cells * n_genes * hidden
    assert 0 <= side <= 4 * n_cells * 2 * (hidden + n_genes)  # two inputs of size and number, to the output
    work = floor_module().Work("masked", n_cells, n_genes, hidden, 0, 3, 2, 0, 0)
    assert work.multiply_adds() == (3 * 7 + 2 * 3) * n_cells * n_genes * hidden


def test_the_multiply_adds_of_a_counts_step_are_those_that_torch_carries_out(benchmark):
    from scautoimpute.model.counts_network import Rows, multinomial_loss

    n_cells, n_genes, hidden = 12, 20, 7
    rng = np.random.default_rng(0)
    y = Rows.of(sparse.csr_array(rng.poisson(1.0, (n_cells, n_genes)).astype(np.float32)), torch.device("cpu"))
    h, weight = (torch.randn(n, hidden, requires_grad=True) for n in (n_cells, n_genes))
    with CountedProducts() as counted:
        multinomial_loss(h, weight, torch.randn(n_cells, n_genes), y, dtype=torch.float32).backward()
    assert counted.total == 3 * n_cells * n_genes * hidden
    work = floor_module().Work("counts", n_cells, n_genes, hidden, 50, 10, 1, 0, 0)
    assert work.multiply_adds() == 31 * n_cells * n_genes * hidden + 21 * 50 * hidden


def test_seconds_of_the_floor(benchmark):
    rates = floor_module().Rates(float32=1e9, bfloat16=4e9, read=1e8, write=5e7, threads=2)
    work = floor_module().Work("counts", 1000, 100, 10, 0, 1, 1, 2 * 10**8, 10**8)
    assert work.product_seconds(rates) == pytest.approx(4 * 1000 * 100 * 10 / 4e9)
    assert work.disk_seconds(rates) == pytest.approx(2 + 2)
    masked = replace(work, objective="masked")
    assert masked.product_seconds(rates) == pytest.approx(10 * 1000 * 100 * 10 / 1e9)
    many = replace(masked, cells=6000)
    assert many.product_seconds(rates) == pytest.approx((7 / 4e9 + 3 / 1e9) * 6000 * 100 * 10)


def row(benchmark, family, cells, **changed):
    usual = {"options": "", "genes": 1000, "wall_s": 10.0, "cpu_s": 20.0, "peak_gb": 1.0, "imports_s": float("nan")}
    usual |= {"epochs": 5, "held_out": 1.01, "held_out_floor": 2.0, "input_gb": 0.1, "output_gb": 0.2, "product_s": 4.0}
    usual |= {"disk_s": 2.0, "threads": 2, "load": 0.1, "version": "1", "note": ""}
    return benchmark.Row(family=family, cells=cells, **(usual | changed))


def test_tables_tell_what_was_asked_and_what_was_found(benchmark, tmp_path):
    rows = [
        row(benchmark, "counts_all", 68_579, wall_s=800.0),
        row(benchmark, "counts_all", 68_579, wall_s=820.0),
        row(benchmark, "counts_all", 68_579, wall_s=5000.0),
        row(benchmark, "magic_all", 68_579, wall_s=8200.0, peak_gb=9.0, product_s=float("nan"), disk_s=float("nan")),
        row(benchmark, "scvi_all", 68_579, note="error: it needs too much", product_s=float("nan")),
        row(benchmark, "counts_1000", 68_579, wall_s=68.579),
        row(benchmark, "counts_1000", 1_300_000, wall_s=2600.0, peak_gb=1.1),
        row(benchmark, "masked_5_minutes", 68_579, held_out=1.1, epochs=3),
        row(benchmark, "masked_2000", 68_579, held_out=1.02, peak_gb=2.0),
        row(benchmark, "masked_converged", 68_579, held_out=1.0, epochs=50),
    ]
    benchmark.write_rows(tmp_path / "scale.csv", rows, benchmark.Row)
    read = benchmark.read_rows(tmp_path / "scale.csv", benchmark.Row)
    text = benchmark.write_tables(read, tmp_path / "scale.md")
    assert text == (tmp_path / "scale.md").read_text()
    lines = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in text.splitlines() if "|" in line}
    assert "| 820.0 | 20.0 | 1.00 | 900 s, 3.0 GB: met | 5 |" in lines["counts_all", "68,579 × 1,000"]
    assert "| 4.0 | 2.0 | 0% | 0.1 | 3 |" in lines["counts_all", "68,579 × 1,000"]
    assert "300 s, 1.5 GB: **not met**" in lines["masked_2000", "68,579 × 1,000"]
    assert "2,400 s, 3.0 GB: **not met**" in lines["counts_1000", "1,300,000 × 1,000"]
    assert lines["counts_1000", "2.00 (asked: 1.3)"].endswith("| 1.10 (asked: 1.2) |")
    assert lines["magic", "68,579"].endswith("| 10.0 × | 9.0 × |  |")
    assert "error: it needs too much" in lines["scvi", "68,579"]
    assert lines["masked_5_minutes", "68,579"].endswith("| 10.00% (asked: 1 %) | 3 of 50 |")
    assert lines["masked_2000", "68,579"].endswith("| 2.00% (asked: 1 %) | 5 of 50 |")


def test_every_case_is_one_that_the_command_understands(benchmark, tmp_path):
    from typer.main import get_command

    from scautoimpute.cli import app

    sai.datasets.simulate(n_cells=5, n_genes=30).write_h5ad(tmp_path / "in.h5ad")
    known = {option for p in get_command(app).commands["impute"].params for option in p.opts}
    names = [case.name for case in benchmark.CASES]
    assert len(set(names)) == len(names)
    for case in benchmark.CASES:
        words = benchmark.command_of(case, tmp_path / "in.h5ad", tmp_path / "out.h5ad", ["--seed", "1"])
        assert {word for word in words if word.startswith("-")} <= known, case.name


@pytest.mark.slow
def test_a_run_is_measured_and_put_into_the_table(tmp_path):
    adata = sai.datasets.simulate(n_cells=300, n_genes=1500, random_state=0)
    adata.write_h5ad(tmp_path / "real.h5ad")
    output = tmp_path / "scale.csv"
    command = [sys.executable, BENCHMARKS / "scale.py", "--source", tmp_path / "real.h5ad", "--cells", "1000"]
    command += ["--folder", tmp_path / "folder", "--output", output, "--families", "counts_1000"]
    done = subprocess.run([*command, "--extra", "--max-epochs 2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(output).iloc[0]
    assert (found["cells"], found["genes"], found["epochs"]) == (1000, 1000, 2)
    assert found["cpu_s"] > 1
    assert 0.2 < found["peak_gb"] < 5
    assert 0 < found["held_out"] < found["held_out_floor"] * 2
    assert found["imports_s"] > 0.1
    assert pd.isna(found["note"])
    assert [path.suffix for path in (tmp_path / "folder").iterdir()] == [".h5ad"]  # the input alone
    again = subprocess.run([*command], capture_output=True, text=True, check=True)
    assert again.stderr == ""
    assert len(pd.read_csv(output)) == 1
