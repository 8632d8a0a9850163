"""Progress of trainings whose end nobody knows beforehand: what is left is a guess, which gets better as they end."""

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import progress_bar
from .training import TrainingPlan, TrainingRecord

__all__ = ["EpochsBar", "epochs_bar"]

# Epochs that a training is thought to end with, to those it has, where these are more than was guessed
GOING_ON = 1.1


class EpochsBar:
    """A bar over the epochs of several networks, whose length is what they are thought to take.

    Parameters
    ----------
    bar
        Of tqdm.
    n_networks
        How many will be trained.
    typical
        Epochs that one takes, as long as none has ended; then it is the mean of those that have.
    at_most
        Epochs after which one ends.

    Attributes
    ----------
    records
        What the trainings that were shown have come to, by network and fold.
    """

    def __init__(self, bar: Any, n_networks: int, *, typical: float, at_most: int) -> None:
        self._bar, self._n_networks, self._typical, self._at_most = bar, n_networks, typical, at_most
        self.records: dict[tuple[str, int], TrainingRecord] = {}
        self._lock = threading.Lock()

    def show(self, network: str, record: TrainingRecord, *, fold: int = 0) -> None:
        """Note what a network's training came to; several threads may."""
        with self._lock:
            self.records[network, fold] = record
            n_done = sum(len(r.epochs) for r in self.records.values())
            self._bar.total = max(round(self.expected), n_done)
            self._bar.update(n_done - self._bar.n)

    @property
    def expected(self) -> float:
        """Epochs that all networks together are thought to take."""
        ended = [len(r.epochs) for r in self.records.values() if self._has_ended(r)]
        begun = [len(r.epochs) for r in self.records.values() if not self._has_ended(r)]
        typical = statistics.fmean(ended) if ended else self._typical
        going_on = (min(max(typical, GOING_ON * n), self._at_most) for n in begun)
        return sum(ended) + sum(going_on) + typical * (self._n_networks - len(self.records))

    def _has_ended(self, record: TrainingRecord) -> bool:
        return record.converged or record.left_behind or len(record.epochs) >= self._at_most


@contextmanager
def epochs_bar(n_networks: int, plan: TrainingPlan, n_cells: int, *, n_steps: int) -> Iterator[EpochsBar]:
    """Show the bar of trainings that are thought to take `n_steps` each.

    Parameters
    ----------
    n_networks
        How many will be trained.
    plan, n_cells
        How each is, and on how many cells.
    n_steps
        Of each.
    """
    typical = min(max(1.0, n_steps / plan.steps_per_epoch(n_cells)), plan.max_epochs)
    with progress_bar(round(n_networks * typical), "training (about)", "epoch") as bar:
        yield EpochsBar(bar, n_networks, typical=typical, at_most=plan.max_epochs)
