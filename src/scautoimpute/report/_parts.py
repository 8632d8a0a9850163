"""The sections that reports on a table of results share, each from the cells of one experiment."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ._results import (
    MEASURES,
    cells_of,
    dataset_of,
    methods_of,
    rows_of,
    setting_asked,
    titles_of,
    usage_rows,
)
from ._tables import score_table
from .figures import Axis, Quartiles, boxes, lines, scatter_grid
from .page import Block, Figure, Listing, Prose, Section, Table

__all__ = [
    "STRONG",
    "clusters",
    "failures",
    "methods_cited",
    "molecules",
    "provenance",
    "recovery",
    "scale",
    "separability",
    "usage",
    "variance",
    "zeros",
    "zeros_left",
]

STRONG = "autoimpute"  # the method whose line is thick
POINTS_IN_ALL = 60_000  # of all scatter plots of a page together, which keeps it under 3 MB
TYPES_DRAWN = 3  # of each data set, in box plots; the table has all

_NOISE = (
    "Mean ± standard deviation over seeds. Tied with the best: no further from it than one standard error of the "
    "difference over the seeds that both have."
)


def _scores(results: Mapping[str, Any], experiment: str, measures: Sequence[str], caption: str = "{}.") -> list[Table]:
    methods, found = methods_of(results, experiment), []
    for name in measures:
        rows, measure = rows_of(results, experiment, name), MEASURES[name]
        if rows:
            text = caption.format(measure.title[0].upper() + measure.title[1:])
            found.append(score_table(results, rows, methods=methods, measure=measure, caption=text))
    return found


def _what(results: Mapping[str, Any], experiment: str) -> list[Block]:
    """Return how the experiment was done, where the manifest says so."""
    said = results["manifest"].get("experiments", {}).get(experiment)
    return [Prose(said["what"])] if said else []


def _strong(results: Mapping[str, Any]) -> str | None:
    return titles_of(results).get(STRONG)


def _named(results: Mapping[str, Any], by_method: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is held by method, by its title, in the order of the manifest."""
    return {title: by_method[name] for name, title in titles_of(results).items() if name in by_method}


def recovery(results: Mapping[str, Any], title: str) -> Section:
    """Errors at hidden entries: one figure against the share, one table per measure."""
    tables = _scores(results, "recovery", ["rmse", "mae", "nmse"], "{} at the hidden entries, lower is better.")
    if not tables:
        return Section(title, [])
    return Section(title, [*_what(results, "recovery"), _recovery_figure(results), Prose(_NOISE), *tables])


def _recovery_figure(results: Mapping[str, Any]) -> Figure:
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for row in rows_of(results, "recovery", "rmse"):
        for name, score in _named(results, row.scores).items():
            point = (_number(row.setting), score.mean, score.sd or 0.0)
            panels.setdefault(row.dataset, {}).setdefault(name, []).append(point)
    names = list(titles_of(results).values())
    x, y = Axis("non-zeros hidden (%)"), Axis("RMSE (log2)", limits=(0, None))
    return Figure(
        partial(lines, panels, x=x, y=y, names=names, strong=_strong(results)),
        f"RMSE at hidden entries against the share hidden, a line for each method, for {_listed(panels)}.",
        "RMSE against the share of non-zeros that was hidden; bars are the standard deviation over seeds.",
    )


def molecules(results: Mapping[str, Any], title: str) -> Section:
    """Deviance of held-out molecules."""
    tables = _scores(results, "molecules", ["held_out_deviance"], "{} of the held-out molecules, lower is better.")
    return Section(title, [*_what(results, "molecules"), *tables] if tables else [])


def clusters(results: Mapping[str, Any], title: str) -> Section:
    """Agreement of clusters with known types."""
    caption = "{} of k-means clusters and known types, higher is better; the spread is over restarts and seeds."
    tables = _scores(results, "structure", ["ari"], caption)
    return Section(title, [*_what(results, "structure"), *tables] if tables else [])


def variance(results: Mapping[str, Any], title: str) -> Section:
    """Variation within types: boxes of the largest types, and the medians of all."""
    caption = "{} of the genes within each type; less is not better if real differences between cells went with it."
    tables = _scores(results, "structure", ["log_cv_median"], caption)
    panels = _box_panels(results)
    how = [] if rows_of(results, "structure", "ari") else _what(results, "structure")  # or the clusters have said it
    if not panels:
        return Section(title, [*how, *tables] if tables else [])
    figure = Figure(
        partial(boxes, panels, x=Axis("ln CV of a gene"), strong=_strong(results)),
        f"Box plots of the coefficient of variation of genes after each method, for {_listed(panels)}.",
        "Coefficient of variation of every gene within a type, natural log: minimum, quartiles, maximum. "
        f"Drawn for the {TYPES_DRAWN} types of each data set with the most cells.",
    )
    return Section(title, [*how, figure, *tables])


