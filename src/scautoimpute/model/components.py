"""Directions in which cells differ from their batch's gene frequencies: what few cells tell better than a network does.

A count x of a cell with n molecules, of a gene with frequency f, deviates by (x − nf) / √(nf): of variance one, were it
Poisson. Singular values of noise alone, N × G, end at √N + √G; those beyond are shrunk as much as noise has raised them
(Gavish and Donoho 2017, Frobenius loss). Overdispersed counts are noisier: by what factor, molecules tell that were
held out.

Shape legend: N cells, B cells in a block, G genes, K batches, C components, Z stored counts, V held-out entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..io.matrix import evenly_spaced, row_blocks, row_sums
from .counts_inputs import CountsEncoding
from .counts_network import Rows
from .counts_store import CountsRows
from .tensors import HoldsTensors

__all__ = ["MOST_CELLS", "Components", "fit_components"]

# A network of many cells knows what components do. Milli-nats per held-out molecule with and without: of 140 cells 7.20
# and 6.93, of 2,700 cells 207.3 and 203.4, of 4,382 cells 232.1 and 229.5, of 9,470 cells 167.3 and 166.5
MOST_CELLS = 10_000
COUNTS_TAKEN, CELLS_TAKEN = 2_000_000, 2000  # are enough, of counts above zero and of cells
MOST_COMPONENTS = 48
LOWEST_FOLD = 0.01  # of a gene's frequency
NOISE = (1.0, 1.2, 1.5, 2.0, 3.0, 4.5)  # variance of a deviation, in that of a Poisson count
CELLS_JUDGED, CELLS_PER_BLOCK = 500, 256
TOLERANCE = 1e-3  # of the singular values
SMALL = 500  # cells or genes, of which a matrix of products is made

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Components(HoldsTensors):
    """What the components of one fit make of any cell.

    Attributes
    ----------
    direction_GC
        Orthonormal.
    kept_C
        Share of a cell's deviation in each direction that is not noise.
    """

    direction_GC: Tensor
    kept_C: Tensor

    @torch.no_grad()
    def shares(self, x: sparse.csr_array, encoding: CountsEncoding, batch_B: Any, into_B: Any) -> Tensor:
        """Share of each gene among a cell's molecules, were it in the batch `into_B`, B × G.

        How many times its batch's share a gene has in the cell is the same there.
        """
        device, root_KG = self.kept_C.device, encoding.log_frequency_KG.div(2).exp()
        own_B, into = (torch.as_tensor(batch, device=device) for batch in (batch_B, into_B))
        scaled, root_B = _scaled(x, batch_B, encoding.frequency_roots)
        root_B1, expected_KC = torch.as_tensor(root_B, device=device)[:, None], root_KG @ self.direction_GC
        score_BC = Rows.of(scaled, device).times(self.direction_GC) - root_B1 * expected_KC.index_select(0, own_B)
        deviation_BG = (score_BC * self.kept_C / root_B1.clamp(min=1)) @ self.direction_GC.t()
        fold_BG = deviation_BG.div_(_of_each(root_KG, own_B)).add_(1).clamp_(min=LOWEST_FOLD)
        share_BG = fold_BG.mul_(_of_each(encoding.log_frequency_KG.exp(), into))
        return share_BG.div_(share_BG.sum(1, keepdim=True))


@torch.no_grad()
def fit_components(
    x: CountsRows,
    batch_N: NDArray[np.intp],
    encoding: CountsEncoding,
    held_out: sparse.csr_array,
    cells: NDArray[np.intp],
) -> Components | None:
    """Find the directions, and by held-out molecules how noisy they are.

    Parameters
    ----------
    x
        Visible counts of all cells, N × G. Of many, evenly spaced ones are taken: 2,000, or more with two million
        counts above zero.
    batch_N, encoding
        Batch of each cell, and the share of each gene among its molecules.
    held_out, cells
        Held-out molecules of some cells, and which these are.

    Returns
    -------
    None if nothing is beyond noise, or foretells the held-out molecules.
    """
    encoding = encoding.to(torch.device("cpu"))
    taken = evenly_spaced(x.shape[0], max(CELLS_TAKEN, x.shape[0] * COUNTS_TAKEN // max(x.nnz, 1)))
    blocks = [taken[rows] for rows in row_blocks(taken, CELLS_PER_BLOCK)]
    parts = [(*_scaled(x[cells_B], batch_N[cells_B], encoding.frequency_roots), batch_N[cells_B]) for cells_B in blocks]
    singular_C, direction_GC = _singular(parts, encoding.frequency_roots)
    judged = evenly_spaced(len(cells), CELLS_JUDGED)
    rows = x[cells[judged]], held_out[judged], batch_N[cells[judged]]
    n_cells = sum(int(np.count_nonzero(root_B)) for _, root_B, _ in parts)
    best, highest = None, _log_likelihood(_none(x.shape[1]), encoding, *rows)
    for noise in NOISE:  # the likelihood has one peak
        kept_C = _kept(singular_C / np.sqrt(noise), n_cells, x.shape[1])
        if not kept_C.any():
            break
        arrays = np.ascontiguousarray(direction_GC[:, kept_C > 0]), kept_C[kept_C > 0].astype(np.float32)
        components = Components(*map(torch.from_numpy, arrays))
        likelihood = _log_likelihood(components, encoding, *rows)
        if likelihood > highest:
            best, highest = components, likelihood
        elif best is not None:
            break
    return best


def _none(n_genes: int) -> Components:
    """Components that leave the gene frequencies as they are."""
    return Components(torch.zeros(n_genes, 1), torch.zeros(1))


def _singular(parts: list[tuple[sparse.csr_array, Values, NDArray[np.intp]]], root_KG: Values) -> tuple[Values, Values]:
    """Largest singular values of the deviations, C, and their directions, G × C, of which no matrix is made.

    Parameters
    ----------
    parts
        Blocks of x / √(nf), with √n and the batch of each cell.
    root_KG
        √f.
    """
    shape = sum(len(root_B) for _, root_B, _ in parts), root_KG.shape[1]
    ends = np.cumsum([len(root_B) for _, root_B, _ in parts])[:-1]

    def times(v_G: Values) -> Values:
        expected_K = root_KG @ v_G
        return np.concatenate([scaled @ v_G - root_B * expected_K[batch_B] for scaled, root_B, batch_B in parts])

    def transposed_times(u_N: Values) -> Values:
        product_G, expected_K = np.zeros(shape[1], np.float32), np.zeros(len(root_KG), np.float32)
        for (scaled, root_B, batch_B), u_B in zip(parts, np.split(u_N, ends), strict=True):
            product_G += scaled.T @ u_B
            np.add.at(expected_K, batch_B, root_B * u_B)
        return product_G - expected_K @ root_KG

    if shape[0] > shape[1]:
        square_C, direction_GC = _eigen(lambda v_G: transposed_times(times(v_G)), shape[1])
        return np.sqrt(square_C), direction_GC
    square_C, cell_NC = _eigen(lambda u_N: times(transposed_times(u_N)), shape[0])
    singular_C = np.sqrt(square_C)
    directions = [transposed_times(u_N) / s for u_N, s in zip(cell_NC.T, singular_C, strict=True)]
    return singular_C, np.stack(directions, 1) if directions else np.zeros((shape[1], 0), np.float32)


def _eigen(product: Callable[[Values], Values], size: int) -> tuple[Values, Values]:
    """Largest eigenvalues above zero of a positive operator, falling, and their vectors, size × C."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    if size <= SMALL:
        matrix = np.stack([product(unit) for unit in np.eye(size, dtype=np.float32)], 1).astype(np.float64)
        value_C, vector_SC = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        operator = LinearOperator((size, size), matvec=lambda v: product(v.ravel()), dtype=np.float32)
        rng = np.random.default_rng(0)
        # What it draws where it starts anew, too (SciPy 1.17)
        drawn = {"rng": rng} if "rng" in signature(eigsh).parameters else {}
        start = rng.normal(size=size).astype(np.float32)
        if not product(start).any():
            return np.zeros(0, np.float32), np.zeros((size, 0), np.float32)
        try:
            value_C, vector_SC = eigsh(operator, MOST_COMPONENTS, v0=start, tol=TOLERANCE**2, **drawn)
        except ArpackNoConvergence as error:
            value_C, vector_SC = error.eigenvalues, error.eigenvectors
    falling = [c for c in np.argsort(value_C)[::-1][: min(MOST_COMPONENTS, size - 1)] if value_C[c] > 0]
    return value_C[falling].astype(np.float32), vector_SC[:, falling].astype(np.float32)


