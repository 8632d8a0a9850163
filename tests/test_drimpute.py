"""DrImpute against the original program's stored output, plain loops, scikit-learn and scipy, and at its edges."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from scautoimpute.methods import _moves
from scautoimpute.methods import drimpute as module
from scautoimpute.methods._kmeans import kmeans, within_cluster_squares
from scautoimpute.methods.drimpute import METHOD
from scautoimpute.methods.drimpute import impute as drimpute

DATA = ["mix150", "blake30"]
DISTANCES = ["spearman", "pearson"]


def prepared(counts):
    counts = np.asarray(counts, dtype=np.float64)
    mean = counts.mean(axis=1, keepdims=True)
    return sparse.csr_array(METHOD.takes.apply(counts / np.where(mean > 0, mean, 1)))


def simulated(n_cells=60, n_genes=80, n_types=4, seed=0):
    """Counts of a few cell types."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.5, 4, size=(n_types, n_genes))[np.arange(n_cells) % n_types]
    return rng.poisson(rate)


def run(x, seed=0, **options):
    return drimpute(x, rng=np.random.default_rng(seed), **options)


@pytest.fixture(params=DATA)
def stored(request, golden):
    """Stored output of the original, and its input as prepared here."""
    output = np.load(golden / f"drimpute_{request.param}.npz")
    counts = np.load(golden / f"input_{request.param}.npz")["counts"][:, output["kept_index"]]
    return output, prepared(counts)


# ------------------------------------------------------------------------------------- the original's output


def test_averages_equal_the_originals_given_its_clusterings(stored):
    output, x = stored
    assert np.abs(run(x, clusterings=output["cls"]) - output["imputed"]).max() < 3e-7
    medians = run(x, clusterings=output["cls"], average="median")
    assert np.abs(medians - output["imputed_median"]).max() < 3e-7


@pytest.mark.parametrize("distance", DISTANCES)
def test_components_equal_the_originals(stored, distance):
    output, x = stored
    found = module._components(x, ranked=distance == "spearman")
    expected = output[f"rot_{distance}"]
    sign = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * sign, expected, atol=2e-13)  # 1.3e-13 at most: two eigensolvers' rounding


def test_objective_of_the_clusterings_is_near_the_originals(stored):
    """Which starts 1000 times; over seeds its own differs by 0.6 %."""
    output, _ = stored
    excess = [
        within_cluster_squares(points, kmeans(points, n_clusters=[k], rng=np.random.default_rng(seed))[0]) / squares - 1
        for k, points, squares in stored_clusterings(output)
        for seed in range(3)
    ]
    assert max(excess) < 0.018
    assert np.mean(excess) < 0.003


def stored_clusterings(output):
    for k, distance, squares in zip(output["cls_k"], output["cls_dist"], output["cls_wss"], strict=True):
        yield int(k), output[f"rot_{distance}"], squares


def test_clusterings_run_in_the_order_of_the_original(stored):
    output, x = stored
    labels = module._clusterings(x, range(10, 16), DISTANCES, np.random.default_rng(0))
    for row, (k, points, squares) in zip(labels, stored_clusterings(output), strict=True):
        assert np.unique(row).size == k
        assert within_cluster_squares(points, row) < 1.05 * squares


def test_end_to_end_the_imputed_values_are_the_originals(stored):
    output, x = stored
    zero = x.toarray() == 0
    ours, theirs = run(x)[zero], output["imputed"][zero]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert abs(ours.mean() / theirs.mean() - 1) < 0.02


# ------------------------------------------------------------------------------------- plain computations


def test_correlations_equal_scipys(monkeypatch):
    monkeypatch.setattr(module, "_GENES_AT_ONCE", 7)
    counts = simulated()
    counts[3] += 1  # a cell without zeros
    x = prepared(counts)
    np.testing.assert_allclose(module._correlation(x), np.corrcoef(x.toarray()), atol=1e-12)
    spearman = stats.spearmanr(x.toarray(), axis=1).statistic
    np.testing.assert_allclose(module._correlation(module._shifted_ranks(x)), spearman, atol=1e-12)


@pytest.mark.parametrize(("n_cells", "n_components"), [(8, 1), (30, 2), (50, 2), (70, 4)])
def test_components_equal_scikit_learns(n_cells, n_components):
    """A half goes to the even number: of 30, 50 and 70 cells 1.5, 2.5 and 3.5 become 2, 2 and 4."""
    distance = 1 - np.corrcoef(np.random.default_rng(0).normal(size=(n_cells, 20)))
    standardised = (distance - distance.mean(axis=0)) / distance.std(axis=0)
    expected = PCA(n_components, svd_solver="full").fit(standardised).components_.T
    found = module._loadings(distance)
    assert found.shape == (n_cells, n_components)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)


