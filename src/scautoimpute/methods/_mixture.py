"""scImpute's mixture: a gamma of values near zero and a normal of expressed ones, fitted to all genes of a cluster.

Arrays: x_nG is log10(CPM + 1.01) of the n cells of a cluster; one entry e stands for an expressed value, or for all
zeros of a gene at once (weight_e = how many), so that a round of EM costs time in proportion to the expressed values.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ._arrays import FloatArray

ZERO = float(np.log10(1.01))
_EXPRESSED_MEAN = float(np.log10(2.01))
_MAX_ROUNDS = 101
_TOLERANCE = 0.5  # of the squared gain in log10-likelihood
_MAX_SHAPE = 20.0
_BLOCK = 100_000  # entries at a time: what a processor's cache holds


class Mixture(NamedTuple):
    """One value per gene of: the share of the gamma, its shape and rate, the normal's mean and sd; NaN: not fitted."""

    share: FloatArray
    shape: FloatArray
    rate: FloatArray
    mean: FloatArray
    sd: FloatArray

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Mixture":
        """Parameters of some genes."""
        return Mixture(*(values[which] for values in self))

    def spread(self, lengths: NDArray[np.intp]) -> "Mixture":
        """Parameters repeated for every entry of their gene."""
        return Mixture(*(np.repeat(values, lengths) for values in self))

    def densities(self, x: FloatArray, log_x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weighted density of the gamma and of the normal at `x`; underflow to zero is part of the method."""
        constant = special.xlogy(self.shape, self.rate) - special.gammaln(self.shape)
        gamma = self.share * np.exp(constant + (self.shape - 1) * log_x - self.rate * x)
        normal = (1 - self.share) / (self.sd * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((x - self.mean) / self.sd) ** 2)
        return gamma, normal


class _Entries(NamedTuple):
    """Values of some genes, gene after gene; `lengths` says how many belong to each."""

    x: FloatArray
    log_x: FloatArray
    weight: FloatArray
    lengths: NDArray[np.intp]

    def sums(self, values: FloatArray) -> FloatArray:
        """Weighted sum per gene."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.asarray(np.add.reduceat(self.weight * values, starts))

    def of(self, keep: NDArray[np.bool_]) -> "_Entries":
        """Entries of the genes to keep."""
        mine = np.repeat(keep, self.lengths)
        return _Entries(self.x[mine], self.log_x[mine], self.weight[mine], self.lengths[keep])


def fit_mixtures(x_nG: FloatArray) -> Mixture:
    """Fit every gene by EM; genes with fewer than two expressed values, or whose fit fails, are NaN.

    Starts at the share of zeros (0.01 without any), gamma(0.5, 1) and the mean and standard deviation of the expressed
    values. A gene stops once a round changes its log10-likelihood by less than the root of 0.5, after 101 rounds at
    the latest.
    """
    fitted = Mixture(*np.full((5, x_nG.shape[1]), np.nan))
    with np.errstate(all="ignore"):  # 0/0 where both densities underflow: such a gene counts as not fitted
        for genes, entries in _blocks(x_nG):
            for values, found in zip(fitted, _expectation_maximization(entries), strict=True):
                values[genes] = found
    return fitted


def _blocks(x_nG: FloatArray) -> Iterator[tuple[NDArray[np.intp], _Entries]]:
    """Genes with at least two expressed values, and these values, a block at a time."""
    n_expressed = (x_nG > ZERO).sum(axis=0)
    genes = np.flatnonzero(n_expressed >= 2)
    block_of = np.cumsum(n_expressed[genes]) // _BLOCK
    for block in np.unique(block_of):
        chosen = genes[block_of == block]
        yield chosen, _entries(x_nG[:, chosen])


def _entries(x_nG: FloatArray) -> _Entries:
    gene, cell = np.nonzero(x_nG.T > ZERO)
    n_expressed = np.bincount(gene, minlength=x_nG.shape[1])
    n_zeros = x_nG.shape[0] - n_expressed
    has_zeros = np.flatnonzero(n_zeros)
    first = (np.cumsum(n_expressed) - n_expressed)[has_zeros]
    x = np.insert(x_nG[cell, gene], first, ZERO)
    weight = np.insert(np.ones(cell.size), first, n_zeros[has_zeros])
    return _Entries(x, np.log(x), weight, n_expressed + (n_zeros > 0))


def _start(entries: _Entries) -> Mixture:
    expressed = (entries.x > ZERO).astype(np.float64)
    n_cells, n_expressed = entries.sums(np.ones(entries.x.size)), entries.sums(expressed)
    share = 1 - n_expressed / n_cells
    mean = entries.sums(entries.x * expressed) / n_expressed
    squares = expressed * (entries.x - np.repeat(mean, entries.lengths)) ** 2
    sd = np.sqrt(entries.sums(squares) / (n_expressed - 1))
    return Mixture(np.where(share == 0, 0.01, share), np.full(mean.size, 0.5), np.ones(mean.size), mean, sd)


def _expectation_maximization(entries: _Entries) -> Mixture:
    current = _start(entries)
    fitted = Mixture(*np.full((5, current.mean.size), np.nan))
    active = np.arange(current.mean.size)
    likelihood = np.zeros(active.size)
    gamma, normal = current.spread(entries.lengths).densities(entries.x, entries.log_x)
    for step in range(_MAX_ROUNDS):
        current = _maximize(entries, gamma / (gamma + normal))
        gamma, normal = current.spread(entries.lengths).densities(entries.x, entries.log_x)
        previous, likelihood = likelihood, entries.sums(np.log10(gamma + normal))
        # False where the likelihood is no number: such a gene stays NaN
        going = ((likelihood - previous) ** 2 > _TOLERANCE) & (step < _MAX_ROUNDS - 1)
        done = np.isfinite(likelihood) & ~going
        for values, found in zip(fitted, current, strict=True):
            values[active[done]] = found[done]
        if not going.any():
            break
        mine = np.repeat(going, entries.lengths)
        active, likelihood, gamma, normal = active[going], likelihood[going], gamma[mine], normal[mine]
        entries = entries.of(going)
    return fitted


def _maximize(entries: _Entries, near_zero_e: FloatArray) -> Mixture:
    """Parameters given the probability of every entry to come from the gamma."""
    n_cells = entries.sums(np.ones(near_zero_e.size))
    expressed_e = 1 - near_zero_e
    n_gamma, n_normal = entries.sums(near_zero_e), entries.sums(expressed_e)
    mean = entries.sums(expressed_e * entries.x) / n_normal
    squares = (entries.x - np.repeat(mean, entries.lengths)) ** 2
    sd = np.sqrt(entries.sums(expressed_e * squares) / n_normal)
    gamma_mean = entries.sums(near_zero_e * entries.x) / n_gamma
    gamma_log = entries.sums(near_zero_e * entries.log_x) / n_gamma
    shape = _gamma_shape(np.log(gamma_mean) - gamma_log)
    return Mixture(n_gamma / n_cells, shape, shape / gamma_mean, mean, sd)


def _gamma_shape(gap: FloatArray) -> FloatArray:
    """Solve log(shape) - digamma(shape) = gap, capped; where all weight is on one value the gap is zero."""
    found = np.full(gap.size, _MAX_SHAPE)
    # Minka (2002), Estimating a gamma distribution: within 1.5 % of the root, so Newton needs few steps.
    guess = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    below = (gap > 0) & (guess < _MAX_SHAPE)
    shape, gap = guess[below], gap[below]
    for _ in range(4):
        slope = 1 / shape - special.polygamma(1, shape)
        shape = shape - (np.log(shape) - special.digamma(shape) - gap) / slope
    found[below] = shape
    return found


def dropout_probabilities(x: FloatArray, mixture: Mixture) -> FloatArray:
    """Probability of every value (genes last) to come from the gamma."""
    with np.errstate(all="ignore"):
        gamma, normal = mixture.densities(x, np.log(x))
        return np.asarray(gamma / (gamma + normal))


def usable(mixture: Mixture) -> NDArray[np.bool_]:
    """Genes with a fit whose normal lies above one count per million, and above the gamma in its right tail."""
    one = np.ones(mixture.mean.size)
    beyond = mixture.mean + 1
    with np.errstate(all="ignore"):
        gamma, _ = mixture._replace(share=one).densities(beyond, np.log(beyond))
        _, normal = mixture._replace(share=one * 0).densities(beyond, np.log(beyond))
        tail = (gamma >= normal) & (mixture.mean <= 1)
        fitted = np.isfinite(mixture).all(axis=0)
        return np.asarray(fitted & (mixture.mean > _EXPRESSED_MEAN) & ~tail)
