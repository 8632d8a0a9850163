"""Markdown tables of the rows of the benchmark of methods."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from recovery_tables import hardware, markdown
from scautoimpute.methods import METHODS

__all__ = ["write_tables"]

ABOUT_RECOVERY = """The paper's recovery test at 10 % hidden, one seed: 1000 genes by coefficient of variation, log2
scale; RMSE, MAE and NMSE at the hidden entries, lower is better, the least in bold. A method that takes counts got
2^x − 1. Methods that take zeros for data (kNN, MAGIC, scImpute, DrImpute, ALRA, scVI) answer another question, how much
is *expressed*, and pay for it here: the test asks how much there was *given that it was detected*. scImpute
chooses its number of clusters itself here, and scVI gets counts that are not whole. Seconds are by the clock and
without imports, of a shared machine with other runs beside, up to three where no seconds of the processor are given;
GB is the peak of the process above what it held before the method began."""

ABOUT_COMMAND_LINE = """Counts of a file through `scautoimpute impute FILE --method NAME --n-top-genes 1000 -o OUT`,
each a process of its own in one thread: all that the command does, start, imports, reading and writing included, and
GB is the peak of the whole process. What was written was read again: the layer is finite, not negative and of every
cell and gene, and the counts are as they were."""

ABOUT_ORIGINALS = """Each port, end to end and with a seed of its own, on the input of a stored run of the original
program (`scImpute` 0.0.9, `DrImpute` 1.0, `ALRA` f34d465, all in R 4.2; `magic-impute` 3.0.0, whose library is the
method here): correlation with the stored output over all entries, and over those that the original changed. Clusters
and randomised decompositions draw other numbers than R; given the originals' own draws the steps agree to the
tolerances in the tests. The seconds of the originals were measured when their outputs were stored, not in this run."""


def write_tables(rows: pd.DataFrame, path: Path) -> str:
    """Write every table to `path` and return the text."""
    parts = ["# Every method on the same data", hardware(1)]
    tested = rows[rows["kind"] == "recovery"]
    if len(tested):
        parts += ["## Recovery", ABOUT_RECOVERY]
    for data, group in tested.groupby("data", sort=False):
        size = group.dropna(subset="cells").iloc[0]
        parts += [f"### {data}, {size['cells']:.0f} cells × {size['genes']:.0f} genes", recovery_table(group)]
    commands = rows[rows["kind"] == "cli"]
    if len(commands):
        parts += ["## Through the command line", ABOUT_COMMAND_LINE, command_line_table(commands)]
    ports = rows[rows["kind"] == "original"]
    if len(ports):
        parts += ["## Beside the original programs", ABOUT_ORIGINALS, originals_table(ports)]
    text = "\n\n".join(parts) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def recovery_table(rows: pd.DataFrame) -> str:
    lines = []
    for method in METHODS:
        for row in rows[rows["method"] == method].to_dict("records"):
            if pd.isna(row["rmse"]):
                lines.append([method, "–", "–", "–", "–", "–", "–", str(row["note"])])
                continue
            scores = [score(row[name], rows[name].min()) for name in ("rmse", "mae", "nmse")]
            lines.append([method, *scores, f"{row['seconds']:.2f}", processor(row), f"{row['peak_gb']:.2f}", ""])
    return markdown(["method", "RMSE", "MAE", "NMSE", "seconds", "processor's", "GB", "note"], lines)


def command_line_table(rows: pd.DataFrame) -> str:
    lines = []
    for method in METHODS:
        for row in rows[rows["method"] == method].to_dict("records"):
            note = "" if pd.isna(row["note"]) else str(row["note"])
            done = pd.notna(row["seconds"])
            size = f" ({row['cells']:.0f} × {row['genes']:.0f})" if done else ""
            figures = [f"{row['seconds']:.1f}", processor(row), f"{row['peak_gb']:.2f}"] if done else ["–", "–", "–"]
            lines.append([method, f"{row['data']}{size}", *figures, note])
    return markdown(["method", "file", "seconds", "processor's", "GB", "note"], lines)


def processor(row: dict[Hashable, Any]) -> str:
    return "–" if pd.isna(row["cpu_seconds"]) else f"{row['cpu_seconds']:.1f}"


def score(value: float, least: float) -> str:
    return f"**{value:.4f}**" if value == least else f"{value:.4f}"


def originals_table(rows: pd.DataFrame) -> str:
    lines = []
    for row in rows.to_dict("records"):
        faster = row["original_seconds"] / row["seconds"]
        known = pd.notna(faster)
        lines.append(
            [
                row["method"],
                f"{row['data']} ({row['cells']:.0f} × {row['genes']:.0f})",
                f"{row['r']:.5f}",
                f"{row['r_imputed']:.5f}",
                f"{row['seconds']:.3f}",
                f"{row['original_seconds']:.2f}" if known else "–",
                f"{faster:.0f} ×" if known else "–",
            ]
        )
    return markdown(["method", "input", "r", "r where changed", "seconds", "original's", "faster"], lines)
