"""What the verdict rests on: how a run's way of imputing foretells held-out data of a sample, and what harm it does.

Shape suffixes: N cells, G genes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from ..io.matrix import row_sums
from ..metrics._molecules import Impute
from ..metrics.entries import entry_gains, score_entries
from ..metrics.gain import Gain
from ..metrics.recovery import hide_entries
from .harm import Harm, measure_harm, sampled, take
from .imputer import imputer
from .rerun import Way, on_logs

if TYPE_CHECKING:
    from pandas import Index

__all__ = ["HeldOut", "hold_out"]

SHARE = 0.1
ENTRIES_NEEDED = 20


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What `hold_out` returns.

    Attributes
    ----------
    kind
        `"molecules"`, scored by Poisson deviance, or `"entries"`, scored by squared error.
    share
        How many of them were held out.
    gain
        Over what is simpler, as `scautoimpute.trust.judge` takes it.
    rivals
        Gain over each rival that was asked for, by name: negative where the rival does better.
    failed
        Why a rival has none.
    harm
        Measures of harm on the same sample.
    """

    kind: Literal["molecules", "entries"]
    share: float
    gain: dict[str, Gain]
    rivals: dict[str, Gain]
    failed: dict[str, str]
    harm: Harm


def hold_out(
    counts: Any,
    *,
    names: "Index[str]",
    way: Way,
    labels: Any | None,
    rivals: Sequence[str],
    are_molecules: bool,
    max_cells: int,
    max_genes: int,
    random_state: int,
) -> HeldOut:
    """Hold out molecules, or entries where these are no molecules or no expectation is estimated; impute and score.

    Parameters
    ----------
    counts
        Counts of the genes that were modelled, cells × genes; of molecules they are whole.
    names
        Of the genes, for a model that was trained before.
    way
        How the run imputed.
    labels
        Type of each cell, or None.
    rivals
        Names of other methods to compare with.
    are_molecules
        Whether the counts are of molecules.
    max_cells, max_genes
        Size of the sample.
    random_state
        Seed.

    Returns
    -------
    HeldOut
    """
    by_molecules = are_molecules and way.estimates == "expected"
    size: dict[str, Any] = {"max_cells": max_cells, "max_genes": max_genes}
    harm = measure_harm(
        counts,
        impute=way.on_counts(names),
        labels=labels,
        rivals={name: imputer(name) for name in rivals} if by_molecules else None,
        are_molecules=are_molecules,
        held_out_share=SHARE,
        random_state=random_state,
        **size,
    )
    if by_molecules:
        failed = {name: harm.left_out[name] for name in rivals if name in harm.left_out}
        return HeldOut("molecules", SHARE, harm.gain, harm.rivals, failed, harm)
    rng = np.random.default_rng(random_state)
    x, _ = sampled(counts, None, rng=rng, **size)
    gain, compared, failed = _hide(_processed(x), way.on_logs(names), rivals, rng)
    return HeldOut("entries", SHARE, gain, compared, failed, harm)


def _hide(
    log2: Any, impute: Impute, rivals: Sequence[str], rng: np.random.Generator
) -> tuple[dict[str, Gain], dict[str, Gain], dict[str, str]]:
    hidden = hide_entries(log2, share=SHARE, random_state=rng)
    if hidden.truth.size < ENTRIES_NEEDED:
        msg = f"{hidden.truth.size} entries can be hidden and {ENTRIES_NEEDED} are needed to judge: give more cells"
        raise ValueError(msg)
    losses = score_entries(hidden, imputed=impute(hidden.visible, rng))

    def compare(name: str) -> Gain:
        theirs = score_entries(hidden, imputed=on_logs(name)(hidden.visible, rng))["model"]
        return Gain.between(theirs, losses["model"])

    taken, failed = take({name: partial(compare, name) for name in rivals})
    compared = {name: gain for name, gain in taken.items() if gain is not None}
    return entry_gains(hidden, losses=losses), compared, failed


def _processed(counts: Any) -> Any:
    """log2(1 + counts at the median total), as the recipe makes it."""
    total_N = row_sums(counts)
    log2 = sparse.csr_array(counts, dtype=np.float64, copy=True)
    log2.data = np.log2(1 + log2.data * np.repeat(np.median(total_N) / total_N, np.diff(log2.indptr)))
    return log2
