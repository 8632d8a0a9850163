"""Rare cells: how far imputation pulls them towards the crowd.

Shape suffixes: N cells, G genes. Logs are ln(1 + counts per 10,000).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, special

from ..scales import PER_CELL
from ._molecules import BoolArray, FloatArray, blocks, checked_molecules, columns_of, thinned, totals

__all__ = ["RarePull", "rare_pull", "spike_in"]


@dataclass(frozen=True, slots=True)
class RarePull:
    """What `rare_pull` returns.

    Attributes
    ----------
    n_rare
        Rare cells.
    pull
        0 if the rare type is where the counts have it, 1 if it is amid the crowd; negative if it was pushed away.
    null
        The same of counts that are not imputed, with the molecules split anew.
    limit
        99 % point of the null.
    """

    n_rare: int
    pull: float
    null: FloatArray
    limit: float

    @property
    def harmful(self) -> bool:
        """Whether the rare cells are pulled further than chance moves them."""
        return self.pull > self.limit


def rare_pull(
    counts: Any,
    *,
    after: Any,
    rare: BoolArray,
    reference: Any | None = None,
    n_splits: int = 10,
    random_state: int | np.random.Generator = 0,
) -> RarePull:
    """Measure how far the cells of a rare type are pulled towards all others.

    Mean counts per 10,000 of the rare cells and of the crowd, in logs, span an axis; the distance between the two along
    it after imputation is compared with that before. The axis is taken from molecules that are not otherwise used, or
    from a `reference`: an axis from the same molecules would follow their noise, and lessening that would look like a
    pull.

    Parameters
    ----------
    counts
        Whole counts that were imputed, cells × genes.
    after
        Their imputed logs.
    rare
        Which cells are of the rare type.
    reference
        Held-out molecules or the true expression, cells × genes, for the axis. Half of the molecules of `counts` by
        default: imputation has then seen the noise of the axis, and the pull is a little underestimated.
    n_splits
        Splits of the molecules that the null is drawn from.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    RarePull

    Raises
    ------
    ValueError
        If these are no counts, or there are not at least 2 cells inside and outside the type.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> adata = datasets.simulate(n_cells=200, n_types=2, type_shares=(0.95, 0.05), random_state=0)
    >>> rare = (adata.obs["cell_type"] == "type_2").to_numpy()
    >>> everyone_alike = np.ones(adata.shape)
    >>> round(rare_pull(adata.X, after=everyone_alike, rare=rare).pull, 6)
    1.0
    """
    rng = np.random.default_rng(random_state)
    x, is_rare = checked_molecules(counts), np.asarray(rare, dtype=bool)
    if is_rare.shape != (x.shape[0],) or min(is_rare.sum(), (~is_rare).sum()) < 2:
        msg = f"rare marks {is_rare.sum()} of {x.shape[0]} cells; mark at least 2, and leave at least 2"
        raise ValueError(msg)
    splits = [thinned(x, 0.5, rng) for _ in range(n_splits)]
    axes = [_contrast(half, is_rare) for half, _ in splits]
    others = [_contrast(other, is_rare) for _, other in splits]
    if reference is None:
        reference_axis = np.mean(axes, axis=0)
        start = float(np.mean([a @ b for a, b in zip(axes, others, strict=True)]))
    else:
        reference_axis = _contrast(reference, is_rare)
        start = float(_contrast(x, is_rare) @ reference_axis)
    end = _contrast_of_logs(after, is_rare) @ reference_axis
    null = np.array([_split_pull(a, b, reference_axis) for a, b in zip(axes, others, strict=True)])
    limit = float(special.stdtrit(max(1, n_splits - 1), 0.99) * null.std(ddof=1)) if n_splits > 1 else 0.0
    return RarePull(int(is_rare.sum()), float(1 - end / start) if start > 0 else 0.0, null, limit)


def _split_pull(a_G: FloatArray, b_G: FloatArray, axis_G: FloatArray) -> float:
    """How far one half of the molecules lies from the other along the axis."""
    both = (a_G + b_G) @ axis_G / 2
    return float(1 - (a_G @ axis_G) / both) if both > 0 else 0.0


def _contrast(rates: Any, rare_N: BoolArray) -> FloatArray:
    """Difference of the logs of mean counts per 10,000, rare cells less the crowd."""
    weight_N = PER_CELL / totals(rates)
    mean = [np.asarray((weight_N * kind) @ rates).ravel() / kind.sum() for kind in (rare_N, ~rare_N)]
    contrast: FloatArray = np.log1p(mean[0]) - np.log1p(mean[1])
    return contrast


def _contrast_of_logs(logs: Any, rare_N: BoolArray) -> FloatArray:
    sums = np.zeros((2, logs.shape[1]))
    member = np.stack([rare_N, ~rare_N]).astype(np.float64)
    every = np.arange(logs.shape[1])
    for rows in blocks(*logs.shape):
        sums += member[:, rows] @ np.expm1(columns_of(logs[rows], every))
    mean = sums / member.sum(axis=1, keepdims=True)
    contrast: FloatArray = np.log1p(mean[0]) - np.log1p(mean[1])
    return contrast


def spike_in(
    counts: Any, *, share: float = 0.01, log_fold: float = 1.5, random_state: int | np.random.Generator = 0
) -> tuple[Any, BoolArray]:
    """Add a few cells of a type that the data do not have.

    Their profile is that of all cells with a fifth of the genes changed by log-normal factors; their library sizes are
    those of cells drawn at random.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    share
        Cells to add, as a share of those there are; at least 3.
    log_fold
        Standard deviation of the natural log of the factors.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    The counts with the new cells below, a ``csr_array``, and which cells are new.

    Raises
    ------
    ValueError
        If these are no counts, or the share is not above 0 and at most 1.

    Examples
    --------
    >>> counts, new = spike_in(np.full((200, 10), 5.0), share=0.05)
    >>> counts.shape, int(new.sum())
    ((210, 10), 10)
    """
    if not 0 < share <= 1:
        msg = f"share is {share}; allowed is above 0 and at most 1: give 0.01 to add 1 % of the cells"
        raise ValueError(msg)
    rng = np.random.default_rng(random_state)
    x = checked_molecules(counts)
    n_new = max(3, round(share * x.shape[0]))
    profile = np.asarray(x.sum(axis=0)).ravel()
    changed = rng.random(profile.size) < 0.2
    profile = profile * np.exp(changed * rng.normal(0.0, log_fold, size=profile.size))
    sizes = totals(x)[rng.integers(0, x.shape[0], size=n_new)].astype(np.int64)
    new = rng.multinomial(sizes, profile / profile.sum()).astype(np.float64)
    is_new = np.repeat([False, True], [x.shape[0], n_new])
    return sparse.csr_array(sparse.vstack([x, sparse.csr_array(new)])), is_new
