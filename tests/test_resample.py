"""The resampled cells of the scale benchmark: whose they are, that they are like their source, and that they stream."""

import importlib
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse, stats

import scautoimpute as sai

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def resample():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("resample")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "real.h5ad"
    adata = sai.datasets.simulate(n_cells=80, n_genes=120, random_state=0)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.write_h5ad(path)
    return path


def drawn(resample, real, output, *, n_cells=20_000, genes="all", seed=0, dtype="float32"):
    source = resample.Source.read(real, genes)
    resample.write_resampled(source, output, n_cells=n_cells, seed=seed, dtype=dtype)
    return source, anndata.read_h5ad(output)


def test_cells_are_poisson_draws_around_real_ones(resample, real, tmp_path):
    source, made = drawn(resample, real, tmp_path / "made.h5ad")
    assert made.shape == (20_000, source.counts.shape[1])
    assert list(made.var_names) == list(source.genes)
    origin = made.obs["source_cell"].to_numpy()
    assert stats.chisquare(np.bincount(origin, minlength=80)).pvalue > 1e-4
    expected = source.counts.toarray()[origin]
    x = made.X.toarray()
    assert not x[expected == 0].any()
    for size in (1, 5):  # a library may make for other sizes: only that the counts of one expectation are Poisson
        values = x[expected == size]
        assert abs(values.mean() - size) < 5 * np.sqrt(size / values.size)
        assert abs(values.var() - size) < 0.05 * size
    library = x.sum(1)
    assert abs(np.corrcoef(library, expected.sum(1))[0, 1]) > 0.9
    np.testing.assert_allclose(x.mean(0), expected.mean(0), atol=5 * np.sqrt(expected.mean(0).max() / 20_000))


def test_what_they_are_is_written_down(resample, real, tmp_path):
    _, made = drawn(resample, real, tmp_path / "made.h5ad", n_cells=10)
    told = made.uns["resampled"]
    assert (told["source"], told["source_cells"], told["cells"], told["seed"]) == ("real.h5ad", 80, 10, 0)
    assert made.obs_names.tolist() == [f"cell_{number}" for number in range(10)]


def test_a_seed_gives_the_same_file_and_another_does_not(resample, real, tmp_path):
    one, same, other = (
        drawn(resample, real, tmp_path / f"{name}.h5ad", n_cells=300, seed=seed)[1]
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert (one.X != same.X).nnz == 0
    assert (one.X != other.X).nnz > 0


@pytest.mark.parametrize("genes", ["40", "all"])
def test_genes_are_those_that_the_recipe_would_take(resample, real, genes, tmp_path):
    source, made = drawn(resample, real, tmp_path / "made.h5ad", n_cells=50, genes=genes, dtype="uint16")
    adata = anndata.read_h5ad(real)
    if genes == "40":
        expected = sai.pp.recipe_autoimpute(adata, n_top_genes=40, copy=True).var_names
    else:
        expected = adata.var_names[(adata.X > 0).sum(0).A1 >= 3]
    assert set(source.genes) == set(expected)
    assert made.X.dtype == np.uint16
    with pytest.raises(ValueError, match="500 were asked for: give fewer"):
        resample.Source.read(real, "500")


def test_the_file_streams_into_an_imputation(resample, real, tmp_path):
    _, made = drawn(resample, real, tmp_path / "made.h5ad", n_cells=300)
    model = sai.AutoImpute("masked", hidden=4, n_folds=1, max_epochs=2, random_state=0)
    with pytest.warns(UserWarning, match="before"):
        sai.tl.autoimpute(made, model=model)
    record = sai.impute_file(tmp_path / "made.h5ad", output=tmp_path / "out.h5ad", model=model)
    assert record["recipe"]["n_cells"] == 300


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cells(real, tmp_path):
    def peak(n_cells):
        program = (
            f"import sys, resource; sys.path.insert(0, {str(BENCHMARKS)!r}); import resample\n"
            f"from pathlib import Path\nsource = resample.Source.read(Path({str(real)!r}), 'all')\n"
            f"resample.write_resampled(source, Path({str(tmp_path / 'made.h5ad')!r}), n_cells={n_cells}, seed=0)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)"
        )
        return float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)

    assert peak(200_000) - peak(20_000) < 40
