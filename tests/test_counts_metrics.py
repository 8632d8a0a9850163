"""Molecular cross-validation, the Open Problems scores, and what is known otherwise."""

from math import lgamma, log

import anndata
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats
from sklearn.metrics import mean_poisson_deviance, mean_squared_error

from scautoimpute import datasets
from scautoimpute.metrics import (
    bulk_similarity,
    gene_frequencies,
    log_normalised_error,
    multinomial_gain,
    open_problems_mse,
    open_problems_poisson,
    poisson_deviance,
    poisson_log_likelihood,
    reference_correlation,
    thin,
)

COUNTS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 0, 0, 1, 2, 50])
)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def rate(rng):
    """Expected molecules of 40 cells × 30 genes, all above zero."""
    return rng.gamma(0.7, 3.0, size=(40, 30)) + 0.01


@pytest.fixture
def drawn(rng, rate):
    """Training and held-out molecules at those rates and at a quarter of them."""
    return rng.poisson(rate), rng.poisson(rate / 4)


# ---------------------------------------------------------------------------------------------- thinning


@given(counts=COUNTS, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_thinning_never_loses_or_invents_a_molecule(counts, share, seed):
    before = counts.copy()
    left, taken = thin(counts, share=share, random_state=seed)
    np.testing.assert_array_equal((left + taken).toarray(), counts)
    np.testing.assert_array_equal(counts, before)
    for part in (left, taken):
        assert part.data.min(initial=1) >= 1  # no stored zeros, nothing negative
        assert part.has_canonical_format


def test_every_container_is_thinned_alike(array_type, rng):
    dense = rng.poisson(1.0, size=(30, 20)).astype(np.float32)
    expected = thin(dense, share=0.3, random_state=5)
    for part, same in zip(thin(array_type(dense), share=0.3, random_state=5), expected, strict=True):
        assert isinstance(part, sparse.csr_array)
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part.toarray(), same.toarray())


def test_counts_on_disk_are_thinned_alike_in_blocks(tmp_path, rng, monkeypatch):
    counts = sparse.csr_matrix(rng.poisson(1.0, size=(50, 20)).astype(np.float32))
    anndata.AnnData(counts).write_h5ad(tmp_path / "counts.h5ad")
    whole = thin(counts, share=0.3, random_state=5)
    monkeypatch.setattr("scautoimpute.metrics._matrices.rows_per_block", lambda n: 7)
    backed = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    for part, same in zip(thin(backed.X, share=0.3, random_state=5), whole, strict=True):
        np.testing.assert_array_equal(part.toarray(), same.toarray())
    backed.file.close()


def test_the_molecules_taken_are_binomial_and_independent_of_those_left(rng):
    counts = rng.poisson(6.0, size=(200, 200))
    left, taken = (part.toarray() for part in thin(counts, share=0.25, random_state=1))
    fives = taken[counts == 5]
    expected = stats.binom(5, 0.25).pmf(np.arange(6)) * fives.size
    chi = np.sum((np.bincount(fives, minlength=6) - expected) ** 2 / expected)
    assert chi < stats.chi2(5).ppf(0.999)
    # Of Poisson counts: correlation of n independent pairs has standard deviation 1/√n = 0.005
    assert abs(np.corrcoef(left.ravel(), taken.ravel())[0, 1]) < 0.02


def test_seeds(rng):
    counts = rng.poisson(2.0, size=(30, 30))
    first, again, other = (thin(counts, share=0.5, random_state=seed)[1] for seed in (1, np.random.default_rng(1), 2))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, np.nan])
def test_the_share_is_checked(share):
    with pytest.raises(ValueError, match=r"share is .*; allowed is above 0 and below 1"):
        thin(np.ones((2, 2)), share=share, random_state=0)


@pytest.mark.parametrize("bad", [0.5, -1.0, np.nan, np.inf])
def test_what_is_no_count_is_not_thinned(bad):
    with pytest.raises(ValueError, match="1 values are negative, fractional or not finite"):
        thin(np.array([[1.0, bad]]), share=0.5, random_state=0)


# ---------------------------------------------------------------------------------------------- likelihoods


def test_the_deviance_is_scikit_learns(array_type, drawn, rate):
    _, y = drawn
    expected = mean_poisson_deviance(y.ravel(), (rate / 4).ravel()) * y.size / y.sum()
    assert poisson_deviance(array_type(y), rate / 4) == pytest.approx(expected, rel=1e-12)


def test_the_log_likelihood_is_scipys(drawn, rate):
    _, y = drawn
    expected = stats.poisson.logpmf(y, rate / 4).sum() / y.sum()
    assert poisson_log_likelihood(sparse.csr_array(y), rate / 4) == pytest.approx(expected, rel=1e-12)
    perfect = stats.poisson.logpmf(y, np.where(y == 0, 0, y)).sum() / y.sum()
    assert poisson_deviance(y, rate / 4) == pytest.approx(2 * (perfect - expected), rel=1e-10)


