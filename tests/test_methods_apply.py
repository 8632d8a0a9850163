"""The door that methods go through: scales there and back, what is refused, memory, and the record."""

import re
import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, methods
from scautoimpute.methods import METHODS, Imputed, Method, Preparation, _memory, apply
from scautoimpute.methods._prepare import scaled_alone
from scautoimpute.methods._record import COUNTS

FAST = {"hidden": 8, "n_folds": 1, "threshold": 1.0}
GB = 1e9


@pytest.fixture(scope="module")
def counts():
    return sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)


@pytest.fixture
def method(monkeypatch):
    """Make `method="mine"` a method of one's own for the length of a test."""

    def register(function, takes=COUNTS, **fields):
        fields = {"keeps_observed": False, "peak_bytes": lambda n, g: 8.0 * n * g, "per_cell": ()} | fields
        record = Method(name="mine", title="Mine", impute=function, takes=takes, reference="-", limits="-", **fields)
        monkeypatch.setattr(apply, "method_named", lambda name: record if name == "mine" else METHODS[name])

    return register


def unchanged(x, *, rng):
    return x.toarray()


def with_empty_cell(counts):
    adata = counts.copy()
    kept = np.arange(adata.n_obs) != 4
    adata.X = sparse.csr_matrix(adata.X.multiply(kept[:, None]))
    return adata


# ---------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("total", [None, "median", "genes", 1e4])
@pytest.mark.parametrize("curve", ["linear", "log1p", "log2p1", "sqrt"])
@pytest.mark.parametrize("scale", ["counts", "cp10k", "log1p", "log2"])
def test_there_and_back_is_the_observed_on_the_scale(counts, method, total, curve, scale):
    method(unchanged, Preparation(total, curve))
    adata = methods.impute(counts, method="mine", scale=scale, copy=True)
    x = counts.X.toarray().astype(float)
    of_passing = x[:, (x >= 3).sum(0) >= 3].sum(1)
    share, median = x / of_passing[:, None], np.median(of_passing)
    expected = {
        "counts": x,
        "cp10k": share * 1e4,
        "log1p": np.log(1 + share * 1e4),
        "log2": np.log2(1 + share * median),
    }[scale]
    np.testing.assert_allclose(adata.layers["imputed"].toarray(), expected, rtol=1e-5)
    assert adata.uns["imputed"]["scale"] == scale


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        (Preparation(None, "linear"), lambda x, total: x),
        (Preparation("median", "log2p1"), lambda x, total: np.log2(x / total * np.median(total) + 1)),
        (Preparation("genes", "log1p"), lambda x, total: np.log(x / total * x.shape[1] + 1)),
        (Preparation(1e4, "sqrt"), lambda x, total: np.sqrt(x / total * 1e4)),
    ],
)
def test_methods_are_given_what_they_take(counts, method, takes, expected):
    given = []
    method(lambda x, *, rng: given.append(x) or x.toarray(), takes)
    methods.impute(counts, method="mine", copy=True)
    x = counts.X.toarray().astype(float)
    x = x[:, (x >= 3).sum(0) >= 3]
    (shown,) = given
    assert isinstance(shown, sparse.csr_array)
    assert shown.has_canonical_format
    assert shown.dtype == np.float64
    np.testing.assert_allclose(shown.toarray(), expected(x, x.sum(1, keepdims=True)), rtol=1e-12)


def test_negatives_become_zero_before_they_could_be_squared(counts, method):
    method(lambda x, *, rng: np.full(x.shape, -3.0), Preparation(1e4, "sqrt"))
    adata = methods.impute(counts, method="mine", copy=True)
    modelled = counts.var_names.isin(adata.uns["imputed"]["genes"])
    assert adata.layers["imputed"][:, modelled].nnz == 0
    assert not methods.impute_matrix(np.ones((5, 4)), method="mine", rng=np.random.default_rng(0)).any()


