"""Training on counts that are dask arrays: the bytes of memory, with a chunk of the counts in memory at a time."""

import tempfile

import anndata
import dask.array
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, _staging
from scautoimpute._lazy_counts import LazyRows
from scautoimpute.io.matrix import named_layers
from scautoimpute.model.counts_store import CountsStore
from stored_counts import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out")
N_CELLS = 700
OPENED = CountsStore._opened


@pytest.fixture(scope="module")
def counts():
    adata = sai.datasets.simulate(n_cells=N_CELLS, n_genes=60, random_state=1)
    counts = anndata.AnnData(sparse.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs[[]], var=adata.var[[]])
    counts.obs["donor"] = np.random.default_rng(0).choice(["x", "y"], N_CELLS)
    counts.layers["dense"], counts.layers["by_gene"] = counts.X.toarray(), counts.X.tocsc()
    return counts


def lazily(adata, folder, stored="h5ad, CSR"):
    path = FORMATS[stored](adata, folder)
    lazy = anndata.experimental.read_lazy(path)
    lazy.X = lazy.X.rechunk((256, -1))
    lazy.layers["dense"] = lazy.layers["dense"].rechunk((300, 25))
    return lazy


CASES = {
    "counts": ("counts", {}),
    "batches": ("counts", {"batch_key": "donor", "posterior_sd": True}),
    "most variable": ("counts", {"n_top_genes": 20, "sparse_below": 0.1}),
    "named": ("counts", {"genes": ["gene_3", "gene_40", "gene_11"]}),
    "no matrix": ("counts", {"matrix": False}),
    "masked": ("masked", {"n_top_genes": 30}),
}


LAYERS = [*((case, None) for case in CASES), ("counts", "dense"), ("masked", "dense"), ("counts", "by_gene")]
ZARR = [(case, layer) for case, layer in LAYERS if case in {"counts", "batches", "masked"}]


@pytest.mark.parametrize(
    ("stored", "case", "layer"),
    [
        *(("h5ad, CSR", *one) for one in LAYERS),
        *((stored, *one) for stored in ("zarr 2, CSR", "zarr 3, CSR") for one in ZARR),
    ],
)
def test_a_lazy_object_gives_what_memory_gives_to_the_last_bit(counts, stored, case, layer, tmp_path):
    objective, options = CASES[case]
    models = [AutoImpute(objective, hidden=5, max_epochs=2, n_networks=None, random_state=0) for _ in range(2)]
    lazy, wanted = lazily(counts, tmp_path, stored), counts.copy()
    for adata, model in zip((lazy, wanted), models, strict=True):
        sai.tl.autoimpute(adata, layer=layer, model=model, **options)
    for name in [name for name in named_layers(wanted) if name.startswith("imputed")]:
        assert type(lazy.layers[name]) is type(wanted.layers[name])
        assert plain(lazy.layers[name]).tobytes() == plain(wanted.layers[name]).tobytes()
    assert np.asarray(lazy.obsm["X_autoimpute"]).tobytes() == wanted.obsm["X_autoimpute"].tobytes()
    for frame, column in (("obs", "autoimpute_size_factor"), ("var", "autoimpute_modelled")):
        np.testing.assert_array_equal(np.asarray(getattr(lazy, frame)[column]), getattr(wanted, frame)[column])
    assert lazy.uns["imputed"].keys() == wanted.uns["imputed"].keys()
    for name, value in wanted.uns["imputed"].items():
        assert str(lazy.uns["imputed"][name]) == str(value), name
    assert isinstance(lazy.X, dask.array.Array)  # as it was
    for number, model in enumerate(models):
        model.save(tmp_path / f"model{number}")
    assert (tmp_path / "model0").read_bytes() == (tmp_path / "model1").read_bytes()
    for adata in (lazy, wanted):  # by the model that was trained
        sai.tl.autoimpute(adata, layer=layer, model=models[0], batch_key=options.get("batch_key"), key_added="again")
    np.testing.assert_array_equal(plain(lazy.layers["again"]), plain(wanted.layers["again"]))