def _box_panels(results: Mapping[str, Any]) -> dict[str, dict[str, Quartiles]]:
    found: dict[str, dict[str, Quartiles]] = {}
    for dataset, by_method in _drawn(results, "structure", "log_cv").items():
        for kind in _commonest(next(iter(by_method.values()))):
            numbers = {method: figure["log_cv"].get(kind) for method, figure in by_method.items()}
            found[f"{dataset}: {kind}"] = {m: Quartiles(*five) for m, five in numbers.items() if five}
    return {title: _named(results, panel) for title, panel in found.items() if panel}


def _commonest(figure: Mapping[str, Any]) -> list[str]:
    """Return the types with the most cells among those drawn; without such, the first ones."""
    names, types = figure.get("type_names", []), figure.get("types", [])
    kinds = sorted(figure["log_cv"], key=lambda kind: -types.count(names.index(kind)) if kind in names else 0)
    return kinds[:TYPES_DRAWN]


def _drawn(results: Mapping[str, Any], experiment: str, part: str) -> dict[str, dict[str, Any]]:
    """Return what was kept to be drawn, by data set and method, of the first seed that has it."""
    found: dict[str, dict[str, Any]] = {name: {} for name in results["manifest"]["datasets"]}
    for cell in cells_of(results, experiment):
        if cell["figure"].get(part):
            found.setdefault(cell["dataset"], {}).setdefault(cell["method"], cell["figure"])
    return {dataset: by_method for dataset, by_method in found.items() if by_method}


def separability(results: Mapping[str, Any], title: str) -> Section:
    """Silhouettes, and the cells on two principal components."""
    caption = "{} of the known types, higher is better."
    tables = _scores(results, "structure", ["silhouette", "silhouette_all_genes"], caption)
    drawn = _drawn(results, "structure", "pca")
    most = POINTS_IN_ALL // max(sum(map(len, drawn.values())), 1)
    figures = [_components_figure(results, dataset, by_method, most) for dataset, by_method in drawn.items()]
    return Section(title, [*tables, *figures])


def _components_figure(results: Mapping[str, Any], dataset: str, by_method: Mapping[str, Any], most: int) -> Figure:
    panels = {
        name: (figure["pca"], [figure["type_names"][number] for number in figure["types"]])
        for name, figure in _named(results, by_method).items()
    }
    return Figure(
        partial(scatter_grid, panels, classes=next(iter(by_method.values()))["type_names"], most=min(most, 2000)),
        f"{dataset}: cells on two principal components, coloured by type, after each of {_listed(panels)}.",
        f"{dataset}: cells on the first two principal components after each method, coloured by type.",
        small=True,
    )


def zeros(results: Mapping[str, Any], title: str) -> Section:
    """Zeros against bulk expression: silent genes should keep theirs, expressed genes lose them."""
    panels, ticks = _zero_panels(results)
    tables = _scores(results, "zeros", ["zeros_in_silent", "zeros_in_expressed"], "{}, as a fraction.")
    how = [*_what(results, "zeros"), *_zero_rule(results)]
    if not panels:
        return Section(title, [*how, *tables] if tables else [])
    x, y = Axis("bulk expression, ln(1 + CPM)", ticks=ticks), Axis("fraction of zeros", limits=(-0.04, 1.04))
    figure = Figure(
        partial(lines, panels, x=x, y=y, names=list(titles_of(results).values()), strong=_strong(results)),
        f"Fraction of zeros against bulk expression, a line for each method, for {_listed(panels)}.",
        "Fraction of zeros after imputation against the expression of the genes in bulk; genes that are silent in "
        "bulk stand apart on the left.",
    )
    return Section(title, [*how, figure, *tables])


def _zero_rule(results: Mapping[str, Any]) -> list[Block]:
    rule = results["manifest"].get("zero_rule")
    return [Prose(rule)] if rule else []


def zeros_left(results: Mapping[str, Any], title: str) -> Section:
    """Zeros left by each method, where no bulk says which of them are true."""
    caption = "{}, as a fraction of all values; fewer is not better if genes that are off were filled."
    tables = _scores(results, "structure", ["zero_fraction"], caption)
    return Section(title, [*_zero_rule(results), *tables] if tables else [])


def _zero_panels(
    results: Mapping[str, Any],
) -> tuple[dict[str, dict[str, list[tuple[float, float, float]]]], dict[float, str]]:
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for dataset, by_method in _drawn(results, "zeros", "lines").items():
        for method, figure in by_method.items():
            for line, bins in figure["lines"].items():
                heading = line if line == dataset else f"{dataset}: {line}"
                panels.setdefault(heading, {})[method] = _zero_points(bins)
    named = {title: _named(results, panel) for title, panel in panels.items()}
    most = max((x for panel in named.values() for points in panel.values() for x, _, _ in points), default=0.0)
    return named, {-1.5: "silent"} | {float(x): str(x) for x in range(0, int(most) + 1, 2)}


