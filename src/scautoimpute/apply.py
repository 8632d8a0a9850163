"""Impute cells that are too many for memory: a file in, a file with one more layer out."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import tl
from ._application import check_key, recipe_of
from ._counts_stream import CountsRun
from ._estimand import keeps_observed
from ._file_training import ToTrainOn, cells_to_train_on, refuse_budget, train_cells
from ._masked_stream import MaskedRun
from ._objective import check_model, objective_of_model
from ._output_form import WHOLE, OutputForm
from ._refusals import refuse_for_counts, refuse_for_masked, refuse_form_in, refuse_sd_in_text
from ._staging import Staging, bytes_of
from .autoimpute import AutoImpute
from .io import check_writable, read, refuse_transposed, write
from .io.complete import complete_or_absent
from .io.result import Storage, stored_result
from .io.stream import StoredCells, is_stored_by_rows, open_cells
from .scales import check_scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from ._genes import Flavor, TopGenes
    from ._output_form import ValueType
    from .io.write import Compression
    from .scales import Scale

__all__ = ["cells_of", "impute_cells", "impute_file", "train_and_impute"]

_BY_BLOCKS = (".h5ad", ".zarr", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def impute_file(
    source: str | Path,
    *,
    output: str | Path,
    model: AutoImpute | str | Path | None = None,
    layer: str | None = None,
    objective: str | None = None,
    n_top_genes: "TopGenes | None" = None,
    flavor: "Flavor" = "dispersion",
    genes: Iterable[str] | None = None,
    batch_key: str | None = None,
    as_batch: str | None = None,
    scale: "Scale" = "log1p",
    depth: float | None = None,
    keep_observed: bool | None = None,
    posterior_sd: bool = False,
    output_genes: "Iterable[str] | None" = None,
    sparse_below: float | None = None,
    dtype: "ValueType" = "float32",
    matrix: bool = True,
    compression: "Compression | None" = None,
    key_added: str = "imputed",
    random_state: int | np.random.Generator = 0,
    checkpoint: str | Path | None = None,
    max_memory: int | str | None = None,
    transpose: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Impute a file and write another, a block of cells at a time, by a trained model or one that is trained on it.

    The result is that of reading `source`, `scautoimpute.tl.autoimpute` with `model`, and `write`. Memory does
    not grow with the number of cells, except for about 100 bytes of each: what is trained on is kept on disk where
    there is much of it. With ``preset="paper"``, or the masked objective and ``estimand="expected"`` (its default where
    data are not asked to be `"masked"` but turn out to be no molecules), training takes the whole in memory; trained
    models are always applied in blocks.
    All of `source` is read, also what is only copied, so that damage is found wherever it is.

    Parameters
    ----------
    source
        Counts, cells × genes. An ``.h5ad`` or a ``.zarr`` folder is read a block at a time if it was written by
        anndata 0.8 or later and holds the counts dense or by cells (CSR); of one by genes (CSC) the non-zeros are read
        at once, with a warning. The ``.h5`` of 10x Genomics is read a block at a time too. Everything that
        `scautoimpute.read` reads besides is read as a whole.
    output
        ``.h5ad`` or ``.zarr``: a copy of `source` with the fields that `scautoimpute.tl.autoimpute` sets, everything
        else as it was; ``.csv`` or ``.tsv``, also ``.gz``: the new layer. Other formats that `scautoimpute.write`
        knows need the whole in memory.
    model
        A trained `AutoImpute` that knows its pre-processing, or the file that it was saved to; or one that has not
        been trained, which this does, on these cells. By default a new one.
    layer
        Where the counts are; `X` by default.
    objective, n_top_genes, flavor, genes
        Of the training; see `scautoimpute.tl.autoimpute`. `objective` may be none but that of `model`; with a trained
        one the others have no effect.
    batch_key, as_batch
        Column of `obs` with the batch of each cell, for a model that is or was trained with batches, and the name of
        one to estimate for instead.
    scale, depth
        Of the result; see `scautoimpute.tl.autoimpute`.
    keep_observed
        Fill only the zeros (True), or replace observed values by their estimates too (False); by default as
        `scautoimpute.tl.autoimpute` does.
    posterior_sd
        Also give the standard deviations; `objective="counts"` only, and not in text, which holds one matrix.
    output_genes
        Names of the genes of the output, in this order: it is ``adata[:, output_genes]`` of the whole one, counts and
        other layers too (`raw`, if there is one, stays whole). By default all.
    sparse_below
        Values below it, on the asked `scale`, are not stored: the layer is sparse, and zero there.
    dtype
        Of the layer: `"float32"`, or `"float16"`, which takes half as much, has three digits, and is always dense.
    matrix
        Whether to write a layer at all, or the embedding and the record alone, beside a copy of `source`;
        `scautoimpute.imputed_lazy` then computes what is looked at.
    compression
        `"gzip"` (level 1, bytes shuffled) for what is new in an ``.h5ad``, `"none"` for what is new in an ``.h5ad`` or
        ``.zarr``. By default zarr compresses as it does, and h5ad does not.
    key_added
        Name of the new layer, and of the record in `uns`; what had these names is replaced.
    random_state, checkpoint
        Of the training; see `scautoimpute.tl.autoimpute`.
    max_memory
        What the process may take in training, in bytes or as in ``"2G"``: counts that do not fit in it are kept on
        disk, in a file beside `output` that has no name and is gone with the process. By default more than 100 MB of
        them are, if there is room, and all else may take half of what is free; several processes on one machine share
        a file whatever is allowed. The result does not depend on it.
    transpose
        `source` holds genes × cells; it is then read as a whole.
    overwrite
        Replace an output that exists; it may be `source` itself.

    Returns
    -------
    The record that is in ``uns[key_added]`` of the output; where counts were kept that were trained on, as `staged`.

    Raises
    ------
    FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If `source` or `model` cannot be read, or `output` not be written.
    ValueError
        If `objective` is not that of `model`, or `checkpoint` is given with a trained one; if the values are no counts
        (logged, negative, NaN, transposed, all zero), wherever in the file they are; if the data lack more than half of
        the model's genes, or one of `output_genes`; if the format of the output has no place for what was asked; or if
        a file is damaged. Then there is no output.
    MemoryError
        If not even a network of so many genes fits in `max_memory`.
    OSError
        If there is no room on the disk, for the output or for what is trained on.

    Warns
    -----
    UserWarning
        If genes of the model are missing, cells have no reads, or names of cells or genes repeat.

    Examples
    --------
    >>> import scautoimpute as sai, tempfile
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> model = sai.AutoImpute("masked", n_folds=1, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adata.write_h5ad(f"{folder}/cells.h5ad")
    ...     files = {"source": f"{folder}/cells.h5ad", "output": f"{folder}/imputed.h5ad"}
    ...     trained = sai.impute_file(**files, model=model)
    ...     again = sai.impute_file(**files, model=model, overwrite=True)
    >>> trained["recipe"]["n_cells"], trained["trained_before"], again["trained_before"]
    (60, False, True)
    """
    check_scale(scale)
    check_key(key_added, layer)
    source, output = Path(source).expanduser(), Path(output).expanduser()
    check_writable(output, overwrite=overwrite)
    refuse_sd_in_text(output, posterior_sd)
    form = OutputForm.of(output_genes, sparse_below=sparse_below, dtype=dtype, matrix=matrix, posterior_sd=posterior_sd)
    refuse_form_in(output, form, compression)
    estimator = AutoImpute.load(model) if isinstance(model, str | Path) else model
    wanted: dict[str, Any] = {
        "output": output,
        "batch_key": batch_key,
        "as_batch": as_batch,
        "scale": scale,
        "depth": depth,
        "keep_observed": keep_observed,
        "posterior_sd": posterior_sd,
        "form": form,
        "compression": compression,
        "key_added": key_added,
        "overwrite": overwrite,
    }
    if estimator is not None:
        check_model(estimator, objective, checkpoint=checkpoint)
    if estimator is not None and estimator.is_fitted:
        recipe_of(estimator)  # refuses a model that cannot be applied, before anything is read
        with cells_of(source, output=output, transpose=transpose) as cells:
            return impute_cells(cells, model=estimator, layer=layer, **wanted)
    staging = Staging(output.resolve().parent, None if max_memory is None else bytes_of(max_memory))
    asked = {"objective": objective, "preset": None, "estimand": None}
    if estimator is not None:
        made = estimator.settings
        asked = {"objective": made.objective, "preset": made.preset, "estimand": estimator.estimand}
    wanted |= {"n_top_genes": n_top_genes, "flavor": flavor, "genes": genes, "checkpoint": checkpoint}
    where: dict[str, Any] = {"output": output, "transpose": transpose, "find": lambda _: (layer, "as asked")}
    with cells_to_train_on(source, asked=asked, **where) as ready:
        refuse_budget(ready, max_memory, preset=asked["preset"])
        chosen = ready.chosen
        if estimator is None:
            estimator = AutoImpute(chosen.objective, estimand=chosen.estimand, random_state=random_state)
        else:
            chosen = objective_of_model(estimator.settings, is_fitted=False)
        return train_and_impute(ready._replace(chosen=chosen), model=estimator, staging=staging, **wanted)


