"""The grid that settings are chosen from, and the plan by which bad ones are dropped early."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ..model.settings import Settings

__all__ = ["TUNABLE", "candidates", "plan_rungs", "resolved"]

TUNABLE = ("l2", "learning_rate", "threshold", "hidden")  # the four that the paper tunes

# Around each preset's defaults. The values are this package's; of the paper only the defaults of its program are known.
_GRIDS: dict[str | None, dict[str, tuple[Any, ...]]] = {
    None: {
        "l2": (0.01, 1.0),
        "learning_rate": (1e-3, 3e-3, 1e-2),
        "threshold": (2e-3, 2e-4),
        "hidden": (32, 128, 512),
    },
    "paper": {
        "l2": (0.1, 1.0, 10.0),
        "learning_rate": (1e-4, 1e-3),
        "threshold": (1e-2, 1e-4),
        "hidden": (64, 500, 2000),
    },
}


def candidates(grid: Mapping[str, Sequence[Any]] | None, preset: str | None, n_cells: int) -> list[dict[str, Any]]:
    """Every combination of the grid's values, each checked, the defaults first whether the grid has them or not."""
    default = resolved(preset, n_cells)
    if grid is None:
        larger = default["learning_rate"] / resolved(preset, 0)["learning_rate"]  # of many cells the steps are
        grid = _GRIDS[preset] | {"learning_rate": tuple(rate * larger for rate in _GRIDS[preset]["learning_rate"])}
    _check(grid)
    names = [name for name in TUNABLE if name in grid]
    found = [{name: default[name] for name in names}]
    for values in product(*(grid[name] for name in names)):
        settings = resolved(preset, n_cells, **dict(zip(names, values, strict=True)))
        candidate = {name: settings[name] for name in names}
        if candidate not in found:
            found.append(candidate)
    if len(found) == 1:
        msg = "the grid holds nothing but the defaults, so there is nothing to choose: give other values"
        raise ValueError(msg)
    return found


def resolved(preset: str | None, n_cells: int, **chosen: Any) -> dict[str, Any]:
    """All settings of `preset` with some changed, checked, in plain types: a single hidden width as a number."""
    by_cells = dict.fromkeys(("learning_rate", "n_folds", "batch_size"))
    values = Settings.resolve(objective="masked", preset=preset, **by_cells | chosen).for_cells(n_cells).to_json()
    values |= {name: float(values[name]) for name in ("l2", "learning_rate", "threshold")}
    widths = values["hidden"]
    values["hidden"] = widths[0] if len(widths) == 1 else tuple(widths)
    return values


def _check(grid: Any) -> None:
    if not isinstance(grid, Mapping) or not grid:
        msg = f"the grid is {grid!r}: give values for one or more of {', '.join(TUNABLE)}, e.g. {{'l2': [0.1, 1]}}"
        raise ValueError(msg)
    for name, values in grid.items():
        if name not in TUNABLE:
            msg = f"the grid has {name!r}, which cannot be tuned: choose from {', '.join(TUNABLE)}"
            raise ValueError(msg)
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not len(values):
            msg = f"the grid's {name} is {values!r}: give a list of one or more values, e.g. [0.1, 1]"
            raise ValueError(msg)


def plan_rungs(
    n_candidates: int, *, factor: float, min_resources: int | None, max_resources: int
) -> list[tuple[int, int]]:
    """How many candidates are trained in each rung, and for how long at most; the last rung has all of the time.

    The rule of successive halving (Jamieson & Talwalkar, AISTATS 2016): a rung keeps one in `factor` and gives those
    `factor` times as much.

    Examples
    --------
    >>> plan_rungs(36, factor=3, min_resources=None, max_resources=150)
    [(36, 6), (12, 17), (4, 50), (2, 150)]
    """
    _check_schedule(factor, min_resources, max_resources)
    n_rungs = 1 + round(math.log(n_candidates, factor))
    start = max_resources / factor ** (n_rungs - 1) if min_resources is None else min_resources
    rungs, resources = [], max(1.0, start)
    while n_candidates > 1 and round(resources) < max_resources:
        rungs.append((n_candidates, math.ceil(resources - 1e-9)))
        n_candidates, resources = math.ceil(n_candidates / factor), resources * factor
    return [*rungs, (n_candidates, max_resources)]


def _check_schedule(factor: Any, min_resources: Any, max_resources: int) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 < factor < math.inf:
        msg = f"factor={factor!r} is out of range: give a number above 1, e.g. 3 to keep one in three"
        raise ValueError(msg)
    if min_resources is not None and not (isinstance(min_resources, int) and 1 <= min_resources <= max_resources):
        msg = f"min_resources={min_resources!r} is out of range: give an integer from 1 to {max_resources}"
        raise ValueError(msg)
