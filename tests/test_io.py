"""Files in and out: every suffix with files as the real programs write them, and a clear line for every bad one."""

import gzip
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import io as scipy_io
from scipy import sparse

from scautoimpute.io import (
    as_observed,
    check_writable,
    counts_matrix,
    is_integer_counts,
    looks_transposed,
    matrix,
    read,
    refuse_transposed,
    row_blocks,
    write,
)
from scautoimpute.io.matrix import named_layers

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL_FILES = sorted(SHARED.glob("paper/*.h5ad"))

COUNTS = np.array([[0, 3, 0], [1, 0, 2], [0, 0, 7], [4, 5, 0]], dtype=np.float32)
CELLS = ["AAACCCGGGTTT-1", "AAACCCGGGTTA-1", "AAACCCGGGTTC-1", "AAACCCGGGTTG-1"]
GENES = ["Sox2", "Nanog", "Pou5f1"]


@pytest.fixture
def adata() -> ad.AnnData:
    made = ad.AnnData(
        sparse.csr_matrix(COUNTS),
        obs=pd.DataFrame({"label": ["a", "b", "a", "b"], "depth": [1.5, 2.5, 3.5, 4.5]}, index=CELLS),
        var=pd.DataFrame(index=GENES),
    )
    made.layers["imputed"] = COUNTS + 0.5
    made.obsm["X_pca"] = np.arange(8.0).reshape(4, 2)
    made.uns["settings"] = {"seed": 3, "note": "x"}
    return made


def dense(values) -> np.ndarray:
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def same_matrix(found: ad.AnnData, values, cells, genes) -> None:
    np.testing.assert_array_equal(dense(found.X), values)
    assert list(found.obs_names) == list(cells)
    assert list(found.var_names) == list(genes)


def error_line(kind: type[BaseException], call) -> str:
    with pytest.raises(kind) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert caught.type is kind
    return line


def save(path: Path, text: str) -> Path:
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".CSV"])
def test_read_text(tmp_path, suffix):
    frame = pd.DataFrame(COUNTS, CELLS, GENES)
    path = tmp_path / f"counts{suffix}"
    frame.to_csv(path, sep="," if "csv" in suffix.lower() else "\t")
    found = read(path)
    same_matrix(found, COUNTS, CELLS, GENES)
    assert found.X.format == "csr"
    assert found.X.dtype == np.float32
    assert found.X.nnz == np.count_nonzero(COUNTS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("short.csv", "A,B\nc1,1,2\nc2,0,4\n"),  # R's write.table: no field over the row names
        ("spaces.txt", '"A" "B"\n"c1" 1 2\n"c2" 0 4\n'),
        ("commas.txt", ",A,B\nc1,1,2\nc2,0,4"),
        ("corner.tsv", "gene\tA\tB\r\nc1\t1\t2\r\nc2\t0\t4\r\n"),
        ("bom.csv", "\ufeffA,B\nc1,1,2\n\nc2,0,4\n"),
    ],
)
def test_read_text_variants(tmp_path, name, text):
    same_matrix(read(save(tmp_path / name, text)), [[1, 2], [0, 4]], ["c1", "c2"], ["A", "B"])


def test_read_text_in_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "_VALUES_PER_BLOCK", 6)
    path = tmp_path / "a.csv"
    pd.DataFrame(COUNTS, CELLS, GENES).to_csv(path)
    same_matrix(read(path), COUNTS, CELLS, GENES)


def test_read_transpose_turns_text_and_h5ad(tmp_path, adata):
    pd.DataFrame(COUNTS.T, GENES, CELLS).to_csv(tmp_path / "genes_by_cells.csv")
    adata.T.write_h5ad(tmp_path / "genes_by_cells.h5ad")
    for name in ("genes_by_cells.csv", "genes_by_cells.h5ad"):
        found = read(tmp_path / name, transpose=True)
        same_matrix(found, COUNTS, CELLS, GENES)
        assert found.X.format == "csr"
    np.testing.assert_array_equal(found.layers["imputed"], adata.layers["imputed"])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("0.1", np.float32),
        ("16777216", np.float32),
        ("16777217", np.float64),
        ("1e300", np.float64),
        ("1e-60", np.float64),
    ],
)
def test_read_text_widens_only_what_float32_would_lose(tmp_path, value, dtype):
    found = read(save(tmp_path / "a.csv", f",A,B\nc,{value},1\n"))
    assert found.X.dtype == dtype
    assert found.X[0, 0] == dtype(value)


