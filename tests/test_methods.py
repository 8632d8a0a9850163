"""One conformance test over every method: what `impute` promises, on every kind of matrix."""

import random
import re

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from scautoimpute import MissingDependencyError, methods
from scautoimpute.methods import METHODS
from scautoimpute.model.threads import torch_threads

EMPTY_CELL, EMPTY_GENE, RARE_GENE = 5, 7, 9
# Enough to pass through every step, and no more.
QUICK = {
    "als": {"ranks": (0, 2), "ridges": (4.0,)},
    "soft_impute": {"n_thresholds": 4},
    "scvi": {"max_epochs": 2, "n_samples": 2},
    "autoimpute": {"hidden": 8, "n_folds": 1, "threshold": 1.0},
    "autoimpute-paper": {"hidden": 8, "threshold": 1e9},
    "autoimpute-counts": {"hidden": 8, "threshold": 1.0, "n_networks": 1},
}
UNTRAINED = {"scvi", "autoimpute-paper"}  # by so few steps, to anything of use
# Permuting cells or genes permutes the result; the others draw something for each cell or entry.
EQUIVARIANT = {"none", "gene_mean", "gene_cell_bias", "knn", "magic", "alra"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:1 of 48 cells have no reads"),
    pytest.mark.filterwarnings("ignore:held-out (RMSE|deviance)"),
    pytest.mark.filterwarnings("ignore:Cannot perform PCA"),
    pytest.mark.filterwarnings("ignore::UserWarning:scvi"),
]


@pytest.fixture(scope="module")
def counts():
    """Counts of 48 cells × 60 genes, 3 types; a cell and a gene without any, and a gene that fails the read filter."""
    rng = np.random.default_rng(1)
    rate = rng.gamma(0.8, 4, size=(3, 60))[np.arange(48) % 3] * rng.uniform(0.5, 2, size=(48, 1))
    made = rng.poisson(rate).astype(np.float32)
    made[EMPTY_CELL], made[:, EMPTY_GENE], made[:, RARE_GENE] = 0, 0, 0
    made[[0, 1], RARE_GENE] = 4
    return made


@pytest.fixture(params=METHODS)
def record(request):
    record = METHODS[request.param]
    if record.load is not None:
        try:
            record.load()
        except MissingDependencyError as error:
            pytest.skip(str(error))
    return record


def impute(adata, record, **arguments):
    return methods.impute(adata, method=record.name, options=QUICK.get(record.name), copy=True, **arguments)


def layer_of(adata, record, **arguments):
    layer = impute(adata, record, **arguments).layers["imputed"]
    return layer.toarray() if sparse.issparse(layer) else np.asarray(layer)


@pytest.fixture(scope="module")
def dense_layers(counts):
    """Layer of each method on the dense matrix, computed once."""
    made = {}

    def of(record):
        if record.name not in made:
            made[record.name] = layer_of(anndata.AnnData(counts), record)
        return made[record.name]

    return of


# ---------------------------------------------------------------------------------------------- the record


def test_records_say_what_users_need(record):
    assert METHODS[record.name] is record
    assert record.title
    assert len(record.reference) >= 5
    assert record.limits.endswith(".")
    assert "\n" not in record.limits + record.reference
    assert record.peak_bytes(2000, 1000) >= 8 * 2000 * 1000  # the result alone
    assert record.peak_bytes(4000, 1000) > record.peak_bytes(2000, 1000)
    assert set(QUICK.get(record.name, {})) <= set(record.options)
    assert (record.extra is None) == (record.load is None)


def test_methods_cannot_be_changed():
    with pytest.raises(TypeError):
        METHODS["mine"] = METHODS["none"]
    assert [record.name for record in METHODS.values()] == list(METHODS)


# ---------------------------------------------------------------------------------------------- what comes out


def test_every_container_gives_the_same_layer_and_is_left_alone(record, counts, array_type, dense_layers):
    adata = anndata.AnnData(array_type(counts))
    result = impute(adata, record)
    layer = result.layers["imputed"]
    assert sparse.issparse(layer) == sparse.issparse(adata.X)
    assert layer.dtype == np.float32
    for same in (adata, result):
        x = same.X.toarray() if sparse.issparse(same.X) else same.X
        np.testing.assert_array_equal(x, counts)
        assert type(same.X) is type(array_type(counts))
    assert not adata.layers
    np.testing.assert_array_equal(layer.toarray() if sparse.issparse(layer) else layer, dense_layers(record))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix], ids=["dense", "csr"])
def test_backed_counts_give_the_same_layer(record, counts, container, dense_layers, tmp_path):
    anndata.AnnData(container(counts)).write_h5ad(tmp_path / "counts.h5ad")
    adata = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    methods.impute(adata, method=record.name, options=QUICK.get(record.name))
    layer = adata.layers["imputed"]
    np.testing.assert_array_equal(layer.toarray() if sparse.issparse(layer) else layer, dense_layers(record))
    adata.file.close()


def test_no_gene_or_cell_is_lost_and_nothing_is_made_up(record, counts, dense_layers):
    layer = dense_layers(record)
    assert layer.shape == counts.shape
    assert np.isfinite(layer).all()
    assert (layer >= 0).all()
    assert not layer[EMPTY_CELL].any()
    assert not layer[:, EMPTY_GENE].any()
    np.testing.assert_array_equal(layer[:, RARE_GENE] > 0, counts[:, RARE_GENE] > 0)


