"""The fitted model of the counts objective: what it expects of cells, how surely, and where it puts them.

The experts are the gene frequencies (the base), the networks and, of few cells, components, each as it is and each
combined with the cell's own counts by empirical Bayes.

Shape legend: N cells, B cells in a block, G genes, E estimates, K = 2E experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..io.matrix import row_blocks
from ..progress import progress_bar
from .components import Components
from .counts_dense import dense_counts, inputs_of
from .counts_inputs import CountsEncoding
from .counts_network import SMALLEST_SHARE, as_array, hidden_layer, log_shares, offsets, product_type
from .counts_store import CountsRows
from .dispersion import gamma_posterior
from .network import Autoencoder

__all__ = [
    "ESTIMATES",
    "CountsModel",
    "build_network",
    "estimates_with",
    "expected",
    "expert_names",
    "network_names",
    "whole_posterior",
]

ESTIMATES = ("gene_frequencies", "network", "components")
CELLS_PER_BLOCK, VALUES_PER_BLOCK = 256, 2**19  # a processor takes longer over matrices that its cache cannot hold


@dataclass(frozen=True)
class CountsModel:
    """A fitted recipe.

    Attributes
    ----------
    networks
        Whose shares of the genes are averaged: what one learned by chance, the others did not.
    dispersion_EG
        φ of each gene about the gene frequencies, about the networks and about the components.
    weights_K
        What each of `expert_names` is worth, summing to one.
    batches
        Names of the batches; none if it was trained without.
    components
        None of many cells, or where nothing is beyond noise.
    """

    networks: tuple[Autoencoder, ...]
    encoding: CountsEncoding
    dispersion_EG: Tensor
    weights_K: NDArray[np.float64]
    batches: tuple[str, ...] = ()
    components: Components | None = None

    def posterior(
        self,
        x: sparse.csr_array,
        batch_N: NDArray[np.intp],
        into_N: NDArray[np.intp] | None = None,
        *,
        columns: NDArray[np.int64] | None = None,
        with_sd: bool = True,
    ) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """Posterior mean and standard deviation of each cell's expected counts, block by block.

        Parameters
        ----------
        x
            Counts, N × G.
        batch_N
            Batch of each cell.
        into_N
            Batch that the expectation is for; by default the cell's own.
        columns
            Genes that are wanted, in this order; all by default.
        with_sd
            Without, no time is spent on standard deviations, and none are given: B × 0.
        """
        wanted = None if columns is None else torch.as_tensor(columns, device=self.device)
        for rows in self.blocks(x):
            own_B = batch_N[rows]
            experts = self.experts(x[rows], own_B, own_B if into_N is None else into_N[rows])
            mean_BG, variance_BG = self._mixed(experts, wanted, with_variance=with_sd)
            yield rows, as_array(mean_BG), as_array(variance_BG.clamp_(min=0).sqrt_())

    @torch.no_grad()
    def _mixed(
        self, experts: Iterator[tuple[Tensor, Tensor]], wanted: Tensor | None, *, with_variance: bool
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of a mixture: the variance within the experts, and that between their means."""
        mean_BG, square_BG, first_BG = torch.zeros(()), torch.zeros(()), None
        for weight, (expert_BG, variance_BG) in zip(self.weights_K, experts, strict=True):
            if weight > 0:
                # Only now, since the rates of a cell are brought to a sum over all genes
                some_BG = _columns(expert_BG, wanted)
                mean_BG = mean_BG + float(weight) * some_BG
                if with_variance:  # from the first: squares of large means would leave few digits of their difference
                    first_BG = some_BG if first_BG is None else first_BG
                    apart_BG = some_BG - first_BG
                    square_BG = square_BG + float(weight) * (_columns(variance_BG, wanted) + apart_BG.square())
        if first_BG is None:
            return mean_BG, mean_BG[:, :0].clone()
        return mean_BG, square_BG - (mean_BG - first_BG).square()

    @torch.no_grad()
    def experts(self, x: sparse.csr_array, batch_B: Any, into_B: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and variance of the counts that each expert expects, B × G."""
        x_BG, library_B1 = self.dense(x)
        own, other = self.shares(x, batch_B, batch_B), None
        if into_B is not batch_B:
            other = self.shares(x, batch_B, into_B)
            stays_B1 = torch.as_tensor(np.equal(batch_B, into_B), device=self.device)[:, None]
        for index, (mean_BG, unit_BG) in enumerate(expected(own, library_B1)):
            posterior_BG, variance_BG = gamma_posterior(x_BG, mean_BG, unit_BG * self.dispersion_EG[index])
            if other is None:
                yield mean_BG, torch.zeros(())
            else:  # the cell's own counts say by how much it differs from what its batch lets expect
                yield other[index] * library_B1, torch.zeros(())
                ratio_BG = torch.where(stays_B1, 1.0, other[index] / own[index].clamp(min=SMALLEST_SHARE))
                posterior_BG, variance_BG = _moved(posterior_BG, variance_BG, ratio_BG)
            yield posterior_BG, variance_BG

    @torch.no_grad()
    def shares(self, x: sparse.csr_array, batch_B: Any, into_B: Any) -> tuple[Tensor, ...]:
        """Share of each gene among a cell's molecules by each of its `ESTIMATES`, B × G."""
        chosen_B = torch.as_tensor(into_B, device=self.device)
        frequency_BG = self.encoding.log_frequency_KG.index_select(0, chosen_B).exp()
        inputs, total_BG = inputs_of(x, batch_B, self.encoding), torch.zeros(())
        for net in self.networks:
            h_BH, offset_BG = hidden_layer(net, inputs, self.encoding.centre_I), offsets(net, self.encoding, into_B)
            total_BG = total_BG + log_shares(h_BH, net.decoder.weight, offset_BG, product_type(self.device)).exp_()
        by_components = () if self.components is None else (self.components.shares(x, self.encoding, batch_B, into_B),)
        return frequency_BG, total_BG.div_(len(self.networks)), *by_components

    @torch.no_grad()
    def embed(self, x: CountsRows, batch_N: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """Hidden layer of the first network, N × H; `batch_N` is for models that were trained with several."""
        batch_N = np.zeros(x.shape[0], dtype=np.intp) if batch_N is None else batch_N
        blocks = ((inputs_of(x[rows], batch_N[rows], self.encoding), self.encoding.centre_I) for rows in self.blocks(x))
        return np.concatenate([as_array(hidden_layer(self.networks[0], *block)) for block in blocks])

    def blocks(self, x: CountsRows) -> Iterator[slice]:
        """Rows of as many cells as are dense in memory at a time; powers of two, so that parts make the same blocks."""
        size = CELLS_PER_BLOCK
        while self.device.type == "cpu" and size > 1 and size * x.shape[1] > VALUES_PER_BLOCK:
            size //= 2
        return row_blocks(x, size)

    def dense(self, x: sparse.csr_array) -> tuple[Tensor, Tensor]:
        """Counts, and the molecules of each cell, as tensors: B × G, B × 1."""
        x_BG = dense_counts(x, self.device)
        return x_BG, x_BG.sum(1, keepdim=True)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.encoding.unit_G.device

    def to(self, device: torch.device) -> "CountsModel":
        """Same model on `device`."""
        return replace(
            self,
            networks=tuple(network.to(device) for network in self.networks),
            encoding=self.encoding.to(device),
            dispersion_EG=self.dispersion_EG.to(device),
            components=None if self.components is None else self.components.to(device),
        )


def _columns(values: Tensor, wanted: Tensor | None) -> Tensor:
    return values if wanted is None or values.ndim == 0 else values.index_select(1, wanted)


def _moved(mean_BG: Tensor, variance_BG: Tensor, ratio_BG: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply the rates of each gene with `ratio_BG`, of as many molecules as before."""
    moved_BG = mean_BG * ratio_BG
    factor_B1 = mean_BG.sum(1, keepdim=True) / moved_BG.sum(1, keepdim=True).clamp(min=1e-30)
    return moved_BG * factor_B1, variance_BG * (ratio_BG * factor_B1).square_()


def whole_posterior(
    model: CountsModel,
    x: sparse.csr_array,
    batch_N: NDArray[np.intp],
    into_N: NDArray[np.intp] | None,
    *,
    with_sd: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posterior mean and standard deviation of all cells, N × G; the latter is empty if it is not wanted."""
    mean_NG, sd_NG = np.empty(x.shape, np.float32), np.empty(x.shape if with_sd else (0, 0), np.float32)
    with progress_bar(x.shape[0], "imputing", "cell") as bar:
        for rows, mean_BG, sd_BG in model.posterior(x, batch_N, into_N, with_sd=with_sd):
            mean_NG[rows] = mean_BG
            if with_sd:
                sd_NG[rows] = sd_BG
            bar.update(len(mean_BG))
    return mean_NG, sd_NG


def estimates_with(components: Components | None) -> tuple[str, ...]:
    """Return the names of the estimates that a model has."""
    return ESTIMATES[:2] if components is None else ESTIMATES


def expected(shares: tuple[Tensor, ...], library_B1: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the counts that each estimate expects, and what its dispersion φ is in units of, B × G.

    See `scautoimpute.model.dispersion`.
    """
    for name, share_BG in zip(ESTIMATES, shares, strict=False):
        mean_BG = share_BG * library_B1
        yield mean_BG, (mean_BG + shares[0] * library_B1).div_(2) if name == "components" else mean_BG


def expert_names(n_experts: int) -> list[str]:
    """Return what the experts are called: each estimate, and each with the cell's own counts."""
    return [f"{name}{own}" for name in ESTIMATES for own in ("", "_own_counts")][:n_experts]


def build_network(n_genes: int, n_batches: int, hidden: tuple[int, ...]) -> Autoencoder:
    """Network with uninitialised weights: genes and batch in, logits of the genes out."""
    n_side = n_batches if n_batches > 1 else 0
    return Autoencoder(n_genes + n_side, n_genes, hidden, activation="gelu", n_side=n_side)


def network_names(n_networks: int) -> list[str]:
    """Return what the networks are called in files and in the history."""
    return ["network", *(f"network{number}" for number in range(2, n_networks + 1))]
