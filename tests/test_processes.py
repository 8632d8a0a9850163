"""Several processes equal one: two real ones, over gloo, most of them children of a server that has torch loaded."""

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from real_process import SERVER
from scautoimpute import AutoImpute
from scautoimpute._counts_facts import CountsFacts
from scautoimpute._stored_counts import StoredCounts
from scautoimpute.cli import main
from scautoimpute.datasets import simulate
from scautoimpute.errors import LostProcessError
from scautoimpute.io.stream import open_cells
from scautoimpute.model import checkpoint as checkpoint_module
from scautoimpute.model.checkpoint import Checkpoint
from scautoimpute.model.counts_fit import fit_counts
from scautoimpute.model.counts_staging import stage_together
from scautoimpute.model.processes import ALONE, Processes, current, joined
from scautoimpute.model.settings import Settings
from scautoimpute.model.state import model_state

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out deviance")
CPU = torch.device("cpu")
CLOSE = {"rtol": 0, "atol": 1e-3}  # sums in another order, after some steps
N_CELLS = 161  # batches of 32, and a last one of a single cell


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, 3, (4, 40))[np.arange(N_CELLS) % 4] * rng.uniform(0.3, 2, (N_CELLS, 1))
    x = rng.poisson(rate).astype(np.float32)
    x[5] = 0
    return sparse.csr_array(x)


