"""Scores of many cells side by side: mean and noise over seeds, and who is best within noise."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["FLOORS", "Column", "best_within_noise", "columns", "difference"]

FLOORS = ("none", "gene_mean", "gene_cell_bias")  # what every method has to beat

Column = dict[str, dict[int, float]]  # method → seed → score


def columns(cells: Iterable[Mapping[str, Any]], *, experiment: str, measure: str) -> dict[tuple[str, str], Column]:
    """Gather the scores of a measure by data set and setting.

    Parameters
    ----------
    cells
        Of the results.
    experiment, measure
        Which.

    Returns
    -------
    For each data set and setting, the scores of every method by seed.
    """
    found: dict[tuple[str, str], Column] = {}
    for cell in cells:
        if cell["experiment"] != experiment:
            continue
        for score in cell["scores"]:
            if score["measure"] == measure:
                of = found.setdefault((cell["dataset"], score["setting"]), {})
                of.setdefault(cell["method"], {})[cell["seed"]] = score["value"]
    return found


def difference(column: Column, *, of: str, to: str) -> tuple[float, float]:
    """Mean of `of` less mean of `to`, over the seeds that both have, and its standard error.

    Parameters
    ----------
    column
        Scores.
    of, to
        Two methods.

    Returns
    -------
    Difference and standard error, which is 0 where there is one seed. NaN if no seed has both.

    Examples
    --------
    >>> difference({"a": {0: 2.0, 1: 4.0}, "b": {0: 1.0, 1: 1.0}}, of="a", to="b")
    (2.0, 1.0)
    """
    gained = [column[of][seed] - column[to][seed] for seed in column[of].keys() & column[to].keys()]
    if not gained:
        return math.nan, math.nan
    error = statistics.stdev(gained) / math.sqrt(len(gained)) if len(gained) > 1 else 0.0
    return statistics.fmean(gained), error


def best_within_noise(column: Column, *, lower: bool, among: Sequence[str] | None = None) -> tuple[str, set[str]]:
    """Return the method of the best mean, and all that are tied with it.

    Methods that lack seeds (of runs that failed, or were not asked for) are compared over those they have: the mean of
    an easy seed is not held against the mean of all.

    Parameters
    ----------
    column
        Scores, of at least one method.
    lower
        Whether lower is better.
    among
        Only these.

    Returns
    -------
    The best, and those (it included) whose difference from it is at most one standard error over common seeds.

    Examples
    --------
    >>> best_within_noise({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.5, 1: 1.7}, "c": {0: 9.0, 1: 9.5}}, lower=True)[0]
    'a'
    """
    there = [name for name in column if among is None or name in among]
    sign = 1 if lower else -1
    by_mean = sorted(there, key=lambda name: sign * statistics.fmean(column[name].values()))
    best, *others = sorted(by_mean, key=lambda name: -len(column[name]))
    for name in others:
        if sign * difference(column, of=name, to=best)[0] < 0:
            best = name
    tied = {best}
    for name in there:
        gap, error = difference(column, of=name, to=best)
        if not math.isnan(gap) and sign * gap <= error:
            tied.add(name)
    return best, tied
