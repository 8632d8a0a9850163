"""The published method, step by step (paper, eqs. 7–9; defaults of the published program).

Full batch, weights from N(0, 1), TensorFlow's RMSProp, stop when the loss per cell changes by no more than a
threshold. No base, no mixture, no held-out entries. Golden files hold it to the original's trajectory.

Shape legend: N cells, G genes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .checkpoint import Checkpoint
from .network import Autoencoder, initialise_normal
from .objectives import masked_squared_error, weight_penalty
from .optimizer import AnyOptimizer, load_optimizer, make_optimizer, optimizer_tensors
from .settings import Settings

__all__ = ["PaperModel", "PaperTraining", "fit_paper", "train_paper"]


@dataclass
class PaperModel:
    """The trained autoencoder of the paper; its raw output is the imputed matrix."""

    network: Autoencoder

    @staticmethod
    def build(n_genes: int, settings: Settings) -> Autoencoder:
        """Network with uninitialised weights."""
        return Autoencoder(n_genes, n_genes, settings.hidden)

    @torch.no_grad()
    def predict(self, x: sparse.csr_array) -> NDArray[np.float32]:
        """Reconstruction of the cells of `x`, N × G, negatives included."""
        prediction: NDArray[np.float32] = self.network(self._dense(x)).cpu().numpy()
        return prediction

    @torch.no_grad()
    def embed(self, x: sparse.csr_array) -> NDArray[np.float32]:
        """Hidden layer, N × H."""
        embedding: NDArray[np.float32] = self.network.embed(self._dense(x)).cpu().numpy()
        return embedding

    def _dense(self, x: sparse.csr_array) -> Tensor:
        return torch.as_tensor(x.toarray(), dtype=torch.float32, device=self.network.decoder.weight.device)

    def to(self, device: torch.device) -> "PaperModel":
        """Same model on `device`."""
        return PaperModel(self.network.to(device))


@dataclass
class PaperTraining:
    """The network with all that one step leaves to the next, which is enough to go on elsewhere, bit for bit."""

    network: Autoencoder
    optimizer: AnyOptimizer
    losses: list[float] = field(default_factory=list)  # per cell, one a step
    converged: bool = False
    finished: bool = False

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors and plain values; of a finished training the optimiser is no longer needed."""
        optimizer = {} if self.finished else optimizer_tensors(self.optimizer)
        values = {name: getattr(self, name) for name in ("losses", "converged", "finished")}
        return {"network": self.network.state_dict(), "optimizer": optimizer}, values

    def load_state(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Inverse of `state`, for a training begun alike."""
        self.network.load_state_dict(tensors["network"])
        self.losses, self.converged, self.finished = (values[n] for n in ("losses", "converged", "finished"))
        if not self.finished:
            load_optimizer(self.optimizer, tensors["optimizer"])


def fit_paper(
    x: sparse.csr_array,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    on_step: Callable[[float, bool], None],
    *,
    checkpoint: Checkpoint | None = None,
) -> PaperModel:
    """Train on the stored entries of `x`.

    Parameters
    ----------
    on_step
        Told the data loss per cell and whether the rule was met, of every step, those done before the start too.
    checkpoint
        Where the network is kept while it is trained, and gone on with.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    network = PaperModel.build(x.shape[1], settings)
    initialise_normal(network, generator)
    network.to(device)
    optimizer = make_optimizer(settings.optimizer, network.parameters(), lr=settings.learning_rate)
    training = PaperTraining(network, optimizer)
    file = (checkpoint or Checkpoint()).network("paper")
    file.load(training)
    for step, loss in enumerate(training.losses, start=1):
        on_step(loss, training.converged and step == len(training.losses))
    if not training.finished:
        x_NG = torch.as_tensor(x.toarray(), dtype=torch.float32, device=device)
        steps = train_paper(
            network,
            x_NG,
            optimizer,
            l2=settings.l2,
            threshold=settings.threshold,
            max_steps=0 if training.converged else settings.max_epochs - len(training.losses),
            previous=training.losses[-1] if training.losses else 0.0,
        )
        for data_loss, training.converged in steps:
            training.losses.append(data_loss / len(x_NG))
            file.keep(training)
            on_step(training.losses[-1], training.converged)
        training.finished = True
        file.keep(training)
    return PaperModel(network.requires_grad_(False))


def train_paper(
    net: Autoencoder,
    x_NG: Tensor,
    optimizer: AnyOptimizer,
    *,
    l2: float = 1.0,
    threshold: float = 1e-4,
    max_steps: int = 7000,
    previous: float = 0.0,
) -> Iterator[tuple[float, bool]]:
    """Train in place; yield after each full-batch step.

    Parameters
    ----------
    x_NG
        Processed matrix; zeros are missing.
    l2
        λ of eq. 8.
    threshold
        Stop once the data term per cell changes by no more than this between steps. As in the published
        program the first comparison is against zero and the step that meets the rule is still applied.
    previous
        Data term per cell of the step before the first, where there was one.

    Yields
    ------
    data_loss, converged
        ‖X − X̃‖² over observed entries before the step, and whether the stop rule was met.
    """
    observed_NG = (x_NG != 0).to(x_NG.dtype)
    for _ in range(max_steps):
        optimizer.zero_grad()
        data_loss = masked_squared_error(x_NG, net(x_NG), observed_NG)
        (data_loss + weight_penalty(net.weights, l2)).backward()
        optimizer.step()
        per_cell = float(data_loss.detach()) / len(x_NG)
        converged = abs(previous - per_cell) <= threshold
        previous = per_cell
        yield float(data_loss.detach()), converged
        if converged:
            return
