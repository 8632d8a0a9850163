"""`scautoimpute evaluate`: which method suits a file, if any."""

from pathlib import Path
from typing import Annotated

import typer

from ._app import Debug, app, one_line_errors
from ._evaluation import (
    Jobs,
    MemoryLimit,
    Retry,
    Seeds,
    Table,
    TimeLimit,
    going_on,
    listed,
    tell,
    write_report,
)

__all__ = ["evaluate"]


@app.command(no_args_is_help=True)
def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="h5ad, zarr, loom, 10x h5 or folder, mtx, csv or tsv (.gz).")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results; the same one goes on.")],
    labels: Annotated[
        str | None, typer.Option(help="Column of obs with cell types that were found without imputation.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods", "-m", help="Only these, divided by commas (default: all but scvi and autoimpute-paper)."
        ),
    ] = None,
    seeds: Seeds = 3,
    full: Annotated[
        bool, typer.Option("--full", help="Every method, and 10 to 50 % hidden rather than 10 %: hours.")
    ] = False,
    jobs: Jobs = None,
    time_limit: TimeLimit = 300,
    memory_limit: MemoryLimit = None,
    retry: Retry = False,
    table: Table = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Try every method on FILE and recommend one, or none: scautoimpute evaluate cells.h5ad -o evaluation."""
    with one_line_errors(), going_on(output):
        from .. import evaluation

        results = evaluation.evaluate(
            source,
            output=output,
            labels=labels,
            methods=listed(methods),
            seeds=seeds,
            full=full,
            jobs=jobs,
            time_limit=time_limit,
            memory_limit=memory_limit,
            retry=retry,
            table_only=table,
        )
        tell(results, output)
        for paragraph in results["recommendation"].split("\n\n"):
            typer.echo(paragraph)
        write_report(results, output)
