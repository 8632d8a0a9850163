"""What goes wrong around a run: one clear line, nothing half-written, and a run that works once the cause is gone."""

import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import anndata
import numpy as np
import psutil
import pytest
import torch
import zarr
from anndata import AnnData
from scipy import sparse

from real_process import assert_same_files, finish, start, wait_for
from scautoimpute import read
from scautoimpute._staging import working_bytes
from stored_counts import write_10x_h5

OPTIONS = ["--objective", "counts", "--hidden", "8", "--n-networks", "1", "--seed", "5"]
EPOCHS = ["--max-epochs", "4"]
LONGER = ["--max-epochs", "20"]  # enough for something to happen meanwhile
N_CELLS, N_GENES = 1200, 150


def four_kinds_of_cells():
    """Counts of cells."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.3, 1.0, (4, N_GENES))[np.arange(N_CELLS) % 4]
    x = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    x.data[:3] = 2
    adata = AnnData(x)
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(N_CELLS)], [f"g{i}" for i in range(N_GENES)]
    return adata


@pytest.fixture(scope="module")
def adata():
    return four_kinds_of_cells()


def write_zarr(adata, path, **options):
    with anndata.settings.override(zarr_write_format=3), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and zarr, of formats to come
        adata.write_zarr(path, **options)


@pytest.fixture
def folder(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path


@pytest.fixture(scope="module")
def on_disk(adata):
    """Options by which the process may take half of what the counts need that are trained on, and all else."""
    size = SimpleNamespace(shape=adata.shape, nnz=adata.X.nnz)
    return ["--max-memory", str(int(working_bytes(size, (8,), 0) + adata.X.nnz * 4 / 2))]


def impute(folder, *more, source="cells.h5ad", output="out.h5ad", **started):
    return start(folder, ["impute", source, "-o", output, *OPTIONS, *more], **started)


def failed_with(process, folder):
    """The one line of an error, after those of warnings."""
    code, said = finish(process, folder)
    assert code == 1, said
    *warned, line = said
    assert [text for text in warned if not text.startswith("warning: ")] == []
    assert line.startswith("error: ")
    return line


def succeeded(process, folder):
    code, said = finish(process, folder)
    assert code == 0, said
    return said


def names_in(folder):
    return {path.name for path in folder.iterdir()} - {"said"}


# ------------------------------------------------------------------------------------------------------------ the disk


@pytest.fixture
def disk(tmp_path):
    """Give a function that makes a disk of some size at `tmp_path` / "disk", or changes the one there."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def sized(size, *options):
        again = ["remount"] if os.path.ismount(mounted) else []
        chosen = ",".join([*again, f"size={size}", *options])
        if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("a small disk can only be mounted by root, on Linux")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", chosen, "tmpfs", mounted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        return mounted

    yield sized
    if os.path.ismount(mounted):
        subprocess.run(["umount", "-l", mounted], check=True)


def test_a_full_disk_while_staging(folder, disk, on_disk):
    small = disk("64k")
    line = failed_with(impute(small, *EPOCHS, *on_disk, source=folder / "cells.h5ad"), small)
    assert line.startswith(f"error: cannot keep the counts to train on in {small}: [Errno 28] No space left on device")
    assert line.endswith("make room there, or allow more memory with --max-memory")
    assert names_in(small) == set()
    disk("100m")
    said = succeeded(impute(small, *EPOCHS, *on_disk, "--resume", source=folder / "cells.h5ad"), small)
    assert any(text.startswith("trained on") and "on disk" in text for text in said)
    assert names_in(small) == {"out.h5ad"}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "out.h5ad",
        pytest.param("out.zarr", marks=SLOW),
        pytest.param("out.csv", marks=SLOW),
        pytest.param("out.tsv.gz", marks=SLOW),
    ],
)
def test_a_full_disk_while_writing(folder, disk, name):
    small = disk("500k")
    line = failed_with(impute(small, *EPOCHS, source=folder / "cells.h5ad", output=name), small)
    assert line.startswith(f"error: cannot write {name}: ")
    assert "No space left on device" in line
    assert "; no file was left behind; go on with: scautoimpute impute " in line
    assert names_in(small) == {f".{name}.progress"}
    disk("100m")
    succeeded(impute(small, *EPOCHS, "--resume", source=folder / "cells.h5ad", output=name), small)
    succeeded(impute(folder, *EPOCHS, output=name), folder)
    assert names_in(small) == {name}
    assert_same_files(small / name, folder / name)


