"""Imputed expression on demand: what `tl.autoimpute` gives, of counts in memory, backed by a file, or read lazily."""

import sys
import warnings

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, imputed_lazy
from stored_counts import FORMATS

N_CELLS = 700


@pytest.fixture(scope="module")
def counts():
    adata = sai.datasets.simulate(n_cells=N_CELLS, n_genes=60, random_state=1)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.obs["donor"] = np.random.default_rng(0).choice(["x", "y"], N_CELLS)
    adata.layers["dense"], adata.layers["by_gene"] = adata.X.toarray(), adata.X.tocsc()
    return adata


@pytest.fixture(scope="module")
def path(counts, tmp_path_factory):
    written = tmp_path_factory.mktemp("lazy") / "cells.h5ad"
    counts.write_h5ad(written)
    return written


@pytest.fixture(scope="module", params=["masked", "expected", "counts"])
def case(request, counts):
    """A model, the options that it needs, and the layer that it makes."""
    options = {"batch_key": "donor"} if request.param == "counts" else {}
    objective, estimand = ("masked", "expected") if request.param == "expected" else (request.param, None)
    model = AutoImpute(objective, estimand=estimand, hidden=6, max_epochs=3, random_state=0)
    adata = counts.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not trained to its end
        sai.tl.autoimpute(adata, model=model, n_top_genes=40, **options)
    return model, options, layer_of(adata)


def layer_of(adata):
    layer = adata.layers["imputed"][:, adata.var["autoimpute_modelled"].to_numpy()]
    return layer.toarray() if sparse.issparse(layer) else layer


def assert_same(found, expected):
    """The same bits; on a GPU, which sums in an order of its own for each size of a block, the same to rounding."""
    rounding = 1e-6 if torch.cuda.is_available() else 0
    np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding)


def in_memory(adata, model, **options):
    imputed = adata.copy()
    sai.tl.autoimpute(imputed, model=model, **options)
    return imputed


@pytest.mark.parametrize("source", ["memory", "backed", "read_lazy", "zarr 2, CSR", "zarr 3, CSR"])
@pytest.mark.parametrize("layer", [None, "dense", "by_gene"])
def test_values_are_those_of_the_layer(counts, path, case, source, layer, tmp_path):
    model, options, expected = case
    adata = counts if source == "memory" else None
    if source == "backed":
        adata = anndata.read_h5ad(path, backed="r")
    elif source != "memory":
        adata = anndata.experimental.read_lazy(path if source == "read_lazy" else FORMATS[source](counts, tmp_path))
    lazy = imputed_lazy(adata, model, layer=layer, cells_per_chunk=256, **options)
    assert (lazy.shape, lazy.dtype) == (expected.shape, np.float32)
    assert len(lazy.chunks[1]) == 1
    assert_same(lazy.compute(), expected)
    assert_same(lazy[100:300, [5, 2]].compute(), expected[100:300][:, [5, 2]])
    if source == "backed":
        adata.file.close()


def test_columns_are_the_modelled_genes_in_the_order_of_the_data(counts, case):
    model, options, _ = case
    shuffled = counts[:, np.random.default_rng(1).permutation(counts.n_vars)].copy()
    lazy = imputed_lazy(shuffled, model, **options)
    names = shuffled.var_names[shuffled.var_names.isin(model.genes_)]
    imputed = in_memory(shuffled, model, **options)
    assert list(names) == list(shuffled.var_names[imputed.var["autoimpute_modelled"]])
    np.testing.assert_allclose(lazy.compute(), layer_of(imputed), rtol=1e-6)
    asked = [names[7], names[2]]
    few = imputed_lazy(shuffled, model, output_genes=asked, **options).compute()
    np.testing.assert_allclose(few, imputed[:, asked].to_df("imputed"), rtol=1e-6)


@pytest.mark.parametrize("scale", ["counts", "cp10k", "log2", "expected_log1p"])
def test_every_scale(counts, case, scale):
    model, options, _ = case
    if scale == ("log2" if model.settings.objective == "counts" else "expected_log1p"):
        with pytest.raises(ValueError, match=r"is (not )?for objective='counts'"):
            imputed_lazy(counts, model, scale=scale, **options)
        return
    expected = layer_of(in_memory(counts, model, scale=scale, **options))
    np.testing.assert_array_equal(imputed_lazy(counts, model, scale=scale, **options).compute(), expected)


def test_depths_batches_and_observed_values_are_those_of_each_cell(counts, case):
    model, options, _ = case
    if model.settings.objective == "counts":
        depth = np.random.default_rng(0).integers(100, 1000, N_CELLS).astype(float)
        options = options | {"as_batch": "y", "scale": "expected_log1p", "depth": depth}
    else:
        options = {"keep_observed": model.estimand == "expected"}
    expected = layer_of(in_memory(counts, model, **options))
    lazy = imputed_lazy(counts, model, cells_per_chunk=256, **options)
    assert_same(lazy.compute(scheduler="sync"), expected)


def test_only_what_is_asked_for_is_read(counts, case):
    model, options, expected = case
    broken = counts.copy()
    broken.X[600:601, broken.X[600].indices[:1]] = np.nan
    lazy = imputed_lazy(broken, model, cells_per_chunk=256, **options)
    assert_same(lazy[:512].compute(), expected[:512])
    with pytest.raises(ValueError, match="in rows 513 to 700 are NaN, first in row 601"):
        lazy.compute()


def test_missing_genes_are_told_once(counts, case):
    model, options, _ = case
    fewer = counts[:, :50].copy()
    with pytest.warns(UserWarning, match="of the model's 40 genes") as said:
        lazy = imputed_lazy(fewer, model, **options)
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="of the model's 40 genes"):
        expected = layer_of(in_memory(fewer, model, **options))
    assert_same(lazy.compute(), expected)


def test_a_saved_model_will_do(counts, case, tmp_path):
    model, options, expected = case
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(imputed_lazy(counts, tmp_path / "model", **options).compute(), expected)


def test_what_is_bad_is_refused(counts, case):
    model, options, _ = case
    alien = next(name for name in counts.var_names if name not in model.genes_)
    for given, said in (
        ({"scale": "x"}, "scale='x' is not known"),
        ({"layer": "absent"}, "there is no layer 'absent'"),
        ({"output_genes": ["absent"]}, "1 of 1 names in output_genes= are not in the data"),
        ({"output_genes": [alien]}, f"1 of 1 names in output_genes= are no genes of the model .*{alien}"),
        ({"cells_per_chunk": 0}, "cells_per_chunk=0 is no number of cells"),
        ({"model": AutoImpute()}, "has not been trained"),
    ):
        with pytest.raises(ValueError, match=said):
            imputed_lazy(counts, **({"model": model} | options | given))
    with pytest.raises(ValueError, match="looks like genes × cells"):
        imputed_lazy(sai.datasets.pbmc68k_reduced().T, model, **options)


def test_logs_are_refused(counts, case):
    model, options, _ = case
    logs = counts.copy()
    logs.X, logs.uns["log1p"] = sparse.csr_matrix(np.log1p(counts.X.toarray())), {}
    with pytest.raises(ValueError, match=r"look logged already \(uns|are not whole numbers"):
        imputed_lazy(logs, model, **options).compute()
    logs.layers["counts"] = counts.X
    imputed_lazy(logs, model, layer="counts", **options).compute()


def test_without_dask_it_says_what_to_install(counts, case, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(sai.MissingDependencyError, match=r'needs dask.* pip install "scautoimpute\[lazy\]"'):
        imputed_lazy(counts, case[0])
