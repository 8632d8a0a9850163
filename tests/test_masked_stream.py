"""The masked objective on many cells: blocks in place of the whole, from memory or a file, with the same result."""

import itertools
import math
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, impute_file
from scautoimpute._processed_rows import processed_rows
from scautoimpute._staging import Staging
from scautoimpute.io.matrix import row_blocks
from scautoimpute.io.stream import open_cells
from scautoimpute.metrics.recovery import gene_cell_bias, gene_mean
from scautoimpute.model import masked_store, masked_training
from scautoimpute.model.base import fit_base, fit_base_by
from scautoimpute.model.base_sums import BlockSums, EntrySums, gene_cell_effects
from scautoimpute.model.inputs import Encoding
from scautoimpute.model.masked_store import FoldStore, stage_folds
from scautoimpute.model.masked_training import LARGEST_GAIN, VARIANTS, training_plan
from scautoimpute.model.settings import MANY_CELLS, Settings
from scautoimpute.model.threads import torch_threads
from scautoimpute.model.training import FoldData, output_of
from scautoimpute.pp import processed_matrix
from stored_counts import FORMATS, write_10x_h5

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out RMSE")
QUICK = {"hidden": 8, "max_epochs": 2, "random_state": 4}
STORED = FORMATS | {"10x h5": write_10x_h5}
N_CELLS, N_GENES = MANY_CELLS + 700, 40