def test_x_is_no_layer():
    """As it is in the mapping of anndata 0.13."""
    adata = SimpleNamespace(layers={"a": 1, None: 2})
    assert named_layers(adata) == {"a": 1}


def test_names_that_look_missing_stay_names(tmp_path):
    found = read(save(tmp_path / "a.csv", ",NA,nan,None\nNULL,1,2,3\n"))
    same_matrix(found, [[1, 2, 3]], ["NULL"], ["NA", "nan", "None"])


def test_repeated_names_are_made_unique_and_counted(tmp_path):
    path = save(tmp_path / "a.csv", ",A,A,B,A\nc,1,2,3,4\nc,5,6,7,8\n")
    with pytest.warns(UserWarning, match="repeated") as caught:
        found = read(path)
    assert [str(one.message) for one in caught if one.category is UserWarning] == [
        "2 repeated gene names were made unique with -1, -2, ...",
        "1 repeated cell names were made unique with -1, -2, ...",
    ]
    same_matrix(found, [[1, 2, 3, 4], [5, 6, 7, 8]], ["c", "c-1"], ["A", "A-1", "B", "A-2"])


def test_empty_fields_are_missing_and_counted(tmp_path):
    with pytest.warns(UserWarning, match="has 2 empty or NA fields: they are NaN; fill or remove them"):
        found = read(save(tmp_path / "a.csv", ",A,B\nc,1,\nd,NA,4\n"))
    np.testing.assert_array_equal(dense(found.X), [[1, np.nan], [np.nan, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",A,B\nc1,1,2\nc2,x,4\nc3,y,z\n", "found 'x' in column 'A', row 'c2'; a number is needed: remove that column"),
        ("A,B\nc1,1,2\nc2,3,T cell\n", "found 'T cell' in column 'B', row 'c2'; a number is needed"),
        (",A,B\nc1,True,2\n", "found 'True' in column 'A', row 'c1'"),
        (",A,B\nc1,1,2\nc1,1,2,3\n", "line 3 has 4 fields, the lines before it 3"),
        (",A,B\nc1,1,2,3\n", "its first line has 3 fields, its rows 4"),
        (",A,B,C\nc1,1\n", "its first line has 4 fields, its rows 2"),
        ("\tA\tB\nc1\t1\t2\n", "its rows have one field; fields are separated by commas in .csv"),
        ("", "it has no rows; a line of gene names and one line for each cell are needed"),
        (",A,B\n", "it has no rows"),
        (',A\n"c1,1\n', "the text cannot be parsed"),
    ],
)
def test_bad_text_gets_one_line(tmp_path, text, message):
    path = save(tmp_path / "bad.csv", text)
    line = error_line(ValueError, lambda: read(path))
    assert line.startswith(f"{path}: ")
    assert message in line


