"""`scautoimpute tune`: which settings suit a file, and whether they are worth it."""

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import Debug, app, one_line_errors
from ._asked import check_options, where_counts_are
from ._summary import line

if TYPE_CHECKING:
    from ..tuning import Tuning

__all__ = ["tune"]

ROWS_SHOWN = 10
COLUMNS_SHOWN = ["max_epochs", "epochs", "rmse", "mae", "nmse", "seconds", "outcome"]
SUFFIXES = (".csv", ".tsv")


@app.command(no_args_is_help=True)
def tune(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="h5ad, zarr, loom, 10x h5 or folder, mtx, csv or tsv (.gz).")
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="csv or tsv: the whole table of what was tried.")
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Layer that holds the counts, or raw (default: where whole numbers are, X first)."),
    ] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The file is genes × cells.")] = False,
    preset: Annotated[str | None, typer.Option(help="'paper' for the published method to the letter.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=V,V,…",
            help="Values of l2, learning_rate, threshold or hidden, e.g. l2=0.1,1,10; again for each "
            "(default: 36 combinations around the preset's own).",
        ),
    ] = None,
    n_top_genes: Annotated[str | None, typer.Option(help="How many genes to model, or 'all' (default: 1000).")] = None,
    flavor: Annotated[str | None, typer.Option(help="How they are chosen: dispersion (default) or cv.")] = None,
    factor: Annotated[float, typer.Option(help="A rung keeps one candidate in so many.")] = 3,
    min_epochs: Annotated[int | None, typer.Option(help="Of the first rung (default: from the others).")] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Of the last rung (default: 150; 7000 with --preset paper).")
    ] = None,
    share: Annotated[float, typer.Option(help="Of the entries to hide for choosing, and again for reporting.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same table.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Try settings of the masked objective on hidden entries of IN; say whether the best beat the defaults."""
    with one_line_errors():
        from .. import tl
        from ..io import read

        started = time.perf_counter()
        check_options(n_top_genes, flavor, "log1p", seed)
        values = _grid(grid)
        if output is not None:
            _check_output(output, overwrite=overwrite)
        adata = read(source, transpose=transpose)
        layer, assumed = where_counts_are(adata, layer)
        found = tl.tune(
            adata,
            layer=layer,
            n_top_genes="all" if n_top_genes == "all" else int(n_top_genes or 1000),
            flavor=flavor or "dispersion",  # type: ignore[arg-type]
            preset=preset,
            grid=values,
            factor=factor,
            min_resources=min_epochs,
            max_resources=max_epochs,
            share=share,
            device=device,
            random_state=seed,
        )
        if output is not None:
            _write(found, output)
        usual = tl.objective_for(adata, layer=layer, preset=preset).objective
        objective = "masked" if usual == "counts" else None  # which is what was tuned
        options: dict[str, Any] = {"layer": layer, "transpose": transpose, "objective": objective, "preset": preset}
        options |= {"n_top_genes": n_top_genes}
        options |= {"flavor": flavor, "max_epochs": max_epochs, "seed": seed or None}
        command = _command(source, found, options)
        _report(
            found,
            command,
            counts=assumed,
            seconds=round(time.perf_counter() - started, 2),
            output=output,
            as_json=as_json,
        )


# ------------------------------------------------------------------------------------------------ what was asked


def _grid(given: list[str] | None) -> dict[str, list[float]] | None:
    if not given:
        return None
    grid: dict[str, list[float]] = {}
    for text in given:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name in grid:
            msg = f"--grid has {name} twice: give all its values at once, as in '{name}=0.1,1'"
            raise ValueError(msg)
        try:
            grid[name] = [int(value) if value.strip().isdecimal() else float(value) for value in values.split(",")]
        except ValueError as error:
            msg = f"--grid {text!r} is not a name and its values: give numbers without spaces, as in 'l2=0.1,1,10'"
            raise ValueError(msg) from error
    return grid


def _check_output(output: Path, *, overwrite: bool) -> None:
    from ..io import check_writable
    from ..io.checks import recognised_suffix

    recognised_suffix(output, SUFFIXES)
    check_writable(output, overwrite=overwrite)


# ------------------------------------------------------------------------------------------------ what came of it


def _write(found: "Tuning", output: Path) -> None:
    from ..io.complete import complete_or_absent

    with complete_or_absent(output) as partial:
        found.table.to_csv(partial, index=False, sep="\t" if output.suffix.lower() == ".tsv" else ",")


def _command(source: Path, found: "Tuning", options: dict[str, Any]) -> str:
    """Give the command that imputes with the best settings; defaults need no options."""
    chosen = {} if found.table["default"].iloc[0] else found.best
    words = ["scautoimpute", "impute", str(source), "-o", "imputed.h5ad"]
    for name, value in (options | chosen).items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _report(found: "Tuning", command: str, *, counts: str, seconds: float, output: Path | None, as_json: bool) -> None:
    from .. import __version__

    if as_json:
        table = json.loads(found.table.to_json(orient="records", double_precision=15))
        record = {
            "version": __version__,
            "counts": counts,
            "best": found.best,
            "scores": found.scores,
            "gain": found.gain,
        }
        record |= {"gain_se": found.gain_se, "helped": found.helped, "verdict": found.verdict, "command": command}
        record |= {"entries_chosen_by": found.n_chosen_by, "entries_untouched": found.n_untouched}
        typer.echo(json.dumps(record | {"seconds": seconds, "output": output and str(output), "table": table}))
        return
    typer.echo(found.table[[*found.best, *COLUMNS_SHOWN]].head(ROWS_SHOWN).to_string(index=False, float_format="%.4g"))
    n_left = len(found.table) - ROWS_SHOWN
    if n_left > 0:
        typer.echo(f"… and {n_left} more{'' if output else ', which -o table.csv writes'}")
    settings = ", ".join(f"{name} {value:g}" for name, value in found.best.items())
    lines = {
        "counts": counts,
        "chosen by": f"{found.n_chosen_by:,} held-out entries (log2 scale)",
        "objective": "masked: expression given that it was detected",
        "best settings": f"{settings}{' (the defaults)' if found.table['default'].iloc[0] else ''}",
        "was it worth it": found.verdict,
        "to use them": command,
        "time": f"{seconds:.1f} s",
    }
    if output is not None:
        lines["table"] = str(output)
    for name, text in lines.items():
        typer.echo(line(name, text))