@pytest.fixture(scope="module")
def adata():
    """Counts with an empty cell, an empty gene and a rare one; whole numbers."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.8, 3, (4, N_GENES))[np.arange(N_CELLS) % 4] * rng.uniform(0.3, 2, (N_CELLS, 1))
    x = rng.poisson(rate).astype(np.float32)
    x[7], x[:, 9], x[:, 11] = 0, 0, 0
    x[50:52, 11] = 4
    obs = pd.DataFrame(index=[f"c{i}" for i in range(N_CELLS)])
    return AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))


@pytest.fixture(scope="module")
def log2(adata):
    with pytest.warns(UserWarning, match="no reads in the genes"):
        return processed_matrix(adata, n_top_genes=30).log2


@pytest.fixture
def forms(adata):
    """Write cells in every form that is read by blocks."""

    def write(form, path, cells=adata):
        written = cells.copy()
        if form.startswith("dense"):
            written.X = written.X.toarray()
        elif form.startswith("csc"):
            written.X = sparse.csc_matrix(written.X)
        sai.write(written, path)
        return path

    return write


def blocks_of(x, size):
    return lambda: (x[rows] for rows in row_blocks(x, size))


# ------------------------------------------------------------------------------------------------------------ the sums


@pytest.mark.parametrize("size", [1, 300, 10_000])
def test_sums_by_blocks_are_those_of_all_entries(log2, size):
    x = log2[:900]
    whole, parts = EntrySums(x), BlockSums(blocks_of(x, size), x.shape[1])
    rng = np.random.default_rng(0)
    gene_G, cell_N = rng.normal(size=x.shape[1]), rng.normal(size=x.shape[0])
    dense, there = x.toarray().astype(float), x.toarray() > 0
    residual = np.where(there, dense - dense[there].mean() - gene_G - cell_N[:, None], 0)
    for sums in (whole, parts):
        assert sums.n_entries == x.nnz
        np.testing.assert_array_equal(sums.count_N, there.sum(1))
        np.testing.assert_array_equal(sums.count_G, there.sum(0))
        np.testing.assert_allclose(sums.mean, dense[there].mean())
        np.testing.assert_allclose(
            sums.by_gene(cell_N), (residual + np.where(there, gene_G, 0)).sum(0), rtol=1e-9, atol=1e-8
        )
        np.testing.assert_allclose(
            sums.by_cell(gene_G), (residual + np.where(there, cell_N[:, None], 0)).sum(1), rtol=1e-9, atol=1e-8
        )
        np.testing.assert_allclose(sums.of_squares(gene_G, cell_N), (residual**2).sum(), rtol=1e-9)
        np.testing.assert_allclose(sums.of_squares(2 * gene_G, 0 * cell_N), sums.of_squares(2 * gene_G, 0 * cell_N))


def test_base_encoding_and_floors_by_blocks(log2):
    base, blocks = fit_base(log2), blocks_of(log2, 512)
    sums = BlockSums(blocks, log2.shape[1])
    by_blocks = fit_base_by(sums)
    np.testing.assert_allclose(by_blocks.gene_G, base.gene_G, rtol=1e-9)
    np.testing.assert_allclose(by_blocks.predict(log2), base.predict(log2), rtol=1e-9)
    assert (by_blocks.noise_sd, by_blocks.k_cell) == pytest.approx((base.noise_sd, base.k_cell), rel=1e-7)
    one, other = Encoding.fit(log2, base), Encoding.fit_blocks(blocks(), base)
    for name in one.tensors:
        torch.testing.assert_close(one.tensors[name], other.tensors[name])
    assert one.log_count_mean == pytest.approx(other.log_count_mean)
    np.testing.assert_allclose(sums.gene_means, gene_mean(log2), rtol=1e-6)
    for found, expected in zip(gene_cell_effects(sums), gene_cell_bias(log2.astype(np.float64)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


# ----------------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_store_tells_what_is_seen_from_what_is_hidden(log2, on_disk, tmp_path):
    x, hidden_Z = log2[:1000], np.random.default_rng(0).random(log2[:1000].nnz) < 0.2
    store = FoldStore(x.shape, n_entries=x.nnz, folder=tmp_path if on_disk else None)
    for rows in row_blocks(x, 300):
        store.append(x[rows], hidden_Z[x.indptr[rows.start] : x.indptr[rows.stop]])
    seen = x.copy()
    seen.data = np.where(hidden_Z, 0, x.data)
    cells = np.array([3, 999, 7, 7])
    np.testing.assert_array_equal(store.dense(cells), seen[cells].toarray())
    np.testing.assert_array_equal(sparse.vstack(list(store.visible_blocks())).toarray(), seen.toarray())
    np.testing.assert_array_equal(sparse.vstack(list(store.whole_blocks())).toarray(), x.toarray())
    assert store.visible(slice(None)).nnz == (~hidden_Z).sum()


def test_hidden_entries_are_disjoint_and_of_the_share_asked_for(log2):
    settings = Settings.resolve(objective="masked", preset=None, n_folds=3, held_out_share=0.1)
    folds, digest = stage_folds(log2, settings, np.random.default_rng(0))
    hidden = []
    for fold in folds:
        seen = fold.store.visible(slice(None))
        hidden.append((log2 - seen).toarray() > 0)
        assert hidden[-1].sum() == pytest.approx(0.1 * log2.nnz, rel=0.05)
        assert len(fold.stopping.cells) == masked_store.STOPPING_CELLS
        for sample in (fold.stopping, fold.scored):
            rows = np.repeat(sample.cells, np.diff(sample.rows.indptr))
            assert hidden[-1][rows, sample.rows.indices].all()
            np.testing.assert_array_equal(np.asarray(log2[rows, sample.rows.indices]).ravel(), sample.rows.data)
        either = [set(zip(*of.rows.nonzero(), strict=True)) for of in (fold.stopping, fold.scored)]
        keys = [
            {(of.cells[row], gene) for row, gene in of_sample}
            for of, of_sample in zip((fold.stopping, fold.scored), either, strict=True)
        ]
        assert not keys[0] & keys[1]
    assert not (hidden[0] & hidden[1]).any()
    assert not (hidden[1] & hidden[2]).any()
    assert stage_folds(log2, settings, np.random.default_rng(1))[1] == digest
    assert stage_folds(log2 * np.float32(2), settings, np.random.default_rng(0))[1] != digest


# -------------------------------------------------------------------------------------------------------- the settings


def test_what_was_chosen_does_not_depend_on_the_number_of_cells():
    resolve = partial(Settings.resolve, objective="masked", preset=None, hidden=2000)
    few = {"n_folds": 3, "batch_size": None, "learning_rate": resolve(n_folds=None).learning_rate}
    default = resolve(n_folds=None, batch_size=None, learning_rate=None)
    assert default.for_cells(MANY_CELLS) == default
    many = default.for_cells(MANY_CELLS + 1)
    assert (many.n_folds, many.batch_size) == (1, 256)
    assert many.learning_rate > default.learning_rate
    assert many.for_cells(10) == default
    assert {name: getattr(many.for_cells(10), name) for name in few} == few
    chosen = resolve(n_folds=2, batch_size=50, learning_rate=1e-3)
    assert chosen.for_cells(10**6) == chosen
    paper = Settings.resolve(objective="masked", preset="paper", n_folds=None)
    assert paper.for_cells(10**6) == paper
    assert Settings.from_json(many.to_json()) == many


def test_an_epoch_of_many_steps_has_to_bring_more():
    resolved = Settings.resolve(objective="masked", preset=None, threshold=1e-4)
    for n_cells, gain in ((300, 1e-4), (MANY_CELLS, 1e-4), (76_800, 2e-3), (10**7, LARGEST_GAIN)):
        settings = resolved.for_cells(n_cells) if n_cells <= MANY_CELLS else replace(resolved, batch_size=256)
        assert training_plan(VARIANTS[0], settings, n_cells).min_gain == pytest.approx(gain)


@pytest.mark.parametrize("product", [torch.float32, torch.bfloat16])
def test_products_in_another_type_give_the_same_but_for_rounding(log2, product):
    data = FoldData(torch.tensor(log2[:200].toarray()), Encoding.fit(log2, fit_base(log2)), None)
    net, _ = VARIANTS[0].start(data, (16,), 0)
    torch.nn.init.normal_(net.decoder.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    encoded = data.encoding.encode(*data.batch(torch.arange(200)), data.batch(torch.arange(200))[1])
    y_BG = output_of(net, encoded, product)
    assert y_BG.dtype == torch.float32
    torch.testing.assert_close(y_BG, net(encoded.input_BI, encoded.side_BS), rtol=2e-2, atol=2e-2)
    y_BG.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("n_top_genes", [20, "all"])
@pytest.mark.parametrize("flavor", ["dispersion", "cv"])
@pytest.mark.parametrize("form", ["csr.h5ad", "dense.h5ad", "csr.zarr", "dense.zarr"])
def test_rows_of_a_file_are_processed_as_the_whole(adata, forms, form, flavor, n_top_genes, tmp_path):
    asked = {"n_top_genes": n_top_genes, "flavor": flavor}
    path = forms(form, tmp_path / f"cells{form[form.index('.') :]}")
    with pytest.warns(UserWarning, match="no reads in the genes"):
        whole = processed_matrix(adata, **asked)
    with open_cells(path) as cells:
        with pytest.warns(UserWarning, match="no reads in the genes"):
            rows = processed_rows(cells, **asked)
        log2 = masked_store.in_memory(rows.log2)
        assert rows.log2.nnz == whole.log2.nnz
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(log2, name), getattr(whole.log2, name))
    for name in ("genes", "kept", "kept_share", "size_factor"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(whole, name))
    assert rows.choices == whole.choices
    assert rows.recipe(adata.var_names) == whole.recipe(adata.var_names)


@pytest.mark.parametrize(
    ("stored", "n_cells"),
    [
        ("h5ad, CSR", N_CELLS),
        *((stored, 400) for stored in STORED),
        *(pytest.param(stored, N_CELLS, marks=pytest.mark.slow) for stored in ("h5ad, dense", "zarr 2, CSR", "10x h5")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no reads in the genes", "ignore:the counts in .* are stored by genes")
def test_a_streamed_run_is_the_run_in_memory(adata, stored, n_cells, tmp_path):
    path = STORED[stored](adata[:n_cells].copy(), tmp_path)
    suffix = ".zarr" if path.suffix == ".zarr" else ".h5ad"
    asked = {"n_top_genes": 30}
    in_memory = sai.read(path)
    whole = AutoImpute("masked", **QUICK)
    sai.tl.autoimpute(in_memory, model=whole, **asked)
    streamed = AutoImpute("masked", **QUICK)
    record = impute_file(path, output=tmp_path / f"out{suffix}", model=streamed, **asked)
    assert streamed.held_out_ == whole.held_out_
    pd.testing.assert_frame_equal(streamed.history_, whole.history_)
    assert streamed.settings == whole.settings
    for one, other in zip(parameters_of(streamed), parameters_of(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    result = anndata.read_h5ad(tmp_path / "out.h5ad") if suffix == ".h5ad" else anndata.read_zarr(tmp_path / "out.zarr")
    layers = [
        of.layers["imputed"].toarray() if sparse.issparse(of.layers["imputed"]) else of.layers["imputed"]
        for of in (result, in_memory)
    ]
    np.testing.assert_allclose(*layers, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.obsm["X_autoimpute"], in_memory.obsm["X_autoimpute"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.obs["autoimpute_size_factor"], in_memory.obs["autoimpute_size_factor"])
    kept = in_memory.uns["imputed"]
    assert record["recipe"] == kept["recipe"]
    assert record["held_out"] == kept["held_out"]
    assert set(result.uns["imputed"]) == set(kept)
    assert record["staged"].endswith("in memory")


def parameters_of(estimator):
    return [p for fold in estimator.model_.folds for net in fold.networks for p in net.state_dict().values()]


@pytest.mark.filterwarnings("ignore:.*no reads in the genes")
def test_where_entries_are_kept_makes_no_difference(adata, forms, tmp_path, monkeypatch):
    path = forms("csr.h5ad", tmp_path / "cells.h5ad")
    models = []
    for fits in (True, False):
        staged = tmp_path if not fits else None
        monkeypatch.setattr(Staging, "place_logs", lambda *_, staged=staged: staged)
        models.append(AutoImpute("masked", **QUICK))
        impute_file(path, output=tmp_path / "out.h5ad", model=models[-1], n_top_genes=30, overwrite=True)
    for one, other in zip(*map(parameters_of, models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_variants_are_not_compared_before_1500_steps(log2):
    model = AutoImpute("masked", **QUICK).fit(log2)
    assert model.history_.groupby("network").size().tolist() == [2, 2]


@pytest.fixture(params=[0.0, math.inf], ids=["the worse is left", "neither is"])
def compared_early(request, monkeypatch):
    """Compare variants after the first epoch of four, with two threads to share out."""
    monkeypatch.setattr(masked_training, "STEPS_TO_COMPARE", 1)
    monkeypatch.setattr(masked_training, "TOO_FAR_BEHIND", request.param)
    with torch_threads(2):
        yield not request.param


@pytest.fixture
def threads_seen(monkeypatch):
    """Note with how many threads each epoch of each variant was trained."""
    trained, seen = masked_training.train_network, {}

    def watched(training, data):
        for record in trained(training, data):
            biased = training.net.decoder.bias is not None
            seen["sigmoid" if biased else "centred", len(record.epochs)] = torch.get_num_threads()
            yield record

    monkeypatch.setattr(masked_training, "train_network", watched)
    return seen


@contextmanager
def interrupted(*, after):
    """Interrupt a training in the epoch that follows so many, of whichever network, and expect it to end by that."""
    going_on, begun = masked_training.train_network, itertools.count(1)

    def stop_early(training, data):
        for record in going_on(training, data):
            if next(begun) > after:
                raise KeyboardInterrupt
            yield record

    with pytest.MonkeyPatch.context() as stopping:
        stopping.setattr(masked_training, "train_network", stop_early)
        with pytest.raises(KeyboardInterrupt):
            yield


FOUR = QUICK | {"max_epochs": 4}


@pytest.mark.skipif(torch.cuda.is_available(), reason="networks share threads on a processor only")
def test_the_variant_that_is_behind_leaves_the_threads_to_the_other(log2, compared_early, threads_seen):
    model = AutoImpute("masked", **FOUR).fit(log2)
    epochs = model.history_.groupby("network")
    first = epochs.held_out_rmse.first()
    better, worse = first.idxmin(), first.idxmax()
    assert epochs.size().to_dict() == {better: 4, worse: 1 if compared_early else 4}
    wanted = {(name, epoch): 1 for name in first.index for epoch in range(1, 5)}
    if compared_early:
        wanted = {(worse, 1): 1, (better, 1): 1} | {(better, epoch): 2 for epoch in (2, 3, 4)}
    assert threads_seen == wanted


def test_all_folds_leave_the_same_variant(log2, compared_early):
    model = AutoImpute("masked", **FOUR, n_folds=2).fit(log2)
    first = model.history_[model.history_.epoch == 1].groupby("network").held_out_rmse.mean()
    epochs = model.history_.groupby(["network", "fold"]).size()
    assert epochs[first.idxmin()].tolist() == [4, 4]
    assert epochs[first.idxmax()].tolist() == ([1, 1] if compared_early else [4, 4])


@pytest.mark.parametrize("n_epochs_before", [1, 2, 4])
def test_a_run_that_is_gone_on_with_compares_alike(
    log2, compared_early, threads_seen, tmp_path, monkeypatch, n_epochs_before
):
    whole = AutoImpute("masked", **FOUR).fit(log2)
    threads_of_whole = dict(threads_seen)
    monkeypatch.setattr("scautoimpute.model.checkpoint.SECONDS_BETWEEN", 0.0)
    with interrupted(after=n_epochs_before):
        AutoImpute("masked", **FOUR).fit(log2, checkpoint=tmp_path / "progress")
    other = AutoImpute("masked", **FOUR).fit(log2, checkpoint=tmp_path / "progress")
    assert threads_seen == threads_of_whole
    pd.testing.assert_frame_equal(other.history_, whole.history_)
    for one, another in zip(parameters_of(other), parameters_of(whole), strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="sums of a GPU are not split by threads")
def test_other_threads_do_not_go_on(log2, tmp_path):
    with torch_threads(2):
        AutoImpute("masked", **QUICK).fit(log2, checkpoint=tmp_path / "progress")
    with torch_threads(1), pytest.raises(sai.errors.CheckpointError, match="number of threads"):
        AutoImpute("masked", **QUICK).fit(log2, checkpoint=tmp_path / "progress")


def test_many_cells_go_on_from_a_checkpoint(log2, tmp_path, monkeypatch):
    whole = AutoImpute("masked", **QUICK).fit(log2)
    monkeypatch.setattr("scautoimpute.model.checkpoint.SECONDS_BETWEEN", 0.0)
    halves = [AutoImpute("masked", **QUICK) for _ in range(2)]
    with interrupted(after=1):
        halves[0].fit(log2, checkpoint=tmp_path / "progress")
    halves[1].fit(log2, checkpoint=tmp_path / "progress")
    for one, other in zip(parameters_of(halves[1]), parameters_of(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    with pytest.raises(sai.errors.CheckpointError, match="another training"):
        AutoImpute("masked", **QUICK).fit(log2 * np.float32(2), checkpoint=tmp_path / "progress")


def test_a_model_of_many_cells_is_saved_and_loaded(log2, tmp_path):
    model = AutoImpute("masked", **QUICK).fit(log2)
    assert len(model.model_.folds) == 1
    model.save(tmp_path / "m.safetensors")
    loaded = AutoImpute.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.impute(log2[:50]), model.impute(log2[:50]))
    model.fit(log2[:60])  # few cells have the folds of few again
    assert len(model.model_.folds) == 3


def test_it_learns(log2):
    model = AutoImpute("masked", hidden=16, random_state=0, max_epochs=12).fit(log2)
    assert model.held_out_["model"]["rmse"] < 0.9 * model.held_out_["base"]["rmse"]
    assert model.held_out_["n"] == pytest.approx(0.05 * log2.nnz, rel=0.1)


@pytest.mark.filterwarnings("ignore:.*no reads in the genes")
def test_the_budget_is_refused_where_it_cannot_be_kept(adata, forms, tmp_path):
    files = {"source": forms("csr.h5ad", tmp_path / "cells.h5ad", adata[:200].copy()), "output": tmp_path / "out.h5ad"}
    for made, why in (({"preset": "paper"}, "preset='paper'"), ({"estimand": "expected"}, "estimand='expected'")):
        with pytest.raises(ValueError, match=f"max_memory='2G' cannot be kept to with .*{why}"):
            impute_file(**files, model=AutoImpute("masked", **made), max_memory="2G")
    with pytest.raises(MemoryError, match=r"more than max_memory=1\.0 MB"):
        impute_file(**files, model=AutoImpute("masked", **QUICK), max_memory="1M", n_top_genes=30)
    assert not files["output"].exists()


@pytest.mark.parametrize(("bad", "said"), [(np.nan, "NaN"), (-1, "negative")])
def test_a_bad_value_deep_in_the_file(adata, forms, bad, said, tmp_path):
    spoilt = adata.copy()
    spoilt.X.data[spoilt.X.indptr[N_CELLS - 3]] = bad
    path = forms("csr.h5ad", tmp_path / "cells.h5ad", spoilt)
    with pytest.raises(ValueError, match=f"{said}, first in row {N_CELLS - 2}"):
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("masked", **QUICK))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad"]


def test_logs_are_refused(adata, forms, tmp_path):
    logged = adata[:300].copy()
    logged.X.data = np.log1p(logged.X.data)
    path = forms("csr.h5ad", tmp_path / "cells.h5ad", logged)
    with pytest.raises(ValueError, match="look logged already"):
        impute_file(path, output=tmp_path / "out.h5ad", model=AutoImpute("masked", **QUICK))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cells(forms, adata, tmp_path):
    """Peak of processes that train on 6,000 and 60,000 cells, entries on disk; a hard bound is set on the larger."""
    peaks = []
    for times in (1, 10):
        big = AnnData(sparse.vstack([adata.X] * times, format="csr"), var=adata.var)
        path = forms("csr.h5ad", tmp_path / f"cells{times}.h5ad", big)
        code = f"""
            import resource, warnings
            warnings.simplefilter("ignore")
            import torch, scautoimpute as sai
            from scautoimpute._staging import Staging
            from pathlib import Path
            Staging.place_logs = lambda self, *_: self.folder
            model = sai.AutoImpute("masked", hidden=8, max_epochs=1)
            sai.impute_file({str(path)!r}, output={str(tmp_path / "out.h5ad")!r}, model=model, overwrite=True)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    assert peaks[1] < 1.2 * peaks[0]