@pytest.mark.parametrize("ranked", [False, True])
def test_components_by_genes_equal_those_by_cells(ranked):
    """The one way makes the distances of all cells, the other never does; both are exact."""
    x = prepared(simulated(n_cells=300, n_genes=90))
    values = module._shifted_ranks(x) if ranked else x
    by_cells = module._loadings(1 - module._correlation(values))
    found = module._components(x, ranked=ranked)
    assert found.shape == (300, 15)
    np.testing.assert_allclose(found * np.sign((found * by_cells).sum(axis=0)), by_cells, atol=1e-9)


def test_components_are_no_more_than_genes_that_vary():
    x = prepared(simulated(n_cells=300, n_genes=9))
    found = module._components(x, ranked=False)
    assert found.shape == (300, 8)  # the values of a cell, centred, and not 15
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-9)
    assert run(x).shape == x.shape


def test_many_cells_that_are_all_alike():
    x = prepared(np.tile(simulated(n_cells=1), (200, 1)))
    np.testing.assert_allclose(module._components(x, ranked=False), 0, atol=1e-12)
    np.testing.assert_allclose(run(x), x.toarray(), atol=1e-12)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_averages_equal_a_loop(average):
    x = prepared(simulated(n_cells=20, n_genes=15)).toarray()
    labels = np.random.default_rng(1).integers(-1, 3, size=(4, 20))
    expected = x.copy()
    for cell, gene in np.argwhere(x == 0):
        groups = [x[row == row[cell], gene] if row[cell] >= 0 else np.zeros(1) for row in labels]
        if average == "median":
            groups = [group if group.size > 4 else np.zeros(1) for group in groups]
        expected[cell, gene] = np.mean([getattr(np, average)(group) for group in groups])
    found = run(sparse.csr_array(x), clusterings=labels, average=average)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("n_points", "n_clusters"), [(40, 6), (300, 12), (3000, 5)])
def test_kmeans_is_no_worse_than_scikit_learns(n_points, n_clusters):
    points = np.random.default_rng(0).normal(size=(n_points, 3))
    labels = kmeans(points, n_clusters=[n_clusters], rng=np.random.default_rng(0))[0]
    theirs = KMeans(n_clusters, n_init=20, random_state=0).fit(points).inertia_
    assert within_cluster_squares(points, labels) < 1.005 * theirs
    assert np.unique(labels).size == n_clusters


def test_kmeans_of_several_numbers_is_that_of_each():
    points = np.random.default_rng(0).normal(size=(40, 3))
    together = kmeans(points, n_clusters=[7, 2, 5], rng=np.random.default_rng(0))
    assert [np.unique(row).size for row in together] == [7, 2, 5]
    # Which starts are drawn alike, so the most is the same to the label; the others are the same to the optimum.
    np.testing.assert_array_equal(together[0], kmeans(points, n_clusters=[7], rng=np.random.default_rng(0))[0])
    for row, k in zip(together, [7, 2, 5], strict=True):
        alone = kmeans(points, n_clusters=[k], rng=np.random.default_rng(1))[0]
        assert within_cluster_squares(points, row) == pytest.approx(within_cluster_squares(points, alone), rel=0.02)


@pytest.mark.parametrize("in_turn_from", [1, 500], ids=["in turn", "the best"])
def test_kmeans_ends_where_no_single_move_helps(in_turn_from, monkeypatch):
    monkeypatch.setattr(_moves, "_IN_TURN_FROM", in_turn_from)
    points = np.random.default_rng(0).normal(size=(25, 2))
    labels = kmeans(points, n_clusters=[4, 3], rng=np.random.default_rng(0))[0]  # the other run lacks a cluster
    assert np.unique(labels).size == 4
    least = within_cluster_squares(points, labels)
    for point in range(25):
        for other in range(4):
            moved = np.where(np.arange(25) == point, other, labels)
            assert within_cluster_squares(points, moved) > least * (1 - 1e-9)


@pytest.mark.parametrize("in_turn_from", [1, 500], ids=["in turn", "the best"])
def test_kmeans_of_points_that_repeat(in_turn_from, monkeypatch):
    monkeypatch.setattr(_moves, "_IN_TURN_FROM", in_turn_from)
    points = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], 5, axis=0)
    labels = kmeans(points, n_clusters=[5], rng=np.random.default_rng(0))[0]
    assert within_cluster_squares(points, labels) == pytest.approx(0, abs=1e-12)
    assert kmeans(np.ones((4, 2)), n_clusters=[3, 2], rng=np.random.default_rng(0)).shape == (2, 4)


# ------------------------------------------------------------------------------------- invariants and edges


