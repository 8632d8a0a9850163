"""Output that fits: some genes, sparse, in half precision, compressed, or no layer; of memory, files and commands."""

import json
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute, impute_file
from scautoimpute.cli import app
from scautoimpute.cli._output_asked import given_of
from stored_counts import write_zarr

N_CELLS, N_GENES, N_TOP = 700, 60, 24
pytestmark = pytest.mark.filterwarnings("ignore:(no network stopped|the network did not|training stopped)")


@pytest.fixture(scope="module")
def counts():
    """Counts with something of the genes in every slot."""
    adata = sai.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    x = sparse.csr_matrix(adata.X, dtype=np.float32)
    rng = np.random.default_rng(0)
    var = pd.DataFrame({"length": np.arange(N_GENES), "kind": pd.Categorical(list("abcdef") * 10)})
    var.index = adata.var_names
    obs = pd.DataFrame({"donor": rng.choice(["x", "y"], N_CELLS)}, index=adata.obs_names)
    full = AnnData(x, obs=obs, var=var)
    full.layers["dense"], full.layers["by_gene"] = x.toarray(), sparse.csc_matrix(x)
    full.layers["whole"] = x.astype(np.int32)
    full.varm["loadings"] = rng.normal(size=(N_GENES, 2))
    full.varp["near"] = sparse.random(N_GENES, N_GENES, 0.1, format="csr", random_state=0)
    full.obsm["X_pca"] = rng.normal(size=(N_CELLS, 3))
    full.raw = AnnData(x, var=var)
    return full


@pytest.fixture(scope="module")
def models(counts):
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are not trained to their end
        for objective, options in (("masked", {"n_top_genes": N_TOP}), ("counts", {"batch_key": "donor"})):
            found[objective] = AutoImpute(objective, hidden=6, max_epochs=4, random_state=0)
            sai.tl.autoimpute(counts.copy(), model=found[objective], **options)
    return found


@pytest.fixture(params=["masked", "counts"])
def applied(request, models):
    """A model, and what applying it needs."""
    return {"model": models[request.param]} | ({"batch_key": "donor"} if request.param == "counts" else {})


@pytest.fixture(scope="module")
def some(counts):
    """Names of genes, not in the order of the data."""
    return [counts.var_names[position] for position in (41, 3, 17, 59, 4)]


