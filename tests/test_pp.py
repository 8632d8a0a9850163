"""Pre-processing against the published R code's stored outputs, an independent computation, and every container."""

import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scautoimpute import pp
from scautoimpute._genes import gene_scores

RNG = np.random.default_rng(7)
COUNTS = RNG.negative_binomial(1, 0.03, size=(40, 120)) * (RNG.random((40, 120)) < 0.6)
COUNTS[:, [3, 50]] = 0  # genes never seen
COUNTS[:, 7] = 2 * (RNG.random(40) < 0.5)  # never three reads at once
NO_READS_IN_KEPT = "no reads in the genes that were kept"


def as_array(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def expected_kept(counts, *, min_counts=3, min_cells=3):
    return np.array([g for g in range(counts.shape[1]) if (counts[:, g] >= min_counts).sum() >= min_cells])


def expected_normalised(counts):
    total = counts.sum(axis=1)
    return counts / (total / np.median(total))[:, None]


@pytest.fixture
def adata():
    return ad.AnnData(sparse.csr_matrix(COUNTS, dtype=np.float32))


def golden_counts(golden, name):
    stored = np.load(golden / f"preprocess_{name}.npz")
    counts = np.load(golden / "input_quake300.npz")["counts"] if name == "quake300" else stored["raw_counts"]
    return stored, ad.AnnData(sparse.csr_matrix(counts, dtype=np.float64))


# --- the published R code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blakeley", "quake300"])
def test_reference_reproduces_the_r_code(golden, name):
    stored, adata = golden_counts(golden, name)
    done = pp.processed_matrix(adata, reference=True)
    np.testing.assert_array_equal(done.genes, stored["kept_index"][stored["selected_index_in_kept"]])
    np.testing.assert_allclose(done.size_factor, stored["size_factors"], rtol=1e-15)
    assert done.median_total == stored["lib_median"]
    assert done.log2.dtype == np.float64
    rows = np.split(done.log2.indices, done.log2.indptr[1:-1])
    assert all((np.diff(row) > 0).all() for row in rows)  # sorted, though the columns were reordered
    n_stored = stored["log2"].shape[1]
    np.testing.assert_allclose(done.log2[:, :n_stored].toarray(), stored["log2"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["blakeley", "quake300"])
def test_verbs_one_by_one_equal_the_recipe(golden, name):
    _, adata = golden_counts(golden, name)
    at_once = pp.recipe_autoimpute(adata, reference=True, copy=True)
    pp.filter_genes(adata, reference=True)
    pp.normalize_median(adata, reference=True)
    pp.select_genes(adata, reference=True)
    pp.log2p1(adata)
    assert list(adata.var_names) == list(at_once.var_names)
    np.testing.assert_array_equal(as_array(adata.X), as_array(at_once.X))
    np.testing.assert_array_equal(adata.obs["size_factor"], at_once.obs["size_factor"])


@pytest.mark.parametrize(("name", "n_top"), [("edge", 30), ("edge2", 10)])
def test_reference_edge_cases_have_the_same_scores(golden, name, n_top):
    stored, adata = golden_counts(golden, name)
    pp.filter_genes(adata, reference=True)
    np.testing.assert_array_equal(adata.var_names.astype(int), stored["kept_index"])
    pp.normalize_median(adata, reference=True)
    scores = gene_scores(sparse.csr_array(adata.X), flavor="dispersion", reference=True)
    np.testing.assert_allclose(scores, stored["dispersion_norm"], rtol=0, atol=1e-12)  # NaN and Inf at the same genes
    pp.select_genes(adata, n_top_genes=n_top, reference=True)
    # Scores that R and NumPy round differently decide which tied genes come first: compare the scores by rank.
    position = {gene: i for i, gene in enumerate(stored["kept_index"])}
    by_rank = scores[[position[int(gene)] for gene in adata.var_names]]
    np.testing.assert_allclose(by_rank, stored["dispersion_norm"][stored["selected_index_in_kept"]], atol=1e-12)


def test_reference_ranks_infinite_first_and_nan_last_but_still_chooses_it(golden):
    stored, adata = golden_counts(golden, "edge")
    scores = stored["dispersion_norm"]
    done = pp.processed_matrix(adata, n_top_genes=1000, reference=True)
    in_kept = np.searchsorted(stored["kept_index"], done.genes)
    assert len(set(in_kept)) == scores.size  # fewer genes than asked: all kept
    assert np.isinf(scores[in_kept[0]])
    nan = np.flatnonzero(np.isnan(scores))
    np.testing.assert_array_equal(in_kept[-nan.size :], nan)  # in input order


def test_paper_and_r_code_filter_differently(golden):
    _, adata = golden_counts(golden, "blakeley")
    assert pp.filter_genes(adata, copy=True).n_vars == 11711
    assert pp.filter_genes(adata, reference=True, copy=True).n_vars == 10850
    _, adata = golden_counts(golden, "quake300")
    assert pp.filter_genes(adata, copy=True).n_vars == 3673
    signed, absolute = (pp.processed_matrix(adata, reference=r).genes for r in (False, True))
    assert list(signed) == sorted(signed)
    assert list(absolute) != sorted(absolute)


def test_reference_errors_are_clear():
    equal_means = ad.AnnData(np.full((5, 30), 4.0))
    with pytest.raises(ValueError, match=r"mean bins of 30 genes are not distinct.*reference=False"):
        pp.recipe_autoimpute(equal_means, reference=True)
    counts = np.vstack([COUNTS, np.zeros((2, COUNTS.shape[1]))])
    with pytest.raises(ValueError, match=r"2 of 42 cells have no reads.*R code fails"):
        pp.recipe_autoimpute(ad.AnnData(counts), reference=True)


# --- independent computation, every container ------------------------------------------------------------------------


def test_recipe_on_every_array_type(array_type):
    adata = ad.AnnData(array_type(COUNTS.astype(np.float32)))
    adata.layers["counts"] = adata.X.copy()
    kept = expected_kept(COUNTS)
    assert 0 < kept.size < COUNTS.shape[1]
    normalised = expected_normalised(COUNTS[:, kept])
    assert pp.recipe_autoimpute(adata, n_top_genes="all") is None
    assert list(adata.var_names) == [str(g) for g in kept]
    np.testing.assert_allclose(as_array(adata.X), np.log2(normalised + 1), rtol=1e-6)
    assert adata.X.dtype == np.float32
    assert type(adata.X) is type(array_type(np.eye(2)))
    np.testing.assert_array_equal(as_array(adata.layers["counts"]), COUNTS[:, kept])
    total = COUNTS[:, kept].sum(axis=1)
    np.testing.assert_allclose(adata.obs["size_factor"], total / np.median(total), rtol=1e-15)


def test_each_verb_on_every_array_type(array_type):
    adata = ad.AnnData(array_type(COUNTS))  # integers
    pp.filter_genes(adata, min_counts=5, min_cells=10)
    kept = expected_kept(COUNTS, min_counts=5, min_cells=10)
    np.testing.assert_array_equal(as_array(adata.X), COUNTS[:, kept])
    pp.normalize_median(adata)
    normalised = expected_normalised(COUNTS[:, kept])
    np.testing.assert_allclose(as_array(adata.X), normalised, rtol=1e-6)
    pp.select_genes(adata, n_top_genes=20, flavor="cv")
    cv = normalised.std(axis=0, ddof=1) / normalised.mean(axis=0)
    chosen = np.sort(np.argsort(-cv)[:20])
    assert list(adata.var_names) == [str(kept[g]) for g in chosen]
    pp.log2p1(adata)
    np.testing.assert_allclose(as_array(adata.X), np.log2(normalised[:, chosen] + 1), rtol=1e-6)
    assert type(adata.X) is type(array_type(np.eye(2)))
    assert adata.X.dtype == np.float32


@pytest.mark.parametrize("verb", ["filter_genes", "normalize_median", "select_genes", "log2p1", "recipe_autoimpute"])
def test_copy_leaves_the_input_and_equals_in_place(array_type, verb):
    function = getattr(pp, verb)
    options = {"n_top_genes": 30} if verb in {"select_genes", "recipe_autoimpute"} else {}
    adata = ad.AnnData(array_type(COUNTS.astype(np.float32)))
    result = function(adata, **options, copy=True)
    np.testing.assert_array_equal(as_array(adata.X), COUNTS)
    assert not adata.uns
    assert adata.obs.empty
    assert function(adata, **options) is None
    np.testing.assert_array_equal(as_array(result.X), as_array(adata.X))
    assert adata.shape != COUNTS.shape or not np.array_equal(as_array(adata.X), COUNTS)
    assert dict(result.uns["autoimpute_recipe"]) == dict(adata.uns["autoimpute_recipe"])


def test_a_copy_shares_no_memory():
    adata = ad.AnnData(COUNTS.astype(float), layers={"other": COUNTS.astype(float)})
    result = pp.normalize_median(adata, copy=True)
    result.layers["other"][:] = -1
    np.testing.assert_array_equal(adata.layers["other"], COUNTS)


def test_layer_is_read_and_written_and_x_left_alone():
    x = RNG.random(COUNTS.shape)
    adata = ad.AnnData(x.copy(), layers={"counts": sparse.csr_matrix(COUNTS)})
    pp.normalize_median(adata, layer="counts")
    pp.log2p1(adata, layer="counts")
    np.testing.assert_array_equal(adata.X, x)
    np.testing.assert_allclose(as_array(adata.layers["counts"]), np.log2(expected_normalised(COUNTS) + 1), rtol=1e-6)


def test_views_become_objects_of_their_own(adata):
    whole = adata.copy()
    for verb in (pp.normalize_median, pp.log2p1, pp.filter_genes):
        view = adata[5:30]
        assert view.is_view
        verb(view)
        assert not view.is_view
        expected = verb(adata[5:30].copy(), copy=True)
        np.testing.assert_array_equal(as_array(view.X), as_array(expected.X))
    np.testing.assert_array_equal(as_array(adata.X), as_array(whole.X))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_backed(tmp_path, kind):
    memory = ad.AnnData(kind(COUNTS.astype(np.float32)))
    memory.write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    result = pp.recipe_autoimpute(backed, n_top_genes=30, copy=True)
    pp.recipe_autoimpute(memory, n_top_genes=30)
    assert not result.isbacked
    assert list(result.var_names) == list(memory.var_names)
    np.testing.assert_array_equal(as_array(result.X), as_array(memory.X))
    normalised = pp.normalize_median(backed, copy=True)
    np.testing.assert_allclose(as_array(normalised.X), expected_normalised(COUNTS), rtol=1e-6)
    for verb in (pp.recipe_autoimpute, pp.filter_genes, pp.normalize_median, pp.select_genes, pp.log2p1):
        with pytest.raises(ValueError, match=r"counts\.h5ad and cannot be changed in place; pass copy=True"):
            verb(backed)
    backed.file.close()


def test_processed_matrix_is_what_the_recipe_stores_and_changes_nothing(adata):
    done = pp.processed_matrix(adata, n_top_genes=30)
    assert adata.shape == COUNTS.shape
    assert not adata.uns
    result = pp.recipe_autoimpute(adata, n_top_genes=30, copy=True)
    assert isinstance(done.log2, sparse.csr_array)
    assert done.log2.has_canonical_format
    assert done.log2.dtype == np.float32
    np.testing.assert_array_equal(done.log2.toarray(), as_array(result.X))
    assert list(adata.var_names[done.genes]) == list(result.var_names)
    assert done.choices == result.uns["autoimpute_recipe"]


def test_duplicate_and_stored_zero_entries_count_once():
    doubled = sparse.csr_matrix(
        (np.array([2.0, 1, 0, 4, 3]), np.array([0, 0, 1, 0, 0]), np.array([0, 3, 4, 5])), (3, 2)
    )
    adata = ad.AnnData(doubled)
    pp.filter_genes(adata)  # 2 + 1 reads are three
    assert list(adata.var_names) == ["0"]
    np.testing.assert_array_equal(as_array(adata.X), [[3], [4], [3]])


def test_record_is_plain_and_survives_a_file(adata, tmp_path):
    pp.recipe_autoimpute(adata, n_top_genes=30)
    record = adata.uns["autoimpute_recipe"]
    assert json.loads(json.dumps(record)) == record
    assert record["n_genes_in"] == 120
    assert record["n_genes_kept"] == expected_kept(COUNTS).size
    assert record["n_empty_genes"] == (COUNTS.sum(axis=0) == 0).sum()
    assert record["n_genes_selected"] == 30
    assert record["median_total"] == np.median(COUNTS[:, expected_kept(COUNTS)].sum(axis=1))
    adata.write_h5ad(tmp_path / "done.h5ad")
    assert dict(ad.read_h5ad(tmp_path / "done.h5ad").uns["autoimpute_recipe"]) == record


def test_recipe_does_not_depend_on_cell_order(adata):
    order = np.random.default_rng(1).permutation(adata.n_obs)
    done, shuffled = (pp.processed_matrix(a, n_top_genes=30) for a in (adata, adata[order].copy()))
    np.testing.assert_array_equal(done.genes, shuffled.genes)
    np.testing.assert_allclose(done.log2.toarray()[order], shuffled.log2.toarray(), rtol=1e-6)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_empty_cells_stay_zero_and_are_reported():
    counts = np.vstack([COUNTS, np.zeros((3, COUNTS.shape[1]), dtype=int)])
    counts[-1, 7] = 2  # only in a gene that the filter drops
    adata = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))
    with pytest.warns(UserWarning, match=f"3 of 43 cells have {NO_READS_IN_KEPT}"):
        done = pp.processed_matrix(adata, n_top_genes="all")
    without = pp.processed_matrix(adata[:40].copy(), n_top_genes="all")
    np.testing.assert_array_equal(done.log2.toarray()[:40], without.log2.toarray())
    np.testing.assert_array_equal(done.size_factor[40:], 1.0)
    assert done.log2[40:].nnz == 0
    assert done.choices["n_empty_cells"] == 3
    with pytest.warns(UserWarning, match="2 of 43 cells"):
        pp.normalize_median(adata)
    assert adata.uns["autoimpute_recipe"]["n_empty_cells"] == 2
    assert adata.obs["size_factor"].iloc[40] == 1


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinite"), (-1.0, "negative")])
@pytest.mark.parametrize(
    "verb", ["filter_genes", "normalize_median", "select_genes", "log2p1", "recipe_autoimpute", "processed_matrix"]
)
def test_values_that_are_no_counts_are_refused(array_type, verb, value, what):
    counts = COUNTS.astype(np.float32)
    counts[0, :2] = value
    adata = ad.AnnData(array_type(counts))
    with pytest.raises(ValueError, match=f"^2 of 40 × 120 values are {what}, first in row 1, column 1; [^\n]*$"):
        getattr(pp, verb)(adata)
    assert adata.shape == COUNTS.shape
    assert not adata.uns


