"""Training of the counts network, top to bottom: it predicts the molecules that were left out of its input.

Shape legend: N cells, B cells in a batch, G genes, K batches of the experiment.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._ahead import made_ahead
from .counts_inputs import CountsEncoding
from .counts_network import Inputs, Rows, Workspace, hidden_layer, multinomial_loss, offsets, product_type
from .counts_store import CountsStore
from .network import Autoencoder
from .processes import ALONE, Processes
from .thinning import thin_values, with_values
from .threads import room_beside
from .training import Training, TrainingRecord

__all__ = ["CountsData", "CountsTraining", "held_out_loss", "train_counts"]

SHOWN = (0.3, 0.9)  # share of a cell's molecules in the input; the rest are the target
CELLS_PER_BLOCK = 128  # where nothing is learned: as many as where something is, so that memory is used again
STEPS_BETWEEN = 20  # evaluations of the held-out molecules
SMALL_GAIN = 0.01  # of what was gained so far, is no reason to go on; checked on ten sets of 140 to 10,000 cells


@dataclass(frozen=True)
class CountsData:
    """What training sees: visible molecules, N × G, the batch of each cell, and some cells' held-out molecules."""

    visible: CountsStore | sparse.csr_array
    batch_N: NDArray[np.intp]
    encoding: CountsEncoding
    stopping: sparse.csr_array
    stopping_cells: NDArray[np.intp]
    processes: Processes = ALONE

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.encoding.unit_G.device


@dataclass
class CountsTraining(Training):
    """A training whose every draw (order of the cells, thinning) comes from one NumPy generator.

    The error is NaN after epochs that were not evaluated, which beats nothing.

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

    def has_seen(self, batch: "_Batch", loss: float) -> None:
        """Note that a batch has been trained on."""
        self.n_done += batch.n_cells
        self.loss_sum += loss * batch.n_cells
        self._seen_to = batch.drawn_to

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
    steps_per_epoch = math.ceil(len(cells) / plan.batch_size)
    epochs_between = math.ceil(STEPS_BETWEEN / steps_per_epoch)
    if not training.record.epochs:
        training.begin(held_out_loss(None, data))
    while not training.is_over:
        order = training.order(cells)
        parts = (order[at : at + plan.batch_size] for at in range(training.n_done, len(order), plan.batch_size))
        drawn = (_Batch.drawn(rows, data, training.rng) for rows in parts)
        for batch in made_ahead(drawn, n_ahead=int(room_beside(data.device))):
            training.has_seen(batch, _step(training, data, batch, workspace))
            after_step()
        epoch = len(training.record.epochs) + 1
        due = epoch % epochs_between == 0 or epoch == plan.max_epochs
        error = held_out_loss(training.averaged, data, workspace) if due else math.nan
        training.add_epoch(training.loss_sum / len(cells), error, len(cells))
        training.n_done, training.loss_sum = 0, 0.0
        yield training.record
    training.finish()


@dataclass(frozen=True)
class _Batch:
    """What the network is shown of some cells, and the molecules that it has to tell; their numbers.

    Of several processes, each has its share of the cells; all draw for the whole batch, so that what is drawn does not
    depend on how many they are.
    """

    inputs: Inputs
    target: Rows
    batch_B: NDArray[np.intp]
    n_cells: int
    n_molecules: float
    drawn_to: dict[str, Any]  # state of the generator

    @classmethod
    def drawn(cls, rows: NDArray[np.intp], data: CountsData, rng: np.random.Generator) -> "_Batch":
        """Part the molecules of the cells `rows` at random."""
        x, own = data.visible[rows], data.processes.share
        share_B = rng.uniform(*SHOWN, size=len(rows)).astype(np.float32)
        shown_Z = thin_values(x.data, np.repeat(share_B, np.diff(x.indptr)), rng)
        shown, target = (own(with_values(x, values_Z)) for values_Z in (shown_Z, x.data - shown_Z))
        batch_B = own(data.batch_N[rows])
        inputs = Inputs.of(data.encoding.encode(shown, batch_B), data.device)
        of_all = len(rows), float(target.data.sum()), dict(rng.bit_generator.state)
        return cls(inputs, Rows.of(target, data.device), batch_B, *of_all)


def _step(training: CountsTraining, data: CountsData, batch: _Batch, workspace: Workspace) -> float:
    net, dtype = training.net, product_type(data.device)
    h_BH = hidden_layer(net, batch.inputs, data.encoding.centre_I)
    offset_BG = offsets(net, data.encoding, batch.batch_B)
    loss = multinomial_loss(h_BH, net.decoder.weight, offset_BG, batch.target, dtype=dtype, workspace=workspace)
    return training.take_step(loss, weight=batch.n_molecules)


@torch.no_grad()
def held_out_loss(net: Autoencoder | None, data: CountsData, workspace: Workspace | None = None) -> float:
    """Negative log-likelihood of a held-out molecule; by the gene frequencies if there is no `net`."""
    total, n_molecules, dtype = 0.0, float(data.stopping.sum()), product_type(data.device)
    own = data.processes.part(len(data.stopping_cells))
    for start in range(own.start, own.stop, CELLS_PER_BLOCK):
        block = slice(start, min(start + CELLS_PER_BLOCK, own.stop))
        rows, y = data.stopping_cells[block], data.stopping[block]
        batch_B, target = data.batch_N[rows], Rows.of(y, data.device)
        if net is None:
            chosen_B = torch.as_tensor(batch_B, device=data.device)
            log_share_BG = data.encoding.log_frequency_KG.index_select(0, chosen_B)
            loss = -(target.value_Z * log_share_BG.view(-1)[target.positions]).sum() / target.value_Z.sum().clamp(min=1)
        else:
            h_BH = hidden_layer(net, data.encoding.encode(data.visible[rows], batch_B), data.encoding.centre_I)
            offset_BG = offsets(net, data.encoding, batch_B)
            loss = multinomial_loss(h_BH, net.decoder.weight, offset_BG, target, dtype=dtype, workspace=workspace)
        total += float(loss) * float(y.sum())
    return float(data.processes.sum(np.array([total]))[0]) / max(n_molecules, 1.0)