def test_a_disk_that_cannot_be_written_to(folder, disk):
    closed = disk("2m")
    disk("2m", "ro")
    line = failed_with(impute(folder, *EPOCHS, output="disk/out.h5ad"), folder)
    assert line.startswith(f"error: the folder {closed} cannot be written; change its permissions, or choose another")
    disk("9m", "rw")
    succeeded(impute(folder, *EPOCHS, "--resume", output="disk/out.h5ad"), folder)


def test_a_temporary_folder_that_is_full(folder, disk, on_disk):
    """Which only a gzipped file needs, to be unpacked to; what is trained on is kept beside the output."""
    full = disk("16k")
    subprocess.run(["gzip", "-k", folder / "cells.h5ad"], check=True)
    there = {"environment": {"TMPDIR": str(full)}}
    succeeded(impute(folder, *EPOCHS, *on_disk, **there), folder)
    wanted = read(folder / "out.h5ad").layers["imputed"]
    (folder / "out.h5ad").unlink()
    before = names_in(folder)
    line = failed_with(impute(folder, *EPOCHS, source="cells.h5ad.gz", **there), folder)
    assert line.startswith(f"error: cannot unpack cells.h5ad.gz to {full} ([Errno 28] No space left on device")
    assert line.endswith("): make room there, name another folder in TMPDIR, or unpack it yourself")
    assert names_in(folder) == before
    assert names_in(full) == set()
    disk("16k", "ro")  # which is passed over for another
    succeeded(impute(folder, *EPOCHS, source="cells.h5ad.gz", **there), folder)
    assert read(folder / "out.h5ad").layers["imputed"].tobytes() == wanted.tobytes()


# ----------------------------------------------------------------------------------------------------------- the input


def damaged_while_trained_on(folder, damage, *, source="cells.h5ad", output="out.h5ad"):
    """Start a run, do something to its input when it has trained a little, and return the process."""
    process = impute(folder, *LONGER, source=source, output=output)
    wait_for(folder, f".{output}.progress/training/[!.]*.safetensors", process)
    damage()
    return process


@pytest.fixture(scope="module")
def wanted(adata, tmp_path_factory):
    """What a longer run gives that nothing happens to."""
    folder = tmp_path_factory.mktemp("wanted")
    adata.write_h5ad(folder / "cells.h5ad")
    succeeded(impute(folder, *LONGER), folder)
    return read(folder / "out.h5ad").layers["imputed"]


def test_a_file_that_is_removed_while_it_is_trained_on(folder, wanted):
    succeeded(damaged_while_trained_on(folder, (folder / "cells.h5ad").unlink), folder)
    assert read(folder / "out.h5ad").layers["imputed"].tobytes() == wanted.tobytes()


def kept_aside(path):
    """A copy of a file or a folder beside it."""
    aside = path.with_name("aside")
    shutil.copytree(path, aside) if path.is_dir() else shutil.copy(path, aside)
    return aside


