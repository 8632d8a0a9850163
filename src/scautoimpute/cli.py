"""The command line: `scautoimpute impute`, `scautoimpute demo`.

The summary goes to stdout, everything else to stderr. Heavy libraries are imported inside the commands, so that
`--help` answers at once.
"""

import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

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
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ESTIMATES = {
    "masked": "expression given that it was detected: for recovering values, "
    "not for clustering or differential expression",
}

_debug = False


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: to be cleaned up after like Ctrl-C."""


def main() -> None:
    """Run the command line; errors are one line on stderr, with `--debug` a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "2")  # a log file needs no ten refreshes a second
    app()


def _on_sigterm(*_: Any) -> NoReturn:
    raise _TerminatedError


def _show_version(value: bool) -> None:
    if value:
        from . import __version__

        typer.echo(f"scautoimpute {__version__}")
        raise typer.Exit


def _set_debug(value: bool) -> None:
    global _debug  # noqa: PLW0603
    _debug = _debug or value


_Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")]


@app.callback()
def _options(
    *,
    debug: _Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(no_args_is_help=True)
def impute(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="h5ad, 10x h5, 10x mtx folder, csv or tsv (.gz); cells × genes.")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="h5ad (everything), or csv/tsv (.gz; the imputed matrix).")
    ],
    layer: Annotated[str | None, typer.Option(help="Layer that holds the counts (default: X).")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The file is genes × cells.")] = False,
    objective: Annotated[str | None, typer.Option(help="What is learned: masked (default).")] = None,
    preset: Annotated[str | None, typer.Option(help="'paper' for the published method to the letter.")] = None,
    n_top_genes: Annotated[str | None, typer.Option(help="How many genes to model, or 'all' (default: 1000).")] = None,
    flavor: Annotated[str | None, typer.Option(help="How they are chosen: dispersion (default) or cv.")] = None,
    scale: Annotated[str, typer.Option(help="Of the result: log1p, cp10k, counts or log2.")] = "log1p",
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Replace observed values too; default: fill only zeros.")
    ] = False,
    key_added: Annotated[str, typer.Option(help="Name of the new layer.")] = "imputed",
    hidden: Annotated[
        int | None, typer.Option(help="Width of the hidden layer (default: 128; 2000 with --preset paper).")
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Train at most so long (default: 150; 7000 with --preset paper).")
    ] = None,
    held_out_share: Annotated[
        float | None, typer.Option(help="Share of entries to score on (default: 0.1 a fold; none with --preset paper).")
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Save the trained model here.")] = None,
    from_model: Annotated[Path | None, typer.Option("--from-model", help="Apply this model; no training.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    debug: _Debug = False,  # noqa: ARG001
) -> None:
    """Impute IN and write the result to OUT: scautoimpute impute cells.h5ad -o imputed.h5ad."""
    with _one_line_errors():
        from .io import check_writable, read, write

        started = time.perf_counter()
        training = {
            "objective": objective,
            "preset": preset,
            "hidden": hidden,
            "max_epochs": max_epochs,
            "held_out_share": held_out_share,
        }
        genes = {"n_top_genes": n_top_genes, "flavor": flavor}
        _check_options(n_top_genes, flavor, scale, seed)
        _check_layers(layer, key_added)
        _check_model_options(model, from_model, output, **training, **genes)
        check_writable(output, overwrite=overwrite)
        if model is not None:
            check_writable(model, overwrite=overwrite, any_suffix=True)
        estimator = _estimator(from_model, device=device, seed=seed, training=training)
        adata = read(source, transpose=transpose)
        _run(adata, estimator, genes=genes, layer=layer, scale=scale, keep_observed=not smooth, key_added=key_added)
        write(adata, output, layer=key_added, overwrite=overwrite)
        if model is not None:
            estimator.save(model)
        _report(_summary(adata, key_added, source, output, started), as_json=as_json)


@app.command()
def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result and the picture.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
    debug: _Debug = False,  # noqa: ARG001
) -> None:
    """Impute the bundled sample of 700 real blood cells and draw what happened."""
    with _one_line_errors():
        from . import datasets, pl, tl
        from .io import check_writable, write

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
        _report(_summary(adata, "imputed", "700 blood cells (10x, Zheng et al. 2017)", result, started), as_json=False)
        typer.echo(_line("picture", picture))


# ------------------------------------------------------------------------------------------------ what was asked


def _check_options(n_top_genes: str | None, flavor: str | None, scale: str, seed: int) -> None:
    from ._genes import Flavor
    from .scales import check_scale

    check_scale(scale)
    if n_top_genes not in {None, "all"} and not (str(n_top_genes).isdecimal() and int(str(n_top_genes)) > 0):
        msg = f"--n-top-genes {n_top_genes} is not a number of genes: give a positive integer or 'all'"
        raise ValueError(msg)
    if flavor is not None and flavor not in get_args(Flavor):
        msg = f"--flavor {flavor!r} is not known: choose {' or '.join(map(repr, get_args(Flavor)))}"
        raise ValueError(msg)
    if seed < 0:
        msg = f"--seed {seed} is negative: give an integer of at least 0"
        raise ValueError(msg)


def _check_layers(layer: str | None, key_added: str) -> None:
    if not key_added or "/" in key_added:
        msg = f"--key-added {key_added!r} cannot be the name of a layer: give one that is not empty and has no '/'"
        raise ValueError(msg)
    if key_added == layer:
        msg = f"--key-added {key_added!r} is the layer that holds the counts, which would be lost: give another name"
        raise ValueError(msg)


def _check_model_options(model: Path | None, from_model: Path | None, output: Path, **others: Any) -> None:
    if model is not None and model.resolve() == output.resolve():
        msg = f"--model and --output are the same file, {output}: give two names"
        raise ValueError(msg)
    others = {"model": model} | others
    unused = ", ".join(f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None)
    if from_model is not None and unused:
        msg = f"--from-model applies a trained model as it is: leave out {unused}, or leave out --from-model"
        raise ValueError(msg)


def _estimator(from_model: Path | None, *, device: str, seed: int, training: dict[str, Any]) -> "AutoImpute":
    from .autoimpute import AutoImpute

    if from_model is not None:
        return AutoImpute.load(from_model, device=device)
    chosen = {name: value for name, value in training.items() if value is not None}
    return AutoImpute(device=device, random_state=seed, **chosen)


def _run(adata: "AnnData", estimator: "AutoImpute", *, genes: dict[str, str | None], **options: Any) -> None:
    from . import tl

    n_top_genes, flavor = genes["n_top_genes"] or "1000", genes["flavor"] or "dispersion"
    tl.autoimpute(
        adata,
        n_top_genes="all" if n_top_genes == "all" else int(n_top_genes),
        flavor=flavor,  # type: ignore[arg-type]
        model=estimator,
        **options,
    )


# ------------------------------------------------------------------------------------------------ what went wrong


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Warnings and errors as one line each on stderr; exit code 1 for errors, 130 for Ctrl-C, 143 for SIGTERM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt as stop:
            typer.echo("interrupted: no result was written", err=True)
            raise typer.Exit(143 if isinstance(stop, _TerminatedError) else 130) from stop
        except Exception as error:
            if _debug:
                raise
            typer.echo(f"error: {_in_words(error)}", err=True)
            raise typer.Exit(1) from error


def _in_words(error: Exception) -> str:
    text = _as_options(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    if isinstance(error, MemoryError):
        return f"the memory does not suffice ({text or 'no size given'}): model fewer genes with --n-top-genes"
    if isinstance(error, (ValueError, TypeError, OSError, ImportError)):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__} ({text}): run again with --debug, and report what it shows"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {_as_options(str(message))}", file=sys.stderr)  # noqa: T201


