"""The bundled sample and the simulation."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scautoimpute import pp
from scautoimpute.datasets import pbmc68k_reduced, simulate


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
