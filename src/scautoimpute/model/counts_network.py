"""The two ends of the counts network that see every gene: a sparse first layer and a multinomial head.

Both have analytic gradients: the first layer costs as many multiply-adds as there are stored counts, and the head
holds one cells × genes matrix, which its gradient overwrites.

Shape legend: B cells, I inputs (genes, then batches), G genes, H hidden units, Z stored values.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from .counts_inputs import CountsEncoding
from .network import Autoencoder

__all__ = [
    "SMALLEST_SHARE",
    "Inputs",
    "Rows",
    "Workspace",
    "as_array",
    "gene_by_gene",
    "hidden_layer",
    "log_shares",
    "multinomial_loss",
    "offsets",
    "product_type",
]

SMALLEST_SHARE = 1e-37  # float32 has little below; its log is finite


@dataclass(frozen=True)
class Rows:
    """A sparse matrix as torch takes it: row starts, column and value of each stored value."""

    start_B1: Tensor
    column_Z: Tensor
    value_Z: Tensor
    n_columns: int

    @classmethod
    def of(cls, x: Any, device: torch.device) -> "Rows":
        """Take a scipy CSR matrix to `device`."""
        arrays = (x.indptr.astype(np.int64), x.indices.astype(np.int64), x.data.astype(np.float32, copy=False))
        start_B1, column_Z, value_Z = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(start_B1, column_Z, value_Z, x.shape[1])

    @property
    def positions(self) -> Tensor:
        """Where each stored value is in the flattened dense matrix."""
        n_rows = len(self.start_B1) - 1
        rows_B, n_Z = torch.arange(n_rows, device=self.start_B1.device), len(self.column_Z)
        row_Z = torch.repeat_interleave(rows_B, self.start_B1.diff(), output_size=n_Z)
        return row_Z * self.n_columns + self.column_Z

    def times(self, table_IH: Tensor) -> Tensor:
        """Product with a dense matrix, B × H."""
        return functional.embedding_bag(
            self.column_Z,
            table_IH.contiguous(),
            self.start_B1,
            mode="sum",
            per_sample_weights=self.value_Z.to(table_IH.dtype),
            include_last_offset=True,
        )


def product_type(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the processor multiplies it faster than float32 (the sums stay in float32)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    supports = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return torch.bfloat16 if device.type == "cpu" and any(s() for s in supports if s) else torch.float32


class _SparseLayer(torch.autograd.Function):
    """(x − c)·E for sparse x and a centre c that is never subtracted from the zeros one by one."""

    @staticmethod
    def forward(ctx: Any, weight_HI: Tensor, centre_I: Tensor, x: Rows, transposed: Rows) -> Tensor:
        ctx.centre_I, ctx.transposed = centre_I, transposed
        return x.times(weight_HI.t()) - weight_HI @ centre_I

    @staticmethod
    def backward(ctx: Any, gradient_BH: Tensor) -> tuple[Tensor | None, ...]:
        gradient_IH = ctx.transposed.times(gradient_BH.contiguous())
        gradient_IH.addr_(ctx.centre_I, gradient_BH.sum(0), alpha=-1)
        return gradient_IH.t(), None, None, None


@dataclass(frozen=True)
class Inputs:
    """Inputs of some cells by cell, B × I, and by input, I × B, which gradients are made from."""

    by_cell: Rows
    by_input: Rows

    @classmethod
    def of(cls, x: sparse.csr_array, device: torch.device, *, with_gradient: bool = True) -> "Inputs":
        """Take a scipy matrix to `device`."""
        rows = Rows.of(x, device)
        return cls(rows, Rows.of(x.tocsc().T, device) if with_gradient else rows)


def gene_by_gene(net: Autoencoder) -> Autoencoder:
    """Put the first layer in memory as the sparse product reads it, which would otherwise copy it every time."""
    first = net.layers[0].weight
    first.data = first.data.t().contiguous().t()
    return net


def hidden_layer(net: Autoencoder, x: "sparse.csr_array | Inputs | Tensor", centre_I: Tensor) -> Tensor:
    """Value of the last hidden layer for the inputs `x` − `centre_I`, B × H; dense, `x` is without its centre."""
    if isinstance(x, Tensor):
        return net.embed(x)
    first, *deeper = net.layers
    if not isinstance(x, Inputs):
        x = Inputs.of(x, centre_I.device, with_gradient=torch.is_grad_enabled())
    arguments = first.weight, centre_I, x.by_cell, x.by_input
    product_BH: Tensor = _SparseLayer.apply(*arguments)  # type: ignore[no-untyped-call]
    h_BH = net.activation(product_BH + first.bias)
    for layer in deeper:
        h_BH = net.activation(layer(h_BH))
    return h_BH


class Workspace:
    """Memory that one batch leaves to the next: fresh pages cost more than what is computed on them."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an uninitialised tensor, which holds until the same name is taken again."""
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or buffer.numel() < size or (buffer.dtype, buffer.device) != (dtype, device):
            buffer = self._buffers[name] = torch.empty(size, dtype=dtype, device=device)
        return buffer[:size].view(shape)