def begun(size, target, *args):
    """Start `size` processes as torchrun does, which keeps what they can all write to; each calls `target`."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [SERVER.Process(target=member, args=(rank, size, store.port, target, *args)) for rank in range(size)]
    for process in processes:
        process.start()
        process.store = store  # for as long as they are
    return processes


def member(rank, size, port, target, *args):
    known = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    known |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ |= {name: str(value) for name, value in known.items()}
    torch.set_num_threads(1)
    target(rank, *args)


def together(size, folder, function, *args, machines=None):
    """Return what `function` gives in each of `size` processes that have joined, on `machines` if they are several."""
    target = answer if machines is None else partial(on_machines, machines=machines)
    processes = begun(size, target, folder, function, *args)
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * size
    return [pickle.loads((folder / f"answer{rank}").read_bytes()) for rank in range(size)]


def on_machines(rank, *args, machines):
    """Answer as a process on one of several machines."""
    socket.gethostname = lambda: machines[rank]
    answer(rank, *args)


def answer(rank, folder, function, *args):
    with joined() as here:
        given = function(here, *args)
        (folder / f"answer{rank}").write_bytes(pickle.dumps(given))


# ------------------------------------------------------------------------------------------------- what they tell


@given(n=st.integers(0, 1000), size=st.integers(1, 17))
def test_every_item_is_somebodys_and_nobody_has_much_more(n, size):
    members = [Processes(rank, size) for rank in range(size)]
    parts = [np.arange(n)[one.part(n)] for one in members]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(item for one in members for item in one.every(range(n))) == list(range(n))


def test_a_process_alone_does_nothing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with joined() as here:
        assert here is ALONE is current()
    values, loss = np.arange(3.0), torch.tensor(2.0)
    assert here.sum(values) is values is here.from_first(values) is here.share(values)
    assert here.all(values) == [values]
    assert float(here.mean(loss, [], 7.0)) == 2
    assert here.own_device(torch.device("cuda")) == torch.device("cuda")


def facts_of(here, path):
    with open_cells(path, stacklevel=1) as cells:
        counts = StoredCounts(cells, None)
        chosen = counts.choose()
        return chosen.objective, None if counts._facts is None else counts.facts()


@pytest.mark.parametrize("n_cells", [2, 1500])
def test_each_process_reads_its_own_cells_and_knows_of_all(n_cells, tmp_path):
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.poisson(0.8, (n_cells, 7)) * rng.integers(1, 90_000, 7)).astype(np.float32)
    anndata.AnnData(x).write_h5ad(tmp_path / "cells.h5ad")
    wanted = CountsFacts.of([sparse.csr_array(x)], 7)
    for _, facts in together(3, tmp_path, facts_of, tmp_path / "cells.h5ad"):
        np.testing.assert_array_equal(facts.total_G, wanted.total_G)
        np.testing.assert_array_equal(facts.cells_G, wanted.cells_G)
        np.testing.assert_array_equal(facts.libraries(), wanted.libraries())
        for share in (0, 0.3, 0.99, 1):
            assert facts.histogram.quantile(share) == wanted.histogram.quantile(share)


def test_a_fraction_that_one_process_finds_is_known_to_all(tmp_path):
    x = np.ones((90, 4), np.float32)
    x[80, 2] = 0.5
    anndata.AnnData(x).write_h5ad(tmp_path / "cells.h5ad")
    assert together(2, tmp_path, facts_of, tmp_path / "cells.h5ad") == [("masked", None)] * 2


def told(here):
    rng = np.random.default_rng(here.rank)
    layer = torch.nn.Linear(3, 2)
    gradients = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2,))]
    layer.weight.grad = torch.from_numpy(np.asfortranarray(gradients[0]))
    layer.bias.grad = torch.from_numpy(gradients[1].copy())
    loss = here.mean(torch.tensor(1.0 + here.rank), layer.parameters(), weight=3.0 + 4 * here.rank)
    means = layer.weight.grad.numpy(), layer.bias.grad.numpy(), float(loss)
    return (
        gradients,
        means,
        here.sum(np.array([1e-17, here.rank])),
        here.from_first(f"of {here.rank}"),
        here.all(here.rank),
        current() is here,
    )


def test_means_and_sums_are_those_of_numpy(tmp_path):
    answers = together(3, tmp_path, told)
    weight = np.array([3.0, 7, 11])
    for index in (0, 1):
        wanted = np.average([gradients[index] for gradients, *_ in answers], axis=0, weights=weight)
        for _, means, *_ in answers:
            np.testing.assert_allclose(means[index], wanted, rtol=1e-5)
    for _, means, total, word, ranks, is_current in answers:
        np.testing.assert_allclose(means[2], np.average([1, 2, 3], weights=weight), rtol=1e-6)
        np.testing.assert_array_equal(total, [3e-17, 3])
        assert (word, ranks, is_current) == ("of 0", [0, 1, 2], True)


# ------------------------------------------------------------------------------------------------- training


def in_float32():
    """Have products in float32 whatever the processor: of bfloat16 each process would round its own."""
    torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False


def trained(here, x, options):
    in_float32()
    batch = np.where(np.arange(x.shape[0]) % 2, "a", "b") if options.pop("batches", False) else None
    with np.testing.suppress_warnings() as ignored:
        ignored.filter(UserWarning)
        options = {"device": "cpu"} | options
        model = AutoImpute("counts", random_state=3, batch_size=32, **options).fit(x, batch=batch)
    state = {name: tensor.numpy() for name, tensor in model_state(model.model_)[0].items()}
    return state, model.history_, model.held_out_, model.converged_


@pytest.mark.parametrize(
    "options", [{"hidden": 8, "n_networks": 2}, {"hidden": (8, 6), "n_networks": 1, "batches": True}]
)
def test_two_processes_with_half_the_batch_equal_one(counts, options, tmp_path):
    options |= {"max_epochs": 12}
    one = together(1, tmp_path, trained, counts, options)[0]
    first, second = together(2, tmp_path, trained, counts, options)
    for one_of_two in (first, second):
        assert one[0].keys() == one_of_two[0].keys()
        for name, value in one[0].items():
            np.testing.assert_allclose(one_of_two[0][name], value, **CLOSE, err_msg=name)
        assert one_of_two[1][["network", "epoch"]].equals(one[1][["network", "epoch"]])
        np.testing.assert_allclose(one_of_two[1]["loss"], one[1]["loss"], rtol=1e-4)
        np.testing.assert_allclose(one_of_two[1]["held_out_loss"], one[1]["held_out_loss"], rtol=1e-4)
        assert one_of_two[2]["n"] == one[2]["n"]
        np.testing.assert_allclose(one_of_two[2]["model"]["deviance"], one[2]["model"]["deviance"], rtol=1e-4)
    assert_same(first, second)


def assert_same(first, second):
    """The same bits: weights, history, scores, and when training ended."""
    for name, value in first[0].items():
        np.testing.assert_array_equal(second[0][name], value, err_msg=name)
    assert first[1].equals(second[1])
    assert first[2:] == second[2:]


def test_training_stops_where_that_of_one_process_does(counts, tmp_path):
    options = {"hidden": 8, "n_networks": 1, "threshold": 3e-3}
    one = together(1, tmp_path, trained, counts, options)[0]
    first, second = together(2, tmp_path, trained, counts, options)
    assert_same(first, second)
    assert first[3] is one[3] is True
    assert len(first[1]) == len(one[1])
    np.testing.assert_allclose(first[2]["model"]["deviance"], one[2]["model"]["deviance"], rtol=1e-3)


def trained_on_a_machine_of_its_own(here, x, options):
    """NCCL refuses two processes on one GPU, but not two machines, which it knows by these names."""
    os.environ |= {"LOCAL_RANK": "0", "NCCL_HOSTID": f"machine {here.rank}"}
    return trained(here, x, options)


@pytest.mark.parametrize("training", [trained, trained_on_a_machine_of_its_own])
def test_two_gpus_equal_one(counts, training, tmp_path):
    needed = 2 if training is trained else 1
    if torch.cuda.device_count() < needed:
        pytest.skip(f"needs {needed} GPU{'s' * (needed > 1)}")
    options = {"hidden": 8, "n_networks": 1, "max_epochs": 5, "device": "cuda"}
    one = together(1, tmp_path, training, counts, options)[0]
    first, second = together(2, tmp_path, training, counts, options)
    assert_same(first, second)
    np.testing.assert_allclose(first[1]["held_out_loss"], one[1]["held_out_loss"], rtol=1e-2)


def refused(here, x):
    with pytest.raises(ValueError, match="process") as caught:
        AutoImpute("counts", max_epochs=1, device="cpu").fit(x * (1 + here.rank))
    return str(caught.value)


def test_processes_that_have_read_different_counts_refuse_to_train(counts, tmp_path):
    said = "process 1 of 2 has read other counts than process 0: give all of them the same file"
    assert together(2, tmp_path, refused, counts) == [said] * 2


@pytest.fixture
def kept(tmp_path):
    """Folder for what is trained on."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


