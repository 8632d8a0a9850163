"""Whether a gene is detected in a cell: what turns expression given detection into expected expression.

The masked objective estimates E[x | detected]. Over all entries, zeros included, E[x] = P(detected) · E[x | detected].
P is learned here, in the recipe's own steps: hold out entries whatever their value → base (logits of the gene's and
the cell's detection rates) → network that improves on it, or is zeroed where it does not. An entry that is hidden
looks to the network like one that was not detected, so it cannot copy an entry's own state.

Shape legend: N cells, B cells in a batch, G genes, V held-out entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from .base import fit_base
from .checkpoint import Checkpoint
from .inputs import Encoding, corrupt
from .masked import MAX_STOPPING_CELLS
from .masked_training import VARIANTS, training_plan
from .network import Autoencoder
from .settings import Settings
from .training import FoldData, HeldOut, Training, TrainingRecord

__all__ = ["DETECTION_NETWORK", "DetectionModel", "fit_detection", "shrunken_rates"]

DETECTION_NETWORK = VARIANTS[1]  # the centred one, which starts without a gene effect of its own
LOWEST_RATE = 1e-3  # logits stay finite
PRIOR_COUNTS = (1.0, 200.0)  # cells behind the prior of a gene's rate: at least and at most


@dataclass(frozen=True)
class DetectionModel:
    """P(detected) of every gene in every cell, also in cells never seen.

    Attributes
    ----------
    encoding
        What the network sees of a cell.
    logit_G
        Logit of each gene's share of cells in which it was detected, shrunken.
    shown_share
        Share of the entries that training saw: a cell shown whole has more detected genes than one in training.
    network
        Its output is added to the logits.
    held_out
        `n` entries hidden whatever their value, and the cross-entropy (nats per entry) of the predicted probability
        there: of the `model` and of the `base`, which has no network.
    """

    encoding: Encoding
    logit_G: Tensor
    shown_share: float
    network: Autoencoder
    held_out: dict[str, Any]

    @torch.no_grad()
    def predict(self, x: sparse.csr_array) -> NDArray[np.float32]:
        """Probability of detection, N × G, for cells whose detected entries `x` stores."""
        x_BG = torch.as_tensor(x.toarray(), dtype=torch.float32, device=self.logit_G.device)
        observed_BG = (x_BG > 0).float()
        base_BG, encoded_BG = self.logits(self.network, x_BG, observed_BG, observed_BG, 1 / self.shown_share)
        probability: NDArray[np.float32] = torch.sigmoid(base_BG + encoded_BG).cpu().numpy()
        return probability

    def logits(
        self, net: Autoencoder, x_BG: Tensor, observed_BG: Tensor, kept_BG: Tensor, keep_B1: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Logits by the rates of gene and cell, and what `net` adds to them; arguments as in `Encoding.encode`."""
        encoded = self.encoding.encode(x_BG, observed_BG, kept_BG, keep_B1)
        rate_B1 = kept_BG.sum(1, keepdim=True) / (keep_B1 * self.shown_share * kept_BG.shape[1])
        cell_B1 = torch.logit(rate_B1.clamp(LOWEST_RATE, 1 - LOWEST_RATE))
        base_BG = self.logit_G + cell_B1 - torch.logit(torch.sigmoid(self.logit_G).mean())
        return base_BG, net(encoded.input_BI, encoded.side_BS)

    def to(self, device: torch.device) -> "DetectionModel":
        """Same model on `device`."""
        return replace(
            self,
            encoding=self.encoding.to(device),
            logit_G=self.logit_G.to(device),
            network=self.network.to(device),
        )


