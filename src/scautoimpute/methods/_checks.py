"""What is asked of a method: refused before any work is done where it cannot be had."""

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..scales import check_masked_scale
from ._record import Method

if TYPE_CHECKING:
    from .._genes import Flavor, TopGenes

Values = Literal["counts", "logs"]


def checked_options(record: Method, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options given, all of which the method takes."""
    given = dict(options or {})
    unknown = [name for name in given if name not in record.options]
    if unknown:
        known = ", ".join(record.options)
        allowed = f"allowed are {known}" if known else "it takes none"
        msg = f"options= has {unknown[0]!r}, which method={record.name!r} does not take: {allowed}"
        raise ValueError(msg)
    return given


def checked_scale(values: str, scale: str | None) -> str:
    """Return the scale to convert to; logs are passed through as if they were counts at size factor 1."""
    if values not in get_args(Values):
        msg = f"values={values!r} is not known: choose {' or '.join(map(repr, get_args(Values)))}"
        raise ValueError(msg)
    if values == "logs" and scale is not None:
        msg = f"scale={scale!r} was given with values='logs', whose result stays on the scale of the logs: leave it out"
        raise ValueError(msg)
    chosen = "counts" if values == "logs" else scale or "log1p"
    check_masked_scale(chosen)
    return chosen


def checked_keeping(record: Method, keep_observed: bool | None) -> bool:
    """Return whether observed values stay, by default as published."""
    if keep_observed is None:
        return record.keeps_observed
    if not keep_observed and record.keeps_observed and not record.estimates_observed:
        msg = f"keep_observed=False has no effect: method={record.name!r} estimates no observed values; leave it out"
        raise ValueError(msg)
    return keep_observed


def check_logs(record: Method, values: str, n_top_genes: "TopGenes", flavor: "Flavor | None") -> None:
    """Refuse logs where they do not fit."""
    if values == "logs" and record.takes_counts:
        msg = (
            f"method={record.name!r} takes counts, and values='logs' was given: give counts, or choose another method="
        )
        raise ValueError(msg)
    choosing = {"n_top_genes": None if n_top_genes == "all" else n_top_genes, "flavor": flavor}
    for name, value in choosing.items():
        if values == "logs" and value is not None:
            msg = f"{name}={value!r} was given with values='logs': choose the genes of the logs beforehand"
            raise ValueError(msg)


def refuse_few_cells(record: Method, n_cells: int) -> None:
    """Raise unless the method can run on so many cells."""
    if n_cells < record.min_cells:
        msg = (
            f"{n_cells} cells have entries in the modelled genes, and method={record.name!r} needs at least "
            f"{record.min_cells}: give more cells, or choose another method="
        )
        raise ValueError(msg)


def per_cell(name: str, value: Any, n_cells: int) -> NDArray[Any]:
    """Return an option that has a value for each of the cells, along the last axis, as an array."""
    try:
        values = np.asarray(value)
    except ValueError:  # rows of different lengths
        values = np.asarray(value, dtype=object)
    if values.ndim == 0 or values.shape[-1] != n_cells:
        msg = (
            f"options= has {name} of shape {values.shape} for {n_cells} cells: "
            "give a value for each cell, in their order"
        )
        raise ValueError(msg)
    return values


# ------------------------------------------------------------------------------------- values of options


def whole_number(name: str, value: Any, *, low: int, high: int | None = None, hint: str = "") -> int:
    """Return an option that is a whole number of a range; `hint` ends the message of one that is not."""
    if not _is_whole(value, low, high):
        raise ValueError(_refusal(name, value, f"give a whole number {_range(low, high)}{hint}"))
    return int(value)


def whole_numbers(name: str, values: Any, *, low: int, high: int | None = None, hint: str = "") -> list[int]:
    """Return an option that is a list of whole numbers of a range."""
    listed = _listed(values, lambda value: _is_whole(value, low, high))
    if not listed:
        raise ValueError(_refusal(name, values, f"give a list of whole numbers {_range(low, high)}{hint}"))
    return [int(value) for value in listed]


def share(name: str, value: Any, *, inside: bool = False, hint: str = "") -> float:
    """Return an option that is a number from 0 to 1; with `inside`, neither of them."""
    if not _is_number(value, 0, 1) or (inside and value in {0, 1}):
        allowed = "above 0 and below 1" if inside else "from 0 to 1"
        raise ValueError(_refusal(name, value, f"give a number {allowed}{hint}"))
    return float(value)


def numbers(name: str, values: Any, *, low: float, hint: str = "") -> list[float]:
    """Return an option that is a list of finite numbers."""
    listed = _listed(values, lambda value: _is_number(value, low, None))
    if not listed:
        raise ValueError(_refusal(name, values, f"give a list of numbers {_range(low, None)}{hint}"))
    return [float(value) for value in listed]


def choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return an option that is one of some words."""
    if not (isinstance(value, str) and value in allowed):
        raise ValueError(_refusal(name, value, f"choose {_words(allowed)}"))
    return value


def choices(name: str, values: Any, allowed: Collection[str]) -> list[str]:
    """Return an option that is a list of some words."""
    listed = _listed(values, lambda value: isinstance(value, str) and value in allowed)
    if not listed:
        raise ValueError(_refusal(name, values, f"give a list of {_words(allowed)}"))
    return [str(value) for value in listed]


def _is_whole(value: Any, low: int, high: int | None) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and low <= value and (high is None or value <= high)


def _is_number(value: Any, low: float, high: float | None) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return real and low <= value and (high is None or value <= high)


def _listed(values: Any, fits: Callable[[Any], bool]) -> list[Any]:
    """Values of a list, tuple, range or array; none if one of them does not fit, or it is something else."""
    listed = list(values) if isinstance(values, list | tuple | range | np.ndarray) and np.ndim(values) == 1 else []
    return listed if all(fits(value) for value in listed) else []


def _range(low: float, high: float | None) -> str:
    return f"of at least {low}" if high is None else f"from {low} to {high}"


def _words(allowed: Collection[str]) -> str:
    return " or ".join(map(repr, allowed))


def _refusal(name: str, value: Any, instead: str) -> str:
    shown = value.tolist() if isinstance(value, np.ndarray) else value
    return f"options= has {name}={shown!r}: {instead}"
