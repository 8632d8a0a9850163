"""Files of Cell Ranger read a block of cells at a time: the result of reading them as a whole."""

import os
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, impute_file
from scautoimpute.io.find import find_counts
from scautoimpute.io.stream import is_stored_by_rows, open_cells

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out deviance")
N_CELLS, N_GENES, N_OTHERS = 1100, 40, 5
LEFT_OUT = "only Gene Expression is kept"


def write_10x(path, *, version, others=0, names=None, dtype=np.int32, probes=False):
    """Counts of genes with features of another kind among them, as Cell Ranger writes them."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, 2, (4, N_GENES + others))[np.arange(N_CELLS) % 4]
    stored = sparse.csr_array(rng.poisson(rate))
    n_features = stored.shape[1]
    kinds = np.array(["Gene Expression"] * n_features)
    kinds[rng.choice(n_features, others, replace=False)] = "Antibody Capture"
    names = [f"g{i}" for i in range(n_features)] if names is None else names
    ids = [f"ENSG{i:011d}" for i in range(n_features)]
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["data"], group["indptr"] = stored.data.astype(dtype), stored.indptr.astype(np.int64)
        group["indices"], group["shape"] = stored.indices.astype(np.int64), np.array(stored.shape[::-1], dtype=np.int32)
        group["barcodes"] = np.array([f"ACGTACGTACGT{i}-1" for i in range(N_CELLS)], dtype="S")
        if version == 2:
            group["genes"], group["gene_names"] = (np.array(values, dtype="S") for values in (ids, names))
            return path
        group["filtered_barcodes"] = rng.random(N_CELLS) > 0.1
        features = {"id": ids, "name": names, "feature_type": kinds, "genome": ["GRCh38"] * n_features}
        features |= {"gene_id": ids, "id": [f"p{i}" for i in range(n_features)]} if probes else {}
        for name, values in features.items():
            group[f"features/{name}"] = np.array(values, dtype="S")
        group["features/_all_tag_keys"] = np.array(["genome"], dtype="S")
        group["features/is_good"] = rng.random(n_features) > 0.5
    return path


FILES = {
    "version 2": {"version": 2},
    "version 3": {"version": 3},
    "others": {"version": 3, "others": N_OTHERS},
    "probes, 64 bits": {"version": 3, "probes": True, "dtype": np.int64},
    "names that repeat": {"version": 2, "names": ["twice", "twice", *(f"g{i}" for i in range(N_GENES - 2))]},
}


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def assert_same(found, wanted):
    assert found.X.dtype == wanted.X.dtype
    np.testing.assert_array_equal(dense(found.X), dense(wanted.X))
    assert list(found.layers) == list(wanted.layers)
    for name, layer in wanted.layers.items():
        assert dense(found.layers[name]).tobytes() == dense(layer).tobytes()
    np.testing.assert_array_equal(found.obsm["X_autoimpute"], wanted.obsm["X_autoimpute"])
    pd.testing.assert_frame_equal(found.obs, wanted.obs, check_exact=True)
    pd.testing.assert_frame_equal(found.var, wanted.var, check_exact=True)


def said(action, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action(*arguments, **options)
    return result, [(str(w.message), w.filename) for w in caught if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("suffix", [".h5ad", pytest.param(".zarr", marks=pytest.mark.slow)])
def test_training_and_applying_give_what_memory_gives(file, suffix, tmp_path):
    path = write_10x(tmp_path / "cells.h5", **FILES[file])
    assert is_stored_by_rows(path)
    models = [AutoImpute("counts", hidden=6, max_epochs=2, random_state=0) for _ in range(2)]
    (adata, in_reading), (record, streamed) = (
        said(sai.read, path),
        said(impute_file, path, output=tmp_path / f"out{suffix}", model=models[0]),
    )
    assert "staged" in record  # so it was not read as a whole
    _, in_training = said(sai.tl.autoimpute, adata, model=models[1])
    assert sorted(text for text, _ in streamed) == sorted(text for text, _ in in_reading + in_training)
    sai.write(adata, tmp_path / f"wanted{suffix}")
    assert_same(sai.read(tmp_path / f"out{suffix}"), sai.read(tmp_path / f"wanted{suffix}"))
    _, streamed = said(impute_file, path, output=tmp_path / f"again{suffix}", model=models[0])
    assert streamed == in_reading
    assert_same(sai.read(tmp_path / f"again{suffix}"), sai.read(tmp_path / f"wanted{suffix}"))


@pytest.mark.filterwarnings(f"ignore:{LEFT_OUT}")
def test_masked_models_and_some_genes(tmp_path):
    path = write_10x(tmp_path / "cells.h5", **FILES["others"])
    adata = sai.read(path)
    model = AutoImpute("masked", hidden=6, n_folds=1, max_epochs=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sai.tl.autoimpute(adata.copy(), model=model)
    genes = adata.var_names[[7, 3, 11]]
    impute_file(path, output=tmp_path / "out.h5ad", model=model, output_genes=genes, scale="log2")
    impute_file(path, output=tmp_path / "out.csv", model=model, output_genes=genes, scale="log2")
    sai.tl.autoimpute(adata, model=model, output_genes=genes, scale="log2")
    sai.write(adata, tmp_path / "wanted.h5ad")
    assert_same(sai.read(tmp_path / "out.h5ad"), sai.read(tmp_path / "wanted.h5ad"))
    table = pd.read_csv(tmp_path / "out.csv", index_col=0)
    np.testing.assert_array_equal(table.to_numpy(dtype=np.float32), dense(adata.layers["imputed"]))


@pytest.mark.filterwarnings(f"ignore:{LEFT_OUT}")
def test_blocks_are_rows_of_the_whole(tmp_path):
    path = write_10x(tmp_path / "cells.h5", **FILES["others"])
    whole = sai.read(path)
    with open_cells(path) as cells:
        assert (cells.shape, cells.X.dtype) == (whole.shape, np.float32)
        assert list(cells.cell_names(slice(None))) == list(whole.obs_names)
        for rows in (slice(0, 3), slice(500, 1012), slice(1099, 1100), slice(4, 4)):
            np.testing.assert_array_equal(cells.X[rows].toarray(), whole.X[rows].toarray())
        assert find_counts(cells).reason == find_counts(whole).reason


def test_several_are_open_at_once(tmp_path):
    paths = [write_10x(tmp_path / f"{version}.h5", version=version) for version in (2, 3)]
    with open_cells(paths[0]) as one, open_cells(paths[1]) as other:
        assert list(one.root["var"]) != list(other.root["var"])
        np.testing.assert_array_equal(one.X[:5].toarray(), other.X[:5].toarray())


@pytest.mark.parametrize("accident", ["cut short", "other features"])
def test_damage_gets_one_line(accident, tmp_path):
    path = write_10x(tmp_path / "cells.h5", version=3)
    if accident == "cut short":
        os.truncate(path, path.stat().st_size // 2)
    else:
        with h5py.File(path, "r+") as file:
            file["matrix/indices"][-1] = 2 * N_GENES
    with pytest.raises(ValueError, match=r"cells\.h5 cannot be read, it is damaged") as caught:
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("counts", hidden=6, max_epochs=2))
    assert "\n" not in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["cells.h5"]
