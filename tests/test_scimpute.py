"""scImpute: every step and the whole, against the original's stored output and independent computations."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse, special, stats
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from scautoimpute.methods import _populations
from scautoimpute.methods._mixture import ZERO, dropout_probabilities, fit_mixtures, usable
from scautoimpute.methods._nonnegative import nonnegative_weights
from scautoimpute.methods.scimpute import _clusters, _dropped, _labelled, _neighbours, _predictions
from scautoimpute.methods.scimpute import impute as scimpute

RUNS = ["mix150_K3", "mix150_labels", "blake30_K3", "blake30_labels", "small_K1", "small_K2"]
FOUND = ["mix150_K3", "blake30_K3", "small_K2"]
# Of some ten thousand parameters of a run: shapes and rates off by more than 5e-4, others by more than 1e-4.
BEYOND = {"mix150_K3": (1, 0), "mix150_labels": (1, 0), "blake30_K3": (2, 0), "blake30_labels": (1, 1)}
LABELLED = ["mix150_labels", "blake30_labels"]


class Stored:
    """A run of the original."""

    def __init__(self, folder, name):
        self.name, self.of = name, np.load(folder / f"scimpute_{name}.npz")
        data = self.of if "counts" in self.of else np.load(folder / f"input_{name.split('_')[0]}.npz")
        self.counts, self.labels = data["counts"].astype(float), data["labels"]
        self.scale = self.counts.sum(axis=1, keepdims=True) / 1e6
        self.x = self.log(self.counts)

    def log(self, counts):
        return np.log10(counts / self.scale + 1.01)

    def clusters(self):
        for number in np.unique(self.of["clust"]):
            if f"pars_{number}" in self.of:
                yield number, np.flatnonzero(self.of["clust"] == number)

    def comparable(self):
        """Cells that the original neither gave up on (one dropout) nor left short of the optimum."""
        compare = np.ones(len(self.x), dtype=bool)
        for number, cells in self.clusters():
            converged = self.of[f"nnls_converged_{number}"] == 1
            compare[cells] = converged & (self.of[f"nnls_status_{number}"] != 3)
        return compare

    def impute(self, **options):
        values, _ = scimpute(sparse.csr_array(self.counts), rng=np.random.default_rng(0), **options)
        return values

    def scores(self):
        genes = _populations.variable_genes(self.x)
        number = int(self.of["Kcluster"])
        return _populations.principal_components(self.x[:, genes], at_least=number, exact_below=5000, rng=None)


@pytest.fixture(params=RUNS)
def stored(golden, request):
    return Stored(golden, request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20180308)


@pytest.fixture
def counts(rng):
    """Two populations of 15 cells, 80 genes, a tenth of the values lost."""
    means = rng.gamma(0.5, 90, size=(2, 80))[np.repeat([0, 1], 15)]
    return rng.poisson(means * rng.lognormal(0, 0.2, size=(30, 1))) * (rng.random((30, 80)) > 0.1)


def run(counts, **options):
    values, _ = scimpute(sparse.csr_array(counts.astype(float)), rng=np.random.default_rng(1), **options)
    return values


# ------------------------------------------------------------------------------------------- the original's steps


def test_mixtures_are_the_originals(stored):
    off = []
    for number, cells in stored.clusters():
        mine, theirs = np.array(fit_mixtures(stored.x[cells])).T, stored.of[f"pars_{number}"]
        plain = np.isfinite(theirs) & (theirs != 0)
        np.testing.assert_array_equal(mine[~plain], theirs[~plain])
        off += np.abs(np.where(plain, mine, 1) / np.where(plain, theirs, 1) - 1).tolist()
    # R's uniroot stops within 1.2e-4 of the shape, and EM carries that on to the rate and the rest: here it is exact.
    off = np.array(off)
    beyond_shape, beyond = BEYOND.get(stored.name, (0, 0))
    assert (np.count_nonzero(off[:, 1:3] > 5e-4), np.count_nonzero(off[:, [0, 3, 4]] > 1e-4)) == (beyond_shape, beyond)
    assert off[:, 1:3].max() < 5.2e-4
    assert off[:, [0, 3, 4]].max() < 1.02e-4


def test_dropouts_are_the_originals(stored):
    for number, cells in stored.clusters():
        x, mixture = stored.x[cells], fit_mixtures(stored.x[cells])
        valid = np.flatnonzero(usable(mixture))
        np.testing.assert_array_equal(valid, stored.of[f"valid_{number}"])
        x, mixture = x[:, valid], mixture.take(valid)
        np.testing.assert_allclose(dropout_probabilities(x, mixture), stored.of[f"dropprob_{number}"], atol=1e-3)
        np.testing.assert_array_equal(_dropped(x, mixture, 0.5), stored.of[f"dropout_{number}"])


def test_weights_are_the_originals(golden):
    stored = Stored(golden, "blake30_K3")
    for number, cells in stored.clusters():
        x = stored.x[np.ix_(cells, stored.of[f"valid_{number}"])]
        kept, expected = ~stored.of[f"dropout_{number}"], stored.of[f"nnls_coef_{number}"]
        for row in range(len(x)):
            others = np.delete(np.arange(len(x)), row)
            found = nonnegative_weights(x, np.linalg.norm(x, axis=1), row, others, kept[row])
            np.testing.assert_allclose(found, expected[row], atol=1e-3)


@pytest.mark.parametrize("name", [*FOUND, "small_K1"])
def test_components_and_outliers_are_the_originals(golden, name):
    stored = Stored(golden, name)
    np.testing.assert_array_equal(_populations.variable_genes(stored.x), stored.of["hv_index"])
    scores = stored.scores()
    np.testing.assert_allclose(cdist(scores, scores), stored.of["dist_cells"], atol=1e-5)
    np.testing.assert_allclose(_populations.nearest_distances(scores), stored.of["min_dist"], rtol=1e-9)
    if name != "small_K1":  # one cluster: the original sets nobody aside
        np.testing.assert_array_equal(np.flatnonzero(_populations.outlying(scores)), stored.of["outliers"])


@pytest.mark.parametrize("name", LABELLED)
def test_components_of_a_label_are_the_originals(golden, name):
    stored = Stored(golden, name)
    for number, cells in stored.clusters():
        x = stored.x[np.ix_(cells, stored.of["hv_index"])]
        scores = _populations.principal_components(x, at_least=1, exact_below=1000, rng=None)
        np.testing.assert_allclose(cdist(scores, scores), stored.of[f"dist_{number}"], atol=1e-5)


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("seed", range(2))
def test_clusters_are_those_of_one_of_the_originals_runs(golden, name, seed):
    stored = Stored(golden, name)
    scores, cells = stored.scores(), np.flatnonzero(stored.of["clust"] > 0)
    found = _populations.spectral_clusters(
        scores[cells], n_clusters=int(stored.of["Kcluster"]), rng=np.random.default_rng(seed)
    )
    runs = [stored.of["clust"], *stored.of["clust_other_seeds"]]
    agreement = [adjusted_rand_score(run[cells], found) for run in runs]
    among_runs = [adjusted_rand_score(run[cells], other[cells]) for run in runs for other in runs]
    assert max(agreement) == 1
    assert min(agreement) >= min(among_runs) - 1e-9


def test_whole_result_is_the_originals(stored):
    options = {"labels": stored.labels} if stored.name in LABELLED else {"clusters": stored.of["clust"]}
    imputed, expected = stored.impute(**options), stored.of["imputed_counts_hundredths"] / 100
    cells, changed = stored.comparable(), stored.of["changed"]
    assert cells.sum() >= {"small_K1": 101}.get(stored.name, len(cells))
    # a value at the edge of a hundredth may be rounded to either side
    np.testing.assert_allclose(imputed[cells], expected[cells], atol=0.0101)
    assert np.mean(imputed[cells] != expected[cells]) < 1e-4
    kept = ~changed & cells[:, np.newaxis]
    np.testing.assert_array_equal(imputed[kept], stored.counts[kept])


def test_unrounded_values_are_the_originals(stored):
    x, expected = stored.x, stored.x.copy()
    labelled = stored.name in LABELLED
    clusters = _labelled(x, stored.labels, None) if labelled else _clusters(x, None, stored.of["clust"], None)
    found = x.copy()
    for cell, genes, values in _predictions(x, clusters, 0.5):
        found[cell, genes] = values
    expected[stored.of["changed"]] = stored.of["changed_log10"]
    cells = stored.comparable()
    np.testing.assert_allclose(found[cells], expected[cells], atol=5e-4)
    assert np.mean(np.abs(found - expected)[cells].max(axis=1) < 1e-6) >= 0.96


def test_found_clusters_give_the_originals_result(golden):
    stored = Stored(golden, "mix150_K3")
    imputed, expected = stored.impute(n_clusters=3), stored.of["imputed_counts_hundredths"] / 100
    np.testing.assert_allclose(imputed, expected, atol=0.0101)


# ------------------------------------------------------------------------------------------ independent computations


def shape_equation(shape, gap):
    return np.log(shape) - special.digamma(shape) - gap


def em_by_loop(x):
    """The mixture of one gene, with SciPy's densities and a bracketed root."""
    expressed = x[x > ZERO]
    share = max(np.mean(x <= ZERO), 0) or 0.01
    shape, rate, mean, sd, before = 0.5, 1.0, expressed.mean(), expressed.std(ddof=1), 0.0
    for _ in range(101):
        gamma = share * stats.gamma.pdf(x, shape, scale=1 / rate)
        w = gamma / (gamma + (1 - share) * stats.norm.pdf(x, mean, sd))
        share, mean = w.mean(), np.average(x, weights=1 - w)
        sd = np.sqrt(np.average((x - mean) ** 2, weights=1 - w))
        gap = np.log(np.average(x, weights=w)) - np.average(np.log(x), weights=w)
        at_cap = gap <= np.log(20) - special.digamma(20)
        shape = 20.0 if at_cap else optimize.brentq(shape_equation, 1e-3, 20, args=(gap,))
        rate = shape / np.average(x, weights=w)
        density = share * stats.gamma.pdf(x, shape, scale=1 / rate) + (1 - share) * stats.norm.pdf(x, mean, sd)
        likelihood = np.log10(density).sum()
        if (likelihood - before) ** 2 <= 0.5:
            break
        before = likelihood
    return share, shape, rate, mean, sd


