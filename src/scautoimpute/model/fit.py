"""From observed entries and settings to a model, its history and its held-out scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from ..metrics.recovery import gene_cell_bias, gene_mean, hide_entries, recovery_scores
from ..progress import progress_bar
from .checkpoint import Checkpoint, digest_of
from .counts import CountsModel
from .counts_fit import counts_plan, fit_counts, n_networks
from .counts_store import CountsRows
from .detection import fit_detection
from .epochs_bar import epochs_bar
from .masked import HeldOutPrediction, MaskedModel, fit_masked
from .masked_many import fit_masked_many
from .masked_store import LogRows, in_memory
from .masked_training import VARIANTS, training_plan
from .paper import PaperModel, fit_paper
from .settings import MANY_CELLS, Settings
from .training import TrainingRecord

if TYPE_CHECKING:
    from .._staging import Staging

__all__ = ["Outcome", "fit_counts_model", "fit_model"]

HISTORY_COLUMNS = ["network", "fold", "epoch", "loss", "held_out_rmse"]
FitMasked = Callable[..., tuple[MaskedModel, HeldOutPrediction]]
COUNTS_COLUMNS = ["network", "fold", "epoch", "loss", "held_out_loss"]
# That a network takes, more or less: of counts 600 (700 cells) to 5,000 (200,000), of logs 300 (10,000) to 1,500
STEPS_OF_COUNTS, STEPS_OF_LOGS = 1500, 800


@dataclass(frozen=True)
class Outcome:
    """What training gives."""

    model: MaskedModel | PaperModel | CountsModel
    history: pd.DataFrame
    held_out: dict[str, Any] | None
    converged: bool


def fit_model(
    x: LogRows,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    *,
    with_detection: bool = False,
    staging: "Staging | None" = None,
) -> Outcome:
    """Train as `settings` say, from where `checkpoint` left off; `x` is cells × genes, the observed entries stored.

    `with_detection` learns the probability of detection too, after and without effect on everything else. Many cells
    are read block by block, and kept in memory or where `staging` says; that aside all are in memory at once.
    """
    checkpoint = checkpoint or Checkpoint()
    if settings.preset is None and x.shape[0] > MANY_CELLS:
        folder = None if staging is None else staging.place_logs(x, settings)
        fit: FitMasked = partial(fit_masked_many, folder=folder)
    else:
        if staging is not None:
            staging.hold_logs(x, settings)
        x = in_memory(x)
        checkpoint.claim(digest_of(x))
        fit = fit_masked
    outcome = (
        _fit_paper(in_memory(x), settings, rng, device, checkpoint)
        if settings.preset == "paper"
        else _fit_default(fit, x, settings, rng=rng, device=device, checkpoint=checkpoint)
    )
    if not with_detection or not isinstance(outcome.model, MaskedModel):
        return outcome
    detection, record = fit_detection(in_memory(x), settings, rng, device, checkpoint=checkpoint)
    model = replace(outcome.model, detection=detection)
    return replace(outcome, model=model, converged=outcome.converged and record.converged)


def fit_counts_model(
    x: CountsRows,
    batch_N: NDArray[np.intp],
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    *,
    batches: tuple[str, ...] = (),
    checkpoint: Checkpoint | None = None,
    staging: "Staging | None" = None,
) -> Outcome:
    """Train the counts objective on counts, cells × genes, of cells whose batch is given as a position in `batches`.

    What is trained on is kept in memory, or where `staging` says.
    """
    n_cells = x.shape[0]
    plan = counts_plan(settings, n_cells)
    with epochs_bar(n_networks(n_cells, settings), plan, n_cells, n_steps=STEPS_OF_COUNTS) as bar:
        place = None if staging is None else staging.place(x, settings, len(batches))
        kept: dict[str, Any] = {"checkpoint": checkpoint, "staging": place}
        model, scores, records = fit_counts(
            x, batch_N, settings, rng, device, batches=batches, on_epoch=bar.show, **kept
        )
    converged = all(record.converged for record in records.values())
    rows = [{"network": network, "fold": 0} | epoch for network, r in records.items() for epoch in r.epochs]
    return Outcome(model, pd.DataFrame(rows, columns=COUNTS_COLUMNS), scores, converged)


def _fit_default(
    fit: FitMasked,
    x: LogRows,
    settings: Settings,
    *,
    rng: np.random.Generator,
    device: torch.device,
    checkpoint: Checkpoint,
) -> Outcome:
    n_cells = x.shape[0]
    plan = training_plan(VARIANTS[0], settings, n_cells)
    with epochs_bar(settings.n_folds * len(VARIANTS), plan, n_cells, n_steps=STEPS_OF_LOGS) as bar:

        def on_epoch(network: str, fold: int, record: TrainingRecord) -> None:
            bar.show(network, record, fold=fold)

        model, prediction = fit(x, settings, rng, device, on_epoch=on_epoch, checkpoint=checkpoint)
    rows = [
        {"network": network, "fold": fold} | epoch
        for (network, fold), r in sorted(bar.records.items())
        for epoch in r.epochs
    ]
    converged = all(record.converged or record.left_behind for record in bar.records.values())
    return Outcome(model, pd.DataFrame(rows, columns=HISTORY_COLUMNS), _scores(prediction), converged)


def _scores(prediction: HeldOutPrediction) -> dict[str, Any]:
    floors = prediction.floors
    if floors is None:
        pairs = zip(prediction.visible, prediction.scoring, strict=True)
        of_folds = [_floors(visible, held_out.rows, held_out.columns) for visible, held_out in pairs]
        floors = {name: np.concatenate([of_fold[name] for of_fold in of_folds]) for name in of_folds[0]}
    truth = prediction.truth_V
    scores = {"model": recovery_scores(truth, np.maximum(prediction.model_V, 0))}
    scores |= {name: recovery_scores(truth, predicted) for name, predicted in floors.items()}
    return {"n": len(truth), **scores, "base": recovery_scores(truth, prediction.base_V)}


def _floors(visible: Any, rows: Any, cols: Any) -> dict[str, Any]:
    """What the simplest alternatives predict at hidden entries."""
    gene, cell = gene_cell_bias(visible)
    return {"gene_mean": gene_mean(visible)[cols], "gene_cell_bias": gene[cols] + cell[rows]}


def _fit_paper(
    x: sparse.csr_array,
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    checkpoint: Checkpoint | None,
) -> Outcome:
    hidden = hide_entries(x, share=settings.held_out_share, random_state=rng) if settings.held_out_share else None
    rows: list[tuple[str, int, int, float, float]] = []
    stopped = False
    with progress_bar(settings.max_epochs, "training (at most)", "step") as bar:

        def on_step(loss_per_cell: float, converged: bool) -> None:
            nonlocal stopped
            stopped = converged
            rows.append(("paper", 0, len(rows) + 1, loss_per_cell, float("nan")))
            bar.update()

        model = fit_paper(hidden.visible if hidden else x, settings, rng, device, on_step, checkpoint=checkpoint)
    scores = None
    if hidden is not None:
        at = hidden.rows, hidden.cols
        predictions = {"model": np.maximum(model.predict(hidden.visible)[at], 0)} | _floors(hidden.visible, *at)
        scores = {"n": len(hidden.truth)} | {k: recovery_scores(hidden.truth, p) for k, p in predictions.items()}
    return Outcome(model, pd.DataFrame(rows, columns=HISTORY_COLUMNS), scores, stopped)
