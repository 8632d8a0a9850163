"""ALRA against the original program's stored output, a plain per-gene computation, and at its edges."""

import numpy as np
import pytest
from scipy import sparse

from scautoimpute.methods import alra as module
from scautoimpute.methods.alra import METHOD
from scautoimpute.methods.alra import impute as alra


def prepared(counts):
    counts = sparse.csr_array(np.asarray(counts, dtype=np.float64))
    total = counts.sum(axis=1)
    scaled = sparse.csr_array(counts.multiply((1e4 / np.where(total > 0, total, 1))[:, None]))
    scaled.data = METHOD.takes.apply(scaled.data)
    return scaled


def simulated(n_cells=120, n_genes=150, seed=0):
    """Counts of three cell types."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.7, 3, size=(3, n_genes))[rng.integers(3, size=n_cells)]
    return rng.poisson(rate)


def run(x, seed=0, **options):
    return alra(x, rng=np.random.default_rng(seed), **options).values


@pytest.fixture(scope="module")
def mix150(golden):
    return prepared(np.load(golden / "input_mix150.npz")["counts"])


@pytest.fixture(scope="module")
def blake30(golden):
    return prepared(np.load(golden / "input_blake30.npz")["counts"])


# ------------------------------------------------------------------------------------- the original's output


def test_equals_the_original_with_an_exact_decomposition(mix150, golden):
    stored = np.load(golden / "alra_mix150.npz")
    assert np.abs(run(mix150, rank=10) - stored["exact_imputed"]).max() < 1e-6


def test_equals_the_original_on_few_cells(blake30, golden):
    stored = np.load(golden / "alra_blake30_k4.npz")
    imputed = run(blake30, rank=4)
    np.testing.assert_allclose(imputed, stored["exact_imputed"], rtol=1e-7, atol=1e-6)
    seen = np.flatnonzero(blake30.sum(axis=0))
    zero_before_scaling = stored["exact_thresholded_zero"] & (blake30.toarray() == 0)
    assert not imputed[:, seen][zero_before_scaling[:, seen]].any()


def test_equals_the_original_where_its_randomised_decomposition_has_converged(mix150, golden):
    stored = np.load(golden / "alra_mix150_k3.npz")
    assert np.abs(run(mix150, rank=3) - stored["imputed"]).max() < 5e-6


def test_randomised_decomposition_reaches_the_same_as_the_original(mix150, golden, monkeypatch):
    monkeypatch.setattr(module, "_EXACT_UP_TO", 0)
    stored = np.load(golden / "alra_mix150_k3.npz")
    assert np.abs(run(mix150, rank=3) - stored["imputed"]).max() < 2e-5  # two sketches, each 5e-6 off the exact one


def test_rank_is_the_originals_at_exact_singular_values(mix150, golden):
    stored = np.load(golden / "alra_mix150.npz")
    assert module._choose_rank(stored["exact_singular_values"][:100]) == stored["exact_k"] == 18
    assert module._choose_rank(stored["choose_k_singular_values"]) == stored["choose_k"] == 10
    chosen = alra(mix150, rng=np.random.default_rng(0))
    assert chosen.learned == {"rank": 18}
    np.testing.assert_array_equal(chosen.values, run(mix150, rank=18))


def test_randomised_ranks_are_among_those_of_the_original(mix150, golden, monkeypatch):
    monkeypatch.setattr(module, "_EXACT_UP_TO", 0)
    singular = [module._randomised(mix150, 100, n_iter=2, seed=seed)[1] for seed in range(5)]
    stored = np.load(golden / "alra_mix150.npz")
    assert {module._choose_rank(values) for values in singular} <= set(stored["choose_k_seeds1_30"].tolist())
    # rounding of the sketch leaves the leading values alone
    np.testing.assert_allclose(singular[0][:10], stored["exact_singular_values"][:10], rtol=2e-3)


# ------------------------------------------------------------------------------------- a plain computation


def plain(x, rank, quantile=0.001):
    """One gene at a time, from numpy's singular value decomposition."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    low = (u[:, :rank] * s[:rank]) @ v[:rank]
    out = np.zeros_like(x)
    for g in range(x.shape[1]):
        column, observed = low[:, g], x[:, g]
        if not observed.any():
            continue
        kept = column > abs(np.quantile(column, quantile))
        value = np.where(kept, column, 0)
        if kept.sum() > 1 and (observed > 0).sum() > 1 and column[kept].std() > 0:
            sd, wanted = column[kept].std(ddof=1), observed[observed > 0].std(ddof=1)
            matched = (column[kept] - column[kept].mean()) * wanted / sd + observed[observed > 0].mean()
            value[kept] = np.maximum(matched, 0)
        out[:, g] = np.where((observed > 0) & (value == 0), observed, value)
    return out


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)], ids=["wide", "tall"])
@pytest.mark.parametrize("quantile", [0.001, 0.1])
def test_equals_a_plain_computation(shape, quantile):
    counts = simulated(*shape)
    counts[:, 3] = 0
    counts[:, 4] = np.arange(shape[0]) == 5  # one non-zero: there is no standard deviation to match
    x = prepared(counts)
    np.testing.assert_allclose(run(x, rank=4, quantile=quantile), plain(x.toarray(), 4, quantile), atol=1e-9)


