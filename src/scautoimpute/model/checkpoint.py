"""Progress of training, kept so that any accident is survived: going on gives the bits of a run never stopped.

A folder holds a manifest, which says of which training it is, and one file per network: tensors and JSON in
safetensors, with a checksum. Loading cannot run code. Everything else that a fit does is cheap and is done again.
"""

import hashlib
import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._lock import sole_owner
from ..errors import CheckpointError
from ..io.checks import one_line
from ..io.complete import complete_or_absent
from ..io.write import check_writable
from .processes import current
from .settings import MANY_CELLS, Settings
from .tensors import safetensors_of

__all__ = ["MANIFEST", "Checkpoint", "NetworkFile", "Resumable", "digest_of", "open_checkpoint", "write_progress"]

FORMAT_VERSION = 6
KEY = "scautoimpute"
MANIFEST = "manifest.json"
SECONDS_BETWEEN = 2.0  # small data do not spend their time writing
LARGEST_SHARE = 0.02  # nor do large networks, which take long to write

_ONE_AT_A_TIME = threading.Lock()  # what is written is copied twice before, as large as four networks

Groups = dict[str, dict[str, Tensor]]
_THREADS = "number of threads"


class Resumable(Protocol):
    """A training that can be written down between two steps and gone on with."""

    finished: bool

    def state(self) -> tuple[Groups, dict[str, Any]]:
        """Tensors by group and name, and plain values."""

    def load_state(self, tensors: Groups, values: dict[str, Any]) -> None:
        """Inverse of `state`."""


class NetworkFile:
    """The file that keeps the training of one network; without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._due = time.monotonic() + SECONDS_BETWEEN

    def load(self, training: Resumable) -> None:
        """Bring `training` to where it was when last kept, if it was."""
        if self.path is None or not self.path.exists():
            return
        try:
            training.load_state(*_read(self.path))
        except Exception as error:
            msg = (
                f"{self.path} is damaged, so training cannot go on from it: "
                f"{_start_anew(self.path.parent)} ({one_line(error, limit=80)})"
            )
            raise CheckpointError(msg) from error
        if training.finished:
            self.path = None  # nothing is left to keep

    def keep(self, training: Resumable, *, now: bool = False) -> None:
        """Write `training` down if the last time is long enough ago, it is finished, or `now`."""
        started = time.monotonic()
        if self.path is None or not (now or training.finished or started >= self._due):
            return
        _write(self.path, *training.state())
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN, (ended - started) / LARGEST_SHARE)


class Checkpoint:
    """Where the networks of one fit are kept; without a folder, nowhere.

    Parameters
    ----------
    folder
        That of the progress.
    wanted
        Everything that the weights depend on besides the data, as plain values.
    """

    def __init__(self, folder: Path | None = None, wanted: dict[str, Any] | None = None) -> None:
        self.folder, self._wanted = folder, wanted

    def network(self, name: str) -> NetworkFile:
        """Return the file of one network."""
        return NetworkFile(self.folder / f"{name}.safetensors" if self.folder else None)

    def claim(self, digest: str) -> None:
        """Say in the folder of which training it is, `digest` being that of the data, or refuse one of another.

        Raises
        ------
        CheckpointError
            If the folder holds the progress of another training, or a damaged manifest.
        """
        if self.folder is not None and self._wanted is not None:
            _claim(self.folder, self._wanted | {"data": digest})


@contextmanager
def open_checkpoint(
    folder: str | Path | None,
    *,
    shape: tuple[int, int],
    settings: Settings,
    random_state: Any,
    device: torch.device,
    batch_N: NDArray[np.intp] | None = None,
) -> Iterator[Checkpoint]:
    """Hold `folder` for the training that the other arguments define, and data of that shape; None keeps nothing.

    Of several processes, the first alone keeps something.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    if folder is None or not current().is_first:
        yield Checkpoint()
        return
    path = Path(folder).expanduser().resolve()
    if not path.exists():
        check_writable(path, any_suffix=True)
        path.mkdir()
    check_writable(path / MANIFEST, overwrite=True, any_suffix=True)
    with sole_owner(path):
        for abandoned in path.glob(".*.partial-*"):  # of a process that was killed while it wrote
            abandoned.unlink()
        yield Checkpoint(path, _fingerprint(shape, settings, random_state, device) | _of_batches(batch_N))


