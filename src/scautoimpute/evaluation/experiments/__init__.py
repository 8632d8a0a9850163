"""The experiments by name, in the order of the paper's figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..trial import Trial
from . import molecules, recovery, scale, structure, zeros

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is run, and what is said of it.

    Attributes
    ----------
    title, what
        Its heading, and a sentence or two on how it is done.
    run
        Does it for one method on one data set and one seed; returns what the figures need.
    is_seeded
        Whether it is run with every seed, or with the first only.
    """

    title: str
    what: str
    run: Callable[[Trial], dict[str, Any]]
    is_seeded: bool = False


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "zeros": Experiment("True zeros (Fig. 2)", zeros.WHAT, zeros.run),
        "recovery": Experiment("Recovery of hidden entries (Fig. 3, Table S2)", recovery.WHAT, recovery.run, True),
        "structure": Experiment(
            "Clusters (Table 1), variance (Fig. 4) and separability (Fig. 5, Table S4)",
            structure.WHAT,
            structure.run,
            True,
        ),
        "scale": Experiment("Time and memory", scale.WHAT, scale.run),
        "molecules": Experiment("Held-out molecules", molecules.WHAT, molecules.run, True),
    }
)