@pytest.mark.filterwarnings("ignore:1 of 60 cells have no reads")
def test_empty_cells_are_not_shown_to_the_method_nor_their_labels(counts, method):
    seen = {}

    def spy(x, *, rng, labels=None, name="a"):
        seen.update(labels=labels, shape=x.shape, name=name)
        return x.toarray() + 1

    method(spy, per_cell=("labels",))
    options = {"labels": list(range(60)), "name": "b"}
    adata = methods.impute(with_empty_cell(counts), method="mine", options=options, scale="counts", copy=True)
    assert seen["shape"][0] == 59
    assert seen["labels"].tolist() == [i for i in range(60) if i != 4]
    assert seen["name"] == "b"
    layer = adata.layers["imputed"].toarray()
    assert layer[4].sum() == 0
    modelled = counts.var_names.isin(adata.uns["imputed"]["genes"])
    expected = counts.X.toarray() + modelled
    np.testing.assert_allclose(np.delete(layer, 4, 0), np.delete(expected, 4, 0), rtol=1e-6)


@pytest.mark.parametrize("name", ["labels", "clusters", "clusterings"])
@pytest.mark.parametrize("given", ["short", "long", "scalar", "word"])
def test_a_value_per_cell_is_not_cut_to_fit(counts, name, given):
    method = "drimpute" if name == "clusterings" else "scimpute"
    values = {"short": [1] * 59, "long": [1] * 61, "scalar": 3, "word": "b" * 60}[given]
    if name == "clusterings" and isinstance(values, list):
        values = [values, values]
    adata, message = counts.copy(), rf"options= has {name} of shape {re.escape(str(np.shape(values)))} for 60 cells: "
    with pytest.raises(ValueError, match=message):
        methods.impute(adata, method=method, options={name: values})
    assert not set(adata.layers) - set(counts.layers)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        methods.impute_matrix(np.log2(adata.X.toarray() + 1), method=method, options={name: values}, rng=rng)


def test_rows_of_different_lengths_are_refused(counts):
    with pytest.raises(ValueError, match=r"options= has clusterings of shape \(2,\) for 60 cells"):
        methods.impute(counts, method="drimpute", options={"clusterings": [[1] * 60, [1] * 59]}, copy=True)


@pytest.mark.parametrize(
    ("name", "values", "stored"),
    [
        ("labels", pd.Series(["a", None, "b"] * 20), ["a", "", "b"]),
        ("labels", pd.Categorical([5, np.nan, 7] * 20), [5.0, np.nan, 7.0]),
        ("labels", pd.Categorical(["a", np.nan, "b"] * 20), ["a", "", "b"]),
        ("labels", pd.Series([True, None, 3] * 20, dtype=object), ["True", "", "3"]),
        ("labels", pd.array([1, None, 2] * 20, dtype="Int64"), [1.0, np.nan, 2.0]),
        ("clusters", pd.Series([1, -1, 2] * 20), [1, -1, 2]),
        ("clusterings", [[1, 1, 2] * 20, [2, 1, 1] * 20], [[1, 1, 2], [2, 1, 1]]),
    ],
)
def test_values_per_cell_are_recorded_as_a_file_holds_them(counts, tmp_path, name, values, stored):
    method = "drimpute" if name == "clusterings" else "scimpute"
    methods.impute(counts, method=method, options={name: values}, copy=True).write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad").uns["imputed"]["options"][name]
    np.testing.assert_array_equal(back[..., :3], np.asarray(stored))
    assert back.shape[-1] == 60


def test_few_genes_can_be_modelled_and_the_rest_keep_what_they_had(counts):
    adata = methods.impute(counts, method="gene_mean", n_top_genes=20, flavor="cv", scale="counts", copy=True)
    modelled = counts.var_names.isin(adata.uns["imputed"]["genes"])
    assert modelled.sum() == 20
    layer = adata.layers["imputed"].toarray()
    np.testing.assert_array_equal(layer[:, ~modelled], counts.X.toarray()[:, ~modelled])
    assert (layer[:, modelled] > 0).all()


