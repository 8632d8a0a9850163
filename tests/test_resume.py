"""Stopped at any moment and gone on with: the bytes of a run that was never stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

import real_process
from real_process import finish, wait_for, wait_until_paused
from scautoimpute import AutoImpute, tl
from scautoimpute._lock import sole_owner
from scautoimpute._staging import working_bytes
from scautoimpute.cli import app
from scautoimpute.datasets import simulate
from scautoimpute.errors import CheckpointError
from scautoimpute.io.complete import remove_abandoned
from scautoimpute.model import checkpoint as checkpoint_module
from scautoimpute.model.checkpoint import Checkpoint, NetworkFile
from scautoimpute.model.masked import fit_masked
from scautoimpute.model.network import Autoencoder
from scautoimpute.model.optimizer import make_optimizer
from scautoimpute.model.paper import PaperTraining, fit_paper
from scautoimpute.model.settings import Settings
from scautoimpute.model.state import model_state

# Trainings of a few epochs, which is what their warnings say
pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out")
CPU = torch.device("cpu")
OPTIMIZERS = ["adamw", "rmsprop", "tf_rmsprop"]


class StoppedError(Exception):
    """What the tests stop training with."""


@pytest.fixture
def every_epoch(monkeypatch):
    """Progress is kept after every epoch, however short."""
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(checkpoint_module, "LARGEST_SHARE", np.inf)


@pytest.fixture(scope="module")
def observed():
    """40 cells × 30 genes on the log2 scale, a third of the entries missing."""
    rng = np.random.default_rng(0)
    dense = rng.gamma(4, 0.5, (40, 1)) * rng.gamma(4, 0.5, (1, 30)) + rng.random((40, 30))
    return sparse.csr_array((dense * (rng.random((40, 30)) < 2 / 3)).astype(np.float32))


def stop_every(n_epochs, history):
    """Give a function that notes each epoch and raises after every `n_epochs`-th of a network, once."""

    def on_epoch(network, fold, record):
        new = (network, fold, len(record.epochs)) not in history
        for row in record.epochs:
            history[network, fold, row["epoch"]] = row
        if n_epochs and new and len(record.epochs) % n_epochs == 0:
            raise StoppedError

    return on_epoch


def fit_with_stops(attempt):
    """Repeat `attempt` until it is not stopped; return its result and the number of stops."""
    for n_stops in range(1000):
        try:
            return attempt(), n_stops
        except StoppedError:
            continue
    pytest.fail("training never ended")


# ------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("n_epochs", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_to_the_same_bits(observed, optimizer, n_epochs, tmp_path, every_epoch):
    settings = Settings.resolve(
        objective="masked", preset=None, optimizer=optimizer, hidden=(5, 4), n_folds=1, max_epochs=7
    )

    def fit(folder, n_epochs, history):
        return fit_masked(
            observed,
            settings,
            np.random.default_rng(3),
            CPU,
            on_epoch=stop_every(n_epochs, history),
            checkpoint=Checkpoint(folder),
        )

    history, with_stops = {}, {}
    model, prediction = fit(None, None, history)
    (resumed, again), n_stops = fit_with_stops(lambda: fit(tmp_path, n_epochs, with_stops))
    assert n_stops >= 7 // n_epochs
    assert with_stops == history
    np.testing.assert_array_equal(again.model_V, prediction.model_V)
    assert_same_model(resumed, model)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_training_of_counts_goes_on_within_an_epoch(n_steps, tmp_path, every_epoch, monkeypatch):
    counts = sparse.csr_array(np.random.default_rng(0).poisson(2.0, (50, 12)).astype(np.float32))
    options = {"hidden": 4, "max_epochs": 4, "n_networks": 1, "batch_size": 13, "random_state": 4}
    model = AutoImpute("counts", **options).fit(counts)
    n_kept = 0

    def keep(file, training, *, now=False, keep=NetworkFile.keep):
        nonlocal n_kept
        keep(file, training, now=now)
        n_kept += 1
        if n_kept % n_steps == 0 and not training.finished:
            raise StoppedError

    monkeypatch.setattr(NetworkFile, "keep", keep)
    resumed, n_stops = fit_with_stops(lambda: AutoImpute("counts", **options).fit(counts, checkpoint=tmp_path))
    assert n_stops >= 16 // n_steps
    assert_same_model(resumed.model_, model.model_)
    assert resumed.history_.equals(model.history_)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("n_steps", [1, 5])
def test_the_published_training_goes_on_to_the_same_bits(observed, optimizer, n_steps, tmp_path, every_epoch):
    settings = Settings.resolve(objective="masked", preset="paper", optimizer=optimizer, hidden=6, max_epochs=23)

    def fit(folder, n_steps, losses, seen):
        told = []

        def on_step(loss, converged):
            told.append(loss)
            if n_steps and len(told) > len(seen):
                seen.append(loss)
                if len(told) % n_steps == 0:
                    raise StoppedError

        model = fit_paper(observed, settings, np.random.default_rng(3), CPU, on_step, checkpoint=Checkpoint(folder))
        losses += told
        return model

    straight, with_stops, seen = [], [], []
    model = fit(None, None, straight, [])
    resumed, n_stops = fit_with_stops(lambda: fit(tmp_path, n_steps, with_stops, seen))
    assert n_stops == 23 // n_steps
    assert with_stops == straight
    assert_same_model(resumed, model)


def assert_same_model(model, expected):
    (tensors, values), (expected_tensors, expected_values) = model_state(model), model_state(expected)
    assert values == expected_values
    assert tensors.keys() == expected_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected_tensors[name]), name


@pytest.mark.parametrize("options", [{"n_folds": 2}, {"preset": "paper", "held_out_share": 0.1}])
def test_a_checkpoint_changes_nothing_and_what_is_trained_is_not_trained_again(observed, options, tmp_path):
    options |= {"n_folds": None} if "preset" in options else {}
    model = train(observed, None, **options)
    kept = train(observed, tmp_path / "progress", **options)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "progress").iterdir()}
    again = train(observed, tmp_path / "progress", **options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "progress").iterdir()} == before
    assert len(before) == (2 if "preset" in options else 5)
    for other in (kept, again):
        assert_same_model(other.model_, model.model_)
        assert other.history_.equals(model.history_)
        assert other.held_out_ == model.held_out_
        assert other.converged_ == model.converged_


def test_a_generator_is_gone_on_with_too(observed, tmp_path):
    def fit(seed, folder):
        rng = np.random.Generator(np.random.MT19937(seed))
        return train(observed, folder, random_state=rng), rng.integers(2**60)

    (model, after), (kept, after_kept), (again, after_again) = (fit(1, f) for f in (None, tmp_path, tmp_path))
    assert after == after_kept == after_again
    for other in (kept, again):
        assert_same_model(other.model_, model.model_)
    assert "random_state was a Generator in state" in refusal(lambda: fit(2, tmp_path))


def train(data, folder, **options):
    estimator = AutoImpute(**({"hidden": 5, "max_epochs": 3, "n_folds": 1, "random_state": 4} | options))
    return estimator.fit(data, checkpoint=folder)


# ------------------------------------------------------------------------------------------------- what is refused


def refusal(action, error=CheckpointError):
    with pytest.raises(error) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"random_state": 5}, "(random_state was 4, is 5)"),
        ({"hidden": 6, "learning_rate": 0.1}, "(hidden was [5], is [6], learning_rate was "),
        ({"data": 2.0}, "(data was "),
    ],
)
def test_progress_of_another_training_is_refused(observed, tmp_path, change, said):
    train(observed, tmp_path)
    data = observed * change.pop("data", 1)
    text = refusal(
        lambda: AutoImpute(**({"hidden": 5, "max_epochs": 3, "n_folds": 1, "random_state": 4} | change)).fit(
            data, checkpoint=tmp_path
        )
    )
    assert said in text
    assert f"to start anew remove the folder {tmp_path}" in text


def test_progress_of_another_version_is_refused(observed, tmp_path):
    train(observed, tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version of torch": "0.1"}))
    assert f"(version of torch was 0.1, is {torch.__version__})" in refusal(lambda: train(observed, tmp_path))


def flipped(content):
    middle = len(content) * 3 // 4
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "one bit flipped": flipped,
    "empty": lambda _: b"",
    "something else": lambda _: b"not a checkpoint at all" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_progress_is_refused_by_name(observed, tmp_path, damage):
    train(observed, tmp_path)
    path = tmp_path / "fold0-centred.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    text = refusal(lambda: train(observed, tmp_path))
    assert text.startswith(f"{path} is damaged, so training cannot go on from it: to start anew remove the folder")


@pytest.mark.parametrize("content", ["", "[1", "[1]", "7"])
def test_a_damaged_manifest_is_refused_by_name(observed, tmp_path, content):
    train(observed, tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    assert f"{tmp_path / 'manifest.json'} is damaged" in refusal(lambda: train(observed, tmp_path))


@pytest.mark.parametrize(
    ("folder", "error", "said"),
    [("nowhere/progress", FileNotFoundError, "does not exist; create it"), ("file", NotADirectoryError, "is a file")],
)
def test_folders_that_cannot_be(observed, tmp_path, folder, error, said):
    (tmp_path / "file").touch()
    assert said in refusal(lambda: train(observed, tmp_path / folder), error)


def test_a_trained_model_takes_no_checkpoint(tmp_path):
    adata = simulate(n_cells=40, n_genes=60, random_state=0)
    model = AutoImpute(hidden=4, max_epochs=3, n_folds=1)
    tl.autoimpute(adata, model=model, checkpoint=tmp_path)
    assert (tmp_path / "manifest.json").exists()
    assert "has no effect" in refusal(lambda: tl.autoimpute(adata, model=model, checkpoint=tmp_path), ValueError)


# ------------------------------------------------------------------------------------------------- locks, times, strays


def test_two_trainings_in_one_folder(observed, tmp_path):
    (tmp_path / "lock").write_text("1\n")  # of somebody who has died: a lock that nobody holds
    with sole_owner(tmp_path):
        text = refusal(lambda: train(observed, tmp_path), BlockingIOError)
        assert text == f"process {os.getpid()} is at work in {tmp_path}: let it finish or stop it first"
    train(observed, tmp_path)
    assert not (tmp_path / "lock").exists()


def test_small_networks_do_not_spend_their_time_writing(tmp_path, monkeypatch):
    network = Autoencoder(3, 3, (2,))
    training = PaperTraining(network, make_optimizer("adamw", network.parameters(), lr=0.1))
    file = NetworkFile(tmp_path / "network.safetensors")
    file.keep(training)
    assert not file.path.exists()
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 0.05)
    file = NetworkFile(file.path)
    time.sleep(0.06)
    file.keep(training)
    first = file.path.stat().st_mtime_ns
    file.keep(training)
    assert file.path.stat().st_mtime_ns == first
    file.keep(training, now=True)
    assert file.path.stat().st_mtime_ns > first


def test_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stray = [f".a[1].partial-{dead.pid}.csv.gz", f".a[1].partial-{os.getpid()}.csv.gz"]
    kept = [f".a[1].partial-{os.getppid()}.csv.gz", f".a1.partial-{dead.pid}.csv.gz", ".a[1].partial-x.csv.gz", "b"]
    for name in stray + kept:
        (tmp_path / name).touch()
    remove_abandoned(tmp_path / "a[1].csv.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


# ------------------------------------------------------------------------------------------------- the command line

OPTIONS = ["--objective", "masked", "--hidden", "8", "--max-epochs", "15", "--seed", "5", "--model", "model"]


def start(folder, *more, file_size=None, pause=None):
    limits = {"RLIMIT_FSIZE": file_size} if file_size else {}
    arguments = ["impute", "cells.h5ad", "-o", "out.h5ad", *OPTIONS, *more]
    return real_process.start(folder, arguments, limits=limits, pause=pause)


def never_stopped(folder, *more):
    """Run in `folder` without a stop; return it, and how many seconds that took."""
    adata = simulate(n_cells=200, n_genes=150, random_state=0)
    anndata.AnnData(adata.X, obs=adata.obs, var=adata.var).write_h5ad(folder / "cells.h5ad")
    code, said = finish(start(folder, "--resume", *more), folder)
    assert code == 0, said
    assert said[0] == "there is no interrupted run to go on with: this run starts from the beginning"
    return folder, float(re.search(r"time, peak memory +([\d.]+) s", "\n".join(said))[1])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return never_stopped(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def folder(reference, tmp_path):
    shutil.copy(reference[0] / "cells.h5ad", tmp_path)
    return tmp_path


def assert_complete(folder, reference):
    assert sorted(path.name for path in folder.iterdir()) == ["cells.h5ad", "model", "out.h5ad", "said"]
    for name in ("out.h5ad", "model"):
        assert (folder / name).read_bytes() == (reference[0] / name).read_bytes(), name


def stop_at_random(folder, reference, n_stops, *more):
    """Stop as many runs, each going on with the one before; one that had ended does not count, and is begun anew."""
    signals, rng = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], np.random.default_rng(n_stops)
    n_stopped = 0
    for _ in range(5 * n_stops):
        if n_stopped == n_stops:
            break
        process = start(folder, "--resume", "--overwrite", *more)
        wait_for(folder, "said", process)
        process.join(rng.uniform(0, 1.1) * reference[1])
        if process.is_alive():
            os.kill(process.pid, signals[n_stopped % 3])
        process.join(100)
        expected = {0, -signal.SIGKILL, -signal.SIGTERM, 130, 143}
        assert process.exitcode in expected, (folder / "said").read_text()
        if (folder / "out.h5ad").exists():
            assert_same(folder, reference)
        if process.exitcode == 0:
            (folder / "out.h5ad").unlink()
            (folder / "model").unlink()
        else:
            n_stopped += 1
    assert n_stopped == n_stops
    code, said = finish(start(folder, "--resume", "--overwrite", *more), folder)
    assert code == 0, said
    assert_complete(folder, reference)


def assert_same(folder, reference):
    """The output is never half-written."""
    assert (folder / "out.h5ad").read_bytes() == (reference[0] / "out.h5ad").read_bytes()


def test_three_stops_at_random(folder, reference):
    stop_at_random(folder, reference, 3)


@pytest.mark.slow
def test_twenty_stops_at_random(folder, reference):
    stop_at_random(folder, reference, 20)


OF_COUNTS = ["--objective", "counts"]  # the last one given is what counts


def test_three_stops_at_random_of_counts(folder, tmp_path_factory):
    reference = never_stopped(tmp_path_factory.mktemp("counts"), *OF_COUNTS)
    stop_at_random(folder, reference, 3, *OF_COUNTS)


@pytest.mark.slow
def test_twenty_stops_at_random_of_counts(folder, tmp_path_factory):
    reference = never_stopped(tmp_path_factory.mktemp("counts"), *OF_COUNTS)
    stop_at_random(folder, reference, 20, *OF_COUNTS)


# Counts that do not fit in what the process may take are staged on disk; small ones too, if it may take too little.


@pytest.fixture(scope="module")
def of_disk(tmp_path_factory):
    adata = simulate(n_cells=200, n_genes=150, random_state=0)
    seen = adata.X[:, adata.X.sum(axis=0).A1 > 0]
    allowed = working_bytes(seen, (8,), 0) + seen.nnz * 4 / 2
    options = [*OF_COUNTS, "--n-networks", "1", "--max-memory", str(int(allowed))]
    reference = never_stopped(tmp_path_factory.mktemp("disk"), *options)
    assert re.search(r"^trained on .* on disk, in ", (reference[0] / "said").read_text(), re.MULTILINE)
    return reference, options


def test_three_stops_at_random_with_counts_on_disk(folder, of_disk):
    stop_at_random(folder, of_disk[0], 3, *of_disk[1])


@pytest.mark.slow
def test_twenty_stops_at_random_with_counts_on_disk(folder, of_disk):
    stop_at_random(folder, of_disk[0], 20, *of_disk[1])


def test_other_counts_on_disk_are_refused_by_name(folder, of_disk):
    """And so is damage to what was kept of their training."""
    options = of_disk[1]
    process = start(folder, *options)
    wait_for(folder, ".out.h5ad.progress/training/[!.]*.safetensors", process)
    process.kill()
    finish(process, folder)
    assert not list(folder.glob("tmp*"))  # what was staged had no name, and is gone
    adata = anndata.read_h5ad(folder / "cells.h5ad")
    x = adata.X.copy()
    x.data[7] += 1
    anndata.AnnData(x, obs=adata.obs, var=adata.var).write_h5ad(folder / "cells.h5ad")
    code, (*_, line) = finish(start(folder, *options, "--resume"), folder)
    assert code == 1
    assert "holds the progress of another training (data was " in line
    adata.write_h5ad(folder / "cells.h5ad")
    (kept,) = folder.glob(".out.h5ad.progress/training/[!.]*.safetensors")
    kept.write_bytes(flipped(kept.read_bytes()))
    code, (*_, line) = finish(start(folder, *options, "--resume"), folder)
    assert code == 1
    assert f"{kept.name} is damaged, so training cannot go on from it: to start anew" in line


def test_killed_while_writing(folder, reference):
    process = start(folder, pause="imputing")
    wait_until_paused(process, folder)
    process.kill()
    finish(process, folder)
    assert len(list(folder.glob(".out.partial-*"))) == 1
    assert (folder / "model").exists()  # no reason to refuse: it is this run's own
    code, said = finish(start(folder, "--resume"), folder)
    assert code == 0, said
    assert_complete(folder, reference)


def test_the_last_line_says_how_to_go_on(folder):
    process = start(folder, "--key-added", "my layer")
    wait_for(folder, ".out.h5ad.progress/training/fold0-*", process)
    os.kill(process.pid, signal.SIGINT)
    code, (line,) = finish(process, folder)
    assert code == 130
    arguments = f"cells.h5ad -o out.h5ad {' '.join(OPTIONS)} --key-added 'my layer' --resume"
    assert line == f"interrupted: no result was written; go on with: scautoimpute impute {arguments}"


@pytest.mark.parametrize(
    ("file_size", "said"),
    [
        (
            20_000,
            r"error: cannot keep the progress of training in \S+: \[Errno 27\] File too large.*; make room there; ",
        ),
        (150_000, r"error: cannot write out\.h5ad: .* too large.*; no file was left behind; "),
    ],
    ids=["in training", "in writing"],
)
def test_a_full_disk(folder, reference, file_size, said):
    code, lines = finish(start(folder, file_size=file_size), folder)
    assert code == 1
    *warned, line = lines
    assert [text for text in warned if not text.startswith("warning: training ended at")] == []
    assert re.match(said + r"go on with: scautoimpute impute cells\.h5ad .* --resume$", line), line
    assert not (folder / "out.h5ad").exists()
    assert not list(folder.glob("*.partial-*"))
    code, lines = finish(start(folder, "--resume"), folder)
    assert code == 0, lines
    assert_complete(folder, reference)


@pytest.fixture(scope="module")
def stopped(reference, tmp_path_factory):
    """Folder with what a killed run left."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copy(reference[0] / "cells.h5ad", folder)
    process = start(folder)
    wait_for(folder, ".out.h5ad.progress/training/fold0-*", process)
    process.kill()
    finish(process, folder)
    return folder


