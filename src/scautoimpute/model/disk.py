"""One file per model: safetensors, tensors plus a JSON header. Loading cannot run code.

Formats. A file says in which format it was written. Every format that a release ever wrote stays readable, for good:
``tests/data`` holds a model of each, with the numbers that it gave. A newer format than this version knows is refused.
The number rises when versions before could no longer read the files right; a header field that they may ignore is
added without.

1. Tensors and description.
2. The description also holds ``sha256``, of itself and of the tensors, by which a damaged file is found out.
3. Models of the counts objective too.
4. These may have several networks.
5. And components.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.checks import one_line
from ..io.complete import complete_or_absent
from ..io.write import check_writable
from .header import DESCRIPTION, check_header
from .settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from .counts import CountsModel
    from .masked import MaskedModel
    from .paper import PaperModel

__all__ = ["FORMAT_VERSION", "read_model", "write_model"]

FORMAT_VERSION = 5
KEY = "scautoimpute"
_OTHER_KINDS = {b"PK\x03\x04": "a zip archive, as torch.save writes", b"\x80": "a pickle", b"\x89HDF": "an HDF5 file"}


def write_model(path: Path, model: "MaskedModel | PaperModel | CountsModel", description: dict[str, Any]) -> None:
    """Write beside `path` and rename."""
    from .. import __version__
    from .state import model_state
    from .tensors import safetensors_of

    tensors, values = model_state(model)
    header = {"format_version": FORMAT_VERSION, "package_version": __version__, "model": values} | description
    text = json.dumps(header | {"sha256": _sum_of(header, tensors)})
    path = path.expanduser().resolve()
    check_writable(path, overwrite=True, any_suffix=True)
    with complete_or_absent(path) as beside:
        beside.write_bytes(safetensors_of(tensors, {KEY: text}))


def read_model(path: Path) -> "tuple[MaskedModel | PaperModel | CountsModel, dict[str, Any]]":
    """Model on the CPU, and what was written with it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no model, is damaged, or was written in a newer format.
    """
    from .state import model_from_state

    path = path.expanduser()
    if not path.is_file():
        msg = f"there is no model file {str(path)!r}: give the path that a model was saved to"
        raise FileNotFoundError(msg)
    with _one_line_errors(path):
        _refuse_other_kinds(path)
        header, tensors = _contents(path)
    _refuse_newer(path, header)
    with _one_line_errors(path):
        _check_sum(header, tensors)
        check_header(header)
        settings = Settings.from_json(header["settings"])
        model = model_from_state(tensors, header["model"], settings, n_genes=header["n_genes_in"])
    return model, {name: header[name] for name in DESCRIPTION}


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn whatever bad contents make a library raise into one ``ValueError``."""
    try:
        yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        why = f"no {error}" if isinstance(error, KeyError) else one_line(error, limit=150)
        what = f"{str(path)!r} is not a model of scautoimpute, or is damaged"
        msg = f"{what}: give a file that AutoImpute.save, or --model on the command line, wrote ({why})"
        raise ValueError(msg) from error


def _refuse_other_kinds(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(9)
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if start.startswith(magic)), None)
    # A model begins with the length of its JSON in eight bytes, of which the last are zero
    if kind is not None and start[4:] != b"\0\0\0\0{":
        msg = f"it is {kind}"
        raise ValueError(msg)


def _contents(path: Path) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})[KEY])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    if not isinstance(header, dict) or type(header.get("format_version")) is not int or header["format_version"] < 1:
        msg = "its description names no format"
        raise ValueError(msg)
    return header, tensors


def _refuse_newer(path: Path, header: dict[str, Any]) -> None:
    if header["format_version"] > FORMAT_VERSION:
        writer = " ".join(str(header.get("package_version")).split())[:20]
        msg = (
            f"{str(path)!r} was written by scautoimpute {writer} in format "
            f"{header['format_version']:.6g}; this version reads up to {FORMAT_VERSION}: upgrade scautoimpute"
        )
        raise ValueError(msg)


def _check_sum(header: dict[str, Any], tensors: "dict[str, Tensor]") -> None:
    if header["format_version"] == 1 and "sha256" not in header:
        return
    if header.pop("sha256") != _sum_of(header, tensors):
        msg = "its check sum is not that of its contents"
        raise ValueError(msg)


def _sum_of(header: dict[str, Any], tensors: "dict[str, Tensor]") -> str:
    """SHA-256 of the header, as JSON, and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
