"""`scautoimpute demo`: the bundled sample, imputed and drawn."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ._app import Debug, app, one_line_errors
from ._summary import line, report, summarise

__all__ = ["demo"]


@app.command()
def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result and the picture.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Impute the bundled sample of 700 real blood cells and draw what happened."""
    with one_line_errors():
        from .. import datasets, pl, tl
        from ..io import check_writable, write

        started = time.perf_counter()
        result, picture = output / "pbmc68k_imputed.h5ad", output / "pbmc68k_imputed.png"
        if not output.exists():  # what exists and is no folder is refused below, in words
            output.mkdir(parents=True)
        check_writable(result, overwrite=True)
        check_writable(picture, overwrite=True, any_suffix=True)
        adata = datasets.pbmc68k_reduced()
        tl.autoimpute(adata, random_state=seed)
        write(adata, result, layer="imputed", overwrite=True)
        pl.overview(adata, color="cell_type", save=picture)
        told = summarise(
            adata.uns["imputed"],
            "imputed",
            "700 blood cells (10x, Zheng et al. 2017)",
            result,
            started,
            assumed="X holds whole numbers",
        )
        report(told, as_json=False)
        typer.echo(line("picture", picture))
