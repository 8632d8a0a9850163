"""Measures of harm: each against data whose truth is known, and against an independent computation."""

import numpy as np
import pytest
from scipy import sparse, stats

from scautoimpute import datasets
from scautoimpute.metrics import (
    correlation_shift,
    false_markers,
    neighbour_variance_share,
    null_differential_expression,
    permuted_correlations,
    rare_pull,
    silent_markers,
    spike_in,
)
from scautoimpute.metrics._molecules import logs_of, pair_correlations, thinned
from scautoimpute.metrics.expression import wilcoxon
from scautoimpute.trust import imputer


def identity(counts, rng):
    return logs_of(counts).toarray()


def everyone_alike(counts, rng):
    return np.tile(identity(counts, rng).mean(axis=0), (counts.shape[0], 1))


knn = imputer("knn")


@pytest.fixture(scope="module")
def typed():
    return datasets.simulate(n_cells=300, n_genes=200, library_size=1500, dropout=0, overdispersion=0, random_state=0)


@pytest.fixture(scope="module")
def labels(typed):
    return typed.obs["cell_type"]


@pytest.fixture(scope="module")
def smoothed(typed):
    return knn(sparse.csr_array(typed.X), np.random.default_rng(0))


def logs_of_truth(adata):
    return logs_of(sparse.csr_array(adata.layers["truth"].astype(float))).toarray()


# ---------------------------------------------------------------------------------------- what they share


def test_thinned_molecules_add_up_and_are_independent():
    counts = sparse.csr_array(np.random.default_rng(0).poisson(6.0, size=(4000, 3)).astype(float))
    kept, held_out = thinned(counts, 0.25, np.random.default_rng(1))
    assert (kept + held_out != counts).nnz == 0
    assert held_out.sum() / counts.sum() == pytest.approx(0.25, abs=0.01)
    r = [np.corrcoef(kept.toarray()[:, g], held_out.toarray()[:, g])[0, 1] for g in range(3)]
    assert np.abs(r).max() < 0.06


def test_correlations_are_numpys_and_none_for_constant_genes():
    x = np.random.default_rng(0).random((50, 6))
    np.testing.assert_allclose(pair_correlations(x), np.corrcoef(x.T)[np.triu_indices(6, 1)])
    x[:, 2] = 1 / 3
    assert (pair_correlations(x)[[1, 5]] == 0).all()


def test_logs_are_scanpys(typed):
    import scanpy as sc

    adata = typed.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(logs_of(typed.X).toarray(), adata.X.toarray(), rtol=1e-5)


# ---------------------------------------------------------------------------------------- permuted correlations


def test_identity_keeps_the_null_of_permuted_correlations(typed):
    found = permuted_correlations(typed.X, impute=identity)
    assert not found.harmful
    assert found.share_after == found.share_before == pytest.approx(0.01, abs=0.004)
    assert found.null_99 == pytest.approx(found.analytic_99, rel=0.1)


def test_smoothing_permuted_genes_invents_correlations(typed):
    found = permuted_correlations(typed.X, impute=knn)
    assert found.harmful
    assert found.share_after > 0.1 > 5 * found.share_before
    assert found.limit < 0.02


def test_what_is_imputed_has_every_genes_values_and_no_structure(typed):
    seen = []
    permuted_correlations(typed.X, impute=lambda x, rng: seen.append(x) or identity(x, rng))
    given = seen[0].toarray()
    np.testing.assert_array_equal(np.sort(given, axis=0), np.sort(typed.X.toarray(), axis=0))
    assert len(seen) == 1


def test_measures_are_reproducible(typed):
    first, again, other = (permuted_correlations(typed.X, impute=knn, random_state=s) for s in (3, 3, 4))
    assert first.share_after == again.share_after
    np.testing.assert_array_equal(first.after, again.after)
    assert first.share_after != other.share_after


# ---------------------------------------------------------------------------------------- differential expression