def test_bad_bytes_get_one_line(tmp_path):
    (tmp_path / "latin.csv").write_bytes(b",A\nc\xe9ll,1\n")
    assert "is not UTF-8 text" in error_line(ValueError, lambda: read(tmp_path / "latin.csv"))
    (tmp_path / "no.csv.gz").write_bytes(b"plain")
    assert "gzip file is damaged" in error_line(ValueError, lambda: read(tmp_path / "no.csv.gz"))
    whole = gzip.compress("".join([",A\n", *(f"c{i},{i * i}\n" for i in range(20_000))]).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "gzip file is damaged or cut short" in error_line(ValueError, lambda: read(tmp_path / "cut.csv.gz"))


# --- 10x ----------------------------------------------------------------------------------------------------------

TYPES = ["Gene Expression", "Gene Expression", "Antibody Capture"]


def write_10x_folder(folder: Path, *, features: str, gz: bool, types: list[str] | None = None) -> Path:
    folder.mkdir()
    end = ".gz" if gz else ""
    scipy_io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS.T.astype(int)))
    if gz:
        (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
        (folder / "matrix.mtx").unlink()
    rows = [[f"ENSG{i:011d}", gene] + ([types[i]] if types else []) for i, gene in enumerate(GENES)]
    save(folder / f"{features}.tsv{end}", "".join("\t".join(row) + "\n" for row in rows))
    save(folder / f"barcodes.tsv{end}", "".join(f"{cell}\n" for cell in CELLS))
    return folder


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("features", ["genes", "features"])
def test_read_10x_folder(tmp_path, features, gz):
    types = ["Gene Expression"] * 3 if features == "features" else None
    folder = write_10x_folder(tmp_path / "10x", features=features, gz=gz, types=types)
    found = read(folder)
    same_matrix(found, COUNTS, CELLS, GENES)
    assert found.X.format == "csr"
    assert found.var["gene_ids"].tolist() == [f"ENSG{i:011d}" for i in range(3)]
    if gz == (features == "features"):  # the two layouts of Cell Ranger, which scanpy reads too
        reference = sc.read_10x_mtx(folder)
        same_matrix(found, dense(reference.X), reference.obs_names, reference.var_names)
        pd.testing.assert_frame_equal(found.var, reference.var)


def test_10x_folder_keeps_gene_expression_and_says_what_it_left_out(tmp_path):
    folder = write_10x_folder(tmp_path / "10x", features="features", gz=True, types=TYPES)
    with pytest.warns(UserWarning, match="^only Gene Expression is kept; left out: 1 Antibody Capture$"):
        found = read(folder)
    same_matrix(found, COUNTS[:, :2], CELLS, GENES[:2])


def test_10x_names_are_taken_as_they_are(tmp_path):
    folder = write_10x_folder(tmp_path / "10x", features="genes", gz=False)
    names = ['5"-a', "NA", '"b']
    (folder / "genes.tsv").write_text("".join(f"id{i}\t{name}\n" for i, name in enumerate(names)))
    same_matrix(read(folder), COUNTS, CELLS, names)


def test_folder_that_is_not_10x(tmp_path):
    folder = tmp_path / "outs"
    folder.mkdir()
    line = error_line(ValueError, lambda: read(folder))
    assert line == (
        f"{folder}: this folder holds no matrix.mtx (or .gz), so it is not 10x output; "
        "give a file, or a folder written by 10x"
    )
    write_10x_folder(folder / "filtered", features="genes", gz=False)
    assert "the folder filtered in it does: give that" in error_line(ValueError, lambda: read(folder))
    (folder / "filtered" / "genes.tsv").unlink()
    assert "no features.tsv or genes.tsv" in error_line(ValueError, lambda: read(folder / "filtered"))


def test_10x_folder_whose_files_do_not_belong_together(tmp_path):
    folder = write_10x_folder(tmp_path / "10x", features="genes", gz=False)
    (folder / "barcodes.tsv").write_text("AAAC\n")
    line = error_line(ValueError, lambda: read(folder))
    assert "matrix.mtx is 3 × 4, but there are 3 features and 1 barcodes" in line
    (folder / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n3 4 9\n1 1 1\n")
    assert "damaged" in error_line(ValueError, lambda: read(folder))


def write_10x_group(group: h5py.Group, names: dict[str, list[str]]) -> None:
    stored = sparse.csc_matrix(COUNTS.T.astype(np.int32))
    group["data"], group["indices"], group["indptr"] = stored.data, stored.indices.astype(np.int64), stored.indptr
    group["shape"] = np.array(stored.shape, dtype=np.int32)
    for name, values in {"barcodes": CELLS, **names}.items():
        group[name] = np.array(values, dtype="S")


IDS = [f"ENSG{i:011d}" for i in range(3)]


def test_read_10x_h5_version_3(tmp_path):
    with h5py.File(tmp_path / "v3.h5", "w") as file:
        write_10x_group(file.create_group("matrix"), {})
        for name, values in {"id": IDS, "name": GENES, "feature_type": TYPES, "genome": ["GRCh38"] * 3}.items():
            file[f"matrix/features/{name}"] = np.array(values, dtype="S")
        file["matrix/features/_all_tag_keys"] = np.array(["genome"], dtype="S")
    with pytest.warns(UserWarning, match="left out: 1 Antibody Capture"):
        found = read(tmp_path / "v3.h5")
    same_matrix(found, COUNTS[:, :2], CELLS, GENES[:2])
    assert found.var["gene_ids"].tolist() == IDS[:2]


def test_read_10x_h5_version_2(tmp_path):
    with h5py.File(tmp_path / "v2.h5", "w") as file:
        write_10x_group(file.create_group("hg19"), {"genes": IDS, "gene_names": GENES})
    same_matrix(read(tmp_path / "v2.h5"), COUNTS, CELLS, GENES)
    with h5py.File(tmp_path / "v2.h5", "a") as file:
        write_10x_group(file.create_group("mm10"), {"genes": IDS, "gene_names": GENES})
    line = error_line(ValueError, lambda: read(tmp_path / "v2.h5"))
    assert "it holds several genomes (hg19, mm10); save the one you want as .h5ad" in line


def test_h5_that_is_not_10x(tmp_path, adata):
    adata.write_h5ad(tmp_path / "anndata.h5")
    line = error_line(ValueError, lambda: read(tmp_path / "anndata.h5"))
    assert "not 10x output (no barcodes in it); give a 10x .h5, or name an AnnData file .h5ad" in line


# --- h5ad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REAL_FILES or [None], ids=lambda path: path.stem if path else "none")
def test_real_files_read_and_know_their_orientation(path):
    if path is None:
        pytest.skip("the real data sets are not on this machine")
    found, reference = read(path), ad.read_h5ad(path)
    assert abs(found.X - reference.X).nnz == 0
    assert list(found.var_names) == list(reference.var_names)
    assert looks_transposed(found) is None
    assert "are genes" in (looks_transposed(found.T) or "")
    assert is_integer_counts(found.X) == (path.stem != "trapnell_hsmm")
    assert as_observed(found)[0].nnz == np.count_nonzero(dense(found.X))


def test_missing_and_unknown_files(tmp_path):
    line = error_line(FileNotFoundError, lambda: read(tmp_path / "none.h5ad"))
    assert line == f"{tmp_path / 'none.h5ad'} does not exist; give a file or a 10x folder that does"
    line = error_line(ValueError, lambda: read(save(tmp_path / "a.xlsx", "1")))
    assert "has suffix '.xlsx'; allowed are .h5ad, .h5ad.gz, .zarr, .zarr.zip, .h5, .h5.gz, .loom," in line
    assert "has no suffix" in error_line(ValueError, lambda: read(save(tmp_path / "counts", "1")))


def test_unreadable_file(tmp_path, monkeypatch):
    path = save(tmp_path / "a.csv", ",A\nc,1\n")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.R_OK)
    assert "cannot be read; change its permissions" in error_line(PermissionError, lambda: read(path))


def test_damaged_h5ad(tmp_path, adata):
    path = save(tmp_path / "text.h5ad", "not HDF5")
    assert "damaged or not what its suffix says" in error_line(ValueError, lambda: read(path))
    adata.write_h5ad(tmp_path / "cut.h5ad")
    whole = (tmp_path / "cut.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    assert "truncated file" in error_line(ValueError, lambda: read(tmp_path / "cut.h5ad"))


def test_h5ad_without_matrix(tmp_path):
    without = ad.AnnData(obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=GENES), layers={"counts": COUNTS})
    without.write_h5ad(tmp_path / "a.h5ad")
    assert read(tmp_path / "a.h5ad").X is None  # the counts are in a layer
    del without.layers["counts"]
    without.write_h5ad(tmp_path / "a.h5ad")
    line = error_line(ValueError, lambda: read(tmp_path / "a.h5ad"))
    assert line.endswith("holds no matrix: X is missing; cells × genes is needed in X (layers: none)")
    ad.AnnData(np.zeros((0, 3))).write_h5ad(tmp_path / "b.h5ad")
    assert "X is 0 × 3" in error_line(ValueError, lambda: read(tmp_path / "b.h5ad"))


# --- write --------------------------------------------------------------------------------------------------------


def test_h5ad_round_trip_keeps_the_whole_object(tmp_path, adata):
    write(adata, tmp_path / "out.h5ad")
    found = read(tmp_path / "out.h5ad")
    same_matrix(found, COUNTS, CELLS, GENES)
    np.testing.assert_array_equal(found.layers["imputed"], adata.layers["imputed"])
    np.testing.assert_array_equal(found.obsm["X_pca"], adata.obsm["X_pca"])
    assert found.uns["settings"] == {"seed": 3, "note": "x"}
    assert found.obs["label"].tolist() == ["a", "b", "a", "b"]
    assert os.listdir(tmp_path) == ["out.h5ad"]  # noqa: PTH208  (hidden files included)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.tsv.gz"])
@pytest.mark.parametrize("layer", [None, "imputed", "csc"])
def test_text_round_trip(tmp_path, adata, name, layer, monkeypatch):
    monkeypatch.setattr(matrix, "_VALUES_PER_BLOCK", 6)  # two rows at a time
    adata.layers["csc"] = sparse.csc_matrix(COUNTS * 2)
    write(adata, tmp_path / name, layer=layer)
    same_matrix(read(tmp_path / name), dense(adata.layers[layer] if layer else adata.X), CELLS, GENES)


def test_counts_are_written_as_whole_numbers(tmp_path, adata):
    write(adata, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[:2] == [",Sox2,Nanog,Pou5f1", "AAACCCGGGTTT-1,0,3,0"]


def test_views_and_backed_objects_are_written(tmp_path, adata):
    view = adata[::2, 1:]  # its labels repeat, so writing makes them categories
    write(view, tmp_path / "view.h5ad")
    assert view.is_view
    same_matrix(read(tmp_path / "view.h5ad"), COUNTS[::2, 1:], CELLS[::2], GENES[1:])
    write(adata, tmp_path / "in.h5ad")
    backed = ad.read_h5ad(tmp_path / "in.h5ad", backed="r")
    for name in ("copy.h5ad", "copy.csv"):
        write(backed, tmp_path / name)
        same_matrix(read(tmp_path / name), COUNTS, CELLS, GENES)
    assert backed.filename == tmp_path / "in.h5ad"
    write(backed[:2], tmp_path / "part.h5ad")
    same_matrix(read(tmp_path / "part.h5ad"), COUNTS[:2], CELLS[:2], GENES)
    backed.file.close()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)


@st.composite
def objects(draw: st.DrawFn) -> ad.AnnData:
    n_obs, n_vars = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    numbers = st.one_of(st.just(0.0), st.integers(0, 10**6), st.floats(0, 2**20, width=32))
    values = draw(hnp.arrays(np.float32, (n_obs, n_vars), elements=numbers.map(np.float32)))
    obs = draw(st.lists(NAMES, min_size=n_obs, max_size=n_obs, unique=True))
    var = draw(st.lists(NAMES, min_size=n_vars, max_size=n_vars, unique=True))
    kept = sparse.csr_matrix(values) if draw(st.booleans()) else values
    return ad.AnnData(kept, obs=pd.DataFrame(index=pd.Index(obs)), var=pd.DataFrame(index=pd.Index(var)))


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".h5ad"])
@settings(max_examples=60, deadline=None)
@given(made=objects())
def test_round_trip_of_anything(suffix, made):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(made, path)
        same_matrix(read(path), dense(made.X), made.obs_names, made.var_names)


