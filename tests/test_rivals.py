"""The rivals of the recovery benchmark are the package's methods, and its bookkeeping is sound."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from scautoimpute import methods
from scautoimpute.metrics.recovery import hide_entries

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("recovery")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rivals(benchmark):
    return sys.modules["rivals"]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def visible(rng):
    rank_two = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 25))
    return hide_entries(6 + rank_two, share=0.3, random_state=0).visible


@pytest.mark.parametrize("name", ["als", "soft_impute"])
def test_factorisations_are_the_package_s_with_a_stream_of_their_own(rivals, visible, name):
    found = rivals.METHODS[name](visible, 3)
    expected = methods.impute_matrix(visible, method=name, rng=np.random.default_rng([3, 1]))
    np.testing.assert_array_equal(np.maximum(found, 0), expected)
    other_base = rivals.METHODS[f"{name}_eb"](visible, 3)
    assert np.isfinite(other_base).all()
    assert not np.array_equal(other_base, found)


@pytest.mark.parametrize("name", ["gene_mean", "gene_cell_bias"])
def test_floors_are_the_package_s(rivals, visible, name):
    expected = methods.impute_matrix(visible, method=name, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(rivals.METHODS[name](visible, 3), expected)


def test_magic_says_how_to_install_it(rivals, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "magic", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "scautoimpute\[compare\]"'):
        rivals.magic(sparse.csr_array(rng.random((20, 4))), 0)
    rivals.preload("magic")  # leaves it to the method to say so


def test_leaking_split_is_refused(benchmark, rng):
    full = sparse.csr_array(rng.random((8, 6)))
    hidden = hide_entries(full, share=0.3, random_state=0)
    benchmark.check_split(full, hidden)
    leaky = hidden.visible.tolil()
    leaky[hidden.rows[0], hidden.cols[0]] = hidden.truth[0]
    hidden = replace(hidden, visible=leaky.tocsr())
    with pytest.raises(RuntimeError, match="1 hidden entries are visible"):
        benchmark.check_split(full, hidden)


def test_no_method_is_handed_a_hidden_entry(benchmark, monkeypatch, rng):
    full = sparse.csr_array(rng.gamma(2, size=(30, 20)))
    handed = []

    def spy(visible, seed):
        handed.append((visible.copy(), seed))
        return np.full(visible.shape, -1.0)

    monkeypatch.setitem(benchmark.METHODS, "gene_mean", spy)
    monkeypatch.setattr(benchmark, "processed", lambda *_: full)
    row = benchmark.run_task(benchmark.Task("any", "cv", 0.5, 3, "gene_mean"), Path())
    hidden = hide_entries(full, share=0.5, random_state=3)
    assert handed[0][1] == 3
    assert not handed[0][0][hidden.rows, hidden.cols].any()
    assert row.n_hidden == 300
    assert row.nmse == pytest.approx(1)  # -1 counts as 0


def test_results_survive_a_cut_off_line(benchmark, tmp_path):
    rows = [benchmark.Row("zeisel", "cv", 0.1, s, "als", 9, 0.5, 0.4, 0.3, 1.25, "a, b") for s in range(3)]
    path = tmp_path / "new" / "recovery.csv"
    benchmark.write_rows(path, rows[:2], benchmark.Row)
    benchmark.append_rows(path, [rows[2]])
    assert benchmark.read_rows(path, benchmark.Row) == rows
    path.write_bytes(path.read_bytes()[:-20])
    assert benchmark.read_rows(path, benchmark.Row) == rows[:2]


def test_tables_mark_the_best_and_list_the_lost_cells(benchmark, tmp_path, capsys):
    errors = {"als": (2.0, 2.2), "autoimpute": (1.0, 1.2), "gene_mean": (3.0, 0.9)}
    rows = [
        benchmark.Row("zeisel", "cv", share, seed, method, 9, error + seed / 10, error, error, 1.0, "")
        for method, pair in errors.items()
        for share, error in zip((0.1, 0.2), pair, strict=True)
        for seed in range(2)
    ]
    benchmark.write_rows(tmp_path / "recovery.csv", rows, benchmark.Row)
    assert benchmark.main(["--table", "--output", str(tmp_path / "recovery.csv")]) == 0
    text = (tmp_path / "recovery.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "| zeisel | cv | 10% | 3.0500 (0.0707) | 2.0500 (0.0707) | **1.0500** (0.0707) |" in text
    assert "autoimpute is lowest in 3 of 6 cells" in text
    assert "| zeisel | cv | 20% | RMSE | gene_mean | -0.3000 | 0 of 2 |" in text
