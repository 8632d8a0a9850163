"""A trained model applied to files a block of cells at a time: the result of memory, and nothing else touched."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem
from scipy import sparse
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute, impute_file
from scautoimpute.cli import app
from scautoimpute.io.find import find_counts
from scautoimpute.io.sample import sample_rows
from scautoimpute.io.stream import is_stored_by_rows, open_cells

N_CELLS, N_GENES, N_TOP = 2100, 60, 24  # a block of 2,048 and a rest
SCALES = ("log1p", "cp10k", "counts", "log2")
EMPTY = "2 of 2100 cells have no reads in the genes that were kept"


@pytest.fixture(scope="module")
def counts():
    """Counts with two empty cells, and something in every slot of the object."""
    adata = sai.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    x = sparse.csr_matrix(adata.X, dtype=np.float32).tolil()
    x[[7, 2090]] = 0
    x = x.tocsr()
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(rng.choice(["a", "b"], N_CELLS)),
            "score": rng.normal(size=N_CELLS),
            "name": [f"n{i}" for i in range(N_CELLS)],
            "maybe": pd.array(rng.choice([0, 1], N_CELLS), dtype="Int64"),
            "flag": rng.random(N_CELLS) > 0.5,
        },
        index=[f"cell é{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame({"length": np.arange(N_GENES)}, index=adata.var_names)
    full = AnnData(x, obs=obs, var=var)
    full.layers["copy"], full.layers["by_gene"] = x.copy(), sparse.csc_matrix(x)
    full.layers["dense"] = x.toarray()
    full.obsm["X_pca"], full.obsm["frame"] = rng.normal(size=(N_CELLS, 3)), obs[["score"]].copy()
    full.varm["loadings"] = rng.normal(size=(N_GENES, 2))
    full.obsp["near"] = sparse.random(N_CELLS, N_CELLS, 1e-3, format="csr", random_state=0)
    full.uns["deep"] = {"list": np.arange(3), "text": "é", "table": var.copy(), "none": {}, "number": 3.5}
    full.raw = AnnData(sparse.csr_matrix(x), obs=obs[[]], var=var)
    return full


@pytest.fixture(scope="module")
def model(counts):
    model = AutoImpute(hidden=6, n_folds=1, threshold=1.0, random_state=0)
    sai.tl.autoimpute(counts[counts.X.sum(1).A1 > 0][:300].copy(), model=model, n_top_genes=N_TOP)
    return model


def plain(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def equal(one, other):
    """Whether two elements of an object hold the same, exactly."""
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    elif hasattr(one, "items") and not isinstance(one, pd.DataFrame):
        assert list(one.keys()) == list(other.keys())
        for name in one.keys():  # noqa: SIM118 (a slot of an object)
            equal(one[name], other[name])
    elif sparse.issparse(one) or isinstance(one, np.ndarray):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(plain(one), plain(other))
    else:
        assert one == other


def equal_objects(one, other):
    for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"):
        equal({slot: sorted_items(getattr(one, slot))}, {slot: sorted_items(getattr(other, slot))})
    equal(one.X, other.X)
    assert (one.raw is None) == (other.raw is None)
    if one.raw is not None:
        equal(one.raw.X, other.raw.X)
        equal(one.raw.var, other.raw.var)


def sorted_items(slot):
    if isinstance(slot, pd.DataFrame) or not hasattr(slot, "items"):
        return slot
    return {name: slot[name] for name in sorted(slot, key=str)}


def store(adata, path, *, zarr_format=2):
    """Write as a user would; returns the path."""
    if path.suffix == ".h5ad":
        adata.write_h5ad(path)
        return path
    with anndata.settings.override(zarr_write_format=zarr_format), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and zarr, of formats to come
        adata.write_zarr(path)
    return path


def with_nullable_names(path):
    """Store names as anndata 0.13 does with pandas 3: beside them, which are missing."""
    with h5py.File(path, "r+") as file:
        frames: list[h5py.Group] = []
        file.visititems(lambda _, item: frames.append(item) if item.attrs.get("encoding-type") == "dataframe" else None)
        for frame in frames:
            names = frame.attrs["_index"]
            if isinstance(frame[names], h5py.Group):
                continue
            values = frame[names].asstr()[:]
            del frame[names]
            group = frame.create_group(names)
            group.attrs["encoding-type"], group.attrs["encoding-version"] = "nullable-string-array", "0.1.0"
            write_elem(group, "values", values.astype(object))
            write_elem(group, "mask", np.zeros(len(values), dtype=bool))
    return path


INPUTS = {
    "h5ad, CSR": lambda a, p: store(a, p / "in.h5ad"),
    "h5ad, dense": lambda a, p: store(with_x(a, a.X.toarray()), p / "in.h5ad"),
    "h5ad, names as anndata 0.13 has them": lambda a, p: with_nullable_names(store(a, p / "in.h5ad")),
    "h5ad, integers": lambda a, p: store(with_x(a, a.X.astype(np.int64)), p / "in.h5ad"),
    "zarr 2, CSR": lambda a, p: store(a, p / "in.zarr"),
    "zarr 3, CSR": lambda a, p: store(a, p / "in.zarr", zarr_format=3),
    "zarr 3, dense": lambda a, p: store(with_x(a, a.X.toarray()), p / "in.zarr", zarr_format=3),
}


def with_x(adata, x):
    changed = adata.copy()
    changed.X = x
    return changed


def in_memory(source, model, *, suffix=".h5ad", **options):
    """What reading the whole file, `tl.autoimpute` and a file of `suffix` give."""
    adata = sai.read(source)
    sai.tl.autoimpute(adata, model=model, **options)
    with tempfile.TemporaryDirectory() as folder:
        sai.write(adata, Path(folder) / f"memory{suffix}")
        return sai.read(Path(folder) / f"memory{suffix}")


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_some_genes_of_a_file_of_anndata_0_13(counts, model, tmp_path, suffix):
    path, some = with_nullable_names(store(counts, tmp_path / "in.h5ad")), model.genes_[3:5]
    impute_file(path, output=tmp_path / f"out{suffix}", model=model, output_genes=some)
    assert list(sai.read(tmp_path / f"out{suffix}").var_names) == list(some)


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize(
    ("source", "suffix"),
    [pair for pair in itertools.product(INPUTS, (".h5ad", ".zarr")) if pair != ("h5ad, integers", ".zarr")],
)
def test_every_format_gives_what_memory_gives_bit_by_bit(counts, model, tmp_path, source, suffix):
    path = INPUTS[source](counts, tmp_path)
    assert is_stored_by_rows(path)
    record = impute_file(path, output=tmp_path / f"out{suffix}", model=model)
    result, expected = sai.read(tmp_path / f"out{suffix}"), in_memory(path, model, suffix=suffix)
    equal_objects(result, expected)
    assert record["recipe"] == expected.uns["imputed"]["recipe"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f"out{suffix}"])


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize(("scale", "keep_observed"), itertools.product(SCALES, (True, False)))
def test_every_scale_gives_what_memory_gives(counts, model, tmp_path, scale, keep_observed):
    path, options = store(counts, tmp_path / "in.h5ad"), {"scale": scale, "keep_observed": keep_observed}
    impute_file(path, output=tmp_path / "out.h5ad", model=model, key_added="new", layer="dense", **options)
    result, expected = (
        sai.read(tmp_path / "out.h5ad"),
        in_memory(path, model, key_added="new", layer="dense", **options),
    )
    equal_objects(result, expected)
    assert isinstance(result.layers["new"], np.ndarray)


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize("name", ["out.csv", "out.tsv.gz"])
@pytest.mark.parametrize("layer", [None, "dense"])
def test_text_is_what_memory_writes(counts, model, tmp_path, name, layer):
    path = store(counts, tmp_path / "in.h5ad")
    impute_file(path, output=tmp_path / name, model=model, layer=layer)
    sai.write(in_memory(path, model, layer=layer), tmp_path / f"memory_{name}", layer="imputed")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"memory_{name}").read_bytes()


@pytest.mark.parametrize("name", ["out.csv", "out.tsv.gz"])
def test_whole_numbers_are_written_so_whatever_else_there_is(counts, model, tmp_path, name):
    """Of a matrix without zeros all values are counts, which memory could know before it writes, and blocks not."""
    adata = AnnData(counts.X[:300].toarray() + 1, obs=counts.obs[[]][:300], var=counts.var)
    path = store(adata, tmp_path / "in.h5ad")
    impute_file(path, output=tmp_path / name, model=model, scale="counts")
    sai.write(in_memory(path, model, scale="counts"), tmp_path / f"memory_{name}", layer="imputed")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"memory_{name}").read_bytes()
    written = pd.read_csv(tmp_path / name, sep=None, engine="python", index_col=0, dtype=str)
    assert (written.to_numpy() == adata.X.astype(int).astype(str)).all()


def test_numbers_in_text_are_read_as_they_were(tmp_path):
    values = [0, -0.0, 3, -2, 0.1, 1 / 3, 1e-30, 2**24 + 2, 3e38, 12345.678]
    for dtype in (np.float32, np.float64):
        adata = AnnData(np.array([values, values[::-1]], dtype=dtype))
        sai.write(adata, tmp_path / "out.csv", overwrite=True)
        found = pd.read_csv(tmp_path / "out.csv", index_col=0, float_precision="round_trip").to_numpy()
        np.testing.assert_array_equal(found.astype(dtype), adata.X)
        assert "0.1," in (tmp_path / "out.csv").read_text()
        assert ".0," not in (tmp_path / "out.csv").read_text()
    sai.write(AnnData(np.array([[np.nan, 1.5], [2, np.inf]])), tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["0,,1.5", "1,2,inf"]
    sai.write(AnnData(np.array([[True, False]])), tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["0,1,0"]


def said(action, *arguments, **options):
    """What an action warns of, and from which file the reader is told it comes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action(*arguments, **options)
    return sorted((str(w.message), w.filename) for w in caught if issubclass(w.category, UserWarning))


