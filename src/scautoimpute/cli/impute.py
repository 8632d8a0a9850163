"""`scautoimpute impute`: a file in, a file with one more layer out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ._app import Debug, app, one_line_errors
from ._asked import check_layers, check_method, check_model_options, check_options, method_options, where_counts_are
from ._progress import Progress
from ._summary import report, summarise

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
    layer: Annotated[
        str | None,
        typer.Option(help="Layer that holds the counts, or raw (default: where whole numbers are, X first)."),
    ] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The file is genes × cells.")] = False,
    method: Annotated[
        str | None, typer.Option(help="autoimpute (default), drimpute, alra, magic, knn, …; see the README.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of another method; again for each.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="What is learned: masked (default).")] = None,
    preset: Annotated[str | None, typer.Option(help="'paper' for the published method to the letter.")] = None,
    n_top_genes: Annotated[str | None, typer.Option(help="How many genes to model, or 'all' (default: 1000).")] = None,
    flavor: Annotated[str | None, typer.Option(help="How they are chosen: dispersion (default) or cv.")] = None,
    scale: Annotated[str, typer.Option(help="Of the result: log1p, cp10k, counts or log2.")] = "log1p",
    keep_observed: Annotated[
        bool | None,
        typer.Option(
            "--keep-observed/--smooth",
            help="Fill only zeros (default), or replace observed values too; another method: as published.",
        ),
    ] = None,
    key_added: Annotated[str, typer.Option(help="Name of the new layer.")] = "imputed",
    hidden: Annotated[
        int | None, typer.Option(help="Width of the hidden layer (default: 128; 2000 with --preset paper).")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the optimiser (default: of the preset).")] = None,
    l2: Annotated[float | None, typer.Option("--l2", help="λ: weight decay (default: of the preset).")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="What counts as progress in training (default: of the preset).")
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
    seed: Annotated[int | None, typer.Option(help="Same seed, same machine, same bytes (default: 0).")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, …")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run that was to write this output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Impute IN and write the result to OUT: scautoimpute impute cells.h5ad -o imputed.h5ad."""
    with one_line_errors():
        from ..io import check_writable, read, write

        started = time.perf_counter()
        method, preset = _without_autoimpute(method, preset)
        training = {
            "objective": objective,
            "preset": preset,
            "hidden": hidden,
            "learning_rate": learning_rate,
            "l2": l2,
            "threshold": threshold,
            "max_epochs": max_epochs,
            "held_out_share": held_out_share,
        }
        genes = {"n_top_genes": n_top_genes, "flavor": flavor}
        check_options(n_top_genes, flavor, scale, seed or 0)
        check_layers(layer, key_added)
        others = {"method": method, "resume": resume, "seed": seed, **training, **genes}
        check_model_options(source, output, model=model, from_model=from_model, others=others)
        check_method(method, option=option, model=model, resume=resume, device=device, **training)
        of_method = method_options(option)
        check_writable(output, overwrite=overwrite)
        keeps = keep_observed is not False
        options = {"seed": seed or 0, "transpose": transpose, "smooth": not keeps, **training, **genes}
        options |= {"layer": layer, "scale": scale, "key_added": key_added}
        trains = from_model is None and method is None
        progress = Progress.find(output, options, model=model, resume=resume, trains=trains)
        if model is not None:
            check_writable(model, overwrite=overwrite or progress.model_is_ours, any_suffix=True)
        estimator = None if method else _estimator(from_model, device=device, seed=seed or 0, training=training)
        if from_model is not None and estimator is not None:
            applied = {"scale": scale, "keep_observed": keeps, "key_added": key_added, "overwrite": overwrite}
            record, assumed = _apply(estimator, source, output=output, layer=layer, transpose=transpose, **applied)
            report(summarise(record, key_added, source, output, started, assumed=assumed), as_json=as_json)
            return
        adata = read(source, transpose=transpose)
        layer, assumed = where_counts_are(adata, layer)
        check_layers(layer, key_added)
        applied = {"layer": layer, "scale": scale, "key_added": key_added, **_genes(genes, method)}
        with progress.kept() as checkpoint:
            if estimator is None:
                asked = {"options": of_method, "keep_observed": keep_observed, "random_state": seed or 0}
                _run_method(adata, str(method), **asked, **applied)
            else:
                _run(adata, estimator, keep_observed=keeps, checkpoint=checkpoint, **applied)
            if estimator is not None and model is not None:
                progress.begin_model()
                estimator.save(model)
            write(adata, output, layer=key_added, overwrite=overwrite)
        report(summarise(adata.uns[key_added], key_added, source, output, started, assumed=assumed), as_json=as_json)


def _estimator(from_model: Path | None, *, device: str | None, seed: int, training: dict[str, Any]) -> "AutoImpute":
    from ..autoimpute import AutoImpute

    if from_model is not None:
        return AutoImpute.load(from_model, device=device or "auto")
    chosen = {name: value for name, value in training.items() if value is not None}
    return AutoImpute(device=device or "auto", random_state=seed or 0, **chosen)


def _without_autoimpute(method: str | None, preset: str | None) -> tuple[str | None, str | None]:
    """Return None for AutoImpute, which has options of its own here, and its preset."""
    if method == "autoimpute-paper" and preset in {None, "paper"}:
        return None, "paper"
    return (None if method == "autoimpute" else method), preset


def _genes(asked: dict[str, str | None], method: str | None) -> dict[str, Any]:
    """Return which genes to model: 1000 for AutoImpute, all for the others, unless something else was asked."""
    number = asked["n_top_genes"] or ("1000" if method is None else "all")
    return {"n_top_genes": "all" if number == "all" else int(number), "flavor": asked["flavor"] or "dispersion"}


def _apply(
    estimator: "AutoImpute", source: Path, *, output: Path, layer: str | None, transpose: bool, **options: Any
) -> tuple[dict[str, Any], str]:
    """Return the record, and why the counts are where."""
    from ..apply import cells_of, impute_cells

    with cells_of(source, output=output, transpose=transpose) as cells:
        layer, assumed = where_counts_are(cast("AnnData", cells), layer)
        check_layers(layer, options["key_added"])
        return impute_cells(cells, output=output, model=estimator, layer=layer, **options), assumed


def _run(adata: "AnnData", estimator: "AutoImpute", **options: Any) -> None:
    from .. import tl

    tl.autoimpute(adata, model=estimator, **options)


def _run_method(adata: "AnnData", method: str, **options: Any) -> None:
    from .. import methods

    methods.impute(adata, method=method, **options)
