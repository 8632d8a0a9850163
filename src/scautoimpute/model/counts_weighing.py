"""What the experts of the counts objective are worth: dispersions, weights and scores on held-out molecules.

Shape legend: N cells, B cells in a block, G genes, V held-out entries, E estimates of the shares, S scales of the
dispersions, K = 2E experts.
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
from .counts import CountsModel, expected, expert_names
from .counts_network import as_array
from .counts_store import CountsRows
from .dispersion import SCALES, DispersionMoments
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

    def blocks(self, model: CountsModel) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
        """Yield rows, and the share of each gene by each estimate."""
        for rows in model.blocks(self.visible):
            batch_B = self.batch_N[rows]
            yield rows, model.shares(self.visible[rows], batch_B, batch_B)


@dataclass(frozen=True)
class _Table:
    """What the shares at the held-out entries are computed from, by every estimate alone and with the cell's counts.

    Attributes
    ----------
    count_V, cell_V, own_V
        Held-out molecules, whose they are, and visible ones of the same gene.
    library_V
        Visible molecules of the cell.
    mean_VE, excess_VE
        Count that each estimate expects, and its θ.
    total_NES
        Sum over a cell's genes of the posterior, before it is brought to `whole_NE` as by `gamma_posterior`.
    whole_NE
        Sum over the genes of the counts that each estimate expects of a cell.
    """

    count_V: NDArray[np.float64]
    cell_V: NDArray[np.intp]
    own_V: NDArray[np.float32]
    library_V: NDArray[np.float32]
    mean_VE: NDArray[np.float32]
    excess_VE: NDArray[np.float32]
    total_NES: NDArray[np.float32]
    whole_NE: NDArray[np.float32]

    def of(self, chosen_V: NDArray[np.bool_]) -> "_Table":
        """Keep some entries."""
        return replace(self, **{name: array[chosen_V] for name, array in vars(self).items() if "_V" in name})

    def posterior(self, estimate: int, scale: int) -> NDArray[np.float32]:
        """Share by the posterior about an estimate, its dispersions multiplied with one of `SCALES`."""
        mean_V: NDArray[np.float32] = self.mean_VE[:, estimate]
        excess_V = self.excess_VE[:, estimate] * np.float32(SCALES[scale])
        posterior_V = mean_V + (self.own_V - mean_V) * (excess_V / (1 + excess_V))
        factor_N = self.whole_NE[:, estimate] / np.maximum(self.total_NES[:, estimate, scale], SMALLEST)
        shares: NDArray[np.float32] = (posterior_V * factor_N[self.cell_V] / self.library_V).astype(np.float32)
        return shares

    def scales(self) -> list[int]:
        """Position in `SCALES` of the most likely one for each estimate."""
        return [
            int(np.argmax([self.count_V @ _log(self.posterior(e, s)) for s in range(len(SCALES))]))
            for e in range(self.mean_VE.shape[1])
        ]

    def experts(self, scales: list[int]) -> NDArray[np.float64]:
        """Shares by each expert, V × K."""
        by_mean_VE = self.mean_VE / self.library_V[:, None]
        columns = [c for e, s in enumerate(scales) for c in (by_mean_VE[:, e], self.posterior(e, s))]
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
    model = replace(model, dispersion_EG=_dispersions(model, visible, batch_N, processes))
    table = _table(model, held_out)
    scales = table.scales()
    share_VK = table.experts(scales)
    weights_K = expert_weights(share_VK, table.count_V)
    factor_E = torch.tensor([SCALES[i] for i in scales], device=model.device)
    fitted = replace(model, dispersion_EG=model.dispersion_EG * factor_E[:, None], weights_K=weights_K)
    return fitted, _scores(table, share_VK, held_out)


@torch.no_grad()
def _dispersions(model: CountsModel, x: CountsRows, batch_N: NDArray[np.intp], processes: Processes) -> Tensor:
    """φ of each gene about what each estimate expects, E × G."""
    moments = [DispersionMoments(x.shape[1]) for _ in range(model.dispersion_EG.shape[0])]
    evenly = islice(model.blocks(x), 0, None, max(1, x.shape[0] // MANY_CELLS))
    with progress_bar(min(x.shape[0], MANY_CELLS), "weighing", "cell") as bar:
        for rows, block in made_ahead((rows, x[rows]) for rows in processes.every(evenly)):
            x_BG, library_B1 = model.dense(block)
            shares = model.shares(block, batch_N[rows], batch_N[rows])
            for moment, (mean_BG, unit_BG) in zip(moments, expected(shares, library_B1), strict=True):
                moment.add(x_BG, mean_BG, unit_BG)
            bar.update(block.shape[0])
    for moment in moments:
        moment.excess_G, moment.in_units_G = processes.sum(moment.excess_G), processes.sum(moment.in_units_G)
    return torch.as_tensor(np.stack([m.estimate() for m in moments]), device=model.device)


@torch.no_grad()
def _table(model: CountsModel, held_out: HeldOutMolecules) -> _Table:
    parts: list[dict[str, NDArray[Any]]] = []
    for rows, shares in held_out.blocks(model):
        molecules = held_out.molecules[rows]
        cell_V, gene_V = molecules.nonzero()
        at = torch.as_tensor(cell_V, device=model.device), torch.as_tensor(gene_V, device=model.device)
        x_BG, library_B1 = model.dense(held_out.visible[rows])
        library_B1 = library_B1.clamp(min=SMALLEST)
        excesses = zip(expected(shares, library_B1), model.dispersion_EG, strict=True)
        of_each = [_at(at, x_BG, mean_BG, unit_BG * phi_G) for (mean_BG, unit_BG), phi_G in excesses]
        names = "mean_VE", "excess_VE", "whole_NE", "total_NES"
        of_entries = {n: torch.stack(each, 1) for n, each in zip(names, zip(*of_each, strict=True), strict=True)}
        of_entries |= {"own_V": x_BG[at], "library_V": library_B1[at[0], 0]}
        counted = {"count_V": molecules.data.astype(np.float64), "cell_V": cell_V + rows.start}
        parts.append(counted | {name: as_array(tensor) for name, tensor in of_entries.items()})
    return _Table(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _at(at: tuple[Tensor, Tensor], x_BG: Tensor, mean_BG: Tensor, excess_BG: Tensor) -> tuple[Tensor, ...]:
    """What `_Table` holds of an estimate: μ and θ at the entries, and sums over the genes.

    These are of μ, and of μ·(1 − s) + x·s = x − (x − μ) / (1 + θ) for each of `SCALES`.
    """
    residual_BG, one, own_B, totals = x_BG - mean_BG, torch.ones((), device=x_BG.device), x_BG.sum(1), []
    buffer_BG = torch.empty_like(mean_BG)
    for scale in SCALES:
        torch.add(one, excess_BG, alpha=scale, out=buffer_BG)
        totals.append(own_B - torch.div(residual_BG, buffer_BG, out=buffer_BG).sum(1))
    return mean_BG[at], excess_BG[at], mean_BG.sum(1), torch.stack(totals, 1)


def _log(share_V: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    logs: NDArray[np.floating[Any]] = np.log(np.maximum(share_V, SMALLEST))
    return logs


def _scores(table: _Table, share_VK: NDArray[np.float64], held_out: HeldOutMolecules) -> dict[str, Any]:
    """Poisson deviance per held-out molecule of the model, cross-fitted between two halves of the cells, and of parts.

    Expected are a cell's visible molecules times the overall ratio of held-out to visible ones, so that what is
    expected of all cells and genes together is what was held out.
    """
    mixed_V = np.empty(len(share_VK))
    odd_V = table.cell_V % 2 == 1
    for half_V in (odd_V, ~odd_V):
        other = table.of(~half_V) if (~half_V).any() else table
        scales = other.scales()
        mixed_V[half_V] = table.of(half_V).experts(scales) @ expert_weights(other.experts(scales), other.count_V)
    library_N = row_sums(held_out.visible)
    expected_V = library_N[table.cell_V] * (table.count_V.sum() / max(library_N.sum(), 1.0))
    compared = {
        "model": mixed_V,
        "gene_mean": share_VK[:, 0],
        "no_imputation": FLOOR * share_VK[:, 0] + (1 - FLOOR) * table.own_V / table.library_V,
        "gene_mean_own_counts": share_VK[:, 1],
        **dict(zip(expert_names(share_VK.shape[1])[2:], share_VK.T[2:], strict=True)),
    }
    n = float(table.count_V.sum())

    def deviance(share_V: NDArray[np.float64]) -> float:
        ratio_V = table.count_V / np.maximum(share_V * expected_V, SMALLEST)
        return float(2 * (table.count_V * np.log(ratio_V)).sum() / n)

    return {"n": int(n), **{name: {"deviance": deviance(share_V)} for name, share_V in compared.items()}}