def test_warnings_are_those_of_memory(counts, model, tmp_path):
    path = store(counts[:, 1:].copy(), tmp_path / "in.h5ad")
    streamed = said(impute_file, path, output=tmp_path / "out.h5ad", model=model)
    assert streamed == said(sai.tl.autoimpute, sai.read(path), model=model)
    assert [EMPTY in text for text, _ in streamed] == [False, True]
    assert (
        "1 of the model's 24 genes (e.g. 'gene_1') are not in the data and count as unobserved; they had 0.1% of"
        in streamed[0][0]
    )


def test_counts_by_genes_are_read_at_once_and_said_to_be(counts, model, tmp_path):
    path = store(counts, tmp_path / "in.h5ad")
    (empty, _), (by_gene, _) = said(impute_file, path, output=tmp_path / "out.h5ad", model=model, layer="by_gene")
    assert EMPTY in empty
    assert "in.h5ad are stored by genes (CSC), so their non-zeros are read into memory at once" in by_gene
    with pytest.warns(UserWarning, match=EMPTY):
        expected = in_memory(path, model, layer="by_gene")
    equal_objects(sai.read(tmp_path / "out.h5ad"), expected)


def test_counts_by_genes_are_read_once_where_they_have_fractions(counts, model, tmp_path):
    """Which makes them be looked through for what no log has, before they are imputed."""
    adata = AnnData(counts.layers["by_gene"].copy(), obs=counts.obs[["score"]], var=counts.var)
    adata.X.data[::2] += 0.5
    adata.X.data[-1] = 40
    path = store(adata, tmp_path / "in.h5ad")
    warned = said(impute_file, path, output=tmp_path / "out.h5ad", model=model)
    assert ["stored by genes" in text for text, _ in warned] == [False, True]
    assert {where for _, where in warned} == {__file__}
    with pytest.warns(UserWarning, match=EMPTY):
        equal_objects(sai.read(tmp_path / "out.h5ad"), in_memory(path, model))


