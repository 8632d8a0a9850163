"""Held-out molecules: whether imputation foretells what was never shown to it, and better than what.

Shape suffixes: N cells, G genes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._molecules import FloatArray, Impute, blocks, checked_molecules, totals
from .counts import thin

__all__ = ["Gain", "HeldOutMolecules", "gains", "held_out_molecules", "molecule_gain", "score_molecules"]

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the model beside a cell's own counts


@dataclass(frozen=True, slots=True)
class HeldOutMolecules:
    """What `held_out_molecules` returns.

    Attributes
    ----------
    kept, held_out
        ``csr_array``, cells × genes: together they are the counts.
    share
        Share of the molecules that was held out.
    """

    kept: Any
    held_out: Any
    share: float


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better held-out data are foretold than by something simpler.

    Attributes
    ----------
    mean
        Fall of the mean loss per cell; negative if it is worse.
    standard_error
        Of it, across cells.
    relative
        `mean` over the simpler one's loss.
    attainable
        What a better estimate of the simpler one's own parameters would gain without any structure.
    """

    mean: float
    standard_error: float
    relative: float
    attainable: float = 0.0

    @classmethod
    def between(cls, simpler: FloatArray, model: FloatArray, *, attainable: float = 0.0) -> "Gain":
        """Compare the losses of the same cells."""
        difference = simpler - model
        loss = float(simpler.mean())
        error = float(difference.std(ddof=1) / np.sqrt(difference.size)) if difference.size > 1 else float("inf")
        mean = float(difference.mean())
        return cls(mean, error, mean / loss if loss > 0 else 0.0, attainable)


def held_out_molecules(
    counts: Any, *, share: float = 0.1, random_state: int | np.random.Generator = 0
) -> HeldOutMolecules:
    """Hold out each molecule with the same probability.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    share
        Probability, above 0 and below 1.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    HeldOutMolecules

    Raises
    ------
    ValueError
        If these are no counts, or the share is outside its range.

    Notes
    -----
    Molecular cross-validation: Batson, Royer & Webber, bioRxiv 786269 (2019). Poisson counts split this way are
    independent given their rates. Reads are not: copies of a molecule fall on both sides.

    Examples
    --------
    >>> split = held_out_molecules(np.full((20, 5), 10.0), share=0.5)
    >>> int((split.kept + split.held_out).sum())
    1000
    """
    kept, held_out = thin(checked_molecules(counts), share=share, random_state=random_state)
    return HeldOutMolecules(kept, held_out, share)


def score_molecules(split: HeldOutMolecules, *, imputed: Any) -> dict[str, FloatArray]:
    """Poisson deviance of each cell's held-out molecules under four predictions.

    Parameters
    ----------
    split
        What `held_out_molecules` returned.
    imputed
        Dense logs, ln(1 + counts per 10,000), of `split.kept` after imputation.

    Returns
    -------
    ``model``, and what it has to beat: ``gene_mean`` (each gene's share of all molecules × the cell's), ``own_counts``
    (the cell's own count of the gene, shrunk towards that mean as a gamma-Poisson of the gene's own dispersion is: the
    best that can be said without other genes or cells like it) and ``none`` (the counts as they are). ``mixture`` is a
    weighted mean of ``own_counts`` and ``model``, whose weight was chosen on the other half of the cells: it is below
    ``own_counts`` if the model knows anything that they do not. One value per cell.

    Notes
    -----
    Imputed values of a cell are scaled to its molecules, and all predictions are mixed with 1 % of the gene mean: a
    zero where a molecule is found would be infinitely wrong.

    Examples
    --------
    >>> split = held_out_molecules(np.full((20, 5), 10.0), share=0.5)
    >>> flat = np.full((20, 5), np.log1p(2000.0))
    >>> deviance = score_molecules(split, imputed=flat)
    >>> bool(deviance["model"].mean() < deviance["none"].mean())
    True
    """
    kept, size_N = split.kept, totals(split.kept)
    share_G = np.asarray(kept.sum(axis=0)).ravel() + 1e-9
    share_G /= share_G.sum()
    dispersion_G = _dispersions(kept, size_N, share_G)
    found: dict[str, list[FloatArray]] = {}
    for rows in blocks(*kept.shape):
        y, held_out = kept[rows].toarray(), split.held_out[rows].toarray()
        mean = size_N[rows, None] * share_G
        model = _to_total(np.expm1(np.asarray(imputed[rows], dtype=np.float64)), y)
        own = _to_total(mean * (1 + dispersion_G * y) / (1 + dispersion_G * mean), y)
        rates = {"model": model, "gene_mean": mean, "own_counts": own, "none": y}
        rates |= {f"{weight}": (1 - weight) * own + weight * model for weight in WEIGHTS}
        for name, rate in rates.items():
            expected = split.share / (1 - split.share) * (0.99 * rate + 0.01 * mean)
            found.setdefault(name, []).append(_deviance(held_out, expected))
    deviance = {name: np.concatenate(parts) for name, parts in found.items()}
    mixtures = np.stack([deviance.pop(f"{weight}") for weight in WEIGHTS])
    return {**deviance, "mixture": _cross_fitted(mixtures)}


