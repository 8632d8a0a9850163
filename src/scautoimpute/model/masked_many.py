"""The recipe of the masked objective for many cells: its four steps, none of which holds the data in memory at once.

It differs from that for few cells (`scautoimpute.model.masked`) in what makes little difference to many: one fold by
default, larger steps, products in bfloat16 where the processor has them, threads shared among the networks, of which
one that is far behind is not gone on with, and scores on a sample of the cells.

Shape legend: N cells, G genes, V held-out entries.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from .base import fit_base_by
from .base_sums import BlockSums, gene_cell_effects
from .checkpoint import Checkpoint
from .counts_staging import SampledCells
from .inputs import Encoding
from .masked import Fold, HeldOutPrediction, MaskedModel, weighed
from .masked_store import LogRows, StagedFold, StoredFold, stage_folds
from .masked_training import OnEpoch, train_all
from .settings import Settings
from .training import HeldOut

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["fit_masked_many"]


def fit_masked_many(
    x: LogRows,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    *,
    on_epoch: OnEpoch,
    checkpoint: Checkpoint | None = None,
    folder: Path | None = None,
) -> tuple[MaskedModel, HeldOutPrediction]:
    """Hold out, fit the base, train the networks, weigh them.

    Parameters
    ----------
    x
        N × G, observed entries stored (positive); it is read once.
    on_epoch, checkpoint
        As of `scautoimpute.model.masked.fit_masked`.
    folder
        Where entries are kept on disk while networks are trained; in memory by default.
    """
    checkpoint = checkpoint or Checkpoint()
    staged, digest = stage_folds(x, settings, rng, folder=folder)
    checkpoint.claim(digest)
    _refuse_nothing_held_out(staged, settings.held_out_share)
    sums = [BlockSums(fold.store.visible_blocks, x.shape[1]) for fold in staged]
    encodings = [
        Encoding.fit_blocks(fold.store.visible_blocks(), fit_base_by(of_fold)).to(device)
        for fold, of_fold in zip(staged, sums, strict=True)
    ]
    data = [
        StoredFold(fold.store, encoding, _held_out(fold.stopping))
        for fold, encoding in zip(staged, encodings, strict=True)
    ]
    networks = train_all(data, settings, rng, on_epoch=on_epoch, checkpoint=checkpoint)
    visible = [fold.store.visible(fold.scored.cells) for fold in staged]
    scoring = [_held_out(fold.scored, among_them=True) for fold in staged]
    base = fit_base_by(BlockSums(staged[0].store.whole_blocks, x.shape[1]))
    floors = [_floors(*pair) for pair in zip(staged, sums, strict=True)]
    together = {name: np.concatenate([of_fold[name] for of_fold in floors]) for name in floors[0]}
    return weighed(base, [*map(Fold, encodings, networks)], scoring, visible, together)


def _held_out(sample: SampledCells, *, among_them: bool = False) -> HeldOut:
    """Hidden entries of a sample, of which the rows are those of the data, or those `among_them`."""
    x: sparse.csr_array = sample.rows
    cells = np.arange(x.shape[0]) if among_them else sample.cells
    rows_V = np.repeat(cells, np.diff(x.indptr)).astype(np.int64)
    return HeldOut(rows_V, x.indices.astype(np.int64), x.data)


def _floors(fold: StagedFold, sums: BlockSums) -> dict[str, NDArray[np.float64]]:
    """What the simplest alternatives predict at the scored entries."""
    gene_G, cell_N = gene_cell_effects(sums)
    at = _held_out(fold.scored)
    return {"gene_mean": sums.gene_means[at.columns], "gene_cell_bias": gene_G[at.columns] + cell_N[at.rows]}


def _refuse_nothing_held_out(staged: list[StagedFold], share: float) -> None:
    if not all(len(fold.stopping.cells) and len(fold.scored.cells) for fold in staged):
        msg = (
            f"held_out_share={share} of the observed entries leave nothing to stop or to score by: give cells with "
            "more detected genes, or another share"
        )
        raise ValueError(msg)