@pytest.mark.filterwarnings("ignore:the counts in")
@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_sparse_matrices_in_half_precision_are_widened(counts, model, tmp_path):
    """Which scipy does not have, but a file may."""
    path = tmp_path / "in.h5ad"
    store(counts, path)
    with h5py.File(path, "r+") as file:
        for group in (file["X"], file["layers/by_gene"]):
            attributes, values = dict(group["data"].attrs), group["data"][:]
            del group["data"]
            group["data"] = values.astype(np.float16)
            group["data"].attrs.update(attributes)
    stored = counts.X.toarray().astype(np.float16)
    np.testing.assert_array_equal(sai.read(path).X.toarray(), stored)
    for layer in (None, "by_gene"):
        impute_file(path, output=tmp_path / "out.h5ad", model=model, layer=layer, overwrite=True)
        expected = in_memory(path, model, layer=layer)
        equal(sai.read(tmp_path / "out.h5ad").layers["imputed"], expected.layers["imputed"])
    with open_cells(path) as cells:
        assert find_counts(cells).layer is None
        for matrix in (cells.X, cells.layers["by_gene"]):
            sample = sample_rows(matrix, n_values=9999)
            np.testing.assert_array_equal(sample.values.toarray(), stored[sample.rows])  # noqa: PD011


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize("n_genes", [N_GENES, N_GENES - 5])
def test_counts_in_raw(counts, model, tmp_path, n_genes):
    """Also where the object has fewer genes than its raw, in another order."""
    adata = counts[:, np.random.default_rng(0).permutation(N_GENES)[:n_genes] if n_genes < N_GENES else slice(None)]
    adata = AnnData(np.log1p(adata.X.toarray()), obs=counts.obs[["score"]], var=adata.var)
    adata.raw = AnnData(counts.X, var=counts.var)
    path = store(adata, tmp_path / "in.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not in the data")
        impute_file(path, output=tmp_path / "out.h5ad", model=model, layer="raw")
        expected = in_memory(path, model, layer="raw")
    equal_objects(sai.read(tmp_path / "out.h5ad"), expected)


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_earlier_results_are_replaced_and_the_output_may_be_the_input(counts, model, tmp_path):
    for path in (tmp_path / "cells.h5ad", tmp_path / "cells.zarr"):
        store(counts, path)
        impute_file(path, output=path, model=model, scale="counts", overwrite=True)
        first = path.stat().st_size
        impute_file(path, output=path, model=model, overwrite=True)
        assert path.is_dir() or path.stat().st_size < 1.02 * first
        result = sai.read(path)
        assert list(result.obs)[-1] == "autoimpute_size_factor"
        assert list(result.obs).count("autoimpute_size_factor") == 1
        assert result.uns["imputed"]["scale"] == "log1p"
        source = sai.read(store(counts, tmp_path / f"again{path.suffix}"))
        sai.tl.autoimpute(source, model=model)
        equal(result.layers["imputed"], source.layers["imputed"])


