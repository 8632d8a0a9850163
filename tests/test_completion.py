"""Floors and matrix factorisations against independent computations."""

import numpy as np
import pytest
from scipy import sparse

from scautoimpute.methods import als, floors, soft_impute
from scautoimpute.methods._eigen import symmetric_eigen
from scautoimpute.metrics.recovery import hide_entries

FACTORISATIONS = {"als": als, "soft_impute": soft_impute}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def stream():
    return np.random.default_rng(0)


def partly_seen(matrix, share, rng):
    """Sparse copy of `matrix` that stores a random `share` of its entries."""
    seen = rng.random(matrix.shape) < share
    return sparse.csr_array((matrix[seen], np.nonzero(seen)), shape=matrix.shape)


def no_base(visible):
    return np.zeros(visible.shape)


# ---------------------------------------------------------------------------------------------- floors


def test_gene_mean_is_the_loop_over_nonzeros(rng):
    dense = rng.gamma(2, size=(12, 7)) * (rng.random((12, 7)) < 0.5)
    dense[:, 3] = 0
    expected = [dense[dense[:, j] > 0, j].mean() if dense[:, j].any() else dense[dense > 0].mean() for j in range(7)]
    np.testing.assert_allclose(floors.gene_mean(sparse.csr_array(dense)), np.tile(expected, (12, 1)))


def test_gene_cell_bias_is_the_loop(rng):
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
    np.testing.assert_allclose(floors.gene_cell_bias(sparse.csr_array(dense)), expected)


# ---------------------------------------------------------------------------------------------- als


def test_als_recovers_rank_one_exactly(rng):
    truth = np.outer(rng.uniform(1, 2, 30), rng.uniform(1, 3, 20))
    visible = partly_seen(truth, 0.6, rng)
    found = als.complete(visible, rng=stream(), base=no_base, ranks=(0, 1), ridges=(0.0,))
    np.testing.assert_allclose(found.values, truth, rtol=1e-2)
    assert found.learned == {"rank": 1, "ridge": 0.0}
    start = als.leading_directions(visible, 1)
    cells, genes = als.als_factors(visible, 0.0, start, n_sweeps=200, tolerance=1e-12)
    np.testing.assert_allclose(cells @ genes.T, truth, rtol=1e-8)


def test_als_solution_satisfies_the_normal_equations(rng):
    residual = partly_seen(rng.normal(size=(14, 10)), 0.7, rng)
    start = als.leading_directions(residual, 3)
    cells, genes = als.als_factors(residual, 0.8, start, n_sweeps=2000, tolerance=1e-12)
    seen = np.zeros(residual.shape)
    seen[residual.nonzero()] = 1
    error = seen * (residual.toarray() - cells @ genes.T)
    # The gradient of Σ error² + 0.8 (‖U‖² + ‖V‖²) vanishes in both factors.
    np.testing.assert_allclose(error @ genes, 0.8 * cells, atol=1e-5)
    np.testing.assert_allclose(error.T @ cells, 0.8 * genes, atol=1e-5)


def test_als_steps_are_the_closed_form_ridge_row_by_row(rng):
    residual, start = partly_seen(rng.normal(size=(8, 12)), 0.7, rng), rng.normal(size=(12, 2))
    cells, genes = als.als_factors(residual, 0.5, start, n_sweeps=1)
    dense, penalty = residual.toarray(), 0.5 * np.eye(2)
    for i, cell in enumerate(cells):
        v = start[dense[i] != 0]
        np.testing.assert_allclose(cell, np.linalg.inv(v.T @ v + penalty) @ v.T @ dense[i, dense[i] != 0])
    for j, gene in enumerate(genes):
        u = cells[dense[:, j] != 0]
        np.testing.assert_allclose(gene, np.linalg.inv(u.T @ u + penalty) @ u.T @ dense[dense[:, j] != 0, j])


# ---------------------------------------------------------------------------------------------- soft-impute


@pytest.mark.parametrize("shape", [(25, 12), (12, 25)])
def test_soft_path_on_a_full_matrix_is_the_closed_form(rng, shape):
    full = rng.normal(size=shape)
    left, scale, right = np.linalg.svd(full, full_matrices=False)
    thresholds = scale[0] * np.array([1.0, 0.6, 0.1])
    for threshold, found in zip(thresholds, soft_impute.soft_path(sparse.csr_array(full), thresholds), strict=True):
        np.testing.assert_allclose(found, left * np.maximum(scale - threshold, 0) @ right, atol=1e-8)


def test_soft_path_reaches_the_optimum_with_missing_entries(rng):
    residual = partly_seen(rng.normal(size=(20, 14)), 0.6, rng)
    *_, found = soft_impute.soft_path(residual, [2.0, 1.0], n_steps=5000, tolerance=1e-10)
    seen = np.zeros(residual.shape)
    seen[residual.nonzero()] = 1
    error = seen * (residual.toarray() - found)
    # Subgradient of the nuclear norm: error = threshold (U Vᵀ + W), ‖W‖ ≤ 1, so ⟨error, Z⟩ = threshold ‖Z‖_*.
    assert np.linalg.norm(error, ord=2) == pytest.approx(1.0, abs=1e-4)
    assert np.sum(error * found) == pytest.approx(np.linalg.norm(found, ord="nuc"), rel=1e-4)


