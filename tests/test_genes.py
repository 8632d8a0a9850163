"""Gene selection against the documented rule written out as a loop, and where the published R code breaks."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scautoimpute import pp
from scautoimpute._genes import gene_scores


@pytest.fixture
def adata():
    rng = np.random.default_rng(7)
    counts = rng.negative_binomial(1, 0.03, size=(40, 120)) * (rng.random((40, 120)) < 0.6)
    return ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))


def signed_scores_by_loop(x):
    """The documented rule, written out gene by gene."""
    mean = x.mean(axis=0)
    dispersion = x.var(axis=0, ddof=1) / mean
    edges = np.unique(np.quantile(mean, np.linspace(0.1, 1, 19)))
    bins = np.digitize(mean, edges, right=True)
    scores = np.zeros(mean.size)
    for g in range(mean.size):
        peers = dispersion[bins == bins[g]]
        deviation = np.abs(peers - np.median(peers))
        spread = 1.4826 * np.median(deviation) or 1.253314 * deviation.mean()
        scores[g] = (dispersion[g] - np.median(peers)) / spread if spread else 0
    return scores


def test_signed_dispersion_by_loop(adata):
    pp.filter_genes(adata)
    pp.normalize_median(adata)
    x = adata.X.toarray().astype(float)
    scores = signed_scores_by_loop(x)
    assert scores.min() < -1 < 1 < scores.max()
    np.testing.assert_allclose(
        gene_scores(sparse.csr_array(x), flavor="dispersion", reference=False), scores, atol=1e-9
    )
    names = adata.var_names[np.sort(np.argsort(-scores, kind="stable")[:25])]
    pp.select_genes(adata, n_top_genes=25)
    assert list(adata.var_names) == list(names)


def test_scores_use_the_unbiased_variance():
    x = np.array([[1.0, 0, 2], [3, 4, 2], [5, 0, 5]])
    scores = gene_scores(sparse.csr_array(x), flavor="cv", reference=False)
    np.testing.assert_allclose(scores, x.std(axis=0, ddof=1) / x.mean(axis=0), rtol=1e-14)


def test_signed_dispersion_survives_what_breaks_the_r_code():
    x = np.tile([1.0, 5.0, 3.0, 3.0], (30, 1)).T.copy()  # 30 genes alike
    x[:, 0] = 0  # a gene without reads
    x[:, 1] = [0, 12, 0, 0]  # same mean as the others: the MAD of its bin is 0
    scores = gene_scores(sparse.csr_array(x), flavor="dispersion", reference=False)
    assert np.isnan(scores[0])
    assert scores[1] > 1
    np.testing.assert_array_equal(scores[2:], 0)
    adata = ad.AnnData(x)
    pp.select_genes(adata, n_top_genes=29)
    assert "0" not in adata.var_names  # unseen genes come last


@pytest.mark.parametrize("n_top", [None, "all", 120, 10_000])
def test_all_genes_stay_when_asked_or_too_few(adata, n_top):
    pp.select_genes(adata, n_top_genes=n_top)
    assert list(adata.var_names) == [str(g) for g in range(120)]
    assert adata.uns["autoimpute_recipe"]["n_top_genes"] == (n_top if isinstance(n_top, int) else "all")
