"""Which matrix holds the counts, what is said of a file, and whether that is what imputing it then does."""

import json
import subprocess
import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from scautoimpute import tl
from scautoimpute.cli import app
from scautoimpute.datasets import simulate
from scautoimpute.io import describe, find, find_counts, opened, read, write
from scautoimpute.io.describe import organism_of
from scautoimpute.io.sample import n_stored, sample_rows, stored_bytes

RNG = np.random.default_rng(0)
WHOLE = RNG.poisson(2.0, (40, 12)).astype(np.float32)
WHOLE[:, 0] += 1
LOGS = np.log1p(WHOLE)
SCALED = LOGS - LOGS.mean(axis=0)
EXPECTED = WHOLE * 20 + (RNG.random(WHOLE.shape) < 0.3) * 0.37 * (WHOLE > 0)
TPM = WHOLE / WHOLE.sum(axis=1, keepdims=True) * 1e6
GAPS = np.where(WHOLE == 1, np.nan, WHOLE)


@pytest.fixture
def logged() -> ad.AnnData:
    return ad.AnnData(LOGS.copy())


# --- which matrix -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "is_usable"),
    [
        (WHOLE, "counts", True),
        (WHOLE.astype(np.int64), "counts", True),
        (EXPECTED, "expected counts", True),
        (TPM, "normalised", True),
        (GAPS, "counts with gaps", False),
        (LOGS, "logs", False),
        (SCALED, "scaled", False),
        (np.where(WHOLE == 1, np.inf, WHOLE), "not finite", False),
        (np.zeros((3, 2)), "empty", False),
    ],
)
def test_kinds_of_values(values, kind, is_usable, array_type):
    found = find_counts(ad.AnnData(array_type(values)))
    assert (found.layer, found.kind, found.is_usable) == (None, kind, is_usable)
    assert "\n" not in found.reason
    assert found.reason.startswith("X holds" if is_usable else "no counts were found: X holds")


def test_values_that_the_object_calls_logs_are_logs():
    large = ad.AnnData(TPM.copy(), uns={"log1p": {}})
    assert find_counts(large).kind == "logs"
    large.X = WHOLE
    assert find_counts(large).kind == "counts"  # whole numbers are never logs


@pytest.mark.parametrize(
    ("layers", "raw", "expected"),
    [
        ({"b": WHOLE, "counts": WHOLE}, WHOLE, "counts"),
        ({"b": WHOLE, "raw_umi": WHOLE}, WHOLE, "raw_umi"),
        ({"b": WHOLE, "z": LOGS}, WHOLE, "raw"),
        ({"b": WHOLE, "z": LOGS}, LOGS, "b"),
        ({"is_raw_outlier": WHOLE > 0}, WHOLE, "raw"),
        ({"mask": (WHOLE > 0).astype(int)}, WHOLE, "raw"),
        ({"a": SCALED}, WHOLE, "raw"),
        ({"tpm": TPM}, LOGS, "tpm"),
        ({"a": SCALED}, EXPECTED, "raw"),
        ({"raw": WHOLE}, SCALED, "raw"),
    ],
)
def test_where_the_counts_are_when_x_holds_none(logged, layers, raw, expected):
    logged.raw = ad.AnnData(raw)
    logged.layers.update(layers)
    found = find_counts(logged)
    assert (found.layer, found.is_usable) == (expected, True)
    assert "X: what looks like logs" in found.reason


def test_several_layers_of_whole_numbers_are_for_a_person_to_tell_apart(logged):
    logged.layers.update({"spliced": WHOLE, "ambiguous": WHOLE, "unspliced": WHOLE})
    found = find_counts(logged)
    assert (found.layer, found.kind, found.is_usable) == (None, "several", False)
    assert "'ambiguous', 'spliced', 'unspliced' all hold whole numbers" in found.reason


def test_whole_numbers_in_x_come_before_all_else():
    adata = ad.AnnData(WHOLE, layers={"counts": WHOLE})
    assert find_counts(adata).reason == "X holds whole numbers"


def test_nothing_that_can_be_used_is_said_of_each_matrix(logged):
    logged.layers["z"] = SCALED
    found = find_counts(logged)
    assert (found.layer, found.kind, found.is_usable) == (None, "logs", False)
    assert found.reason == (
        "no counts were found: X holds what looks like logs; layer z holds negative numbers, as after scaling; "
        "put counts in X or in a layer"
    )
    del logged.X
    assert find_counts(logged).layer == "z"


def test_of_a_large_matrix_a_sample_is_looked_at_and_said(monkeypatch):
    monkeypatch.setattr(find, "_VALUES_LOOKED_AT", 4000)
    big = ad.AnnData(sparse.csr_matrix(np.ones((1600, 20))))
    assert find_counts(big).reason == "X holds whole numbers, judged by 192 of 1,600 cells"


