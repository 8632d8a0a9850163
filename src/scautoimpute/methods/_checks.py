"""What is asked of a method: refused before any work is done where it cannot be had."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..scales import check_scale
from ._record import Method

if TYPE_CHECKING:
    from .._genes import TopGenes

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
    check_scale(chosen)
    return chosen


def checked_keeping(record: Method, keep_observed: bool | None) -> bool:
    """Return whether observed values stay, by default as published."""
    if keep_observed is None:
        return record.keeps_observed
    if not keep_observed and record.keeps_observed and not record.estimates_observed:
        msg = f"keep_observed=False has no effect: method={record.name!r} estimates no observed values; leave it out"
        raise ValueError(msg)
    return keep_observed


def check_request(record: Method, values: str, n_top_genes: "TopGenes", key_added: str, layer: str | None) -> None:
    """Refuse a result that would replace the values, and logs where they do not fit."""
    if key_added == layer:
        msg = f"key_added={key_added!r} is the layer that holds the values, which would be lost: give another name"
        raise ValueError(msg)
    if values == "logs" and record.takes_counts:
        msg = (
            f"method={record.name!r} takes counts, and values='logs' was given: give counts, or choose another method="
        )
        raise ValueError(msg)
    if values == "logs" and n_top_genes not in {None, "all"}:
        msg = f"n_top_genes={n_top_genes!r} was given with values='logs': choose the genes of the logs beforehand"
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
