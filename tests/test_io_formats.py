"""Any file in, any file out: every format that is written comes back, whole or not at all, as the same bytes."""

import gzip
import io
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import h5py
import loompy
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import io as scipy_io
from scipy import sparse
from tqdm import tqdm

import scautoimpute
from scautoimpute.errors import MissingDependencyError
from scautoimpute.io import check_writable, counted, counts_matrix, matrix, opened, read, write

COUNTS = np.array([[0, 3, 0], [1, 0, 2], [0, 0, 7], [4, 5, 0]], dtype=np.float32)
CELLS = ["AAACCCGGGTTT-1", "AAACCCGGGTTA-1", "AAACCCGGGTTC-1", "AAACCCGGGTTG-1"]
GENES = ["Sox2", "Nanog", "Pou5f1"]
OBJECTS = [".h5ad", ".zarr"]
FORMATS = [*OBJECTS, ".loom", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".mtx", ".mtx.gz"]
FOLDERS = {".zarr", ".mtx", ".mtx.gz"}


def dense(values) -> np.ndarray:
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def same_matrix(found: ad.AnnData, values, cells, genes) -> None:
    np.testing.assert_array_equal(dense(found.X), values)
    assert list(found.obs_names) == list(cells)
    assert list(found.var_names) == list(genes)