# ------------------------------------------------------------------------------------------------ of which training


def _fingerprint(
    shape: tuple[int, int], settings: Settings, random_state: Any, device: torch.device
) -> dict[str, dict[str, Any] | Any]:
    """Everything that the weights depend on besides the data, as plain values."""
    from .. import __version__

    found = {
        "format": FORMAT_VERSION,
        "version of scautoimpute": __version__,
        "version of torch": torch.__version__,
        **settings.to_json(),
        "random_state": _seed(random_state),
        "device": device.type,
        "cells × genes": f"{shape[0]} × {shape[1]}",
    }
    # Products whose sums are split by the threads there are; several processes split them too, and may be others later
    by_threads = settings.preset == "paper" or settings.objective == "counts" or shape[0] > MANY_CELLS
    if by_threads and device.type == "cpu" and current().size == 1:
        found[_THREADS] = torch.get_num_threads()
    return found


def _of_batches(batch_N: NDArray[np.intp] | None) -> dict[str, str]:
    return {} if batch_N is None else {"batches": hashlib.sha256(batch_N.astype(np.int64).data).hexdigest()[:32]}


def _seed(random_state: Any) -> Any:
    if not isinstance(random_state, np.random.Generator):
        return int(random_state)
    state = json.dumps(random_state.bit_generator.state, sort_keys=True, default=np.ndarray.tolist)
    return f"a Generator in state {hashlib.sha256(state.encode()).hexdigest()[:16]}"


def digest_of(x: sparse.csr_array) -> str:
    """Return what tells data from others."""
    digest = hashlib.sha256()
    for array in (x.indptr, x.indices, x.data):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Write the manifest, or refuse one that says otherwise."""
    path = folder / MANIFEST
    if not path.exists():
        write_progress(path, json.dumps(wanted, indent=1).encode())
        return
    try:
        found = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        msg = f"{path} is damaged, so training cannot go on from it: {_start_anew(folder)}"
        raise CheckpointError(msg) from error
    differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if _THREADS in differing and not (_THREADS in wanted and _THREADS in found):
        differing.remove(_THREADS)
    if differing:
        said = ", ".join(f"{name} was {found.get(name)}, is {wanted.get(name)}" for name in differing)
        msg = f"{folder} holds the progress of another training ({said}): give what it had, or {_start_anew(folder)}"
        raise CheckpointError(msg)


def _start_anew(folder: Path) -> str:
    return f"to start anew remove the folder {folder} (on the command line, leave out --resume)"


# ------------------------------------------------------------------------------------------------ one file


def _write(path: Path, groups: Groups, values: dict[str, Any]) -> None:
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    text = json.dumps(values)
    header = {"values": text, "crc32": _checksum(tensors, text)}
    with _ONE_AT_A_TIME:
        write_progress(path, safetensors_of(tensors, {KEY: json.dumps(header)}))


def write_progress(path: Path, content: bytes) -> None:
    """Write a file of progress beside `path` and rename; the error of a full disk says what could not be kept."""
    try:
        with complete_or_absent(path) as beside:
            beside.write_bytes(content)
    except OSError as error:
        msg = f"cannot keep the progress of training in {path.parent}: {one_line(error)}; make room there"
        raise OSError(msg) from error


def _read(path: Path) -> tuple[Groups, dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})[KEY])
        # Cloned: the originals are views of the file
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    if header["crc32"] != _checksum(tensors, header["values"]):
        msg = "its checksum differs"
        raise ValueError(msg)
    groups: Groups = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    return groups, json.loads(header["values"])


def _checksum(tensors: dict[str, Tensor], text: str) -> int:
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(f"{name}{tuple(tensors[name].shape)}".encode(), crc)
        crc = zlib.crc32(tensors[name].reshape(-1).numpy().data, crc)
    return crc
