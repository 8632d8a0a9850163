"""HDF5 files that are damaged, and Ctrl-C within the library.

No reader may hang in the library over damage, for it holds Python's lock then: such files are read by other processes.
"""

import re
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from importlib.util import find_spec

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse

from scautoimpute import AutoImpute, datasets, impute_file, io, tl
from scautoimpute._stops import kept_stop, stops_kept
from scautoimpute.io._copying import copy_attributes
from scautoimpute.io.hdf5 import open_hdf5
from scautoimpute.io.stream import is_stored_by_rows

SECONDS = 300  # until a process that hangs is killed
HEAP = rb"GCOL\x01\0\0\0"
READ_ALL = """
import sys
from scautoimpute import io
for path in sys.argv[1:]:
    try:
        io.read(path)
        print("read")
    except ValueError as error:
        print(error)
"""


def said_of(*paths):
    """What reading each of some files ends in, found out in a process that can be killed."""
    found = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, paths)], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    return found.stdout.splitlines()


def heaps_in(path):
    return [found.start() for found in re.finditer(HEAP, path.read_bytes())]


def overwritten(path, at, raw):
    copy = path.with_name(f"{at}_{len(raw)}_{raw[-1]}_{path.name}")
    whole = path.read_bytes()
    copy.write_bytes(whole[:at] + raw + whole[at + len(raw) :])
    return copy


def entry(number, size):
    return number.to_bytes(2, "little") + bytes(6) + (size % 2**64).to_bytes(8, "little")


def write_h5ad(path):
    """Cells with names in several heaps, some of them compressed, as anndata writes them."""
    real = datasets.pbmc68k_reduced()[:500, :50]
    adata = ad.AnnData(sparse.csr_matrix(real.X), obs=real.obs[["cell_type"]], var=real.var[[]])
    adata.obs_names = [f"{name}_{'long' * 60}" for name in adata.obs_names]
    adata.uns["note"] = np.array(["some", "text"], dtype=object)
    adata.write_h5ad(path, compression="gzip")


def write_10x(path, libver="earliest"):
    with h5py.File(path, "w", libver=libver) as file:
        group = file.create_group("matrix")
        group.attrs["software"] = "text of any length"
        group["barcodes"] = [f"cell{number}" for number in range(4)]
        counts = sparse.csr_matrix(np.arange(1, 13).reshape(4, 3))
        group["data"], group["indices"], group["indptr"], group["shape"] = *arrays(counts), [3, 4]
        for key in ("id", "name"):
            group[f"features/{key}"] = np.array(["a", "b", "c"], dtype="S")
        group["features/feature_type"] = np.array(["Gene Expression"] * 3, dtype="S")
        group["features/genome"] = np.array(["hg19"] * 3, dtype="S")


def write_new_10x(path):
    """With the newest layout of a file's own records."""
    write_10x(path, libver="latest")


def arrays(matrix):
    return matrix.data, matrix.indices, matrix.indptr


def write_loom(path):
    adata = ad.AnnData(sparse.csr_matrix(np.arange(1, 13.0).reshape(4, 3)))
    io.write(adata, path)


def write_old_h5ad(path):
    """Without attributes at the root, as before anndata 0.7, which `anndata` opens by its path."""
    write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file.attrs["encoding-type"], file.attrs["encoding-version"]


def test_entries_that_lead_nowhere_get_one_line(tmp_path):
    write_10x(tmp_path / "10x.h5")
    (heap,) = heaps_in(tmp_path / "10x.h5")
    damages = [entry(0, 0), entry(1, 2**40), entry(1, -24), entry(0, -16), entry(0, 2**62)]
    damaged = [overwritten(tmp_path / "10x.h5", heap + 16, damage) for damage in damages]
    told = f"its table of strings at byte {heap:,} is damaged: get it again"
    assert said_of(*damaged) == [f"{path}: {told}" for path in damaged]


def test_every_heap_is_looked_at(tmp_path):
    made = {"a.h5ad": write_h5ad, "old.h5ad": write_old_h5ad, "a.h5": write_10x, "new.h5": write_new_10x}
    if find_spec("loompy") is not None:
        made["a.loom"] = write_loom
    damaged, expected = [], []
    for name, make in made.items():
        make(path := tmp_path / name)
        with open_hdf5(path):
            heaps = heaps_in(path)
        assert len(heaps) > (2 if name.endswith("h5ad") else 0)
        damaged += [overwritten(path, heap + 16, entry(0, 0)) for heap in heaps]
        expected += [f"byte {heap:,} is damaged" for heap in heaps]
    assert all(told in line for told, line in zip(expected, said_of(*damaged), strict=True))


