"""Training on a file that stays on disk: the bytes of memory, and what cannot be done is said in a line."""

import os
import resource
import subprocess
import sys
import textwrap
import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse, stats
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute, impute_file
from scautoimpute._counts import normalised_by
from scautoimpute._counts_facts import CountsFacts
from scautoimpute._genes import mean_variance
from scautoimpute._histogram import CountHistogram
from scautoimpute._staging import Staging, bytes_of
from scautoimpute._umi import umi_like
from scautoimpute.cli import app, main
from scautoimpute.io.matrix import named_layers, row_blocks
from scautoimpute.model import counts_staging
from scautoimpute.model.counts_fit import fit_counts
from scautoimpute.model.counts_inputs import CountsEncoding, batch_frequencies
from scautoimpute.model.counts_staging import SampledCells, stage
from scautoimpute.model.counts_store import CountsStore
from scautoimpute.model.settings import Settings
from scautoimpute.model.state import model_state
from stored_counts import FORMATS, with_x, write_h5ad

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out deviance")
QUICK = {"hidden": 6, "max_epochs": 3, "random_state": 4}
N_CELLS, N_GENES = 1100, 50  # two blocks and a rest


@pytest.fixture(scope="module")
def adata():
    """Counts with an empty cell, an empty gene, a deep cell, and batches."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.6, 2, (4, N_GENES))[np.arange(N_CELLS) % 4] * rng.uniform(0.3, 2, (N_CELLS, 1))
    x = rng.poisson(rate).astype(np.float32)
    x[7], x[:, 9], x[1050, 3] = 0, 0, 900
    obs = pd.DataFrame({"lot": pd.Categorical(rng.choice(["a", "b", "c"], N_CELLS))})
    obs.index, genes = [f"c{i}" for i in range(N_CELLS)], [f"g{i}" for i in range(N_GENES)]
    return AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def counts(adata):
    return sparse.csr_array(adata.X)


def stored(x, folder=None):
    store = CountsStore(x.shape, largest=x.max(), n_entries=x.nnz, folder=folder)
    for rows in row_blocks(x, 37):
        store.append(x[rows])
    return store


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


# ----------------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("n_genes", "largest", "size"), [(30, 5, 4), (30, 70_000, 6), (70_000, 5, 6), (70_000, 2e7, 8)]
)
def test_a_store_gives_the_rows_of_scipy(on_disk, n_genes, largest, size, tmp_path):
    rng = np.random.default_rng(0)
    x = sparse.random_array((90, n_genes), density=400 / (90 * n_genes), format="csr", rng=rng, dtype=np.float32)
    x.data = rng.integers(1, 6, x.nnz).astype(np.float32)
    x.data[-1], x.indices[-1] = largest, n_genes - 1
    store = stored(x, tmp_path if on_disk else None)
    assert (store.shape, store.nnz, store.max()) == (x.shape, x.nnz, largest)
    assert store._type.itemsize == size
    for rows in (
        slice(None),
        slice(5, 40),
        slice(80, 200),
        slice(3, 3),
        rng.permutation(90),
        np.array([4, 4, 89]),
        [],
        [2],
    ):
        found, wanted = store[rows], x[rows]
        assert found.shape == wanted.shape
        assert (found.data.dtype, found.indices.dtype) == (np.float32, np.int32)
        for name in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert list(tmp_path.iterdir()) == []  # a file that has no name is left behind by nobody


def test_counts_that_change_while_they_are_read_are_refused(counts):
    for options in ({"largest": 899, "n_entries": counts.nnz}, {"largest": 900, "n_entries": counts.nnz - 1}):
        with pytest.raises(ValueError, match="have changed while they were read") as caught:
            CountsStore(counts.shape, **options).append(counts)
        one_line(caught)


def test_a_store_that_was_cut_short_says_so(counts, tmp_path):
    store = stored(counts, tmp_path)
    os.ftruncate(store._file.fileno(), 100)
    with pytest.raises(OSError, match="has been cut short") as caught:
        store[500:]
    one_line(caught)


def test_a_full_disk_while_staging(counts, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"cannot keep the counts to train on in .*too large.*; make room there"
        ) as caught:
            stage(counts, 0.05, np.random.default_rng(0), folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_line(caught)


def test_a_folder_that_cannot_be_written_to(counts, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(OSError, match=f"cannot keep the counts to train on in {folder}: .*; make room") as caught:
            stage(counts, 0.05, np.random.default_rng(0), folder=folder)
        one_line(caught)


# --------------------------------------------------------------------------------------------------------- the staging


def test_every_cell_is_as_likely_to_be_sampled_as_any_other():
    rng, n_times = np.random.default_rng(0), np.zeros(60)
    x = sparse.csr_array(np.arange(60)[:, None] + 1.0)
    for _ in range(300):
        sample = SampledCells(10)
        for rows in row_blocks(x, 7):
            cells = np.arange(rows.start, rows.stop)
            sample.offer(cells, x[rows], cells % 3 > 0, rng)
        np.testing.assert_array_equal(sample.rows.toarray().ravel(), sample.cells + 1)
        assert (np.diff(sample.cells) > 0).all()
        n_times[sample.cells] += 1
    allowed = n_times[np.arange(60) % 3 > 0]
    assert n_times.sum() == allowed.sum() == 3000
    assert stats.chisquare(allowed).pvalue > 1e-3


def test_molecules_are_parted_and_held_out_of_some_cells(counts, monkeypatch):
    staged = stage(counts, 0.2, np.random.default_rng(0))
    whole = staged.visible[:].toarray()
    for sample in (staged.stopping, staged.weighing):
        whole[sample.cells] += sample.rows.toarray()
        assert (sample.rows.sum(axis=1) > 0).all()
        assert (staged.visible[sample.cells].sum(axis=1) > 0).all()
    left_out = counts.toarray() - whole  # of cells without visible molecules
    assert (left_out >= 0).all()
    assert left_out.sum() < 0.001 * counts.sum()
    monkeypatch.setattr(counts_staging, "MAX_HELD_OUT_CELLS", 100)
    fewer = stage(counts, 0.2, np.random.default_rng(0))
    np.testing.assert_array_equal(fewer.visible[:].toarray(), staged.visible[:].toarray())
    for name in ("stopping", "weighing"):
        some, every = getattr(fewer, name), getattr(staged, name)
        assert len(some.cells) == 100
        np.testing.assert_array_equal(
            some.rows.toarray(), every.rows[np.searchsorted(every.cells, some.cells)].toarray()
        )


@pytest.mark.parametrize("n_batches", [1, 3])
def test_a_model_from_disk_is_that_from_memory_to_the_last_bit(counts, n_batches, tmp_path):
    batch_N, results = np.arange(N_CELLS) % n_batches, []
    settings = Settings.resolve(objective="counts", preset=None, hidden=6, max_epochs=3)
    for folder in (None, tmp_path):
        rng, device = np.random.default_rng(1), torch.device("cpu")
        results.append(fit_counts(counts, batch_N, settings, rng, device, on_epoch=lambda *_: None, staging=folder))
    (one, scores, record), (other, other_scores, other_record) = results
    (tensors, values), (other_tensors, other_values) = model_state(one), model_state(other)
    assert (scores, str(record), values) == (other_scores, str(other_record), other_values)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name


def test_what_inputs_are_scaled_by_does_not_depend_on_blocks(counts):
    batch_N, x = np.arange(N_CELLS) % 3, counts.toarray().astype(np.float64)
    encoding, library = CountsEncoding.fit(counts, batch_N), x.sum(1)
    median = np.median(library[library > 0])
    log = np.log1p(x / np.maximum(library, 1)[:, None] * median)
    assert encoding.median_library == median
    sd = np.maximum(log.std(0), 0.15)
    np.testing.assert_allclose(encoding.unit_G.numpy(), 3 / np.sqrt(N_GENES) / sd, rtol=1e-5)
    np.testing.assert_allclose(encoding.centre_I.numpy()[:N_GENES], log.mean(0) * 3 / np.sqrt(N_GENES) / sd, rtol=1e-5)
    total = np.stack([x[batch_N == k].sum(0) for k in range(3)])
    expected = total.sum(1, keepdims=True) * (total.sum(0) + 0.05) / (total.sum() + 0.05 * N_GENES)
    k = 1 / (((total - expected) ** 2 - expected).sum() / (expected**2).sum())
    frequency = (total.sum(0) + 0.05) * (total + k) / (expected + k)
    np.testing.assert_allclose(batch_frequencies(counts, batch_N), frequency / frequency.sum(1, keepdims=True))


# ----------------------------------------------------------------------------------------------------------- the facts


@pytest.mark.parametrize("largest", [3, 200, 2**17])
def test_quantiles_of_a_histogram_are_numpys(largest):
    rng = np.random.default_rng(largest)
    values = np.concatenate([rng.geometric(0.3, 500), rng.integers(1, largest + 1, 301)]).astype(np.float64)
    histogram = CountHistogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    assert histogram.largest == values.max()
    for share in (0.0, 0.1, 0.5, 0.9, 0.937, 1.0):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), rel=1e-14)


def test_facts_in_blocks_are_those_of_the_whole(counts):
    facts = CountsFacts.of((counts[rows] for rows in row_blocks(counts, 100)), N_GENES)
    np.testing.assert_array_equal(facts.total_G, counts.sum(0))
    np.testing.assert_array_equal(facts.libraries(), counts.sum(1))
    np.testing.assert_array_equal(facts.cells_G, (counts.toarray() > 0).sum(0))
    assert facts.verdict == umi_like(counts)
    assert 9 not in facts.seen


def test_moments_of_genes_do_not_depend_on_blocks(counts):
    x = normalised_by(counts, 50.0)[0]
    whole = mean_variance(lambda: [x], *x.shape)
    parts = mean_variance(lambda: (x[rows] for rows in row_blocks(x, 97)), *x.shape)
    for one, other, wanted in zip(whole, parts, (x.toarray().mean(0), x.toarray().var(0, ddof=1)), strict=True):
        assert one.tobytes() == other.tobytes()
        np.testing.assert_allclose(one, wanted, rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------------------------------------- files and memory


SELECTIONS = {
    "all": {},
    "batches": {"batch_key": "lot", "posterior_sd": True},
    "most variable": {"n_top_genes": 20, "flavor": "cv"},
    "named": {"genes": ["g3", "g40", "g11", "g9"], "as_batch": "b", "batch_key": "lot"},
}


def assert_same_result(found, record, wanted):
    for key in [key for key in named_layers(wanted) if key.startswith("imputed")]:
        one, other = (x.toarray() if sparse.issparse(x) else x for x in (found.layers[key], wanted.layers[key]))
        assert type(found.layers[key]) is type(wanted.layers[key])
        assert one.tobytes() == other.tobytes()
    assert found.obsm["X_autoimpute"].tobytes() == wanted.obsm["X_autoimpute"].tobytes()
    pd.testing.assert_frame_equal(found.obs, wanted.obs, check_exact=True)
    pd.testing.assert_frame_equal(found.var, wanted.var, check_exact=True)
    assert record.keys() - {"staged"} == wanted.uns["imputed"].keys()
    for name, value in wanted.uns["imputed"].items():
        assert str(record[name]) == str(value), name


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads", "ignore:the counts in .* are stored by genes")
@pytest.mark.parametrize(
    ("source", "selection"),
    [*((source, "batches") for source in FORMATS), *(("h5ad, CSR", name) for name in SELECTIONS if name != "batches")],
)
def test_a_file_gives_what_memory_gives_to_the_last_bit(adata, source, selection, tmp_path):
    path, options = FORMATS[source](adata, tmp_path), SELECTIONS[selection]
    models = [AutoImpute("counts", **QUICK) for _ in range(2)]
    record = impute_file(path, output=tmp_path / f"out{path.suffix}", model=models[0], **options)
    wanted = sai.read(path)
    sai.tl.autoimpute(wanted, model=models[1], **options)
    assert_same_result(sai.read(tmp_path / f"out{path.suffix}"), record, wanted)
    for number, model in enumerate(models):
        model.save(tmp_path / f"model{number}")
    assert (tmp_path / "model0").read_bytes() == (tmp_path / "model1").read_bytes()


@pytest.mark.filterwarnings("ignore:1 of ", "ignore:.* repeated cell names", "ignore:Observation names are not")
def test_a_new_model_for_what_the_data_are(adata, tmp_path):
    small = AnnData(adata.X[:60], obs=adata.obs[:60], var=adata.var)
    reads = with_x(small, small.X * 500 + (small.X > 0).astype(np.float32) * 9)
    twice = AnnData(reads.X, obs=reads.obs.set_axis(["c"] * 60), var=reads.var)
    for number, (data, objective) in enumerate([(small, "counts"), (reads, "masked"), (twice, "masked")]):
        path = tmp_path / f"{number}.h5ad"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that repeat
            data.write_h5ad(path)
        record = impute_file(path, output=tmp_path / "out.h5ad", random_state=3, overwrite=True)
        assert record["objective"] == objective
        assert not record["trained_before"]
        wanted = sai.read(path)
        sai.tl.autoimpute(wanted, random_state=3)
        assert_same_result(sai.read(tmp_path / "out.h5ad"), record, wanted)


# ------------------------------------------------------------------------------------------------------ what is refused


def changed(adata, change):
    x = adata.X.toarray()
    x = change(x) if callable(change) else change
    return AnnData(sparse.csr_matrix(x), obs=adata.obs[: len(x)], var=adata.var)


def with_nan(x):
    x[1090, 4] = np.nan
    return x


BAD = {
    "NaN in the last block": (with_nan, {}, "are NaN, first in row 1091, column 5; counts are finite"),
    "negative": (lambda x: x - 2, {}, "are negative, first in row "),
    "fractions": (lambda x: x + 0.5, {}, r"values are not whole numbers \(e.g. 0.5\), so they are normalised"),
    "reads": (lambda x: x * 5000, {}, "so these are reads, which objective='counts' cannot take"),
    "nothing": (lambda x: x * 0, {}, "all of 1100 × 50 values are zero"),
    "two cells": (lambda x: x[:2], {}, "found 2 cells; structure is what differs between cells"),
    "few molecules": (lambda x: np.eye(N_CELLS, N_GENES), {}, "50 molecules in 1100 cells × 50 genes"),
    "unknown genes": (lambda x: x, {"genes": ["gX"]}, "1 of 1 names in genes= are not in the data"),
    "genes twice": (lambda x: x, {"genes": ["g1"], "n_top_genes": 3}, "both genes= and n_top_genes=3 were given"),
    "no such column": (lambda x: x, {"batch_key": "run"}, r"no column 'run' in obs \(batch_key\)"),
    "no such batch": (lambda x: x, {"batch_key": "lot", "as_batch": "z"}, "the model knows no batch 'z'"),
    "masked only": (lambda x: x, {"keep_observed": True}, "keep_observed=True has no meaning"),
}


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads", "ignore:2 cells are few")
@pytest.mark.parametrize("case", BAD)
def test_what_memory_refuses_is_refused_of_a_file_and_leaves_nothing(adata, case, tmp_path):
    change, options, said = BAD[case]
    bad = changed(adata, change)
    path = write_h5ad(bad, tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("counts", **QUICK), **options)
    with pytest.raises(ValueError, match=said):
        sai.tl.autoimpute(bad, model=AutoImpute("counts", **QUICK), **options)
    one_line(caught)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def test_genes_by_cells_are_refused(tmp_path):
    adata = sai.datasets.pbmc68k_reduced().T.copy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(ValueError, match="looks like genes × cells"):
        impute_file(tmp_path / "in.h5ad", output=tmp_path / "out.h5ad")


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads")
@pytest.mark.parametrize("accident", ["truncated", "counts removed", "written to"])
def test_a_file_that_is_damaged_while_it_is_trained_on(adata, accident, tmp_path, monkeypatch):
    path = write_h5ad(adata, tmp_path)

    def damage(self, x, *rest, fit=AutoImpute._fit, **more):
        fit(self, x, *rest, **more)
        if accident == "truncated":
            os.truncate(path, path.stat().st_size // 3)
        else:
            touch(path)

    monkeypatch.setattr(AutoImpute, "_fit", damage)
    if accident == "counts removed":
        monkeypatch.undo()
        adata.write_h5ad(path)
        with h5py.File(path, "r+") as file:
            del file["X"]["data"]
            file["X"]["data"] = np.zeros(3, dtype=np.float32)
    with pytest.raises((ValueError, OSError), match=r"in\.h5ad") as caught:
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("counts", **QUICK))
    one_line(caught)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads")
def test_no_model_is_kept_of_a_file_that_was_written_to(adata, tmp_path, monkeypatch, capsys):
    path = write_h5ad(adata, tmp_path)
    monkeypatch.setattr(
        AutoImpute, "_fit", lambda *args, fit=AutoImpute._fit, **more: (fit(*args, **more), touch(path))
    )
    words = ["scautoimpute", "impute", str(path), "-o", str(tmp_path / "out.h5ad"), "--model", str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", [*words, "--objective", "counts", "--max-epochs", "2", "--n-networks", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"error: {path} was changed while it was read: put back what it was" in capsys.readouterr().err
    assert {found.name for found in tmp_path.iterdir()} <= {"in.h5ad", ".out.h5ad.progress"}


def touch(path):
    os.utime(path)  # its content is what it was, which nobody could know


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("given", "n_bytes"), [("2G", 2e9), ("1.5 GiB", 1.5e9), ("300m", 3e8), (77, 77), ("5kB", 5000)]
)
def test_sizes(given, n_bytes):
    assert bytes_of(given) == n_bytes


@pytest.mark.parametrize("given", ["", "G", "-3M", "2 X", "0", 0, "inf"])
def test_what_is_no_size_is_refused(given):
    with pytest.raises(
        ValueError, match=r"is no amount of memory: give bytes above 0, or a text such as '500M'"
    ) as caught:
        bytes_of(given)
    one_line(caught)


def test_a_budget_that_no_network_fits_in_is_refused(adata, tmp_path):
    path = write_h5ad(adata, tmp_path)
    with (
        pytest.warns(UserWarning, match="no reads"),
        pytest.raises(MemoryError, match=r"needs .* more than max_memory=1"),
    ):
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("counts", **QUICK), max_memory="1M")
    said = Staging(tmp_path)
    assert said.place(sparse.csr_array(adata.X), AutoImpute("counts").settings, 1) is None
    assert said.in_words.endswith(" MB in memory")


def test_more_than_100_mb_are_kept_on_disk_if_there_is_room_and_no_more_memory_is_allowed(tmp_path, monkeypatch):
    few, many = (SimpleNamespace(shape=(20_000, 1000), nnz=nnz, max=lambda: 9) for nnz in (24_000_000, 26_000_000))
    settings, logs = AutoImpute("counts").settings, AutoImpute("masked", n_folds=1).settings
    monkeypatch.setattr("scautoimpute.methods._memory.available_bytes", lambda: 1e11)
    assert Staging(tmp_path).place(few, settings, 1) is None
    assert Staging(tmp_path).place(many, settings, 1) == Staging(tmp_path).place_logs(many, logs) == tmp_path
    assert Staging(tmp_path, max_memory=10**12).place(many, settings, 1) is None
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100 * 10**6))
    assert Staging(tmp_path).place(many, settings, 1) is None


def test_a_result_does_not_depend_on_where_counts_were_kept(adata, tmp_path, monkeypatch):
    path, layers, kept = write_h5ad(adata, tmp_path), [], []
    for name, small in (("memory.h5ad", 10**8), ("disk.h5ad", 1)):
        monkeypatch.setattr("scautoimpute._staging._SMALL", small)
        with warnings.catch_warnings(action="ignore"):
            record = impute_file(path, output=tmp_path / name, model=AutoImpute("counts", **QUICK))
        kept.append(record["staged"])
        with h5py.File(tmp_path / name) as file:
            layers.append(file["layers/imputed"][:])
    assert kept[0].endswith("in memory")
    assert kept[1].endswith(f"on disk, in {tmp_path}")
    np.testing.assert_array_equal(*layers)


def test_a_budget_that_cannot_be_kept_is_refused(adata, tmp_path):
    path = write_h5ad(adata, tmp_path)
    adata.to_df().to_csv(tmp_path / "in.csv")
    (tmp_path / "by_genes").mkdir()
    by_genes = write_h5ad(AnnData(sparse.csc_matrix(adata.X), adata.obs, adata.var), tmp_path / "by_genes")
    counts = AutoImpute("counts")
    for source, model in ((path, AutoImpute(preset="paper")), (tmp_path / "in.csv", counts), (by_genes, counts)):
        with pytest.raises(ValueError, match=r"max_memory='3G' cannot be kept to (with|from or to)") as caught:
            impute_file(source, output=tmp_path / "out.h5ad", model=model, max_memory="3G")
        one_line(caught)


UNDER_A_LIMIT = """
    import re, resource, sys, warnings
    from pathlib import Path
    import scautoimpute as sai
    import scautoimpute.model.fit, scautoimpute.io.write, torch._dynamo
    from scautoimpute import _staging

    resident, most = _staging._resident_bytes, [0.0]

    def most_resident():  # what the system takes back of it meanwhile comes again
        most.append(max(most[-1], resident()))
        return most[-1]

    _staging._resident_bytes = most_resident
    folder, way, objective = Path(sys.argv[1]), *sys.argv[2:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options = {"hidden": 4, "max_epochs": 1, "batch_size": 512}
    small = folder / f"small_{way}_{objective}.h5ad"
    sai.impute_file(folder / "small.h5ad", output=small, model=sai.AutoImpute(objective, **options))
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    more = {"counts": 260_000_000, "masked": 1_000_000_000}[objective]  # two networks at once, in bfloat16
    allowed = int(status["VmData"].split()[0]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    model = sai.AutoImpute(objective, **options)
    try:
        if way == "whole":
            sai.tl.autoimpute(sai.read(folder / "large.h5ad"), model=model)
        else:
            wanted = {"output": folder / "out.h5ad", "model": model}
            budget, n_refused = 1, 0
            while True:  # a second refusal counts what the first has left in this process
                try:
                    record = sai.impute_file(folder / "large.h5ad", max_memory=budget, **wanted)
                    break
                except MemoryError as error:
                    missing = re.search(r"needs ([\\d.]+) MB more", str(error))
                    n_refused += 1
                    if missing is None or n_refused == 5:
                        raise
                    budget += int(float(missing[1]) * 1e6 + 15e6)  # besides, less than what is staged
            # Not ru_maxrss, which is at least what the process that started this one held
            status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
            peak = int(status["VmHWM"].split()[0]) * 1024
            assert peak <= budget, (peak, budget)
            assert record["staged"].endswith(f"on disk, in {folder}"), record["staged"]
            print(record["n_zeros_filled"])
    except (MemoryError, RuntimeError) as error:  # the latter is torch's
        print("too little:", error)
    """


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's data is Linux's")
@pytest.mark.skipif(torch.version.cuda is not None, reason="CUDA's libraries take more memory than the limit")
def test_what_would_not_fit_in_memory_is_trained_on_and_written(tmp_path):
    rng = np.random.default_rng(0)
    blocks = (2 * (rng.integers(0, 5, (500, 3000), dtype=np.int8).clip(2) - 2) for _ in range(20))
    x = sparse.vstack([sparse.csr_array(block.astype(np.float32)) for block in blocks], format="csr")
    AnnData(sparse.csr_matrix(x)).write_h5ad(tmp_path / "large.h5ad")
    AnnData(sparse.csr_matrix(x[:100])).write_h5ad(tmp_path / "small.h5ad")
    assert under_a_limit(tmp_path, "whole", "counts").startswith("too little:")
    assert int(under_a_limit(tmp_path, "blocks", "counts")) == 10_000 * 3000 - x.nnz
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["layers/imputed"].shape == (10_000, 3000)
        assert file["layers/imputed"][-1].min() > 0
    (tmp_path / "out.h5ad").unlink()
    assert int(under_a_limit(tmp_path, "blocks", "masked")) > 0


def under_a_limit(folder, *how):
    arguments = [sys.executable, "-c", textwrap.dedent(UNDER_A_LIMIT), str(folder), *how]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---------------------------------------------------------------------------------------------------- the command line


def invoke(folder, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(
            app, ["impute", "in.h5ad", "-o", "out.h5ad", "--hidden", "6", "--max-epochs", "3", *more]
        )


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads")
def test_the_command_line_says_where_it_trained(adata, tmp_path):
    write_h5ad(adata, tmp_path)
    done = invoke(tmp_path, "--max-memory", "100G", "--model", "model")
    assert done.exit_code == 0, done.stderr
    assert "trained on          0.1 MB in memory\n" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "model", "out.h5ad"]
    wanted = sai.read(tmp_path / "in.h5ad")
    with pytest.warns(UserWarning, match="no reads"):
        sai.tl.autoimpute(wanted, model=AutoImpute("counts", hidden=6, max_epochs=3))
    found = sai.read(tmp_path / "out.h5ad")
    assert found.layers["imputed"].tobytes() == wanted.layers["imputed"].tobytes()
    assert found.uns["imputed"]["objective_reason"].startswith("counts of molecules: nine in ten")


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-memory", "much"], "error: --max-memory 'much' is no amount of memory: give bytes above 0"),
        (
            ["--max-memory", "2G", "--preset", "paper"],
            "error: --max-memory '2G' cannot be kept to with --preset",
        ),
        (["--max-memory", "2G", "--method", "knn"], "error: --hidden, --max-epochs, --max-memory has no effect with"),
        (["--max-memory", "1M"], "error: a network of 49 genes needs "),
    ],
)
def test_a_budget_is_refused_in_a_line(adata, tmp_path, more, said):
    write_h5ad(adata, tmp_path)
    done = invoke(tmp_path, *more)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(said)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.filterwarnings("ignore:1 of 1100 cells have no reads")
def test_what_a_model_beside_it_leaves_no_choice_of_is_refused(adata, tmp_path):
    write_h5ad(adata, tmp_path)
    files = {"source": tmp_path / "in.h5ad", "output": tmp_path / "out.h5ad"}
    model = AutoImpute("masked", **QUICK)
    with pytest.raises(ValueError, match="both model= and objective='counts' were given"):
        impute_file(**files, model=model, objective="counts")
    files["output"].symlink_to(tmp_path / "0f3a.blob")  # whose suffix does not matter
    impute_file(**files, model=model, objective="masked")
    assert h5py.is_hdf5(tmp_path / "0f3a.blob")
    with pytest.raises(ValueError, match=r"checkpoint=.* has no effect with a trained model"):
        impute_file(**files, model=model, checkpoint=tmp_path / "progress", overwrite=True)