# The library's messages name its parameters; whoever typed a command knows its options.
_OPTION_OF = {"random_state": "--seed"} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "layer", "objective", "preset", "n_top_genes", "flavor", "scale", "key_added", "hidden", "max_epochs", "device",
        "held_out_share",
    )
}  # fmt: skip
_SPELLINGS = (
    (re.compile(r"overwrite=True \((--overwrite) on the command line\)"), r"\1"),
    (re.compile(r"pass adata\.T, or (--transpose) on the command line"), r"give \1"),
    (re.compile(rf"(?<![^\s(])({'|'.join(_OPTION_OF)})="), lambda found: f"{_OPTION_OF[found[1]]} "),
    (re.compile(r"(?<![^\s(])(n_top_genes|key_added|max_epochs)\b"), lambda found: _OPTION_OF[found[1]]),
)


def _as_options(text: str) -> str:
    """Return a message as one line that names options as they are typed."""
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------ what came out


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
        "estimate": _ESTIMATES[record["settings"]["objective"]],
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "genes_modelled": int(adata.var["autoimpute_modelled"].sum()),
        "zeros": record["n_zeros"],
        "zeros_filled": record["n_zeros_filled"],
        "held_out_rmse": {name: s["rmse"] for name, s in scores.items() if name != "n"} if scores else None,
        "held_out_entries": scores["n"] if scores else 0,
        "trained_before": record["trained_before"],
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
    memory = "unknown" if summary["peak_memory_gb"] is None else f"{summary['peak_memory_gb']} GB"
    lines = {
        "cells × genes": f"{summary['cells']} × {summary['genes']} ({summary['genes_modelled']} modelled)",
        "zeros filled": f"{summary['zeros_filled']:,} of {summary['zeros']:,} in the modelled genes",
        "held-out RMSE": _scores_in_words(summary),
        "time, peak memory": f"{summary['seconds']:.1f} s, {memory}",
        "result": f"{summary['output']}, layer {summary['layer']!r}: {summary['scale']}",
        "what it estimates": summary["estimate"],
    }
    for name, text in lines.items():
        typer.echo(_line(name, text))


def _line(name: str, text: object) -> str:
    return f"{name:<19} {text}"


def _scores_in_words(summary: dict[str, Any]) -> str:
    scores = summary["held_out_rmse"]
    if scores is None:
        return "not measured: nothing was held out (--held-out-share 0.1 holds out and scores 10 %)"
    return (
        f"{scores['model']:.4g} on {summary['held_out_entries']:,} entries the model never saw"
        f"{', when it was trained on other data' if summary['trained_before'] else ''} "
        f"(gene mean {scores['gene_mean']:.4g}, gene + cell bias {scores['gene_cell_bias']:.4g}); log2 scale"
    )
