"""`scautoimpute impute`: a file in, a file with one more layer out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ._app import Debug, app, one_line_errors
from ._summary import report, summarise, summarise_record

if TYPE_CHECKING:
    from anndata import AnnData

    from ..autoimpute import AutoImpute

__all__ = ["impute"]


@app.command(no_args_is_help=True)
def impute(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="h5ad, zarr, loom, 10x h5 or folder, mtx, csv or tsv (.gz).")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="h5ad, zarr (everything), loom, or csv/tsv/mtx (.gz; one matrix).")
    ],
    layer: Annotated[str | None, typer.Option(help="Layer that holds the counts, or raw (default: X).")] = None,
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
    from_model: Annotated[
        Path | None, typer.Option("--from-model", help="Apply this model, a block of cells at a time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same bytes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Impute IN and write the result to OUT: scautoimpute impute cells.h5ad -o imputed.h5ad."""
    with one_line_errors():
        from ..io import check_writable, read, write

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
        if from_model is not None:
            applied = {"layer": layer, "scale": scale, "keep_observed": not smooth, "key_added": key_added}
            record = _apply(estimator, source, output=output, transpose=transpose, overwrite=overwrite, **applied)
            report(summarise_record(record, key_added, source, output, started), as_json=as_json)
            return
        adata = read(source, transpose=transpose)
        _run(adata, estimator, genes=genes, layer=layer, scale=scale, keep_observed=not smooth, key_added=key_added)
        write(adata, output, layer=key_added, overwrite=overwrite)
        if model is not None:
            estimator.save(model)
        report(summarise(adata, key_added, source, output, started), as_json=as_json)


# ------------------------------------------------------------------------------------------------ what was asked


def _check_options(n_top_genes: str | None, flavor: str | None, scale: str, seed: int) -> None:
    from .._genes import Flavor
    from ..scales import check_scale

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
    from ..autoimpute import AutoImpute

    if from_model is not None:
        return AutoImpute.load(from_model, device=device)
    chosen = {name: value for name, value in training.items() if value is not None}
    return AutoImpute(device=device, random_state=seed, **chosen)


def _apply(estimator: "AutoImpute", source: Path, **options: Any) -> dict[str, Any]:
    from ..apply import impute_file

    return impute_file(source, model=estimator, **options)


def _run(adata: "AnnData", estimator: "AutoImpute", *, genes: dict[str, str | None], **options: Any) -> None:
    from .. import tl

    n_top_genes, flavor = genes["n_top_genes"] or "1000", genes["flavor"] or "dispersion"
    tl.autoimpute(
        adata,
        n_top_genes="all" if n_top_genes == "all" else int(n_top_genes),
        flavor=flavor,  # type: ignore[arg-type]
        model=estimator,
        **options,
    )
