"""What a network is trained to make small.

Shape legend: B cells in a batch, G genes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["masked_squared_error", "weight_penalty"]


def masked_squared_error(x_BG: Tensor, y_BG: Tensor, weight_BG: Tensor) -> Tensor:
    """Squared error over the observed entries (paper, eq. 8, first term), a scalar.

    Parameters
    ----------
    x_BG, y_BG
        Data and reconstruction.
    weight_BG
        1 where an entry was observed, 0 where it is hidden or missing; values between weight it.
    """
    return (weight_BG * (x_BG - y_BG).square()).sum()


def weight_penalty(weights: Iterable[Tensor], l2: float) -> Tensor:
    """λ/2 (‖E‖² + ‖D‖²) (paper, eq. 8, second term), a scalar; biases are not penalised."""
    return 0.5 * l2 * torch.stack([weight.square().sum() for weight in weights]).sum()