def test_non_zeros_stay_and_zeros_are_filled_within_the_genes_range():
    x = prepared(simulated())
    imputed, dense = run(x), x.toarray()
    np.testing.assert_array_equal(imputed[dense > 0], dense[dense > 0])
    assert (imputed >= 0).all()
    assert (imputed <= dense.max(axis=0)).all()
    assert (imputed[dense == 0] > 0).mean() > 0.1


def test_same_generator_same_result():
    x = prepared(simulated(n_cells=200))
    np.testing.assert_array_equal(run(x, seed=5), run(x, seed=5))


def test_cell_types_are_not_mixed():
    x = prepared(simulated())
    labels = module._clusterings(x, [4], DISTANCES, np.random.default_rng(0))
    for row in labels:
        assert len({(kind, label) for kind, label in zip(np.arange(60) % 4, row, strict=True)}) == 4


def test_permuting_cells_permutes_the_result():
    x = prepared(simulated())
    order = np.random.default_rng(3).permutation(60)
    np.testing.assert_allclose(run(x[order], n_clusters=[4]), run(x, n_clusters=[4])[order], atol=1e-12)


@pytest.mark.parametrize("constant", [0, 3], ids=["empty", "equal in all genes"])
def test_cells_without_a_correlation_stay_and_change_nothing_else(constant):
    counts = simulated()
    with_constant = np.insert(counts, 7, constant, axis=0)
    imputed = run(prepared(with_constant))
    np.testing.assert_array_equal(imputed[7], prepared(with_constant).toarray()[7])
    np.testing.assert_allclose(np.delete(imputed, 7, axis=0), run(prepared(counts)), atol=1e-12)


def test_one_cluster_is_the_mean_of_the_gene():
    dense = prepared(simulated()).toarray()
    np.testing.assert_allclose(
        run(sparse.csr_array(dense), n_clusters=[1]), np.where(dense > 0, dense, dense.mean(axis=0)), atol=1e-12
    )


def test_genes_without_counts_stay_zero():
    counts = simulated()
    counts[:, [0, 5]] = 0
    assert not run(prepared(counts))[:, [0, 5]].any()


def test_cells_that_are_all_alike():
    counts = np.tile(simulated(n_cells=1), (20, 1))
    np.testing.assert_allclose(run(prepared(counts)), prepared(counts).toarray(), atol=1e-12)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_one_cluster_per_cell_fills_nothing(average):
    x = prepared(simulated(n_cells=20))
    np.testing.assert_array_equal(run(x, clusterings=[np.arange(20)], average=average), x.toarray())


def test_sixteen_cells_are_enough_and_fewer_need_fewer_clusters():
    assert run(prepared(simulated(n_cells=16))).shape == (16, 80)
    few = prepared(simulated(n_cells=15))
    with pytest.raises(
        ValueError, match=r"n_clusters=range\(10, 16\): give a list of whole numbers from 1 to 14, one less"
    ):
        run(few)
    assert run(few, n_clusters=[2, 3]).shape == few.shape
    assert run(few[: METHOD.min_cells], n_clusters=[2]).shape == (METHOD.min_cells, 80)


@pytest.mark.parametrize("n_clusters", [[], [0, 3], [60], 5, [2.5], ["a"], "ab"])
def test_impossible_numbers_of_clusters_are_refused(n_clusters):
    with pytest.raises(
        ValueError, match=r"options= has n_clusters=.*: give a list of whole numbers from 1 to 59, one less"
    ):
        run(prepared(simulated()), n_clusters=n_clusters)


@pytest.mark.parametrize("distances", [["euclidean"], "spearman", [], 5, [1]])
def test_unknown_distance_is_refused(distances):
    with pytest.raises(ValueError, match=r"options= has distances=.*: give a list of 'spearman' or 'pearson'"):
        run(prepared(simulated()), distances=distances)


@pytest.mark.parametrize("average", ["mode", ["mean"], None])
def test_unknown_average_is_refused(average):
    with pytest.raises(ValueError, match=r"options= has average=.*: choose 'mean' or 'median'"):
        run(prepared(simulated()), average=average)


def test_cells_equal_in_all_genes_are_told_as_such():
    with pytest.raises(ValueError, match="0 of 20 cells differ between genes, and method='drimpute' correlates cells"):
        run(prepared(np.ones((20, 8))))


@pytest.mark.parametrize(
    "labels", [np.zeros(60, int), np.zeros((2, 59), int), np.zeros((2, 60)), np.zeros((0, 60), int)]
)
def test_clusterings_of_the_wrong_shape_or_type_are_refused(labels):
    with pytest.raises(ValueError, match=r"clusterings of shape .*whole numbers.* each of the 60 cells"):
        run(prepared(simulated()), clusterings=labels)
