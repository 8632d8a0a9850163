"""The base: what the data say of an entry without any network, by empirical Bayes.

An observed entry is modelled as gene effect + cell effect + noise. Each effect is shrunk towards what the
number of observed entries of that gene (or cell) predicts, by as much as the data themselves warrant:
the variance between genes and the noise within them are estimated by the method of moments.

Shape legend: N cells, G genes, Z stored (observed) entries.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .base_sums import EntrySums, Sums

__all__ = ["CellPrior", "TwoWayBase", "fit_base", "fit_base_by"]

Floats = NDArray[np.float64]
Values = TypeVar("Values", NDArray[np.float64], Tensor)
N_SWEEPS = 8
K_GENE_START, K_CELL_START = 1.0, 5.0  # pseudo-observations behind a prior mean, before the data are asked
# Noise variance is never below this share of all variance: losses are in its unit, and without noise would overflow
MIN_NOISE_SHARE = 1e-6
MIN_VARIANCE_SHARE = 1e-3  # between-group variance never below this share of the noise: shrinkage stays finite
PRIOR_RIDGE = 1e-3


@dataclass(frozen=True)
class CellPrior:
    """Effect expected of a cell from how many genes it shows: intercept + slope · standardised log count.

    Counts beyond those it was fitted to (`lowest` to `highest`, as logs) are taken for the nearest of them, so that
    an almost empty cell is not extrapolated to.
    """

    intercept: float
    slope: float
    location: float
    spread: float
    lowest: float
    highest: float

    def __call__(self, log_count: Values) -> Values:
        """Prior mean for groups with ln(1 + number of entries) `log_count`, an array or tensor of any shape."""
        return self.intercept + self.slope * (log_count.clip(self.lowest, self.highest) - self.location) / self.spread

    def posterior(self, count: Values, total: Values, log_count: Values, k: float) -> Values:
        """Mean effect of groups whose `count` entries sum to `total`, the prior counting as `k` entries."""
        mean = self(log_count)
        return mean + (total - count * mean) / (count + k)


@dataclass(frozen=True)
class TwoWayBase:
    """Fitted gene + cell effects.

    Attributes
    ----------
    gene_G
        Expected log2 expression of each gene, given that it was detected, in an average cell.
    cell_prior
        Prior mean of a cell's effect.
    k_cell
        Pseudo-observations behind `cell_prior`; large means that cells hardly differ.
    noise_sd
        Standard deviation of an observed entry around gene + cell effect.
    """

    gene_G: Floats
    cell_prior: CellPrior
    k_cell: float
    noise_sd: float

    def cell_effects(self, x: sparse.csr_array) -> Floats:
        """Posterior mean effect of each cell of `x` (N × G, observed entries stored), also of cells never seen."""
        count_N = np.diff(x.indptr).astype(np.float64)
        total_N = _row_sums(x, x.data - self.gene_G[x.indices])
        return self.cell_prior.posterior(count_N, total_N, np.log(count_N + 1), self.k_cell)

    def predict(self, x: sparse.csr_array) -> Floats:
        """Dense N × G expectation for the cells of `x`."""
        return self.gene_G[None, :] + self.cell_effects(x)[:, None]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, without the gene vector (a tensor on disk)."""
        return {"cell_prior": asdict(self.cell_prior), "k_cell": self.k_cell, "noise_sd": self.noise_sd}

    @classmethod
    def from_json(cls, gene_G: Floats, values: dict[str, Any]) -> "TwoWayBase":
        """Inverse of `to_json`."""
        return cls(gene_G, CellPrior(**values["cell_prior"]), values["k_cell"], values["noise_sd"])


def fit_base(x: sparse.csr_array) -> TwoWayBase:
    """Fit gene and cell effects to the stored entries of `x`.

    Parameters
    ----------
    x
        N × G; stored entries are observed, everything else is missing and never looked at.

    Notes
    -----
    `N_SWEEPS` alternating sweeps over Z entries: O(N_SWEEPS · Z) time, O(Z) memory.
    """
    return fit_base_by(EntrySums(x))


def fit_base_by(sums: Sums) -> TwoWayBase:
    """Do as `fit_base` does, with whatever takes the sums over the entries.

    Parameters
    ----------
    sums
        Of the observed entries.
    """
    cells, genes = _Effects(sums.count_N, K_CELL_START), _Effects(sums.count_G, K_GENE_START)
    degrees = max(1.0, sums.n_entries - 0.5 * (len(cells.count) + len(genes.count)))
    least = max(MIN_NOISE_SHARE * sums.square / degrees, 1e-12)
    noise_variance = least
    for _ in range(N_SWEEPS):
        genes.update(sums.by_gene(cells.effect))
        cells.update(sums.by_cell(genes.effect))
        noise_variance = max(sums.of_squares(genes.effect, cells.effect) / degrees, least)
        genes.reshrink(noise_variance)
        cells.reshrink(noise_variance)
    return TwoWayBase(sums.mean + genes.effect, cells.prior, float(cells.k), float(np.sqrt(noise_variance)))


class _Effects:
    """One side of the two-way model: a shrunken effect per group (gene or cell)."""

    def __init__(self, count: Floats, k: float) -> None:
        self.count = count
        self.k = k
        self.log_count = np.log(self.count + 1)
        known = self.log_count[self.count > 0]
        spread = float(known.std()) or 1.0
        self.prior = CellPrior(0.0, 0.0, float(known.mean()), spread, float(known.min()), float(known.max()))
        self.raw = np.zeros(len(count))
        self.effect = np.zeros(len(count))

    def update(self, total: Floats) -> None:
        """Posterior mean effects given the sums of what the other side leaves unexplained."""
        self.raw = np.divide(total, self.count, out=np.zeros_like(total), where=self.count > 0)
        self.prior = self._fit_prior()
        self.effect = self.prior.posterior(self.count, total, self.log_count, self.k)

    def _fit_prior(self) -> CellPrior:
        """Weighted ridge regression of the raw effects on the standardised log count, centred over entries."""
        z = (self.log_count - self.prior.location) / self.prior.spread
        weight = self.count / (self.count + self.k)
        sum_of_weights = weight.sum()
        z_mean, raw_mean = (weight @ z) / sum_of_weights, (weight @ self.raw) / sum_of_weights
        centred = weight * (z - z_mean)
        slope = centred @ self.raw / (centred @ z + PRIOR_RIDGE * sum_of_weights)
        intercept = raw_mean - slope * z_mean
        intercept -= self.count @ (intercept + slope * z) / self.count.sum()
        return replace(self.prior, intercept=float(intercept), slope=float(slope))

    def reshrink(self, noise_variance: float) -> None:
        """Set k = noise / between-group variance, by moments over groups with two entries or more."""
        floor = MIN_VARIANCE_SHARE * noise_variance
        known = self.count >= 2
        between = floor
        if known.any():
            count = self.count[known]
            deviation = self.raw[known] - self.prior(self.log_count[known])
            between = max(floor, float((count @ deviation**2 - noise_variance * known.sum()) / count.sum()))
        self.k = noise_variance / between


def _row_sums(x: sparse.csr_array, values_Z: Floats) -> Floats:
    rows_Z = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    return np.asarray(np.bincount(rows_Z, values_Z, minlength=x.shape[0]), dtype=np.float64)