def test_the_deviance_by_loop(drawn, rate):
    _, y = drawn
    total = sum(
        2 * ((n * log(n / mu) if n else 0) - n + mu) for n, mu in zip(y.ravel(), (rate / 4).ravel(), strict=True)
    )
    assert poisson_deviance(y, rate / 4) == pytest.approx(total / y.sum(), rel=1e-12)


def test_the_gain_is_a_difference_of_multinomial_likelihoods(drawn, rate):
    train, y = drawn
    frequency = gene_frequencies(train)
    share = rate / rate.sum(axis=1, keepdims=True)
    difference = [stats.multinomial.logpmf(n, n.sum(), p) - stats.multinomial.logpmf(n, n.sum(), frequency)
                  for n, p in zip(y, share, strict=True)]  # fmt: skip
    expected = 1000 * np.sum(difference) / y.sum()
    assert multinomial_gain(sparse.csr_array(y), rate * 7, train=train) == pytest.approx(expected, rel=1e-9)
    assert multinomial_gain(y, np.tile(frequency, (len(y), 1)), train=train) == pytest.approx(0, abs=1e-9)


def test_deviance_and_gain_rank_alike(drawn, rate, rng):
    """At a cell's own total: deviance falls by 2/1000 of what the gain rises."""
    train, y = drawn
    own = np.maximum(y.sum(axis=1, keepdims=True), 1)
    guesses = [rate * rng.gamma(9, size=rate.shape) for _ in range(2)]
    at_depth = [g / g.sum(axis=1, keepdims=True) * own for g in guesses]
    deviances = [poisson_deviance(y, mu) for mu in at_depth]
    gains = [multinomial_gain(y, g, train=train) for g in guesses]
    assert deviances[0] - deviances[1] == pytest.approx(-2e-3 * (gains[0] - gains[1]), rel=1e-9)


def test_the_true_rate_wins_and_copying_the_input_loses(drawn, rate):
    train, y = drawn
    copied = train + 0.01
    flat = np.tile(gene_frequencies(train), (len(y), 1)) * train.sum(axis=1, keepdims=True)
    of_truth, of_copy, of_mean = (poisson_deviance(y, mu / 4) for mu in (rate, copied, flat))
    assert of_truth < of_copy
    assert of_truth < of_mean
    assert multinomial_gain(y, rate, train=train) > max(0, multinomial_gain(y, copied, train=train))


def test_a_molecule_thought_impossible_is_infinitely_wrong():
    y, mu = np.array([[1.0, 1.0]]), np.array([[2.0, 0.0]])
    assert poisson_deviance(y, mu) == np.inf
    assert poisson_log_likelihood(y, mu) == -np.inf
    assert multinomial_gain(y, mu, train=y) == -np.inf


def test_an_estimate_of_nothing(drawn, rate):
    train, y = drawn
    rate[2] = 0
    y[2, 0] = 1
    assert multinomial_gain(y, rate, train=train) == -np.inf
    with pytest.raises(ValueError, match="estimates of 1 cells are zero throughout"):
        log_normalised_error(y, rate, second=y, train=train)
    with pytest.raises(ValueError, match="no training molecule"):
        open_problems_poisson(y, rate, train=np.zeros_like(y))


