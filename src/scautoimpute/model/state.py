"""Models as tensors and JSON, and back: nothing is built that the tensors in hand do not fill."""

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from .base import TwoWayBase
from .components import Components
from .counts import CountsModel, build_network, estimates_with, network_names
from .counts_inputs import CountsEncoding
from .counts_network import gene_by_gene
from .detection import DETECTION_NETWORK, DetectionModel
from .inputs import Encoding
from .masked import Fold, MaskedModel
from .masked_training import VARIANTS
from .network import Autoencoder
from .paper import PaperModel
from .settings import MOST_NETWORKS, Settings

__all__ = ["model_from_state", "model_state"]

Tensors = dict[str, Tensor]


def model_state(model: MaskedModel | PaperModel | CountsModel) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name, and everything else as plain values."""
    if isinstance(model, PaperModel):
        return _named(model.network.state_dict(), "network"), {}
    if isinstance(model, CountsModel):
        return _counts_state(model)
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
    if model.detection is not None:
        tensors |= _named(_detection_tensors(model.detection), "detection")
        values["detection"] = {
            "base": model.detection.encoding.base.to_json(),
            "log_count_mean": model.detection.encoding.log_count_mean,
            "shown_share": model.detection.shown_share,
            "held_out": model.detection.held_out,
        }
    return tensors, values


def model_from_state(
    tensors: Tensors, values: dict[str, Any], settings: Settings, *, n_genes: int
) -> MaskedModel | PaperModel | CountsModel:
    """Inverse of `model_state`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something is missing, is left over, is not finite, or has another type or shape than `settings` make it.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            msg = f"the tensor {name!r} holds values that are no finite numbers"
            raise ValueError(msg)
    if len(settings.hidden) > len(tensors):
        msg = f"there are {len(tensors)} tensors, too few for {len(settings.hidden)} hidden layers"
        raise ValueError(msg)
    model = _model(tensors, values, settings, n_genes)
    left_over = tensors.keys() - model_state(model)[0].keys()
    if left_over:
        msg = f"the tensor {min(left_over)!r} belongs to no part of the model"
        raise ValueError(msg)
    return model


def _model(
    tensors: Tensors, values: dict[str, Any], settings: Settings, n_genes: int
) -> MaskedModel | PaperModel | CountsModel:
    if settings.objective == "counts":
        return _counts_model(tensors, values, settings, n_genes)
    if settings.preset == "paper":
        with torch.device("meta"):  # shapes without memory: what the file claims may be larger than it is
            network = PaperModel.build(n_genes, settings)
        return PaperModel(_loaded(network, tensors, "network"))
    if len(values["folds"]) != settings.n_folds:
        msg = f"there are {len(values['folds'])} folds instead of {settings.n_folds}"
        raise ValueError(msg)
    base = _base(tensors, "base.gene", values["base"], n_genes)
    folds = tuple(_fold(tensors, f"fold{i}", v, settings, n_genes) for i, v in enumerate(values["folds"]))
    weights = _of_shape(tensors, "weights", (len(VARIANTS),), torch.float64).numpy()
    if weights.min() < 0 or weights.sum() > 1 + 1e-9:
        msg = f"the weights {weights.tolist()} are no shares of one"
        raise ValueError(msg)
    detection = _detection(tensors, values["detection"], settings, n_genes) if "detection" in values else None
    return MaskedModel(base, folds, weights, detection)


def _counts_state(model: CountsModel) -> tuple[Tensors, dict[str, Any]]:
    tensors = _named(model.encoding.tensors, "encoding")
    for name, network in zip(network_names(len(model.networks)), model.networks, strict=True):
        tensors |= _named(network.state_dict(), name)
    tensors |= {"dispersion": model.dispersion_EG.cpu().contiguous(), "weights": torch.as_tensor(model.weights_K)}
    facts = {"median_library": model.encoding.median_library, "batches": list(model.batches)}
    facts |= {"n_networks": len(model.networks), "n_components": 0}
    if model.components is not None:
        tensors |= _named(model.components.tensors, "components")
        facts["n_components"] = len(model.components.kept_C)
    return tensors, facts


def _counts_model(tensors: Tensors, values: dict[str, Any], settings: Settings, n_genes: int) -> CountsModel:
    batches = values["batches"]
    if not isinstance(batches, list) or not all(isinstance(name, str) for name in batches) or len(batches) == 1:
        msg = "the names of its batches are no list of several names"
        raise ValueError(msg)
    n_batches, median = max(1, len(batches)), _finite(values["median_library"])
    n_networks = values.get("n_networks", 1)  # one before format 4
    if type(n_networks) is not int or not 1 <= n_networks <= MOST_NETWORKS:
        msg = f"it has {n_networks!r} networks instead of 1 to {MOST_NETWORKS}"
        raise ValueError(msg)
    with torch.device("meta"):
        networks = [build_network(n_genes, n_batches, settings.hidden) for _ in range(n_networks)]
    n_inputs = n_genes + (n_batches if n_batches > 1 else 0)
    shapes = {"centre_I": (n_inputs,), "unit_G": (n_genes,), "log_frequency_KG": (n_batches, n_genes)}
    scales = {name: _of_shape(tensors, f"encoding.{name}", s, torch.float32) for name, s in shapes.items()}
    components = _components(tensors, values.get("n_components", 0), n_genes)  # none before format 5
    n_estimates = len(estimates_with(components))
    dispersion_EG = _of_shape(tensors, "dispersion", (n_estimates, n_genes), torch.float32)
    weights_K = _of_shape(tensors, "weights", (2 * n_estimates,), torch.float64).numpy()
    if weights_K.min() < 0 or abs(weights_K.sum() - 1) > 1e-9 or median <= 0 or dispersion_EG.min() < 0:
        msg = "its weights are no shares of one, or its median library or dispersions are not positive"
        raise ValueError(msg)
    encoding = CountsEncoding(**scales, median_library=median)
    named = zip(networks, network_names(n_networks), strict=True)
    loaded = tuple(gene_by_gene(_loaded(network, tensors, name)) for network, name in named)
    return CountsModel(loaded, encoding, dispersion_EG, weights_K, tuple(batches), components)


