"""What every rival chooses on molecules held out of its training molecules, and its empirical-Bayes step.

Shapes: N cells, G genes. A profile P_NG holds each cell's estimated shares of the genes, rows that add up to one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scautoimpute.metrics import gene_frequencies, thin

__all__ = ["Inner", "Prior", "choose_floor", "choose_prior", "mixed", "posterior", "shares"]

# Never none: a molecule where the profile is zero would be infinitely unlikely; 1e-4 costs at most 0.1 milli-nats
FLOORS = (1e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SCALES = (0.03, 0.1, 0.3, 0.6, 1.0, 1.7, 3.0, 6.0)
LEAST, MOST = 1e-4, 20.0  # of a gene's dispersion before it is scaled
_INNER_SHARE = 0.1
_ROWS = 64
_CELLS_AT_MOST = 1500
Dense = NDArray[np.float32]


@dataclass(frozen=True)
class Inner:
    """A split of training molecules: `train` is fitted, and the molecules `y` held out at (`cell`, `gene`) choose.

    `own` is what `train` holds at those entries.
    """

    train: Any
    cell: NDArray[np.int64]
    gene: NDArray[np.int64]
    y: NDArray[np.float64]
    own: NDArray[np.float64]
    frequency_G: NDArray[np.float64]

    @classmethod
    def of(cls, train: Any, rng: np.random.Generator) -> "Inner":
        """Hold out a tenth of the training molecules."""
        left, taken = thin(train, share=_INNER_SHARE, random_state=rng)
        at = taken.tocoo()
        cell, gene = at.coords
        return cls(left, cell, gene, at.data, np.asarray(left[cell, gene]), gene_frequencies(left))

    def score(self, at_held_out: NDArray[Any]) -> float:
        """Log-likelihood per held-out molecule of shares at the held-out entries."""
        with np.errstate(divide="ignore"):
            return float(np.sum(self.y * np.log(at_held_out.astype(np.float64))) / self.y.sum())


@dataclass(frozen=True)
class Prior:
    """How a profile becomes a prior: the share of the gene mean in it, and what its dispersions are scaled by."""

    floor: float
    scale: float


def shares(values: Any, frequency_G: NDArray[np.float64]) -> Dense:
    """Clip at zero and divide each cell by its sum; a cell that is left with nothing gets the gene frequencies."""
    made = np.array(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)
    np.maximum(made, 0, out=made)
    total_N = made.sum(axis=1, dtype=np.float64)
    made[total_N <= 0] = frequency_G
    made /= np.where(total_N > 0, total_N, 1)[:, None].astype(np.float32)
    return made


def mixed(profile_NG: Dense, frequency_G: NDArray[np.float64], floor: float) -> Dense:
    """Put a share of the gene mean into every cell's profile."""
    return (1 - floor) * profile_NG + (floor * frequency_G).astype(np.float32)


def choose_floor(profile_NG: Dense, inner: Inner) -> tuple[float, float]:
    """Return the share of the gene mean under which the held-out molecules are likeliest, and how likely."""
    own, mean = profile_NG[inner.cell, inner.gene].astype(np.float64), inner.frequency_G[inner.gene]
    scores = [inner.score((1 - floor) * own + floor * mean) for floor in FLOORS]
    best = int(np.argmax(scores))
    return FLOORS[best], scores[best]


def choose_prior(profile_NG: Dense, inner: Inner, *, floor: float) -> tuple[Prior, float]:
    """Choose the scale at three floors (that given, little and most of the gene mean), then the floor, then the scale.

    The likelihood has two summits: trust the profile, or trust the gene mean and let the cell's own counts speak.
    Looked for among `_CELLS_AT_MOST` cells.
    """
    profile_NG, inner = _some_cells(profile_NG, inner)
    tried: dict[Prior, float] = {}
    for start in dict.fromkeys((floor, 0.03, 0.9)):
        tried |= _scores(profile_NG, inner, start, SCALES)
    scale = max(tried, key=lambda prior: tried[prior]).scale
    for other in FLOORS:
        tried |= _scores(profile_NG, inner, other, (scale,))
    tried |= _scores(profile_NG, inner, max(tried, key=lambda prior: tried[prior]).floor, SCALES)
    best = max(tried, key=lambda prior: tried[prior])
    return best, tried[best]


