"""`scautoimpute info`: what is in a file, and what would be made of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import Debug, _as_options, app, one_line_errors
from ._summary import line

if TYPE_CHECKING:
    from ..io import Description

__all__ = ["info"]


@app.command(no_args_is_help=True)
def info(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="h5ad, zarr, loom, 10x h5 or folder, mtx, csv or tsv (.gz).")
    ],
    *,
    layer: Annotated[
        str | None, typer.Option(help="Layer that holds the counts, 'raw' for raw (default: the one found).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Say what is in FILE, what would be assumed, and what `impute` would refuse: scautoimpute info cells.h5ad."""
    with one_line_errors():
        from ..io import describe

        found = describe(source, layer=layer)
        if as_json:
            typer.echo(json.dumps(found.to_json()))
            return
        for name, text in _in_words(found).items():
            typer.echo(line(name, text))


def _in_words(found: "Description") -> dict[str, str]:
    lines = {
        "file": f"{found.path}: {found.format}, {_size(found.bytes_on_disk)}",
        "cells × genes": f"{found.cells:,} × {found.genes:,} ({found.orientation})",
        **{f"{'' if name in {'X', 'raw'} else 'layer '}{name}": _matrix(m) for name, m in found.matrices.items()},
        "obs": ", ".join(found.obs) or "no columns",
        "gene names": found.organism,
        "would be used": found.assumed.reason,
    }
    if found.genes_passing is not None:
        sample = "" if found.looked_at == found.cells else f" (in {found.looked_at:,} cells looked at)"
        lines["median library"] = f"{found.library_size_median:,.6g}{sample}"
        lines["genes passing"] = f"{found.genes_passing:,} with at least 3 reads in at least 3 cells{sample}"
    lines |= {f"warning {number}": text for number, text in enumerate(map(_as_options, found.warnings), start=1)}
    if found.objective is not None:
        lines["objective"] = f"{found.objective}: {found.objective_reason}"
    lines["impute"] = "would run" if found.refusal is None else f"would refuse: {_as_options(found.refusal)}"
    return lines


def _matrix(facts: dict[str, object]) -> str:
    shape = " × ".join(f"{size:,}" for size in facts["shape"])  # type: ignore[attr-defined]
    return f"{facts['storage']} {facts['dtype']}, {shape}, {facts['density']:.1%} not zero, {_size(facts['bytes'])}"


def _size(n_bytes: object) -> str:
    size = float(str(n_bytes))
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
