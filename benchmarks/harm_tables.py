"""Markdown tables of the rows of the benchmark of harm."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from recovery_tables import hardware, markdown
from scautoimpute.methods import METHODS

__all__ = ["write_tables"]

ABOUT = """At most 500 cells drawn at random and the 500 genes with the most molecules among them; one seed. Every
value in **bold** is beyond the 99 % point of its null. Imputed values are the layer that a user gets at the method's
defaults: observed values stay where the method was published so.

- verdict: by the rule of `scautoimpute.trust.verdict`.
- vs gene mean, vs none, beside own: fall of the Poisson deviance of held-out molecules (10 % of all) below the mean of
  each gene; below the counts as they are; and, by a mixture with the imputed values, below each cell's own counts,
  shrunk. Above 0 is better. Blakeley has reads, not molecules, whose copies would be on both sides: there is no
  verdict on them, nor what needs molecules held out.
- permuted: gene pairs that correlate beyond the null's 99 % point once each gene has been permuted across cells; 1 %
  is expected.
- halves: most genes with p < 0.05 between 1,000 random halves of the largest type (mean in brackets); 5 % are
  expected.
- markers: permuted genes with p < 0.05 between types, the other genes being left as they are (before imputation in
  brackets); 5 % are expected.
- silent: pairs of a gene and a type without any molecule of it that are imputed above 5 % of the expressing type's
  level; 1 % may be.
- r: root mean square of gene-gene correlations before → after (in the counts freed of noise).
- local: median over genes of the variance between neighbours over the whole, before → after (freed of noise).
- rare pull: how far a spiked-in type of 1 % of the cells was pulled to the crowd: 0 not at all, 1 wholly.
- seconds: processor time of all four runs of the method and of the measures."""


def write_tables(rows: pd.DataFrame, path: Path) -> str:
    """Write every table to `path` and return the text."""
    parts = ["# Harm", hardware(1), ABOUT]
    for data, group in rows.groupby("data", sort=False):
        size = group.dropna(subset="cells")
        shape = f", {size.iloc[0]['cells']:.0f} cells × {size.iloc[0]['genes']:.0f} genes" if len(size) else ""
        parts += [f"## {data}{shape}", table(group), *left_out(group)]
    text = "\n\n".join(parts) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def table(rows: pd.DataFrame) -> str:
    lines = [line(row) for method in METHODS for row in rows[rows["method"] == method].to_dict("records")]
    heads = [
        "method",
        "verdict",
        "vs gene mean",
        "vs none",
        "beside own",
        "permuted",
        "halves",
        "markers",
        "silent",
        "r",
    ]
    return markdown([*heads, "local", "rare pull", "seconds"], lines)


def line(row: dict[str, Any]) -> list[str]:
    if pd.isna(row["cells"]):
        return [row["method"], f"did not run: {row['note']}", *[""] * 11]
    beyond = set(str(row["beyond_null"]).split())
    return [
        row["method"],
        "–" if pd.isna(row["verdict"]) else str(row["verdict"]),
        change(row["gain_gene_mean"]),
        change(row["gain_none"]),
        change(row["gain_added"]),
        cell(row, "permuted", "{permuted:.1%}", beyond),
        cell(row, "halves", "{halves_worst:.1%} ({halves_mean:.1%})", beyond),
        cell(row, "markers", "{markers:.1%} ({markers_null:.1%})", beyond),
        cell(row, "silent", "{silent:.1%} of {silent_pairs:.0f}", beyond),
        cell(row, "correlations", "{r_before:.2f} → {r_after:.2f} ({r_held_out:.2f})", beyond),
        cell(row, "neighbours", "{local_before:.2f} → {local_after:.2f} ({local_held_out:.2f})", beyond),
        cell(row, "rare", "{rare_pull:.2f}", beyond),
        f"{row['seconds']:.0f}",
    ]


def cell(row: dict[str, Any], name: str, form: str, beyond: set[str]) -> str:
    text = form.format(**row)
    if "nan" in text:
        return "–"
    return f"**{text}**" if name in beyond else text


def change(relative: float) -> str:
    """Percent, or how many times the loss is."""
    if pd.isna(relative):
        return "–"
    return f"{relative:+.1%}" if relative > -1 else f"{1 - relative:,.0f} × worse"


def left_out(rows: pd.DataFrame) -> list[str]:
    """Say why measures are missing, once for all methods."""
    notes = sorted({n for note in rows.dropna(subset="cells")["note"].dropna() for n in re.split(r"; (?=\w+: )", note)})
    return ["Left out: " + "; ".join(notes) + "."] if notes else []
