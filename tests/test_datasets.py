"""The bundled sample and the simulation."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scautoimpute import pp
from scautoimpute.datasets import pbmc68k_reduced, permute_genes, simulate


def test_pbmc_counts_are_exact(shared_data):
    adata = pbmc68k_reduced()
    stored = ad.read_h5ad(shared_data / "paper" / "pbmc68k_700x765.h5ad")
    assert (adata.X != stored.X).nnz == 0
    assert list(adata.obs_names) == list(stored.obs_names)
    assert list(adata.var_names) == list(stored.var_names)
    assert list(adata.obs["cell_type"]) == list(stored.obs["cell_type"])


def test_pbmc_is_clean_and_explains_what_scanpy_ships():
    import scanpy

    adata = pbmc68k_reduced()
    assert adata.shape == (700, 765)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.X.data.min() == 1
    assert list(adata.obs.columns) == ["cell_type"]
    assert not adata.uns
    assert not adata.obsm
    shipped = np.expm1(scanpy.datasets.pbmc68k_reduced().raw.X.toarray().astype(float))
    factor = shipped.sum(axis=1) / adata.X.toarray().sum(axis=1)
    np.testing.assert_allclose(adata.X.toarray() * factor[:, None], shipped, rtol=5e-3)
    pp.recipe_autoimpute(adata)
    assert 0 < adata.n_vars <= 765


def test_simulated_counts_follow_the_truth():
    adata = simulate(n_cells=400, n_genes=300, dropout=0, overdispersion=0.2, random_state=1)
    counts, truth = adata.X.toarray().astype(float), adata.layers["truth"].astype(float)
    np.testing.assert_allclose(counts.sum(axis=0) / truth.sum(axis=0), 1, atol=0.35)
    residual = (counts - truth) ** 2
    variance = truth + 0.2 * truth**2
    assert residual.sum() / variance.sum() == pytest.approx(1, abs=0.1)
    poisson = simulate(n_cells=400, n_genes=300, dropout=0, overdispersion=0, random_state=1)
    error = poisson.X.toarray() - poisson.layers["truth"]
    assert (error**2).sum() / poisson.layers["truth"].sum() == pytest.approx(1, abs=0.05)


def test_simulated_dropout_has_the_asked_share_and_hits_weak_expression():
    whole, lossy = (simulate(overdispersion=0, dropout=share, random_state=3) for share in (0, 0.4))
    truth = lossy.layers["truth"]
    np.testing.assert_array_equal(truth, whole.layers["truth"])
    strong, weak = truth > 10, (truth > 3) & (truth < 4)  # hardly any of these are zero by chance
    assert 1 - lossy.X.toarray()[strong].astype(bool).mean() < 1 - lossy.X.toarray()[weak].astype(bool).mean() - 0.1
    assert 0.6 < lossy.X.sum() / whole.X.sum() < 1  # molecules are lost less often than entries
    certain = simulate(n_cells=50, n_genes=50, library_size=1e7, overdispersion=0, dropout=0.4, random_state=0)
    assert (certain.X.toarray() == 0).mean() == pytest.approx(0.4, abs=0.04)


def test_simulated_types_differ_in_the_asked_share_of_genes():
    adata = simulate(n_cells=31, n_genes=2000, n_types=2, marker_share=0.1, marker_log_fold=2, random_state=5)
    assert sorted(adata.obs["cell_type"].value_counts()) == [15, 16]
    one, two = (np.log(adata[adata.obs["cell_type"] == kind].layers["truth"][0]) for kind in ("type_1", "type_2"))
    difference = one - two
    unchanged = np.abs(difference - np.median(difference)) < 1e-4
    assert unchanged.mean() == pytest.approx(0.9**2, abs=0.04)
    same = simulate(n_cells=31, n_types=2, marker_share=0, random_state=5)
    profiles = same.layers["truth"] / same.layers["truth"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(profiles, np.tile(profiles[0], (31, 1)), rtol=1e-5)


def test_simulation_is_reproducible():
    first, again, other = simulate(), simulate(random_state=np.random.default_rng(0)), simulate(random_state=1)
    assert (first.X != again.X).nnz == 0
    assert (first.X != other.X).nnz > 0
    assert isinstance(first.X, sparse.csr_matrix)
    assert first.shape == (300, 1000)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_cells", 0),
        ("n_types", 301),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("marker_share", 2),
        ("overdispersion", -1),
    ],
)
def test_simulation_parameters_are_checked(parameter, value):
    with pytest.raises(ValueError, match=rf"{parameter} is {value}; allowed is .* to "):
        simulate(**{parameter: value})


def test_simulations_of_before_keep_their_bytes():
    explicit = simulate(structure="types", type_shares=None, library_spread=0.4, n_batches=1)
    assert (explicit.X != simulate().X).nnz == 0
    assert simulate(n_cells=60, n_genes=100).X.sum() == 297130  # of the first release


def test_without_structure_every_cell_has_one_profile():
    adata = simulate(n_cells=50, structure="none", random_state=2)
    truth = adata.layers["truth"].astype(float)
    profiles = truth / truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(profiles, np.tile(profiles[0], (50, 1)), rtol=1e-5)
    assert adata.obs["cell_type"].nunique() == 3


@pytest.mark.parametrize(("shares", "sizes"), [((0.6, 0.39, 0.01), [120, 78, 2]), ((0.998, 0.001, 0.001), [198, 1, 1])])
def test_types_have_the_shares_asked_for(shares, sizes):
    adata = simulate(n_cells=200, n_genes=20, type_shares=shares)
    assert adata.obs["cell_type"].value_counts(sort=False).to_list() == sizes


def test_batches_shift_genes_whatever_the_type():
    adata = simulate(n_cells=40, n_genes=500, n_batches=2, batch_effect=0.5, marker_share=0, random_state=1)
    assert sorted(adata.obs["batch"].value_counts()) == [20, 20]
    truth = adata.layers["truth"].astype(float)
    profiles = np.log(truth / truth.sum(axis=1, keepdims=True))
    first = (adata.obs["batch"] == "batch_1").to_numpy()
    assert np.ptp(profiles[first], axis=0).max() < 1e-4
    difference = profiles[first][0] - profiles[~first][0]
    assert np.std(difference) == pytest.approx(0.5 * np.sqrt(2), rel=0.1)


def test_library_sizes_spread_as_asked():
    logs = np.log(simulate(n_cells=400, n_genes=50, library_spread=0.8).layers["truth"].sum(axis=1))
    assert np.std(logs) == pytest.approx(0.8, rel=0.15)
    assert np.ptp(np.log(simulate(n_genes=50, library_spread=0).layers["truth"].sum(axis=1))) < 1e-4


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.2, 0.2, 0.2)])
def test_shares_of_types_are_checked(shares):
    with pytest.raises(ValueError, match=r"type_shares is .*; give 3 \(n_types\) shares above 0 that sum to 1"):
        simulate(type_shares=shares)


def test_structure_is_checked():
    with pytest.raises(ValueError, match="structure='some' is not known: choose 'types' or 'none'"):
        simulate(structure="some")


def test_permuted_genes_keep_their_values_and_lose_their_correlations(array_type):
    adata = simulate(n_cells=200, n_genes=80, dropout=0, library_spread=1.0, random_state=4)
    before = adata.X.toarray()
    adata.X = array_type(before)
    permuted = permute_genes(adata, random_state=1)
    after = permuted.X.toarray() if sparse.issparse(permuted.X) else permuted.X
    np.testing.assert_array_equal(np.sort(after, axis=0), np.sort(before, axis=0))
    assert list(permuted.obs_names) == list(adata.obs_names)
    assert not permuted.layers
    sizes = [np.abs(np.corrcoef(x.T)[np.triu_indices(80, 1)]).mean() for x in (before, after)]
    assert sizes[0] > 0.3
    assert sizes[1] < 0.08
    assert np.std(np.log(after.sum(axis=1))) < np.std(np.log(before.sum(axis=1))) / 2
    again = permute_genes(adata, random_state=1)
    assert abs(again.X - permuted.X).sum() == 0
