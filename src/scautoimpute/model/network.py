"""The autoencoder.

Shape legend: B cells in a batch, I inputs, H hidden units, G genes, S side inputs.
"""

import itertools
import math
import threading
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Activation", "Autoencoder", "initialise_normal", "initialise_small"]

USUAL_WIDTH = 128  # of a hidden layer, for which learning rates are given
_BUILDING = threading.Lock()  # a global generator is put back as it was, which two at a time would not
Activation = Literal["sigmoid", "centred_sigmoid", "gelu"]


def _centred_sigmoid(z: Tensor) -> Tensor:
    return torch.sigmoid(z) - 0.5


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "centred_sigmoid": _centred_sigmoid,
    "gelu": nn.functional.gelu,
}


class Autoencoder(nn.Module):
    """Encoder → hidden layer(s) → linear decoder: X̃ = D·φ(E·R + b_E) + b_D (paper, eq. 7).

    Parameters
    ----------
    n_inputs
        Length of an input row (I).
    n_genes
        Length of an output row (G).
    hidden
        Width of each hidden layer; one layer is the paper, several the deeper model it proposes.
    activation
        φ. `"centred_sigmoid"` is σ − ½: the same function class once the offset has moved into the biases. `"gelu"`
        needs a third of the epochs on counts.
    decoder_bias
        Whether the decoder has b_D.
    n_side
        Extra inputs that reach the output linearly, past the hidden layers (S).
    """

    def __init__(
        self,
        n_inputs: int,
        n_genes: int,
        hidden: tuple[int, ...] = (2000,),
        *,
        activation: Activation = "sigmoid",
        decoder_bias: bool = True,
        n_side: int = 0,
    ) -> None:
        super().__init__()
        widths = (n_inputs, *hidden)
        with _BUILDING, torch.random.fork_rng(devices=[]):  # first values are of a global generator, and are replaced
            self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
            self.decoder = nn.Linear(hidden[-1], n_genes, bias=decoder_bias)
            self.side = nn.Linear(n_side, n_genes, bias=False) if n_side else None
        self.activation = _ACTIVATIONS[activation]

    def embed(self, x_BI: Tensor) -> Tensor:
        """Values of the last hidden layer, B × H."""
        for layer in self.encoder:
            x_BI = self.activation(layer(x_BI))
        return x_BI

    def forward(self, x_BI: Tensor, side_BS: Tensor | None = None) -> Tensor:
        """Reconstruction, B × G."""
        y_BG: Tensor = self.decoder(self.embed(x_BI))
        if self.side is not None and side_BS is not None:
            y_BG = y_BG + self.side(side_BS)
        return y_BG

    @property
    def layers(self) -> list[nn.Linear]:
        """Encoder layers, first to last."""
        return [layer for layer in self.encoder if isinstance(layer, nn.Linear)]

    @property
    def width_factors(self) -> list[float]:
        """Factor of each parameter's learning rate, so that the best rate hardly depends on the width.

        What reads the inputs, and a bias, is to move as fast at any width, what reads a hidden layer by 1/width (μP:
        Yang et al., Tensor Programs V, arXiv:2203.03466, table 3, for Adam). Measured with 16, 32 and 2,000 units.
        """
        read_by = {id(layer.weight): layer.in_features for layer in (*self.layers[1:], self.decoder)}
        return [USUAL_WIDTH / read_by.get(id(parameter), USUAL_WIDTH) for parameter in self.parameters()]

    @property
    def weights(self) -> list[Tensor]:
        """The matrices that the penalty of eq. 8 acts on: E (each encoder layer) and D."""
        return [layer.weight for layer in (*self.layers, self.decoder)]


def initialise_normal(net: Autoencoder, generator: torch.Generator) -> None:
    """Draw every weight and bias from N(0, 1), as the published program does."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)


def initialise_small(net: Autoencoder, generator: torch.Generator, *, encoder_sd: float = 0.0315) -> None:
    """Start near the base: small weights keep the sigmoids out of saturation, zero biases keep the output at nothing.

    `encoder_sd` is for 1000 genes and shrinks with their number; the decoder's shrinks with the hidden width.
    """
    first, *deeper = net.layers
    nn.init.normal_(first.weight, std=encoder_sd * math.sqrt(1000 / net.decoder.out_features), generator=generator)
    for layer in deeper:
        nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features), generator=generator)
    decoder_sd = 0.01 * min(1.0, math.sqrt(USUAL_WIDTH / net.decoder.in_features))
    nn.init.normal_(net.decoder.weight, std=decoder_sd, generator=generator)
    for layer in (*net.layers, net.decoder):
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if net.side is not None:
        nn.init.zeros_(net.side.weight)