def train_and_impute(
    ready: ToTrainOn,
    *,
    model: AutoImpute,
    n_top_genes: "TopGenes | None",
    flavor: "Flavor",
    genes: Iterable[str] | None,
    checkpoint: str | Path | None,
    staging: Staging,
    when_trained: Callable[[], None] = lambda: None,
    form: OutputForm = WHOLE,
    compression: "Compression | None" = None,
    output: Path,
    overwrite: bool,
    key_added: str,
    batch_key: str | None,
    as_batch: str | None,
    scale: "Scale",
    depth: float | None,
    keep_observed: bool | None,
    posterior_sd: bool,
) -> dict[str, Any]:
    """Train on what `cells_to_train_on` yields and impute it; as `impute_file`, of which this is the second half.

    Parameters
    ----------
    ready
        What to train on and impute.
    model
        What to train.
    staging
        Where counts are kept meanwhile.
    when_trained
        Called before anything is written.
    form
        What was asked of the output.
    n_top_genes, flavor, genes, checkpoint, compression, output, overwrite, key_added, batch_key, as_batch, scale
        As in `impute_file`.
    depth, keep_observed, posterior_sd
        As in `impute_file`.

    Returns
    -------
    The record.
    """
    training: dict[str, Any] = {"n_top_genes": n_top_genes, "flavor": flavor, "genes": genes, "checkpoint": checkpoint}
    form.refuse_absent(ready.cells.var_names)
    batches: dict[str, Any] = {"batch_key": batch_key, "as_batch": as_batch}
    options: dict[str, Any] = {"scale": scale, "depth": depth, "keep_observed": keep_observed, **batches}
    options["posterior_sd"] = posterior_sd
    if isinstance(ready.cells, StoredCells):
        if model.settings.objective == "counts":
            refuse_for_counts(scale, depth, keep_observed, None)
        else:
            refuse_for_masked(scale, depth, {"genes": genes, "posterior_sd": posterior_sd, **batches})
        train_cells(ready, model, staging=staging, **training, **batches)
        ready.cells.refuse_changed()  # before a model is kept that may have learned from zeros
        when_trained()
        written: dict[str, Any] = {"output": output, "overwrite": overwrite, "key_added": key_added, **options}
        written |= {"form": form, "compression": compression}
        record = impute_cells(ready.cells, model=model, layer=ready.layer, trained_here=ready.chosen.reason, **written)
        return record | {"staged": staging.in_words}
    adata = ready.cells
    options |= {"key_added": key_added, **training, **vars(form)}
    tl.autoimpute(adata, layer=ready.layer, model=model, **options)
    adata.uns[key_added]["objective_reason"] = ready.chosen.reason
    when_trained()
    write(adata, output, layer=key_added if form.matrix else None, overwrite=overwrite, compression=compression)
    return dict(adata.uns[key_added])