def test_blocks_do_not_change_a_score(drawn, rate, monkeypatch):
    train, y = drawn

    def scores():
        errors = log_normalised_error(y, rate, second=thin(train, share=0.25, random_state=0)[1], train=train)
        return [poisson_deviance(y, rate), multinomial_gain(y, rate, train=train), *errors.values()]  # fmt: skip

    whole = scores()
    monkeypatch.setattr("scautoimpute.metrics._matrices.rows_per_block", lambda n: 7)
    np.testing.assert_allclose(scores(), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("held_out", "expected", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), "all have to be one size"),
        (np.ones((0, 2)), np.ones((0, 2)), "not empty"),
        (np.zeros((2, 2)), np.ones((2, 2)), "no held-out molecule"),
        (np.ones((1, 2)), np.array([[-1.0, np.nan]]), "2 expected values are negative or not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(held_out, expected, message):
    for score in (poisson_deviance, poisson_log_likelihood):
        with pytest.raises(ValueError, match=message):
            score(held_out, expected)


# ---------------------------------------------------------------------------------------------- log-normalised error


def test_errors_of_logs_by_loop(drawn, rate):
    train, y = drawn
    second = thin(train, share=0.25, random_state=0)[1].toarray()
    found = log_normalised_error(y, rate, second=sparse.csr_array(second), train=train)
    depth = np.median(y.sum(axis=1))

    def logged(values):
        return np.array([[np.log(1 + v * depth / row.sum()) for v in row] for row in values])

    errors = {name: mean_squared_error(logged(y), logged(v)) for name, v in (("mse", rate), ("mse_none", train))}
    errors["mse_floor"] = mean_squared_error(logged(y), logged(second)) / 2
    for name, value in errors.items():
        assert found[name] == pytest.approx(value, rel=1e-12)
    none, mse, floor = errors["mse_none"], errors["mse"], errors["mse_floor"]
    assert found["removed"] == pytest.approx((none - mse) / (none - floor))


def test_the_floor_is_the_error_of_the_expected_logarithm(rng):
    """Of known rates: the second thinning, taken from the training molecules, tells the noise of the held-out ones."""
    rate = rng.gamma(2.0, 40.0, size=(300, 50))
    counts = rng.poisson(rate)
    train, y = thin(counts, share=0.2, random_state=0)
    second = thin(train, share=0.25, random_state=1)[1]
    draws = rng.poisson(rate * 0.2, size=(100, *rate.shape)).astype(float)
    depth = np.median(y.sum(axis=1))
    shares = draws / draws.sum(axis=2, keepdims=True) * depth
    best = np.expm1(np.log1p(shares).mean(axis=0))
    found = log_normalised_error(y, rate, second=second, train=train)
    of_best = mean_squared_error(np.log1p(y.toarray() / y.sum(axis=1)[:, None] * depth), np.log1p(best))
    assert found["mse_floor"] == pytest.approx(of_best, rel=0.03)
    assert 0.8 < found["removed"] <= 1.02


def test_cells_without_molecules_are_left_out(drawn, rate):
    train, y = drawn
    second = thin(train, share=0.25, random_state=0)[1].toarray()
    expected = log_normalised_error(y[1:], rate[1:], second=second[1:], train=train[1:])
    y[0] = 0
    assert log_normalised_error(y, rate, second=second, train=train) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no cell has molecules"):
        log_normalised_error(np.zeros_like(y), rate, second=second, train=train)


# ---------------------------------------------------------------------------------------------- Open Problems


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_open_problems_scores_are_the_published_ones(drawn, rate):
    """By the published lines, on scanpy and scikit-learn."""
    train, y = drawn
    y[3] = 0
    denoised = rate * 1.5
    by_scanpy = []
    for values in (y, denoised):
        adata = anndata.AnnData(values.astype(float))
        sc.pp.normalize_total(adata, target_sum=10000)
        sc.pp.log1p(adata)
        by_scanpy.append(adata.X)
    assert open_problems_mse(sparse.csr_array(y), denoised) == pytest.approx(mean_squared_error(*by_scanpy), rel=1e-12)

    def poisson_nll_loss(y_pred, y_true):
        return (y_pred - y_true * np.log(y_pred + 1e-6)).mean()

    published = poisson_nll_loss(y, denoised * y.sum() / train.sum())
    assert open_problems_poisson(sparse.csr_array(y), denoised, train=train) == pytest.approx(published, rel=1e-12)


def test_the_published_poisson_rewards_shrinking_everything_to_zero(drawn, rate):
    train, y = drawn
    shrunken = [open_problems_poisson(y, rate * factor, train=train) for factor in (1, 0.5, 0.1, 0)]
    assert np.all(np.diff(shrunken) < 0)
    assert shrunken[-1] == pytest.approx(y.mean())
    middle = (shrunken[0] + shrunken[-1]) / 2
    assert shrunken[1] == pytest.approx(middle)  # linear in the estimate
    right = [poisson_deviance(y, rate / 4 * factor) for factor in (1, 0.5, 0.1)]
    assert np.all(np.diff(right) > 0)


def test_the_published_mse_rewards_the_expected_log_at_a_tenth_of_the_depth(rng):
    """Of known rates, 2,000 molecules a cell: the right ones score worse than their expected logarithm at 200."""
    adata = datasets.simulate(n_cells=60, n_genes=200, library_size=2000, overdispersion=0, dropout=0, random_state=0)
    share = np.asarray(adata.X.mean(axis=0)).ravel() + 0.01
    rate = rng.gamma(4.0, 0.25, size=(60, 200)) * share
    rate *= 2000 / rate.sum(axis=1, keepdims=True)
    train, y = thin(rng.poisson(rate), share=0.1, random_state=0)
    draws = rng.poisson(rate / 10, size=(300, *rate.shape)).astype(float)
    expected_log = np.log1p(draws / draws.sum(axis=2, keepdims=True) * 1e4).mean(axis=0)
    mse_of_log = mean_squared_error(np.log1p(y.toarray() / y.sum(axis=1)[:, None] * 1e4), expected_log)
    assert mse_of_log < 0.75 * open_problems_mse(y, rate)
    # Handed in as counts, and so scaled to 10,000 again, it still beats the rates themselves by a lot,
    # although by the likelihood it is far worse.
    as_counts = np.expm1(expected_log)
    assert open_problems_mse(y, as_counts) < 0.95 * open_problems_mse(y, rate)
    assert multinomial_gain(y, as_counts, train=train) < multinomial_gain(y, rate, train=train) - 10


# ---------------------------------------------------------------------------------------------- known otherwise


@pytest.mark.parametrize(("curve", "function"), [("linear", np.asarray), ("sqrt", np.sqrt), ("log1p", np.log1p)])
def test_correlations_with_the_reference_by_scipy(drawn, rate, curve, function):
    reference, _ = drawn
    depth = np.median(reference.sum(axis=1))
    a, b = (function(v / v.sum(axis=1, keepdims=True) * depth) for v in (reference, rate))
    found = reference_correlation(sparse.csr_array(reference), rate, curve=curve)
    assert found["gene"] == pytest.approx(np.median([stats.pearsonr(a[:, g], b[:, g])[0] for g in range(30)]))
    assert found["cell"] == pytest.approx(np.median([stats.pearsonr(a[c], b[c])[0] for c in range(40)]))


def test_genes_that_do_not_vary(drawn, rate):
    reference, _ = drawn
    reference[:, 0] = 0
    expected = reference_correlation(reference[:, 1:], rate[:, 1:])["gene"]
    padded = rate.copy()
    padded[:, 0] = 1e-12
    assert reference_correlation(reference, padded)["gene"] == pytest.approx(expected, abs=1e-6)
    flat = np.tile(rate.mean(axis=0), (40, 1))
    assert reference_correlation(reference, flat)["gene"] == 0


def test_likeness_to_bulk_by_scipy(rng):
    bulk = rng.gamma(0.5, 100, size=(3, 80))
    kind = rng.permutation(np.repeat([0, 1, 2], 5))
    cells = rng.poisson(bulk[kind] / 20) + (np.arange(80) == 0)
    found = bulk_similarity(sparse.csr_array(cells), bulk, kind=kind)
    assert found["cell"] == pytest.approx(
        np.median([stats.spearmanr(c, bulk[k])[0] for c, k in zip(cells, kind, strict=True)])
    )
    log_bulk = np.log2(bulk / bulk.sum(axis=1, keepdims=True) * 1e6 + 1)
    shares = cells / cells.sum(axis=1, keepdims=True)
    log_mean = np.log2(np.array([shares[kind == k].mean(axis=0) for k in range(3)]) * 1e6 + 1)
    folds = [
        stats.spearmanr(log_bulk[a] - log_bulk[b], log_mean[a] - log_mean[b])[0] for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert found["fold_change"] == pytest.approx(np.mean(folds))


def test_one_kind_has_no_fold_change():
    found = bulk_similarity(np.array([[1.0, 2.0, 3.0]]), [[2.0, 4.0, 6.0]], kind=[0])
    assert found["cell"] == pytest.approx(1)
    assert np.isnan(found["fold_change"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="kind has 1 values; give the same genes"):
        bulk_similarity(np.ones((2, 3)), np.ones((2, 3)), kind=[0])
    with pytest.raises(ValueError, match="1 rows add up to nothing"):
        bulk_similarity(np.array([[1.0], [0.0]]), np.ones((1, 1)), kind=[0, 0])
    with pytest.raises(ValueError, match="reference 1 × 2, estimate 1 × 3"):
        reference_correlation(np.ones((1, 2)), np.ones((1, 3)))


def test_real_counts_of_the_bundled_sample():
    """700 blood cells: their own counts predict their other molecules better than gene means do, given a floor."""
    counts = datasets.pbmc68k_reduced().X
    train, y = thin(counts, share=0.1, random_state=0)
    mean = gene_frequencies(train)
    own = train.toarray() / np.asarray(train.sum(axis=1))[:, None]
    assert multinomial_gain(y, 0.8 * own + 0.2 * mean, train=train) > 100
    errors = log_normalised_error(
        y, 0.8 * own + 0.2 * mean, second=thin(train, share=1 / 9, random_state=1)[1], train=train
    )
    assert errors["mse_floor"] < errors["mse"] < errors["mse_none"]


def test_a_log_gamma_check_of_the_definition():
    assert poisson_log_likelihood(np.array([[3.0]]), np.array([[2.0]])) == pytest.approx(
        (3 * log(2) - 2 - lgamma(4)) / 3
    )
