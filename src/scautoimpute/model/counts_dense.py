"""Cells as a GPU takes them, from their molecules to the loss: dense, of which it makes short work.

The processor does the same on stored values alone (`counts_network`). On a GPU that is a hundred small orders of sizes
that differ from batch to batch; dense, all batches are alike, and what is done with one can be recorded.

Shape legend: B cells in a batch, G genes, I inputs (genes, then batches), H hidden units.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from .counts_inputs import CountsEncoding
from .counts_network import log_shares

__all__ = ["dense_counts", "dense_inputs", "dense_loss", "inputs_of", "parted"]


def dense_counts(x: sparse.csr_array, device: torch.device) -> Tensor:
    """Take counts to `device`, with their zeros, B × G."""
    if device.type == "cpu":
        return torch.from_numpy(x.toarray()).float()
    x_BG = torch.zeros(x.shape, device=device)
    flat_Z = np.repeat(np.arange(x.shape[0], dtype=np.int64) * x.shape[1], np.diff(x.indptr)) + x.indices
    value_Z = torch.from_numpy(x.data.astype(np.float32, copy=False))
    x_BG.view(-1).scatter_(0, torch.from_numpy(flat_Z).to(device), value_Z.to(device))
    return x_BG


def dense_inputs(x_BG: Tensor, batch_B: Tensor, encoding: CountsEncoding) -> Tensor:
    """Return what `CountsEncoding.encode` does of counts, less its centre, B × I."""
    scale_B1 = encoding.median_library / x_BG.sum(1, keepdim=True).clamp(min=1)
    input_BI = torch.log1p(x_BG * scale_B1) * encoding.unit_G
    if encoding.n_batches > 1:
        input_BI = torch.cat([input_BI, functional.one_hot(batch_B, encoding.n_batches)], dim=1)
    return input_BI - encoding.centre_I


def inputs_of(x: sparse.csr_array, batch_B: NDArray[np.intp], encoding: CountsEncoding) -> "sparse.csr_array | Tensor":
    """Return what `hidden_layer` takes of counts, B × G: sparse on the processor, dense on a GPU."""
    device = encoding.unit_G.device
    if device.type == "cpu":
        return encoding.encode(x, batch_B)
    return dense_inputs(dense_counts(x, device), torch.as_tensor(batch_B, device=device), encoding)


def parted(x_BG: Tensor, shown: tuple[float, float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Part the molecules of each cell at random: a share of them, drawn between the two of `shown`, and the others."""
    share_B1 = x_BG.new_empty(len(x_BG), 1).uniform_(*shown, generator=generator)
    shown_BG = torch.binomial(x_BG, share_B1.expand_as(x_BG), generator=generator)
    return shown_BG, x_BG - shown_BG


def dense_loss(h_BH: Tensor, weight_GH: Tensor, offset_BG: Tensor, y_BG: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what `multinomial_loss` does, of dense counts; its gradients are torch's."""
    return -(y_BG * log_shares(h_BH, weight_GH, offset_BG, dtype)).sum() / y_BG.sum().clamp(min=1)
