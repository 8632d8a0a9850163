"""Reports as one self-contained HTML file: the parts, the drawings, and the reports made of them.

A report computes nothing but its layout, means and spreads over seeds, and which number of a row is best.
"""

from .own import write_evaluation_report
from .page import Figure, Listing, Prose, Section, Table, Verdict, render, write_page
from .paper import paper_markdown, write_paper_report
from .trust import write_trust_report

__all__ = [
    "Figure",
    "Listing",
    "Prose",
    "Section",
    "Table",
    "Verdict",
    "paper_markdown",
    "render",
    "write_evaluation_report",
    "write_page",
    "write_paper_report",
    "write_trust_report",
]