def test_a_layer_can_hold_the_counts_and_another_name_the_result(counts):
    adata = counts.copy()
    adata.layers["raw"], adata.X = adata.X.copy(), adata.X * 0
    assert methods.impute(adata, method="gene_mean", layer="raw", key_added="filled") is None
    expected = methods.impute(counts, method="gene_mean", copy=True).layers["imputed"]
    np.testing.assert_array_equal(adata.layers["filled"].toarray(), expected.toarray())
    assert adata.uns["filled"]["recipe"]["layer"] == "raw"
    assert adata.X.nnz == 0 or not adata.X.data.any()


# ---------------------------------------------------------------------------------------------- autoimpute


@pytest.mark.filterwarnings("ignore:held-out RMSE")
@pytest.mark.parametrize("keep_observed", [True, False])
def test_autoimpute_is_what_tl_does(counts, keep_observed):
    arguments = {"n_top_genes": 40, "keep_observed": keep_observed, "scale": "cp10k", "copy": True}
    mine = methods.impute(counts, method="autoimpute", options=FAST, **arguments)
    theirs = sai.tl.autoimpute(counts, model=AutoImpute(**FAST, random_state=0), **arguments)
    expected = theirs.layers["imputed"].toarray()
    np.testing.assert_allclose(mine.layers["imputed"].toarray(), expected, rtol=2e-5, atol=1e-3)
    learned, record = mine.uns["imputed"]["learned"], theirs.uns["imputed"]
    assert learned["held_out"] == record["held_out"]
    assert mine.uns["imputed"]["n_zeros_filled"] == record["n_zeros_filled"]
    assert list(mine.uns["imputed"]["genes"]) == list(record["genes"])


def test_the_published_training_replaces_observed_values_and_tl_agrees(counts):
    options = {"hidden": 8, "threshold": 1e9}
    mine = methods.impute(counts, method="autoimpute-paper", options=options, copy=True)
    theirs = sai.tl.autoimpute(
        counts, model=AutoImpute(preset="paper", **options), n_top_genes="all", keep_observed=False, copy=True
    )
    np.testing.assert_allclose(
        mine.layers["imputed"].toarray(), theirs.layers["imputed"].toarray(), rtol=2e-5, atol=1e-4
    )
    assert mine.uns["imputed"]["keep_observed"] is False


# ---------------------------------------------------------------------------------------------- logs


def test_logs_stay_as_they_are_given(counts):
    processed = sai.pp.recipe_autoimpute(counts, n_top_genes="all", copy=True)
    processed.X = processed.X.toarray()
    processed.X[:, 3] = 0
    expected = methods.impute_matrix(processed.X, method="als", rng=np.random.default_rng(0))
    methods.impute(processed, method="als", values="logs")
    layer, seen = processed.layers["imputed"], processed.X > 0
    np.testing.assert_array_equal(layer[seen], processed.X[seen])
    assert not layer[:, 3].any()
    other = np.arange(processed.n_vars) != 3
    without = methods.impute_matrix(processed.X[:, other], method="als", rng=np.random.default_rng(0))
    np.testing.assert_allclose(layer[:, other][~seen[:, other]], without[~seen[:, other]], rtol=1e-6)
    assert expected.shape == layer.shape
    assert processed.uns["imputed"]["scale_in_words"] == "the logs as given"