def test_logged_values_are_refused_and_other_non_integers_accepted(adata):
    logged = ad.AnnData(np.log1p(COUNTS.astype(float)))
    with pytest.raises(ValueError, match=r"look logged already \(the largest is .*layer= with counts.*AutoImpute"):
        pp.recipe_autoimpute(logged)
    rpm = ad.AnnData(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e6)
    assert pp.processed_matrix(rpm, n_top_genes=20).genes.size == 20
    rpm.uns["log1p"] = {}
    with pytest.raises(ValueError, match=r'look logged already \(uns\["log1p"\] is set\)'):
        pp.processed_matrix(rpm)
    logged.uns["log1p"] = {}
    logged.layers["counts"] = COUNTS
    logged.layers["rpm"] = rpm.X
    for layer in ("counts", "rpm"):
        assert pp.processed_matrix(logged, layer=layer, n_top_genes=20).genes.size == 20
    small = ad.AnnData(np.full((4, 3), 3.0) + np.arange(3))  # whole numbers are never logs, however small
    assert pp.processed_matrix(small).genes.size == 3
    with pytest.raises(ValueError, match="look logged"):  # its own output
        pp.recipe_autoimpute(pp.recipe_autoimpute(adata, copy=True))


def test_nothing_to_work_on_is_refused():
    with pytest.raises(ValueError, match="all of 4 × 3 values are zero"):
        pp.recipe_autoimpute(ad.AnnData(np.zeros((4, 3))))
    with pytest.raises(ValueError, match="all of 0 × 3 values are zero"):
        pp.filter_genes(ad.AnnData(np.zeros((0, 3))))
    thin = ad.AnnData(np.array([[2.0, 5.0], [2.0, 7.0], [1.0, 0.0]]))
    with pytest.raises(
        ValueError, match=r"no gene of 2 has >= 3 reads in >= 3 cells \(largest count 7; at best 2 of 3"
    ):
        pp.recipe_autoimpute(thin)
    with pytest.raises(ValueError, match=r"> 2 reads in > 3 cells"):
        pp.filter_genes(thin, reference=True)
    with pytest.raises(ValueError, match="1 cell found"):
        pp.select_genes(ad.AnnData(np.ones((1, 5))), n_top_genes=2)
    with pytest.raises(ValueError, match="no layer 'counts'"):
        pp.filter_genes(thin, layer="counts")


@pytest.mark.parametrize("n_top", [0, -5, 2.5, True, "some"])
def test_n_top_genes_is_checked(adata, n_top):
    with pytest.raises(ValueError, match=r"n_top_genes is .*whole number above 0"):
        pp.recipe_autoimpute(adata, n_top_genes=n_top)


def test_flavor_is_checked(adata):
    with pytest.raises(ValueError, match=r"flavor is 'seurat'; allowed are \"dispersion\" and \"cv\""):
        pp.recipe_autoimpute(adata, flavor="seurat")


def test_genes_by_cells_is_refused():
    names = [f"ENSG{number:011d}" for number in range(120)]
    turned = ad.AnnData(COUNTS.T.copy())
    turned.obs_names = names
    with pytest.raises(ValueError, match="looks like genes × cells"):
        pp.recipe_autoimpute(turned)


def test_importing_pp_brings_neither_scanpy_nor_torch():
    code = "import sys, scautoimpute.pp; print(sorted({'scanpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