def test_mixtures_equal_a_loop_over_genes(rng):
    x = np.where(rng.random((60, 25)) < 0.3, 0, rng.gamma(2, 40, size=(60, 25)))
    x = np.log10(np.where(rng.random(x.shape) < 0.1, 0.5, x) + 1.01)
    x[:, 3] = np.log10(rng.gamma(5, 50, size=60) + 1.01)  # without zeros
    found = np.array(fit_mixtures(x)).T
    np.testing.assert_allclose(found, [em_by_loop(gene) for gene in x.T], rtol=1e-6)


def test_mixtures_do_not_depend_on_the_genes_beside_them(rng, monkeypatch):
    x = np.log10(rng.poisson(2, size=(40, 30)) * rng.uniform(20, 50, size=(40, 1)) + 1.01)
    whole = np.array(fit_mixtures(x))
    monkeypatch.setattr("scautoimpute.methods._mixture._BLOCK", 50)
    np.testing.assert_allclose(fit_mixtures(x), whole, rtol=1e-9)


def test_genes_with_fewer_than_two_expressed_values_are_not_fitted(rng):
    x = np.full((12, 3), ZERO)
    x[0, 1], x[:2, 2] = 2.0, [2.0, 2.2]
    found = fit_mixtures(x)
    np.testing.assert_array_equal(np.isnan(found.mean), [True, True, False])
    np.testing.assert_array_equal(usable(found), [False, False, True])


