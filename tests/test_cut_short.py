"""The file of the cells is cut short or removed while these are staged, or while the output is written."""

import os
import shutil
import signal

import pytest

from real_process import assert_same_files, finish, wait_for, wait_until_paused
from stored_counts import write_10x_h5, write_h5ad
from test_stress import (
    LONGER,
    SLOW,
    failed_with,
    four_kinds_of_cells,
    impute,
    kept_aside,
    names_in,
    succeeded,
    truncate,
)

STAGING, WRITING = "reading", "imputing"  # what their progress bars are called
GO_ON = "; go on with: scautoimpute impute "


@pytest.fixture(scope="module", params=["cells.h5ad", pytest.param("cells.h5", marks=SLOW)])
def source(request):
    """Name of a file of the cells."""
    return request.param


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """The folder of a run that nothing happens to."""
    folder, adata = tmp_path_factory.mktemp("undisturbed"), four_kinds_of_cells()
    (write_10x_h5 if source == "cells.h5" else write_h5ad)(adata, folder).rename(folder / source)
    succeeded(run(folder, source), folder)
    return folder


@pytest.fixture
def folder(undisturbed, source, tmp_path):
    shutil.copy(undisturbed / source, tmp_path)
    return tmp_path


def run(folder, source, *more, **started):
    return impute(folder, *LONGER, "--model", "model", *more, source=source, **started)


def in_the_midst_of(work, act, folder, source, *more):
    """Start a run, do something to its input when some cells have passed, and return the process."""
    process = run(folder, source, *more, pause=work)
    wait_until_paused(process, folder)
    act(folder / source)
    os.kill(process.pid, signal.SIGCONT)
    return process


def cut_short(work, folder, source, *more):
    """Have that happen to the input, put it back, and return the line of the error."""
    aside = kept_aside(folder / source)
    line = failed_with(in_the_midst_of(work, truncate, folder, source, *more), folder)
    aside.rename(folder / source)
    assert line.startswith(f"error: {source} was changed while it was read: put back what it was")
    return line


def ends_as(undisturbed, process, folder):
    succeeded(process, folder)
    assert names_in(folder) <= names_in(undisturbed)
    for name in ("model", "out.h5ad"):
        assert_same_files(folder / name, undisturbed / name)


@pytest.mark.parametrize("work", [pytest.param("looking at the counts", marks=SLOW), STAGING])
def test_cut_short_before_it_is_trained_on(work, source, folder, undisturbed):
    """Nothing is trained on what is left, and nothing kept."""
    assert GO_ON not in cut_short(work, folder, source)
    assert names_in(folder) == {source}
    ends_as(undisturbed, run(folder, source, "--resume"), folder)


def test_cut_short_while_the_output_is_written(source, folder, undisturbed):
    """The model is complete by then, and is that of the whole file."""
    assert GO_ON in cut_short(WRITING, folder, source)
    assert names_in(folder) == {source, "model", ".out.h5ad.progress"}
    assert_same_files(folder / "model", undisturbed / "model")
    ends_as(undisturbed, run(folder, source, "--resume"), folder)


@SLOW
def test_cut_short_when_it_is_staged_again(source, folder, undisturbed):
    """What was kept of training on the whole file is still there."""
    process = run(folder, source)
    wait_for(folder, ".out.h5ad.progress/training/[!.]*.safetensors", process)
    process.kill()
    finish(process, folder)
    training = folder / ".out.h5ad.progress" / "training"
    before = {path.name for path in training.glob("[!.]*.*")}
    assert GO_ON in cut_short(STAGING, folder, source, "--resume")
    assert {path.name for path in training.iterdir()} == before
    ends_as(undisturbed, run(folder, source, "--resume"), folder)


@SLOW
@pytest.mark.parametrize("work", [STAGING, WRITING])
def test_removed(work, source, folder, undisturbed):
    """It is open, and is read to its end as it was."""
    ends_as(undisturbed, in_the_midst_of(work, os.unlink, folder, source), folder)
