"""The table of results as reports read it: by data set, setting and method, averaged over seeds.

`results` is the plain dictionary that `results.json` holds: a manifest, and one cell for each experiment, data set,
method and seed, with its scores, its time and memory, and how it ended.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.experiments.scale import setting_of
from ..evaluation.scores import best_within_noise
from .page import Mark

__all__ = [
    "MEASURES",
    "Measure",
    "Row",
    "Score",
    "cells_of",
    "dataset_of",
    "marks_of",
    "methods_of",
    "rows_of",
    "setting_asked",
    "titles_of",
    "usage_rows",
]


@dataclass(frozen=True, slots=True)
class Measure:
    """How a number is called, printed and compared.

    Attributes
    ----------
    title
        In captions.
    digits
        After the point; None for as many as three significant digits need.
    lower_is_better
        None where neither end is.
    takes_work
        Whether it measures work, at which no imputation is no rival.
    """

    title: str
    digits: int | None
    lower_is_better: bool | None
    takes_work: bool = False

    def text(self, score: "Score") -> str:
        """Print a mean with its spread, if there is one."""
        spread = "" if score.sd is None else f" ± {self.printed(score.sd)}"
        return f"{self.printed(score.mean)}{spread}"

    def printed(self, value: float) -> str:
        """Print a value with the digits that this measure is given with."""
        digits = self.digits
        if digits is None:
            digits = max(0, 2 - math.floor(math.log10(max(abs(value), 0.1))))
        return f"{value:,.{digits}f}".replace("-", "−")


MEASURES: Mapping[str, Measure] = {
    "rmse": Measure("RMSE", 3, True),
    "mae": Measure("MAE", 3, True),
    "nmse": Measure("NMSE", 3, True),
    "held_out_deviance": Measure("deviance", 4, True),
    "ari": Measure("adjusted Rand index", 3, False),
    "silhouette": Measure("silhouette", 3, False),
    "silhouette_all_genes": Measure("silhouette on all genes", 3, False),
    "log_cv_median": Measure("median ln CV", 2, None),
    "zeros_in_silent": Measure("zeros kept in silent genes", 3, False),
    "zeros_in_expressed": Measure("zeros left in expressed genes", 3, True),
    "zero_fraction": Measure("zeros left", 3, None),
    "seconds": Measure("seconds", None, True, takes_work=True),
    "peak_gb": Measure("peak GB", None, True, takes_work=True),
}


@dataclass(frozen=True, slots=True)
class Score:
    """What a method scored, seed by seed, and its spread: over seeds, and over the restarts of each run if it has any.

    The spread is None of one run without restarts.
    """

    by_seed: Mapping[int, float]
    sd: float | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.by_seed.values())


@dataclass(frozen=True, slots=True)
class Row:
    """What every method scored in one setting on one data set; a method without a score has the reason instead."""

    dataset: str
    setting: str
    scores: Mapping[str, Score]
    reasons: Mapping[str, str]


_Runs = dict[str, dict[int, tuple[float, float | None]]]  # method → seed → score, and its spread over restarts


def titles_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the title of each method by its name, in the order of the manifest."""
    return {name: method["title"] for name, method in results["manifest"]["methods"].items()}


def cells_of(results: Mapping[str, Any], experiment: str) -> list[Mapping[str, Any]]:
    """Return the cells of an experiment, done or not."""
    return [cell for cell in results["cells"] if cell["experiment"] == experiment]


def methods_of(results: Mapping[str, Any], experiment: str) -> list[str]:
    """Return the methods that an experiment was asked of, in the order of the manifest."""
    asked = {cell["method"] for cell in cells_of(results, experiment)}
    return [name for name in titles_of(results) if name in asked]


def rows_of(results: Mapping[str, Any], experiment: str, measure: str) -> list[Row]:
    """Average a measure over seeds; one row for each data set and setting, in the order of the cells."""
    found: dict[tuple[str, str], _Runs] = {}
    for cell in cells_of(results, experiment):
        own = {s["setting"]: float(s["value"]) for s in cell["scores"] if s["measure"] == f"{measure}_sd"}
        for score in (s for s in cell["scores"] if s["measure"] == measure):
            row = found.setdefault((dataset_of(cell), setting_asked(cell) or score["setting"]), {})
            run = float(score["value"]), own.get(score["setting"])
            row.setdefault(cell["method"], {})[cell["seed"]] = run
    return _ordered(results, [_row(results, experiment, key, values) for key, values in found.items()])


def usage_rows(results: Mapping[str, Any], experiment: str, what: str) -> list[Row]:
    """Average `seconds` or `peak_gb` of whole cells over seeds; one row for each data set."""
    found: dict[tuple[str, str], _Runs] = {}
    for cell in cells_of(results, experiment):
        if cell["status"] == "done" and cell.get(what) is not None:
            row = found.setdefault((dataset_of(cell), ""), {})
            row.setdefault(cell["method"], {})[cell["seed"]] = float(cell[what]), None
    return _ordered(results, [_row(results, experiment, key, values) for key, values in found.items()])


def _row(
    results: Mapping[str, Any],
    experiment: str,
    key: tuple[str, str],
    values: "_Runs",
) -> Row:
    scores = {method: _score(runs) for method, runs in values.items()}
    reasons = {
        cell["method"]: cell["status"]
        for cell in cells_of(results, experiment)
        if dataset_of(cell) == key[0] and cell["status"] != "done" and cell["method"] not in scores
        if setting_asked(cell) in {"", key[1]}
    }
    return Row(*key, scores, reasons)


def dataset_of(cell: Mapping[str, Any]) -> str:
    """Return the data set of a cell; in the experiment on scale, each size has a cell of its own after an @."""
    return str(cell["dataset"]).partition("@")[0] if setting_asked(cell) else str(cell["dataset"])


def setting_asked(cell: Mapping[str, Any]) -> str:
    """Return the one setting that a cell is about; nothing if it covers all of them."""
    n_cells = cell.get("asked", {}).get("n_cells")
    return "" if n_cells is None else setting_of(n_cells)


def _score(runs: Mapping[int, tuple[float, float | None]]) -> Score:
    """Average over seeds; the spread between seeds and that which a run has of its own (restarts) add in squares."""
    by_seed = {seed: value for seed, (value, _) in runs.items()}
    own = [sd for _, sd in runs.values() if sd is not None]
    variance = statistics.variance(by_seed.values()) if len(by_seed) > 1 else 0.0
    if own:
        variance += statistics.fmean(sd**2 for sd in own)
    return Score(by_seed, math.sqrt(variance) if own or len(by_seed) > 1 else None)


def _ordered(results: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Sort by data set as in the manifest; settings stay in the order in which they came."""
    place = {name: number for number, name in enumerate(results["manifest"]["datasets"])}
    return sorted(rows, key=lambda row: place.get(row.dataset, len(place)))


def marks_of(scores: Mapping[str, Score], measure: Measure) -> dict[str, Mark]:
    """Say which method is best, and which are tied with it: no further from it than one standard error.

    That error is of the difference over the seeds that both have, zero of one seed. Of one score alone nothing is said.
    At time and memory, no imputation does not compete.
    """
    if measure.takes_work:
        scores = {name: score for name, score in scores.items() if name != "none"}
    if measure.lower_is_better is None or len(scores) < 2:
        return {}
    column = {name: dict(score.by_seed) for name, score in scores.items()}
    best, tied = best_within_noise(column, lower=measure.lower_is_better)
    marks: dict[str, Mark] = dict.fromkeys(tied, "tied")
    return marks | {best: "best"}