def test_blocks_of_genes_make_no_difference(monkeypatch):
    x = prepared(simulated())
    whole = run(x, rank=3)
    monkeypatch.setattr(module, "_GENES_AT_ONCE", 7)
    np.testing.assert_allclose(run(x, rank=3), whole, rtol=1e-12)


def test_randomised_equals_exact_where_it_has_converged(monkeypatch):
    x = prepared(simulated())
    exact = run(x, rank=3)
    monkeypatch.setattr(module, "_EXACT_UP_TO", 0)
    np.testing.assert_allclose(run(x, rank=3), exact, atol=1e-6)
    np.testing.assert_array_equal(run(x, rank=3, seed=7), run(x, rank=3, seed=7))


# ------------------------------------------------------------------------------------- invariants and edges


def test_finds_the_rank_beneath_noise():
    rng = np.random.default_rng(0)
    noisy = 5 * rng.random((300, 4)) @ rng.random((4, 400)) + rng.normal(size=(300, 400))
    # the spacings of noise widen towards its edge, which the rule may take for one or two ranks more
    assert 4 <= module._choose_rank(np.linalg.svd(noisy, compute_uv=False)[:100]) <= 6


def test_rank_of_few_cells_and_of_no_structure():
    assert module._choose_rank(np.linspace(9, 1, 12)) == 1
    assert module._choose_rank(np.r_[40.0, 20, np.linspace(9, 8, 10)]) == 2
    assert run(prepared(simulated(n_cells=12))).shape == (12, 150)


def test_mean_and_spread_of_observed_values_are_kept():
    x = prepared(simulated())
    imputed, dense = run(x, rank=3), x.toarray()
    positive = (imputed > 0) & (dense > 0)
    assert (imputed >= 0).all()
    assert (imputed[dense > 0] > 0).all()
    assert positive.sum() == (dense > 0).sum()
    means = [values.sum(axis=0) / np.maximum((values > 0).sum(axis=0), 1) for values in (imputed, dense)]
    assert np.abs(np.median(means[0] - means[1])) < 0.02


def test_permuting_cells_permutes_the_result():
    x = prepared(simulated())
    order = np.random.default_rng(3).permutation(x.shape[0])
    np.testing.assert_allclose(run(x[order], rank=3), run(x, rank=3)[order], atol=1e-9)


def test_empty_cells_and_genes_stay_zero_and_change_nothing_else():
    counts = simulated()
    padded = np.pad(counts, ((1, 2), (2, 1)))
    imputed = run(prepared(padded))
    np.testing.assert_allclose(imputed[1:-2, 2:-1], run(prepared(counts)), rtol=1e-9)
    imputed[1:-2, 2:-1] = 0
    assert not imputed.any()


def test_nothing_in_nothing_out():
    assert not run(sparse.csr_array((20, 30))).any()


@pytest.mark.parametrize("rank", [0, -2, 41, 2.5, True])
def test_impossible_rank_is_refused(rank):
    with pytest.raises(ValueError, match=rf"rank={rank}: give a whole number from 1 to 40 for 40 cells × 150 genes"):
        run(prepared(simulated(n_cells=40)), rank=rank)


def test_too_little_data_to_choose_a_rank_is_refused():
    x = prepared(simulated(n_cells=9))
    with pytest.raises(ValueError, match=r"9 cells or genes have entries.*at least 10 of both: give rank"):
        run(x)
    assert run(x, rank=2).shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantile": 1.5}, r"options= has quantile=1\.5: give a number from 0 to 1"),
        ({"quantile": "x"}, "options= has quantile='x': give a number from 0 to 1"),
        ({"quantile": np.nan}, "options= has quantile=nan: give a number"),
        ({"n_iter": "x"}, "options= has n_iter='x': give a whole number of at least 0"),
        ({"n_iter": -1}, "options= has n_iter=-1: give a whole number of at least 0"),
        ({"rank": "x"}, "options= has rank='x': give a whole number from 1 to 120"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(prepared(simulated()), **({"rank": 2} | options))