@pytest.mark.parametrize(("n_cells", "n_genes"), [(12, 300), (150, 400), (200, 90)])
def test_weights_are_optimal(rng, n_cells, n_genes):
    x = np.log10(rng.gamma(1, 30, size=(1, n_genes)) * rng.lognormal(0, 0.7, size=(n_cells, n_genes)) + 1.01)
    kept, others = rng.random(n_genes) < 0.8, np.delete(np.arange(n_cells), 4)
    candidates = others[: min(len(others), int(kept.sum() * 0.66))]
    weights = nonnegative_weights(x, np.linalg.norm(x, axis=1), 4, candidates, kept)
    expected, residual = optimize.nnls(x[candidates][:, kept].T, x[4, kept])
    np.testing.assert_allclose(weights[candidates], expected, atol=1e-6)
    assert np.linalg.norm(x[4, kept] - weights @ x[:, kept]) <= residual * (1 + 1e-12)
    gradient = x[candidates][:, kept] @ (x[4, kept] - weights @ x[:, kept])
    assert gradient.max() < 1e-6
    assert abs(gradient @ weights[candidates]) < 1e-6
    assert weights.min() >= 0
    assert np.flatnonzero(weights).tolist() == sorted({*np.flatnonzero(weights)} & {*candidates})


def test_weights_of_equal_cells(rng):
    x = np.repeat(rng.gamma(2, 1, size=(3, 50)), 4, axis=0)
    weights = nonnegative_weights(x, np.linalg.norm(x, axis=1), 0, np.arange(1, 12), np.ones(50, dtype=bool))
    np.testing.assert_allclose(weights @ x, x[0], atol=1e-7)


