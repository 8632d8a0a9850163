"""Successive halving: all candidates for few epochs, the best of them for more, the last for as many as they need.

Shape legend: V hidden entries.
"""

import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..autoimpute import AutoImpute
from ..io.matrix import CELLS_PER_BLOCK, row_blocks
from ..metrics.recovery import gene_mean, recovery_scores
from ..progress import progress_bar
from .grid import candidates, plan_rungs, resolved
from .result import Tuning
from .split import Split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Search"]

SCORES = ("rmse", "mae", "nmse")


@dataclass
class Trial:
    """A candidate and how far it has come."""

    settings: dict[str, Any]
    is_default: bool
    rung: int = 0
    max_epochs: int = 0
    epochs: int = 0
    converged: bool = False
    uninterrupted: bool = False  # by a stop rule, in any of its networks
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    predicted_V: Any = None

    def take_over(self, twin: "Trial") -> None:
        """Take the outcome of a training that is the same up to here."""
        for name in ("epochs", "converged", "uninterrupted", "scores", "predicted_V"):
            setattr(self, name, getattr(twin, name))

    def is_twin_of(self, other: "Trial") -> bool:
        """Whether `other` differs in a larger threshold only, which none of its networks has met."""
        same = {**self.settings, "threshold": None} == {**other.settings, "threshold": None}
        return same and other.uninterrupted and self.settings.get("threshold", 0) <= other.settings.get("threshold", 0)


