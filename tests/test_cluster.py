"""Data passes on a Dask cluster: the bytes of one process, whoever is killed meanwhile."""

import logging
import os
import pickle
import signal
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute, _cluster, impute_file
from scautoimpute._cluster import each_block
from scautoimpute._counts_facts import CountsFacts
from scautoimpute._stored_counts import StoredCounts
from scautoimpute.cli import _scheduler, app
from scautoimpute.io.stream import open_cells
from stored_counts import FORMATS, write_10x_h5

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out deviance")
N_CELLS, N_GENES = 9000, 40


@pytest.fixture(scope="module")
def adata():
    """Counts with a large one, and batches."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.6, 2, (4, N_GENES))[np.arange(N_CELLS) % 4] * rng.uniform(0.3, 2, (N_CELLS, 1))
    x = rng.poisson(rate).astype(np.float32)
    x[:, 0] += 1
    x[1050, 3] = 2**17 + 1
    obs = pd.DataFrame(
        {"lot": pd.Categorical(rng.choice(["a", "b"], N_CELLS))}, index=[f"c{i}" for i in range(N_CELLS)]
    )
    return AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))


@pytest.fixture(scope="module")
def folder(adata, tmp_path_factory):
    """A folder with the counts, and a model of each objective."""
    folder = tmp_path_factory.mktemp("cluster")
    adata.write_h5ad(folder / "cells.h5ad")
    some = adata[:200].copy()
    counts = AutoImpute("counts", hidden=6, max_epochs=3, n_networks=1, random_state=0)
    sai.tl.autoimpute(some.copy(), model=counts, batch_key="lot")
    counts.save(folder / "counts")
    masked = AutoImpute("masked", hidden=6, n_folds=1, threshold=1.0, random_state=0)
    sai.tl.autoimpute(some.copy(), model=masked, n_top_genes=24)
    masked.save(folder / "masked")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Two processes, which are started again when they are killed."""
    options = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=30)
        yield client
        assert sum(client.run(lambda: len(_cluster._ready)).values()) == 0  # nothing is left open


class Watch(distributed.diagnostics.plugin.SchedulerPlugin):
    """Which blocks were made, and by whom; kills the process that makes the `kill_at`-th."""

    def __init__(self, kill_at, pids):
        self.kill_at, self.pids, self.made, self.killed = kill_at, pids, [], None

    def transition(self, key, start, finish, *_, worker=None, **__):
        if (start, finish) != ("processing", "memory") or not str(key).startswith("scautoimpute-"):
            return
        self.made.append((key, worker))
        if len(self.made) == self.kill_at:
            self.killed = self.pids[worker]
            os.kill(self.killed, signal.SIGKILL)


@pytest.fixture
def watch(cluster, client):
    """Tell the cluster which block to kill at, if any."""
    begun = []

    def begin(kill_at=None):
        begun.append(Watch(kill_at, client.run(os.getpid)))
        cluster.scheduler.add_plugin(begun[-1], name="watch")
        return begun[-1]

    yield begin
    for _ in begun[-1:]:
        cluster.scheduler.remove_plugin("watch")


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def row_totals(counts, rows, given):
    return rows.start, given, np.asarray(counts.sum(1)).ravel()


