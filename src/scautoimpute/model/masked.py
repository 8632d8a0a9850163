"""The default recipe of the masked objective, in its four steps: hold out → base → networks → mixture.

Shape legend: N cells, G genes, V held-out entries, K experts (network variants).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .base import TwoWayBase, fit_base
from .checkpoint import Checkpoint
from .inputs import Encoding
from .masked_training import OnEpoch, train_all
from .mixture import mixture_weights
from .network import Autoencoder
from .settings import Settings
from .training import FoldData, HeldOut

if TYPE_CHECKING:
    from .detection import DetectionModel

__all__ = ["Fold", "HeldOutPrediction", "MaskedModel", "fit_masked", "weighed"]

MAX_STOPPING_CELLS = 2000


@dataclass(frozen=True)
class Fold:
    """What was learned with one share of the entries hidden."""

    encoding: Encoding
    networks: tuple[Autoencoder, ...]

    def corrections(self, x_BG: Tensor, observed_BG: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The fold's base and each network's correction to it, all B × G."""
        encoded = self.encoding.encode(x_BG, observed_BG, observed_BG)
        return encoded.base_BG, [net(encoded.input_BI, encoded.side_BS) for net in self.networks]


@dataclass
class MaskedModel:
    """A fitted recipe: the base of all entries, the folds' networks, what each is worth; P(detected) if asked for."""

    base: TwoWayBase
    folds: tuple[Fold, ...]
    weights_K: NDArray[np.float64]
    detection: "DetectionModel | None" = None

    @torch.no_grad()
    def predict(self, x: sparse.csr_array) -> NDArray[np.float32]:
        """Expected log2 expression given detection, N × G; `x` stores the observed entries, of any cells."""
        total_BG = torch.as_tensor(self.base.predict(x), dtype=torch.float32, device=self._device)
        x_BG = self._dense(x)
        observed_BG = (x_BG > 0).float()
        for fold in self.folds if self.weights_K.any() else ():
            _, corrections = fold.corrections(x_BG, observed_BG)
            for weight, correction_BG in zip(self.weights_K, corrections, strict=True):
                total_BG += float(weight) / len(self.folds) * correction_BG
        prediction: NDArray[np.float32] = total_BG.cpu().numpy()
        return prediction

    @torch.no_grad()
    def embed(self, x: sparse.csr_array) -> NDArray[np.float32]:
        """Hidden layer of the first fold's most trusted network, N × H."""
        x_BG = self._dense(x)
        fold, observed_BG = self.folds[0], (x_BG > 0).float()
        encoded = fold.encoding.encode(x_BG, observed_BG, observed_BG)
        embedding: NDArray[np.float32] = (
            fold.networks[int(self.weights_K.argmax())].embed(encoded.input_BI).cpu().numpy()
        )
        return embedding

    def _dense(self, x: sparse.csr_array) -> Tensor:
        return torch.as_tensor(x.toarray(), dtype=torch.float32, device=self._device)

    @property
    def _device(self) -> torch.device:
        return self.folds[0].encoding.gene_G.device

    def to(self, device: torch.device) -> "MaskedModel":
        """Same model on `device`."""
        folds = tuple(Fold(f.encoding.to(device), tuple(net.to(device) for net in f.networks)) for f in self.folds)
        return replace(self, folds=folds, detection=self.detection and self.detection.to(device))


@dataclass(frozen=True)
class HeldOutPrediction:
    """Truth and prediction at entries that took no part in training, stopping or weighting.

    What the simplest alternatives predict is told by `floors`, or follows from what was visible.
    """

    truth_V: NDArray[np.float64]
    model_V: NDArray[np.float64]
    base_V: NDArray[np.float64]
    scoring: list[HeldOut]
    visible: list[sparse.csr_array]
    floors: dict[str, NDArray[np.float64]] | None = None


def fit_masked(
    x: sparse.csr_array,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    *,
    on_epoch: OnEpoch,
    checkpoint: Checkpoint | None = None,
) -> tuple[MaskedModel, HeldOutPrediction]:
    """Hold out, fit the base, train the networks, weigh them.

    Parameters
    ----------
    x
        N × G, observed entries stored (positive).
    on_epoch
        Told the variant, the fold and the record after every epoch, and on going on with a network.
    checkpoint
        Where networks are kept while they are trained, and gone on with.
    """
    assigned_Z = assign_folds(x.nnz, settings, rng)
    splits = [split_fold(x, assigned_Z == index) for index in range(settings.n_folds)]
    visible = [seen for seen, _ in splits]
    halves = [split_held_out(hidden, rng) for _, hidden in splits]
    encodings = [Encoding.fit(seen, fit_base(seen)).to(device) for seen in visible]
    data = [
        FoldData(torch.as_tensor(seen.toarray(), device=device), encoding, stopping)
        for seen, encoding, (stopping, _) in zip(visible, encodings, halves, strict=True)
    ]
    checkpoint = checkpoint or Checkpoint()
    networks = train_all(data, settings, rng, on_epoch=on_epoch, checkpoint=checkpoint)
    return weighed(fit_base(x), [*map(Fold, encodings, networks)], [scored for _, scored in halves], visible)


