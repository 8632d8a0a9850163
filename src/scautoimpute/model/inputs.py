"""What a network sees of a cell, and the corruption that stops it from copying.

Shape legend: B cells in a batch, G genes, I = 2G inputs, S = 2 side inputs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .base import TwoWayBase
from .tensors import HoldsTensors

__all__ = ["Encoded", "Encoding", "corrupt"]

RESIDUAL_PRIOR_COUNT = 5  # observations of average residual behind each gene's residual scale
MIN_KEEP = 0.3  # corruption beyond this does not scale the mask inputs up further


@dataclass(frozen=True)
class Encoded:
    """A batch as the network takes it: inputs, side inputs, and the base that its output is added to."""

    input_BI: Tensor
    side_BS: Tensor
    base_BG: Tensor


@dataclass(frozen=True)
class Encoding(HoldsTensors):
    """Scales of one fold's inputs, all learned from that fold's visible entries alone.

    The inputs are the residuals from the base at the observed entries (zero elsewhere) and the observation
    mask itself, each gene in its own unit: which genes were detected tells as much as by how much.
    """

    gene_G: Tensor
    residual_unit_G: Tensor
    detection_G: Tensor
    detection_unit_G: Tensor
    log_count_mean: float
    base: TwoWayBase

    @classmethod
    def fit(cls, x: sparse.csr_array, base: TwoWayBase) -> "Encoding":
        """Learn the scales from the visible entries of `x` (N × G)."""
        return cls.fit_blocks([x], base)

    @classmethod
    def fit_blocks(cls, blocks: Iterable[sparse.csr_array], base: TwoWayBase) -> "Encoding":
        """Learn the scales from visible entries that come in blocks of cells."""
        n_genes = len(base.gene_G)
        count_G, square_G = np.zeros(n_genes), np.zeros(n_genes)
        counts: list[NDArray[np.int64]] = []
        for x in blocks:
            count_B = np.diff(x.indptr)
            residual_Z = x.data - base.gene_G[x.indices] - np.repeat(base.cell_effects(x), count_B)
            square_G += np.bincount(x.indices, residual_Z**2, minlength=n_genes)
            count_G += np.bincount(x.indices, minlength=n_genes)
            counts.append(count_B)
        count_N = np.concatenate(counts)
        variance_G = (square_G + RESIDUAL_PRIOR_COUNT * base.noise_sd**2) / (count_G + RESIDUAL_PRIOR_COUNT)
        detection_G = count_G / len(count_N)
        detection_sd_G = np.sqrt(detection_G * (1 - detection_G) + 0.02)
        return cls(
            gene_G=_float(base.gene_G),
            residual_unit_G=_float(2 / np.sqrt(max(count_N.mean(), 1.0)) / np.sqrt(variance_G)),
            detection_G=_float(detection_G),
            detection_unit_G=_float(2 / math.sqrt(n_genes) / detection_sd_G),
            log_count_mean=float(np.log(count_N + 1).mean()),
            base=base,
        )

    def encode(self, x_BG: Tensor, observed_BG: Tensor, kept_BG: Tensor, keep_B1: Tensor | float = 1.0) -> Encoded:
        """Inputs for a batch of which only the entries `kept_BG` are shown.

        Parameters
        ----------
        x_BG
            log2 expression; what it holds at entries that are not kept has no effect.
        observed_BG, kept_BG
            1 where an entry is observed (in this fold), and where it is shown; 0 elsewhere.
        keep_B1
            Expected share of the observed entries that is shown.
        """
        residual_BG = (x_BG - self.gene_G) * kept_BG
        count_B1 = kept_BG.sum(1, keepdim=True)
        log_observed_B1 = (observed_BG.sum(1, keepdim=True) + 1).log()
        prior, total_B1 = self.base.cell_prior, residual_BG.sum(1, keepdim=True)
        effect_B1 = prior.posterior(count_B1, total_B1, log_observed_B1, self.base.k_cell)
        residual_BG = (residual_BG - effect_B1 * kept_BG) * (self.residual_unit_G / keep_B1)
        clamped_B1 = keep_B1.clamp(min=MIN_KEEP) if isinstance(keep_B1, Tensor) else max(keep_B1, MIN_KEEP)
        mask_BG = (kept_BG - keep_B1 * self.detection_G) * (self.detection_unit_G / clamped_B1)
        side_BS = torch.cat(
            [
                (effect_B1 - prior(log_observed_B1)) / self.base.noise_sd,
                (count_B1 / keep_B1 + 1).log() - self.log_count_mean,
            ],
            dim=1,
        )
        return Encoded(torch.cat([residual_BG, mask_BG], dim=1), side_BS, self.gene_G + effect_B1)


def corrupt(observed_BG: Tensor, generator: torch.Generator, *, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Hide a random share of each cell's observed entries.

    Returns
    -------
    kept_BG, keep_B1
        1 where an entry is still shown, and the share of entries shown, 1 − U(`low`, `high`) per cell.
    """
    keep_B1 = (
        1 - low - (high - low) * torch.rand(observed_BG.shape[0], 1, generator=generator, device=observed_BG.device)
    )
    uniform_BG = torch.rand(observed_BG.shape, generator=generator, device=observed_BG.device)
    return observed_BG * (uniform_BG < keep_B1), keep_B1


def _float(values: NDArray[np.float64]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
