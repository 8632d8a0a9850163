"""A report as one HTML file: sections of prose, verdicts, tables and figures, laid out by one template.

The page needs no script and no network, follows the reader's light or dark theme, and is written whole or not at all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from ..io.complete import complete_or_absent

__all__ = ["Block", "Figure", "Listing", "Mark", "Prose", "Section", "Table", "Verdict", "render", "write_page"]

Mark = Literal["best", "tied", "absent"]


@dataclass(frozen=True, slots=True)
class Prose:
    """Text; a blank line begins a new paragraph."""

    text: str
    shape: ClassVar[str] = "prose"

    @property
    def paragraphs(self) -> list[str]:
        """The text, paragraph by paragraph."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A conclusion in words, set apart; `kind` says with which sign and colour."""

    text: str
    kind: Literal["good", "caution", "bad", "neutral"] = "neutral"
    shape: ClassVar[str] = "verdict"


@dataclass(frozen=True, slots=True)
class Listing:
    """Bullet points."""

    items: Sequence[str]
    shape: ClassVar[str] = "listing"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that scrolls within itself where the window is narrower.

    Attributes
    ----------
    caption
        What it shows, in a sentence.
    columns
        Heads; the first column heads the rows.
    rows
        Cells as text. In ``"2.91 ± 0.03"`` the spread is set small below the value; an empty cell is shown as a dash.
    marks
        (row, column) → ``"best"``, ``"tied"`` (with the best, within noise) or ``"absent"`` (there is no value; the
        cell says why).
    words
        Whether the cells hold sentences, which wrap, or numbers, which do not.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict)
    words: bool = False
    shape: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its words.

    Attributes
    ----------
    svg
        What a function of `scautoimpute.report.figures` returns: one panel or several, which flow into the window; or
        a function without parameters that draws it, called only if a page is made.
    alt
        What the reader would see, for those who do not.
    caption
        What it shows, and how to read it.
    small
        Whether the panels can be read at half the width, so that two stand side by side on a phone.
    """

    svg: str | Callable[[], str]
    alt: str
    caption: str
    small: bool = False
    shape: ClassVar[str] = "figure"

    @property
    def drawn(self) -> str:
        """The SVG elements."""
        return self.svg if isinstance(self.svg, str) else self.svg()


Block = Prose | Verdict | Listing | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report under a title of its own."""

    title: str
    blocks: Sequence[Block]


def render(title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = "") -> str:
    """Lay a report out as HTML.

    Parameters
    ----------
    title
        Heads the page and the browser's tab.
    sections
        In the order in which they are read; a section without blocks is left out.
    subtitle
        One line below the title: what was examined.
    footer
        One line at the end: what made the report.

    Returns
    -------
    The text of one self-contained HTML file. The same arguments give the same text.

    Examples
    --------
    >>> page = render("Report", [Section("In words", [Verdict("Do not impute.", kind="caution")])])
    >>> "Do not impute." in page, "<script" in page
    (True, False)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scautoimpute", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        title=title, sections=[s for s in sections if s.blocks], subtitle=subtitle, footer=footer
    )
    return _with_unique_ids(page)


def write_page(path: str | Path, html: str) -> None:
    """Write a rendered report, complete or not at all.

    Parameters
    ----------
    path
        Of the HTML file; what is there is replaced.
    html
        As `render` returns it.
    """
    with complete_or_absent(Path(path)) as beside:
        beside.write_text(html, encoding="utf-8")


def _with_unique_ids(page: str) -> str:
    """Number the drawings, and begin every id in a drawing, and what points to it, with the number."""
    before, *drawings = page.split("<svg")
    numbered = [_prefixed(drawing, f"d{number}-") for number, drawing in enumerate(drawings, 1)]
    return "<svg".join([before, *numbered])


def _prefixed(drawing: str, prefix: str) -> str:
    inside, end, after = drawing.partition("</svg>")
    inside = re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{prefix}", inside)
    return inside + end + after
