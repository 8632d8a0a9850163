"""The report on one's own data: the recommendation in words first, then what it rests on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from . import _parts as parts
from .page import Block, Prose, Section, Verdict, render, write_page

__all__ = ["write_evaluation_report"]


def write_evaluation_report(results: Mapping[str, Any], path: str | Path) -> None:
    """Write the report on one data set as one HTML file.

    Parameters
    ----------
    results
        What `results.json` holds; its `recommendation` comes first.
    path
        Of the HTML file.
    """
    names = ", ".join(results["manifest"]["datasets"])
    footer = f"Made by scautoimpute with: {results['manifest'].get('command', 'evaluate')}"
    html = render("Which imputation suits these data, if any?", _sections(results), subtitle=names, footer=footer)
    write_page(path, html)


def _sections(results: Mapping[str, Any]) -> list[Section]:
    return [
        Section("In words", _recommendation(results.get("recommendation"))),
        parts.molecules(results, "Held-out molecules"),
        parts.recovery(results, "Recovery of hidden entries"),
        parts.clusters(results, "Clusters against the given types"),
        parts.separability(results, "Separability of the given types"),
        parts.variance(results, "Variance"),
        parts.zeros(results, "Zeros"),
        parts.usage(results, "Time and memory", experiments=["structure", "recovery"]),
        parts.scale(results, "Scale"),
        parts.failures(results, "What has no result, and why"),
        parts.methods_cited(results, "The methods"),
        parts.provenance(results, "How it was run"),
    ]


def _recommendation(text: str | None) -> list[Block]:
    if not text:
        return [Verdict("No recommendation: too little was run to give one.", kind="neutral")]
    first, *rest = text.strip().split("\n\n")
    kind: Literal["good", "caution"] = "caution" if "do not impute" in first.lower() else "good"
    return [Verdict(first, kind=kind), *([Prose("\n\n".join(rest))] if rest else [])]
