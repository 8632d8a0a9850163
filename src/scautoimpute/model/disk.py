"""One file per model: safetensors, tensors plus a JSON header. Loading cannot run code."""

import json
from pathlib import Path
from typing import Any

from ..io.complete import complete_or_absent
from ..io.write import check_writable
from .masked import MaskedModel
from .paper import PaperModel
from .settings import Settings
from .state import model_from_state, model_state

__all__ = ["read_model", "write_model"]

FORMAT_VERSION = 1
KEY = "scautoimpute"
# What a model is saved with, beside its tensors
DESCRIPTION = ("settings", "genes", "n_genes_in", "held_out", "converged", "history", "recipe", "random_state")


def write_model(path: Path, model: MaskedModel | PaperModel, description: dict[str, Any]) -> None:
    """Write beside `path` and rename."""
    from safetensors.torch import save_file

    from .. import __version__

    tensors, values = model_state(model)
    header = {"format_version": FORMAT_VERSION, "package_version": __version__, "model": values} | description
    check_writable(path, overwrite=True, any_suffix=True)
    with complete_or_absent(path) as beside:
        save_file(tensors, beside, metadata={KEY: json.dumps(header)})


def read_model(path: Path) -> tuple[MaskedModel | PaperModel, dict[str, Any]]:
    """Model on the CPU, and what was written with it."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"there is no model file {str(path)!r}: give the path that a model was saved to"
        raise FileNotFoundError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        _refuse_newer(path, header)
        model = model_from_state(tensors, header["model"], Settings.from_json(header["settings"]))
        return model, {name: header[name] for name in DESCRIPTION}
    except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
        msg = f"{str(path)!r} is not a model of scautoimpute, or is damaged: give a file that AutoImpute.save wrote"
        raise ValueError(msg) from error


def _refuse_newer(path: Path, header: dict[str, Any]) -> None:
    if header["format_version"] > FORMAT_VERSION:
        msg = (
            f"{str(path)!r} was written by scautoimpute {header['package_version']} in format "
            f"{header['format_version']}; this version reads up to {FORMAT_VERSION}: upgrade scautoimpute"
        )
        raise ValueError(msg)
