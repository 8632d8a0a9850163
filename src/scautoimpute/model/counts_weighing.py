"""What the experts of the counts objective are worth: dispersions, weights and scores on held-out molecules.

Shape legend: N cells, B cells in a block, G genes, V held-out entries, S scales of the dispersions, K experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._ahead import made_ahead
from ..io.matrix import row_sums
from ..progress import progress_bar
from .counts import CountsModel
from .counts_network import as_array
from .counts_store import CountsRows
from .dispersion import SCALES, DispersionMoments, gamma_posterior
from .mixture import expert_weights
from .processes import ALONE, Processes

__all__ = ["HeldOutMolecules", "weighed"]

MANY_CELLS = 100_000  # tell the dispersions as well as all of a million would: blocks of about so many are taken
FLOOR = 0.02  # of the gene frequencies, mixed into a cell's own counts: no imputation, without impossible genes
SMALLEST = 1e-30


@dataclass(frozen=True)
class HeldOutMolecules:
    """Molecules of some cells that took no part in training or stopping, and the visible ones of these cells, N × G."""

    visible: sparse.csr_array
    molecules: sparse.csr_array
    batch_N: NDArray[np.intp]

    def blocks(self, model: CountsModel) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
        """Yield rows, and the share of each gene by the gene frequencies and by the network."""
        for rows in model.blocks(self.visible):
            batch_B = self.batch_N[rows]
            yield rows, model.shares(self.visible[rows], batch_B, batch_B)


@dataclass(frozen=True)
class _Table:
    """Shares at the held-out entries, of everything that is compared."""

    count_V: NDArray[np.float64]
    cell_V: NDArray[np.intp]
    own_V: NDArray[np.float32]
    raw_V2: NDArray[np.float32]
    posterior_V2S: NDArray[np.float32]

    def __getitem__(self, chosen_V: NDArray[np.bool_]) -> "_Table":
        return _Table(*(array[chosen_V] for array in vars(self).values()))

    def scales(self) -> tuple[int, int]:
        """Position in `SCALES` of the most likely one for the gene frequencies and for the network."""
        log_2S = np.tensordot(self.count_V, np.log(np.maximum(self.posterior_V2S, SMALLEST)), axes=1)
        first, second = log_2S.argmax(axis=1)
        return int(first), int(second)

    def experts(self, scales: tuple[int, int]) -> NDArray[np.float64]:
        """Shares by each expert, V × K."""
        columns = [c for i in (0, 1) for c in (self.raw_V2[:, i], self.posterior_V2S[:, i, scales[i]])]
        return np.stack(columns, axis=1).astype(np.float64)


def weighed(
    model: CountsModel,
    held_out: HeldOutMolecules,
    visible: CountsRows,
    batch_N: NDArray[np.intp],
    processes: Processes = ALONE,
) -> tuple[CountsModel, dict[str, Any]]:
    """Fit the dispersions and the weights, and score the result.

    Parameters
    ----------
    model
        With a trained network; its dispersions and weights are replaced.
    held_out
        What scales and weights are learned on.
    visible, batch_N
        Counts of all cells that the dispersions are estimated from, and the batch of each.
    processes
        Among which these cells are dealt out.

    Returns
    -------
    The model, and its scores: number of molecules `n`, and the Poisson deviance per molecule of each estimate; that of
    the model is cross-fitted, so that no cell's molecules are predicted with weights that were learned on them.
    """
    model = replace(model, dispersion_2G=_dispersions(model, visible, batch_N, processes))
    table = _table(model, held_out)
    scales = table.scales()
    share_VK = table.experts(scales)
    weights_K = expert_weights(share_VK, table.count_V)
    factor_2 = torch.tensor([SCALES[i] for i in scales], device=model.device)
    fitted = replace(model, dispersion_2G=model.dispersion_2G * factor_2[:, None], weights_K=weights_K)
    return fitted, _scores(table, share_VK, held_out)


@torch.no_grad()
def _dispersions(model: CountsModel, x: CountsRows, batch_N: NDArray[np.intp], processes: Processes) -> Tensor:
    """φ of each gene about each expert's expectation, 2 × G."""
    moments = [DispersionMoments(x.shape[1]) for _ in range(2)]
    evenly = islice(model.blocks(x), 0, None, max(1, x.shape[0] // MANY_CELLS))
    with progress_bar(min(x.shape[0], MANY_CELLS), "weighing", "cell") as bar:
        for rows, block in made_ahead((rows, x[rows]) for rows in processes.every(evenly)):
            x_BG, library_B1 = model.dense(block)
            for moment, share_BG in zip(moments, model.shares(block, batch_N[rows], batch_N[rows]), strict=True):
                moment.add(x_BG, share_BG * library_B1)
            bar.update(block.shape[0])
    for moment in moments:
        moment.excess_G, moment.square_G = processes.sum(moment.excess_G), processes.sum(moment.square_G)
    return torch.as_tensor(np.stack([m.estimate() for m in moments]), device=model.device)


@torch.no_grad()
def _table(model: CountsModel, held_out: HeldOutMolecules) -> _Table:
    parts: list[_Table] = []
    for rows, shares in held_out.blocks(model):
        molecules = held_out.molecules[rows]
        row_V, column_V = molecules.nonzero()
        at = torch.as_tensor(row_V, device=model.device), torch.as_tensor(column_V, device=model.device)
        x_BG, library_B1 = model.dense(held_out.visible[rows])
        library_B1 = library_B1.clamp(min=SMALLEST)
        posteriors = [
            [
                gamma_posterior(x_BG, share_BG * library_B1, dispersion_G * scale)[0][at] / library_B1[at[0], 0]
                for scale in SCALES
            ]
            for share_BG, dispersion_G in zip(shares, model.dispersion_2G, strict=True)
        ]
        part = _Table(
            count_V=molecules.data.astype(np.float64),
            cell_V=row_V + rows.start,
            own_V=as_array((x_BG / library_B1)[at]),
            raw_V2=as_array(torch.stack([share_BG[at] for share_BG in shares], 1)),
            posterior_V2S=as_array(torch.stack([torch.stack(row, 1) for row in posteriors], 1)),
        )
        parts.append(part)
    return _Table(*(np.concatenate(arrays) for arrays in zip(*(vars(p).values() for p in parts), strict=True)))


def _scores(table: _Table, share_VK: NDArray[np.float64], held_out: HeldOutMolecules) -> dict[str, Any]:
    """Poisson deviance per held-out molecule of the model, cross-fitted between two halves of the cells, and of parts.

    Expected are a cell's visible molecules times the overall ratio of held-out to visible ones, so that what is
    expected of all cells and genes together is what was held out.
    """
    mixed_V = np.empty(len(share_VK))
    odd_V = table.cell_V % 2 == 1
    for half_V in (odd_V, ~odd_V):
        other = table[~half_V] if (~half_V).any() else table
        scales = other.scales()
        mixed_V[half_V] = table[half_V].experts(scales) @ expert_weights(other.experts(scales), other.count_V)
    library_N = row_sums(held_out.visible)
    expected_V = library_N[table.cell_V] * (table.count_V.sum() / max(library_N.sum(), 1.0))
    compared = {
        "model": mixed_V,
        "gene_mean": share_VK[:, 0],
        "no_imputation": FLOOR * share_VK[:, 0] + (1 - FLOOR) * table.own_V,
        "gene_mean_own_counts": share_VK[:, 1],
        "network": share_VK[:, 2],
        "network_own_counts": share_VK[:, 3],
    }
    n = float(table.count_V.sum())

    def deviance(share_V: NDArray[np.float64]) -> float:
        ratio_V = table.count_V / np.maximum(share_V * expected_V, SMALLEST)
        return float(2 * (table.count_V * np.log(ratio_V)).sum() / n)

    return {"n": int(n), **{name: {"deviance": deviance(share_V)} for name, share_V in compared.items()}}