def contents(path):
    """Everything in an h5ad file, in bytes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: as_bytes(item)} if hasattr(item, "shape") else {}))
    return found


def as_bytes(item):
    if item.shape is None:
        return None
    return str(item[()].tolist() if item.shape else item[()]) if item.dtype.hasobject else item[()].tobytes()


OPTIONS = {
    "counts": {"batch_key": "lot", "posterior_sd": True, "depth": 900.0, "scale": "expected_log1p"},
    "masked": {},
}


def impute(folder, objective, name):
    source, output = folder / "cells.h5ad", folder / name
    record = impute_file(source, output=output, model=folder / objective, overwrite=True, **OPTIONS[objective])
    return record, contents(output)


def assert_same(found, wanted):
    assert str(found[0]) == str(wanted[0])
    assert found[1].keys() == wanted[1].keys()
    assert [name for name in wanted[1] if found[1][name] != wanted[1][name]] == []


@pytest.fixture(scope="module")
def wanted(folder):
    """What one process makes."""
    return {objective: impute(folder, objective, "out.h5ad") for objective in OPTIONS}


# --------------------------------------------------------------------------------------------------------- statistics


def test_facts_are_those_of_one_process(adata, folder, watch):
    watched = watch()
    with open_cells(folder / "cells.h5ad") as cells:
        found = StoredCounts(cells, None).facts()
    wanted = CountsFacts.of([sparse.csr_array(adata.X)], N_GENES)
    for name in ("total_G", "cells_G"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.libraries(), wanted.libraries())
    assert found.verdict == wanted.verdict
    for one, other in zip(found.histogram._above_zero(), wanted.histogram._above_zero(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({key for key, _ in watched.made}) == 1 + 5  # what every block needs, and the blocks


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_what_is_wrong_deep_in_the_file_is_said_as_by_one_process(adata, client, value, tmp_path):
    changed = adata.copy()
    changed.X[8000, 5] = value
    changed.write_h5ad(tmp_path / "cells.h5ad")
    with open_cells(tmp_path / "cells.h5ad") as cells:
        with pytest.raises(ValueError, match="whole numbers" if value == 0.5 else "in rows 6145 to 8192") as caught:
            StoredCounts(cells, None).facts()
        one_line(caught)
        if value == 0.5:
            assert StoredCounts(cells, None).choose().objective == "masked"


# ----------------------------------------------------------------------------------------------------------- applying


@pytest.mark.parametrize("objective", OPTIONS)
def test_a_model_is_applied_to_the_same_bytes(wanted, folder, watch, objective):
    watched = watch()
    assert_same(impute(folder, objective, "other.h5ad"), wanted[objective])
    assert len(watched.made) == 1 + {"counts": 18, "masked": 5}[objective]
    assert len({worker for _, worker in watched.made}) == 2


def test_a_block_that_is_late_leaves_nothing_open(folder, client):
    with open_cells(folder / "cells.h5ad") as cells:
        job = _cluster._Packed("late", pickle.dumps(_cluster._Job.of(cells, None, row_totals)))
    client.run(_cluster._close, "late")
    for start, _, totals in client.run(_cluster._block, job, 5, 9, None).values():
        assert (start, totals.size) == (5, 4)


@pytest.mark.parametrize("objective", ["counts", pytest.param("masked", marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_in_mid_run_changes_nothing(wanted, folder, watch, objective):
    watched = watch(kill_at=4)
    assert_same(impute(folder, objective, "other.h5ad"), wanted[objective])
    assert watched.killed is not None
    assert len(watched.made) > 4


def test_training_reads_through_the_cluster(adata, watch, tmp_path):
    """Molecules are parted by one process, wherever they are read."""
    path, options = tmp_path / "cells.h5ad", {"hidden": 4, "max_epochs": 1, "n_networks": 1}
    adata[:3000].write_h5ad(path)
    watched = watch(kill_at=9)
    trained = AutoImpute("counts", random_state=1, **options)
    impute_file(path, output=tmp_path / "out.h5ad", model=trained, n_top_genes=30, matrix=False)
    # Statistics, mean and variance of the genes, staging, applying
    assert len({key for key, _ in watched.made}) == (1 + 2) + 2 * (1 + 2) + (1 + 6) + (1 + 6)
    assert watched.killed is not None
    memory = sai.read(path)
    wanted = AutoImpute("counts", random_state=1, **options)
    sai.tl.autoimpute(memory, model=wanted, n_top_genes=30, matrix=False)
    assert sai.read(tmp_path / "out.h5ad").obsm["X_autoimpute"].tobytes() == memory.obsm["X_autoimpute"].tobytes()


STORED = {
    "10x h5": lambda adata, folder: write_10x_h5(adata, folder, n_others=4),
    **{name: FORMATS[name] for name in ("zarr 2, CSR", "zarr 3, CSR")},
}


@pytest.mark.filterwarnings("ignore:only Gene Expression is kept; left out. 4 Antibody Capture")
@pytest.mark.parametrize("objective", OPTIONS)
@pytest.mark.parametrize("stored", STORED)
def test_every_format_is_trained_on_as_by_one_process(adata, stored, objective, watch, tmp_path, monkeypatch):
    path, output = STORED[stored](adata[:2500], tmp_path), tmp_path / "out.h5ad"
    watched, options, found = watch(), {"n_networks": 1} if objective == "counts" else {"n_folds": 1}, []
    for client in (_cluster._active_client, lambda: None):
        monkeypatch.setattr(_cluster, "_active_client", client)
        model = AutoImpute(objective, hidden=4, max_epochs=1, random_state=1, **options)
        record = impute_file(path, output=output, model=model, n_top_genes=30, overwrite=True)
        assert "staged" in record  # so it was not read as a whole
        found.append((record, contents(output)))
    assert_same(*found)
    assert len({worker for _, worker in watched.made}) == 2


def test_a_cluster_is_named_on_the_command_line(wanted, folder, cluster, watch):
    watched, output = watch(), folder / "other.h5ad"
    typed = ["impute", folder / "cells.h5ad", "-o", output, "--from-model", folder / "masked", "--overwrite"]
    done = CliRunner().invoke(app, [*map(str, typed), "--scheduler", cluster.scheduler_address])
    assert done.exit_code == 0, done.output
    assert contents(output) == wanted["masked"][1]
    assert len(watched.made) == 1 + 5


def test_a_scheduler_that_does_not_answer(folder, monkeypatch):
    monkeypatch.setattr(_scheduler, "SECONDS_TO_ANSWER", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        typed = ["impute", str(folder / "cells.h5ad"), "-o", str(folder / "none.h5ad"), "--scheduler", address]
        done = CliRunner().invoke(app, typed)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: --scheduler {address}: no Dask scheduler answers there (")
        assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------- blocks and workers


def test_blocks_come_in_order_and_few_at_a_time(folder, client, watch):
    watched = watch()
    with open_cells(folder / "cells.h5ad") as cells:
        blocks = each_block(cells, None, 400, row_totals, given=lambda rows: rows.stop)
        first, (start, stop, totals) = next(blocks)
        time.sleep(0.5)
        assert len(watched.made) <= 1 + 2 * (1 + _cluster.MADE_AHEAD)
        assert (first, start, stop, len(totals)) == (slice(0, 400), 0, 400, 400)
        assert [rows.start for rows, _ in blocks] == list(range(400, N_CELLS, 400))


def test_a_file_that_workers_do_not_see(adata, client, tmp_path):
    for remedy in (os.unlink, adata[:100].write_h5ad):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        with open_cells(tmp_path / "cells.h5ad") as cells:
            (tmp_path / "cells.h5ad").rename(tmp_path / "kept.h5ad")
            (tmp_path / "cells.h5ad").touch()
            remedy(tmp_path / "cells.h5ad")
            with pytest.raises(ValueError, match=r"worker tcp:.* finds (nothing|another file .*) at .*cells.h5ad: put"):
                list(each_block(cells, None, 2048, row_totals))


def test_workers_have_this_version(folder, client):
    with open_cells(folder / "cells.h5ad") as cells:
        job = _cluster._Job.of(cells, None, row_totals)
    with pytest.raises(ValueError, match=r"worker tcp:.* has scautoimpute .*, this process 0.0: install") as caught:
        client.submit(_cluster._Ready, job._replace(version="0.0")).result()
    one_line(caught)


def test_counts_by_genes_are_read_here(adata, client, watch, tmp_path):
    AnnData(adata.X.tocsc(), obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "cells.h5ad")
    watched = watch()
    with open_cells(tmp_path / "cells.h5ad") as cells, pytest.warns(UserWarning, match="stored by genes"):
        totals = np.concatenate([made[2] for _, made in each_block(cells, None, 2048, row_totals)])
    np.testing.assert_array_equal(totals, adata.X.sum(1).A1)
    assert watched.made == []


def test_without_any_worker_there_is_an_end(folder, monkeypatch):
    monkeypatch.setattr(_cluster, "SECONDS_WITHOUT_WORKERS", 1.5)
    options = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **options) as cluster,
        distributed.Client(cluster) as client,
        open_cells(folder / "cells.h5ad") as cells,
    ):
        blocks = each_block(cells, None, 100, row_totals)
        next(blocks)
        cluster.scale(0)
        while client.nthreads():
            time.sleep(0.05)
        for left in (blocks, each_block(cells, None, 100, row_totals)):
            with pytest.raises(RuntimeError, match=r"no workers for . seconds, with cells .* still to be") as caught:
                list(left)
            one_line(caught)


def took_too_long(counts, rows, given):
    raise TimeoutError(f"the disk\nof {rows.start}")


def test_what_fails_in_a_worker_is_one_line(folder, client):
    with open_cells(folder / "cells.h5ad") as cells:
        with pytest.raises(RuntimeError, match=r"has not made cells 1 to 4000 \(the disk of 0\): see to") as caught:
            list(each_block(cells, None, 4000, took_too_long))
        one_line(caught)