def test_missing_logs_are_imputed(counts):
    logs = np.log1p(counts.X.toarray() / 7)
    gaps = np.where(logs > 0, logs, np.nan)
    with_zeros = methods.impute(anndata.AnnData(logs), method="gene_mean", values="logs", copy=True)
    with_gaps = methods.impute(anndata.AnnData(gaps), method="gene_mean", values="logs", copy=True)
    np.testing.assert_array_equal(with_zeros.layers["imputed"], with_gaps.layers["imputed"])
    assert np.isnan(with_gaps.X).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magick"}, r"method='magick' is not known: choose 'none', 'gene_mean'"),
        ({"values": "log"}, "values='log' is not known: choose 'counts' or 'logs'"),
        ({"scale": "cpm"}, "scale='cpm' is not known"),
        ({"values": "logs"}, r"values='logs' was given, and the values are whole numbers .* pass values='counts'"),
        ({"values": "logs", "scale": "log1p"}, "scale='log1p' was given with values='logs'"),
        ({"values": "logs", "method": "knn"}, "method='knn' takes counts, and values='logs' was given"),
        ({"values": "logs", "n_top_genes": 5}, "n_top_genes=5 was given with values='logs'"),
        ({"options": {"k": 5}}, r"options= has 'k', which method='gene_mean' does not take: it takes none"),
        ({"method": "knn", "options": {"k": 5}}, r"does not take: allowed are n_neighbors, n_pcs, weights"),
        ({"method": "none", "keep_observed": False}, "keep_observed=False has no effect: method='none'"),
        ({"key_added": "raw", "layer": "raw"}, "key_added='raw' is the layer that holds the counts"),
        ({"key_added": ""}, "key_added='' cannot be the name of a layer: give one that is not empty and has no '/'"),
        ({"key_added": "a/b"}, "key_added='a/b' cannot be the name of a layer"),
        ({"values": "logs", "flavor": "cv"}, "flavor='cv' was given with values='logs': choose the genes of the logs"),
        ({"values": "logs", "flavor": "x"}, "flavor='x' was given with values='logs'"),
        ({"flavor": "x"}, "flavor is 'x'"),
        ({"random_state": -1}, "random_state=-1: give an integer of at least 0"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_is_written(counts, arguments, message):
    adata = counts.copy()
    with pytest.raises(ValueError, match=message) as refusal:
        methods.impute(adata, **({"method": "gene_mean"} | arguments))
    assert "\n" not in str(refusal.value)
    assert list(adata.layers) == list(counts.layers)
    assert "imputed" not in adata.uns


def test_normalised_counts_are_no_logs(counts):
    adata = anndata.AnnData(counts.X.toarray() * 7.5)
    with pytest.raises(ValueError, match="too large for logs"):
        methods.impute(adata, method="gene_mean", values="logs")


def test_a_method_that_fails_is_not_believed(counts, method):
    method(lambda x, *, rng: np.where(x.toarray() > 0, 1.0, np.nan))
    with pytest.raises(ValueError, match=r"method='mine' returned \d+ NaN or infinite values"):
        methods.impute(counts, method="mine")
    assert "imputed" not in counts.layers


def test_what_a_method_learned_is_recorded(counts, method):
    method(lambda x, *, rng, k=None, depth=3: Imputed(x.toarray(), {"rank": 4}))
    record = methods.impute(counts, method="mine", copy=True, random_state=9).uns["imputed"]
    assert record["learned"] == {"rank": 4}
    assert record["options"] == {"depth": 3}
    assert record["random_state"] == 9
    assert record["package_version"] == sai.__version__


# ---------------------------------------------------------------------------------------------- matrices


def test_a_method_for_counts_is_given_counts_and_answers_in_logs(method):
    log2 = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])
    given = []
    method(lambda x, *, rng: given.append(x.toarray()) or x.toarray() + 1)
    imputed = methods.impute_matrix(log2, method="mine", rng=np.random.default_rng(0))
    np.testing.assert_allclose(given[0], [[1, 0, 3], [7, 1, 0]])
    np.testing.assert_allclose(imputed, np.log2([[3, 2, 5], [9, 3, 2]]))


def test_counts_of_a_matrix_are_scaled_over_its_own_genes():
    counts = sparse.csr_array([[1.0, 3.0], [0.0, 2.0], [0.0, 0.0]])
    scaled, unit = scaled_alone(counts, Preparation(1e4, "linear"))
    np.testing.assert_allclose(scaled.toarray(), [[2500, 7500], [0, 1e4], [0, 0]])
    np.testing.assert_allclose(scaled.toarray() * unit[:, None], counts.toarray())


# ---------------------------------------------------------------------------------------------- memory