def plain(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_the_estimator_and_the_choice_of_the_objective(counts, tmp_path):
    lazy = lazily(counts, tmp_path)
    assert sai.tl.objective_for(lazy) == sai.tl.objective_for(counts)
    one, other = (AutoImpute("counts", hidden=5, max_epochs=2).fit(data) for data in (lazy, counts))
    np.testing.assert_array_equal(one.impute(lazy), other.impute(counts))
    copied = sai.tl.autoimpute(lazy, model=AutoImpute("counts", hidden=5, max_epochs=2), copy=True)
    assert "imputed" in copied.layers
    assert "imputed" not in lazy.layers


class Watched:
    """A matrix that notes how many of its rows are asked for at once."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype, self.ndim, self.most = matrix, matrix.shape, matrix.dtype, 2, 0

    def __getitem__(self, key):
        found = self.matrix[key]
        self.most = max(self.most, found.shape[0])
        return found


def test_no_more_than_a_chunk_is_in_memory(counts):
    watched = Watched(counts.X)
    meta = sparse.csr_matrix((0, 0), dtype=np.float32)
    lazy = counts.copy()
    lazy.X = dask.array.from_array(watched, chunks=(100, -1), asarray=False, meta=meta)
    sai.tl.autoimpute(lazy, model=AutoImpute("counts", hidden=5, max_epochs=2), matrix=False)
    assert watched.most == 100


@pytest.mark.parametrize(("objective", "n_cells"), [("counts", N_CELLS), ("masked", 5100)])
def test_much_is_kept_on_disk_among_the_temporary_files(objective, n_cells, counts, tmp_path, monkeypatch):
    monkeypatch.setattr(_staging, "_SMALL", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    counts = anndata.AnnData(counts.X[np.arange(n_cells) % N_CELLS], var=counts.var)
    opened = []
    monkeypatch.setattr(CountsStore, "_opened", lambda store, folder: opened.append(folder) or OPENED(store, folder))
    lazy = counts.copy()
    lazy.X = dask.array.from_array(counts.X.toarray(), chunks=(256, -1))
    layers = []
    for adata in (lazy, counts):
        model = AutoImpute(objective, hidden=5, max_epochs=2, n_folds=None if objective == "counts" else 1)
        sai.tl.autoimpute(adata, model=model, n_top_genes=30)
        layers.append(plain(adata.layers["imputed"]))
    np.testing.assert_array_equal(*layers)
    assert opened
    assert set(opened) == {tmp_path}


def test_rows_are_those_of_scipy(counts):
    wanted = counts.X
    for chunks in ((100, 25), (700, 60), ((1, 600, 99), (60,))):
        for array in (counts.X.toarray(), counts.X):
            rows = LazyRows(dask.array.from_array(array, chunks=chunks, asarray=False))
            for some in (slice(0, 1), slice(0, 700), slice(99, 101), slice(350, 699), slice(699, 700)):
                found = rows[some]
                assert found.has_canonical_format
                np.testing.assert_array_equal(found.toarray(), wanted[some].toarray())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "are NaN, first in row 600"),
        (-1, "are negative, first in row 600"),
        (0.5, "not whole numbers"),
    ],
)
def test_what_is_no_count_is_refused(counts, value, said):
    x = counts.X.copy()
    x.data[x.indptr[599]] = value
    lazy = anndata.AnnData(obs=pd.DataFrame(index=counts.obs_names), var=pd.DataFrame(index=counts.var_names))
    lazy.X = dask.array.from_array(x, chunks=(256, -1), asarray=False)
    with pytest.raises(ValueError, match=said) as caught:
        sai.tl.autoimpute(lazy, model=AutoImpute("counts", hidden=5, max_epochs=2))
    assert "\n" not in str(caught.value)
