"""Scores of structure, variance and zeros against independent computations."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scautoimpute.metrics import (
    bulk_bins,
    bulk_expression,
    cluster_agreement,
    counts_as_zero,
    first_components,
    five_numbers,
    log_variation,
    silhouette,
    tmm_factors,
    variation_by_type,
    zero_fractions,
)
from scautoimpute.metrics.bulk import _within


@pytest.fixture
def groups():
    rng = np.random.default_rng(0)
    types = np.repeat(["a", "b", "c"], [20, 30, 10])
    return rng.normal(size=(60, 5)) + 4 * np.array([[len(np.unique(types[:i])) for i in range(1, 61)]]).T, types


def test_clusters_that_are_the_types_agree_fully(groups):
    x, types = groups
    assert cluster_agreement(x, types=types, n_restarts=5).max() == pytest.approx(1)


def test_agreement_is_near_zero_for_noise():
    rng = np.random.default_rng(1)
    scores = cluster_agreement(rng.normal(size=(300, 4)), types=rng.integers(3, size=300), n_restarts=10)
    assert scores.shape == (10,)
    assert np.abs(scores).max() < 0.05


def test_agreement_depends_on_the_seed_alone(groups):
    x, types = groups
    noisy = x + np.random.default_rng(2).normal(0, 8, x.shape)
    first, again = (cluster_agreement(noisy, types=types, n_init=1, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.std() > 0


@pytest.mark.parametrize("types", [["a"] * 60, list(range(60)), ["a", "b"]])
def test_types_that_cannot_be_scored_are_refused(groups, types):
    with pytest.raises(ValueError, match="give one for each, of at least 2"):
        cluster_agreement(groups[0], types=types)
    with pytest.raises(ValueError, match="give one for each, of at least 2"):
        silhouette(groups[0], types=types)


def test_silhouette_is_what_a_loop_gives(groups):
    x, types = groups
    distance, values = cdist(x, x), []
    for i, kind in enumerate(types):
        same = (types == kind) & (np.arange(60) != i)
        nearest = min(distance[i, types == other].mean() for other in set(types) - {kind})
        own = distance[i, same].mean()
        values.append((nearest - own) / max(own, nearest))
    assert silhouette(x, types=types) == pytest.approx(np.mean(values))


def test_components_are_those_of_the_singular_value_decomposition(groups):
    x, _ = groups
    coordinates, explained = first_components(x)
    centred = x - x.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(left[:, :2] * singular[:2]), rtol=1e-6)
    np.testing.assert_allclose(explained, singular[:2] ** 2 / np.sum(singular**2), rtol=1e-6)


def test_cells_that_are_all_alike_have_no_components():
    coordinates, explained = first_components(np.ones((5, 3)))
    assert not coordinates.any()
    assert not explained.any()


def test_variation_is_what_a_loop_gives():
    rng = np.random.default_rng(0)
    x = rng.gamma(2, size=(30, 6))
    x[:, 4], x[:, 5] = 0, 7  # not expressed; does not vary
    types = np.repeat(["a", "b", "rare"], [14, 14, 2])
    found = variation_by_type(x, types=types)
    assert set(found) == {"a", "b"}
    for name, values in found.items():
        expected = [np.log(np.std(g, ddof=1) / np.mean(g)) for g in x[types == name][:, :4].T]
        np.testing.assert_allclose(values, expected)
    assert log_variation(np.zeros((3, 2))).size == 0
    assert five_numbers([]) == []


def test_zero_fractions_are_what_a_loop_gives():
    rng = np.random.default_rng(0)
    x, bins = rng.random((20, 9)), np.array([0, 0, 1, 1, 1, 1, 3, 3, 3])
    found = zero_fractions(counts_as_zero(x), bin_G=bins, n_bins=4)
    for number in (0, 1, 3):
        entries = [value for row in x for value, of in zip(row, bins, strict=True) if of == number]
        assert found[number] == pytest.approx(sum(value < 0.5 for value in entries) / len(entries))
    assert np.isnan(found[2])


# ------------------------------------------------------------------------------------------------ bulk


def bulk(n_genes=400, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(3, 1.5, n_genes)
    return rng.poisson(mean * np.array([[1.0], [0.7], [1.6]])).astype(float)


def tmm_by_hand(counts):
    """Robinson & Oshlack, gene by gene."""
    counts = counts[:, counts.sum(axis=0) > 0]
    totals = counts.sum(axis=1)
    quartiles = [np.quantile(row, 0.75) / total for row, total in zip(counts, totals, strict=True)]
    reference = min(range(len(counts)), key=lambda r: abs(quartiles[r] - np.mean(quartiles)))
    logs = []
    for row, total in zip(counts, totals, strict=True):
        genes = []
        for y, y_ref in zip(row, counts[reference], strict=True):
            if y > 0 and y_ref > 0:
                p, q = y / total, y_ref / totals[reference]
                weight = 1 / ((total - y) / (total * y) + (totals[reference] - y_ref) / (totals[reference] * y_ref))
                genes.append((np.log2(p / q), 0.5 * np.log2(p * q), weight))
        if max(abs(m) for m, _, _ in genes) < 1e-6:
            logs.append(0.0)
            continue

        def rank(values, value):
            return sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2

        ms, levels, n = [g[0] for g in genes], [g[1] for g in genes], len(genes)
        cut_m, cut_a = int(n * 0.3), int(n * 0.05)
        kept = [
            (m, w)
            for m, a, w in genes
            if cut_m + 1 <= rank(ms, m) <= n - cut_m and cut_a + 1 <= rank(levels, a) <= n - cut_a
        ]
        logs.append(sum(m * w for m, w in kept) / sum(w for _, w in kept))
    return 2 ** (np.array(logs) - np.mean(logs))


def test_tmm_is_what_a_loop_gives():
    counts = bulk()
    counts[1, :40] *= 9  # composition differs
    np.testing.assert_allclose(tmm_factors(counts), tmm_by_hand(counts), rtol=1e-9)


def test_tmm_depends_on_composition_and_not_on_depth():
    counts = bulk()
    np.testing.assert_allclose(tmm_factors(counts), np.ones(3), atol=0.05)
    deeper = counts * np.array([[1.0], [10.0], [1.0]])
    np.testing.assert_allclose(tmm_factors(deeper) / tmm_factors(counts), np.ones(3), atol=0.05)
    assert np.prod(tmm_factors(counts)) == pytest.approx(1)
    few_very_loud = counts.copy()
    few_very_loud[0, :5] += counts[0].sum() / 5  # half of all reads: the other genes have half of theirs
    assert tmm_factors(few_very_loud)[0] / tmm_factors(few_very_loud)[1] == pytest.approx(0.5, rel=0.05)


def test_tmm_trims_ties_alike_at_either_end():
    """Genes of few reads have the same ratio; edgeR keeps ranks from floor(n × trim) + 1 to n - floor(n × trim)."""
    half = np.array([[10, 20, 40, 40, 100, 100, 300, 700, 800, 900], [20, 40, 80, 80, 100, 100, 300, 350, 400, 450]])
    there, back = tmm_factors(half), tmm_factors(half[::-1])
    np.testing.assert_allclose(there, back[::-1])
    values = np.array([1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])  # ranks 3.5 are below 4
    assert _within(values, 0.3).tolist() == [False] * 4 + [True] * 3 + [False] * 3
    np.testing.assert_array_equal(_within(values, 0.3), _within(-values, 0.3))


def test_tmm_refuses_a_library_without_reads():
    with pytest.raises(ValueError, match="replicate 2 of 3 has no reads"):
        tmm_factors(np.array([[1, 2], [0, 0], [3, 1]]))


def test_bulk_expression_is_the_median_of_normalised_logs():
    counts = bulk()
    library = counts.sum(axis=1) * tmm_factors(counts)
    expected = [np.median([np.log(1 + c / n * 1e6) for c, n in zip(g, library, strict=True)]) for g in counts.T]
    np.testing.assert_allclose(bulk_expression(counts), expected)


def test_bins_hold_as_many_genes_each_and_the_silent_ones_apart():
    expression = np.concatenate([np.zeros(7), np.random.default_rng(0).gamma(2, size=80)])
    bins = bulk_bins(expression)
    assert np.bincount(bins.bin_G).tolist() == [7] + [10] * 8
    assert bins.labels[0] == "silent"
    order = [expression[bins.bin_G == number] for number in range(1, 9)]
    assert all(low.max() <= high.min() for low, high in pairwise(order))
    assert bulk_bins([0.0, 0.0]).labels == ["silent"]
    assert bulk_bins([0.0, 2.0]).bin_G.tolist() == [0, 1]