class CountedReads:
    """Counts that tell how many cells were read, and end the process before cell `last`, if that is ever read."""

    def __init__(self, x, last=None):
        self.x, self.last, self.shape, self.nnz, self.max, self.n_read = x, last, x.shape, x.nnz, x.max, 0

    def __getitem__(self, rows):
        return self.x[rows]

    def blocks(self, size):
        for start in range(0, self.shape[0], size):
            rows = slice(start, min(start + size, self.shape[0]))
            if self.last in range(rows.start, rows.stop):
                os.kill(os.getpid(), signal.SIGKILL)
            self.n_read += rows.stop - rows.start
            yield rows, self.x[rows]


def staged(here, counts, folder):
    rows, rng = CountedReads(counts), np.random.default_rng(1)
    kept = stage_together(rows, 0.1, rng, here, folder=folder)
    samples = [(sample.cells, sample.rows.toarray()) for sample in (kept.stopping, kept.weighing)]
    in_turn = kept.visible[np.arange(counts.shape[0])[::-1]].toarray()
    return rows.n_read, [in_turn, kept.visible[:].toarray(), *samples, kept.digest, rng.random()]


@pytest.mark.parametrize("machines", ["aaa", "aab", "aba", "abb", "abc"])
def test_one_process_of_each_machine_reads_what_all_train_on(counts, machines, kept, tmp_path):
    counts = sparse.vstack([counts] * 4, format="csr")
    _, wanted = staged(ALONE, counts, kept)
    for rank, (n_read, found) in enumerate(together(3, tmp_path, staged, counts, kept, machines=machines)):
        assert n_read == (counts.shape[0] if machines.index(machines[rank]) == rank else 0)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_equal(one, other)
    assert not list(kept.iterdir())


def lost_while_staged(here, counts, folder):
    with pytest.raises(LostProcessError, match="process 0 of 2 was lost"):
        stage_together(CountedReads(counts, last=600), 0.1, np.random.default_rng(1), here, folder=folder)


def test_a_process_that_waits_for_what_is_read_says_that_the_other_was_lost(counts, kept, tmp_path):
    counts = sparse.vstack([counts] * 4, format="csr")
    first, second = begun(2, answer, tmp_path, lost_while_staged, counts, kept)
    first.join(100)
    second.join(100)
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL, 0)
    assert not list(kept.iterdir())


def of_other_counts(here, counts, folder):
    with pytest.raises((ValueError, LostProcessError), match="process") as caught:
        fit_counts(
            counts[here.rank :],
            np.zeros(counts.shape[0] - here.rank, np.intp),
            Settings.resolve(objective="counts", preset=None, hidden=8),
            np.random.default_rng(0),
            CPU,
            on_epoch=lambda *_: None,
            staging=folder,
        )
    return str(caught.value)


