"""Tables of scores, and any table as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._results import Measure, Row, marks_of, titles_of
from .page import Mark, Table

__all__ = ["markdown", "score_table"]


def score_table(
    results: Mapping[str, Any], rows: Sequence[Row], *, methods: Sequence[str], measure: Measure, caption: str
) -> Table:
    """Set scores in a table: a row for each data set and setting, a column for each method, the best of a row marked.

    Parameters
    ----------
    results
        Where the titles of the methods are.
    rows
        As `rows_of` returns.
    methods
        The columns.
    measure
        Prints the scores and says which is best.
    caption
        Of the table.

    Returns
    -------
    The table; a cell without a score says why.
    """
    texts, marks = [], {}
    whole = {""} if len({row.setting for row in rows}) > 1 else {"", "all types", "all cells"}  # not worth saying
    for number, row in enumerate(rows):
        head = row.dataset if row.setting in whole | {row.dataset} else f"{row.dataset}, {row.setting}"
        texts.append([head, *(_text(row, method, measure) for method in methods)])
        for method, mark in _row_marks(row, measure).items():
            marks[number, 1 + methods.index(method)] = mark
    titles = titles_of(results)
    return Table(caption, ["data set", *(titles[method] for method in methods)], texts, marks)


def _text(row: Row, method: str, measure: Measure) -> str:
    if method in row.scores:
        return measure.text(row.scores[method])
    return row.reasons.get(method, "")


def _row_marks(row: Row, measure: Measure) -> dict[str, Mark]:
    return {**dict.fromkeys(row.reasons, "absent"), **marks_of(row.scores, measure)}


def markdown(table: Table) -> str:
    """Write a table as Markdown: its caption, then its rows; the best of a row in bold, what is tied with it after ≈.

    Examples
    --------
    >>> print(markdown(Table("Error.", ["set", "a", "b"], [["x", "1", "2"]], {(0, 1): "best"})))
    Error.
    <BLANKLINE>
    | set | a | b |
    | --- | --- | --- |
    | x | **1** | 2 |
    """
    lines = [_line(table.columns), _line(["---"] * len(table.columns))]
    for number, row in enumerate(table.rows):
        lines.append(_line([_marked(cell, table.marks.get((number, place))) for place, cell in enumerate(row)]))
    return "\n".join([table.caption, "", *lines])


def _marked(cell: str, mark: Mark | None) -> str:
    return {"best": f"**{cell}**", "tied": f"≈ {cell}", "absent": f"*{cell}*"}.get(mark or "", cell or "–")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
