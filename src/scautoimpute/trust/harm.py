"""Every measure of harm on one data set and one method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._counts import has_fractions, refuse_values
from ..metrics._molecules import Impute, checked_molecules, logs_of
from ..metrics.expression import FalseMarkers, NullExpression, false_markers, null_differential_expression
from ..metrics.gain import Gain, HeldOutMolecules, gains, held_out_molecules, score_molecules
from ..metrics.rare import RarePull, rare_pull, spike_in
from ..metrics.signals import PermutedCorrelations, SilentMarkers, permuted_correlations, silent_markers
from ..metrics.smoothing import CorrelationShift, NeighbourVariance, correlation_shift, neighbour_variance_share
from .structure import fine_clusters

__all__ = ["Harm", "measure_harm", "sampled", "take"]


@dataclass(frozen=True, slots=True)
class Harm:
    """What `measure_harm` returns; None where the data do not allow a measure, as `left_out` says.

    Attributes
    ----------
    gain
        Over ``gene_mean``, ``own_counts`` and ``none``, on held-out molecules; empty if these are no molecules.
    rivals
        Gain over each rival on the same molecules; negative where the rival foretells them better.
    permuted, halves, markers, silent
        Of invented signals.
    correlations, neighbours, rare
        Of over-smoothing.
    left_out
        Why a measure, or a rival, is missing, by its name.
    n_cells, n_genes
        Of the data measured.
    """

    gain: dict[str, Gain]
    rivals: dict[str, Gain]
    permuted: PermutedCorrelations | None
    halves: NullExpression | None
    markers: FalseMarkers | None
    silent: SilentMarkers | None
    correlations: CorrelationShift | None
    neighbours: NeighbourVariance | None
    rare: RarePull | None
    left_out: dict[str, str]
    n_cells: int
    n_genes: int

    @property
    def found(self) -> dict[str, bool]:
        """Whether each measure taken is beyond its null."""
        names = ("permuted", "halves", "markers", "silent", "correlations", "neighbours", "rare")
        taken = {name: getattr(self, name) for name in names}
        return {name: bool(measure.harmful) for name, measure in taken.items() if measure is not None}


def measure_harm(
    counts: Any,
    *,
    impute: Impute,
    labels: Any | None = None,
    rivals: Mapping[str, Impute] | None = None,
    are_molecules: bool = True,
    held_out_share: float = 0.1,
    max_cells: int = 2000,
    max_genes: int = 1000,
    random_state: int | np.random.Generator = 0,
) -> Harm:
    """Run a method on held-out, permuted and spiked data, and take every measure of harm.

    Parameters
    ----------
    counts
        Counts, cells × genes. Of values that are not whole numbers nothing is measured, and they are no molecules.
    impute
        The method: counts and a Generator to dense logs, as `imputer` makes it.
    labels
        Type of each cell. Without them what needs types is left out, but for `halves`, which are of a cluster.
    rivals
        Other methods by name, in the form of `impute`, to foretell the same held-out molecules.
    are_molecules
        Whether the counts are of molecules. Reads cannot be held out one by one (their copies stay): what would need
        that is left out.
    held_out_share
        Share of the molecules to hold out.
    max_cells, max_genes
        Sample so many cells, and take so many genes with the most molecules: time and memory are those of four
        imputations of that size.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    Harm

    Raises
    ------
    ValueError
        If these are no counts, or are to be molecules and are not whole.

    Examples
    --------
    >>> from scautoimpute import datasets, trust
    >>> adata = datasets.simulate(n_cells=120, n_genes=100, random_state=0)
    >>> harm = trust.measure_harm(adata.X, impute=trust.imputer("none"), labels=adata.obs["cell_type"])
    >>> harm.permuted.harmful, harm.left_out
    (False, {})
    """
    rng = np.random.default_rng(random_state)
    x, label_N = sampled(counts, labels, max_cells=max_cells, max_genes=max_genes, rng=rng)
    refuse_values(x)
    is_whole = not has_fractions(x)
    split = held_out_molecules(x, share=held_out_share, random_state=rng) if are_molecules else None
    kept = split.kept if split else checked_molecules(x) if is_whole else x
    after = impute(kept, rng) if is_whole else None
    measures = _measures(kept, split, after, label_N=label_N, impute=impute, rng=rng)
    taken, left_out = take(measures if is_whole else dict.fromkeys(measures, _not_whole))
    deviance = {} if split is None else score_molecules(split, imputed=after)
    gain = {} if split is None else gains(split, deviance)
    over, failed = ({}, {}) if split is None else _over_rivals(split, deviance["model"], rivals or {}, rng)
    return Harm(
        gain=gain,
        rivals=over,
        left_out=left_out | failed,
        n_cells=x.shape[0],
        n_genes=x.shape[1],
        **taken,
    )


def _measures(
    kept: Any, split: HeldOutMolecules | None, after: Any, *, label_N: Any, impute: Impute, rng: np.random.Generator
) -> dict[str, Callable[[], Any]]:
    """Every measure, to be called."""
    return {
        "permuted": lambda: permuted_correlations(kept, impute=impute, random_state=rng),
        "halves": lambda: _halves(kept, after, label_N, rng),
        "markers": lambda: false_markers(kept, labels=_known(label_N), impute=impute, random_state=rng),
        "silent": lambda: silent_markers(kept, after=after, labels=_known(label_N)),
        "correlations": lambda: correlation_shift(_divisible(kept, split), after=after, random_state=rng),
        "neighbours": lambda: neighbour_variance_share(_divisible(kept, split), after=after, random_state=rng),
        "rare": lambda: _spiked(_divisible(kept, split), split, impute, rng),
    }


def _not_whole() -> None:
    msg = "the values are not whole numbers, and this is measured on counts"
    raise ValueError(msg)


def _divisible(kept: Any, split: HeldOutMolecules | None) -> Any:
    if split is None:
        msg = "reads are not divided as molecules are: the halves of their copies are not independent"
        raise ValueError(msg)
    return kept


def _over_rivals(
    split: HeldOutMolecules, model: NDArray[np.float64], rivals: Mapping[str, Impute], rng: np.random.Generator
) -> tuple[dict[str, Gain], dict[str, str]]:
    """Compare with each rival; one that cannot do these data says why."""

    def compare(rival: Impute) -> Gain:
        return Gain.between(score_molecules(split, imputed=rival(split.kept, rng))["model"], model)

    taken, failed = take({name: partial(compare, rival) for name, rival in rivals.items()})
    return {name: gain for name, gain in taken.items() if gain is not None}, failed


def take(measures: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Call every measure; one that says that the data do not allow it is None."""
    taken: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, measure in measures.items():
        try:
            taken[name] = measure()
        except (ValueError, ImportError, MemoryError) as error:
            taken[name], left_out[name] = None, str(error)
    return taken, left_out


