"""Markdown tables of the rows of the recovery benchmark."""

import os
import platform
from importlib import metadata
from itertools import chain
from pathlib import Path

import pandas as pd

from rivals import METHODS

__all__ = ["write_tables"]

MEASURES = {"rmse": "RMSE", "mae": "MAE", "nmse": "NMSE"}
CELL = ["dataset", "flavor", "share"]
SUBJECT, OURS = "autoimpute", {"autoimpute", "autoimpute_paper", "autoimpute_2000"}
LIBRARIES = ("scautoimpute", "numpy", "scipy", "torch", "magic-impute")


def write_tables(rows: pd.DataFrame, path: Path, *, jobs: int) -> str:
    """Write every table to `path` and return the text."""
    rows = rows.assign(dataset=pd.Categorical(rows["dataset"], rows["dataset"].unique()))
    parts = ["# Recovery of hidden entries", hardware(jobs), legend(rows)]
    for measure, name in MEASURES.items():
        parts += [f"## {name}", score_table(rows, measure)]
    if SUBJECT in set(rows["method"]) and set(rows["method"]) - OURS:
        parts += [f"## Where {SUBJECT} is lowest", lowest(rows)]
    parts += ["## Median seconds a run", seconds_table(rows)]
    text = "\n\n".join(parts) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def legend(rows: pd.DataFrame) -> str:
    n_seeds = rows["seed"].nunique()
    return (
        f"Mean (standard deviation) over {n_seeds} seeds, each of which hides other entries. Bold: the least mean of "
        "the row. Where a method has fewer runs than others in its row, their number follows as n."
    )


def score_table(rows: pd.DataFrame, measure: str) -> str:
    """One line per data set and share, one column per method."""
    scores = rows.groupby([*CELL, "method"], observed=True)[measure].agg(["mean", "std", "count"]).to_dict("index")
    columns, lines = methods(rows), []
    for cell, _ in rows.groupby(CELL, observed=True):
        found = {method: scores[*cell, method] for method in columns if (*cell, method) in scores}
        least, most = min(s["mean"] for s in found.values()), max(s["count"] for s in found.values())
        lines.append([*cell_names(cell), *(score(found.get(method), least, most) for method in columns)])
    return markdown(["data set", "genes by", "hidden", *columns], lines)


def score(found: dict[str, float] | None, least: float, most: float) -> str:
    """Mean (standard deviation), in bold if it is the least, with the number of runs if it is not the most."""
    if found is None:
        return "–"
    text = f"**{found['mean']:.4f}**" if found["mean"] == least else f"{found['mean']:.4f}"
    text += "" if pd.isna(found["std"]) else f" ({found['std']:.4f})"
    return text if found["count"] == most else f"{text} n={found['count']:.0f}"


def lowest(rows: pd.DataFrame) -> str:
    """Count the cells in which the default configuration is below every rival, and list the others.

    A cell is a data set, a share and a measure; each rival is compared over the seeds that both have run.
    """
    beaten, n_cells = [], 0
    for measure, name in MEASURES.items():
        for cell, group in rows.groupby(CELL, observed=True):
            wide = group.pivot_table(index="seed", columns="method", values=measure, observed=True)
            rivals = [method for method in wide.columns if method not in OURS]
            if SUBJECT not in wide:
                continue
            margin = {rival: (wide[rival] - wide[SUBJECT]).dropna() for rival in rivals}
            margin = {rival: gained for rival, gained in margin.items() if len(gained)}
            if not margin:
                continue
            n_cells += 1
            closest = min(margin, key=lambda rival: margin[rival].mean())
            if margin[closest].mean() <= 0:
                won = f"{(margin[closest] > 0).sum()} of {len(margin[closest])}"
                beaten.append([*cell_names(cell), name, closest, f"{margin[closest].mean():+.4f}", won])
    summary = f"{SUBJECT} is lowest in {n_cells - len(beaten)} of {n_cells} cells (data set × share × measure)."
    if not beaten:
        return summary
    header = ["data set", "genes by", "hidden", "measure", "lower", "by", "seeds won"]
    return f"{summary} It is not in these:\n\n{markdown(header, beaten)}"


def seconds_table(rows: pd.DataFrame) -> str:
    median = rows.pivot_table(index="dataset", columns="method", values="seconds", aggfunc="median", observed=True)
    median = median[methods(rows)]
    lines = [[name, *("–" if pd.isna(s) else f"{s:.2f}" for s in values)] for name, *values in median.itertuples()]
    return markdown(["data set", *median.columns], lines)


def methods(rows: pd.DataFrame) -> list[str]:
    """Return the methods there are, in the order of the registry."""
    return [method for method in METHODS if method in set(rows["method"])]


def cell_names(cell: tuple[str, str, float]) -> list[str]:
    dataset, flavor, share = cell
    return [dataset, flavor, f"{share:.0%}"]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in chain([header, rule], lines))


def hardware(jobs: int) -> str:
    """Processor and versions, of the machine that writes the tables."""
    versions = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            continue
    return f"Ran on {processor()}, {os.cpu_count()} cores, {jobs} processes of one thread; {', '.join(versions)}."


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