def _cross_fitted(deviance_WN: FloatArray) -> FloatArray:
    """Take for every second cell the weight that is best for the others, and the other way round."""
    chosen = np.empty(deviance_WN.shape[1])
    for start in (0, 1):
        best = deviance_WN[:, 1 - start :: 2].sum(axis=1).argmin()
        chosen[start::2] = deviance_WN[best, start::2]
    return chosen


def molecule_gain(
    counts: Any, *, impute: Impute, share: float = 0.1, random_state: int | np.random.Generator = 0
) -> dict[str, Gain]:
    """Hold molecules out, impute the others, and say how much better the held-out ones are foretold.

    Parameters
    ----------
    counts
        Whole counts, cells × genes.
    impute
        The method: counts and a Generator to dense logs, ln(1 + counts per 10,000).
    share
        Share of the molecules to hold out.
    random_state
        Seed, or a Generator to draw from.

    Returns
    -------
    The `Gain` over ``gene_mean``, ``own_counts`` and ``none``, as `score_molecules` describes them, in Poisson deviance
    per cell; and as ``added`` that of the mixture over ``own_counts``.

    Notes
    -----
    Gene means are estimated themselves: G of them from all kept molecules lose 1 unit of deviance per gene ×
    share / (1 - share) on average, all cells together. A gain below that, `attainable`, needs no structure.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=60, n_genes=50, random_state=0).X
    >>> gain = molecule_gain(counts, impute=lambda x, rng: np.ones(x.shape))
    >>> gain["gene_mean"].mean < 0
    True
    """
    rng = np.random.default_rng(random_state)
    split = held_out_molecules(counts, share=share, random_state=rng)
    return gains(split, score_molecules(split, imputed=impute(split.kept, rng)))


def gains(split: HeldOutMolecules, deviance: dict[str, FloatArray]) -> dict[str, Gain]:
    """Return the gains of a model over the others of `score_molecules`, and of the mixture over own counts."""
    n_cells, n_genes = split.kept.shape
    attainable = n_genes * split.share / (1 - split.share) / n_cells
    compared = {name: ("model", name) for name in ("gene_mean", "own_counts", "none")}
    compared["added"] = ("mixture", "own_counts")
    return {
        name: Gain.between(deviance[simpler], deviance[model], attainable=attainable)
        for name, (model, simpler) in compared.items()
    }


def _dispersions(kept: Any, size_N: FloatArray, share_G: FloatArray) -> FloatArray:
    """Each gene's φ of variance = mean + φ · mean², by moments over the cells; at least 0."""
    excess_G, square_G = np.zeros(kept.shape[1]), np.zeros(kept.shape[1])
    for rows in blocks(*kept.shape):
        y, mean = kept[rows].toarray(), size_N[rows, None] * share_G
        excess_G += ((y - mean) ** 2 - y).sum(axis=0)
        square_G += (mean**2).sum(axis=0)
    return np.maximum(excess_G / square_G, 0.0)


def _to_total(rate: FloatArray, y: FloatArray) -> FloatArray:
    """Scale each cell's rates to its kept molecules; nothing is known of a cell that is imputed to be empty."""
    sum_N1 = rate.sum(axis=1, keepdims=True)
    scaled: FloatArray = np.divide(
        rate * y.sum(axis=1, keepdims=True), sum_N1, out=np.zeros_like(rate), where=sum_N1 > 0
    )
    return scaled


def _deviance(y: FloatArray, rate: FloatArray) -> FloatArray:
    logs = np.log(np.divide(y, rate, out=np.ones_like(y), where=(y > 0) & (rate > 0)))
    deviance: FloatArray = 2 * (y * logs - (y - rate)).sum(axis=1)
    return deviance
