"""Labels of batches as the model takes them: positions in a list of names."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_positions", "learned_batches", "refuse_batches"]

MIN_CELLS = 2


def refuse_batches(batch: Any, objective: str) -> None:
    """Refuse labels of batches where they would have no effect."""
    if batch is not None and objective != "counts":
        msg = f"batch= has no effect with objective={objective!r}, which does not model batches: leave it out"
        raise ValueError(msg)


def learned_batches(batch: Any, n_cells: int) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the batch of each cell as a position, and the names; one batch is none.

    Raises
    ------
    ValueError
        If there are not as many labels as cells, some are missing, or a batch has a single cell.
    """
    if batch is None:
        return np.zeros(n_cells, dtype=np.intp), ()
    label_N = _labels(batch, n_cells)
    names, position_N, count = np.unique(label_N, return_inverse=True, return_counts=True)
    if count.min() < MIN_CELLS:
        alone = names[count < MIN_CELLS]
        msg = (
            f"{len(alone)} of {len(names)} batches have a single cell (e.g. {str(alone[0])!r}), from which nothing can "
            "be learned of a batch: merge it with another, or remove the cell"
        )
        raise ValueError(msg)
    return position_N.astype(np.intp), tuple(map(str, names)) if len(names) > 1 else ()


def batch_positions(
    batch: Any, as_batch: str | None, n_cells: int, known: tuple[str, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
    """Return the batch of each cell, and that to estimate for (None for its own), as positions in `known`.

    Raises
    ------
    ValueError
        If the model was trained with batches and none are given, or without and there are some, or a name is not among
        those it was trained on.
    """
    if not known:
        if as_batch is not None:
            msg = f"as_batch={as_batch!r} has no effect on a model trained without batches: leave it out"
            raise ValueError(msg)
        if batch is not None and np.unique(_labels(batch, n_cells)).size > 1:
            msg = (
                "the model was trained without batches, or on a single one, so batch= (batch_key=) has no effect: "
                "leave it out, or train on several"
            )
            raise ValueError(msg)
        return np.zeros(n_cells, dtype=np.intp), None
    if batch is None:
        msg = f"the model was trained on {len(known)} batches (e.g. {known[0]!r}): give the batch of each cell, batch="
        raise ValueError(msg)
    position = {name: index for index, name in enumerate(known)}
    label_N = _labels(batch, n_cells)
    unknown = sorted({*label_N, *([] if as_batch is None else [as_batch])} - position.keys())
    if unknown:
        msg = (
            f"the model knows no batch {unknown[0]!r}; it was trained on {', '.join(map(repr, known[:20]))}: use these"
        )
        raise ValueError(msg)
    position_N = np.array([position[label] for label in label_N], dtype=np.intp)
    return position_N, None if as_batch is None else np.full(n_cells, position[as_batch], dtype=np.intp)


def _labels(batch: Any, n_cells: int) -> NDArray[Any]:
    import pandas as pd

    values = pd.Series(np.asarray(batch))
    if len(values) != n_cells or values.isna().any():
        msg = (
            f"batch= has {len(values)} labels, {int(values.isna().sum())} of them missing, for {n_cells} cells: "
            "give one for each cell"
        )
        raise ValueError(msg)
    labels: NDArray[Any] = values.astype(str).to_numpy(dtype=object)
    return labels