def test_nearest_cells_take_part_where_genes_are_few(rng):
    scores = rng.normal(size=(1200, 3))
    distances = np.linalg.norm(scores - scores[7], axis=1)
    order = np.argsort(distances)[1:]
    np.testing.assert_array_equal(np.sort(_neighbours(scores[:40], 7, n_genes=40)), np.delete(np.arange(40), 7))
    np.testing.assert_array_equal(_neighbours(scores, 7, n_genes=501), order[:500])
    np.testing.assert_array_equal(_neighbours(scores, 7, n_genes=100), order[:67])


def test_components_equal_a_singular_value_decomposition(rng):
    for shape in [(40, 25), (25, 40)]:
        x = rng.normal(size=shape) * np.geomspace(9, 1, shape[1])
        left, singular, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        for exact_below, share in [(5000, 0.4), (1, 0.6)]:
            held = np.cumsum(singular**2) / np.sum(singular**2)
            n = max(int((held <= share).sum()) + 1, 3)
            scores = _populations.principal_components(x, at_least=1, exact_below=exact_below, rng=rng)
            np.testing.assert_allclose(np.abs(scores), np.abs(left * singular)[:, :n], atol=1e-8)


def test_number_of_clusters_is_found(rng):
    centres = np.repeat(np.eye(4) * 30, 12, axis=0)
    assert _populations.number_of_clusters(centres + rng.normal(size=centres.shape), rng=rng) == 4
    assert _populations.number_of_clusters(centres[:19], rng=rng) == 1
    assert _populations.number_of_clusters(np.zeros((30, 3)), rng=rng) == 1
    assert _populations.number_of_clusters(rng.normal(size=(60, 10)), rng=rng) == 1


# -------------------------------------------------------------------------------------------------------- the whole