def test_existing_output_is_refused_and_replaced_on_request(tmp_path, adata):
    path = save(tmp_path / "out.csv", "old")
    line = error_line(FileExistsError, lambda: write(adata, path))
    assert (
        line == f"{path} exists; give overwrite=True (--overwrite on the command line) to replace it, or another name"
    )
    assert path.read_text() == "old"
    with path.open() as reader:  # who has the old file open keeps it whole: replaced, not overwritten
        write(adata, path, overwrite=True)
        assert reader.read() == "old"
    same_matrix(read(path), COUNTS, CELLS, GENES)
    assert os.listdir(tmp_path) == ["out.csv"]  # noqa: PTH208


def test_a_link_is_followed_not_replaced(tmp_path, adata):
    (tmp_path / "disk").mkdir()
    target = save(tmp_path / "disk" / "out.csv", "old")
    (tmp_path / "link.csv").symlink_to(target)
    write(adata, tmp_path / "link.csv", overwrite=True)
    assert (tmp_path / "link.csv").is_symlink()
    same_matrix(read(target), COUNTS, CELLS, GENES)


@pytest.mark.parametrize("name", ["link.h5ad", "link.zarr", "link.csv.gz", "link.mtx"])
def test_the_suffix_of_a_link_tells_the_format(tmp_path, adata, name):
    """As of data that are kept under digests."""
    (tmp_path / name).symlink_to(tmp_path / "0f3a.blob")
    for _ in range(2):
        write(adata, tmp_path / name, overwrite=True)
        same_matrix(read(tmp_path / name), COUNTS, CELLS, GENES)
    assert (tmp_path / name).is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {name, "0f3a.blob"}


