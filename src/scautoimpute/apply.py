"""Apply a trained model to cells that are too many for memory: a file in, a file with one more layer out."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import tl
from ._application import all_genes, check_key, recipe_of, record_of, zeros_filled
from ._counts import has_fractions, may_be_log, refuse_all_zero, refuse_small, refuse_values, report_empty
from ._masked_estimates import impute_block
from ._recipe import FittedRecipe
from .autoimpute import AutoImpute
from .io import check_writable, read, refuse_transposed, write
from .io.complete import complete_or_absent
from .io.matrix import CELLS_PER_BLOCK
from .io.result import StoredResult, TextResult, stored_result
from .io.stream import StoredCells, is_stored_by_rows, open_cells
from .progress import progress_bar
from .scales import check_scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._genes import FloatArray
    from .scales import Scale

__all__ = ["cells_of", "impute_cells", "impute_file"]

_BY_BLOCKS = (".h5ad", ".zarr", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def impute_file(
    source: str | Path,
    *,
    output: str | Path,
    model: AutoImpute | str | Path,
    layer: str | None = None,
    scale: "Scale" = "log1p",
    keep_observed: bool = True,
    key_added: str = "imputed",
    transpose: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Impute a file with a trained model and write another, a block of cells at a time.

    The result is that of reading `source`, `scautoimpute.tl.autoimpute` with `model`, and `write`; memory does not
    grow with the number of cells, except for about 100 bytes of each. All of `source` is read, also what is only
    copied, so that damage is found wherever it is.

    Parameters
    ----------
    source
        Counts, cells × genes. An ``.h5ad`` or a ``.zarr`` folder is read a block at a time if it was written by
        anndata 0.8 or later and holds the counts dense or by cells (CSR); of one by genes (CSC) the non-zeros are read
        at once, with a warning. Everything that `scautoimpute.read` reads besides is read as a whole.
    output
        ``.h5ad`` or ``.zarr``: a copy of `source` with the fields that `scautoimpute.tl.autoimpute` sets, everything
        else as it was; ``.csv`` or ``.tsv``, also ``.gz``: the new layer. Other formats that `scautoimpute.write`
        knows need the whole in memory.
    model
        A trained `AutoImpute` that knows its pre-processing, or the file that it was saved to.
    layer
        Where the counts are; `X` by default.
    scale
        Of the result: `"log1p"`, `"cp10k"`, `"counts"` or `"log2"`; see `scautoimpute.tl.autoimpute`.
    keep_observed
        Fill only the zeros (True), or replace observed values by their estimates too (False).
    key_added
        Name of the new layer, and of the record in `uns`; what had these names is replaced.
    transpose
        `source` holds genes × cells; it is then read as a whole.
    overwrite
        Replace an output that exists; it may be `source` itself.

    Returns
    -------
    The record that is in ``uns[key_added]`` of the output.

    Raises
    ------
    FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If `source` or `model` cannot be read, or `output` not be written.
    ValueError
        If the values are no counts (logged, negative, NaN, transposed, all zero), wherever in the file they are; if
        the data lack more than half of the model's genes; or if a file is damaged. Then there is no output.

    Warns
    -----
    UserWarning
        If genes of the model are missing, cells have no reads, or names of cells or genes repeat.

    Examples
    --------
    >>> import scautoimpute as sai, tempfile
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> model = sai.AutoImpute(n_folds=1, random_state=0)
    >>> sai.tl.autoimpute(adata.copy(), model=model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adata.write_h5ad(f"{folder}/new.h5ad")
    ...     record = sai.impute_file(f"{folder}/new.h5ad", output=f"{folder}/imputed.h5ad", model=model)
    >>> record["recipe"]["n_cells"], record["trained_before"]
    (60, True)
    """
    check_scale(scale)
    check_key(key_added, layer)
    source, output = Path(source).expanduser(), Path(output).expanduser()
    check_writable(output, overwrite=overwrite)
    estimator = model if isinstance(model, AutoImpute) else AutoImpute.load(model)
    recipe_of(estimator)  # refuses a model that cannot be applied, before anything is read
    with cells_of(source, output=output, transpose=transpose) as cells:
        return impute_cells(
            cells,
            output=output,
            model=estimator,
            layer=layer,
            scale=scale,
            keep_observed=keep_observed,
            key_added=key_added,
            overwrite=overwrite,
        )


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
    scale: "Scale",
    keep_observed: bool,
    key_added: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Impute what `cells_of` yields; as `impute_file`, of which this is the second half.

    Parameters
    ----------
    cells
        What to impute.
    output, model, layer, scale, keep_observed, key_added, overwrite
        As in `impute_file`.

    Returns
    -------
    The record.
    """
    options: dict[str, Any] = {"scale": scale, "keep_observed": keep_observed}
    if not isinstance(cells, StoredCells):
        tl.autoimpute(cells, layer=layer, model=model, key_added=key_added, **options)
        write(cells, output, layer=key_added, overwrite=overwrite)
        record: dict[str, Any] = cells.uns[key_added]
        return record
    refuse_transposed(cast("AnnData", cells))
    run = _Run(cells, layer, model, FittedRecipe.to(cells.var_names, recipe_of(model), stacklevel=4), options)
    with (
        complete_or_absent(output.expanduser().resolve()) as beside,
        stored_result(beside, cells, name=output, key=key_added, is_sparse=run.is_sparse) as result,
    ):
        for rows, embedding in run.blocks():
            result.append(rows, embedding)
        return run.finish(result)


class _Run:
    """Blocks of cells on their way through the model, and what is known when all have passed."""

    def __init__(
        self,
        cells: StoredCells,
        layer: str | None,
        estimator: AutoImpute,
        recipe: FittedRecipe,
        options: dict[str, Any],
    ) -> None:
        self.cells, self.layer, self.estimator, self.recipe, self.options = cells, layer, estimator, recipe, options
        self.is_sparse = hasattr(cells.by_rows(layer), "format")
        self.logs_said = layer is None and "log1p" in cells.uns
        self.has_fractions, self.largest, self.n_entries = False, 0.0, 0
        self.seen_G = np.zeros(cells.n_vars, dtype=bool)
        self.size_factor: list[FloatArray] = []
        self.is_empty: list[NDArray[np.bool_]] = []
        self.zeros = np.zeros(2, dtype=np.int64)

    def blocks(self) -> "Iterator[tuple[Any, NDArray[np.float32]]]":
        """Yield the rows of the layer and of the embedding."""
        with progress_bar(self.cells.n_obs, "imputing", "cell") as bar:
            for x in self._counts():
                yield self._impute(x)
                bar.update(x.shape[0])

    def _counts(self) -> "Iterator[Any]":
        """Yield counts; what is none is refused as soon as it is met."""
        first = 0
        for x in self.cells.rows(self.layer, CELLS_PER_BLOCK):
            refuse_values(x, first_row=first)
            self._note(x)
            if first == 0 and self.has_fractions:
                self._refuse_logs_early()
            yield x
            first += x.shape[0]

    def _note(self, x: Any) -> None:
        self.n_entries += x.nnz
        self.seen_G[x.indices] = True
        self.has_fractions = self.has_fractions or has_fractions(x)
        self.largest = max(self.largest, float(x.data.max(initial=0)))

    def _refuse_logs_early(self) -> None:
        """Look for a value that no log has in all cells, before the work is done rather than after."""
        largest = self.largest
        if not self.logs_said:
            rest = self.cells.rows(self.layer, CELLS_PER_BLOCK)
            largest = next((v for v in (x.data.max(initial=0) for x in rest) if not may_be_log(v)), largest)
        refuse_small(largest, flagged=self.logs_said)

    def _impute(self, x: Any) -> "tuple[Any, NDArray[np.float32]]":
        alignment = self.recipe.alignment
        log2, size_factor, is_empty = self.recipe.process(x)
        imputed = impute_block(
            self.estimator.model_,  # type: ignore[arg-type]
            log2,
            keep_observed=self.options["keep_observed"],
            expected=self.estimator.estimand == "expected",
        )[:, alignment.columns_P]
        self.size_factor.append(size_factor)
        self.is_empty.append(is_empty)
        self.zeros += zeros_filled(log2[:, alignment.columns_P], imputed)
        rows = all_genes(
            x,
            imputed,
            genes_P=alignment.positions_P,
            size_factor_B=size_factor,
            median_total=self.recipe.recipe["median_total"],
            is_sparse=self.is_sparse,
            **self.options,
        )
        return rows, self.estimator.model_.embed(log2)

    def finish(self, result: StoredResult | TextResult) -> dict[str, Any]:
        """Refuse what only all cells together show, complete `result` and return the record."""
        refuse_all_zero(self.n_entries, self.cells.shape)
        if self.has_fractions:
            refuse_small(self.largest, flagged=self.logs_said)
        is_empty = np.concatenate(self.is_empty)
        report_empty(is_empty, reference=False, stacklevel=4)
        alignment = self.recipe.alignment
        facts = {
            "n_cells": self.cells.n_obs,
            "n_empty_cells": int(is_empty.sum()),
            "n_genes_in": self.cells.n_vars,
            "n_genes_kept": int(self.recipe.kept.size),
            "n_empty_genes": int(np.count_nonzero(~self.seen_G)),
        }
        record = record_of(
            self.estimator,
            zeros=(int(self.zeros[0]), int(self.zeros[1])),
            genes=self.cells.var_names[alignment.positions_P],
            choices=self.recipe.choices(self.layer, facts),
            alignment=alignment,
            **self.options,
        )
        modelled = np.isin(np.arange(self.cells.n_vars), alignment.positions_P)
        result.finish(np.concatenate(self.size_factor), modelled, record)
        return record
