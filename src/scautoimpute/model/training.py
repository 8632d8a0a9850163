"""The training loop of the default recipe, top to bottom.

Shape legend: N cells, B cells in a batch, G genes, V held-out entries.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .inputs import Encoded, Encoding, corrupt
from .network import Autoencoder
from .objectives import masked_squared_error
from .optimizer import AdamW, Optimizer, load_optimizer, make_optimizer, optimizer_tensors
from .processes import ALONE, Processes
from .recorded import RecordedStep

__all__ = [
    "FoldCells",
    "FoldData",
    "HeldOut",
    "Training",
    "TrainingPlan",
    "TrainingRecord",
    "average_weights",
    "output_of",
    "train_network",
]

KEPT_WEIGHT = 0.5  # of the loss at entries that the network was shown, against 1 at those it was not


@dataclass(frozen=True)
class HeldOut:
    """Entries that a fold does not see."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]


class FoldCells(Protocol):
    """One fold's view of the data: cells to take batches of, what they are encoded by, and when to stop."""

    @property
    def encoding(self) -> Encoding:
        """Scales of the inputs."""

    @property
    def stopping(self) -> HeldOut:
        """Entries that the fold does not see, by which to stop."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values and observed mask of some cells."""


@dataclass(frozen=True)
class FoldData:
    """One fold's view of data in memory: what it sees, dense with zeros elsewhere, and when to stop."""

    visible_NG: Tensor
    encoding: Encoding
    stopping: HeldOut

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.visible_NG.shape[0], self.visible_NG.shape[1]

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
    gains_add_up: bool = False  # whether small falls count when they have come to that, or each has to be as large
    patience_epochs: int = 6
    patience_steps: tuple[int, int] = (120, 1200)  # at least and at most so many steps in those epochs
    weight_decay: float = 0.01
    averaging: float = 0.98
    average_every: int = 1  # steps, so many of which fade by `averaging` each
    corruption: tuple[float, float] = (0.1, 0.9)  # least and most of a cell that is hidden from a step
    optimizer: Optimizer = "adamw"
    product: torch.dtype = torch.float32  # in which matrices are multiplied

    def steps_per_epoch(self, n_cells: int) -> int:
        """Batches that it takes to see every cell once."""
        return math.ceil(n_cells / self.batch_size)

    def patience(self, n_cells: int) -> int:
        """Steps without progress after which training stops; few cells make epochs of few steps."""
        fewest, most = self.patience_steps
        return min(max(self.patience_epochs * self.steps_per_epoch(n_cells), fewest), most)


