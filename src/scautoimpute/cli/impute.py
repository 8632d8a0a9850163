"""`scautoimpute impute`: a file in, a file with one more layer out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ._app import Debug, app, one_line_errors
from ._asked import check_layers, check_method, check_model_options, check_options, method_options, where_counts_are
from ._counts_asked import as_parameters, gene_names, untrained
from ._output_asked import as_options, given_of, output_asked, refuse_report_of
from ._processes import end_of_others, only_if_alone, several_processes
from ._progress import Progress
from ._report import Reporting
from ._scheduler import on_cluster
from ._summary import report, summarise

if TYPE_CHECKING:
    from anndata import AnnData

    from .._output_form import OutputForm
    from ..model.processes import Processes

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
    objective: Annotated[
        str | None,
        typer.Option(help="counts: zeros are data (default for molecules); masked: zeros are missing (for all else)."),
    ] = None,
    estimand: Annotated[
        str | None,
        typer.Option(
            help="Of masked: detected, given detection; expected, zeros counted (default of what is not UMI)."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="'paper' for the published method to the letter.")] = None,
    n_top_genes: Annotated[
        str | None, typer.Option(help="How many genes to model, or 'all' (default: 1000; all of counts).")
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="A file with the names of the genes to model; of counts.")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with each cell's batch; of counts.")] = None,
    as_batch: Annotated[str | None, typer.Option(help="Estimate for this batch instead of each cell's own.")] = None,
    flavor: Annotated[str | None, typer.Option(help="How they are chosen: dispersion (default) or cv.")] = None,
    scale: Annotated[
        str, typer.Option(help="Of the result: log1p, cp10k, counts, log2 (masked) or expected_log1p (counts).")
    ] = "log1p",
    depth: Annotated[
        float | None, typer.Option(help="Molecules per cell for expected_log1p (default: each cell's own).")
    ] = None,
    keep_observed: Annotated[
        bool | None,
        typer.Option(
            "--keep-observed/--smooth",
            help="Fill only zeros (default of --estimand detected), or replace observed values too (counts: always).",
        ),
    ] = None,
    output_genes: Annotated[
        Path | None, typer.Option(help="A file with the names of the genes that the output has (default: all).")
    ] = None,
    sparse: Annotated[
        float | None, typer.Option(metavar="BELOW", help="Do not store values below this, on the scale of the result.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the new layer: float32, or float16 (half the size).")] = "float32",
    compression: Annotated[
        str | None, typer.Option(help="Of what is new: none, or gzip in an h5ad (default: h5ad none, zarr its own).")
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix/--no-matrix", help="Write the layer, or only the embedding and --model.")
    ] = True,
    sd: Annotated[bool, typer.Option("--sd", help="Also a layer of standard deviations; of counts.")] = False,
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
        int | None, typer.Option(help="Train at most so long (default: 150; 1000 of counts; 7000 with --preset paper).")
    ] = None,
    held_out_share: Annotated[
        float | None,
        typer.Option(
            help="Share of entries to score on (default: 0.1 a fold, 0.05 of counts; none with --preset paper)."
        ),
    ] = None,
    n_networks: Annotated[
        int | None, typer.Option(help="How many networks are averaged; of counts (default: 3 up to 2,000 cells).")
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Save the trained model here.")] = None,
    from_model: Annotated[
        Path | None, typer.Option("--from-model", help="Apply this model, a block of cells at a time.")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Of the process, as 2G: counts that do not fit (default: over 100 MB) are trained on from disk."
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster whose workers read and impute the cells.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same machine, same bytes (default: 0).")] = None,
    device: Annotated[
        str | None, typer.Option("--device", "--accelerator", help="auto (default), gpu, cpu, cuda:1, …")
    ] = None,
    report_path: Annotated[
        Path | None, typer.Option("--report", help="Say in an HTML file whether imputation helps these data or harms.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Column of obs with cell types, for the report.")] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help="Another method to compare with in the report; again for each.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output, and the report, if they exist.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run that was to write this output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Impute IN and write the result to OUT: scautoimpute impute cells.h5ad -o imputed.h5ad."""
    with one_line_errors(), several_processes() as processes, on_cluster(scheduler):
        from .._refusals import refuse_sd_in_text
        from ..io import check_writable

        started = time.perf_counter()
        method, preset = _without_autoimpute(method, preset)
        only_if_alone(processes, method=method, preset=preset, objective=objective, from_model=from_model)
        training = {
            "objective": objective,
            "estimand": estimand,
            "preset": preset,
            "hidden": hidden,
            "learning_rate": learning_rate,
            "l2": l2,
            "threshold": threshold,
            "max_epochs": max_epochs,
            "held_out_share": held_out_share,
            "n_networks": n_networks,
        }
        selected = {"n_top_genes": n_top_genes, "flavor": flavor}
        asked_of = {"output_genes": output_genes, "sparse": sparse, "dtype": dtype, "compression": compression}
        form = output_asked(output, **asked_of, matrix=matrix, sd=sd)  # type: ignore[arg-type]
        of_counts = {"batch_key": batch_key, "as_batch": as_batch, "depth": depth, "sd": sd}
        check_options(n_top_genes, flavor, scale, seed or 0)
        check_layers(layer, key_added)
        others = {"method": method, "resume": resume, "seed": seed, "genes": genes, **training, **selected}
        others |= {"max_memory": max_memory}
        check_model_options(source, output, model=model, from_model=from_model, others=others)
        check_method(
            method,
            option=option,
            model=model,
            resume=resume,
            device=device,
            genes=genes,
            **training,
            max_memory=max_memory,
            scheduler=scheduler,
            **of_counts,
            **given_of(asked_of, matrix=matrix),
        )
        named = gene_names(genes)
        check_writable(output, overwrite=overwrite)
        refuse_sd_in_text(output, sd)
        asked_of_report = (report_path, labels, compare or []) if processes.is_first else (None, None, [])
        reporting = Reporting(*asked_of_report, seed or 0)
        reporting.check(source, output, model, from_model, scale=scale, overwrite=overwrite)
        files: dict[str, Any] = {"output": output, "overwrite": overwrite, "transpose": transpose}
        kept: dict[str, Any] = {"form": form, "compression": compression}
        wanted: dict[str, Any] = {
            "layer": layer,
            "scale": scale,
            "key_added": key_added,
            "keep_observed": keep_observed,
            "reporting": reporting,
        }
        if from_model is not None:
            record, assumed = _apply(
                source, from_model, device=device or "auto", of_counts=of_counts, **kept, **files, **wanted
            )
        elif method is not None:
            asked: dict[str, Any] = {"method": method, "options": method_options(option), "random_state": seed or 0}
            record, assumed = _use_method(source, **asked, **_selected(selected, "all"), **files, **wanted)
        else:
            options: dict[str, Any] = {
                "seed": seed or 0,
                "transpose": transpose,
                "smooth": keep_observed is False,
                **training,
            }
            refuse_report_of(form, report_path)
            options |= {"layer": layer, "scale": scale, "key_added": key_added, "genes": named, **selected, **of_counts}
            options |= as_options(form, compression)
            progress = Progress.find(output, options, model=model, resume=resume, of_another=not processes.is_first)
            how: dict[str, Any] = {"training": training, "device": device or "auto", "seed": seed or 0}
            untrained(None, **how)  # refuses settings before anything is read
            asked = {"model": model, "progress": progress, "genes": named, "of_counts": of_counts, **kept}
            asked |= {"max_memory": max_memory, "processes": processes}
            record, assumed = _train(source, how, **asked, **_selected(selected, None), **files, **wanted)
        summary = summarise(record, key_added, source, output, started, assumed=assumed)
        report(summary, as_json=as_json)
        reporting.write(summary, key=key_added, source=source)


