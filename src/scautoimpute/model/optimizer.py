"""Optimisers, the one of the published program among them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.adamw import adamw

__all__ = ["AdamW", "AnyOptimizer", "Optimizer", "TFRMSProp", "load_optimizer", "make_optimizer", "optimizer_tensors"]

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


class AdamW:
    """torch's fused AdamW, of which every parameter is stepped through in the order of its memory.

    It is called as a function: what torch has as a class copies matrices that are stored transposed at every step, and
    takes a second to import its compiler before the first. Its state is of the matrices as they are in memory.

    Parameters
    ----------
    parameters
        What to update.
    lr, weight_decay
        Step, and the decoupled decay of matrices, which lose lr · weight_decay of themselves at each.
    relative_rates
        Factors of `lr`, one for each parameter; decay does not depend on them.
    """

    def __init__(
        self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, relative_rates: Sequence[float]
    ) -> None:
        self.parameters, self._groups = parameters, dict[tuple[float, float], list[int]]()
        for index, (p, rate) in enumerate(zip(parameters, relative_rates, strict=True)):
            self._groups.setdefault((lr * rate, weight_decay / rate if p.ndim > 1 else 0.0), []).append(index)
        self.state = {index: self._begun(_in_order(p, p.detach())) for index, p in enumerate(parameters)}

    @staticmethod
    def _begun(values: torch.Tensor) -> dict[str, torch.Tensor]:
        step = torch.zeros((), device=values.device)
        return {"step": step, "exp_avg": torch.zeros_like(values), "exp_avg_sq": torch.zeros_like(values)}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for (lr, weight_decay), members in self._groups.items():
            of_group = ((self.parameters[index], self.state[index]) for index in members)
            having = [(p, p.grad, state) for p, state in of_group if p.grad is not None]
            adamw(
                [_in_order(p, p) for p, _, _ in having],
                [_in_order(p, gradient).contiguous() for p, gradient, _ in having],
                [state["exp_avg"] for _, _, state in having],
                [state["exp_avg_sq"] for _, _, state in having],
                max_exp_avg_sqs=[],
                state_steps=[state["step"] for _, _, state in having],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=weight_decay,
                eps=1e-8,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State of each parameter by its position, as torch's optimisers have it."""
        return {"state": self.state, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for index, named in state_dict["state"].items():
            for name, tensor in named.items():
                self.state[index][name].copy_(tensor)


def _in_order(parameter: nn.Parameter, values: torch.Tensor) -> torch.Tensor:
    """Values of a parameter, transposed if that is how the parameter is stored."""
    return values if parameter.is_contiguous() else values.t()


AnyOptimizer = torch.optim.Optimizer | AdamW


def make_optimizer(
    name: Optimizer,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float = 0.0,
    relative_rates: Sequence[float] | None = None,
) -> AnyOptimizer:
    """Optimiser by name.

    Parameters
    ----------
    name
        Which.
    parameters
        What to update.
    lr, weight_decay
        Step, and AdamW's decoupled decay, which acts on matrices only.
    relative_rates
        Factors of `lr`, one for each parameter; all 1 by default.
    """
    parameters = list(parameters)
    rates = [1.0] * len(parameters) if relative_rates is None else relative_rates
    if name == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=weight_decay, relative_rates=rates)
    groups: Any = [{"params": [p], "lr": lr * rate} for p, rate in zip(parameters, rates, strict=True)]
    return TFRMSProp(groups, lr) if name == "tf_rmsprop" else torch.optim.RMSprop(groups, lr)


def optimizer_tensors(optimizer: AnyOptimizer) -> dict[str, torch.Tensor]:
    """State of every parameter by `"{position}.{name}"`; what a parameter group is set to is not part of it."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, named in state.items() for name, tensor in named.items()}


def load_optimizer(optimizer: AnyOptimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Inverse of `optimizer_tensors`, for an optimiser made alike."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