def _some_cells(profile_NG: Dense, inner: Inner) -> tuple[Dense, Inner]:
    n_cells = len(profile_NG)
    if n_cells <= _CELLS_AT_MOST:
        return profile_NG, inner
    chosen = np.unique(np.linspace(0, n_cells - 1, _CELLS_AT_MOST).astype(np.int64))
    position = np.full(n_cells, -1)
    position[chosen] = np.arange(chosen.size)
    kept = position[inner.cell] >= 0
    part = Inner(
        inner.train[chosen],
        position[inner.cell[kept]],
        inner.gene[kept],
        inner.y[kept],
        inner.own[kept],
        inner.frequency_G,
    )
    return profile_NG[chosen], part


def _scores(profile_NG: Dense, inner: Inner, floor: float, scales: Sequence[float]) -> dict[Prior, float]:
    """Log-likelihood of the held-out molecules under the posterior means, for one floor and several scales."""
    prior_NG = mixed(profile_NG, inner.frequency_G, floor)
    phis = [(dispersions(prior_NG, inner.train) * scale).astype(np.float32) for scale in scales]
    found = np.empty((len(scales), inner.y.size))
    for rows, mu, x in _expected(prior_NG, inner.train):
        here = slice(*np.searchsorted(inner.cell, [rows.start, rows.stop]))
        cell, gene, own = inner.cell[here] - rows.start, inner.gene[here], inner.own[here]
        seen = np.repeat(np.arange(len(mu)), np.diff(x.indptr)), x.indices
        for of_scale, phi in zip(found, phis, strict=True):
            unseen = mu * phi  # becomes μ / (1 + φ μ), the posterior mean where there is no count
            unseen += 1
            np.divide(mu, unseen, out=unseen)
            more = np.bincount(seen[0], unseen[seen] * phi[x.indices] * x.data, minlength=len(mu))
            total = unseen.sum(axis=1, dtype=np.float64) + more
            of_scale[here] = unseen[cell, gene] * (1 + phi[gene] * own) / total[cell]
    return {Prior(floor, scale): inner.score(row) for scale, row in zip(scales, found, strict=True)}


# Empirical Bayes: x ~ Poisson(λ), λ ~ Gamma with mean μ = library · P and variance φ μ² ------------------------------


def dispersions(profile_NG: Dense, x: Any) -> NDArray[np.float64]:
    """Dispersion of each gene by moments: Σ((x − μ)² − μ) / Σ μ², kept within bounds."""
    excess_G, squares_G = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for _, mu, block in _expected(profile_NG, x):
        squares = np.einsum("ij,ij->j", mu, mu, dtype=np.float64)
        at = np.repeat(np.arange(mu.shape[0]), np.diff(block.indptr)), block.indices
        cross = np.bincount(block.indices, block.data * (block.data - 2 * mu[at]), minlength=x.shape[1])
        squares_G += squares
        excess_G += squares + cross - mu.sum(axis=0, dtype=np.float64)
    ratio = np.divide(excess_G, squares_G, out=np.full(x.shape[1], LEAST), where=squares_G > 0)
    return np.clip(ratio, LEAST, MOST)


def posterior(profile_NG: Dense, x: Any, scale: float) -> Dense:
    """Shares by the posterior mean μ (1 + φ x) / (1 + φ μ) under each gene's dispersion times `scale`."""
    phi = (dispersions(profile_NG, x) * scale).astype(np.float32)
    made = np.empty_like(profile_NG)
    for rows, mu, block in _expected(profile_NG, x):
        mean = mu / (1 + phi * mu)
        at = np.repeat(np.arange(len(mu)), np.diff(block.indptr)), block.indices
        mean[at] *= (1 + phi[block.indices] * block.data).astype(np.float32)
        made[rows] = mean / np.maximum(mean.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return made


def _expected(profile_NG: Dense, x: Any) -> Iterator[tuple[slice, Dense, Any]]:
    """Yield the expected molecules and the counts of blocks of cells."""
    for start in range(0, x.shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, x.shape[0]))
        block = x[rows]
        library = np.asarray(block.sum(axis=1), dtype=np.float32)[:, None]
        yield rows, profile_NG[rows] * library, block
