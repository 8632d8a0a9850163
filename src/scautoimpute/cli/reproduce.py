"""`scautoimpute reproduce`: the paper's experiments over a folder of data sets."""

from pathlib import Path
from typing import Annotated

import typer

from ._app import Debug, app, one_line_errors
from ._evaluation import (
    Full,
    Jobs,
    MemoryLimit,
    Methods,
    Retry,
    Seeds,
    Table,
    TimeLimit,
    going_on,
    listed,
    tell,
    write_report,
)
from ._summary import line

__all__ = ["reproduce"]


@app.command(no_args_is_help=True)
def reproduce(
    folder: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="Folder with one .h5ad file per data set.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results; the same one goes on.")],
    labels: Annotated[str, typer.Option(help="Column of obs with the cell types.")] = "cell_type",
    bulk: Annotated[
        Path | None,
        typer.Option(help="Folder with bulk RNA-seq and its cells (default: DATA_DIR, then extra beside it)."),
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--datasets", "-d", help="Only these, divided by commas (default: all).")
    ] = None,
    methods: Methods = None,
    experiments: Annotated[
        list[str] | None,
        typer.Option("--experiments", "-e", help="Only these of zeros,recovery,structure,scale (default: all)."),
    ] = None,
    seeds: Seeds = 3,
    full: Full = False,
    jobs: Jobs = None,
    time_limit: TimeLimit = 300,
    memory_limit: MemoryLimit = None,
    retry: Retry = False,
    table: Table = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Run the paper's experiments on DATA_DIR with every method, and say which of its claims hold."""
    with one_line_errors(), going_on(output):
        from .. import evaluation

        results = evaluation.reproduce(
            folder,
            output=output,
            labels=labels,
            bulk=bulk,
            datasets=listed(datasets),
            methods=listed(methods),
            experiments=listed(experiments),
            seeds=seeds,
            full=full,
            jobs=jobs,
            time_limit=time_limit,
            memory_limit=memory_limit,
            retry=retry,
            table_only=table,
        )
        tell(results, output)
        for claim in results["claims"]:
            typer.echo(line(claim["verdict"], f"{claim['paper']} Here: {claim['ours']}"))
        write_report(results, output)
