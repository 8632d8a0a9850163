"""What is said of every method: the record that registers it, and the scale that it works on."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNTS", "Imputed", "Method", "Preparation"]

_CURVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (np.asarray, np.asarray),
    "log1p": (np.log1p, np.expm1),
    "log2p1": (lambda x: np.log2(x + 1), lambda y: np.exp2(y) - 1),
    "sqrt": (np.sqrt, np.square),
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """How counts become what a method works on: every cell scaled to one total, then a curve.

    Attributes
    ----------
    total
        What every cell is scaled to: a number, `"median"` (of the totals of all cells), `"genes"` (the number of
        genes, i.e. cells are divided by their mean), or None for counts as they are.
    curve
        Applied to the scaled counts; all of them leave zero at zero.
    """

    total: float | Literal["median", "genes"] | None
    curve: Literal["linear", "log1p", "log2p1", "sqrt"]

    def apply(self, scaled: Any) -> Any:
        """Take scaled counts along the curve."""
        return _CURVES[self.curve][0](scaled)

    def undo(self, values: Any) -> Any:
        """Inverse of `apply`."""
        return _CURVES[self.curve][1](values)


COUNTS = Preparation(None, "linear")


class Imputed(NamedTuple):
    """What a method may return instead of an array: the values, and what it chose or learned, in plain types."""

    values: NDArray[np.float64]
    learned: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method as the registry knows it.

    Attributes
    ----------
    name, title
        As in ``method="drimpute"``, and as its authors spell it.
    impute
        ``impute(x, *, rng, **options)``: `x` is a canonical float64 ``csr_array``, cells × genes, prepared as
        `takes` says, `rng` a NumPy Generator. Returns a dense float64 array of the same shape on the same scale,
        or an `Imputed` with it.
    takes
        The scale of `x`.
    keeps_observed
        Whether the method as published leaves observed (non-zero) values as they are.
    reference
        Paper and, where it was ported, the version of the program that it is held to.
    limits
        What it cannot do or should not be used for, in one sentence.
    peak_bytes
        Estimated peak memory at a number of cells and of genes.
    min_cells
        With fewer it cannot run.
    extra
        The optional dependency group that it needs, e.g. `"compare"`.
    load
        Imports the optional library, or raises `MissingDependencyError`.
    distributions
        Installed packages whose versions belong in the record of a run.
    estimates_observed
        For a method that keeps observed values: whether what `impute` returns for them are estimates, so that
        ``keep_observed=False`` can be asked for.
    per_cell
        Options that hold a value per cell (along the last axis): cells without entries, which the method is not
        shown, are taken out of them too.
    """

    name: str
    title: str
    impute: Callable[..., NDArray[np.float64] | Imputed]
    takes: Preparation
    keeps_observed: bool
    reference: str
    limits: str
    peak_bytes: Callable[[int, int], float]
    min_cells: int = 2
    extra: str | None = None
    load: Callable[[], object] | None = None
    distributions: tuple[str, ...] = ("numpy", "scipy")
    estimates_observed: bool = False
    per_cell: tuple[str, ...] = ()

    @property
    def takes_counts(self) -> bool:
        """Whether it works on counts, scaled or not, rather than on a curve of them."""
        return self.takes.curve == "linear"

    @property
    def options(self) -> dict[str, Any]:
        """The options that it takes, with their defaults."""
        parameters = list(inspect.signature(self.impute).parameters.values())
        return {p.name: p.default for p in parameters[1:] if p.name != "rng"}