def test_a_column_of_any_name_is_written(tmp_path, adata):
    adata.obsm["table"] = pd.DataFrame({"group": np.arange(len(CELLS)), "format": 1}, index=adata.obs_names)
    for name in ("out.h5ad", "out.zarr"):
        write(adata, tmp_path / name)
        assert list(read(tmp_path / name).obsm["table"]) == ["group", "format"]


@pytest.mark.filterwarnings("ignore:a .loom holds X")
def test_a_loom_says_which_column_has_no_place(tmp_path, adata):
    adata.var["Gene"] = [f"symbol {name}" for name in adata.var_names]
    with pytest.warns(UserWarning, match="left out: the column of that name"):
        write(adata, tmp_path / "out.loom")
    adata.var["Gene"] = adata.var_names
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="a .loom holds the names")
        write(adata, tmp_path / "out.loom", overwrite=True)


def test_check_writable_finds_what_write_would_meet(tmp_path, monkeypatch):
    check_writable(tmp_path / "new.h5ad")
    check_writable(save(tmp_path / "old.h5ad", ""), overwrite=True)
    assert not (tmp_path / "new.h5ad").exists()
    (tmp_path / "folder.h5ad").mkdir()
    cases = {
        tmp_path / "old.h5ad": (FileExistsError, "--overwrite"),
        tmp_path / "a.h5": (
            ValueError,
            "allowed are .h5ad, .zarr, .loom, .csv, .csv.gz, .tsv, .tsv.gz, .mtx, .mtx.gz: rename",
        ),
        tmp_path / "none" / "a.csv": (FileNotFoundError, "does not exist; create it, or choose another"),
        tmp_path / "old.h5ad" / "a.csv": (NotADirectoryError, "is a file, not a folder"),
        tmp_path / "folder.h5ad": (IsADirectoryError, "is a folder or a device"),
    }
    for path, (kind, message) in cases.items():
        assert message in error_line(kind, lambda path=path: check_writable(path))
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    line = error_line(PermissionError, lambda: check_writable(tmp_path / "new.h5ad"))
    assert line == f"the folder {tmp_path} cannot be written; change its permissions, or choose another"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, adata):
    tmp_path.chmod(0o500)
    assert "cannot be written" in error_line(PermissionError, lambda: write(adata, tmp_path / "a.csv"))