# --------------------------------------------------------------------------------------------------- what is refused


def spoiled(counts, *, row, value):
    adata = AnnData(counts.X.copy(), obs=counts.obs, var=counts.var)
    adata.X.data[adata.X.indptr[row]] = value
    return adata


def logged(counts, *, last=None):
    adata = AnnData(counts.X.copy(), obs=counts.obs, var=counts.var)
    adata.X.data = np.log1p(adata.X.data)
    if last is not None:
        adata.X.data[-1] = last
    return adata


def renamed(counts, var="ACGTACGTACGT-{}"):
    adata = AnnData(counts.X, obs=counts.obs, var=counts.var)
    adata.var_names = [var.format(i) for i in range(N_GENES)]
    return adata


BAD = {
    "NaN deep in the file": (
        lambda c: spoiled(c, row=2060, value=np.nan),
        r"1 of 52 × 60 .* rows 2049 to 2100 are NaN",
    ),
    "infinite": (lambda c: spoiled(c, row=0, value=np.inf), r"1 of 2048 × 60 values are infinite, first in row 1, "),
    "negative": (lambda c: spoiled(c, row=2060, value=-1), "are negative, first in row 2061, "),
    "all zero": (
        lambda c: with_x(c, sparse.csr_matrix(c.shape)),
        "all of 2100 × 60 values are zero; counts are needed",
    ),
    "logs": (logged, r"look logged already \(the largest is"),
    "transposed": (renamed, "looks like genes × cells"),
    "other genes": (lambda c: renamed(c, "ENSG0000000{:04d}"), "only 0 of the model's 24 genes"),
}


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".csv"])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_counts_ends_in_one_line_and_no_output(counts, model, tmp_path, bad, suffix):
    make, said = BAD[bad]
    path = store(make(counts), tmp_path / "in.h5ad")
    with pytest.raises(ValueError, match=said) as raised:
        impute_file(path, output=tmp_path / f"out{suffix}", model=model)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_values_in_proportion_to_counts_are_no_logs(counts, model, tmp_path):
    """Whether they are is told by the largest of all, which may be the last."""
    path = store(logged(counts, last=31), tmp_path / "in.h5ad")
    impute_file(path, output=tmp_path / "out.h5ad", model=model)
    equal_objects(sai.read(tmp_path / "out.h5ad"), in_memory(path, model))