def test_killed_in_training(stopped, reference, tmp_path):
    assert sorted(path.name for path in stopped.iterdir()) == [".out.h5ad.progress", "cells.h5ad", "said"]
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    code, said = finish(start(tmp_path, "--resume"), tmp_path)
    assert code == 0, said
    assert_complete(tmp_path, reference)


def test_without_resume_it_starts_anew_and_says_so(stopped, reference, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".out.h5ad.progress" / "training" / "manifest.json").write_text("damaged: no matter")
    code, said = finish(start(tmp_path), tmp_path)
    assert code == 0
    assert said[0] == (
        "progress of an interrupted run was found in .out.h5ad.progress; without --resume this run starts anew"
    )
    assert_complete(tmp_path, reference)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--hidden", "9"],
            "error: the interrupted run had --hidden 8, this one has --hidden 9: give the same, or leave",
        ),
        (
            ["--smooth", "--preset", "paper"],
            "had no --smooth, no --preset, this one has --smooth, --preset paper: give",
        ),
        (["--model", "other"], "had --model "),
    ],
)
def test_other_options_are_refused_by_name(stopped, more, said, monkeypatch):
    assert said in refused_line(stopped, monkeypatch, *more, "--resume")


def test_other_data_are_refused_by_name(stopped, monkeypatch, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    adata[::2].copy().write_h5ad(tmp_path / "cells.h5ad")
    line = refused_line(tmp_path, monkeypatch, "--resume")
    assert "holds the progress of another training (cells × genes was 200 × " in line
    assert line.endswith("(on the command line, leave out --resume)")


def test_damaged_options_are_refused_by_name(stopped, monkeypatch, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".out.h5ad.progress" / "options.json").write_text("{")
    assert "options.json is damaged: leave out --resume" in refused_line(tmp_path, monkeypatch, "--resume")


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_second_process_is_refused(stopped, monkeypatch, more):
    with sole_owner(stopped / ".out.h5ad.progress"):
        assert f"error: process {os.getpid()} is at work in " in refused_line(stopped, monkeypatch, *more)


def refused_line(folder, monkeypatch, *more):
    monkeypatch.chdir(folder)
    before = paths_in(folder)
    done = CliRunner().invoke(app, ["impute", "cells.h5ad", "-o", "out.h5ad", *OPTIONS, *more])
    assert done.exit_code == 1
    assert paths_in(folder) == before
    (line,) = done.stderr.splitlines()
    return line


def paths_in(folder):
    return {path for path in folder.rglob("*") if path.name != "lock"}