@pytest.mark.parametrize("where", ["memory", ".h5ad", ".zarr"])
@pytest.mark.parametrize("n_values", [100, 10**6])
def test_samples_are_rows_of_the_matrix(where, n_values, array_type, tmp_path):
    values = RNG.poisson(1.0, (300, 11)).astype(np.float32)
    adata = ad.AnnData(array_type(values))
    held = n_stored(adata.X), stored_bytes(adata.X)
    if where == "memory":
        check_sample(adata.X, values, n_values)
        return
    write(adata, tmp_path / f"a{where}")
    with opened(tmp_path / f"a{where}") as lazy:
        assert (n_stored(lazy.X), stored_bytes(lazy.X)) == held
        check_sample(lazy.X, values, n_values)


def check_sample(matrix, values, n_values):
    sample = sample_rows(matrix, n_values=n_values)
    np.testing.assert_array_equal(sample.values.toarray(), values[sample.rows])  # noqa: PD011
    assert sample.is_whole == (n_values > values.size) == (len(sample.rows) == 300)
    assert sample.rows[0] == 0
    assert sample.rows[-1] == 299
    assert len(np.unique(sample.rows)) == len(sample.rows)


# --- what a file is said to be ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    adata = simulate(n_cells=60, n_genes=80, random_state=0)
    return ad.AnnData(adata.X, obs=adata.obs, var=adata.var)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".loom", ".csv", ".tsv.gz", ".mtx", ".mtx.gz"])
def test_every_format_is_described_alike(suffix, counts, tmp_path):
    write(counts, tmp_path / f"a{suffix}")
    found = describe(tmp_path / f"a{suffix}")
    x = counts.X.toarray()
    assert found.format == ("folder" if "mtx" in suffix else suffix[1:])
    assert (found.cells, found.genes) == (60, 80)
    assert found.matrices["X"]["density"] == pytest.approx((x > 0).mean(), abs=1e-4)
    assert found.matrices["X"]["shape"] == [60, 80]
    assert found.library_size_median == np.median(x.sum(axis=1))
    assert found.genes_passing == sum((gene >= 3).sum() >= 3 for gene in x.T)
    assert found.assumed.kind == "counts"
    assert found.refusal is None
    assert found.warnings == []
    assert json.loads(json.dumps(found.to_json()))["assumed"]["reason"] == "X holds whole numbers"