def test_every_way_in_refuses(tmp_path):
    """Info, streaming and reading as a whole, by the command line."""
    write_h5ad(tmp_path / "a.h5ad")
    damaged = overwritten(tmp_path / "a.h5ad", heaps_in(tmp_path / "a.h5ad")[0] + 16, entry(0, 0))
    for arguments in (["info", damaged], ["impute", damaged, "-o", tmp_path / "out.h5ad"]):
        command = [sys.executable, "-m", "scautoimpute", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 1
        assert "is damaged: get it again" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.h5ad").exists()


def test_a_file_that_changed_is_looked_at_again(tmp_path):
    path = tmp_path / "10x.h5"
    write_10x(path)
    with open_hdf5(path) as file:
        assert file["matrix/barcodes"].asstr()[0] == "cell0"
    path.write_bytes(overwritten(path, heaps_in(path)[0] + 16, entry(0, 0)).read_bytes())
    with pytest.raises(ValueError, match="is damaged"), open_hdf5(path):
        pass


@contextmanager
def stop_in(name, *, times=1):
    """Ctrl-C when a function of that name is called, and when it is called again."""
    left = [signal.SIGINT] * times

    def stop(frame, event, _):
        if left and event == "call" and frame.f_code.co_qualname == name:
            signal.raise_signal(left.pop())

    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.setprofile(stop)
        with pytest.raises(KeyboardInterrupt):
            yield
        assert not left
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGINT, was)


@pytest.fixture
def cells():
    return datasets.simulate(n_cells=10, n_genes=10, random_state=0)


# Through the first of these h5py lists attributes, and tells an exception in it as a ``SystemError``
LISTED = "AttributeManager.__iter__.<locals>.iter_cb"
WRITTEN = ["File.__init__", "_SteadyFile.write", "_SteadyFile.truncate", "File.close", "write_elem"]


@pytest.mark.parametrize("name", [LISTED, "_HeapCheckedFile.readinto", "_HeapCheckedFile._is_sound"])
@pytest.mark.parametrize("read", [io.read, is_stored_by_rows])
def test_ctrl_c_while_the_library_reads_is_no_damage(cells, tmp_path, read, name):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with stop_in(name):
        read(tmp_path / "cells.h5ad")


def test_ctrl_c_while_the_library_is_copied_from_is_no_damage(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    group = zarr.open_group(tmp_path / "cells.zarr", mode="w")
    with open_hdf5(tmp_path / "cells.h5ad") as file, stop_in(LISTED):
        copy_attributes(file, group, tmp_path / "cells.h5ad")


@pytest.mark.parametrize(("name", "times"), [*((name, 1) for name in WRITTEN), ("_SteadyFile.write", 5)])
def test_ctrl_c_while_the_library_writes_leaves_nothing(cells, tmp_path, name, times):
    with stop_in(name, times=times):
        io.write(cells, tmp_path / "cells.h5ad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*WRITTEN, "StoredResult.__init__", "StoredResult.append", "StoredResult.finish"])
def test_ctrl_c_while_blocks_are_written_leaves_nothing(cells, tmp_path, name):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "out").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few cells, and so short a training
        tl.autoimpute(cells, model=(model := AutoImpute(max_epochs=1, random_state=0)))
        with stop_in(name):
            impute_file(tmp_path / "cells.h5ad", output=tmp_path / "out/out.h5ad", model=model)
    assert list((tmp_path / "out").iterdir()) == []


def test_stops_are_for_the_main_thread():
    others = []

    def elsewhere():
        with stops_kept():
            others.append(kept_stop())

    with stop_in("Thread.start"), stops_kept():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert others == [None]


def test_of_several_stops_the_first_is_raised_and_none_is_left():
    with stop_in("Thread.__init__", times=2), stops_kept():
        threading.Thread()
        assert isinstance(kept_stop(), KeyboardInterrupt)
        threading.Thread()
    assert kept_stop() is None


def test_what_is_no_damage_is_read(tmp_path):
    """Groups in a circle, links that lead nowhere or elsewhere, empty and odd types, virtual arrays."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    layout = h5py.VirtualLayout(shape=(3,), dtype=int)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", shape=(3,))
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["group/back"] = file["/"]
        file[b"caf\xe9"] = ["a name in Latin-1"]
        file["soft"], file["elsewhere"] = h5py.SoftLink("/none"), h5py.ExternalLink("other.h5", "x")
        file["empty"] = h5py.Empty(h5py.string_dtype())
        file["none"] = np.array([], dtype=h5py.string_dtype())
        file["type"] = np.dtype([("a", h5py.string_dtype()), ("b", "f4")])
        file["ragged"] = np.array([np.arange(2), np.arange(3)], dtype=h5py.vlen_dtype(int))
        file["reference"] = np.array([file["group"].ref], dtype=h5py.ref_dtype)
        file.create_virtual_dataset("virtual", layout)
    with open_hdf5(tmp_path / "odd.h5") as file:
        assert list(file["virtual"][:]) == list(file["elsewhere"][:]) == [0, 1, 2]
        assert list(file["ragged"][1]) == [0, 1, 2]