def _kept(singular_C: NDArray[np.floating[Any]], n_cells: int, n_genes: int) -> NDArray[np.floating[Any]]:
    """What optimal shrinkage leaves of each singular value beside noise of variance one, as a share of it."""
    square_C = singular_C.astype(np.float64) ** 2
    within_C = np.maximum((square_C - n_cells - n_genes) ** 2 - 4 * n_cells * n_genes, 0)
    beyond_C = singular_C > np.sqrt(n_cells) + np.sqrt(n_genes)
    return np.where(beyond_C, np.sqrt(within_C) / np.maximum(square_C, 1), 0.0)


def _log_likelihood(
    components: Components,
    encoding: CountsEncoding,
    x: sparse.csr_array,
    held_out: sparse.csr_array,
    batch_B: NDArray[np.intp],
) -> float:
    total = 0.0
    for rows in row_blocks(x, CELLS_PER_BLOCK):
        share_BG = components.shares(x[rows], encoding, batch_B[rows], batch_B[rows]).numpy()
        part = held_out[rows].tocoo()
        total += float(part.data @ np.log(share_BG[part.row, part.col]))
    return total


def _of_each(values_KG: Tensor, batch_B: Tensor) -> Tensor:
    return values_KG if len(values_KG) == 1 else values_KG.index_select(0, batch_B)


def _scaled(
    x: sparse.csr_array, batch_B: NDArray[np.intp], root_KG: NDArray[np.float32]
) -> tuple[sparse.csr_array, NDArray[np.float32]]:
    """Counts over √(nf), B × G, and √n of each cell."""
    root_B, n_Z = np.sqrt(row_sums(x)).astype(np.float32), np.diff(x.indptr)
    value_Z = root_KG[np.repeat(batch_B, n_Z) if len(root_KG) > 1 else 0, x.indices]
    value_Z *= np.repeat(root_B, n_Z)
    np.divide(x.data, value_Z, out=value_Z)
    return sparse.csr_array((value_Z, x.indices, x.indptr), shape=x.shape), root_B