def test_other_counts_are_noticed_by_who_does_not_read_them(counts, kept, tmp_path):
    _, second = together(2, tmp_path, of_other_counts, counts, kept)
    assert second == "process 1 of 2 has read other counts than process 0: give all of them the same file"
    assert not list(kept.iterdir())


def not_staged_by_the_second(here, counts, folder):
    if here.is_first:
        with pytest.raises(LostProcessError):
            stage_together(counts, 0.1, np.random.default_rng(1), here, folder=folder)


def test_nothing_is_left_of_a_process_that_ends_before_it_opened_the_file(counts, kept, tmp_path):
    together(2, tmp_path, not_staged_by_the_second, counts, kept)
    assert not list(kept.iterdir())


def not_staged(here, counts, folder):
    with pytest.raises(OSError, match="room" if here.is_first else "of the 2 processes|process 0 of 2") as caught:
        stage_together(counts, 0.1, np.random.default_rng(1), here, folder=folder)
    return str(caught.value)


def test_a_folder_for_all_that_cannot_be_written_to(counts, tmp_path):
    said, _ = together(2, tmp_path, not_staged, counts, tmp_path / "nowhere")
    assert said.startswith(f"cannot keep the counts to train on in {tmp_path / 'nowhere'}: ")
    assert said.endswith("; make room there")


class StoppedError(Exception):
    """What the test stops training with."""


def with_checkpoint(here, x, folder, stop_at):
    in_float32()
    checkpoint_module.SECONDS_BETWEEN, checkpoint_module.LARGEST_SHARE = 0, np.inf
    settings = Settings.resolve(objective="counts", preset=None, hidden=8, n_networks=2, max_epochs=6, batch_size=32)
    epochs = []

    def on_epoch(name, record):
        epochs.append((name, len(record.epochs)))
        if epochs[-1] == stop_at:
            raise StoppedError

    checkpoint = Checkpoint(folder if here.is_first else None)
    told = {"on_epoch": on_epoch, "checkpoint": checkpoint}
    try:
        model = fit_counts(x, np.zeros(x.shape[0], np.intp), settings, np.random.default_rng(0), CPU, **told)[0]
    except StoppedError:
        return None
    return {name: tensor.numpy() for name, tensor in model_state(model)[0].items()}, epochs


@pytest.mark.parametrize(("sizes", "stop_at"), [((2, 1), ("network", 3)), ((1, 3), ("network2", 2))], ids=str)
def test_a_checkpoint_is_gone_on_with_by_any_number_of_processes(counts, sizes, stop_at, tmp_path):
    wanted, _ = together(1, tmp_path, with_checkpoint, counts, None, None)[0]
    before, after = sizes
    assert together(before, tmp_path, with_checkpoint, counts, tmp_path, stop_at) == [None] * before
    for state, epochs in together(after, tmp_path, with_checkpoint, counts, tmp_path, None):
        assert epochs[0] == (("network", 3) if stop_at[0] == "network" else ("network", 6))
        for name, value in wanted.items():
            np.testing.assert_allclose(state[name], value, **CLOSE, err_msg=name)


# ------------------------------------------------------------------------------------------------- the command line

OPTIONS = ["--hidden", "8", "--n-networks", "1", "--max-epochs", "15", "--seed", "5", "--model", "model"]
OPTIONS += ["--device", "cpu"]  # of which there is one for each
OF_COUNTS = ["--objective", "counts"]


def command(rank, folder, arguments):
    """Run the command line in this process; what it says goes to a file of its own."""
    in_float32()
    os.chdir(folder)
    with Path(f"said{rank}").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    checkpoint_module.SECONDS_BETWEEN, checkpoint_module.LARGEST_SHARE = 0.02, 0.5
    sys.argv = ["scautoimpute", "impute", "cells.h5ad", "-o", "out.h5ad", *OPTIONS, *arguments]
    main()


def finish(processes, folder):
    """Wait, and return the exit codes and the lines that each process said."""
    for process in processes:
        process.join(100)
    said = [(folder / f"said{rank}").read_text().replace("\r", "\n").splitlines() for rank in range(len(processes))]
    lines = [[line for line in lines if line.strip() and "%|" not in line] for lines in said]
    return [process.exitcode for process in processes], lines


