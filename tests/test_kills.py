"""Killed by SIGKILL and gone on with: at random, twenty times; while cells are staged; while the output is written."""

import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import real_process
from real_process import assert_same_files, finish, wait_for, wait_until_paused
from scautoimpute._staging import masked_bytes, working_bytes
from scautoimpute.datasets import simulate
from scautoimpute.model.settings import MANY_CELLS, Settings
from scautoimpute.model.threads import torch_threads
from scautoimpute.pp import processed_matrix

SLOW = pytest.mark.slow
HIDDEN = 8
MASKED = ["--objective", "masked", "--hidden", HIDDEN, "--seed", 5]
COUNTS = ["--objective", "counts", "--hidden", HIDDEN, "--seed", 5, "--n-networks", 1]


def written(folder, n_cells):
    """Counts of simulated cells, which are in a file too."""
    simulated = simulate(n_cells=n_cells, n_genes=60, random_state=0)
    adata = AnnData(simulated.X, obs=simulated.obs, var=simulated.var)
    adata.write_h5ad(folder / "cells.h5ad")
    return adata


def few_cells(folder, n_epochs):
    written(folder, 600)
    return [*MASKED, "--max-epochs", n_epochs]


def many_cells_on_disk(folder):
    """So many that the recipe for many cells takes them from a file, and less memory than they would need."""
    settings = Settings.resolve(objective="masked", preset=None, hidden=HIDDEN).for_cells(MANY_CELLS + 300)
    log2 = processed_matrix(written(folder, MANY_CELLS + 300)).log2
    with torch_threads(1):
        budget = int(masked_bytes(log2, settings) + log2.nnz * 4 / 2)
    return [*MASKED, "--max-epochs", 8, "--max-memory", budget]


def counts_on_disk(folder):
    adata = written(folder, 1500)
    seen = adata.X[:, adata.X.sum(axis=0).A1 > 0]
    budget = int(working_bytes(seen, (HIDDEN,), 0) + seen.nnz * 4 / 2)
    return [*COUNTS, "--max-epochs", 25, "--max-memory", budget]


@dataclass(frozen=True)
class Kind:
    """A function that writes the cells to a folder and returns options, the name of the output, and how to start."""

    prepare: Callable
    output: str = "out.h5ad"
    start: Callable = real_process.start


KINDS = {
    "of a shell": Kind(partial(few_cells, n_epochs=60), start=real_process.Shell),
    "to zarr": Kind(partial(few_cells, n_epochs=15), "out.zarr"),
    "many cells": Kind(many_cells_on_disk),
    "counts": Kind(counts_on_disk),
}


@dataclass(frozen=True)
class Run:
    """One that nothing happened to: where, what was asked, and how many seconds it took."""

    folder: Path
    kind: Kind
    options: list
    seconds: float

    def again(self, folder, *more, **started):
        """Start another in `folder`."""
        shutil.copy(self.folder / "cells.h5ad", folder)
        return _started(self.kind, folder, [*self.options, *more], **started)

    def finishes(self, folder):
        """Go on with what was killed, and compare all that it leaves."""
        code, said = finish(self.again(folder, "--resume"), folder)
        assert code == 0, said
        assert {path.name for path in folder.iterdir()} == {"cells.h5ad", "model", "said", self.kind.output}
        for name in ("model", self.kind.output):
            assert_same_files(folder / name, self.folder / name)
        return said


def _started(kind, folder, options, **started):
    return kind.start(folder, ["impute", "cells.h5ad", "-o", kind.output, "--model", "model", *options], **started)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Give a function that returns the run of a kind."""

    @cache
    def run_of(name):
        folder, kind = tmp_path_factory.mktemp("undisturbed"), KINDS[name]
        options = kind.prepare(folder)
        process = _started(kind, folder, options)
        wait_for(folder, "said", process)
        started = time.monotonic()
        code, said = finish(process, folder)
        assert code == 0, said
        return Run(folder, kind, options, time.monotonic() - started)

    return run_of


def killed(process):
    """Whether SIGKILL found the process alive, as the system says that it ended."""
    process.kill()
    process.join(100)
    return process.exitcode == -signal.SIGKILL


@SLOW
@pytest.mark.parametrize("name", KINDS)
def test_twenty_kills(name, undisturbed, tmp_path):
    """Each run goes on with the one before. One that had ended does not count, and the next begins anew."""
    run, rng = undisturbed(name), np.random.default_rng(20)
    n_kills, n_runs = 0, 0
    while n_kills < 20:
        n_runs += 1
        assert n_runs <= 100, f"only {n_kills} of {n_runs - 1} runs were alive when they were to be killed"
        process = run.again(tmp_path, "--resume")
        wait_for(tmp_path, "said", process)
        process.join(rng.uniform(0, run.seconds))
        was_alive = killed(process)
        n_kills += was_alive
        assert was_alive or process.exitcode == 0, (tmp_path / "said").read_text()
        output = tmp_path / run.kind.output
        if output.exists():  # it is never half-written
            assert_same_files(output, run.folder / output.name)
            (shutil.rmtree if output.is_dir() else Path.unlink)(output)
            (tmp_path / "model").unlink()
    run.finishes(tmp_path)


@pytest.mark.parametrize("name", ["many cells", pytest.param("counts", marks=SLOW)])
def test_killed_while_staging(name, undisturbed, tmp_path):
    run = undisturbed(name)
    process = run.again(tmp_path, pause="reading")
    wait_until_paused(process, tmp_path)
    if sys.platform == "linux":  # where it shows that cells are staged on disk, in a file without a name
        opened = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(name.startswith(f"{tmp_path}/") and name.endswith(" (deleted)") for name in opened)
    assert killed(process)
    assert not (tmp_path / ".out.h5ad.progress" / "training" / "manifest.json").exists()  # before training began
    assert {path.name for path in tmp_path.iterdir()} == {".out.h5ad.progress", "cells.h5ad", "said"}
    assert "there is no interrupted run" not in run.finishes(tmp_path)[0]


@pytest.mark.parametrize(
    "name", ["to zarr", pytest.param("many cells", marks=SLOW), pytest.param("counts", marks=SLOW)]
)
def test_killed_while_writing(name, undisturbed, tmp_path):
    run = undisturbed(name)
    process = run.again(tmp_path, pause="imputing")
    wait_until_paused(process, tmp_path)
    assert killed(process)
    assert len(list(tmp_path.glob(".out.partial-*"))) == 1
    assert not (tmp_path / run.kind.output).exists()
    assert "there is no interrupted run" not in run.finishes(tmp_path)[0]
