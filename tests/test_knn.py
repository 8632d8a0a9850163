"""Nearest-neighbour smoothing against a loop."""

import numpy as np
import pytest
from scipy import sparse

from scautoimpute.methods import knn


@pytest.fixture
def x():
    rng = np.random.default_rng(3)
    rate = rng.gamma(0.7, 3, size=(3, 30))[np.arange(40) % 3]
    counts = rng.poisson(rate).astype(float)
    return sparse.csr_array(counts / counts.sum(1, keepdims=True) * 1e4)


def run(x, **options):
    return knn.impute(x, rng=np.random.default_rng(0), **options)


def by_loop(x, n_neighbors, n_pcs, weights):
    dense = x.toarray()
    logs = np.log(1 + dense)
    centred = logs - logs.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ directions[:n_pcs].T
    smoothed = np.empty_like(dense)
    for i, score in enumerate(scores):
        distance = np.sqrt(((scores - score) ** 2).sum(1))
        distance[i] = np.inf
        nearest = np.argsort(distance)[:n_neighbors]
        weight = np.ones(n_neighbors)
        if weights == "gaussian":
            weight = np.exp(-((distance[nearest] / distance[nearest].max()) ** 2))
        smoothed[i] = (dense[i] + weight @ dense[nearest]) / (1 + weight.sum())
    return smoothed


@pytest.mark.parametrize("weights", ["gaussian", "uniform"])
def test_smoothing_is_the_loop(x, weights):
    found = run(x, n_neighbors=6, n_pcs=4, weights=weights)
    np.testing.assert_allclose(found, by_loop(x, 6, 4, weights), rtol=1e-8)


def test_with_every_cell_and_equal_weights_all_become_the_mean(x):
    expected = np.tile(x.toarray().mean(0), (40, 1))
    np.testing.assert_allclose(run(x, n_neighbors=39, weights="uniform"), expected)


def test_weights_of_a_cell_sum_to_one(x):
    weights = knn.cell_weights(np.log1p(x.toarray()), 5, "gaussian").toarray()
    np.testing.assert_allclose(weights.sum(1), 1)
    assert ((weights > 0).sum(1) == 6).all()
    assert (np.diag(weights) == weights.max(1)).all()


def test_identical_cells_stay_as_they_are():
    same = sparse.csr_array(np.tile([[2.0, 0.0, 5.0]], (12, 1)))
    np.testing.assert_allclose(knn.cell_weights(same.toarray(), 3, "gaussian").toarray().sum(1), 1)
    np.testing.assert_allclose(run(same), same.toarray())


def test_few_cells_are_averaged_with_all_others(x):
    few = x[:4]
    np.testing.assert_allclose(run(few, weights="uniform"), np.tile(few.toarray().mean(0), (4, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_neighbors": 40},
            "options= has n_neighbors=40: give a whole number from 1 to 39, the number of other cells",
        ),
        ({"n_neighbors": 0}, "options= has n_neighbors=0"),
        ({"n_pcs": 0}, "options= has n_pcs=0"),
        ({"n_neighbors": "abc"}, "options= has n_neighbors='abc': give a whole number from 1 to 39"),
        ({"n_neighbors": 2.5}, "options= has n_neighbors=2.5: give a whole number"),
        ({"n_neighbors": True}, "options= has n_neighbors=True: give a whole number"),
        ({"n_pcs": 2.5}, "options= has n_pcs=2.5: give a whole number of at least 1"),
        ({"weights": ["uniform"]}, r"options= has weights=\['uniform'\]: choose"),
        ({"weights": "cosine"}, "options= has weights='cosine': choose 'gaussian' or 'uniform'"),
    ],
)
def test_options_out_of_range_are_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        run(x, **options)