@contextmanager
def cells_of(source: Path, *, output: Path, transpose: bool) -> "Iterator[AnnData | StoredCells]":
    """Yield the cells in a file: on disk if both files allow blocks of cells, else the whole object in memory.

    Parameters
    ----------
    source, output, transpose
        As in `impute_file`.
    """
    source = source.expanduser()
    if transpose or not (is_stored_by_rows(source) and output.name.lower().endswith(_BY_BLOCKS)):
        yield read(source, transpose=transpose)
        return
    with open_cells(source, stacklevel=4) as cells:
        yield cells


def impute_cells(
    cells: "AnnData | StoredCells",
    *,
    output: Path,
    model: AutoImpute,
    layer: str | None,
    batch_key: str | None = None,
    as_batch: str | None = None,
    scale: "Scale",
    depth: float | None = None,
    keep_observed: bool | None,
    posterior_sd: bool = False,
    form: OutputForm = WHOLE,
    compression: "Compression | None" = None,
    key_added: str,
    overwrite: bool,
    trained_here: str | None = None,
) -> dict[str, Any]:
    """Impute what `cells_of` yields with a trained model; as `impute_file`, of which this is the second half.

    Parameters
    ----------
    cells
        What to impute.
    trained_here
        Why the objective is this one, if the model was just trained on these cells.
    output, model, layer, batch_key, as_batch, scale, depth, keep_observed, posterior_sd, compression, key_added
        As in `impute_file`.
    overwrite
        As in `impute_file`.
    form
        What was asked of the output.

    Returns
    -------
    The record.
    """
    of_counts: dict[str, Any] = {"batch_key": batch_key, "as_batch": as_batch, "posterior_sd": posterior_sd}
    if not isinstance(cells, StoredCells):
        options = {"scale": scale, "depth": depth, "keep_observed": keep_observed, **of_counts, **vars(form)}
        tl.autoimpute(cells, layer=layer, model=model, key_added=key_added, **options)
        write(cells, output, layer=key_added if form.matrix else None, overwrite=overwrite, compression=compression)
        record: dict[str, Any] = cells.uns[key_added]
        return record
    run: CountsRun | MaskedRun
    told: dict[str, Any] = {"form": form, "trained_here": trained_here}
    if model.settings.objective == "counts":
        refuse_for_counts(scale, depth, keep_observed, None)
        refuse_transposed(cast("AnnData", cells))
        run = CountsRun.of(cells, layer, model, scale=scale, depth=depth, **told, **of_counts)
    else:
        refuse_for_masked(scale, depth, of_counts)
        refuse_transposed(cast("AnnData", cells))
        kept = keeps_observed(keep_observed, model.estimand)
        run = MaskedRun.of(cells, layer, model, scale=scale, keep_observed=kept, **told)
    storage = Storage(
        run.output.is_sparse, posterior_sd, form.matrix, form.dtype, run.output.shown.genes_O, compression
    )
    with (
        complete_or_absent(output) as beside,
        stored_result(beside, cells, name=output, key=key_added, storage=storage) as result,
    ):
        for rows in run.blocks():
            result.append(*rows)
        record = run.finish(result)
        cells.refuse_changed()
        return record