def assign_folds(n_observed: int, settings: Settings, rng: np.random.Generator) -> NDArray[np.int8]:
    """Disjoint random shares of the observed entries: the fold that each is hidden from, −1 for none."""
    size = max(2, round(settings.held_out_share * n_observed))
    chosen = rng.permutation(n_observed)[: size * settings.n_folds]
    assigned_Z = np.full(n_observed, -1, dtype=np.int8)
    assigned_Z[chosen] = np.arange(len(chosen)) // size
    return assigned_Z


def split_fold(x: sparse.csr_array, hidden_Z: NDArray[np.bool_]) -> tuple[sparse.csr_array, HeldOut]:
    """What a fold sees, and what it does not; `hidden_Z` says which of the stored entries of `x` are hidden."""
    rows_Z, seen_Z = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), ~hidden_Z
    seen = sparse.csr_array((x.data[seen_Z], (rows_Z[seen_Z], x.indices[seen_Z])), shape=x.shape)
    return seen, HeldOut(rows_Z[hidden_Z], x.indices[hidden_Z].astype(np.int64), x.data[hidden_Z])


def split_held_out(hidden: HeldOut, rng: np.random.Generator) -> tuple[HeldOut, HeldOut]:
    """Half of the hidden entries decide when to stop, the other half weigh the networks and score the result."""
    order = rng.permutation(len(hidden.rows))
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    stopping, scored = (HeldOut(hidden.rows[h], hidden.columns[h], hidden.values[h]) for h in halves)
    return _of_some_cells(stopping, rng), scored


def _of_some_cells(held_out: HeldOut, rng: np.random.Generator) -> HeldOut:
    """Entries of at most `MAX_STOPPING_CELLS` cells, enough to see when the error stops falling."""
    cells = np.unique(held_out.rows)
    if len(cells) <= MAX_STOPPING_CELLS:
        return held_out
    chosen = np.isin(held_out.rows, rng.choice(cells, MAX_STOPPING_CELLS, replace=False))
    return HeldOut(held_out.rows[chosen], held_out.columns[chosen], held_out.values[chosen])


def weighed(
    base: TwoWayBase,
    folds: list[Fold],
    scoring: list[HeldOut],
    visible: list[sparse.csr_array],
    floors: dict[str, NDArray[np.float64]] | None = None,
) -> tuple[MaskedModel, HeldOutPrediction]:
    """Model of trained folds, weighed by the entries that were kept for scoring, and what it predicts of these.

    Of every fold are given the entries, and what is visible of the cells that their rows count.
    """
    tables = [table_at_held_out(*of_fold) for of_fold in zip(folds, visible, scoring, strict=True)]
    model = MaskedModel(base, tuple(folds), network_weights(np.concatenate(tables)))
    return model, cross_fitted(tables, scoring, visible, floors)


@torch.no_grad()
def table_at_held_out(fold: Fold, visible: sparse.csr_array, held_out: HeldOut) -> NDArray[np.float64]:
    """Truth, base and each network's correction at the held-out entries: V × (2 + K)."""
    device = fold.encoding.gene_G.device
    columns: list[Any] = []
    for start in range(0, visible.shape[0], 1024):
        inside = (held_out.rows >= start) & (held_out.rows < start + 1024)
        x_BG = torch.as_tensor(visible[start : start + 1024].toarray(), device=device)
        base_BG, corrections = fold.corrections(x_BG, (x_BG > 0).float())
        index = held_out.rows[inside] - start, held_out.columns[inside]
        columns.append([held_out.values[inside], *(t.cpu().numpy()[index] for t in (base_BG, *corrections))])
    return np.concatenate([np.stack(block, axis=1) for block in columns]).astype(np.float64)


def cross_fitted(
    tables: list[NDArray[np.float64]],
    scoring: list[HeldOut],
    visible: list[sparse.csr_array],
    floors: dict[str, NDArray[np.float64]] | None,
) -> HeldOutPrediction:
    """Predict each fold's scoring entries with weights learned on the other folds (of one fold, the other half)."""
    table = np.concatenate(tables)
    group_V = (
        np.repeat(np.arange(len(tables)), [len(t) for t in tables]) if len(tables) > 1 else np.arange(len(table)) % 2
    )
    model_V = table[:, 1].copy()
    for group in np.unique(group_V):
        inside = group_V == group
        model_V[inside] += table[inside, 2:] @ network_weights(table[~inside])
    return HeldOutPrediction(table[:, 0], model_V, table[:, 1], scoring, visible, floors)


def network_weights(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the networks by a table of truth, base and corrections at held-out entries, V × (2 + K)."""
    return mixture_weights(table[:, 2:], table[:, 0] - table[:, 1])
