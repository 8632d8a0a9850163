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
        parts.zeros_left(results, "Zeros left"),
        parts.usage(results, "Time and memory", experiments=["structure", "recovery"]),
        parts.scale(results, "Scale"),
        parts.failures(results, "What has no result, and why"),
        parts.methods_cited(results, "The methods"),
        parts.provenance(results, "How it was run"),
    ]


def _recommendation(text: str | None) -> list[Block]:
    """Set the advice apart from what it rests on."""
    advice, *grounds = (text or "No recommendation: too little was run to give one.").split("\n\n")
    return [Verdict(advice, kind=_kind(advice)), *([Prose("\n\n".join(grounds))] if grounds else [])]


def _kind(advice: str) -> Literal["good", "caution", "neutral"]:
    if advice.startswith("No recommendation"):
        return "neutral"
    return "caution" if advice.startswith("Do not impute") else "good"