@dataclass(frozen=True)
class Search:
    """What was asked for, checked."""

    preset: str | None
    candidates: list[dict[str, Any]]
    rungs: list[tuple[int, int]]
    device: str
    random_state: int | np.random.Generator
    rng: np.random.Generator

    @classmethod
    def checked(
        cls,
        *,
        n_cells: int,
        preset: str | None,
        grid: "Mapping[str, Sequence[Any]] | None",
        factor: float,
        min_resources: int | None,
        max_resources: int | None,
        device: str,
        random_state: int | np.random.Generator,
    ) -> "Search":
        """Resolve the grid for so many cells and plan the rungs; all other parameters are those of `tune`."""
        found = candidates(grid, preset, n_cells)
        longest = resolved(preset, n_cells, max_epochs=max_resources)["max_epochs"]
        rungs = plan_rungs(len(found), factor=factor, min_resources=min_resources, max_resources=longest)
        return cls(preset, found, rungs, device, random_state, np.random.default_rng(random_state))

    def run(self, split: Split) -> Tuning:
        """Train candidates rung by rung on what is visible; all with one seed, so that they differ in settings only."""
        split.check()
        seed = int(self.rng.integers(2**31))
        trials = [Trial(settings, number == 0) for number, settings in enumerate(self.candidates)]
        running = trials
        with progress_bar(self._n_epochs(), "tuning (at most)", "step" if self.preset else "epoch") as bar:
            for rung, (n_kept, max_epochs) in enumerate(self.rungs):
                running = _foremost(running, n_kept)
                trained: list[Trial] = []
                for trial in sorted(running, key=lambda t: -t.settings.get("threshold", 0)):
                    self._advance(trial, trained, split, seed, max_epochs)
                    trial.rung, trial.max_epochs = rung, max_epochs
                    trained.append(trial)
                    bar.update(max_epochs)
        return self._outcome(trials, split)

    def _n_epochs(self) -> int:
        return sum((n + 1) * max_epochs for n, max_epochs in self.rungs) - self.rungs[0][1]

    def _advance(self, trial: Trial, trained: list[Trial], split: Split, seed: int, max_epochs: int) -> None:
        if trial.converged:
            return
        twin = next((other for other in trained if trial.is_twin_of(other)), None)
        if twin is not None:
            trial.take_over(twin)
            return
        started = time.perf_counter()
        model = AutoImpute(
            preset=self.preset, max_epochs=max_epochs, device=self.device, random_state=seed, **trial.settings
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it has not converged, which is the point
            model.fit(split.visible)
        trained_epochs = model.history_.groupby(["network", "fold"]).size()
        trial.epochs, trial.converged = int(trained_epochs.max()), model.converged_
        trial.uninterrupted = not model.converged_ and int(trained_epochs.min()) == max_epochs
        trial.predicted_V = _predicted(model, split)
        trial.scores = _scores(split.truth_V[~split.untouched_V], trial.predicted_V[~split.untouched_V])
        trial.seconds += time.perf_counter() - started

    def _outcome(self, trials: list[Trial], split: Split) -> Tuning:
        ranked = sorted(trials, key=lambda t: (-t.rung, t.scores["rmse"]))
        best, default, untouched = ranked[0], trials[0], split.untouched_V
        gene_mean_V = gene_mean(split.visible)[split.columns_V]
        predictions = {"best": best.predicted_V, "default": default.predicted_V, "gene_mean": gene_mean_V}
        scores = {name: _scores(split.truth_V[untouched], p[untouched]) for name, p in predictions.items()}
        last = len(self.rungs) - 1
        rows = [
            {**t.settings, "default": t.is_default, "rung": t.rung, "max_epochs": t.max_epochs, "epochs": t.epochs}
            | {"converged": t.converged, **t.scores, "seconds": round(t.seconds, 3)}
            | {"outcome": "best" if t is best else "kept" if t.rung == last else "eliminated"}
            for t in ranked
        ]
        n_untouched = int(np.count_nonzero(untouched))
        return Tuning(
            table=pd.DataFrame(rows),
            best=dict(best.settings),
            scores=scores,
            n_chosen_by=len(untouched) - n_untouched,
            n_untouched=n_untouched,
            **_gain(split, default.predicted_V, best.predicted_V),
            preset=self.preset,
            device=self.device,
            random_state=self.random_state,
        )


def _foremost(running: list[Trial], n_kept: int) -> list[Trial]:
    """Return the `n_kept` best so far, and the defaults in any case; all, before there are scores."""
    if not running[0].scores:
        return running
    ranked = sorted(running, key=lambda t: t.scores["rmse"])
    return [trial for place, trial in enumerate(ranked) if place < n_kept or trial.is_default]


def _predicted(model: AutoImpute, split: Split) -> "NDArray[np.float64]":
    """Estimates at the hidden entries, a block of cells at a time."""
    predicted_V = np.empty(len(split.rows_V))
    for rows in row_blocks(split.visible, CELLS_PER_BLOCK):
        inside = (split.rows_V >= rows.start) & (split.rows_V < rows.stop)
        block = model.impute(split.visible[rows], keep_observed=False)
        predicted_V[inside] = block[split.rows_V[inside] - rows.start, split.columns_V[inside]]
    return predicted_V


def _scores(truth_V: "NDArray[np.float64]", predicted_V: "NDArray[np.float64]") -> dict[str, float]:
    """Errors, infinite for a training that diverged."""
    if not np.isfinite(predicted_V).all():
        return dict.fromkeys(SCORES, np.inf)
    return recovery_scores(truth_V, predicted_V)


def _gain(split: Split, default_V: "NDArray[np.float64]", best_V: "NDArray[np.float64]") -> dict[str, float]:
    """Relative fall of the RMSE, and its standard error: entries of one cell are not independent of each other."""
    inside = split.untouched_V
    truth_V, cells_V = split.truth_V[inside], split.rows_V[inside]
    before_V, after_V = (default_V[inside] - truth_V) ** 2, (best_V[inside] - truth_V) ** 2
    ratio = np.sqrt(after_V.mean() / before_V.mean())
    # Delta method: d√(a/b) = (da - (a/b) db) / (2 b √(a/b))
    per_cell = np.bincount(cells_V, after_V - ratio**2 * before_V)
    standard_error = np.sqrt(per_cell @ per_cell) / len(truth_V) / (2 * ratio * before_V.mean())
    return {"gain": float(1 - ratio), "gain_se": float(standard_error)}
