"""Steps of the counts network: the molecules of some cells parted at random, and the weights moved.

Shape legend: N cells, B cells in a batch, G genes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._ahead import made_ahead
from .counts_dense import dense_counts, dense_inputs, dense_loss, parted
from .counts_inputs import CountsEncoding
from .counts_network import Inputs, Rows, Workspace, hidden_layer, multinomial_loss, offsets, product_type
from .counts_store import CountsStore
from .processes import ALONE, Processes
from .recorded import RecordedStep
from .thinning import thin_values, with_values
from .threads import room_beside

if TYPE_CHECKING:
    from .counts_training import CountsTraining

__all__ = ["CountsData", "Step", "dense_steps", "recorded_step", "sparse_steps"]

SHOWN = (0.3, 0.9)  # share of a cell's molecules in the input; the rest are the target


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


class Step(NamedTuple):
    """What a step came to: cells that it saw, their loss, and the state of the generator after it."""

    n_cells: int
    loss: float
    drawn_to: dict[str, Any]


Parts = Iterable[NDArray[np.intp]]  # rows of each batch


# ------------------------------------------------------------------------------------------ on the processor


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
        shown_Z = thin_values(x.data, share_B, rng, indptr=x.indptr)
        shown, target = (own(with_values(x, values_Z)) for values_Z in (shown_Z, x.data - shown_Z))
        batch_B = own(data.batch_N[rows])
        inputs = Inputs.of(data.encoding.encode(shown, batch_B), data.device)
        of_all = len(rows), float(target.data.sum()), dict(rng.bit_generator.state)
        return cls(inputs, Rows.of(target, data.device), batch_B, *of_all)


def sparse_steps(training: "CountsTraining", data: CountsData, workspace: Workspace, parts: Parts) -> Iterator[Step]:
    """Take a step on each of `parts`, all of it on stored values alone; batches are drawn beside the steps."""
    drawn = (_Batch.drawn(rows, data, training.rng) for rows in parts)
    for batch in made_ahead(drawn, n_ahead=int(room_beside())):
        yield Step(batch.n_cells, _sparse_step(training, data, batch, workspace), batch.drawn_to)


def _sparse_step(training: "CountsTraining", data: CountsData, batch: _Batch, workspace: Workspace) -> float:
    """Return the loss; what it was made from is let go of before the next batch is."""
    net, dtype = training.net, product_type(data.device)
    h_BH = hidden_layer(net, batch.inputs, data.encoding.centre_I)
    offset_BG = offsets(net, data.encoding, batch.batch_B)
    loss = multinomial_loss(h_BH, net.decoder.weight, offset_BG, batch.target, dtype=dtype, workspace=workspace)
    return training.take_step(loss, weight=batch.n_molecules)


# ------------------------------------------------------------------------------------------ on a GPU


def dense_steps(training: "CountsTraining", data: CountsData, recorded: RecordedStep, parts: Parts) -> Iterator[Step]:
    """Take a step on each of `parts`, of dense cells; what is drawn there comes from the training's own generator."""
    for rows in parts:
        batch_B = torch.from_numpy(data.batch_N[rows]).to(data.device)
        loss = recorded(dense_counts(data.visible[rows], data.device), batch_B)
        training.count_step()
        yield Step(len(rows), float(loss), dict(training.rng.bit_generator.state))


def recorded_step(training: "CountsTraining", data: CountsData) -> RecordedStep:
    """Return the step of `dense_steps`, of which each process takes its own share, as in `_Batch`."""
    net, own, encoding, dtype = training.net, data.processes.share, data.encoding, product_type(data.device)

    def descended(x_BG: Tensor, batch_B: Tensor) -> Tensor:
        shown_BG, y_BG = (own(part) for part in parted(x_BG, SHOWN, training.generator))
        own_B = own(batch_B)
        h_BH = net.embed(dense_inputs(shown_BG, own_B, encoding))
        loss = dense_loss(h_BH, net.decoder.weight, offsets(net, encoding, own_B), y_BG, dtype)
        return training.descend(loss, weight=y_BG.sum())

    return RecordedStep(descended, training.generator, size=training.size_recorded)
