"""Models as tensors and JSON, and back."""

from typing import Any

import torch
from torch import Tensor

from .base import TwoWayBase
from .inputs import Encoding
from .masked import VARIANTS, Fold, MaskedModel
from .network import Autoencoder
from .paper import PaperModel
from .settings import Settings

__all__ = ["model_from_state", "model_state"]

Tensors = dict[str, Tensor]


def model_state(model: MaskedModel | PaperModel) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name, and everything else as plain values."""
    if isinstance(model, PaperModel):
        return _named(model.network.state_dict(), "network"), {}
    tensors = {"base.gene": torch.as_tensor(model.base.gene_G), "weights": torch.as_tensor(model.weights_K)}
    for index, fold in enumerate(model.folds):
        tensors |= _named(_fold_tensors(fold), f"fold{index}")
    values = {
        "base": model.base.to_json(),
        "folds": [
            {"base": fold.encoding.base.to_json(), "log_count_mean": fold.encoding.log_count_mean}
            for fold in model.folds
        ],
    }
    return tensors, values


def model_from_state(tensors: Tensors, values: dict[str, Any], settings: Settings) -> MaskedModel | PaperModel:
    """Inverse of `model_state`; tensors that are missing or of the wrong shape raise KeyError or RuntimeError."""
    if settings.preset == "paper":
        return PaperModel(_loaded(PaperModel.build(len(tensors["network.decoder.bias"]), settings), tensors, "network"))
    base = TwoWayBase.from_json(tensors["base.gene"].numpy(), values["base"])
    folds = tuple(_fold(tensors, f"fold{i}", v, settings) for i, v in enumerate(values["folds"]))
    return MaskedModel(base, folds, tensors["weights"].numpy())


def _named(tensors: Tensors, prefix: str) -> Tensors:
    return {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _fold_tensors(fold: Fold) -> Tensors:
    tensors = fold.encoding.tensors
    tensors["base.gene"] = torch.as_tensor(fold.encoding.base.gene_G)
    for variant, network in zip(VARIANTS, fold.networks, strict=True):
        tensors |= _named(network.state_dict(), variant.name)
    return tensors


def _fold(tensors: Tensors, prefix: str, values: dict[str, Any], settings: Settings) -> Fold:
    base = TwoWayBase.from_json(tensors[f"{prefix}.base.gene"].numpy(), values["base"])
    scales = {name: tensors[f"{prefix}.{name}"] for name in Encoding.__annotations__ if name.endswith("_G")}
    if any(scale.shape != base.gene_G.shape for scale in scales.values()):
        msg = f"the tensors of {prefix} do not fit together"
        raise RuntimeError(msg)
    networks = tuple(
        _loaded(variant.build(len(base.gene_G), settings.hidden), tensors, f"{prefix}.{variant.name}")
        for variant in VARIANTS
    )
    return Fold(Encoding(**scales, log_count_mean=values["log_count_mean"], base=base), networks)


def _loaded(network: Autoencoder, tensors: Tensors, prefix: str) -> Autoencoder:
    start = len(prefix) + 1
    network.load_state_dict({name[start:]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")})
    return network.requires_grad_(False)