@pytest.fixture(params=[None, "old output"])
def output(tmp_path, request):
    """Give a function that says where to write, and check afterwards that what was there before is all there is."""
    paths = []

    def at(name: str) -> Path:
        paths.append(tmp_path / name)
        if request.param:
            paths[0].write_text(request.param)
        return paths[0]

    yield at
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == ({paths[0].name: request.param} if request.param else {})


def test_object_that_cannot_be_stored(output, adata):
    adata.uns["model"] = object()
    path = output("out.h5ad")
    line = error_line(ValueError, lambda: write(adata, path, overwrite=True))
    assert line.startswith("the object holds something that .h5ad cannot store")
    assert "key 'model'" in line


@pytest.mark.parametrize("name", ["out.h5ad", "out.csv", "out.csv.gz"])
def test_disk_that_fills_up(output, name):
    big = ad.AnnData(np.random.default_rng(0).random((200, 200)))
    path = output(name)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        line = error_line(OSError, lambda: write(big, path, overwrite=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert line.startswith(f"cannot write {path}: ")
    assert "too large" in line
    assert line.endswith("no file was left behind")


@pytest.mark.parametrize(("name", "met_halfway"), [("out.h5ad", "uns"), ("out.tsv", "var_names")])
def test_interruption_leaves_nothing(output, adata, name, met_halfway, monkeypatch):
    path = output(name)
    partial = path.with_name(f".out.partial-{os.getpid()}{path.suffix}")

    def interrupted(*args):
        assert partial.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(ad.AnnData, met_halfway, property(interrupted))
    with pytest.raises(KeyboardInterrupt):
        write(adata, path, overwrite=True)


@pytest.mark.parametrize("name", ["out.h5ad", "out.csv"])
def test_layer_that_does_not_exist(output, adata, name):
    path = output(name)
    line = error_line(ValueError, lambda: write(adata, path, layer="imputd", overwrite=True))
    assert line == "there is no layer 'imputd'; its layers are 'imputed': leave layer= out to take X, or name another"


def test_nothing_to_write(output):
    path = output("out.csv")
    assert "nothing to write" in error_line(
        ValueError, lambda: write(ad.AnnData(np.ones((0, 3))), path, overwrite=True)
    )


# --- matrices -----------------------------------------------------------------------------------------------------

MIXED = np.array([[0.0, 1.5, np.nan], [2.0, 0.0, 3.0]])
KINDS = {
    "ndarray": np.array,
    "fortran": np.asfortranarray,
    "matrix": np.matrix,
    "frame": lambda values: pd.DataFrame(values, ["c1", "c2"], GENES),
    "anndata": lambda values: ad.AnnData(values, obs=pd.DataFrame(index=["c1", "c2"]), var=pd.DataFrame(index=GENES)),
    **{f"{kind}_matrix": getattr(sparse, f"{kind}_matrix") for kind in ("csr", "csc", "coo", "lil", "dok", "bsr")},
    **{f"{kind}_array": getattr(sparse, f"{kind}_array") for kind in ("csr", "csc", "coo")},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, np.float64])
def test_as_observed_of_every_kind(kind, dtype):
    data = KINDS[kind](MIXED)
    found, obs_names, var_names = as_observed(data, dtype=dtype)
    assert isinstance(found, sparse.csr_array)
    assert found.has_canonical_format
    assert found.dtype == (dtype or np.float32)
    assert found.indptr.tolist() == [0, 1, 3]
    assert found.indices.tolist() == [1, 0, 2]
    assert found.data.tolist() == [1.5, 2.0, 3.0]
    named = kind in {"frame", "anndata"}
    assert (obs_names is not None and list(obs_names) == ["c1", "c2"]) == named
    assert (var_names is not None and list(var_names) == GENES) == named
    assert (obs_names is None) != named


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float16, np.float64])
def test_as_observed_takes_every_number(dtype):
    values = np.array([[0, 1], [1, 0]], dtype=dtype)
    assert as_observed(values)[0].toarray().tolist() == [[0, 1], [1, 0]]