# ---------------------------------------------------------------------------------------------- both


def test_largest_threshold_and_rank_zero_are_the_base(rng):
    visible = partly_seen(rng.gamma(2, size=(20, 15)), 0.8, rng)
    base = floors.gene_cell_bias(visible)
    np.testing.assert_allclose(soft_impute.impute(visible, rng=stream(), n_thresholds=1).values, base, atol=1e-6)
    np.testing.assert_allclose(als.impute(visible, rng=stream(), ranks=(0,)).values, base)


def test_factorisations_survive_empty_rows_and_columns(rng):
    dense = rng.gamma(2, size=(20, 15))
    dense[4], dense[:, 6] = 0, 0
    assert np.isfinite(als.impute(sparse.csr_array(dense), rng=stream(), ridges=(0.0, 1.0)).values).all()
    assert np.isfinite(soft_impute.impute(sparse.csr_array(dense), rng=stream()).values).all()


def test_als_without_a_ridge_stays_within_bounds_where_entries_are_fewer_than_the_rank(rng):
    visible = partly_seen(rng.normal(size=(40, 30)), 0.1, rng)
    found = als.impute(visible, rng=stream(), ranks=(8,), ridges=(0.0,))
    assert np.abs(found.values).max() < 1000


@pytest.mark.parametrize("name", FACTORISATIONS)
def test_factorisations_use_structure_and_the_base_they_are_given(rng, name):
    truth = 5 + rng.normal(size=(80, 3)) @ rng.normal(size=(3, 60)) + 0.1 * rng.normal(size=(80, 60))
    hidden = hide_entries(truth, share=0.2, random_state=0)
    bases = []

    def base(visible):
        bases.append(visible.nnz)
        return np.full(visible.shape, 5.0)

    values = FACTORISATIONS[name].complete(hidden.visible, rng=stream(), base=base).values
    predicted = values[hidden.rows, hidden.cols]
    assert np.std(predicted - hidden.truth) < 0.2 * np.std(hidden.truth)
    assert bases == [round(0.95 * hidden.visible.nnz), hidden.visible.nnz]  # validation never shows its held-out 5 %


@pytest.mark.parametrize("name", FACTORISATIONS)
def test_too_few_entries_to_validate_on_are_refused(name):
    with pytest.raises(ValueError, match="9 observed entries in 3 cells × 3 genes are too few to validate on"):
        FACTORISATIONS[name].impute(sparse.csr_array(np.arange(1.0, 10).reshape(3, 3)), rng=stream())


def test_only_ranks_that_the_matrix_can_have_are_tried(rng, monkeypatch):
    tried, low_rank = [], als._low_rank

    def spy(residual, rank, *others):
        tried.append(rank)
        return low_rank(residual, rank, *others)

    monkeypatch.setattr(als, "_low_rank", spy)
    als.impute(partly_seen(rng.gamma(2, size=(20, 7)), 0.8, rng), rng=stream())
    assert set(tried) == {0, 1, 2, 3, 5}


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (als, {"ranks": ()}, r"options= has ranks=\(\)"),
        (als, {"ranks": (1.5,)}, r"options= has ranks=\(1\.5,\)"),
        (als, {"ranks": 5}, r"options= has ranks=5: give a list of whole numbers from 0 to 15, the smaller number"),
        (als, {"ranks": ["a"]}, r"options= has ranks=\['a'\]"),
        (als, {"ranks": [0, 16]}, r"options= has ranks=\[0, 16\]: give a list of whole numbers from 0 to 15"),
        (als, {"ridges": (-1.0,)}, r"options= has ridges=\(-1\.0,\)"),
        (als, {"ridges": [np.nan]}, r"options= has ridges=\[nan\]: give a list of numbers of at least 0"),
        (als, {"ridges": "ab"}, r"options= has ridges='ab'"),
        (soft_impute, {"n_thresholds": 2.5}, "options= has n_thresholds=2.5: give a whole number of at least 1"),
        (soft_impute, {"n_thresholds": "5"}, "options= has n_thresholds='5'"),
        (soft_impute, {"n_thresholds": 0}, "options= has n_thresholds=0"),
    ],
)
def test_grids_that_make_no_sense_are_refused(rng, module, options, message):
    with pytest.raises(ValueError, match=message):
        module.impute(partly_seen(rng.gamma(2, size=(20, 15)), 0.8, rng), rng=stream(), **options)


# ---------------------------------------------------------------------------------------------- eigenvectors


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("asked", [{}, {"n_largest": 8}, {"above": 0.5}])
def test_eigenvectors_of_any_matrix(rng, asked, alike):
    """Of cells that are all alike, all eigenvalues but one are equal, which SciPy's default driver can fail on."""
    factor = rng.normal(size=(30, 40))
    matrix = (np.ones((30, 30)) - np.eye(30)) / 29 if alike else factor @ factor.T
    values, vectors = symmetric_eigen(matrix, **asked)
    expected = np.linalg.eigvalsh(matrix)
    expected = expected[-8:] if "n_largest" in asked else expected[expected > asked.get("above", -np.inf)]
    np.testing.assert_allclose(values, expected, atol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-10)