def test_populations_are_found_without_their_number(counts, rng):
    x = np.log10(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1.01)
    found = _clusters(x, None, None, rng)
    assert len(found) == 2
    assert all(np.unique(cluster.cells // 15).size == 1 for cluster in found)
    assert sum(cluster.cells.size for cluster in found) >= 27  # the others are outliers


@pytest.mark.parametrize("options", [{}, {"n_clusters": 2}, {"labels": ["a", "b", None] * 10}])
def test_the_number_of_populations_is_told(counts, options):
    found = scimpute(sparse.csr_array(counts.astype(float)), rng=np.random.default_rng(1), **options)
    assert found.learned == {"n_clusters": 2}


def test_dropouts_are_filled(counts):
    imputed = run(counts)
    assert imputed.dtype == np.float64
    assert imputed.min() >= 0
    np.testing.assert_allclose(imputed * 100, np.round(imputed * 100), atol=1e-6)
    np.testing.assert_array_equal(imputed, run(counts, n_clusters=2))
    assert (imputed == 0).mean() < 0.5 * (counts == 0).mean()


def test_order_of_the_cells_does_not_matter(counts, rng):
    labels, order = np.repeat(["a", "b"], 15), rng.permutation(30)
    np.testing.assert_allclose(run(counts[order], labels=labels[order]), run(counts, labels=labels)[order], atol=0.011)


def test_cells_set_aside_stay_and_give_nothing(counts):
    clusters = np.repeat([1, 2], 15)
    clusters[[0, 20]] = -1
    imputed = run(counts, clusters=clusters)
    np.testing.assert_array_equal(imputed[[0, 20]], counts[[0, 20]])
    other = counts.copy()
    other[0] *= 3  # every count per million of the cell stays, so do the components
    np.testing.assert_array_equal(run(other, clusters=clusters)[1:], imputed[1:])


@pytest.mark.parametrize(
    "labels",
    [
        [*["EPI"] * 10, None, *["TE"] * 19],
        pd.Categorical([*[5] * 10, np.nan, *[7] * 19]),
        [*[1.0] * 10, np.nan] + [2.0] * 19,
    ],
)
def test_labels_of_any_kind_and_missing_ones(counts, labels):
    imputed = run(counts, labels=labels)
    np.testing.assert_array_equal(imputed[10], counts[10])
    assert (imputed[:10] != counts[:10]).any()
    np.testing.assert_array_equal(imputed, run(counts, labels=np.repeat(["b", None, "a"], [10, 1, 19])))


def test_one_dropout_is_imputed_as_two_are(rng):
    counts = rng.poisson(rng.gamma(9, 9, size=40) * np.ones((20, 1)))
    counts[2, 5] = counts[3, 5] = counts[3, 6] = 0
    imputed = run(counts, n_clusters=1)
    assert imputed[2, 5] > 0
    assert imputed[3, 5:7].min() > 0
    assert (imputed != counts).sum() == 3


def test_cells_and_genes_without_counts_stay_empty(counts):
    counts[4], counts[:, 11] = 0, 0
    imputed = run(counts, n_clusters=1)
    assert not imputed[4].any()
    assert not imputed[:, 11].any()


def test_clusters_of_one_cell_or_few_genes_stay(counts):
    np.testing.assert_array_equal(run(counts, labels=np.arange(30)), counts)
    np.testing.assert_array_equal(run(counts[:, :10], n_clusters=1), counts[:, :10])
    assert (run(counts[:, :11], n_clusters=1) != counts[:, :11]).any()


def test_a_lower_threshold_replaces_more(counts):
    replaced = [(run(counts, n_clusters=1, dropout_threshold=t) != counts).sum() for t in (0.999, 0.5, 0.001)]
    assert replaced == sorted(replaced)
    assert replaced[0] < replaced[-1]


def test_counts_are_not_overwritten(counts):
    given = sparse.csr_array(counts.astype(float))
    kept = given.copy()
    scimpute(given, rng=np.random.default_rng(0), n_clusters=2)
    np.testing.assert_array_equal(given.toarray(), kept.toarray())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 31}, "options= has n_clusters=31: give a whole number from 1 to 30, the number of cells"),
        ({"n_clusters": 0}, "options= has n_clusters=0: give a whole number from 1"),
        ({"n_clusters": 2.5}, "options= has n_clusters=2.5: give a whole number from 1"),
        ({"n_clusters": True}, "options= has n_clusters=True: give a whole number from 1"),
        ({"labels": ["a"] * 29}, r"options= has labels of shape \(29,\) for 30 cells: give a value for each cell"),
        ({"clusters": np.ones((30, 2))}, r"options= has clusters of shape \(30, 2\) for 30 cells"),
        (
            {"clusters": np.ones((2, 30))},
            r"options= has clusters of shape \(2, 30\): give a single value for each of 30",
        ),
        ({"dropout_threshold": "x"}, "options= has dropout_threshold='x': give a number above 0 and below 1"),
        (
            {"clusters": np.full(30, -2)},
            "options= has clusters of int64 from -2: give whole numbers from 0, -1 for outliers",
        ),
        ({"clusters": ["a"] * 30}, "options= has clusters of <U1: give whole numbers from 0"),
        ({"clusters": np.ones(30)}, "options= has clusters of float64 from 1.0: give whole numbers"),
        ({"dropout_threshold": 0}, "options= has dropout_threshold=0: give a number above 0 and below 1"),
        ({"dropout_threshold": 1.0}, "options= has dropout_threshold=1.0: give a number"),
        ({"dropout_threshold": np.nan}, "options= has dropout_threshold=nan: give a number"),
        (
            {"labels": ["a"] * 30, "n_clusters": 2},
            "options= has n_clusters and labels, which exclude each other: give one",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(counts, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(counts, **options)
    assert "\n" not in str(caught.value)


def test_more_clusters_than_cells_that_are_no_outliers(rng):
    counts = rng.poisson(20, size=(10, 60))
    counts[9] = rng.poisson(rng.gamma(0.1, 200, size=60))
    with pytest.raises(
        ValueError, match="options= has n_clusters=10, but only 9 cells are no outliers: give at most as many"
    ):
        run(counts, n_clusters=10)