def test_flagged_logs_are_refused_at_the_first_block(counts, model, tmp_path):
    adata = logged(counts, last=31)
    adata.uns["log1p"] = {"base": 2.0}
    path = store(adata, tmp_path / "in.h5ad")
    with pytest.raises(ValueError, match=r'uns\["log1p"\] is set'):
        impute_file(path, output=tmp_path / "out.h5ad", model=model)


def test_options_and_places_are_checked_first(counts, model, tmp_path):
    path = store(counts, tmp_path / "in.h5ad")
    for options, error, said in (
        ({"output": path}, FileExistsError, "exists; give overwrite=True"),
        ({"output": tmp_path / "no" / "out.h5ad"}, FileNotFoundError, "does not exist; create it"),
        ({"output": tmp_path / "out.xlsx"}, ValueError, "allowed are"),
        ({"scale": "x"}, ValueError, "scale='x' is not known"),
        ({"layer": "copy", "key_added": "copy"}, ValueError, "would be lost"),
        ({"layer": "absent"}, ValueError, "there is no layer 'absent'; its layers are"),
        ({"key_added": "a/b"}, ValueError, "cannot be the name of a layer"),
        ({"model": tmp_path / "absent"}, FileNotFoundError, "there is no model file"),
    ):
        with pytest.raises(error, match=said):
            impute_file(path, **({"output": tmp_path / "out.h5ad", "model": model} | options))
    with pytest.raises(FileNotFoundError, match="does not exist; give a file"):
        impute_file(tmp_path / "absent.h5ad", output=tmp_path / "out.h5ad", model=model)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(counts, model, tmp_path, where):
    path = store(counts, tmp_path / "in.h5ad")
    path.write_bytes(path.read_bytes()[: int(where * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"in\.h5ad cannot be read, it is damaged") as raised:
        impute_file(path, output=tmp_path / "out.h5ad", model=model)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_a_chunk_that_does_not_unpack_is_refused(counts, model, tmp_path):
    path = tmp_path / "in.h5ad"
    counts.write_h5ad(path, compression="gzip")
    damaged_hdf5(path, "X/data")
    with pytest.raises(ValueError, match="cannot be read, it is damaged"):
        impute_file(path, output=tmp_path / "out.h5ad", model=model)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def damaged_hdf5(path, name):
    """Zeros in place of the last chunk of an array."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(file[name].id.get_num_chunks() - 1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)


def damaged_zarr(path, name):
    """A chunk cut short."""
    chunk = max(path.joinpath(name).glob("[0-9]*"))
    chunk.write_bytes(chunk.read_bytes()[:-20])


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
@pytest.mark.parametrize("name", ["obsm/X_pca", "layers/copy/data", "obs/score", "uns/deep/list"])
@pytest.mark.parametrize(("suffix", "other"), [(".h5ad", ".zarr"), (".zarr", ".h5ad")])
def test_damage_in_what_is_only_copied_is_refused_as_by_read(counts, model, tmp_path, name, suffix, other):
    path = tmp_path / f"in{suffix}"
    if suffix == ".h5ad":
        counts.write_h5ad(path, compression="gzip")
        damaged_hdf5(path, name)
    else:
        damaged_zarr(store(counts, path), name)
    with pytest.raises(ValueError, match=suffix) as expected:
        sai.read(path)
    for output in (suffix, other):
        with pytest.raises(ValueError, match=suffix) as raised:
            impute_file(path, output=tmp_path / f"out{output}", model=model)
        assert str(raised.value).split(" (")[0] == str(expected.value).split(" (")[0]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# -------------------------------------------------------------------------------------------------------- other files


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_files_that_are_not_stored_by_rows_are_read_as_a_whole(counts, model, tmp_path):
    """Text, and h5ad files whose frames were written by older versions."""
    expected = in_memory(store(counts, tmp_path / "in.h5ad"), model)
    counts.to_df().astype(int).to_csv(tmp_path / "in.csv")
    counts.to_df().astype(int).T.to_csv(tmp_path / "turned.csv")
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        write_elem(file, "/", AnnData(counts.X, obs=counts.obs[["score"]], var=counts.var))
        file["obs"].attrs["encoding-version"] = "0.1.0"
    for name in ("in.csv", "old.h5ad", "turned.csv"):
        assert not is_stored_by_rows(tmp_path / name) or name == "turned.csv"
        output = tmp_path / f"from_{name}.h5ad"
        impute_file(tmp_path / name, output=output, model=model, transpose=name == "turned.csv")
        np.testing.assert_array_equal(plain(sai.read(output).layers["imputed"]), plain(expected.layers["imputed"]))


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("axis", ["cell", "gene"])
def test_repeated_names_are_made_unique_as_in_reading(counts, model, tmp_path, suffix, axis):
    repeated = AnnData(counts.X, obs=counts.obs, var=counts.var)
    frame = repeated.obs if axis == "cell" else repeated.var
    frame.index = ["twice" if number in {0, len(frame) - 1} else name for number, name in enumerate(frame.index)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = store(repeated, tmp_path / f"in{suffix}")
    streamed = said(impute_file, path, output=tmp_path / f"out{suffix}", model=model)
    of_names = [(text, where) for text, where in streamed if "repeated" in text]
    assert of_names == [(f"1 repeated {axis} names were made unique with -1, -2, ...", __file__)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = in_memory(path, model, suffix=suffix)
        impute_file(path, output=tmp_path / "out.csv", model=model)
        sai.write(expected, tmp_path / "memory.csv", layer="imputed")
    result = sai.read(tmp_path / f"out{suffix}")
    names = result.obs_names if axis == "cell" else result.var_names
    assert list(names[[0, -1]]) == ["twice", "twice-1"]
    equal_objects(result, expected)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "memory.csv").read_bytes()


def test_an_interruption_leaves_nothing(counts, model, tmp_path):
    program = """
import signal, scautoimpute.io.result as result, scautoimpute as sai
append = result.StoredResult.append
def interrupted(self, *rows):
    append(self, *rows)
    signal.raise_signal(signal.SIGINT)
result.StoredResult.append = interrupted
sai.impute_file("in.h5ad", output="out.h5ad", model="model")
"""
    model.save(tmp_path / "model")
    store(counts, tmp_path / "in.h5ad")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "model"]


def test_rows_come_once_each_and_in_order(counts, tmp_path):
    for path in (store(counts, tmp_path / "in.h5ad"), store(counts, tmp_path / "in.zarr", zarr_format=2)):
        with open_cells(path) as cells:
            assert cells.shape == counts.shape
            for layer in (None, "dense"):
                blocks = list(cells.rows(layer, 999))
                assert [block.shape[0] for block in blocks] == [999, 999, 102]
                np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), counts.X.toarray())


@pytest.mark.filterwarnings(f"ignore:{EMPTY}")
def test_zarr_metadata_is_consolidated_and_its_format_kept(counts, model, tmp_path):
    for zarr_format in (2, 3):
        path = store(counts, tmp_path / f"in{zarr_format}.zarr", zarr_format=zarr_format)
        output = tmp_path / f"out{zarr_format}.zarr"
        impute_file(path, output=output, model=model)
        group = zarr.open_group(output, mode="r")
        assert group.metadata.zarr_format == zarr_format
        assert "imputed" in group.metadata.consolidated_metadata.metadata["layers"].consolidated_metadata.metadata


# ------------------------------------------------------------------------------------------------------ command line


def command(source, *options, output, model):
    """Run `scautoimpute impute --from-model` in this process; returns the summary."""
    model.save(output.parent / "model")
    arguments = ["impute", str(source), "-o", str(output), "--from-model", str(output.parent / "model"), "--json"]
    done = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("name", ["in.tsv", "in.h5ad"])
def test_a_file_that_does_not_stream_is_read_once_and_turned_first(counts, model, tmp_path, name):
    some = counts[:300, [*range(N_GENES), 3]].to_df().iloc[10:].astype(int)
    turned = some.T.set_axis(["twice", *some.columns[1:-1], "twice"])
    if name == "in.tsv":
        turned.to_csv(tmp_path / name, sep="\t")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs = AnnData(np.log1p(turned.to_numpy()), obs=turned[[]], layers={"counts": turned.to_numpy()})
            logs.var_names = list(some.index)
            logs.write_h5ad(tmp_path / name)
    summary, stderr = command(tmp_path / name, "--transpose", output=tmp_path / "out.h5ad", model=model)
    of_names = [line for line in stderr.splitlines() if "repeated" in line]
    assert of_names == ["warning: 1 repeated gene names were made unique with -1, -2, ..."]
    assert summary["counts"].startswith("layer counts holds" if name == "in.h5ad" else "X holds whole numbers")
    assert (summary["cells"], summary["genes"]) == (290, N_GENES + 1)


@pytest.mark.filterwarnings("always::UserWarning")
def test_where_counts_are_is_found_without_reading_obs(counts, model, tmp_path):
    n_cells, n_columns = 20_000, 200
    obs = pd.DataFrame(np.zeros((n_cells, n_columns)), columns=[f"c{i}" for i in range(n_columns)])
    obs.index = obs.index.astype(str)
    x = sparse.vstack([counts.X[10:20]] * (n_cells // 10), format="csr")
    adata = AnnData(x.astype(np.float32), obs=obs, var=counts.var)
    adata.X.data += 0.5
    adata.layers["counts"] = x
    path = store(adata, tmp_path / "in.h5ad")
    command(store(counts[:300].copy(), tmp_path / "few.h5ad"), output=tmp_path / "out.h5ad", model=model)
    del adata
    tracemalloc.start()
    try:
        summary, _ = command(path, "--overwrite", output=tmp_path / "out.h5ad", model=model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert summary["counts"].startswith("layer counts holds whole numbers")
    assert peak < 0.8 * obs.memory_usage().sum()


def test_damage_met_while_counts_are_looked_for_names_the_file(counts, model, tmp_path):
    path = tmp_path / "in.h5ad"
    counts.write_h5ad(path, compression="gzip")
    damaged_hdf5(path, "X/data")
    model.save(tmp_path / "model")
    arguments = ["impute", str(path), "-o", str(tmp_path / "out.h5ad"), "--from-model", str(tmp_path / "model")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "in.h5ad cannot be read, it is damaged" in done.stderr


# ------------------------------------------------------------------------------------------------------------ memory

APPLY = """
import resource, sys
import torch
from scautoimpute import impute_file
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
impute_file("in.h5ad", output="out.h5ad", model="model", overwrite=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def tiled(adata, n_times, path):
    """Write the cells of `adata` many times over, without holding them all."""
    with h5py.File(path, "w") as file:
        write_elem(file, "/", AnnData(adata.X, var=adata.var[[]]))
        del file["X"], file["obs"]
        write_elem(file, "X", adata.X, dataset_kwargs={"indptr_dtype": np.int64})
        for _ in range(n_times - 1):
            sparse_dataset(file["X"]).append(adata.X)
        write_elem(file, "obs", pd.DataFrame(index=[str(i) for i in range(n_times * adata.n_obs)]))


def peak_memory(folder, limit=0):
    """MB that a process of its own takes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", APPLY, str(limit)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_memory_does_not_grow_with_the_cells(tmp_path):
    rng = np.random.default_rng(0)
    x = sparse.random(4096, 800, 0.1, format="csr", random_state=0, dtype=np.float32)
    x.data = rng.integers(1, 20, x.nnz).astype(np.float32)
    adata = AnnData(x, var=pd.DataFrame(index=[f"gene{i}" for i in range(800)]))
    model = AutoImpute(hidden=6, n_folds=1, threshold=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no structure in noise
        sai.tl.autoimpute(adata[:300].copy(), model=model, n_top_genes=200)
    model.save(tmp_path / "model")
    peaks = []
    for n_times in (1, 12):
        tiled(adata, n_times, tmp_path / "in.h5ad")
        peaks.append(peak_memory(tmp_path))
    layer = sai.io.read(tmp_path / "out.h5ad").layers["imputed"]
    assert layer.nnz * 8 > 90 * 2**20
    assert peaks[1] - peaks[0] < 25
    one = layer[: 2 * 4096]
    assert (one[:4096] != one[4096:]).nnz == 0


@pytest.mark.slow
def test_two_hundred_thousand_cells_in_one_and_a_half_gigabytes(shared_data, tmp_path):
    """The file that comes out is 3.8 GB; the libraries alone take 0.9 GB of the address space."""
    pbmc = anndata.read_h5ad(shared_data / "extra" / "pbmc_zheng_combined_9k.h5ad")
    pbmc = AnnData(sparse.csr_matrix(pbmc.X, dtype=np.float32), var=pbmc.var)
    model = AutoImpute(n_folds=1, max_epochs=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not trained to its end
        sai.tl.autoimpute(pbmc[:1000].copy(), model=model)
    model.save(tmp_path / "model")
    tiled(pbmc, 21, tmp_path / "in.h5ad")
    assert peak_memory(tmp_path, limit=int(1.5 * 2**30)) < 900
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["layers/imputed/indptr"].shape == (198_870 + 1,)
        assert file["layers/imputed/indptr"][-1] == file["layers/imputed/data"].shape[0]