def _components(tensors: Tensors, n_components: Any, n_genes: int) -> Components | None:
    if type(n_components) is not int or not 0 <= n_components <= n_genes:
        msg = f"it has {n_components!r} components instead of 0 to {n_genes}"
        raise ValueError(msg)
    if not n_components:
        return None
    shapes = {"direction_GC": (n_genes, n_components), "kept_C": (n_components,)}
    found = {name: _of_shape(tensors, f"components.{name}", shape, torch.float32) for name, shape in shapes.items()}
    if found["kept_C"].min() <= 0 or found["kept_C"].max() > 1:
        msg = "what it keeps of its components are no shares"
        raise ValueError(msg)
    return Components(**found)


def _named(tensors: Tensors, prefix: str) -> Tensors:
    return {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _fold_tensors(fold: Fold) -> Tensors:
    tensors = fold.encoding.tensors
    tensors["base.gene"] = torch.as_tensor(fold.encoding.base.gene_G)
    for variant, network in zip(VARIANTS, fold.networks, strict=True):
        tensors |= _named(network.state_dict(), variant.name)
    return tensors


def _detection_tensors(detection: DetectionModel) -> Tensors:
    encoding = detection.encoding
    rates = {"base.gene": torch.as_tensor(encoding.base.gene_G), "logit": detection.logit_G}
    return encoding.tensors | rates | _named(detection.network.state_dict(), "network")


def _detection(tensors: Tensors, values: dict[str, Any], settings: Settings, n_genes: int) -> DetectionModel:
    encoding = _encoding(tensors, "detection", values, n_genes)
    logit_G = _of_shape(tensors, "detection.logit", (n_genes,), torch.float32)
    with torch.device("meta"):
        network = DETECTION_NETWORK.build(n_genes, settings.hidden)
    if not 0 < _finite(values["shown_share"]) <= 1:
        msg = f"the share of entries shown, {values['shown_share']}, is no share"
        raise ValueError(msg)
    held_out = {name: _finite(values["held_out"][name]) for name in ("n", "model", "base")}
    loaded = _loaded(network, tensors, "detection.network")
    return DetectionModel(encoding, logit_G, values["shown_share"], loaded, held_out)


def _encoding(tensors: Tensors, prefix: str, values: dict[str, Any], n_genes: int) -> Encoding:
    base = _base(tensors, f"{prefix}.base.gene", values["base"], n_genes)
    names = [name for name in Encoding.__annotations__ if name.endswith("_G")]
    scales = {name: _of_shape(tensors, f"{prefix}.{name}", (n_genes,), torch.float32) for name in names}
    return Encoding(**scales, log_count_mean=_finite(values["log_count_mean"]), base=base)


def _fold(tensors: Tensors, prefix: str, values: dict[str, Any], settings: Settings, n_genes: int) -> Fold:
    encoding = _encoding(tensors, prefix, values, n_genes)
    with torch.device("meta"):
        networks = [variant.build(n_genes, settings.hidden) for variant in VARIANTS]
    loaded = tuple(_loaded(n, tensors, f"{prefix}.{v.name}") for n, v in zip(networks, VARIANTS, strict=True))
    return Fold(encoding, loaded)


def _base(tensors: Tensors, name: str, values: dict[str, Any], n_genes: int) -> TwoWayBase:
    gene_G = _of_shape(tensors, name, (n_genes,), torch.float64).numpy()
    base = TwoWayBase.from_json(gene_G, values)
    for value in asdict(base.cell_prior).values():
        _finite(value)
    if min(_finite(base.k_cell), _finite(base.noise_sd), base.cell_prior.spread) <= 0:
        msg = f"the spreads of {name} are not positive"
        raise ValueError(msg)
    return base


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"{str(value)[:40]!r} stands where a finite number belongs"
        raise ValueError(msg)
    return value


def _of_shape(tensors: Tensors, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        msg = f"the tensor {name!r} is {tensor.dtype} {tuple(tensor.shape)} instead of {dtype} {shape}"
        raise ValueError(msg)
    return tensor


def _loaded(network: Autoencoder, tensors: Tensors, prefix: str) -> Autoencoder:
    """Put tensors in the place of the parameters of `network`, which has shapes only."""
    expected = network.state_dict()
    found = {
        name: _of_shape(tensors, f"{prefix}.{name}", tuple(t.shape), torch.float32) for name, t in expected.items()
    }
    network.load_state_dict(found, assign=True)
    return network.requires_grad_(False)
