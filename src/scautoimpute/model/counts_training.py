"""Training of the counts network, top to bottom: it predicts the molecules that were left out of its input.

Shape legend: N cells, B cells in a batch, G genes, K batches of the experiment.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .counts_dense import inputs_of
from .counts_network import Rows, Workspace, hidden_layer, multinomial_loss, offsets, product_type
from .counts_steps import CountsData, Step, dense_steps, recorded_step, sparse_steps
from .network import Autoencoder
from .training import Training, TrainingRecord

__all__ = ["CountsTraining", "held_out_loss", "train_counts"]

# Cells at a time where nothing is learned: on the processor as many as where something is, so that memory is used
# again; on a GPU more, which would wait for orders
CELLS_PER_BLOCK, CELLS_PER_BLOCK_ON_GPU = 128, 1024
STEPS_BETWEEN = 50  # evaluations of the held-out molecules, each of which takes as long as up to 5 of them
SMALL_GAIN = 0.01  # of what was gained so far, is no reason to go on; checked on ten sets of 140 to 10,000 cells


@dataclass
class CountsTraining(Training):
    """A training whose every draw (order of the cells, thinning) comes from one NumPy generator.

    On a GPU that gives the order alone, and the generator of torch thins. The error is NaN after epochs that were not
    evaluated, which beats nothing.

    Attributes
    ----------
    rng
        The generator, which is ahead of what has been trained on.
    n_done, loss_sum
        Cells that the epoch under way has seen, and the sum of their losses.
    base_error
        Held-out loss before the training.
    """

    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    n_done: int = 0
    loss_sum: float = 0.0
    base_error: float = math.inf
    _epoch_began: dict[str, Any] = field(default_factory=dict)  # state of the generator
    _seen_to: dict[str, Any] = field(default_factory=dict)  # that after the last batch that was trained on
    error_name: ClassVar[str] = "held_out_loss"
    _NUMBERS: ClassVar[tuple[str, ...]] = (*Training._NUMBERS, "n_done", "loss_sum", "base_error")

    @property
    def to_beat(self) -> float:
        """Held-out loss below which an epoch counts as progress: in nats, which have no natural zero."""
        return self.counted_error - max(self.plan.min_gain, SMALL_GAIN * (self.base_error - self.best_error))

    def begin(self, error: float) -> None:
        """As in `Training`, of the gene frequencies."""
        super().begin(error)
        self.base_error = error

    def order(self, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Order of the cells in the epoch under way: the same after a stop within it."""
        bits, now = self.rng.bit_generator, self.rng.bit_generator.state
        if not self.n_done:
            self._epoch_began = dict(now)
        bits.state = self._epoch_began
        order = self.rng.permutation(cells)
        if self.n_done:
            bits.state = now
        self._seen_to = dict(bits.state)
        return order

    def has_seen(self, step: Step) -> None:
        """Note that a batch has been trained on."""
        self.n_done += step.n_cells
        self.loss_sum += step.loss * step.n_cells
        self._seen_to = step.drawn_to

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """As in `Training`, and where in an epoch it is, with the states of the generator."""
        tensors, values = super().state()
        values |= {
            "rng": json.dumps(self._seen_to or self.rng.bit_generator.state),
            "epoch_began": json.dumps(self._epoch_began),
        }
        return tensors, values

    def load_state(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Inverse of `state`."""
        super().load_state(tensors, values)
        self.rng.bit_generator.state = self._seen_to = json.loads(values["rng"])
        self._epoch_began = json.loads(values["epoch_began"])


def train_counts(
    training: CountsTraining, data: CountsData, *, after_step: Callable[[], None] = lambda: None
) -> Iterator[TrainingRecord]:
    """Train a network in place, from wherever `training` stands; yield the record after each epoch.

    When the iterator is exhausted the network holds the averaged weights of the best epoch on the stopping
    molecules, or zeroed output weights (the gene frequencies alone) if no epoch improved on them.
    """
    if training.finished:
        return
    plan, workspace = training.plan, Workspace()
    cells = np.flatnonzero(np.diff(data.visible.indptr))
    epochs_between = math.ceil(STEPS_BETWEEN / plan.steps_per_epoch(len(cells)))
    if data.device.type == "cpu":
        take_steps = partial(sparse_steps, training, data, workspace)
    else:
        take_steps = partial(dense_steps, training, data, recorded_step(training, data))
    if not training.record.epochs:
        training.begin(held_out_loss(None, data))
    while not training.is_over:
        order = training.order(cells)
        parts = (order[at : at + plan.batch_size] for at in range(training.n_done, len(order), plan.batch_size))
        for step in take_steps(parts):
            training.has_seen(step)
            after_step()
        epoch = len(training.record.epochs) + 1
        due = epoch % epochs_between == 0 or epoch == plan.max_epochs
        error = held_out_loss(training.averaged, data, workspace) if due else math.nan
        training.add_epoch(training.loss_sum / len(cells), error, len(cells))
        training.n_done, training.loss_sum = 0, 0.0
        yield training.record
    training.finish()


@torch.no_grad()
def held_out_loss(net: Autoencoder | None, data: CountsData, workspace: Workspace | None = None) -> float:
    """Negative log-likelihood of a held-out molecule; by the gene frequencies if there is no `net`."""
    total, n_molecules, dtype = 0.0, float(data.stopping.sum()), product_type(data.device)
    own = data.processes.part(len(data.stopping_cells))
    size = CELLS_PER_BLOCK if data.device.type == "cpu" else CELLS_PER_BLOCK_ON_GPU
    for start in range(own.start, own.stop, size):
        block = slice(start, min(start + size, own.stop))
        rows, y = data.stopping_cells[block], data.stopping[block]
        batch_B, target = data.batch_N[rows], Rows.of(y, data.device)
        if net is None:
            chosen_B = torch.as_tensor(batch_B, device=data.device)
            log_share_BG = data.encoding.log_frequency_KG.index_select(0, chosen_B)
            loss = -(target.value_Z * log_share_BG.view(-1)[target.positions]).sum() / target.value_Z.sum().clamp(min=1)
        else:
            h_BH = hidden_layer(net, inputs_of(data.visible[rows], batch_B, data.encoding), data.encoding.centre_I)
            offset_BG = offsets(net, data.encoding, batch_B)
            loss = multinomial_loss(h_BH, net.decoder.weight, offset_BG, target, dtype=dtype, workspace=workspace)
        total += float(loss) * float(y.sum())
    return float(data.processes.sum(np.array([total]))[0]) / max(n_molecules, 1.0)
