"""MAGIC through this package against outputs stored from the original, where magic-impute is installed."""

import sys

import anndata
import numpy as np
import pytest
from scipy import sparse

from scautoimpute import MissingDependencyError, methods
from scautoimpute.methods import magic
from scautoimpute.methods._prepare import scaled_alone

# From its own principal components the original's output is reproduced to 1e-6 (graphtools keeps bandwidths in 32
# bits); these begin with the counts, so the components, found by another build of NumPy, add as much again.
ATOL = 2e-6


@pytest.fixture
def _installed():
    pytest.importorskip("magic", reason="magic-impute is not installed: pip install scautoimpute[compare]")


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    return sparse.csr_array(np.sqrt(rng.poisson(rng.gamma(1, 2, size=(60, 20)) + 0.1).astype(float)))


@pytest.fixture
def blakeley(golden):
    """Processed log2 values, 30 × 1000, from the counts by the original's own recipe."""
    return np.load(golden / "preprocess_blakeley.npz")["log2"]


@pytest.mark.usefixtures("_installed")
@pytest.mark.filterwarnings("ignore:Input matrix contains unexpressed genes")
def test_counts_give_the_original_output(golden):
    counts = sparse.csr_array(np.load(golden / "input_mix150.npz")["counts"].astype(float))
    x, unit = scaled_alone(counts, magic.METHOD.takes)
    np.testing.assert_allclose(x.toarray(), np.sqrt(1e4 * counts.toarray() / counts.sum(1)[:, None]), rtol=1e-12)
    np.testing.assert_allclose(unit, counts.sum(1) / 1e4)
    stored = np.load(golden / "magic_mix150.npz")
    np.testing.assert_allclose(magic.smooth(x, seed=0), stored["imputed"], atol=ATOL)
    automatic = magic.smooth(x, seed=0, t="auto")[:, :100]
    np.testing.assert_allclose(automatic, stored["imputed_t_auto12_genes100"], atol=ATOL)


@pytest.mark.usefixtures("_installed")
@pytest.mark.filterwarnings("ignore:Cannot perform PCA to 100 dimensions")
@pytest.mark.parametrize(("key", "options"), [("imputed", {}), ("npca20_imputed", {"n_pca": 20})])
def test_logs_give_the_original_output(golden, blakeley, key, options):
    adata = anndata.AnnData(blakeley)
    methods.impute(adata, method="magic", values="logs", options=options)
    stored = np.load(golden / "magic_blakeley_log2.npz")[key]
    np.testing.assert_allclose(adata.layers["imputed"], stored, atol=ATOL)


@pytest.mark.usefixtures("_installed")
def test_options_reach_it(small):
    plain = magic.impute(small, rng=np.random.default_rng(0))
    for options in ({"knn": 3}, {"t": 1}, {"n_pca": 5}):
        assert np.abs(magic.impute(small, rng=np.random.default_rng(0), **options) - plain).max() > 1e-3


@pytest.mark.usefixtures("_installed")
def test_automatic_t_is_reproducible_and_leaves_the_global_generator_alone(small):
    np.random.seed(11)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    first = magic.smooth(small, seed=4, t="auto")
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    np.testing.assert_array_equal(magic.smooth(small, seed=4, t="auto"), first)


def test_too_few_cells_for_the_neighbours_are_refused(small):
    with pytest.raises(ValueError, match="knn=20, and MAGIC looks 3 times as far: more than 60 cells are needed"):
        magic.smooth(small, seed=0, knn=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knn": "a"}, "options= has knn='a': give a whole number of at least 1"),
        ({"knn": 0}, "options= has knn=0: give a whole number"),
        ({"t": "foo"}, "options= has t='foo': give a whole number of at least 1, or 'auto'"),
        ({"t": 1.5}, "options= has t=1.5: give a whole number"),
        ({"n_pca": "x"}, "options= has n_pca='x': give a whole number"),
    ],
)
def test_options_out_of_range_are_refused(small, options, message):
    with pytest.raises(ValueError, match=message):
        magic.smooth(small, seed=0, **options)


def test_it_says_how_to_install_it(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "magic", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r'pip install "scautoimpute\[compare\]"'):
        magic.smooth(small, seed=0)
    with pytest.raises(ImportError, match="method='magic' needs magic-impute"):
        methods.impute_matrix(small, method="magic", rng=np.random.default_rng(0))
