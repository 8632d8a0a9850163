"""Values of a model of which some are tensors: what is written to its file, and moved to where it computes."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["HoldsTensors", "safetensors_of"]

_COPIES = 3  # that safetensors makes of what it is given


@dataclass(frozen=True)
class HoldsTensors:
    """A dataclass with tensors among its fields."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors among the fields, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> Self:
        """Same values with the tensors on `device`."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, **moved)


def safetensors_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return the content of a safetensors file.

    Raises
    ------
    MemoryError
        If there is no room for it; the library would end the process.
    """
    from safetensors.torch import save

    np.empty(_COPIES * sum(tensor.nbytes for tensor in tensors.values()), dtype=np.uint8)  # asked for, never touched
    return save(tensors, metadata=metadata)