def _without_autoimpute(method: str | None, preset: str | None) -> tuple[str | None, str | None]:
    """Return None for AutoImpute, which has options of its own here, and its preset."""
    if method == "autoimpute-paper" and preset in {None, "paper"}:
        return None, "paper"
    return (None if method == "autoimpute" else method), preset


def _selected(asked: dict[str, str | None], default: str | None) -> dict[str, Any]:
    number = asked["n_top_genes"] or default
    return {
        "n_top_genes": int(number) if number is not None and number != "all" else number,
        "flavor": asked["flavor"] or "dispersion",
    }


# ------------------------------------------------------------------------------------------------ three ways to impute
# Each returns the record of what was done, and why the counts were taken from where they were.


def _apply(
    source: Path,
    from_model: Path,
    *,
    device: str,
    layer: str | None,
    reporting: Reporting,
    of_counts: dict[str, Any],
    form: "OutputForm",
    output: Path,
    transpose: bool,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Apply a trained model, to blocks of cells where the files allow it."""
    from ..apply import cells_of, impute_cells
    from ..autoimpute import AutoImpute

    model = AutoImpute.load(from_model, device=device)
    options |= {"model": model, "output": output, **as_parameters(of_counts)}
    with cells_of(source, output=output, transpose=transpose) as cells:
        layer, assumed = where_counts_are(cast("AnnData", cells), layer)
        check_layers(layer, options["key_added"])
        reporting.look_at(cells, model=model)
        drawn = reporting.draw(cells, layer)
        record = impute_cells(cells, layer=layer, form=form, **options)
        told = {name: options[name] for name in ("key_added", "model", "scale", "keep_observed")}
        told |= {name: of_counts[name] for name in ("batch_key", "as_batch", "depth")}
        reporting.keep_applied(drawn, record=record, **told)
        return record, assumed


def _use_method(
    source: Path,
    *,
    layer: str | None,
    key_added: str,
    reporting: Reporting,
    output: Path,
    overwrite: bool,
    transpose: bool,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Impute with another method, which keeps no model."""
    from .. import methods
    from ..io import write

    adata, layer, assumed = _read(source, layer, key_added, transpose=transpose)
    reporting.look_at(adata)
    methods.impute(adata, layer=layer, key_added=key_added, **options)
    write(adata, output, layer=key_added, overwrite=overwrite)
    reporting.keep(adata)
    return adata.uns[key_added], assumed


def _train(
    source: Path,
    how: dict[str, Any],
    *,
    model: Path | None,
    progress: Progress,
    layer: str | None,
    reporting: Reporting,
    of_counts: dict[str, Any],
    max_memory: str | None,
    processes: "Processes",
    form: "OutputForm",
    output: Path,
    transpose: bool,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Train on the file and impute it; what an accident interrupts can be gone on with."""
    from .._file_training import cells_to_train_on, refuse_budget
    from .._staging import Staging, bytes_of
    from ..apply import train_and_impute
    from ..io import check_writable

    if model is not None:
        check_writable(model, overwrite=options["overwrite"] or progress.model_is_ours, any_suffix=True)
    staging = Staging(output.expanduser().resolve().parent, None if max_memory is None else bytes_of(max_memory))
    asked = {name: how["training"][name] for name in ("objective", "preset", "estimand")}
    where: dict[str, Any] = {"output": output, "transpose": transpose, "find": lambda of: where_counts_are(of, layer)}
    with cells_to_train_on(source, asked=asked, **where) as ready:
        only_if_alone(processes, objective=ready.chosen.objective)
        refuse_budget(ready, max_memory, preset=asked["preset"])
        check_layers(ready.layer, options["key_added"])
        reporting.look_at(ready.cells)
        estimator = untrained(ready.chosen, **how)

        def save() -> None:
            end_of_others(processes)
            if model is not None:
                progress.begin_model()
                estimator.save(model)

        options |= {"output": output, "staging": staging, "when_trained": save, "form": form}
        options |= as_parameters(of_counts)
        with progress.kept() as checkpoint:
            record = train_and_impute(ready, model=estimator, checkpoint=checkpoint, **options)
        told = {name: options[name] for name in ("key_added", "scale", "keep_observed")}
        told |= {name: of_counts[name] for name in ("batch_key", "as_batch", "depth")}
        reporting.keep_trained(ready.cells, layer=ready.layer, record=record, model=estimator, **told)
    return record, ready.assumed


def _read(source: Path, layer: str | None, key_added: str, *, transpose: bool) -> "tuple[AnnData, str | None, str]":
    """Return the object, the layer that holds the counts, and why it is that."""
    from ..io import read

    adata = read(source, transpose=transpose)
    layer, assumed = where_counts_are(adata, layer)
    check_layers(layer, key_added)
    return adata, layer, assumed