def test_wilcoxon_is_scipys_gene_by_gene():
    x = np.random.default_rng(0).poisson(1.0, size=(40, 8)).astype(float)
    x[:, 3] = 2.0
    half = np.arange(40) % 2 == 0
    few = np.arange(40) < 13
    for ours, cells in zip(wilcoxon(x, np.stack([half, few])), (half, few), strict=True):
        loop = [stats.mannwhitneyu(x[cells, g], x[~cells, g], method="asymptotic").pvalue for g in range(8) if g != 3]
        np.testing.assert_allclose(np.delete(ours, 3), loop)
        assert ours[3] == 1


def test_identity_keeps_the_nominal_rate_between_halves(typed, labels):
    logs = logs_of(typed.X)[(labels == "type_1").to_numpy()]
    found = null_differential_expression(logs, after=logs.toarray())
    np.testing.assert_array_equal(found.before, found.after)
    assert found.after.mean() == pytest.approx(0.05, abs=0.01)
    assert not found.harmful


def test_values_that_all_genes_share_are_called_together(typed, labels):
    cells = (labels == "type_1").to_numpy()
    logs = logs_of(typed.X)[cells]
    rng = np.random.default_rng(0)
    one_programme = rng.normal(size=(cells.sum(), 1)) + rng.normal(0, 0.1, size=(cells.sum(), logs.shape[1]))
    found = null_differential_expression(logs, after=one_programme)
    assert found.after.max() > 0.5
    assert found.harmful
    assert found.after.mean() < 0.15  # over all splits the rate is nominal: halves are drawn at random


def correlated_logs(rng, *, n_cells=60, n_genes=60):
    """Counts of one type whose genes follow three programmes."""
    programmes = rng.normal(size=(n_cells, 3)) @ rng.normal(0, 0.6, size=(3, n_genes))
    rate = rng.gamma(1, 1, size=n_genes) * np.exp(programmes)
    return logs_of(rng.poisson(rate / rate.sum(axis=1, keepdims=True) * 1500)).toarray()