def test_as_observed_cleans_without_touching_its_input():
    data, indices, indptr = np.array([0.0, 4.0, np.nan, 1.0, 2.0]), np.array([2, 0, 1, 1, 1]), np.array([0, 2, 5])
    given_matrix = sparse.csr_array((data, indices, indptr), shape=(2, 3))
    before = [part.copy() for part in (data, indices, indptr)]
    found = as_observed(given_matrix)[0]
    assert found.toarray().tolist() == [[4, 0, 0], [0, 0, 0]]  # NaN + 1 + 2 is missing
    assert found.nnz == 1
    for part, old in zip((given_matrix.data, given_matrix.indices, given_matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(part, old)


@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_as_observed_reads_backed_matrices_in_blocks(tmp_path, make, monkeypatch):
    monkeypatch.setattr(matrix, "_VALUES_PER_BLOCK", 6)
    made = ad.AnnData(make(COUNTS), obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=GENES))
    made.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    found, obs_names, _ = as_observed(backed)
    np.testing.assert_array_equal(found.toarray(), COUNTS)
    assert list(obs_names) == CELLS
    assert is_integer_counts(backed.X)
    backed.file.close()


def test_as_observed_takes_a_layer(adata):
    np.testing.assert_array_equal(as_observed(adata, layer="imputed")[0].toarray(), adata.layers["imputed"])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (
            np.array([[1.0, -3.14159], [-1.0, 0.0]]),
            ValueError,
            "found 2 negative entries (min -3.142): the masked objective takes log2(normalised + 1), "
            "which is never negative; give unscaled data",
        ),
        (sparse.csc_array([[1.0, -1.0]]), ValueError, "found 1 negative entry (min -1)"),
        (np.array([[np.inf, 1.0]]), ValueError, "found 1 infinite entry; finite values are needed"),
        (np.array([[-np.inf, np.inf]]), ValueError, "found 2 infinite entries"),
        (np.array([[1e300]]), ValueError, "found 1 infinite entry"),
        (np.ones(3), ValueError, "found 1 dimension, shape (3,); cells × genes is needed"),
        (np.ones((2, 2, 2)), ValueError, "found 3 dimensions, shape (2, 2, 2)"),
        (np.ones((0, 3)), ValueError, "found an empty matrix, 0 cells × 3 genes"),
        (sparse.csr_array((3, 0)), ValueError, "found an empty matrix, 3 cells × 0 genes"),
        (np.array([["a", "b"]]), ValueError, "a matrix of numbers is needed"),
        (pd.DataFrame({"A": [1, 2], "type": ["x", "y"]}), ValueError, "found values of type object"),
        ([[1, 2]], TypeError, "found a list; allowed are AnnData, DataFrame, ndarray and scipy sparse matrices"),
    ],
)
def test_as_observed_refuses(data, kind, message):
    assert message in error_line(kind, lambda: as_observed(data))