def error_line(kind: type[BaseException], call) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.type is kind
    return str(caught.value)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder, or the one that it is, hidden ones too."""
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def bare(values=COUNTS) -> ad.AnnData:
    return ad.AnnData(
        sparse.csr_matrix(values), obs=pd.DataFrame(index=CELLS[: len(values)]), var=pd.DataFrame(index=GENES)
    )


@pytest.fixture
def adata() -> ad.AnnData:
    made = bare()
    made.obs["label"], made.obs["depth"] = ["a", "b", "a", "b"], [1.5, 2.5, 3.5, 4.5]
    made.layers["imputed"] = COUNTS + 0.5
    return made


# --- round trips --------------------------------------------------------------------------------------------------

LETTERS = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cn", "Cs", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"
)
NAMES = st.text(LETTERS, min_size=1, max_size=8)


@st.composite
def objects(draw: st.DrawFn) -> ad.AnnData:
    n_obs, n_vars = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    largest = st.floats(0, 2**20, width=32) if kind is np.float32 else st.floats(0, 1e200)
    numbers = st.one_of(st.just(0.0), st.integers(0, 10**6), largest)
    values = draw(hnp.arrays(kind, (n_obs, n_vars), elements=numbers.map(kind)))
    obs = draw(st.lists(NAMES, min_size=n_obs, max_size=n_obs, unique=True))
    var = draw(st.lists(NAMES, min_size=n_vars, max_size=n_vars, unique=True))
    kinds = [np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array]
    container = draw(st.sampled_from(kinds))
    return ad.AnnData(container(values), obs=pd.DataFrame(index=pd.Index(obs)), var=pd.DataFrame(index=pd.Index(var)))


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=15, deadline=None)
@given(made=objects())
def test_round_trip_of_anything(suffix, made):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(made, path)
        found, values = read(path), dense(made.X)
        assert suffix not in {*OBJECTS, ".loom"} or found.X.dtype == values.dtype
        same_matrix(found, values.astype(found.X.dtype), made.obs_names, made.var_names)  # text is read as float32


@pytest.mark.parametrize("suffix", OBJECTS)
def test_round_trip_of_a_whole_object(suffix, array_type, tmp_path):
    rng = np.random.default_rng(0)
    whole = ad.AnnData(array_type(rng.poisson(1, (30, 8)).astype(np.int32)))
    whole.obs_names, whole.var_names = [f"é {i}" for i in range(30)], [f"γ/{i}" for i in range(8)]
    whole.raw = whole.copy()
    whole.obs["label"], whole.obs["n"] = pd.Categorical(["β", "a", "a"] * 10, ["β", "a"]), np.arange(30)
    whole.var["on"] = [True, False] * 4
    whole.obsm["X_pca"], whole.uns["m"] = rng.random((30, 2)), {"seed": 3, "names": np.array(["a", "b"], dtype=object)}
    whole.layers["more"] = array_type(rng.random((30, 8)))
    part = whole[:, 2:].copy()
    write(part, tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    for before, after in ((part.X, found.X), (part.layers["more"], found.layers["more"]), (part.raw.X, found.raw.X)):
        np.testing.assert_array_equal(dense(before), dense(after))
        assert before.dtype == after.dtype
        assert getattr(before, "format", "dense") == getattr(after, "format", "dense")
    pd.testing.assert_frame_equal(part.obs, found.obs)
    pd.testing.assert_frame_equal(part.var, found.var)
    np.testing.assert_array_equal(part.obsm["X_pca"], found.obsm["X_pca"])
    assert found.uns["m"]["seed"] == 3
    np.testing.assert_array_equal(counts_matrix(found, "raw").toarray(), dense(whole.X)[:, 2:]) if sparse.issparse(
        whole.X
    ) else np.testing.assert_array_equal(counts_matrix(found, "raw"), whole.X[:, 2:])


@pytest.mark.parametrize("name", [".csv", ".mtx", ".mtx.gz"])
@pytest.mark.parametrize("layer", ["imputed", "raw", "csc"])
def test_one_matrix_is_chosen(name, layer, adata, tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "_VALUES_PER_BLOCK", 6)  # two rows at a time
    adata.raw = bare(COUNTS * 3)
    adata.layers["csc"] = sparse.csc_matrix(COUNTS * 2)
    write(adata, tmp_path / f"o{name}", layer=layer)
    same_matrix(read(tmp_path / f"o{name}"), dense(counts_matrix(adata, layer)), CELLS, GENES)


@pytest.mark.parametrize("suffix", FORMATS)
def test_backed_objects_and_views(suffix, adata, tmp_path):
    adata.write_h5ad(tmp_path / "in.h5ad")
    backed = ad.read_h5ad(tmp_path / "in.h5ad", backed="r")
    write(backed, tmp_path / f"a{suffix}")
    write(adata[::2, 1:], tmp_path / f"b{suffix}")
    same_matrix(read(tmp_path / f"a{suffix}"), COUNTS, CELLS, GENES)
    same_matrix(read(tmp_path / f"b{suffix}"), COUNTS[::2, 1:], CELLS[::2], GENES[1:])
    backed.file.close()


def test_the_same_object_gives_the_same_bytes(adata, tmp_path):
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        for suffix in FORMATS:
            write(adata, tmp_path / turn / f"o{suffix}")
        time.sleep(1.1)  # gzip and HDF5 count time in seconds
    written = contents(tmp_path / "first")
    assert written == contents(tmp_path / "second")
    assert len(written) > len(FORMATS)
    os.rename(tmp_path / "first" / "o.csv.gz", tmp_path / "a.csv.gz")  # noqa: PTH104
    write(adata, tmp_path / "b.csv.gz")  # under another name
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


@pytest.mark.filterwarnings("ignore:The function read_loom is deprecated")
def test_other_programs_read_what_is_written(adata, tmp_path):
    for suffix in FORMATS:
        write(adata, tmp_path / f"o{suffix}")
    same_matrix(sc.read_10x_mtx(tmp_path / "o.mtx.gz"), COUNTS, CELLS, GENES)
    same_matrix(ad.io.read_loom(tmp_path / "o.loom", X_name=""), COUNTS, CELLS, GENES)
    same_matrix(ad.io.read_zarr(tmp_path / "o.zarr"), COUNTS, CELLS, GENES)
    with loompy.connect(str(tmp_path / "o.loom"), validate=True) as loom:
        np.testing.assert_array_equal(loom.layers["imputed"][:, :], (COUNTS + 0.5).T)
        assert loom.ca["label"].tolist() == ["a", "b", "a", "b"]
        assert loom.ca["depth"].tolist() == [1.5, 2.5, 3.5, 4.5]
    header = (tmp_path / "o.mtx" / "matrix.mtx").read_text().splitlines()[:3]
    assert header == ["%%MatrixMarket matrix coordinate integer general", "3 4 6", "2 1 3"]


def test_loom_says_what_it_leaves_out(adata, tmp_path):
    adata.obsm["X_pca"], adata.uns["seed"], adata.raw = np.ones((4, 2)), 3, bare()
    with pytest.warns(UserWarning, match=r"^a \.loom holds X, layers, obs and var; left out: obsm, uns, raw \(\.h5ad"):
        write(adata, tmp_path / "o.loom")
    adata.X = None
    assert "needs a main matrix" in error_line(ValueError, lambda: write(adata, tmp_path / "p.loom"))


def test_loom_holds_numbers_truth_values_and_text(adata, tmp_path):
    adata.obs["on"], adata.obs["text"] = [True, False, True, True], pd.Categorical(["x", None, "y", "x"])
    write(adata, tmp_path / "o.loom")
    found = read(tmp_path / "o.loom")
    assert found.obs["on"].tolist() == [1, 0, 1, 1]
    assert found.obs["text"].tolist() == ["x", "", "y", "x"]
    np.testing.assert_array_equal(dense(found.layers["imputed"]), COUNTS + 0.5)


# --- complete or absent -------------------------------------------------------------------------------------------


@pytest.fixture(params=[None, "old output"])
def output(tmp_path, request):
    """Give a function that says where to write, and check afterwards that what was there before is all there is."""
    before = {}

    def at(suffix: str) -> Path:
        path = tmp_path / f"out{suffix}"
        if request.param:
            write(bare(), path)
        before.update(contents(tmp_path))
        return path

    yield at
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_disk_that_fills_up(output, suffix):
    big = ad.AnnData(np.random.default_rng(0).random((200, 200)))
    path = output(suffix)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        line = error_line(OSError, lambda: write(big, path, overwrite=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert line.startswith(f"cannot write {path}: ")
    assert "too large" in line
    assert line.endswith("no file was left behind")


@pytest.mark.parametrize("suffix", [".zarr", ".mtx", ".loom"])
def test_interruption_leaves_nothing(output, suffix, adata, monkeypatch):
    path = output(suffix)

    def interrupted(*args, **options):
        assert [found for found in path.parent.iterdir() if ".partial-" in found.name]
        raise KeyboardInterrupt

    late = {".zarr": (ad.AnnData, "uns"), ".mtx": (sparse, "coo_array"), ".loom": (h5py.Group, "create_dataset")}
    where, name = late[suffix]
    monkeypatch.setattr(where, name, property(interrupted) if where is ad.AnnData else interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(adata, path, overwrite=True)


@pytest.mark.parametrize("suffix", sorted(FOLDERS))
def test_a_folder_that_cannot_take_its_place_gives_the_old_one_back(output, suffix, adata, monkeypatch):
    path, rename = output(suffix), Path.rename

    def failing(self, target):
        if ".partial-" in self.name:
            raise PermissionError(13, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    error_line(PermissionError, lambda: write(adata, path, overwrite=True))


@pytest.mark.parametrize("suffix", [*OBJECTS, ".loom"])
def test_object_that_cannot_be_stored(output, suffix, adata):
    adata.uns["model"] = object() if suffix != ".loom" else 1
    adata.obs["a/b"] = 1.0 if suffix == ".loom" else "x"
    path = output(suffix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line = error_line(ValueError, lambda: write(adata, path, overwrite=True))
    assert line.startswith(f"the object holds something that {suffix} cannot store")


@pytest.mark.parametrize("suffix", FORMATS)
def test_existing_output_is_refused_and_replaced_on_request(suffix, adata, tmp_path):
    path = tmp_path / f"out{suffix}"
    write(bare(COUNTS * 2), path)
    before = contents(tmp_path)
    assert f"{path} exists; give overwrite=True" in error_line(FileExistsError, lambda: write(adata, path))
    assert contents(tmp_path) == before
    write(adata, path, overwrite=True)
    same_matrix(read(path), COUNTS, CELLS, GENES)
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208


@pytest.mark.parametrize("suffix", sorted(FOLDERS))
def test_a_folder_of_something_else_is_not_replaced(suffix, adata, tmp_path):
    path = tmp_path / f"out{suffix}"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    line = error_line(FileExistsError, lambda: write(adata, path, overwrite=True))
    assert "is not replaced: choose another name, or move it away" in line
    assert error_line(FileExistsError, lambda: check_writable(path, overwrite=True)) == line
    assert (path / "thesis.tex").read_text() == "years of work"
    (tmp_path / f"file{suffix}").write_text("older")
    write(adata, tmp_path / f"file{suffix}", overwrite=True)  # a file makes room for a folder
    same_matrix(read(tmp_path / f"file{suffix}"), COUNTS, CELLS, GENES)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", " ", "a\r"])
def test_names_that_would_part_a_file_of_names(output, name, adata):
    adata.obs_names = [name, *CELLS[1:]]
    path = output(".mtx")
    assert f"the name {name!r} cannot be written" in error_line(ValueError, lambda: write(adata, path, overwrite=True))


def test_features_keep_their_ids_and_types(adata, tmp_path):
    adata.var["gene_ids"], adata.var["feature_types"] = ["ENSG1", "ENSG2", "ENSG3"], "Gene Expression"
    write(adata, tmp_path / "o.mtx")
    pd.testing.assert_frame_equal(read(tmp_path / "o.mtx").var, adata.var)


# --- Matrix Market ------------------------------------------------------------------------------------------------


def save_mtx(path: Path, values=COUNTS, **names: list[str]) -> Path:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    scipy_io.mmwrite(plain, sparse.coo_matrix(values.astype(int)))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    for name, lines in names.items():
        text = "".join(f"{line}\n" for line in lines)
        file = path.parent / name.replace("__", ".")
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(
    ("stem", "genes", "cells"),
    [
        ("counts", "counts_genes__txt", "counts_cells__txt"),
        ("counts", "counts.genes__tsv", "counts.barcodes__tsv__gz"),
        ("GSM1_matrix", "GSM1_features__tsv__gz", "GSM1_barcodes__tsv__gz"),
        ("matrix", "genes__tsv", "barcodes__tsv"),
    ],
)
def test_the_number_of_names_decides_the_orientation(tmp_path, stem, genes, cells, is_turned, transpose):
    names = {genes: GENES, cells: CELLS}
    path = save_mtx(tmp_path / f"{stem}.mtx.gz", COUNTS.T if is_turned else COUNTS, **names)
    if transpose and not is_turned:
        line = error_line(ValueError, lambda: read(path, transpose=True))
        assert line.endswith("it is cells × genes by the names beside it (4 cells): leave out transpose (--transpose)")
        return
    same_matrix(read(path, transpose=transpose), COUNTS, CELLS, GENES)


def test_a_bare_matrix_is_numbered_and_its_orientation_said(tmp_path):
    path = save_mtx(tmp_path / "a.mtx")
    with pytest.warns(UserWarning, match="nothing tells cells from genes") as caught:
        found = read(path)
    assert [str(one.message) for one in caught if one.category is UserWarning] == [
        f"{path} is 4 × 3 and no file beside it names its rows and columns, which are numbered; nothing tells cells "
        "from genes, it is taken as cells × genes: give transpose=True (--transpose on the command line) if it is "
        "genes × cells"
    ]
    same_matrix(found, COUNTS, [f"cell_{i}" for i in range(1, 5)], ["gene_1", "gene_2", "gene_3"])
    found = read(path, transpose=True)  # said, so nothing is assumed
    same_matrix(found, COUNTS.T, ["cell_1", "cell_2", "cell_3"], [f"gene_{i}" for i in range(1, 5)])


def test_rows_and_columns_have_names_but_no_roles(tmp_path):
    path = save_mtx(tmp_path / "a.mtx", COUNTS, a_rows__txt=CELLS, a_cols__txt=GENES)
    with pytest.warns(UserWarning, match="is 4 × 3; nothing tells cells from genes, it is taken as cells × genes"):
        same_matrix(read(path), COUNTS, CELLS, GENES)
    same_matrix(read(path, transpose=True), COUNTS.T, GENES, CELLS)


def test_a_square_matrix_with_names_is_taken_as_10x_writes_it(tmp_path):
    path = save_mtx(tmp_path / "a.mtx", COUNTS[:3].T, a_genes__tsv=GENES, a_barcodes__tsv=CELLS[:3])
    with pytest.warns(UserWarning, match="is 3 × 3; nothing tells cells from genes, it is taken as genes × cells$"):
        same_matrix(read(path), COUNTS[:3], CELLS[:3], GENES)


def test_names_of_one_side_decide_too(tmp_path):
    found = read(save_mtx(tmp_path / "a.mtx", COUNTS.T, a_genes__tsv=GENES))
    same_matrix(found, COUNTS, [f"cell_{i}" for i in range(1, 5)], GENES)


def test_bad_matrix_market(tmp_path):
    path = save_mtx(tmp_path / "a.mtx", COUNTS, a_genes__tsv=GENES[:2], a_barcodes__tsv=CELLS)
    line = error_line(ValueError, lambda: read(path))
    assert line == f"{path}: it is 4 × 3, but the files beside it name 2 genes, 4 cells: they do not belong together"
    (tmp_path / "b.mtx").write_text("not a matrix")
    assert "b.mtx cannot be read, it is damaged" in error_line(ValueError, lambda: read(tmp_path / "b.mtx"))
    (tmp_path / "c.mtx").write_text("%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 2 3\n")
    assert "a matrix of numbers is needed" in error_line(ValueError, lambda: read(tmp_path / "c.mtx"))
    whole = (tmp_path / "a.mtx").read_text().splitlines()
    (tmp_path / "a.mtx").write_text("\n".join(whole[:-2]))
    assert "damaged" in error_line(ValueError, lambda: read(tmp_path / "a.mtx"))
    (tmp_path / "d.mtx.gz").write_bytes(gzip.compress(b"%%MatrixMarket" * 9999)[:40])
    assert "d.mtx.gz" in error_line(ValueError, lambda: read(tmp_path / "d.mtx.gz"))


def test_counts_above_the_range_of_float32_stay_exact(tmp_path):
    path = save_mtx(tmp_path / "a.mtx", np.array([[2**24 + 1, 0]]), a_genes__tsv=["A", "B"])
    assert read(path).X[0, 0] == 2**24 + 1


# --- zarr, loom, gzipped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.filterwarnings("ignore:(Writing zarr v2|zarr v3 autosharding|Consolidated metadata|Duplicate name)")
def test_read_zarr_of_both_formats(tmp_path, adata, zarr_format, zipped):
    path = tmp_path / ("a.zarr.zip" if zipped else "a.zarr")
    with ad.settings.override(zarr_write_format=zarr_format):
        store = zarr.storage.ZipStore(path, mode="w") if zipped else path
        ad.io.write_zarr(store, adata)
        if zipped:
            store.close()
    found = read(path)
    same_matrix(found, COUNTS, CELLS, GENES)
    np.testing.assert_array_equal(found.layers["imputed"], adata.layers["imputed"])
    with opened(path) as lazy:
        assert lazy.shape == (4, 3)
        np.testing.assert_array_equal(lazy.X[:2].toarray(), COUNTS[:2])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.filterwarnings("ignore:(Writing zarr v2|zarr v3 autosharding|Consolidated metadata)")
def test_a_zarr_that_lacks_a_chunk_is_refused(tmp_path, adata, zarr_format, part):
    path = tmp_path / "a.zarr"
    with ad.settings.override(zarr_write_format=zarr_format):
        ad.io.write_zarr(path, adata)
    path.joinpath("X", part, *(["0"] if zarr_format == 2 else ["c", "0"])).unlink()  # zarr would say: zeros
    line = error_line(ValueError, lambda: read(path))
    assert line.startswith(f"{path}: only 0 of the 1 chunks of X/{part} are there: copy the store again")


def test_a_zarr_may_lack_chunks_of_zeros(tmp_path):
    of_one_gene = ad.AnnData(sparse.csr_matrix(COUNTS[:, :1]), layers={"empty": sparse.csr_matrix((4, 1))})
    write(of_one_gene, tmp_path / "a.zarr")
    found = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(dense(found.X), COUNTS[:, :1])
    assert found.layers["empty"].nnz == 0


def test_damaged_zarr(tmp_path, adata):
    path = tmp_path / "a.zarr"
    with ad.settings.override(zarr_write_format=2):
        write(adata, path)
    chunk = next(file for file in (path / "X" / "indices").iterdir() if file.name == "0")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    line = error_line(ValueError, lambda: read(path))
    assert f"the chunk X/indices/0 has {len(whole) // 2} bytes instead of {len(whole)}: copy the store again" in line
    chunk.write_bytes(whole)
    (tmp_path / "empty.zarr").mkdir()
    assert "is no zarr store" in error_line(ValueError, lambda: read(tmp_path / "empty.zarr"))
    (tmp_path / "file.zarr").write_text("x")
    assert "a .zarr is a folder" in error_line(ValueError, lambda: read(tmp_path / "file.zarr"))
    zarr.create_array(store=tmp_path / "other.zarr", data=np.ones(3))
    assert "damaged" in error_line(ValueError, lambda: read(tmp_path / "other.zarr"))
    (tmp_path / "b.zarr.zip").write_text("x")
    assert "damaged" in error_line(ValueError, lambda: read(tmp_path / "b.zarr.zip"))


def test_read_loom_as_loompy_writes_it(tmp_path):
    layers = {"": COUNTS.T, "spliced": COUNTS.T - 1}
    loompy.create(
        str(tmp_path / "a.loom"), layers, {"Gene": np.array(GENES)}, {"CellID": np.array(CELLS), "n": np.arange(4)}
    )
    found = read(tmp_path / "a.loom")
    same_matrix(found, COUNTS, CELLS, GENES)
    assert found.X.format == "csr"
    assert found.X.dtype == np.float32
    assert found.obs["n"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(dense(found.layers["spliced"]), COUNTS - 1)


@pytest.mark.filterwarnings("ignore:The function read_loom is deprecated")
def test_text_of_loom_that_loompy_would_drop(adata, tmp_path):
    genes, labels = ["TCRβ", "a&amp;b", "IL-1α"], ["ü", "x", "&", ""]
    loompy.create(str(tmp_path / "a.loom"), COUNTS.T, {"Gene": np.array(genes)}, {"CellID": np.array(CELLS)})
    with h5py.File(tmp_path / "a.loom", "a") as file:  # as other programs store it
        del file["row_attrs/Gene"]
        file["row_attrs/Gene"] = np.array(["TCRβ", "a&amp;amp;b", "IL-1α"], dtype=h5py.string_dtype())
    assert list(read(tmp_path / "a.loom").var_names) == genes
    adata.var_names, adata.obs["label"] = genes, labels
    write(adata, tmp_path / "b.loom")
    assert read(tmp_path / "b.loom").obs["label"].tolist() == labels
    same_matrix(ad.io.read_loom(tmp_path / "b.loom", X_name=""), COUNTS, CELLS, genes)
    adata.obs_names = ["\x80", *CELLS[1:]]
    line = error_line(ValueError, lambda: write(adata, tmp_path / "c.loom"))
    assert "holds a character that loom has no name for" in line


def test_loom_without_names(tmp_path):
    loompy.create(str(tmp_path / "a.loom"), COUNTS.T, {"var_names": np.array(GENES)}, {"n": np.arange(4)})
    with pytest.warns(UserWarning, match="holds no cell names: they are numbered"):
        same_matrix(read(tmp_path / "a.loom"), COUNTS, ["cell_1", "cell_2", "cell_3", "cell_4"], GENES)


def test_bad_loom(tmp_path, adata, monkeypatch):
    adata.write_h5ad(tmp_path / "a.loom")
    assert "this HDF5 file is not loom" in error_line(ValueError, lambda: read(tmp_path / "a.loom"))
    write(adata, tmp_path / "b.loom")
    whole = (tmp_path / "b.loom").read_bytes()
    (tmp_path / "c.loom").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in error_line(ValueError, lambda: read(tmp_path / "c.loom"))
    monkeypatch.setitem(sys.modules, "loompy", None)
    line = error_line(MissingDependencyError, lambda: read(tmp_path / "b.loom"))
    assert line == 'reading .loom needs loompy: pip install "scautoimpute[loom]", or convert the file to .h5ad'


@pytest.mark.parametrize("suffix", [".h5ad", ".loom"])
def test_gzipped_binary_files(tmp_path, adata, suffix, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write(adata, tmp_path / f"a{suffix}")
    packed = gzip.compress((tmp_path / f"a{suffix}").read_bytes())
    (tmp_path / f"b{suffix}.gz").write_bytes(packed)
    same_matrix(read(tmp_path / f"b{suffix}.gz"), COUNTS, CELLS, GENES)
    (tmp_path / f"b{suffix}.gz").write_bytes(packed[: len(packed) // 2])
    line = error_line(ValueError, lambda: read(tmp_path / f"b{suffix}.gz"))
    assert "gzip file is damaged or cut short" in line
    assert list((tmp_path / "temporary").iterdir()) == []


def test_gzipped_10x_h5(tmp_path):
    stored = sparse.csc_matrix(COUNTS.T.astype(np.int32))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in {"data": stored.data, "indices": stored.indices, "indptr": stored.indptr}.items():
            file[f"hg19/{name}"] = values
        file["hg19/shape"] = stored.shape
        for name, values in {"barcodes": CELLS, "genes": GENES, "gene_names": GENES}.items():
            file[f"hg19/{name}"] = np.array(values, dtype="S")
    (tmp_path / "a.h5.gz").write_bytes(gzip.compress((tmp_path / "a.h5").read_bytes()))
    same_matrix(read(tmp_path / "a.h5.gz"), COUNTS, CELLS, GENES)


# --- h5ad ---------------------------------------------------------------------------------------------------------


def test_text_where_numbers_belong(tmp_path):
    bare().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        del file["X"]
        ad.io.write_elem(file, "X", np.array([["a"] * 3] * 4, dtype=object))
    line = error_line(ValueError, lambda: read(tmp_path / "a.h5ad"))
    assert "values in X, not numbers: take out what is no number" in line


def test_raw_is_taken_where_a_layer_is_asked_for(adata):
    assert "no layer 'raw'; its layers are 'imputed':" in error_line(ValueError, lambda: counts_matrix(adata, "raw"))
    more = ad.AnnData(np.arange(16.0).reshape(4, 4), obs=adata.obs[[]], var=pd.DataFrame(index=["x", *GENES[::-1]]))
    adata.raw = more
    np.testing.assert_array_equal(counts_matrix(adata, "raw"), more.X[:, [3, 2, 1]])
    np.testing.assert_array_equal(counts_matrix(adata[1:, :2], "raw"), more.X[1:, [3, 2]])
    line = error_line(ValueError, lambda: counts_matrix(adata, "x"))
    assert line.startswith(
        "there is no layer 'x'; its layers are 'imputed', and it has 'raw': leave layer= out to take X"
    )
    adata.var_names = ["Sox2", "Klf4", "Nanog"]
    line = error_line(ValueError, lambda: counts_matrix(adata, "raw"))
    assert line == "raw lacks 1 of the object's 3 genes, such as 'Klf4': put the counts in a layer"
    adata.layers["raw"] = COUNTS * 9
    np.testing.assert_array_equal(counts_matrix(adata, "raw"), COUNTS * 9)


def test_raw_with_repeated_names_is_matched_as_read_makes_them_unique(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice = ad.AnnData(COUNTS, obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=["A", "A", "B"]))
        twice.raw = twice.copy()
        twice.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="1 repeated gene names"):
        found = read(tmp_path / "a.h5ad")[:, ["B", "A-1"]]
    np.testing.assert_array_equal(counts_matrix(found, "raw"), COUNTS[:, [2, 1]])


def test_counts_in_raw_are_imputed():
    adata = scautoimpute.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    other = ad.AnnData(np.log1p(adata.X.toarray()), obs=adata.obs[[]], var=adata.var[[]])
    other.raw = ad.AnnData(adata.X, obs=adata.obs[[]], var=adata.var[[]])
    for made, layer in ((adata, None), (other, "raw")):
        model = scautoimpute.AutoImpute(n_folds=1, max_epochs=2, hidden=4, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scautoimpute.tl.autoimpute(made, layer=layer, model=model)
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), dense(other.layers["imputed"]))


# --- progress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", OBJECTS)
def test_a_bar_shows_how_much_was_read_and_written(tmp_path, suffix, monkeypatch):
    shown = io.StringIO()

    def at_once(total, description, unit):
        return tqdm(total=total, desc=description, unit=unit, file=shown, mininterval=0)

    monkeypatch.setattr(counted, "progress_bar", at_once)
    values = np.random.default_rng(0).random((500, 1000))  # 4 MB, which cannot be compressed
    write(ad.AnnData(values, layers={"b": sparse.csr_matrix(values)}), tmp_path / f"a{suffix}")
    assert "writing: 100%" in shown.getvalue()
    assert "10/10" in shown.getvalue()
    read(tmp_path / f"a{suffix}")
    assert "reading: 100%" in shown.getvalue()
    assert "MB/s" in shown.getvalue()


@pytest.mark.parametrize("suffix", OBJECTS)
def test_what_is_quick_shows_no_bar(tmp_path, adata, suffix, capsys):
    write(adata, tmp_path / f"a{suffix}")
    read(tmp_path / f"a{suffix}")
    assert capsys.readouterr() == ("", "")


def test_what_is_left_on_disk_is_not_read(tmp_path, array_type):
    big = ad.AnnData(array_type(np.eye(4000, 500, dtype=np.float32)), layers={"l": np.ones((4000, 500))})
    big.raw = big.copy()
    for suffix in OBJECTS:
        write(big, tmp_path / f"a{suffix}")
        with opened(tmp_path / f"a{suffix}") as lazy:
            kinds = {type(part).__module__.split(".")[0] for part in (lazy.X, lazy.layers["l"], lazy.raw.X)}
            assert kinds <= {"anndata", "h5py", "zarr"}
            assert not sparse.issparse(lazy.X)


def test_opened_reads_what_cannot_stay_on_disk(tmp_path):
    pd.DataFrame(COUNTS, CELLS, GENES).to_csv(tmp_path / "a.csv")
    with opened(tmp_path / "a.csv") as found:
        same_matrix(found, COUNTS, CELLS, GENES)
    shutil.copy(tmp_path / "a.csv", tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="damaged or not what its suffix says"), opened(tmp_path / "a.h5ad"):
        pass


# --- damage that would crash the process --------------------------------------------------------------------------


def spoil(path, name, change):
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        change(values)
        file[name][:] = values


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("X/indices", lambda values: values.__setitem__(2, 10**6)),
        ("X/indices", lambda values: values.__setitem__(0, -4)),
        ("X/indptr", lambda values: values.__setitem__(slice(1, None), [5, 0, 0, 0])),
        ("layers/sparse/indices", lambda values: values.__setitem__(2, 10**6)),
    ],
)
def test_indices_that_lead_out_of_a_matrix_are_refused(tmp_path, adata, name, change):
    path = tmp_path / "cells.h5ad"
    adata.layers["sparse"] = sparse.csr_matrix(adata.X)
    adata.write_h5ad(path)
    spoil(path, name, change)
    line = error_line(ValueError, lambda: read(path))
    assert "cells.h5ad" in line
    assert "get it again" in line


@pytest.mark.parametrize("name", ["matrix.mtx", "matrix.mtx.gz", "cells.csv"])
def test_nul_characters_are_refused(tmp_path, name):
    text = (
        ",A,B\nc1,1,2\nc2,0,\0\0\n"
        if name == "cells.csv"
        else "%%MatrixMarket matrix coordinate integer general\n3 4 1\n1 \0 7\n"
    )
    raw = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(raw)
    assert "NUL characters" in error_line(ValueError, lambda: read(tmp_path / name))