def test_correlated_genes_that_are_split_anew_are_called_as_rarely_as_stated():
    """Cells in another order keep every correlation of their genes, and are split otherwise: there is no harm."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        logs = correlated_logs(rng)
        found.append(null_differential_expression(logs, after=rng.permutation(logs), n_splits=200, random_state=seed))
    shares = np.array([each.share_of_splits for each in found])
    assert 0.008 < shares.mean() < 0.02  # nominal 1 %, the floor of independent genes being hardly ever the limit
    n_harmful = sum(each.harmful for each in found)
    assert stats.binom.sf(n_harmful - 1, 200, 0.01) > 0.05
    as_if_the_limit_were_exact = stats.binom.sf(np.rint(shares * 200) - 1, 200, 0.01) < 0.01
    assert as_if_the_limit_were_exact.sum() > 2 * 200 * 0.01


def test_smoothing_makes_permuted_genes_markers_of_types(typed, labels):
    kept, made = (false_markers(typed.X, labels=labels, impute=impute) for impute in (identity, knn))
    assert not kept.harmful
    assert kept.after == kept.before == pytest.approx(0.05, abs=0.05)
    assert made.harmful
    assert made.after > 0.2


def test_only_the_chosen_genes_are_permuted(typed, labels):
    seen = []
    false_markers(typed.X, labels=labels, impute=lambda x, rng: seen.append(x.toarray()) or identity(x, rng))
    found = np.corrcoef((labels == "type_1").to_numpy(), np.log1p(seen[0]).T)[0, 1:]
    original = np.corrcoef((labels == "type_1").to_numpy(), np.log1p(typed.X.toarray()).T)[0, 1:]
    strong = np.abs(original) > 0.3
    assert strong.sum() > 10
    assert 0.05 < (np.abs(found[strong]) < 0.15).mean() < 0.45  # a fifth of them


# ---------------------------------------------------------------------------------------- silent markers


def test_silent_markers_are_found_and_lifted_by_what_mixes_types(typed, labels):
    counts = typed.X.toarray()
    silent = np.argsort(-counts.sum(axis=0))[:20]
    counts[np.ix_((labels == "type_2").to_numpy(), silent)] = 0
    x = sparse.csr_array(counts)
    kept = silent_markers(x, after=identity(x, None), labels=labels)
    assert kept.n_pairs >= 20
    assert (kept.levels == 0).all()
    assert not kept.harmful
    mixed = silent_markers(x, after=everyone_alike(x, None), labels=labels)
    np.testing.assert_allclose(mixed.levels, 1)
    assert mixed.harmful


def test_a_gene_too_weak_to_be_missed_is_not_called_silent(typed, labels):
    counts = np.full((40, 30), 50.0)
    counts[:20, 0], counts[20:, 0] = 0, 1  # 20 molecules at most: 5 % of its level would be one
    two = np.repeat(["a", "b"], 20)
    assert silent_markers(counts, after=identity(sparse.csr_array(counts), None), labels=two).n_pairs == 0
    told = np.zeros((2, 30), dtype=bool)
    told[0, 0] = True
    assert silent_markers(counts, after=identity(sparse.csr_array(counts), None), labels=two, silent=told).n_pairs == 1


# ---------------------------------------------------------------------------------------- over-smoothing


def test_the_truth_is_not_called_over_smoothed(typed):
    truth = logs_of_truth(typed)
    shift = correlation_shift(typed.X, after=truth)
    before, after, held_out = shift.sizes
    assert before < 0.75 * after
    assert after == pytest.approx(held_out, rel=0.08)
    assert not shift.harmful


def test_the_truth_is_over_smoothed_no_more_often_than_by_chance():
    """Genes that were chosen by the molecules that they are then compared in called it so in 1 of 5 draws."""
    n_harmful, below = np.zeros(2), []
    for seed in range(25):
        adata = datasets.simulate(
            n_cells=150, n_genes=120, library_size=2000, dropout=0, overdispersion=0, random_state=seed
        )
        truth = logs_of(sparse.csr_array(adata.layers["truth"].astype(float))).toarray()
        neighbours = neighbour_variance_share(adata.X, after=truth, random_state=seed)
        correlations = correlation_shift(adata.X, after=truth, random_state=seed)
        n_harmful += neighbours.harmful, correlations.harmful
        below.append(neighbours.share_below)
    assert np.mean(below) == pytest.approx(0.5, abs=0.05)
    assert (stats.binom.sf(n_harmful - 1, 25, 0.01) > 0.01).all()


def test_correlations_freed_of_noise_are_those_of_the_truth():
    adata = datasets.simulate(
        n_cells=1500, n_genes=100, library_size=1000, dropout=0, overdispersion=0, n_types=8, random_state=1
    )
    shift = correlation_shift(adata.X, after=logs_of_truth(adata))
    assert np.corrcoef(shift.held_out, shift.after)[0, 1] > 0.95
    assert np.abs(shift.held_out - shift.after).mean() < 0.5 * np.abs(shift.before - shift.after).mean()


def test_one_programme_for_all_is_over_smoothed(typed):
    one = np.random.default_rng(0).normal(size=(300, 1)) * np.ones(200)
    assert correlation_shift(typed.X, after=one).harmful


def test_neighbours_keep_what_they_have_unless_smoothed(typed, smoothed):
    kept = neighbour_variance_share(typed.X, after=identity(sparse.csr_array(typed.X), None))
    np.testing.assert_allclose(kept.before, kept.after)
    assert np.median(kept.null) == pytest.approx(1, abs=0.05)
    assert not kept.harmful
    averaged = neighbour_variance_share(typed.X, after=smoothed)
    assert np.median(averaged.after) < 0.5 * np.median(averaged.before)


def test_variance_between_neighbours_is_found_free_of_noise():
    """Expression that neighbours do not share is in the held-out molecules, and smoothing takes it."""
    adata = datasets.simulate(
        n_cells=300, n_genes=100, library_size=3000, dropout=0, overdispersion=0.5, random_state=0
    )
    counts = sparse.csr_array(adata.X)
    averaged = neighbour_variance_share(counts, after=knn(counts, np.random.default_rng(0)))
    assert np.median(averaged.held_out) > 0.3
    assert averaged.harmful
    assert averaged.lost > 0.2


# ---------------------------------------------------------------------------------------- rare cells


@pytest.fixture(scope="module")
def with_rare():
    adata = datasets.simulate(
        n_cells=400, n_genes=200, n_types=2, type_shares=(0.97, 0.03), dropout=0, marker_log_fold=2, random_state=0
    )
    return adata, (adata.obs["cell_type"] == "type_2").to_numpy()


def test_rare_cells_stay_unless_all_are_averaged(with_rare):
    adata, rare = with_rare
    counts, truth = sparse.csr_array(adata.X), adata.layers["truth"].astype(float)
    kept = rare_pull(counts, after=identity(counts, None), rare=rare, reference=truth)
    assert abs(kept.pull) < 0.01
    assert not kept.harmful
    assert np.abs(kept.null.mean()) < 0.05
    assert rare_pull(counts, after=everyone_alike(counts, None), rare=rare, reference=truth).pull == pytest.approx(1)
    assert abs(rare_pull(counts, after=logs_of_truth(adata), rare=rare, reference=truth).pull) < 0.06


def test_half_way_to_the_crowd_is_half_a_pull(with_rare):
    adata, rare = with_rare
    truth = adata.layers["truth"].astype(float)
    profile = truth / truth.sum(axis=1, keepdims=True)
    crowd, own = np.log1p(1e4 * profile[~rare].mean(axis=0)), np.log1p(1e4 * profile[rare].mean(axis=0))
    after = np.where(rare[:, None], (crowd + own) / 2, crowd)
    found = rare_pull(adata.X, after=after, rare=rare, reference=truth)
    assert found.pull == pytest.approx(0.5, abs=0.04)
    assert found.harmful


def test_smoothing_over_more_neighbours_than_there_are_pulls(with_rare):
    adata, rare = with_rare
    after = imputer("knn", options={"n_neighbors": 60, "weights": "uniform"})(adata.X, np.random.default_rng(0))
    assert rare_pull(adata.X, after=after, rare=rare).harmful


def test_spiked_cells_have_the_sizes_of_the_others_and_another_profile(typed):
    counts, new = spike_in(typed.X, share=0.1, random_state=0)
    assert counts.shape == (330, 200)
    assert list(np.flatnonzero(new)) == list(range(300, 330))
    assert (counts[:300] != sparse.csr_array(typed.X)).nnz == 0
    sizes = counts.sum(axis=1)
    assert np.isin(sizes[300:], sizes[:300]).all()
    old, added = (np.log1p(counts[kind].sum(axis=0) / counts[kind].sum()) for kind in (~new, new))
    assert np.corrcoef(old, added)[0, 1] < 0.95


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: permuted_correlations(x / 2, impute=identity), "are no counts"),
        (lambda x: permuted_correlations(x[:5], impute=identity), "genes are seen in 10 or more of 5 cells"),
        (lambda x: null_differential_expression(x, after=x[:10]), "give two of one shape with at least 20 cells"),
        (lambda x: false_markers(x, labels=np.zeros(60), impute=identity), "has 10 cells inside and outside"),
        (lambda x: silent_markers(x, after=x, labels=np.zeros(60)), "a marker needs two types"),
        (lambda x: silent_markers(x, after=x, labels=np.arange(60) % 2, bound=1), "bound is 1; allowed is above 0"),
        (lambda x: rare_pull(x, after=x, rare=np.zeros(60, dtype=bool)), "mark at least 2, and leave at least 2"),
        (lambda x: spike_in(x, share=0), "share is 0; allowed is above 0 and at most 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, said):
    x = np.random.default_rng(0).poisson(3.0, size=(60, 8)).astype(float)
    with pytest.raises(ValueError, match=said):
        call(x)
