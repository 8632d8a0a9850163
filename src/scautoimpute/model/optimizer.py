"""Optimisers, the one of the published program among them."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

__all__ = ["Optimizer", "TFRMSProp", "load_optimizer", "make_optimizer", "optimizer_tensors"]

Optimizer = Literal["adamw", "rmsprop", "tf_rmsprop"]


class TFRMSProp(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 has it, which is what the published program was trained with.

    It differs from torch's in two ways: the accumulator starts at one, and ε stands inside the root,
    v ← v + (1 − ρ)(g² − v), w ← w − lr · g / √(v + ε).

    Parameters
    ----------
    params
        What to update.
    lr, decay, epsilon
        Step, ρ, ε. TensorFlow rounds these to float32 even in float64 graphs; pass rounded values to match it.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, *, decay: float = 0.9, epsilon: float = 1e-10
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            msg = "TFRMSProp.step takes no closure"
            raise ValueError(msg)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["square"] = torch.ones_like(parameter)
            state["root"] = torch.empty_like(parameter)
        square, root = state["square"], state["root"]
        square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        torch.add(square, group["epsilon"], out=root).sqrt_()
        parameter.addcdiv_(gradient, root, value=-group["lr"])


def make_optimizer(
    name: Optimizer, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Optimiser by name; `weight_decay` is AdamW's decoupled one and acts on matrices only."""
    parameters = list(parameters)
    if name == "tf_rmsprop":
        return TFRMSProp(parameters, lr)
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of every parameter by `"{position}.{name}"`; what a parameter group is set to is not part of it."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, named in state.items() for name, tensor in named.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Inverse of `optimizer_tensors`, for an optimiser made alike; moments are laid out in memory as the parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