def _zero_points(bins: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Place each bin at the mean of its genes; silent genes apart, with a gap in the line."""
    points: list[tuple[float, float, float]] = []
    for label, x, y in zip(bins["bins"], bins["mean_ln_cpm"], bins["zero_fraction"], strict=True):
        if x is None or y is None:
            continue
        points += [(-1.5, y, 0.0), (-0.75, float("nan"), 0.0)] if label == "silent" else [(x, y, 0.0)]
    return points


def scale(results: Mapping[str, Any], title: str) -> Section:
    """Time and memory against the number of cells."""
    tables = _scores(results, "scale", ["seconds", "peak_gb"], "{}, lower is better.")
    if not tables:
        return Section(title, [])
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for measure in ("seconds", "peak_gb"):
        for row in rows_of(results, "scale", measure):
            for name, score in _named(results, row.scores).items():
                panel = panels.setdefault(f"{row.dataset}: {_USE[measure].title}", {})
                panel.setdefault(name, []).append((_number(row.setting), max(score.mean, 1e-3), score.sd or 0.0))
    y = {heading: _USE["seconds" if heading.endswith(_USE["seconds"].title) else "peak_gb"] for heading in panels}
    names = list(titles_of(results).values())
    ticks = {x: f"{x / 1000:g}k" for panel in panels.values() for line in panel.values() for x, _, _ in line}
    x = Axis("cells", logarithmic=True, ticks=ticks)
    figure = Figure(
        partial(lines, panels, x=x, y=y, names=names, strong=_strong(results)),
        f"Seconds and peak memory against the number of cells, a line for each method, for {_listed(panels)}.",
        "Time and memory against the number of cells, both axes logarithmic.",
    )
    return Section(title, [*_what(results, "scale"), figure, *tables])


_USE = {"seconds": Axis("seconds", logarithmic=True), "peak_gb": Axis("GB at most", logarithmic=True)}


def usage(results: Mapping[str, Any], title: str, *, experiments: Sequence[str]) -> Section:
    """Time and memory of one imputation of each data set, from the first of the experiments that was run."""
    for experiment in experiments:
        tables = []
        for what, unit in (("seconds", "Seconds"), ("peak_gb", "Peak memory in GB")):
            rows, methods = usage_rows(results, experiment, what), methods_of(results, experiment)
            caption = f"{unit} of one run ({experiment}), lower is better."
            if rows:
                tables.append(score_table(results, rows, methods=methods, measure=MEASURES[what], caption=caption))
        if tables:
            return Section(title, tables)
    return Section(title, [])


def failures(results: Mapping[str, Any], title: str) -> Section:
    """Everything that has no result, and why; equal reasons in one row."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for cell in (cell for cell in results["cells"] if cell["status"] != "done"):
        key = (titles_of(results)[cell["method"]], cell["experiment"], cell["status"], cell["note"] or "")
        where = ", ".join(filter(None, (dataset_of(cell), setting_asked(cell))))
        found.setdefault(key, []).append(where)
    notes: list[Block] = (
        [Prose("Also:"), Listing(results["manifest"]["notes"])] if results["manifest"].get("notes") else []
    )
    if not found:
        return Section(title, [Prose("Every method ran on every data set that it was asked for."), *notes])
    rows = [[*key[:3], "; ".join(dict.fromkeys(where)), key[3]] for key, where in found.items()]
    columns = ["method", "experiment", "what happened", "where", "why"]
    return Section(title, [Table("Cells of the tables without a result.", columns, rows, words=True), *notes])


def methods_cited(results: Mapping[str, Any], title: str) -> Section:
    """Each method with its source and its limits."""
    columns = {"title": "method", "reference": "source", "limits": "limits"}
    methods = results["manifest"]["methods"].values()
    rows = [[_plain(method.get(key)) for key in columns] for method in methods]
    return Section(title, [Table("The methods and their sources.", list(columns.values()), rows, words=True)])


def provenance(results: Mapping[str, Any], title: str) -> Section:
    """Data sets, versions, hardware, command and seeds."""
    manifest = results["manifest"]
    columns = {"cells": "cells", "genes": "genes", "types": "types", "note": "note"}
    rows = [[name, *(_plain(facts.get(key)) for key in columns)] for name, facts in manifest["datasets"].items()]
    data = Table("The data.", ["data set", *columns.values()], rows, words=True)
    apart = {"methods", "datasets", "experiments", "measures", "notes", "zero_rule"}
    facts = [[key.replace("_", " "), _plain(value)] for key, value in manifest.items() if key not in apart]
    return Section(title, [data, Table("What was run, with what, on what.", ["", ""], facts, words=True)])


def _plain(value: Any) -> str:
    """Print a value of the manifest as a reader would."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _number(setting: str) -> float:
    """Return the number in a setting like "10%" or "5,000 cells, resampled"."""
    return float(re.sub(r"[^\d.]", "", setting))


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
