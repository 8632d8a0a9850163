"""What `reproduce` and `evaluate` share: their options, how a stopped run goes on, and what is told at the end."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ._app import GO_ON
from ._summary import line

Methods = Annotated[
    list[str] | None, typer.Option("--methods", "-m", help="Only these, divided by commas (default: all).")
]
Seeds = Annotated[int, typer.Option(help="Seeds 0 to so many less one (10 for the paper's full run).")]
Full = Annotated[bool, typer.Option("--full", help="Run the published training with every seed and share: hours.")]
Jobs = Annotated[int | None, typer.Option(help="Processes at a time, one thread each (default: one per processor).")]
TimeLimit = Annotated[float, typer.Option(help="Processor seconds that one cell of the table may use.")]
MemoryLimit = Annotated[float | None, typer.Option(help="Gigabytes that one cell may use (default: what there is).")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed or ran out of time or memory.")]
Table = Annotated[bool, typer.Option("--table", help="Run nothing: write tables and report of what has ended.")]


def listed(given: list[str] | None) -> list[str] | None:
    """Names given by repeating an option, or divided by commas."""
    return None if given is None else [name for text in given for name in text.split(",") if name]


@contextmanager
def going_on(output: Path) -> Iterator[None]:
    """Say how a stopped run goes on: by the same command."""
    try:
        yield
    except KeyboardInterrupt as stop:
        typed = shlex.join(["scautoimpute", *sys.argv[1:]])
        stop.add_note(f"what has ended is kept in {output}; {GO_ON}{typed}")
        raise


def tell(results: dict[str, Any], output: Path) -> None:
    """Print how many cells ended how, what was left out and why, and where the tables are."""
    counted = Counter(cell["status"] for cell in results["cells"])
    typer.echo(line("cells", ", ".join(f"{n:,} {status}" for status, n in counted.most_common()) or "none"))
    for note in results["manifest"]["notes"]:
        typer.echo(line("note", note))
    reasons = {f"{cell['method']}: {cell['note']}" for cell in results["cells"] if cell["status"] == "not run"}
    for reason in sorted(reason for reason in reasons if "not installed" in reason):
        typer.echo(line("not run", reason))
    for cell in results["cells"]:
        if cell["status"] not in {"done", "not run"}:
            name = " ".join(str(cell[part]) for part in ("experiment", "dataset", "method", "seed"))
            typer.echo(line(cell["status"], f"{name}: {cell['note']}"))
    typer.echo(line("tables", f"{output / 'results.csv'}, {output / 'results.json'}"))


def write_report(results: dict[str, Any], output: Path) -> None:
    """Write the page beside the tables."""
    from .. import report

    path = output.expanduser() / "report.html"
    write = report.write_paper_report if results["manifest"]["kind"] == "paper" else report.write_evaluation_report
    write(results, path)
    typer.echo(line("report", output / "report.html"))