def test_what_does_not_fit_is_refused_before_any_work_is_done():
    """A million cells × 30,000 genes with one entry per cell: megabytes as they come, 240 GB when they are dense."""
    n_cells, n_genes = 1_000_000, 30_000
    cells = np.arange(n_cells)
    x = sparse.csr_matrix((np.full(n_cells, 3.0, np.float32), (cells, cells % n_genes)), shape=(n_cells, n_genes))
    adata = anndata.AnnData(x)
    with pytest.raises(MemoryError, match=r"about [\d,]+\.\d GB for 1,000,000 cells × 30,000 genes") as refusal:
        methods.impute(adata, method="soft_impute")
    assert "cells of so many genes fit" in str(refusal.value)
    assert not adata.layers
    assert str(refusal.value).endswith("or fewer genes with n_top_genes=")
    with pytest.raises(MemoryError, match=r"GB are free.* or fewer genes$"):  # it has no n_top_genes=
        methods.impute_matrix(x, method="gene_mean", rng=np.random.default_rng(0))
    with pytest.raises(MemoryError, match=r"GB are free.* or fewer genes$"):
        methods.impute(anndata.AnnData(x / 2), method="gene_mean", values="logs")
    with pytest.warns(UserWarning, match="999898 of 1000000 cells have no reads"):  # the same cells, but few genes
        small = methods.impute(adata[:, :3].copy(), method="gene_mean", copy=True)
    assert small.layers["imputed"].nnz


def test_the_number_of_cells_that_fit_is_right(method, monkeypatch):
    method(unchanged, peak_bytes=lambda n, g: 1e6 * n + 1e5 * g)
    monkeypatch.setattr(_memory, "available_bytes", lambda: 2 * GB)
    record = apply.method_named("mine")
    _memory.refuse_too_large(record, 1900, 1000, layer_bytes=lambda n: 0.0)
    with pytest.raises(MemoryError, match=r"4\.1 GB for 4,000 cells × 1,000 genes and 2\.0 GB are free: about 1,900 c"):
        _memory.refuse_too_large(record, 4000, 1000, layer_bytes=lambda n: 0.0)
    with pytest.raises(MemoryError, match="no cell fits"):
        _memory.refuse_too_large(record, 4000, 30_000, layer_bytes=lambda n: 0.0)
    with pytest.raises(MemoryError, match="about 990 cells"):  # the result and its layer count as well
        _memory.refuse_too_large(record, 4000, 1000, layer_bytes=lambda n: 2e6 * n)


def test_small_sizes_are_told_in_smaller_units(method, monkeypatch):
    method(unchanged, peak_bytes=lambda n, g: 2e3 * n)
    monkeypatch.setattr(_memory, "available_bytes", lambda: 8000.0)
    with pytest.raises(MemoryError, match=r"needs about 0\.2 MB for 100 cells × 1 genes and 0\.008 MB are free"):
        _memory.refuse_too_large(apply.method_named("mine"), 100, 1, layer_bytes=lambda n: 0.0)


def test_a_container_s_limit_counts(tmp_path):
    assert 0 < _memory.available_bytes(tmp_path) < 1e15
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1200000\n")
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 200000\n")
    assert _memory.available_bytes(tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory.available_bytes(tmp_path) > 2_000_000


IN_NUMPY = {  # options under which the peak is reached soon
    "none": {},
    "gene_mean": {},
    "gene_cell_bias": {},
    "als": {"ranks": (30,), "ridges": (8.0,)},
    "soft_impute": {"n_thresholds": 2},
    "knn": {},
    "drimpute": {},
    "alra": {"rank": 5},
}


@pytest.mark.parametrize("name", IN_NUMPY)
@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("shape", [(200, 300), (400, 120)])
def test_the_memory_that_is_said_to_be_needed_is(name, shape, density):
    record, rng = METHODS[name], np.random.default_rng(0)
    x = sparse.csr_array(rng.gamma(2, size=shape) * (rng.random(shape) < density))
    record.impute(x[:50], rng=rng, **IN_NUMPY[name])  # imports do not count
    tracemalloc.start()
    record.impute(x, rng=rng, **IN_NUMPY[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 1.15 < record.peak_bytes(*shape) < 3 * peak
