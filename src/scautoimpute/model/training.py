"""The training loop of the default recipe, top to bottom.

Shape legend: N cells, B cells in a batch, G genes, V held-out entries.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .inputs import Encoding, corrupt
from .network import Autoencoder
from .objectives import masked_squared_error
from .optimizer import Optimizer, make_optimizer

__all__ = ["FoldData", "HeldOut", "TrainingPlan", "train_network"]

KEPT_WEIGHT = 0.5  # of the loss at entries that the network was shown, against 1 at those it was not


@dataclass(frozen=True)
class HeldOut:
    """Entries that a fold does not see."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class FoldData:
    """One fold's view of the data: what it sees, dense with zeros elsewhere, and when to stop."""

    visible_NG: Tensor
    encoding: Encoding
    stopping: HeldOut

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values and observed mask of some cells."""
        x_BG = self.visible_NG.index_select(0, rows)
        return x_BG, (x_BG > 0).float()


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train."""

    learning_rate: float
    batch_size: int
    max_epochs: int = 150
    min_gain: float = 2e-4  # relative fall of the held-out error that counts as progress
    patience_epochs: int = 6
    patience_steps: tuple[int, int] = (120, 1200)  # at least and at most so many steps in those epochs
    weight_decay: float = 0.01
    averaging: float = 0.98
    corruption: tuple[float, float] = (0.1, 0.6)
    optimizer: Optimizer = "adamw"

    def patience(self, n_cells: int) -> int:
        """Steps without progress after which training stops; few cells make epochs of few steps."""
        fewest, most = self.patience_steps
        return min(max(self.patience_epochs * math.ceil(n_cells / self.batch_size), fewest), most)


@dataclass
class TrainingRecord:
    """What happened: one row per epoch, and whether the held-out error had stopped falling."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    converged: bool = False


class _Evaluator:
    """Held-out RMSE of a network, on inputs that are prepared once."""

    def __init__(self, data: FoldData) -> None:
        held_out, device = data.stopping, data.visible_NG.device
        cells, row_V = np.unique(held_out.rows, return_inverse=True)
        x_BG, observed_BG = data.batch(torch.as_tensor(cells, device=device))
        self.encoded = data.encoding.encode(x_BG, observed_BG, observed_BG)
        self.index_V = torch.as_tensor(row_V * x_BG.shape[1] + held_out.columns, device=device)
        truth_V = torch.as_tensor(held_out.values, device=device)
        self.residual_V = truth_V - self.encoded.base_BG.flatten()[self.index_V]

    @torch.no_grad()
    def __call__(self, net: Autoencoder | None) -> float:
        if net is None:
            return float(self.residual_V.square().mean().sqrt())
        correction_V = net(self.encoded.input_BI, self.encoded.side_BS).flatten()[self.index_V]
        return float((self.residual_V - correction_V).square().mean().sqrt())


def train_network(
    net: Autoencoder, data: FoldData, plan: TrainingPlan, generator: torch.Generator
) -> Iterator[TrainingRecord]:
    """Train `net` in place on one fold; yield the record after each epoch.

    When the iterator is exhausted `net` holds the averaged weights of the best epoch on the fold's stopping
    entries, or zeroed output weights (the base alone) if no epoch improved on the base.
    """
    record = TrainingRecord()
    evaluate = _Evaluator(data)
    averaged = copy.deepcopy(net).requires_grad_(False)
    optimizer = make_optimizer(plan.optimizer, net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    best, best_error = None, evaluate(None)
    last_gain, step = 0, 0
    n_cells, noise_variance = len(data.visible_NG), data.encoding.base.noise_sd**2
    for epoch in range(1, plan.max_epochs + 1):
        order = torch.randperm(n_cells, generator=generator, device=data.visible_NG.device)
        total = 0.0
        for rows in order.split(plan.batch_size):
            x_BG, observed_BG = data.batch(rows)
            kept_BG, keep_B1 = corrupt(observed_BG, generator, low=plan.corruption[0], high=plan.corruption[1])
            encoded = data.encoding.encode(x_BG, observed_BG, kept_BG, keep_B1)
            y_BG = encoded.base_BG + net(encoded.input_BI, encoded.side_BS)
            weight_BG = observed_BG - (1 - KEPT_WEIGHT) * kept_BG
            loss = masked_squared_error(x_BG, y_BG, weight_BG) / weight_BG.sum().clamp(min=1) / noise_variance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            _average(averaged, net, min(plan.averaging, 1 - 1 / (step + 1)))
            total += float(loss.detach()) * len(rows)
        error = evaluate(averaged)
        record.epochs.append({"epoch": epoch, "loss": total / n_cells, "held_out_rmse": error})
        if error < best_error * (1 - plan.min_gain):
            last_gain = step
        if error < best_error:
            best, best_error, record.best_epoch = copy.deepcopy(averaged.state_dict()), error, epoch
        yield record
        record.converged = step - last_gain >= plan.patience(n_cells)
        if record.converged or not math.isfinite(total):
            break
    _restore(net, best)


@torch.no_grad()
def _average(averaged: Autoencoder, net: Autoencoder, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - decay)


@torch.no_grad()
def _restore(net: Autoencoder, best: dict[str, Tensor] | None) -> None:
    if best is not None:
        net.load_state_dict(best)
        return
    for parameter in (net.decoder.weight, net.decoder.bias, net.side.weight if net.side else None):
        if parameter is not None:
            parameter.zero_()