@dataclass
class TrainingRecord:
    """What happened: one row per epoch, and whether the held-out error had stopped falling, or another's far below."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    converged: bool = False
    left_behind: bool = False


@dataclass
class Training:
    """A network with all that one epoch leaves to the next, which is enough to go on elsewhere, bit for bit.

    Attributes
    ----------
    averaged
        The network whose weights are a running mean of those of `net`.
    best, best_error
        Averaged weights of the best epoch, None while there is none better than the base, and its held-out error.
    counted_error
        Held-out error when it had last fallen enough.
    step, last_gain
        Steps done, and at which of them the error had last fallen enough.
    finished
        Whether `net` holds the final weights.
    processes
        Which of them take every step together.
    """

    net: Autoencoder
    plan: TrainingPlan
    generator: torch.Generator
    record: TrainingRecord = field(default_factory=TrainingRecord)
    best: dict[str, Tensor] | None = None
    best_error: float = math.inf
    counted_error: float = math.inf
    step: int = 0
    last_gain: int = 0
    finished: bool = False
    processes: Processes = ALONE
    error_name: ClassVar[str] = "held_out_rmse"
    _NUMBERS: ClassVar[tuple[str, ...]] = ("best_error", "counted_error", "step", "last_gain")

    def __post_init__(self) -> None:
        plan, self._parameters = self.plan, tuple(self.net.parameters())
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self._averages = tuple(self.averaged.parameters())
        self.optimizer = make_optimizer(
            plan.optimizer,
            self._parameters,
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            relative_rates=self.net.width_factors,
        )

    @property
    def to_beat(self) -> float:
        """Held-out error below which an epoch counts as progress."""
        return (self.counted_error if self.plan.gains_add_up else self.best_error) * (1 - self.plan.min_gain)

    @property
    def size_recorded(self) -> int | None:
        """Rows of the batches that a GPU may repeat: AdamW's state stays in place, and no process waits for another."""
        alone = isinstance(self.optimizer, AdamW) and self.processes.size == 1
        return self.plan.batch_size if alone else None

    @property
    def is_over(self) -> bool:
        """Whether there is no epoch to come."""
        epochs = self.record.epochs
        diverged = bool(epochs) and not math.isfinite(epochs[-1]["loss"])
        return self.record.converged or diverged or len(epochs) >= self.plan.max_epochs

    def begin(self, error: float) -> None:
        """Note the held-out error of the base, before the first step."""
        self.best_error = self.counted_error = error

    def take_step(self, loss: Tensor, *, weight: float | Tensor = 1.0) -> float:
        """Move the weights down the gradient of `loss`, and their running mean after them; return its value.

        Of several processes, each has the loss of its share of the batch, and what that weighs in the mean.
        """
        loss = self.descend(loss, weight=weight)
        self.count_step()
        return float(loss)

    def descend(self, loss: Tensor, *, weight: float | Tensor = 1.0) -> Tensor:
        """Move the weights down the gradient of `loss`, and return it."""
        self.optimizer.zero_grad()
        loss.backward()
        loss = self.processes.mean(loss, self._parameters, weight)
        self.optimizer.step()
        return loss

    def count_step(self) -> None:
        """Count a step that was taken, and move the running mean of the weights after them."""
        self.step += 1
        every = self.plan.average_every
        if self.step % every == 0:
            decay = min(self.plan.averaging**every, 1 - 1 / (self.step // every + 1))
            average_weights(self._averages, self._parameters, decay)

    def add_epoch(self, loss: float, error: float, n_cells: int) -> None:
        """Take note of what an epoch came to."""
        epoch = len(self.record.epochs) + 1
        self.record.epochs.append({"epoch": epoch, "loss": loss, self.error_name: error})
        if error < self.to_beat:
            self.last_gain, self.counted_error = self.step, error
        if error < self.best_error:
            self.best, self.best_error = copy.deepcopy(self.averaged.state_dict()), error
            self.record.best_epoch = epoch
        self.record.converged = self.step - self.last_gain >= self.plan.patience(n_cells)

    def finish(self) -> None:
        """Give `net` its final weights."""
        _restore(self.net, self.best)
        self.finished = True

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors and plain values; of a finished training the final weights are all that is left to keep."""
        values = {"record": asdict(self.record), "finished": self.finished}
        tensors = {"net": self.net.state_dict()}
        if not self.finished:
            values |= {name: getattr(self, name) for name in self._NUMBERS}
            tensors |= {
                "averaged": self.averaged.state_dict(),
                "best": self.best or {},
                "optimizer": optimizer_tensors(self.optimizer),
                "generator": {"state": self.generator.get_state()},
            }
        return tensors, values

    def load_state(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Inverse of `state`, for a training begun alike."""
        self.net.load_state_dict(tensors["net"])
        self.record, self.finished = TrainingRecord(**values["record"]), values["finished"]
        if self.finished:
            return
        self.averaged.load_state_dict(tensors["averaged"])
        self.best = tensors.get("best") or None
        load_optimizer(self.optimizer, tensors["optimizer"])
        self.generator.set_state(tensors["generator"]["state"])
        for name in self._NUMBERS:
            setattr(self, name, values[name])


class _Evaluator:
    """Held-out RMSE of a network, on inputs that are prepared once."""

    def __init__(self, data: FoldCells, product: torch.dtype) -> None:
        held_out, device, self.product = data.stopping, data.encoding.gene_G.device, product
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
        correction_V = output_of(net, self.encoded, self.product).flatten()[self.index_V]
        return float((self.residual_V - correction_V).square().mean().sqrt())


def train_network(training: Training, data: FoldCells) -> Iterator[TrainingRecord]:
    """Train a network in place on one fold, from wherever `training` stands; yield the record after each epoch.

    When the iterator is exhausted the network holds the averaged weights of the best epoch on the fold's stopping
    entries, or zeroed output weights (the base alone) if no epoch improved on the base.
    """
    if training.finished:
        return
    net, plan, generator = training.net, training.plan, training.generator
    evaluate = _Evaluator(data, plan.product)
    if not training.record.epochs:
        training.begin(evaluate(None))
    n_cells, noise_variance = data.shape[0], data.encoding.base.noise_sd**2

    def descended(x_BG: Tensor, observed_BG: Tensor) -> Tensor:
        kept_BG, keep_B1 = corrupt(observed_BG, generator, low=plan.corruption[0], high=plan.corruption[1])
        encoded = data.encoding.encode(x_BG, observed_BG, kept_BG, keep_B1)
        y_BG = encoded.base_BG + output_of(net, encoded, plan.product)
        weight_BG = observed_BG - (1 - KEPT_WEIGHT) * kept_BG
        error = masked_squared_error(x_BG, y_BG, weight_BG)
        return training.descend(error / weight_BG.sum().clamp(min=1) / noise_variance)

    step = RecordedStep(descended, generator, size=training.size_recorded)
    while not training.is_over:
        order = torch.randperm(n_cells, generator=generator, device=generator.device)
        total = 0.0
        for rows in order.split(plan.batch_size):
            loss = step(*data.batch(rows))
            training.count_step()
            total += float(loss) * len(rows)
        training.add_epoch(total / n_cells, evaluate(training.averaged), n_cells)
        yield training.record
    training.finish()


def output_of(net: Autoencoder, encoded: Encoded, product: torch.dtype) -> Tensor:
    """Correction to the base, float32, by products that are made in another type."""
    if product == torch.float32:
        y_BG: Tensor = net(encoded.input_BI, encoded.side_BS)
        return y_BG
    with torch.autocast(encoded.base_BG.device.type, dtype=product):
        return net(encoded.input_BI, encoded.side_BS).float()  # type: ignore[no-any-return]


@torch.no_grad()
def average_weights(averages: tuple[Tensor, ...], weights: tuple[Tensor, ...], decay: float) -> None:
    """Move running means towards the weights that they are of."""
    torch._foreach_lerp_(averages, weights, 1 - decay)


@torch.no_grad()
def _restore(net: Autoencoder, best: dict[str, Tensor] | None) -> None:
    if best is not None:
        net.load_state_dict(best)
        return
    diverged = not all(bool(learned.isfinite().all()) for learned in net.parameters())  # NaN outlives a product with 0
    for part in [net] if diverged else [net.decoder, net.side]:
        for parameter in part.parameters() if part is not None else ():
            parameter.zero_()