def run(size, folder, *arguments):
    return finish(begun(size, command, folder, [*OF_COUNTS, *arguments]), folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Folder with what one process gives."""
    folder = tmp_path_factory.mktemp("reference")
    adata = simulate(n_cells=300, n_genes=120, random_state=0)
    anndata.AnnData(adata.X, obs=adata.obs, var=adata.var).write_h5ad(folder / "cells.h5ad")
    codes, said = run(1, folder)
    assert codes == [0], said
    return folder


@pytest.fixture
def folder(reference, tmp_path):
    shutil.copy(reference / "cells.h5ad", tmp_path)
    return tmp_path


def assert_close(folder, reference):
    """The result is that of one process, and nothing else is left."""
    left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("said"))
    assert left == ["cells.h5ad", "model", "out.h5ad"]
    one, other = (anndata.read_h5ad(where / "out.h5ad") for where in (reference, folder))
    np.testing.assert_allclose(as_dense(other.layers["imputed"]), as_dense(one.layers["imputed"]), **CLOSE)
    np.testing.assert_allclose(other.obsm["X_autoimpute"], one.obsm["X_autoimpute"], **CLOSE)
    assert other.uns["imputed"]["held_out"]["n"] == one.uns["imputed"]["held_out"]["n"]


def as_dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_two_processes_write_one_result_and_one_of_them_speaks(folder, reference):
    codes, (first, second) = run(2, folder)
    assert codes == [0, 0], (first, second)
    assert second == []
    wanted = (reference / "said0").read_text().splitlines()
    assert [line[:20] for line in first] == [line[:20] for line in wanted if line.strip() and "%|" not in line]
    assert_close(folder, reference)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective", "masked"], "together with --objective counts alone, not with --objective masked: start one"),
        (["--method", "knn"], "not with --method knn: start one"),
        (["--layer", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused_is_said_once(folder, arguments, said):
    codes, (first, second) = run(2, folder, *arguments)
    assert (codes, second) == ([1, 1], [])
    (line,) = first
    assert line.startswith("error: ")
    assert said in line
    assert sorted(path.name for path in folder.iterdir()) == ["cells.h5ad", "said0", "said1"]


def wait_for(path, process):
    while not path.exists():
        assert process.is_alive() if hasattr(process, "is_alive") else process.poll() is None
        time.sleep(0.005)


@pytest.mark.parametrize("killed", [0, 1])
def test_those_that_are_left_say_who_was_lost(folder, reference, killed):
    processes = begun(2, command, folder, [*OF_COUNTS, "--max-epochs", "300"])
    wait_for(folder / ".out.h5ad.progress" / "training" / "network.safetensors", processes[0])
    processes[killed].kill()
    codes, said = finish(processes, folder)
    assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1)
    (line,) = said[1 - killed]
    assert line == lost_line(killed, "--max-epochs", "300")
    assert said[killed] == []


def lost_line(killed, *more):
    typed = " ".join(["impute", "cells.h5ad", "-o", "out.h5ad", *OPTIONS, *OF_COUNTS, *more, "--resume"])
    return (
        f"error: process {killed} of 2 was lost (killed, or out of memory); the checkpoint is in .out.h5ad.progress; "
        f"go on with: torchrun --nproc-per-node 2 -m scautoimpute {typed}"
    )


LAUNCHED = """
import os, sys, torch
from scautoimpute.cli import main
from scautoimpute.model import checkpoint

checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0.02, 0.5
torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False
said = open("said" + os.environ["RANK"], "w")
os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
main()
"""


def launch(folder, *more):
    """Start two processes with torchrun."""
    (folder / "launched.py").write_text(LAUNCHED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "launched.py"]
    arguments = ["impute", "cells.h5ad", "-o", "out.h5ad", *OPTIONS, *OF_COUNTS, *more]
    with (folder / "said_by_torchrun").open("w") as said:
        return subprocess.Popen([*torchrun, *arguments], cwd=folder, stdout=said, stderr=said)


def test_torchrun_loses_a_process_and_the_run_is_gone_on_with(folder, reference):
    launcher = launch(folder)
    wait_for(folder / ".out.h5ad.progress" / "training" / "network.safetensors", launcher)
    workers = {int(w.environ()["RANK"]): w for w in psutil.Process(launcher.pid).children() if "RANK" in w.environ()}
    workers[1].kill()
    assert launcher.wait(60) == 1
    (folder / "launched.py").unlink()
    lines = [line for line in (folder / "said0").read_text().replace("\r", "\n").splitlines() if "%|" not in line]
    assert [line for line in lines if line.strip()] == [lost_line(1)]
    assert not re.search(r"\S", (folder / "said1").read_text())
    codes, (said,) = run(1, folder, "--resume")
    assert codes == [0], said
    assert_close(folder, reference)
