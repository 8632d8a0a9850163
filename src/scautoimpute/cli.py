"""The command line: `scautoimpute impute`, `scautoimpute demo`.

Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anndata import AnnData

    from .autoimpute import AutoImpute

__all__ = ["app", "main"]

app = typer.Typer(
    help="Recover expression lost to dropouts in single-cell RNA-seq.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_debug = False


def main() -> None:
    """Run the command line; errors are one line on stderr, with `--debug` a traceback."""
    app()


def _show_version(value: bool) -> None:
    if value:
        from . import __version__

        typer.echo(f"scautoimpute {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug  # noqa: PLW0603
    _debug = debug


@app.command()
def impute(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="h5ad, 10x h5, 10x mtx folder, csv or tsv (.gz); cells × genes.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="h5ad (everything), or csv/tsv (.gz; the imputed matrix).")
    ],
    layer: Annotated[str | None, typer.Option(help="Layer that holds the counts (default: X).")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The file is genes × cells.")] = False,
    objective: Annotated[str, typer.Option(help="What is learned: masked.")] = "masked",
    preset: Annotated[str | None, typer.Option(help="'paper' for the published method to the letter.")] = None,
    n_top_genes: Annotated[str, typer.Option(help="How many genes to model, or 'all'.")] = "1000",
    flavor: Annotated[str, typer.Option(help="How they are chosen: dispersion or cv.")] = "dispersion",
    scale: Annotated[str, typer.Option(help="Of the result: log1p, cp10k, counts or log2.")] = "log1p",
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Replace observed values too; default: fill only zeros.")
    ] = False,
    key_added: Annotated[str, typer.Option(help="Name of the new layer.")] = "imputed",
    hidden: Annotated[int | None, typer.Option(help="Width of the hidden layer.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Train at most so long.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Save the trained model here.")] = None,
    from_model: Annotated[Path | None, typer.Option("--from-model", help="Apply this model; no training.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Impute IN and write the result to OUT."""
    with _one_line_errors():
        from .io import check_writable, read, write

        started = time.perf_counter()
        _check_options(n_top_genes, model, from_model, preset)
        check_writable(output, overwrite=overwrite)
        if model is not None:
            check_writable(model, overwrite=overwrite, any_suffix=True)
        estimator = _estimator(
            from_model,
            objective=objective,
            preset=preset,
            hidden=hidden,
            max_epochs=max_epochs,
            device=device,
            seed=seed,
        )
        adata = read(source, transpose=transpose)
        _run(
            adata,
            estimator,
            layer=layer,
            n_top_genes=n_top_genes,
            flavor=flavor,
            scale=scale,
            smooth=smooth,
            key=key_added,
        )
        if model is not None:
            estimator.save(model)
        write(adata, output, layer=key_added, overwrite=overwrite)
        _report(_summary(adata, key_added, source, output, started), as_json=as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result and the picture.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
) -> None:
    """Impute the bundled sample of 700 real blood cells and draw what happened."""
    with _one_line_errors():
        from . import datasets, pl, tl
        from .io import write

        started = time.perf_counter()
        output.mkdir(parents=True, exist_ok=True)
        adata = datasets.pbmc68k_reduced()
        tl.autoimpute(adata, random_state=seed)
        result, picture = output / "pbmc68k_imputed.h5ad", output / "pbmc68k_imputed.png"
        write(adata, result, layer="imputed", overwrite=True)
        pl.overview(adata, color="cell_type", save=picture)
        _report(_summary(adata, "imputed", "700 blood cells (10x, Zheng et al. 2017)", result, started), as_json=False)
        typer.echo(f"picture             {picture}")


def _check_options(n_top_genes: str, model: Path | None, from_model: Path | None, preset: str | None) -> None:
    if n_top_genes != "all" and not (n_top_genes.isdigit() and int(n_top_genes) > 0):
        msg = f"--n-top-genes {n_top_genes} is not a number of genes: give a positive integer or 'all'"
        raise ValueError(msg)
    if from_model is not None and (model is not None or preset is not None):
        msg = "--from-model applies a trained model as it is: leave out --model and --preset, or leave out --from-model"
        raise ValueError(msg)


def _estimator(from_model: Path | None, *, device: str, seed: int, **settings: Any) -> "AutoImpute":
    from .autoimpute import AutoImpute

    if from_model is not None:
        return AutoImpute.load(from_model, device=device)
    return AutoImpute(device=device, random_state=seed, **settings)


def _run(
    adata: "AnnData",
    estimator: "AutoImpute",
    *,
    layer: str | None,
    n_top_genes: str,
    flavor: str,
    scale: str,
    smooth: bool,
    key: str,
) -> None:
    from . import tl

    tl.autoimpute(
        adata,
        layer=layer,
        n_top_genes="all" if n_top_genes == "all" else int(n_top_genes),
        flavor=flavor,  # type: ignore[arg-type]
        model=estimator,
        scale=scale,  # type: ignore[arg-type]
        keep_observed=not smooth,
        key_added=key,
    )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Warnings and errors as one line each on stderr; exit code 1 after an error, 130 after Ctrl-C."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, OSError, ImportError, KeyError, MemoryError, RuntimeError, TypeError) as error:
            if _debug:
                raise
            words = error.args[0] if isinstance(error, KeyError) and error.args else error
            typer.echo(f"error: {' '.join(str(words).split()) or type(error).__name__}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted: nothing was written", err=True)
            raise typer.Exit(130) from error


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)  # noqa: T201


def _summary(adata: "AnnData", key: str, source: Path | str, output: Path, started: float) -> dict[str, Any]:
    from . import __version__

    record = adata.uns[key]
    scores = record.get("held_out")
    return {
        "version": __version__,
        "input": str(source),
        "output": str(output),
        "layer": key,
        "scale": record["scale_in_words"],
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "genes_modelled": int(adata.var["autoimpute_modelled"].sum()),
        "zeros": record["n_zeros"],
        "zeros_filled": record["n_zeros_filled"],
        "held_out_rmse": {name: s["rmse"] for name, s in scores.items() if name != "n"} if scores else None,
        "held_out_entries": scores["n"] if scores else 0,
        "weights": record["weights"],
        "converged": record["converged"],
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_gb": _peak_memory_gb(),
    }


def _peak_memory_gb() -> float | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def _report(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    scores = summary["held_out_rmse"]
    lines = {
        "cells × genes": f"{summary['cells']} × {summary['genes']} ({summary['genes_modelled']} modelled)",
        "zeros filled": f"{summary['zeros_filled']:,} of {summary['zeros']:,} in the modelled genes",
        "held-out RMSE": _scores_in_words(scores, summary["held_out_entries"]) if scores else "not measured",
        "time, peak memory": f"{summary['seconds']:.1f} s, {summary['peak_memory_gb']} GB",
        "result": f"{summary['output']}, layer {summary['layer']!r}: {summary['scale']}",
    }
    for name, text in lines.items():
        typer.echo(f"{name:<19} {text}")


def _scores_in_words(scores: dict[str, float], n_entries: int) -> str:
    return (
        f"{scores['model']:.4g} on {n_entries:,} entries the model never saw "
        f"(gene mean {scores['gene_mean']:.4g}, gene + cell bias {scores['gene_cell_bias']:.4g}); log2 scale"
    )
