"""The empirical-Bayes step: how much a cell's own count says beyond the rate that an expert expects.

A cell's rate of a gene is gamma distributed about the expected μ with variance θμ; given the rate the count is Poisson.
The posterior is gamma again, with mean μ·(1 − s) + x·s and variance mean·s for s = θ / (1 + θ), the share of the cell's
own count. θ is φu, φ being the dispersion of the gene. The unit u is μ where that is off by a factor, as a network's
is. A sum of components is off by an amount as well: there u is (μ + m) / 2, where the gene frequencies let expect m.

Shape legend: B cells in a block, G genes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SCALES", "DispersionMoments", "gamma_posterior", "own_share"]

LOWEST, HIGHEST = 1e-4, 20.0
# What the moment estimate is multiplied with: a network that has seen the counts it is compared with leaves too small
# a variance about itself, by a factor that only molecules which it has not seen can tell
SCALES = (0.03, 0.1, 0.3, 0.6, 1.0, 1.5, 2.5, 5.0, 10.0)


def own_share(excess_BG: Tensor) -> Tensor:
    """Share s of the posterior mean that a cell's own count has, by θ, B × G."""
    return excess_BG / (1 + excess_BG)


def gamma_posterior(x_BG: Tensor, mean_BG: Tensor, excess_BG: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and variance of the rates behind counts, each cell's rates summing to what was expected.

    Parameters
    ----------
    x_BG
        Counts.
    mean_BG
        Expected counts μ.
    excess_BG
        Variance of the rates in units of μ, θ.

    Returns
    -------
    mean_BG, variance_BG
        Of the gamma posterior.
    """
    own_BG = own_share(excess_BG)
    posterior_BG = torch.lerp(mean_BG, x_BG, own_BG)
    total_B1 = posterior_BG.sum(1, keepdim=True).clamp(min=1e-30)
    posterior_BG *= mean_BG.sum(1, keepdim=True) / total_B1
    return posterior_BG, posterior_BG * own_BG


class DispersionMoments:
    """φ of each gene by the method of moments, Σ[(x − μ)² − μ] / Σμu over the cells, gathered in blocks."""

    def __init__(self, n_genes: int) -> None:
        self.excess_G = np.zeros(n_genes)
        self.in_units_G = np.zeros(n_genes)

    def add(self, x_BG: Tensor, mean_BG: Tensor, unit_BG: Tensor) -> None:
        """Take a block of cells into account; `unit_BG` is u."""
        residual_BG = x_BG - mean_BG
        self.excess_G += (residual_BG.square_() - mean_BG).sum(0).cpu().numpy()
        self.in_units_G += (mean_BG * unit_BG).sum(0).cpu().numpy()

    def estimate(self) -> NDArray[np.float32]:
        """Dispersion of each gene."""
        dispersion_G = self.excess_G / np.maximum(self.in_units_G, 1e-30)
        return np.clip(dispersion_G, LOWEST, HIGHEST).astype(np.float32)
