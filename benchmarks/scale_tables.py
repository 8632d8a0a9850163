"""Markdown tables of the rows of the scale benchmark: what was asked, what was found, how it grows with the cells."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

from recovery_tables import markdown, processor
from scale_cases import CASES, LARGE, PAPER, Case

__all__ = ["write_tables"]

SHORTER = ("masked_5_minutes", "masked_2000")  # than the training to convergence
ABOUT = """# Scale: seconds and memory against the number of cells

Cells are RESAMPLED from a real count set: drawn with replacement, counts drawn anew around the real ones. Seconds are
of the whole process, from its start to the written file; where a case ran more than once, all figures are medians. The
floor is what the matrix products alone would take at the measured rate of large ones, and what reading the input and
writing the output would at that of the disk, both without anything else; the share is that of the larger of the two in
the seconds found. The load is that of the minute before a run began, to which the run before it adds."""


def write_tables(rows: Sequence[Any], path: Path) -> str:
    """Write every table to `path` and return the text."""
    found = {case.name: medians([row for row in rows if (row.family, row.cells) == (case.family, case.cells)])
             for case in CASES}  # fmt: skip
    done = [(case, found[case.name]) for case in CASES if found[case.name]]
    versions = ", ".join(dict.fromkeys(row.version for row in rows))
    threads = ", ".join(dict.fromkeys(str(row.threads) for row in rows))
    parts = [ABOUT, f"{processor()}, {threads} threads; scautoimpute {versions}."]
    parts += ["## Every run", runs_table(done), "## Against the number of cells", growth_table(found)]
    parts += ["## Against the training to convergence", converged_table(found)]
    parts += ["## Against other methods", rivals_table(found)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def medians(rows: list[Any]) -> dict[str, Any]:
    """Median of each number; of runs that ended, if any did. Empty if there are none."""
    ended = [row for row in rows if not row.note] or rows
    if not ended:
        return {}
    first = vars(ended[0])
    return {
        name: median(getattr(row, name) for row in ended) if isinstance(value, float) else value
        for name, value in first.items()
    } | {"runs": len(ended)}


def runs_table(done: list[tuple[Case, dict[str, Any]]]) -> str:
    head = ["case", "cells × genes", "options", "seconds", "processor's", "GB", "asked", "epochs", "held out"]
    head += ["products, s", "disk, s", "share of floor", "load", "runs"]
    return markdown(head, [run_line(case, row) for case, row in done])


def run_line(case: Case, row: dict[str, Any]) -> list[str]:
    size = f"{row['cells']:,} × {row['genes']:,}"
    if row["note"]:
        return [
            case.family,
            size,
            f"`{row['options']}`",
            f"ended: {row['note']}",
            *["–"] * 8,
            f"{row['load']:.1f}",
            str(row["runs"]),
        ]
    seconds = f"{row['wall_s']:.1f}" + ("" if isnan(row["imports_s"]) else f" (imports {row['imports_s']:.1f})")
    score = "–" if isnan(row["held_out"]) else f"{row['held_out']:.4f} (gene means {row['held_out_floor']:.4f})"
    floor = max(row["product_s"], row["disk_s"])
    figures = [seconds, f"{row['cpu_s']:.1f}", f"{row['peak_gb']:.2f}", asked(case, row), str(row["epochs"]), score]
    share = "–" if isnan(floor) else f"{floor / row['wall_s']:.0%}"
    figures += [number(row["product_s"]), number(row["disk_s"]), share, f"{row['load']:.1f}", str(row["runs"])]
    return [case.family, size, f"`{row['options']}`", *figures]


def number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.1f}"


def asked(case: Case, row: dict[str, Any]) -> str:
    """What was asked of the case, and whether it is met."""
    if case.most_imports_s is not None:
        return (
            f"imports in {case.most_imports_s} s: {'met' if row['imports_s'] <= case.most_imports_s else '**not met**'}"
        )
    if case.most_seconds is None or case.most_gb is None:
        return "–"
    met = row["wall_s"] <= case.most_seconds and row["peak_gb"] <= case.most_gb
    return f"{case.most_seconds:,.0f} s, {case.most_gb} GB: {'met' if met else '**not met**'}"


def growth_table(found: dict[str, dict[str, Any]]) -> str:
    """Cost per cell and peak memory of the largest number of cells over those of the paper's."""
    lines = []
    for family in dict.fromkeys(case.family for case in CASES):
        small, large = found.get(f"{family}_{PAPER}"), found.get(f"{family}_{LARGE}")
        if small and large and not (small["note"] or large["note"]):
            cost = large["wall_s"] / LARGE / (small["wall_s"] / PAPER)
            memory = large["peak_gb"] / small["peak_gb"]
            lines.append([family, f"{cost:.2f} (asked: 1.3)", f"{memory:.2f} (asked: 1.2)"])
    return markdown(["case", f"seconds per cell, {LARGE:,} over {PAPER:,}", "GB"], lines) if lines else "Not run yet."


def converged_table(found: dict[str, dict[str, Any]]) -> str:
    """Held-out error over that of a training with a tenth of the threshold."""
    lines = []
    for case in CASES:
        short, long = found[case.name], found.get(f"masked_converged_{case.cells}")
        if case.family in SHORTER and short and long and not (short["note"] or long["note"]):
            excess, epochs = short["held_out"] / long["held_out"] - 1, f"{short['epochs']} of {long['epochs']}"
            lines.append([case.family, f"{case.cells:,}", f"{excess:.2%} (asked: 1 %)", epochs])
    head = ["case", "cells", "held-out error above that of convergence", "epochs"]
    return markdown(head, lines) if lines else "Not run yet."


def rivals_table(found: dict[str, dict[str, Any]]) -> str:
    """How much longer and larger other methods are on the same cells."""
    lines = []
    for case in CASES:
        ours, other = found.get(f"counts_all_{case.cells}"), found[case.name]
        if "--method" not in case.options or not ours or not other or ours["note"]:
            continue
        ratios = ["–", "–", other["note"]]
        if not other["note"]:
            ratios = [f"{other[name] / ours[name]:.1f} ×" for name in ("wall_s", "peak_gb")] + [""]
        lines.append([case.options[1], f"{case.cells:,}", *ratios])
    head = ["method", "cells", "its seconds over ours", "its GB over ours", "ended"]
    return markdown(head, lines) if lines else "Not run yet."