class _MultinomialLoss(torch.autograd.Function):
    """−Σ y·log p / Σ y with p = softmax(h·D + offset); the gradient by the logits is (n·p − y) / Σ y."""

    @staticmethod
    def forward(  # noqa: PLR0917 (torch calls it by position)
        ctx: Any,
        h_BH: Tensor,
        weight_GH: Tensor,
        offset_BG: Tensor,
        y: Rows,
        dtype: torch.dtype,
        workspace: Workspace,
    ) -> Tensor:
        shape, device = (len(h_BH), len(weight_GH)), h_BH.device
        h, weight = h_BH.to(dtype), weight_GH.to(dtype)
        product_BG = torch.mm(h, weight.t(), out=workspace.take("product", shape, dtype, device))
        logit_BG = workspace.take("logit", shape, torch.float32, device).copy_(product_BG).add_(offset_BG)
        share_BG = torch.softmax(logit_BG, 1, out=logit_BG)
        position_Z, total = y.positions, y.value_Z.sum().clamp(min=1)
        loss = -(y.value_Z * share_BG.view(-1)[position_Z].clamp(min=SMALLEST_SHARE).log()).sum() / total
        n_B = torch.segment_reduce(y.value_Z, "sum", offsets=y.start_B1, initial=0.0)
        by_logit_BG = share_BG.mul_((n_B / total)[:, None])
        by_logit_BG.view(-1).index_add_(0, position_Z, y.value_Z / -total)
        ctx.kept = h, weight, by_logit_BG, product_BG, len(offset_BG) == 1
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, by_logit_BG, buffer_BG, one_offset = ctx.kept
        by_offset = by_logit_BG.sum(0, keepdim=True) if one_offset else by_logit_BG
        rounded_BG = buffer_BG.copy_(by_logit_BG)
        by_h_BH, by_weight_GH = (rounded_BG @ weight).float(), (rounded_BG.t() @ (h * gradient)).float()
        return by_h_BH * gradient, by_weight_GH, by_offset * gradient, None, None, None


def multinomial_loss(
    h_BH: Tensor,
    weight_GH: Tensor,
    offset_BG: Tensor,
    y: Rows,
    *,
    dtype: torch.dtype = torch.float32,
    workspace: Workspace | None = None,
) -> Tensor:
    """Negative log-likelihood per molecule of the counts `y` under softmax(h·D + offset), without its constant.

    Parameters
    ----------
    h_BH, weight_GH
        Last hidden layer and decoder.
    offset_BG
        Added to the logits in float32: log frequencies and biases; one row, or one for each cell.
    y
        Counts, B × G.
    dtype
        Type in which the three products with the decoder are made.
    workspace
        Kept from batch to batch; the gradient of one must be taken before the next loss.
    """
    arguments = h_BH, weight_GH, offset_BG, y, dtype, workspace or Workspace()
    loss: Tensor = _MultinomialLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


def offsets(net: Autoencoder, encoding: CountsEncoding, batch_B: NDArray[np.intp] | Tensor) -> Tensor:
    """What is added to the logits of each cell: log frequencies and biases; one row where there is one batch."""
    if net.side is None:
        return encoding.log_frequency_KG + net.decoder.bias
    table_KG: Tensor = encoding.log_frequency_KG + net.side.weight.t() + net.decoder.bias
    if isinstance(batch_B, Tensor):  # on a GPU the gradient of a selection adds up in no order
        return functional.one_hot(batch_B, len(table_KG)).to(table_KG.dtype) @ table_KG
    return table_KG.index_select(0, torch.as_tensor(batch_B, device=table_KG.device))


def log_shares(h_BH: Tensor, weight_GH: Tensor, offset_BG: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Log of the share of each gene among the molecules of each cell, B × G."""
    return torch.log_softmax(offset_BG + h_BH.to(dtype) @ weight_GH.to(dtype).t(), 1)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Tensor as a NumPy array."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
