"""The rivals of the recovery benchmark against independent computations, and the soundness of its bookkeeping."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

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


def partly_seen(matrix, share, rng):
    """Sparse copy of `matrix` that stores a random `share` of its entries."""
    seen = rng.random(matrix.shape) < share
    return sparse.csr_array((matrix[seen], np.nonzero(seen)), shape=matrix.shape)


def no_base(visible):
    return np.zeros(visible.shape)


def test_gene_mean_is_the_loop_over_nonzeros(rivals, rng):
    dense = rng.gamma(2, size=(12, 7)) * (rng.random((12, 7)) < 0.5)
    dense[:, 3] = 0
    expected = [dense[dense[:, j] > 0, j].mean() if dense[:, j].any() else dense[dense > 0].mean() for j in range(7)]
    np.testing.assert_allclose(rivals.gene_mean(sparse.csr_array(dense)), np.tile(expected, (12, 1)))


def test_gene_cell_bias_is_the_loop(rivals, rng):
    dense = rng.gamma(2, size=(9, 6)) * (rng.random((9, 6)) < 0.6)
    mean, gene, cell = dense[dense > 0].mean(), np.zeros(6), np.zeros(9)
    for _ in range(10):
        for j in range(6):
            left = [dense[i, j] - mean - cell[i] for i in range(9) if dense[i, j] > 0]
            gene[j] = sum(left) / (len(left) + 1)
        for i in range(9):
            left = [dense[i, j] - mean - gene[j] for j in range(6) if dense[i, j] > 0]
            cell[i] = sum(left) / (len(left) + 5)
    expected = mean + cell[:, None] + gene[None, :]
    np.testing.assert_allclose(rivals.gene_cell_bias(sparse.csr_array(dense)), expected)


def test_als_recovers_rank_one_exactly(rivals, rng):
    truth = np.outer(rng.uniform(1, 2, 30), rng.uniform(1, 3, 20))
    visible = partly_seen(truth, 0.6, rng)
    np.testing.assert_allclose(rivals.als(visible, 0, base=no_base, ranks=(0, 1), ridges=(0.0,)), truth, rtol=1e-2)
    start = rivals._leading_directions(visible, 1)
    cells, genes = rivals.als_factors(visible, 0.0, start, n_sweeps=200, tolerance=1e-12)
    np.testing.assert_allclose(cells @ genes.T, truth, rtol=1e-8)


def test_als_solution_satisfies_the_normal_equations(rivals, rng):
    residual = partly_seen(rng.normal(size=(14, 10)), 0.7, rng)
    start = rivals._leading_directions(residual, 3)
    cells, genes = rivals.als_factors(residual, 0.8, start, n_sweeps=2000, tolerance=1e-12)
    seen = np.zeros(residual.shape)
    seen[residual.nonzero()] = 1
    error = seen * (residual.toarray() - cells @ genes.T)
    # The gradient of Σ error² + 0.8 (‖U‖² + ‖V‖²) vanishes in both factors.
    np.testing.assert_allclose(error @ genes, 0.8 * cells, atol=1e-5)
    np.testing.assert_allclose(error.T @ cells, 0.8 * genes, atol=1e-5)


def test_als_survives_empty_rows_and_columns(rivals, rng):
    dense = rng.gamma(2, size=(20, 15))
    dense[4], dense[:, 6] = 0, 0
    assert np.isfinite(rivals.als(sparse.csr_array(dense), 0, ridges=(0.0, 1.0))).all()
    assert np.isfinite(rivals.soft_impute(sparse.csr_array(dense), 0)).all()


@pytest.mark.parametrize("shape", [(25, 12), (12, 25)])
def test_soft_path_on_a_full_matrix_is_the_closed_form(rivals, rng, shape):
    full = rng.normal(size=shape)
    left, scale, right = np.linalg.svd(full, full_matrices=False)
    thresholds = scale[0] * np.array([1.0, 0.6, 0.1])
    for threshold, found in zip(thresholds, rivals.soft_path(sparse.csr_array(full), thresholds), strict=True):
        np.testing.assert_allclose(found, left * np.maximum(scale - threshold, 0) @ right, atol=1e-8)


def test_soft_path_reaches_the_optimum_with_missing_entries(rivals, rng):
    residual = partly_seen(rng.normal(size=(20, 14)), 0.6, rng)
    *_, found = rivals.soft_path(residual, [2.0, 1.0], n_steps=5000, tolerance=1e-10)
    seen = np.zeros(residual.shape)
    seen[residual.nonzero()] = 1
    error = seen * (residual.toarray() - found)
    # Subgradient of the nuclear norm: error = threshold (U Vᵀ + W), ‖W‖ ≤ 1, so ⟨error, Z⟩ = threshold ‖Z‖_*.
    assert np.linalg.norm(error, ord=2) == pytest.approx(1.0, abs=1e-4)
    assert np.sum(error * found) == pytest.approx(np.linalg.norm(found, ord="nuc"), rel=1e-4)


def test_largest_threshold_and_rank_zero_are_the_base(rivals, rng):
    visible = partly_seen(rng.gamma(2, size=(20, 15)), 0.8, rng)
    base = rivals.gene_cell_bias(visible)
    np.testing.assert_allclose(rivals.soft_impute(visible, 0, n_thresholds=1), base, atol=1e-6)
    np.testing.assert_allclose(rivals.als(visible, 0, ranks=(0,)), base)


@pytest.mark.parametrize("method", ["als", "soft_impute"])
def test_factorisations_use_structure_and_the_base_they_are_given(rivals, rng, method):
    truth = 5 + rng.normal(size=(80, 3)) @ rng.normal(size=(3, 60)) + 0.1 * rng.normal(size=(80, 60))
    hidden = hide_entries(truth, share=0.2, random_state=0)
    bases = []

    def base(visible):
        bases.append(visible.nnz)
        return np.full(visible.shape, 5.0)

    predicted = rivals.METHODS[method](hidden.visible, 0, base=base)[hidden.rows, hidden.cols]
    assert np.std(predicted - hidden.truth) < 0.2 * np.std(hidden.truth)
    assert bases == [round(0.95 * hidden.visible.nnz), hidden.visible.nnz]  # validation never shows its held-out 5 %


def test_magic_says_how_to_install_it(rivals, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "magic", None)  # as if it were not installed
    with pytest.raises(ImportError, match="pip install magic-impute"):
        rivals.magic(sparse.csr_array(rng.random((5, 4))), 0)


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
    benchmark.write_rows(path, rows[:2])
    benchmark.append_row(path, rows[2])
    assert benchmark.read_rows(path) == rows
    path.write_bytes(path.read_bytes()[:-20])
    assert benchmark.read_rows(path) == rows[:2]


def test_tables_mark_the_best_and_list_the_lost_cells(benchmark, tmp_path, capsys):
    errors = {"als": (2.0, 2.2), "autoimpute": (1.0, 1.2), "gene_mean": (3.0, 0.9)}
    rows = [
        benchmark.Row("zeisel", "cv", share, seed, method, 9, error + seed / 10, error, error, 1.0, "")
        for method, pair in errors.items()
        for share, error in zip((0.1, 0.2), pair, strict=True)
        for seed in range(2)
    ]
    benchmark.write_rows(tmp_path / "recovery.csv", rows)
    assert benchmark.main(["--table", "--output", str(tmp_path / "recovery.csv")]) == 0
    text = (tmp_path / "recovery.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "| zeisel | cv | 10% | 3.0500 (0.0707) | 2.0500 (0.0707) | **1.0500** (0.0707) |" in text
    assert "autoimpute is lowest in 3 of 6 cells" in text
    assert "| zeisel | cv | 20% | RMSE | gene_mean | -0.3000 | 0 of 2 |" in text