def plain(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def store(adata, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and zarr, of formats to come
        adata.write_h5ad(path) if path.suffix == ".h5ad" else adata.write_zarr(path)
    return path


def in_file(counts, tmp_path, suffix, **options):
    """What a streamed run writes."""
    source = store(counts, tmp_path / f"in{suffix}")
    impute_file(source, output=tmp_path / f"out{suffix}", **options)
    return sai.read(tmp_path / f"out{suffix}")


def in_memory(counts, **options):
    adata = counts.copy()
    sai.tl.autoimpute(adata, **options)
    return adata


def equal(one, other, *, but=()):
    """Whether two objects hold the same, to the bit and the order."""
    pd.testing.assert_frame_equal(one.obs, other.obs, check_exact=True, check_categorical=False, check_dtype=False)
    pd.testing.assert_frame_equal(one.var, other.var, check_exact=True)
    for slot in ("layers", "obsm", "varm", "varp"):
        assert set(getattr(one, slot)) - {*but} == set(getattr(other, slot)) - {*but}
        for name in set(getattr(one, slot)) - {*but}:
            mine, its = getattr(one, slot)[name], getattr(other, slot)[name]
            assert sparse.issparse(mine) == sparse.issparse(its), name
            assert mine.dtype == its.dtype, name
            np.testing.assert_array_equal(plain(mine), plain(its))
    np.testing.assert_array_equal(plain(one.X), plain(other.X))
    np.testing.assert_array_equal(plain(one.raw.X), plain(other.raw.X))


# ----------------------------------------------------------------------------------------------------- some genes


@pytest.mark.parametrize("scale", ["log1p", "counts"])
def test_output_genes_are_the_whole_result_of_these(counts, applied, some, scale):
    whole = in_memory(counts, scale=scale, **applied)
    few = in_memory(counts, scale=scale, output_genes=some, **applied)
    assert list(few.var_names) == some
    equal(few, whole[:, some].copy(), but={"imputed"})
    np.testing.assert_array_equal(plain(few.layers["imputed"]), plain(whole.layers["imputed"][:, few_of(whole, some)]))
    assert list(few.uns["imputed"]["genes"]) == list(whole.uns["imputed"]["genes"])
    modelled = few.var["autoimpute_modelled"].to_numpy()
    zero = plain(few.X)[:, modelled] == 0
    assert few.uns["imputed"]["n_zeros"] == zero.sum()
    assert few.uns["imputed"]["n_zeros_filled"] == (plain(few.layers["imputed"])[:, modelled][zero] > 0).sum()


def few_of(adata, names):
    return adata.var_names.get_indexer(names)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_file_of_some_genes_is_what_memory_gives(counts, applied, some, suffix, tmp_path):
    expected = in_memory(counts, output_genes=some, **applied)
    equal(in_file(counts, tmp_path, suffix, output_genes=some, **applied), expected)
    assert sparse.issparse(expected.layers["by_gene"])
    assert expected.layers["by_gene"].format == "csc"


def test_standard_deviations_and_expected_logs_of_some_genes(counts, models, some, tmp_path):
    options = {"model": models["counts"], "batch_key": "donor", "posterior_sd": True, "scale": "expected_log1p"}
    whole = in_memory(counts, **options)
    few = in_file(counts, tmp_path, ".h5ad", output_genes=some, **options)
    for name in ("imputed", "imputed_sd"):  # roots and logs differ in the last bit with the place in a vector
        np.testing.assert_allclose(plain(few.layers[name]), plain(whole[:, some].layers[name]), rtol=1e-6)


@pytest.mark.parametrize("missing", [[], ["batch"], ["genes"], ["batch", "genes"]])
def test_the_molecules_of_all_genes_count_whichever_are_given(counts, models, some, missing):
    """As another batch, or without some genes of the model, estimates are rescaled over all genes."""
    options = {"model": models["counts"], "batch_key": "donor"} | ({"as_batch": "x"} if "batch" in missing else {})
    cells = counts[:, 0 : 50 if "genes" in missing else N_GENES].copy()
    given = [name for name in some if name in cells.var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing genes
        whole, few = in_memory(cells, **options), in_memory(cells, output_genes=given, **options)
    np.testing.assert_array_equal(few.layers["imputed"], whole[:, given].layers["imputed"])


def test_a_table_has_the_genes_that_were_asked_for(counts, applied, some, tmp_path):
    impute_file(store(counts, tmp_path / "in.h5ad"), output=tmp_path / "out.csv", output_genes=some, **applied)
    table = pd.read_csv(tmp_path / "out.csv", index_col=0)
    expected = in_memory(counts, output_genes=some, **applied)
    assert list(table.columns) == some
    np.testing.assert_allclose(table.to_numpy(), plain(expected.layers["imputed"]), rtol=1e-6)


def test_training_takes_all_genes_whichever_are_given(counts, some):
    whole, few = counts.copy(), counts.copy()
    models = [AutoImpute("counts", hidden=4, max_epochs=2, random_state=3) for _ in range(2)]
    options = {"genes": list(counts.var_names[:45])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sai.tl.autoimpute(whole, model=models[0], **options)
        sai.tl.autoimpute(few, model=models[1], output_genes=some, **options)
    assert models[0].genes_ == models[1].genes_
    np.testing.assert_array_equal(plain(few.layers["imputed"]), plain(whole[:, some].layers["imputed"]))
    assert few.var["autoimpute_modelled"].tolist() == [True, True, True, False, True]


def test_names_repeated_in_the_data_are_told_apart_as_in_reading(counts, models, tmp_path):
    twice = AnnData(counts.X, var=counts.var[["length"]])
    twice.var_names = [*counts.var_names[:-1], counts.var_names[-2]]
    name = f"{counts.var_names[-2]}-1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = store(twice, tmp_path / "in.h5ad")
        impute_file(source, output=tmp_path / "out.h5ad", model=models["masked"], output_genes=[name])
    assert list(sai.read(tmp_path / "out.h5ad").var_names) == [name]


# ------------------------------------------------------------------------------------------- what is stored, and how


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_values_under_a_threshold_are_not_stored(counts, applied, suffix, tmp_path):
    whole = plain(in_memory(counts, **applied).layers["imputed"])
    below = float(np.quantile(whole, 0.7))
    result = in_file(counts, tmp_path, suffix, sparse_below=below, **applied)
    layer = result.layers["imputed"]
    assert layer.format == "csr"
    np.testing.assert_array_equal(layer.toarray(), np.where(whole < below, 0, whole))
    assert layer.nnz == np.count_nonzero(whole >= below)
    assert result.uns["imputed"]["sparse_below"] == below
    equal(result, in_memory(counts, sparse_below=below, **applied))
    modelled = result.var["autoimpute_modelled"].to_numpy()
    filled = (plain(counts.X) == 0)[:, modelled] & (layer.toarray()[:, modelled] > 0)
    assert result.uns["imputed"]["n_zeros_filled"] == filled.sum()


def test_a_standard_deviation_is_stored_where_its_estimate_is(counts, models):
    result = in_memory(counts, model=models["counts"], batch_key="donor", sparse_below=1.0, posterior_sd=True)
    value, sd = (result.layers[name] for name in ("imputed", "imputed_sd"))
    np.testing.assert_array_equal(value.toarray() > 0, sd.toarray() > 0)


def test_half_precision_is_dense_and_rounds(counts, applied, tmp_path):
    whole = plain(in_memory(counts, **applied).layers["imputed"])
    result = in_file(counts, tmp_path, ".h5ad", dtype="float16", **applied)
    layer = result.layers["imputed"]
    assert (type(layer), layer.dtype) == (np.ndarray, np.float16)
    np.testing.assert_array_equal(layer, whole.astype(np.float16))
    np.testing.assert_array_equal(layer, in_memory(counts, dtype="float16", **applied).layers["imputed"])


def test_what_half_precision_cannot_hold_is_refused(counts, models):
    large = counts.copy()
    large.X = large.X * 10_000
    with pytest.raises(ValueError, match=r"dtype='float16' holds up to 65,504, found .* take a log scale"):
        sai.tl.autoimpute(large, model=models["masked"], scale="counts", dtype="float16")


def test_compression_makes_the_same_file_smaller(counts, models, tmp_path):
    source, options = store(counts, tmp_path / "in.h5ad"), {"model": models["counts"], "batch_key": "donor"}
    for name, compression in (("plain", None), ("packed", "gzip")):
        impute_file(source, output=tmp_path / f"{name}.h5ad", compression=compression, **options)
    equal(*(sai.read(tmp_path / f"{name}.h5ad") for name in ("plain", "packed")))
    with h5py.File(tmp_path / "packed.h5ad") as packed, h5py.File(tmp_path / "plain.h5ad") as plain_file:
        new, old = packed["layers/imputed"], plain_file["layers/imputed"]
        assert (new.compression, old.compression) == ("gzip", None)
        assert new.id.get_storage_size() < 0.95 * old.id.get_storage_size()
    adata = in_memory(counts, **options)
    sai.write(adata, tmp_path / "memory.h5ad", compression="gzip")
    with h5py.File(tmp_path / "memory.h5ad") as file:
        assert file["layers/imputed"].compression == "gzip"
    some = {"output_genes": ["gene_3", "gene_1"]}
    impute_file(source, output=tmp_path / "some.h5ad", compression="gzip", **some, **options)
    with h5py.File(tmp_path / "some.h5ad") as file:
        assert {file[name].compression for name in ("X/data", "layers/dense", "layers/by_gene/data")} == {"gzip"}


def compressed(path):
    """Which arrays of a zarr store are."""
    members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
    return {name for name, item in members.items() if hasattr(item, "shape") and item.compressors}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("form", [{"dtype": "float16"}, {"sparse_below": 0.5}, {"output_genes": ["gene_3", "gene_1"]}])
def test_zarr_of_both_formats_is_compressed_or_not(counts, models, zarr_format, form, tmp_path):
    source, options = write_zarr(counts, tmp_path, zarr_format), {"model": models["masked"], **form}
    wanted = in_memory(counts, **options)
    if "output_genes" in form:
        new = {"X", "layers/dense", "layers/whole", "layers/by_gene", "layers/imputed", "obsm/X_autoimpute"}
    else:
        new = {"layers/imputed", "obsm/X_autoimpute"}
    for compression, found in ((None, new), ("none", set())):
        path = tmp_path / f"{compression}.zarr"
        impute_file(source, output=path, compression=compression, **options)
        assert zarr.open_group(path, mode="r").metadata.zarr_format == zarr_format
        assert {name for name in new if any(part.startswith(name) for part in compressed(path))} == found
        result = anndata.read_zarr(path)
        equal(result, wanted)
        assert result.layers["imputed"].dtype == form.get("dtype", "float32")


def test_a_whole_object_is_written_to_a_zarr_that_is_not_compressed(counts, tmp_path):
    sai.write(counts, tmp_path / "out.zarr", compression="none")
    assert not {name for name in compressed(tmp_path / "out.zarr") if name.startswith(("X", "layers", "raw/X", "obsm"))}
    equal(anndata.read_zarr(tmp_path / "out.zarr"), counts)


def test_no_matrix_is_the_embedding_and_the_record_alone(counts, applied, tmp_path):
    whole = in_memory(counts, **applied)
    again = whole.copy()
    sai.tl.autoimpute(again, matrix=False, **applied)
    for result in (in_file(whole, tmp_path, ".zarr", matrix=False, **applied), again):
        assert set(result.layers) == set(counts.layers)
        np.testing.assert_array_equal(result.obsm["X_autoimpute"], whole.obsm["X_autoimpute"])
        np.testing.assert_array_equal(plain(result.X), plain(counts.X))
        assert "n_zeros" not in result.uns["imputed"]
        assert result.uns["imputed"]["matrix"] == np.False_
        assert result.var["autoimpute_modelled"].sum() == whole.var["autoimpute_modelled"].sum()


# ------------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_had_is_refused_in_one_line(counts, models, some, tmp_path):
    source = store(counts, tmp_path / "in.h5ad")
    for options, said in (
        ({"output_genes": []}, "output_genes= names no gene"),
        ({"output_genes": [some[0], some[0]]}, f"names {some[0]!r} more than once"),
        ({"output_genes": [some[0], "absent"]}, r"1 of 2 names in output_genes= are not in the data \(e.g. 'absent'"),
        ({"sparse_below": 0}, "sparse_below=0 is no threshold"),
        ({"sparse_below": np.nan}, "sparse_below=nan is no threshold"),
        ({"dtype": "float64"}, "dtype='float64' is not known: choose 'float32' or 'float16'"),
        ({"sparse_below": 0.1, "dtype": "float16"}, "exclude each other"),
        ({"matrix": False, "sparse_below": 0.1}, "gives no layer, so sparse_below= has no effect"),
        ({"matrix": False, "output_genes": some}, "gives no layer, so output_genes= has no effect"),
        ({"matrix": False, "dtype": "float16"}, "gives no layer, so dtype= has no effect"),
    ):
        for run in (
            lambda **o: sai.tl.autoimpute(counts.copy(), **o),
            lambda **o: impute_file(source, output=tmp_path / "out.h5ad", **o),
        ):
            with pytest.raises(ValueError, match=said) as raised:
                run(model=models["masked"], **options)
            assert "\n" not in str(raised.value)
    with pytest.raises(TypeError, match="is one text"):
        sai.tl.autoimpute(counts.copy(), output_genes="gene")
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("out.csv", {"sparse_below": 0.1}, "'out.csv' has no place for sparse_below=: write .h5ad or .zarr"),
        ("out.loom", {"matrix": False}, "'out.loom' has no place for matrix=False"),
        ("out.mtx", {"dtype": "float16"}, "'out.mtx' has no place for dtype='float16'"),
        ("out.zarr", {"compression": "gzip"}, "compression= is of .h5ad; .zarr has its own"),
        ("out.zarr", {"compression": "gzip"}, "leave it out, or choose 'none'"),
        ("out.csv", {"compression": "gzip"}, "write .csv.gz"),
        ("out.csv.gz", {"compression": "none"}, r"compression= is of .h5ad; .csv.gz .* or write .csv$"),
        ("out.loom", {"compression": "gzip"}, "leave it out$"),
        ("out.h5ad", {"compression": "lzf"}, "compression='lzf' is not known"),
    ],
)
def test_formats_refuse_what_they_cannot_hold(counts, models, tmp_path, name, options, said):
    with pytest.raises(ValueError, match=said):
        impute_file(tmp_path / "absent.h5ad", output=tmp_path / name, model=models["masked"], **options)


def test_a_backed_object_keeps_its_genes(counts, models, some, tmp_path):
    backed = anndata.read_h5ad(store(counts, tmp_path / "in.h5ad"), backed="r")
    with pytest.raises(ValueError, match="backed by a file and so cannot be changed"):
        sai.tl.autoimpute(backed, model=models["masked"], output_genes=some)
    copied = sai.tl.autoimpute(backed, model=models["masked"], output_genes=some, copy=True)
    assert list(copied.var_names) == some
    backed.file.close()


# ---------------------------------------------------------------------------------------------------- command line


def command(*arguments):
    done = CliRunner().invoke(app, ["impute", *map(str, arguments), "--json"])
    return done, json.loads(done.stdout.splitlines()[-1]) if done.exit_code == 0 else None


@pytest.mark.filterwarnings("always::UserWarning")
def test_the_command_trains_and_applies_in_every_form(counts, models, some, tmp_path):
    source = store(counts, tmp_path / "in.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(some))
    models["masked"].save(tmp_path / "model")
    trained = ("--objective", "counts", "--max-epochs", 2, "--hidden", 4)
    for how in (("--from-model", tmp_path / "model"), trained):
        base = [source, "-o", tmp_path / "out.h5ad", "--overwrite", *how]
        done, _ = command(*base, "--output-genes", tmp_path / "genes.txt", "--sparse", 0.5, "--compression", "gzip")
        assert done.exit_code == 0, done.output
        few = sai.read(tmp_path / "out.h5ad")
        assert list(few.var_names) == some
        assert few.layers["imputed"].data.min() >= 0.5
        done, told = command(*base, "--dtype", "float16")
        assert sai.read(tmp_path / "out.h5ad").layers["imputed"].dtype == np.float16
        assert told["layer"] == "imputed"
        done, told = command(*base, "--no-matrix")
        result = sai.read(tmp_path / "out.h5ad")
        assert ("imputed" in result.layers, "X_autoimpute" in result.obsm) == (False, True)
        assert (told["layer"], told["zeros"]) == (None, None)
    done, _ = command(source, "-o", tmp_path / "out.zarr", *how, "--compression", "none")
    assert done.exit_code == 0, done.output
    assert not any(name.startswith("layers/imputed") for name in compressed(tmp_path / "out.zarr"))
    done = CliRunner().invoke(app, ["impute", *map(str, base), "--no-matrix"])
    assert "the embedding alone, no layer" in done.stdout


def test_the_command_refuses_in_one_line(counts, some, tmp_path):
    source = store(counts, tmp_path / "in.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(some))
    genes = ("--output-genes", tmp_path / "genes.txt")
    for options, said in (
        ((*genes, "--method", "knn"), "--output-genes has no effect with --method knn"),
        (("--no-matrix", "--method", "knn"), "--no-matrix has no effect with --method knn"),
        (("--sparse", 0.1, "--dtype", "float16"), "exclude each other"),
        (("--no-matrix", *genes), "--no-matrix gives no layer, so --output-genes has no effect"),
        (("--output-genes", tmp_path / "no.txt"), "--output-genes"),
        ((*genes, "--report", tmp_path / "r.html"), "--report looks at the estimates of all genes in full"),
        (("--no-matrix", "--sd"), "--no-matrix gives no layer, so --sd has no effect"),
    ):
        done, _ = command(source, "-o", tmp_path / "out.h5ad", *options)
        assert done.exit_code == 1, options
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_report_of_an_applied_model_needs_no_layer(counts, models, tmp_path):
    models["masked"].save(tmp_path / "model")
    applied = ("--from-model", tmp_path / "model", "--no-matrix")
    source = store(counts, tmp_path / "in.h5ad")
    done, _ = command(source, "-o", tmp_path / "out.h5ad", *applied, "--report", tmp_path / "report.html")
    assert done.exit_code == 0, done.output
    assert "not counted: no layer was written" in (tmp_path / "report.html").read_text()


def test_of_another_method_each_option_of_the_output_that_was_given_is_refused(tmp_path):
    asked = ["impute", "none.h5ad", "-o", tmp_path / "out.h5ad", "--method", "knn"]
    for given in (["--compression", "none"], ["--dtype", "float16"], ["--no-matrix"]):
        done = CliRunner().invoke(app, list(map(str, [*asked, *given])))
        assert done.exit_code != 0
        assert given[0] in str(done.exception) + done.output
    assert given_of({"dtype": "float32", "compression": "float32"}, matrix=True) == {"compression": "float32"}
