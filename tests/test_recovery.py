"""Hiding entries and scoring their recovery."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from scautoimpute.metrics import gene_mean, hide_entries, recovery_scores

MATRICES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 7.25]),
)
SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32 - 1)


@given(x=MATRICES, share=SHARES, seed=SEEDS)
def test_hiding_never_loses_or_invents_anything(x, share, seed):
    before = x.copy()
    hidden = hide_entries(x, share=share, random_state=seed)
    np.testing.assert_array_equal(x, before)
    assert hidden.truth.size == round(share * np.count_nonzero(x))
    assert np.all(hidden.truth != 0)
    assert len(set(zip(hidden.rows, hidden.cols, strict=True))) == hidden.truth.size
    assert np.all(hidden.visible.toarray()[hidden.rows, hidden.cols] == 0)
    assert hidden.visible.nnz == np.count_nonzero(x) - hidden.truth.size  # nothing hidden is still stored
    rebuilt = hidden.visible.toarray()
    rebuilt[hidden.rows, hidden.cols] = hidden.truth
    np.testing.assert_array_equal(rebuilt, x)


def test_every_array_type_hides_the_same_entries(array_type):
    dense = np.random.default_rng(0).poisson(1.0, size=(30, 20)).astype(np.float32)
    x = array_type(dense)
    hidden, expected = (hide_entries(m, share=0.25, random_state=4) for m in (x, dense))
    assert isinstance(hidden.visible, sparse.csr_array)
    assert hidden.visible.dtype == np.float32
    np.testing.assert_array_equal(hidden.rows, expected.rows)
    np.testing.assert_array_equal(hidden.cols, expected.cols)
    np.testing.assert_array_equal(hidden.truth, dense[hidden.rows, hidden.cols])
    np.testing.assert_array_equal(x.toarray() if sparse.issparse(x) else x, dense)


def test_hidden_entries_are_drawn_evenly_and_by_seed():
    x = np.ones((10, 10))
    times = np.zeros((10, 10))
    rng = np.random.default_rng(0)
    for _ in range(600):
        hidden = hide_entries(x, share=0.3, random_state=rng)
        times[hidden.rows, hidden.cols] += 1
    assert times.sum() == 600 * 30
    assert np.abs(times / 600 - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 600)
    first, again, other = (hide_entries(x, share=0.3, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.cols, again.cols)
    assert not np.array_equal(first.cols, other.cols)


def test_stored_zeros_are_not_hidden():
    x = sparse.csr_matrix((np.array([0.0, 1.0, 2.0]), np.array([0, 1, 0]), np.array([0, 2, 3])))
    hidden = hide_entries(x, share=0.99, random_state=0)
    assert sorted(hidden.truth) == [1.0, 2.0]
    assert x.nnz == 3


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, np.nan])
def test_share_is_checked(share):
    with pytest.raises(ValueError, match=r"share is .*; allowed is above 0 and below 1"):
        hide_entries(np.ones((2, 2)), share=share, random_state=0)


def test_scores_are_those_that_the_original_program_prints(golden):
    stored = np.load(golden / "autoimpute_trajectory_masked.npz")
    predicted = stored["script_imputed"][stored["mask_i"], stored["mask_j"]]
    scores = recovery_scores(stored["mask_truth"], predicted)
    for name in ("mae", "rmse", "nmse"):
        assert scores[name] == pytest.approx(float(stored[name]), rel=1e-14)


def test_the_gene_mean_has_the_published_error_on_blakeley(golden):
    """The non-zero mean of each gene, on the program's own data: it scores about 3.1, predicting zero about 8.5."""
    log2 = np.load(golden / "preprocess_blakeley.npz")["log2"]
    hidden = hide_entries(log2, share=0.1, random_state=0)
    scores = recovery_scores(hidden.truth, gene_mean(hidden.visible)[hidden.cols])
    assert scores["rmse"] == pytest.approx(3.10, abs=0.15)
    nothing = recovery_scores(hidden.truth, np.zeros_like(hidden.truth))
    assert nothing["rmse"] == pytest.approx(8.5, abs=0.2)
    assert nothing["nmse"] == 1


def test_scores_of_known_errors():
    scores = recovery_scores(np.array([3.0, 4.0]), np.array([0.0, 0.0]))
    assert scores == {"rmse": np.sqrt(12.5), "mae": 3.5, "nmse": 1.0}
    assert recovery_scores([1.0, 2.0], [1.0, 2.0]) == {"rmse": 0.0, "mae": 0.0, "nmse": 0.0}


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([1.0], [1.0, 2.0], r"shape \(1,\), predicted \(2,\)"),
        ([], [], "not empty"),
        ([1.0, 2.0], [np.nan, np.inf], "2 values are NaN or infinite"),
        ([0.0], [1.0], "every true value is zero"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        recovery_scores(truth, predicted)


@given(x=MATRICES)
def test_gene_mean_by_loop(x):
    if not x.any():
        with pytest.raises(ValueError, match="entries are zero"):
            gene_mean(x)
        return
    expected = [column[column != 0].mean() if column.any() else x[x != 0].mean() for column in x.T]
    for matrix in (x, sparse.csc_array(x)):
        np.testing.assert_allclose(gene_mean(matrix), expected, rtol=1e-14)