def test_layers_that_are_not_there(adata):
    assert "only AnnData has layers" in error_line(ValueError, lambda: as_observed(COUNTS, layer="counts"))
    assert counts_matrix(adata) is adata.X
    np.testing.assert_array_equal(counts_matrix(adata, "imputed"), adata.layers["imputed"])
    bare = ad.AnnData(COUNTS)
    line = error_line(ValueError, lambda: counts_matrix(bare, "counts"))
    assert line == "there is no layer 'counts'; it has no layers: leave layer= out to take X, or name another"
    adata.X = None
    assert error_line(ValueError, lambda: counts_matrix(adata)).startswith("the object has no X; its layers are")


@given(n_rows=st.integers(0, 50), size=st.integers(1, 60))
def test_row_blocks_hold_every_row_once(n_rows, size):
    rows = np.arange(n_rows)
    blocks = [rows[block] for block in row_blocks(np.zeros((n_rows, 2)), size)]
    assert np.concatenate([np.empty(0, int), *blocks]).tolist() == rows.tolist()
    assert all(len(block) == size for block in blocks[:-1])
    assert all(len(block) > 0 for block in blocks)


def test_row_blocks_need_a_size():
    assert "a block of 0 rows" in error_line(ValueError, lambda: row_blocks(COUNTS, 0))


@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, sparse.coo_array, sparse.lil_matrix])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, True), (3.0, True), (0, True), (3.5, False), (-1.0, False), (np.nan, False), (np.inf, False), (True, True)],
)
def test_is_integer_counts(make, value, expected, monkeypatch):
    monkeypatch.setattr(matrix, "_VALUES_PER_BLOCK", 4)
    values = np.ones((5, 4), dtype=np.asarray(value).dtype)
    values[4, 3] = value
    assert is_integer_counts(make(values)) is expected


# --- orientation --------------------------------------------------------------------------------------------------


def named(obs: list[str], var: list[str]) -> ad.AnnData:
    values = sparse.csr_matrix((len(obs), len(var)), dtype=np.float32)
    return ad.AnnData(values, obs=pd.DataFrame(index=obs), var=pd.DataFrame(index=var))


ENSEMBL = [f"ENSMUSG{i:011d}.{i % 7}" for i in range(20)]
SYMBOLS = ["Actb", "Gapdh", "mt-Nd1", "Rpl13a", "Sox2", "Nanog", "Klf4", "Myc"]
NUMBERED = [f"cell_{i}" for i in range(20)]
BARCODES = [f"ACGTACGTAC{base}-1" for base in "ACGT"]


@pytest.mark.parametrize(
    ("cells", "genes", "reason"),
    [
        (NUMBERED, ENSEMBL, "obs names such as 'ENSMUSG00000000000.0' are genes"),
        (NUMBERED, SYMBOLS, "obs names such as 'Actb' are genes"),
        (BARCODES, ["g1", "g2"], "var names such as 'ACGTACGTACA-1' are cell barcodes"),
        (["c1"], ["GAPDH", *(f"g{i}" for i in range(9))], "obs names such as 'GAPDH' are genes"),  # the shape helps
        (NUMBERED, ["g1", "g2"], None),
        (NUMBERED, ["GAPDH", *(f"g{i}" for i in range(9))], None),  # one name alone does not decide
        (SYMBOLS, SYMBOLS, None),  # genes × genes: nobody can tell
        (["MT-1", "MT-2", "MT-3"], ["g1", "g2"], None),  # mutants, not mitochondria
        (["c1"] + NUMBERED * 20, ["g1"], None),  # the shape alone does not decide
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique", "ignore:Variable names are not unique")
def test_looks_transposed(cells, genes, reason):
    assert looks_transposed(named(cells, genes)) is None
    assert looks_transposed(named(genes, cells)) == reason


def test_refuse_transposed_says_how_to_fix_it():
    refuse_transposed(named(NUMBERED, ENSEMBL))
    line = error_line(ValueError, lambda: refuse_transposed(named(ENSEMBL, NUMBERED[:5])))
    assert line == (
        "the 20 × 5 matrix looks like genes × cells (obs names such as 'ENSMUSG00000000000.0' are genes); "
        "cells × genes is needed: pass adata.T, or --transpose on the command line"
    )


# --- the module ---------------------------------------------------------------------------------------------------


def test_importing_io_stays_light():
    code = "import sys, scautoimpute.io; print(sorted({'scanpy', 'torch', 'anndata', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