def _known(label_N: Any | None) -> Any:
    if label_N is None:
        msg = "no types are known: give labels"
        raise ValueError(msg)
    return label_N


def _halves(kept: Any, after: Any, label_N: Any | None, rng: np.random.Generator) -> NullExpression:
    """Split the most frequent type, or the largest of fine clusters where no types are known."""
    logs = logs_of(kept)
    cells = np.flatnonzero(_largest(fine_clusters(logs.toarray(), rng=rng) if label_N is None else label_N))
    return null_differential_expression(logs[cells], after=after[cells], random_state=rng)


def _largest(label_N: Any) -> NDArray[np.bool_]:
    names, sizes = np.unique(label_N, return_counts=True)
    largest: NDArray[np.bool_] = label_N == names[sizes.argmax()]
    return largest


def _spiked(kept: Any, molecules: Any, impute: Impute, rng: np.random.Generator) -> RarePull:
    """Hold molecules out of data with a rare type added, impute, compare along the axis of the held-out ones."""
    counts, is_new = spike_in(kept + molecules.held_out, random_state=rng)
    split = held_out_molecules(counts, share=0.2, random_state=rng)
    return rare_pull(split.kept, after=impute(split.kept, rng), rare=is_new, reference=split.held_out, random_state=rng)


def sampled(
    counts: Any, labels: Any | None, *, max_cells: int, max_genes: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    """Return a random part of the cells, with their labels, and the genes with the most molecules in it.

    Parameters
    ----------
    counts, labels
        Cells × genes, and the type of each cell or None.
    max_cells, max_genes
        How many to keep.
    rng
        Generator to draw from.

    Returns
    -------
    A ``csr_array`` and the labels; cells and genes stay in their order. Cells without molecules are left out.
    """
    n_cells = counts.shape[0]
    cells = np.sort(rng.choice(n_cells, size=min(max_cells, n_cells), replace=False))
    x = sparse.csr_array(counts[cells], dtype=np.float64)
    total_G = np.asarray(x.sum(axis=0)).ravel()
    x = x[:, np.sort(np.argsort(-total_G, kind="stable")[:max_genes])]
    filled = np.flatnonzero(np.diff(x.indptr))
    return x[filled], None if labels is None else np.asarray(labels).astype(str)[cells][filled]