def refused(path, **options):
    """The line that imputing what `describe` assumes comes to, and the one that it foretold."""
    found = describe(path, **options)
    with pytest.raises(ValueError, match=" ") as caught:
        tl.autoimpute(read(path), layer=found.assumed.layer)
    return str(caught.value), found.refusal


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (GAPS, "values are NaN"),
        (SCALED, "values are negative"),
        (LOGS, "look logged already"),
        (np.zeros((40, 12)), "values are zero"),
        (np.eye(40, 12), "12 molecules in 40 cells"),
        (np.eye(40, 12) * 300.5, "no gene of 12 has >= 3 reads"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_the_refusal_foretold_is_the_one_that_comes(values, part, suffix, tmp_path):
    write(ad.AnnData(sparse.csr_matrix(values)), tmp_path / f"a{suffix}")
    came, foretold = refused(tmp_path / f"a{suffix}")
    assert came == foretold
    assert part in came


def test_genes_by_cells_is_seen(counts, tmp_path):
    turned = counts.T.copy()
    turned.obs_names = [f"ENSG{number:011d}" for number in range(turned.n_obs)]
    write(turned, tmp_path / "a.h5ad")
    came, foretold = refused(tmp_path / "a.h5ad")
    assert came == foretold
    found = describe(tmp_path / "a.h5ad")
    assert found.orientation == "genes × cells: obs names such as 'ENSG00000000000' are genes"
    assert found.organism == "human: Ensembl ids such as 'ENSG00000000000'"


def test_counts_in_raw_of_more_genes(counts, tmp_path):
    part = ad.AnnData(np.log1p(counts.X.toarray()), obs=counts.obs, var=counts.var[[]])
    part.raw = counts
    write(part[:, 10:50].copy(), tmp_path / "a.h5ad")
    found = describe(tmp_path / "a.h5ad")
    x = counts.X.toarray()[:, 10:50]
    assert found.assumed.layer == "raw"
    assert found.genes_passing == sum((gene >= 3).sum() >= 3 for gene in x.T)
    assert found.library_size_median == np.median(x.sum(axis=1))
    assert found.matrices["raw"]["shape"] == [60, 80]
    asked = describe(tmp_path / "a.h5ad", layer="raw")
    assert asked.genes_passing == found.genes_passing
    assert asked.assumed.reason == "raw was asked for; it holds counts"


@pytest.mark.parametrize(
    ("names", "organism"),
    [
        (["ENSG00000075624.3", "ENSG00000111640", "x"], "human: Ensembl ids"),
        (["ENSMUSG00000075624", "ENSMUSG00000111640"], "mouse: Ensembl ids"),
        (["ENSDARG00000075624"], "other: Ensembl ids"),
        (["ACTB", "GAPDH", "MT-CO1", "C1orf112"], "human: symbols such as 'ACTB' are in capitals"),
        (["Actb", "Gapdh", "mt-Co1"], "mouse (or rat): symbols such as 'Actb' are capitalised"),
        (["gene_1", "gene_2"], "not known by the names of the genes"),
        ([], "not known by the names of the genes"),
    ],
)
def test_organism_by_names(names, organism):
    assert organism_of(names).startswith(organism)


# --- the command --------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["info", *map(str, arguments)])


def test_info_in_words(counts, tmp_path):
    write(counts, tmp_path / "a.h5ad")
    done = run(tmp_path / "a.h5ad")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = {line[:19].strip(): line[20:] for line in done.stdout.splitlines()}
    assert lines["cells × genes"] == "60 × 80 (cells × genes)"
    assert lines["X"].startswith("csr float32, 60 × 80, ")
    assert lines["would be used"] == "X holds whole numbers"
    assert lines["impute"] == "would run"
    assert lines["genes passing"].endswith("with at least 3 reads in at least 3 cells")


def test_info_exits_with_0_when_impute_would_refuse_and_with_1_when_it_cannot_read(logged, tmp_path):
    write(logged, tmp_path / "a.h5ad")
    done = run(tmp_path / "a.h5ad")
    assert done.exit_code == 0
    assert "would refuse: values are not whole numbers and look logged already" in done.stdout
    assert json.loads(run(tmp_path / "a.h5ad", "--json").stdout)["assumed"]["is_usable"] is False
    (tmp_path / "b.h5ad").write_text("not HDF5")
    for arguments in ([tmp_path / "b.h5ad"], [tmp_path / "none.h5ad"], [tmp_path / "a.h5ad", "--layer", "x"]):
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


def test_info_tells_what_reading_warns_of(tmp_path):
    (tmp_path / "a.csv").write_text(",A,A\nc,5,6\nd,7,8\ne,9,\n")
    done = run(tmp_path / "a.csv")
    assert done.exit_code == 0
    assert "1 repeated gene names were made unique" in done.stdout
    assert "has 1 empty or NA fields" in done.stdout
    assert "would refuse: 1 of 3 × 2 values are NaN" in done.stdout


def test_info_in_a_process_of_its_own(counts, tmp_path):
    write(counts, tmp_path / "a.h5ad")
    command = [sys.executable, "-m", "scautoimpute", "info", str(tmp_path / "a.h5ad"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["genes"] == 80
    assert done.stderr == ""


# --- real files ---------------------------------------------------------------------------------------------------

# What the published description of each says it holds.
NOT_COUNTS = {"trapnell_hsmm": ("normalised", True), "melanoma_smfish": ("counts with gaps", False)}
ORGANISMS = {
    "human": (
        "blakeley",
        "jurkat_293t",
        "pbmc68k_700x765",
        "quake_darmanis",
        "trapnell_hsmm",
        "pbmc3k",
        "tung_NA19098",
    ),
    "mouse": ("kolodziejczyk", "preimplantation_deng", "usoskin", "zeisel", "jaitin_spleen", "zeisel_descend_1464"),
}


def real_files(folder, *, every):
    """Those of the paper, with a few small ones of other kinds of measurement, or all there are."""
    others = "*" if every else "[mos][ea][lsv]*"
    return sorted([*folder.glob("paper/*.h5ad"), *folder.glob(f"extra/{others}.h5ad")])


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_real_files_are_taken_for_what_they_are(every, shared_data):
    paths = real_files(shared_data, every=every)
    assert len(paths) >= (25 if every else 10)
    organisms = {name: organism for organism, names in ORGANISMS.items() for name in names}
    for path in paths:
        found = describe(path)
        kind, is_usable = NOT_COUNTS.get(path.stem, ("counts", True))
        assumed = found.assumed
        assert (path.stem, assumed.layer, assumed.kind, assumed.is_usable) == (path.stem, None, kind, is_usable)
        assert found.orientation == "cells × genes", path.stem
        assert (found.refusal is None) == is_usable, f"{path.stem}: {found.refusal}"
        assert found.organism.startswith(organisms.get(path.stem, "")), path.stem


@pytest.mark.slow
def test_real_files_read_as_they_are_described(shared_data):
    for path in real_files(shared_data, every=True):
        found = describe(path)
        adata, reference = read(path), ad.read_h5ad(path)
        assert adata.shape == (found.cells, found.genes)
        assert list(adata.layers) == [name for name in found.matrices if name not in {"X", "raw"}]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert find_counts(adata) == found.assumed or "judged by" in found.assumed.reason
        difference = adata.X - reference.X
        assert difference.nnz == 0 if sparse.issparse(difference) else not np.nan_to_num(difference).any()
        pd.testing.assert_frame_equal(adata.obs, reference.obs)


def test_bulk_tables_of_genes_by_samples_are_seen_as_such(shared_data):
    for name, kind in {"melanoma_bulk_rpm": "normalised", "bulk_5cl_GSE86337": "counts"}.items():
        found = describe(shared_data / "extra" / f"{name}.csv.gz")
        assert found.assumed.kind == kind
        assert found.orientation.startswith("genes × cells: obs names such as")
        assert "looks like genes × cells" in found.refusal
    with pytest.raises(ValueError, match="found 'ENSG00000237683' in column 'symbol'"):
        describe(shared_data / "extra" / "bulk_tung_ipsc_GSE77288.csv.gz")
