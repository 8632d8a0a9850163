"""Steps that a GPU repeats at one order: what it is told to do is recorded once, as a CUDA graph.

A step of a small network is some hundred orders, which take the processor longer than the GPU needs to follow them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["RecordedStep"]

STEPS_BEFORE = 3  # in which libraries are loaded and take their memory


class RecordedStep:
    """A step on batches of one shape, recorded on a GPU; elsewhere, and on other shapes, it is computed each time.

    Parameters
    ----------
    compute
        From the tensors of a batch to a loss; whatever else it changes has to stay where it is in memory.
    generator
        What `compute` draws from.
    size
        Rows of the batches that are repeated; none are if it is None.
    """

    def __init__(self, compute: Callable[..., Tensor], generator: torch.Generator, *, size: int | None) -> None:
        self._compute, self._generator, self._size, self._n_before = compute, generator, size, 0
        self._recorded: tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor] | None = None

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take the step; the loss holds until the next."""
        if self._generator.device.type != "cuda" or len(batch[0]) != self._size:
            return self._compute(*batch)
        if self._n_before < STEPS_BEFORE:
            self._n_before += 1
            return self._compute(*batch)
        if self._recorded is None:
            self._recorded = self._record(batch)
        graph, places, loss = self._recorded
        for place, tensor in zip(places, batch, strict=True):
            place.copy_(tensor)
        graph.replay()
        return loss

    def _record(self, batch: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        graph, places = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in batch)
        device = self._generator.device
        graph.register_generator_state(self._generator)
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            loss = self._compute(*places)
        return graph, places, loss
