"""The report of a run: does imputation help these data, and does it do harm? It draws what was found before."""

from pathlib import Path
from typing import Literal

from ..trust.evidence import Evidence
from ..trust.verdict import RULE
from ..trust.words import (
    STATES_DETECTED,
    foretold,
    in_standard_errors,
    of_the_run,
    untested,
    uses,
    weights_in_words,
)
from . import _trust_parts as parts
from .page import Block, Listing, Prose, Section, Table, Verdict, render, write_page

__all__ = ["write_trust_report"]

_KINDS: dict[str, Literal["good", "caution", "bad", "neutral"]] = {
    "helps": "good",
    "useless": "caution",
    "harmful": "bad",
}


def write_trust_report(evidence: Evidence, path: str | Path) -> None:
    """Write the report of a run as one self-contained HTML file.

    Parameters
    ----------
    evidence
        What `scautoimpute.trust.examine` collected.
    path
        Of the HTML file; what is there is replaced.

    Examples
    --------
    >>> import tempfile
    >>> from scautoimpute import datasets, methods, trust
    >>> adata = datasets.simulate(n_cells=80, n_genes=60, random_state=0)
    >>> methods.impute(adata, method="gene_mean")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_trust_report(trust.examine(adata), f"{folder}/report.html")
    """
    subtitle = evidence.facts.get("input", f"{evidence.n_cells:,} cells × {evidence.n_genes:,} genes")
    footer = (
        f"Made by scautoimpute {evidence.record.get('package_version', '')}: {evidence.facts.get('command', 'Python')}"
    )
    html = render(
        "Does imputation help these data, and is it safe?", _sections(evidence), subtitle=subtitle, footer=footer
    )
    write_page(path, html.replace(" %", "\N{NO-BREAK SPACE}%"))


def _sections(evidence: Evidence) -> list[Section]:
    return [
        Section("In words", _words(evidence)),
        Section("What was done", parts.done(evidence)),
        Section("Held-out data", _held_out(evidence)),
        Section("False signals and over-smoothing", parts.harm(evidence)),
        Section("Training", parts.training(evidence)),
        Section("Zeros", parts.zeros(evidence)),
        Section("Variation", parts.variation(evidence)),
        Section("Cells", parts.cells(evidence)),
        Section("Genes that changed most and least", parts.genes(evidence)),
        Section("How the verdict is reached", [Prose(RULE)]),
        Section("The method", parts.method(evidence)),
    ]


def _words(evidence: Evidence) -> list[Block]:
    verdict = evidence.verdict
    blocks: list[Block] = [Verdict(verdict.reason, kind=_KINDS[verdict.word]), Prose(foretold(evidence))]
    if evidence.way.estimates == "detected":
        blocks.append(Verdict(STATES_DETECTED, kind="caution"))
    if found := uses(evidence):
        blocks += [Prose("Use it for:"), Listing(found)]
    if verdict.cautions:
        blocks += [Prose("But:" if found else "Besides:"), Listing(_cautions(evidence))]
    if missing := untested(evidence):
        names = ", ".join(parts.MEASURES[name] for name in missing)
        blocks.append(Prose(f"Not tested, so nothing is known of it: {names}. The reasons are in the table below."))
    return blocks


def _cautions(evidence: Evidence) -> list[str]:
    """Each with its size: beyond a null is much or little."""
    found = {name: parts.numbers(name, getattr(evidence.held_out.harm, name)) for name in evidence.verdict.cautions}
    return [
        f"{text} Here: {found[name][0]}; chance gives {found[name][1]} at most (99 %)."
        for name, text in evidence.verdict.cautions.items()
    ]


def _held_out(evidence: Evidence) -> list[Block]:
    sentences = [text for text in (of_the_run(evidence), weights_in_words(evidence.record)) if text]
    blocks: list[Block] = [Prose("\n\n".join(sentences))] if sentences else []
    thresholds, gain = evidence.verdict.thresholds, evidence.held_out.gain
    rows = [
        [parts.SIMPLER[name], in_standard_errors(of), parts.relative_threshold(of, thresholds[name])]
        for name, of in gain.items()
        if name in thresholds
    ]
    caption = (
        "How far the loss on the held-out data of the sample falls below that of something simpler, in per cent of the "
        "latter, ± the standard error across cells; negative is worse. It counts if beyond the number on the right."
    )
    blocks.append(Table(caption, ["than by", "better by", "counts beyond"], rows))
    return [*blocks, *parts.rivals(evidence)]