def test_every_method_but_none_fills_zeros(record, counts, dense_layers):
    was_zero = counts == 0
    filled = np.count_nonzero(dense_layers(record)[was_zero])
    assert (filled == 0) == (record.name == "none")
    result = impute(anndata.AnnData(counts), record).uns["imputed"]
    assert result["n_zeros_filled"] == filled
    genes = np.isin([str(i) for i in range(60)], result["genes"])
    assert result["n_zeros"] == np.count_nonzero(was_zero[:, genes])


def test_the_result_can_be_written_and_read(record, counts, tmp_path):
    result = impute(anndata.AnnData(sparse.csr_matrix(counts)), record)
    result.write_h5ad(tmp_path / "result.h5ad")
    back = anndata.read_h5ad(tmp_path / "result.h5ad").uns["imputed"]
    assert back["method"] == record.name
    assert back["reference"] == record.reference
    assert back["random_state"] == 0
    assert back["seconds"] > 0
    assert set(back["versions"]) == set(record.distributions)
    for name, value in QUICK.get(record.name, {}).items():
        np.testing.assert_array_equal(back["options"][name], value)


def test_the_same_seed_gives_the_same_bytes_and_a_generator_will_do(record, counts, dense_layers):
    adata = anndata.AnnData(counts)
    assert layer_of(adata, record, random_state=0).tobytes() == dense_layers(record).tobytes()
    np.testing.assert_array_equal(layer_of(adata, record, random_state=np.random.default_rng(0)), dense_layers(record))


def test_global_generators_are_left_alone(record, counts, dense_layers):
    def states():
        return np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002

    dense_layers(record)  # importing scikit-learn draws from Python's
    before = states()
    with torch_threads(4):  # by which networks are built at a time
        impute(anndata.AnnData(counts), record)
    assert states() == before


def test_observed_counts_are_kept_exactly_where_asked(record, counts):
    layer = layer_of(anndata.AnnData(counts), record, keep_observed=True, scale="counts")
    seen = counts > 0
    np.testing.assert_array_equal(layer[seen], counts[seen])
    published = layer_of(anndata.AnnData(counts), record, scale="counts")
    if record.keeps_observed:
        np.testing.assert_array_equal(published[seen], counts[seen])
    elif record.name != "scimpute":  # which replaces few of them
        assert np.mean(published[seen] != counts[seen]) > 0.3


@pytest.mark.parametrize("name", sorted(EQUIVARIANT & set(METHODS)))
def test_permuting_cells_and_genes_permutes_the_result(name, counts, dense_layers):
    record, rng = METHODS[name], np.random.default_rng(3)
    if record.load is not None:
        pytest.importorskip(name)
    cells, genes = rng.permutation(48), rng.permutation(60)
    permuted = layer_of(anndata.AnnData(counts[np.ix_(cells, genes)]), record)
    np.testing.assert_allclose(permuted, dense_layers(record)[np.ix_(cells, genes)], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------- what is refused


def test_genes_by_cells_are_refused(record, counts):
    adata = anndata.AnnData(counts.T.copy())
    adata.obs_names = [f"ENSG{i:011d}" for i in range(60)]
    with pytest.raises(ValueError, match="looks like genes × cells"):
        impute(adata, record)


def test_logs_given_as_counts_are_refused(record, counts):
    with pytest.raises(ValueError, match="look logged already"):
        impute(anndata.AnnData(np.log1p(counts)), record)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("n_cells", [1, 3, 6, 10])
def test_few_cells_are_imputed_or_refused_in_one_line(record, n_cells):
    few = np.random.default_rng(2).poisson(6, size=(n_cells, 40)).astype(np.float32)
    try:
        layer, refusal = layer_of(anndata.AnnData(few), record), None
    except ValueError as error:
        layer, refusal = None, str(error)
    if refusal is None:
        assert np.isfinite(layer).all()
    else:
        assert re.search("cell", refusal)
        assert "\n" not in refusal


# ---------------------------------------------------------------------------------------------- matrices


def test_matrices_of_logs_are_imputed_on_their_scale(record, counts):
    present = np.delete(np.delete(counts, RARE_GENE, axis=1), EMPTY_GENE, axis=1)
    log2 = np.log2(present / np.maximum(present.sum(1, keepdims=True), 1) * 300 + 1)
    options = QUICK.get(record.name)
    imputed = methods.impute_matrix(log2, method=record.name, rng=np.random.default_rng(0), options=options)
    again = methods.impute_matrix(
        sparse.csc_array(log2), method=record.name, rng=np.random.default_rng(0), options=options
    )
    np.testing.assert_array_equal(imputed, again)
    assert imputed.shape == log2.shape
    assert np.isfinite(imputed).all()
    assert (imputed >= 0).all()
    assert not imputed[EMPTY_CELL].any()
    seen = log2 > 0
    if record.name not in UNTRAINED:
        assert np.corrcoef(imputed[seen], log2[seen])[0, 1] > 0.3
