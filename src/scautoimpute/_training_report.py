"""What a user must be told of a training, before and after."""

import warnings
from typing import Any

import numpy as np

__all__ = ["refuse_few", "refuse_few_molecules", "refuse_too_few", "report_few_cells", "report_training"]

FEW_CELLS = 30
FEWEST_MOLECULES = 200  # of which 5 % are held out, half to stop by and half to weigh by

# What is scored, how it is called, and the floors that must be beaten
_SCORES = {"rmse": ("RMSE", ("gene_mean", "gene_cell_bias")), "deviance": ("deviance", ("gene_mean", "no_imputation"))}


def refuse_too_few(x: Any) -> None:
    """Refuse a matrix with so few entries that nothing can be learned and tested."""
    _refuse_few_entries(x.nnz, x.shape)


def _refuse_few_entries(n_entries: int, shape: tuple[int, int]) -> None:
    if n_entries < 10 or min(shape) < 2:
        msg = (
            f"{n_entries} observed entries in {shape[0]} cells × {shape[1]} genes: at least 10 in 2 × 2 are "
            "needed; give more cells or genes"
        )
        raise ValueError(msg)


def refuse_few_molecules(x: Any) -> None:
    """Refuse counts of which next to none would be held out to judge a training by."""
    refuse_few(x.nnz, int(x.sum(dtype=np.float64)), x.shape)


def refuse_few(n_entries: int, n_molecules: int, shape: tuple[int, int]) -> None:
    """Do so by how many entries and molecules there are in cells × genes."""
    _refuse_few_entries(n_entries, shape)
    if n_molecules < FEWEST_MOLECULES:
        msg = (
            f"{n_molecules} molecules in {shape[0]} cells × {shape[1]} genes: at least {FEWEST_MOLECULES} are "
            "needed, of which a part is held out; give more cells or genes"
        )
        raise ValueError(msg)


def report_few_cells(n_cells: int) -> None:
    """Warn, on behalf of whoever called `scautoimpute.tl.autoimpute`, of so few cells that they show little."""
    if n_cells < FEW_CELLS:
        warnings.warn(f"{n_cells} cells are few for learning structure: judge by the held-out scores", stacklevel=5)


def report_training(scores: dict[str, Any] | None, converged: bool, *, max_epochs: int) -> None:
    """Warn, on behalf of the caller's caller, of a training that did not converge or is no better than a floor."""
    if not converged:
        msg = f"training ended at max_epochs={max_epochs} before it had converged: raise max_epochs"
        warnings.warn(msg, stacklevel=4)
    if scores is None:
        return
    by = next(name for name in _SCORES if name in scores["model"])
    title, floors = _SCORES[by]
    floor = min(floors, key=lambda name: scores[name][by])
    if scores["model"][by] >= scores[floor][by]:
        msg = (
            f"held-out {title} {scores['model'][by]:.4g} is no better than {floor.replace('_', ' ')}'s "
            f"{scores[floor][by]:.4g}: the imputed values carry no structure beyond it; do not rely on them"
        )
        warnings.warn(msg, stacklevel=4)