def truncate(path):
    os.truncate(path, path.stat().st_size // 3)


def truncate_chunk(path):
    """Cut the largest chunk of the values in two."""
    truncate(max((path / "X" / "data").rglob("*"), key=lambda found: found.stat().st_size))


def remove_chunk(path):
    max((path / "X" / "data").rglob("*"), key=lambda found: found.stat().st_size).unlink()


DAMAGES = {
    "h5ad cut short": ("cells.h5ad", truncate),
    "10x cut short": ("cells.h5", truncate),
    "zarr chunk cut short": ("cells.zarr", truncate_chunk),
    "zarr chunk removed": ("cells.zarr", remove_chunk),
    "zarr removed": ("cells.zarr", shutil.rmtree),
    "dense zarr removed": ("dense.zarr", shutil.rmtree),
}
RARE = {"zarr chunk cut short", "zarr removed"}


@pytest.mark.parametrize("damage", [pytest.param(name, marks=SLOW if name in RARE else ()) for name in DAMAGES])
def test_a_file_that_is_damaged_while_it_is_trained_on(adata, folder, wanted, damage):
    name, act = DAMAGES[damage]
    source = folder / name
    if name == "cells.zarr":
        write_zarr(adata, source)
    elif name == "dense.zarr":
        write_zarr(AnnData(adata.X.toarray(), obs=adata.obs, var=adata.var), source, chunks=(100, N_GENES))
    elif name == "cells.h5":
        write_10x_h5(adata, folder).rename(source)
    aside = kept_aside(source)
    before = names_in(folder)
    line = failed_with(damaged_while_trained_on(folder, lambda: act(source), source=name), folder)
    assert line.startswith(f"error: {name}")
    assert "; go on with: scautoimpute impute " in line
    assert names_in(folder) <= before | {".out.h5ad.progress"}
    shutil.rmtree(source, ignore_errors=True)
    source.unlink() if source.is_file() else None
    aside.rename(source)
    said = succeeded(impute(folder, *LONGER, "--resume", source=name), folder)
    assert "there is no interrupted run to go on with" not in said[0]
    assert read(folder / "out.h5ad").layers["imputed"].tobytes() == wanted.tobytes()


def test_a_block_with_nan_deep_in_the_file(adata, folder):
    spoiled = adata.copy()
    spoiled.X.data[-2] = np.nan
    spoiled.write_h5ad(folder / "cells.h5ad")
    line = failed_with(impute(folder, *EPOCHS), folder)
    assert "1 of " in line
    assert "are NaN, first in row 1200, column 1" in line
    assert names_in(folder) == {"cells.h5ad"}
    adata.write_h5ad(folder / "cells.h5ad")
    succeeded(impute(folder, *EPOCHS, "--resume"), folder)


# -------------------------------------------------------------------------------------------------- files and memory


@pytest.mark.parametrize("n_chunks", [300, pytest.param(10_000, marks=SLOW)])
def test_many_chunks_with_few_files_open(adata, tmp_path, n_chunks):
    write_zarr(adata, tmp_path / "cells.zarr")
    group = zarr.open_group(tmp_path / "cells.zarr", mode="r+", use_consolidated=False)
    for name in ("data", "indices"):
        values, kind = group["X"][name][:], dict(group["X"][name].attrs)
        per_chunk = max(1, 2 * len(values) // n_chunks)
        rechunked = group["X"].create_array(name, data=values, chunks=(per_chunk,), overwrite=True)
        rechunked.attrs.update(kind)
    assert group["X"]["data"].nchunks + group["X"]["indices"].nchunks >= n_chunks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats to come
        zarr.consolidate_metadata(group.store)
    limits = {"RLIMIT_NOFILE": 256 if n_chunks > 1000 else 64}
    succeeded(impute(tmp_path, *EPOCHS, source="cells.zarr", output="out.zarr", limits=limits), tmp_path)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    succeeded(impute(tmp_path, *EPOCHS), tmp_path)
    found, wanted = read(tmp_path / "out.zarr"), read(tmp_path / "out.h5ad")
    assert found.layers["imputed"].tobytes() == wanted.layers["imputed"].tobytes()


@pytest.mark.skipif(torch.version.cuda is not None, reason="CUDA's libraries take more memory than the limit")
def test_a_machine_with_little_memory(folder):
    """Which a network of half a million units does not fit in; whether the machine or the limit says so."""
    large = ["--hidden", "500000"]
    line = failed_with(impute(folder, *EPOCHS, *large, limits={"RLIMIT_DATA": 10**9}), folder)
    assert re.match(
        r"error: the memory does not suffice \([\d,]+ MB more were asked for\): |error: a network of ", line
    )
    assert "--n-top-genes" in line
    assert names_in(folder) <= {"cells.h5ad", ".out.h5ad.progress"}
    succeeded(impute(folder, *EPOCHS, limits={"RLIMIT_DATA": 10**9}), folder)
    assert names_in(folder) == {"cells.h5ad", "out.h5ad"}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_memory_that_ends_in_mid_run(adata, tmp_path):
    """As if others had taken the rest of it when there was a checkpoint."""
    wide = ["--hidden", "10000", "--max-epochs", "6"]

    def short(folder):
        process = impute(folder, *wide)
        wait_for(folder, ".out.h5ad.progress/training/[!.]*.safetensors", process)
        limit = psutil.Process(process.pid).memory_info().data + 4_000_000  # no room for the weights, some for all else
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
        return process

    assert "; go on with: scautoimpute impute " in fails_for_want_of_memory(adata, tmp_path, wide, short)


@pytest.mark.slow
def test_a_machine_with_1_gb(adata, tmp_path):
    wide = ["--hidden", "40000", "--max-epochs", "1"]
    limits = {"RLIMIT_DATA": 10**9}
    fails_for_want_of_memory(adata, tmp_path, wide, lambda folder: impute(folder, *wide, limits=limits))


def fails_for_want_of_memory(adata, tmp_path, options, short):
    """The line that a run ends with; the same command, where there is enough, goes on to what a whole run gives."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        adata[:300].write_h5ad(folder / "cells.h5ad")
    line = failed_with(short(stopped), stopped)
    assert line.startswith("error: the memory does not suffice (")
    assert names_in(stopped) <= {"cells.h5ad", ".out.h5ad.progress"}
    succeeded(impute(stopped, *options, "--resume"), stopped)
    succeeded(impute(whole, *options), whole)
    assert_same_files(stopped / "out.h5ad", whole / "out.h5ad")
    assert names_in(stopped) == {"cells.h5ad", "out.h5ad"}
    return line