def fit_detection(
    x: sparse.csr_array,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[DetectionModel, TrainingRecord]:
    """Hold out, fit the base, train the network.

    Parameters
    ----------
    x
        N × G, detected entries stored (positive).
    checkpoint
        Where the network is kept while it is trained, and gone on with.
    """
    known_NG = rng.random(x.shape, dtype=np.float32) >= settings.held_out_share
    x_NG = x.toarray()
    visible = sparse.csr_array(x_NG * known_NG)
    detected_G, known_G = np.diff(visible.tocsc().indptr), known_NG.sum(0)
    rate_G = shrunken_rates(detected_G, known_G)
    cells, stopping, scored = _hidden_entries(x_NG, known_NG, rng)
    seen = visible[cells]
    encoding = Encoding.fit(visible, fit_base(visible)).to(device)
    data = FoldData(torch.as_tensor(x_NG, device=device), encoding, stopping)
    network, generator = DETECTION_NETWORK.start(data, settings.hidden, int(rng.integers(2**63)))
    logit_G = torch.as_tensor(np.log(rate_G / (1 - rate_G)), dtype=torch.float32, device=device)
    model = DetectionModel(encoding, logit_G, 1 - settings.held_out_share, network, {})
    training = Training(network, training_plan(DETECTION_NETWORK, settings, x.shape[0]), generator)
    file = (checkpoint or Checkpoint()).network("detection")
    file.load(training)
    for _ in _train(training, model, data, torch.as_tensor(known_NG, device=device), seen):
        file.keep(training)
    file.keep(training)
    network.requires_grad_(False)
    scores = [_loss(model, net, seen, scored) for net in (network, None)]
    held_out = {"n": len(scored.rows), "model": scores[0], "base": scores[1]}
    return replace(model, held_out=held_out), training.record


def shrunken_rates(detected_G: NDArray[Any], known_G: NDArray[Any]) -> NDArray[np.float64]:
    """Posterior mean detection rates under a beta prior whose mean and weight come from all genes, by moments."""
    raw_G = detected_G / np.maximum(known_G, 1)
    mean, variance = raw_G.mean(), max(float(raw_G.var()), 1e-9)
    k = np.clip(mean * (1 - mean) / variance - 1, *PRIOR_COUNTS)
    rate_G: NDArray[np.float64] = (detected_G + k * mean) / (known_G + k)
    return np.clip(rate_G, LOWEST_RATE, 1 - LOWEST_RATE)


def _hidden_entries(
    x_NG: NDArray[np.float32], known_NG: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int64], HeldOut, HeldOut]:
    """Some cells and their hidden entries, by position among them: half decide when to stop, the others score."""
    n_cells = x_NG.shape[0]
    cells = np.sort(rng.choice(n_cells, min(n_cells, MAX_STOPPING_CELLS), replace=False))
    rows_V, columns_V = np.nonzero(~known_NG[cells])
    values_V = x_NG[cells[rows_V], columns_V]
    first_V = rng.random(len(rows_V)) < 0.5
    stopping, scored = (HeldOut(rows_V[half], columns_V[half], values_V[half]) for half in (first_V, ~first_V))
    return cells, stopping, scored


def _train(
    training: Training, model: DetectionModel, data: FoldData, known_NG: Tensor, seen: sparse.csr_array
) -> Iterator[TrainingRecord]:
    """Train in place on hidden entries, detected or not, from wherever `training` stands; yield after each epoch."""
    if training.finished:
        return
    net, plan, generator = training.net, training.plan, training.generator
    n_cells = len(known_NG)
    if not training.record.epochs:
        training.begin(_loss(model, None, seen, data.stopping))
    while not training.is_over:
        order = torch.randperm(n_cells, generator=generator, device=known_NG.device)
        total = 0.0
        for rows in order.split(plan.batch_size):
            x_BG, detected_BG = data.batch(rows)
            known_BG = known_NG.index_select(0, rows).float()
            shown_BG, keep_B1 = corrupt(known_BG, generator, low=plan.corruption[0], high=plan.corruption[1])
            base_BG, added_BG = model.logits(net, x_BG, detected_BG * known_BG, detected_BG * shown_BG, keep_B1)
            hidden_BG = known_BG - shown_BG
            loss = binary_cross_entropy_with_logits(base_BG + added_BG, detected_BG, hidden_BG, reduction="sum")
            loss = loss / hidden_BG.sum().clamp(min=1)
            total += training.take_step(loss) * len(rows)
        training.add_epoch(total / n_cells, _loss(model, training.averaged, seen, data.stopping), n_cells)
        yield training.record
    training.finish()


@torch.no_grad()
def _loss(model: DetectionModel, net: Autoencoder | None, seen: sparse.csr_array, held_out: HeldOut) -> float:
    """Cross-entropy (nats per entry) at held-out entries; of the base alone without `net`."""
    x_BG = torch.as_tensor(seen.toarray(), device=model.logit_G.device)
    observed_BG = (x_BG > 0).float()
    base_BG, added_BG = model.logits(net or model.network, x_BG, observed_BG, observed_BG, 1.0)
    logit_BG = base_BG if net is None else base_BG + added_BG
    at = tuple(torch.as_tensor(index, device=logit_BG.device) for index in (held_out.rows, held_out.columns))
    detected_V = torch.as_tensor(held_out.values > 0, device=logit_BG.device).float()
    return float(binary_cross_entropy_with_logits(logit_BG[at], detected_V))
