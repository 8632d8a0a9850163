"""The report on the paper's experiments: its claims beside what was found, then every table and figure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from . import _parts as parts
from ._tables import markdown
from .page import Block, Figure, Listing, Prose, Section, Table, Verdict, render, write_page

__all__ = ["paper_markdown", "write_paper_report"]

TITLE = "Do the claims of the AutoImpute paper hold?"
PAPER = "Talwar, Mongia, Sengupta & Majumdar, Scientific Reports 8:16329 (2018)"


def write_paper_report(results: Mapping[str, Any], path: str | Path) -> None:
    """Write the report on the paper's experiments as one HTML file.

    Parameters
    ----------
    results
        What `results.json` holds.
    path
        Of the HTML file.
    """
    write_page(path, render(TITLE, _sections(results), subtitle=PAPER, footer=_footer(results)))


def paper_markdown(results: Mapping[str, Any]) -> str:
    """Return the words and tables of the report as Markdown, for the documentation.

    Parameters
    ----------
    results
        What `results.json` holds.

    Returns
    -------
    A page with the same sections, without their figures.
    """
    page = [f"# {TITLE}", f"{PAPER}. {_footer(results)}"]
    for section in _sections(results):
        blocks = [_written(block) for block in section.blocks if not isinstance(block, Figure)]
        page += [f"## {section.title}", *blocks] if blocks else []
    return "\n\n".join(page) + "\n"


def _written(block: Prose | Verdict | Listing | Table) -> str:
    """Write a block as Markdown."""
    if isinstance(block, Table):
        return markdown(block)
    if isinstance(block, Listing):
        return "\n".join(f"- {item}" for item in block.items)
    return "\n\n".join(block.paragraphs) if isinstance(block, Prose) else block.text


def _sections(results: Mapping[str, Any]) -> list[Section]:
    return [
        Section("The claims", _claims(results.get("claims") or [])),
        parts.zeros(results, "True zeros (Fig. 2)"),
        parts.recovery(results, "Recovery of hidden entries (Fig. 3, Table S2)"),
        parts.clusters(results, "Clusters (Table 1)"),
        parts.variance(results, "Variance within types (Fig. 4)"),
        parts.separability(results, "Separability (Fig. 5, Table S4)"),
        parts.molecules(results, "Held-out molecules"),
        parts.scale(results, "Scale"),
        parts.usage(results, "Time and memory on each data set", experiments=["structure", "recovery"]),
        parts.failures(results, "What has no result, and why"),
        parts.methods_cited(results, "The methods"),
        parts.provenance(results, "How it was run"),
    ]


_WORDS = {True: "reproduced", False: "not reproduced", None: "not tested here"}
_SIGNS = {True: "✓", False: "✗", None: "·"}
_HELD_AGAINST = "The paper's words beside what was found; AutoImpute is this package's, at its default settings."


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not claims:
        return []
    rows = [[c["paper"], c["ours"], f"{_SIGNS[c['reproduced']]} {_WORDS[c['reproduced']]}"] for c in claims]
    counted = Counter(claim["reproduced"] for claim in claims)
    found = ", ".join(f"{counted[outcome]} {word}" for outcome, word in _WORDS.items() if counted[outcome])
    columns = ["the paper says", "here", "verdict"]
    words = Verdict(f"Of {len(claims)} claims, {found}.", kind=_kind(counted[True], counted[False]))
    return [words, Table(_HELD_AGAINST, columns, rows, words=True)]


def _kind(reproduced: int, not_reproduced: int) -> Literal["good", "caution", "bad", "neutral"]:
    if not reproduced:
        return "bad" if not_reproduced else "neutral"
    return "caution" if not_reproduced else "good"


def _footer(results: Mapping[str, Any]) -> str:
    return f"Made by scautoimpute with: {results['manifest'].get('command', 'reproduce')}"
