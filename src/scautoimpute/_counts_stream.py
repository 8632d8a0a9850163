"""The counts objective on cells of a file: blocks on their way through a model, and what is known of all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._alignment import Alignment
from ._application import recipe_of, record_of
from ._batches import batch_positions
from ._cluster import each_block
from ._counted import size_factors
from ._counts import refuse_all_zero, refuse_values, report_empty
from ._counts_layer import Batches, CountsOutput, is_sparse_better
from ._counts_run import CELLS_AT_A_TIME, batch_labels, depths, words_of
from ._output_form import OutputForm, Rows
from ._recipe import aligned_genes, gene_facts
from ._umi import molecules, refuse_fractions
from .autoimpute import AutoImpute
from .io.matrix import row_sums
from .io.result import StoredResult, TextResult
from .io.stream import StoredCells
from .progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._genes import FloatArray

__all__ = ["CountsRun", "StoredColumns"]


class CountsRun:
    """Blocks of cells on their way through the model; memory does not grow with their number.

    Parameters
    ----------
    cells, layer
        Where the counts are.
    estimator
        A trained one.
    alignment
        Where its genes are in the file.
    output
        How estimates become rows.
    batches
        Of all cells.
    depth
        As in `scautoimpute.tl.autoimpute`.
    as_batch
        Name of the batch that is estimated for, to record it.
    trained_here
        Why the objective is this one, if the model was just trained on these cells; None if it was trained before.
    """

    def __init__(
        self,
        cells: StoredCells,
        layer: str | None,
        estimator: AutoImpute,
        *,
        alignment: Alignment,
        output: CountsOutput,
        batches: Batches,
        depth: float | None,
        as_batch: str | None,
        trained_here: str | None = None,
    ) -> None:
        self.cells, self.layer, self.estimator, self.alignment = cells, layer, estimator, alignment
        self.trained_here = trained_here
        self.output, self.batches, self.depth, self.as_batch = output, batches, depth, as_batch
        self.library: list[FloatArray] = []
        self.seen_G = np.zeros(cells.n_vars, dtype=bool)
        self.zeros = np.zeros(2, dtype=np.int64)

    @classmethod
    def of(
        cls,
        cells: StoredCells,
        layer: str | None,
        estimator: AutoImpute,
        *,
        scale: str,
        depth: float | None,
        batch_key: str | None,
        as_batch: str | None,
        posterior_sd: bool,
        form: OutputForm,
        trained_here: str | None = None,
    ) -> "CountsRun":
        """Match genes and batches of a file with those of the model; say once what is missing, if anything."""
        alignment = aligned_genes(cells.var_names, recipe_of(estimator), stacklevel=4)
        model: Any = estimator.model_
        labels = batch_labels(StoredColumns(cells.root["obs"]), batch_key)
        batches = Batches(*batch_positions(labels, as_batch, cells.n_obs, model.batches))
        shown = form.shown(cells.var_names, alignment.columns_P, alignment.positions_P)
        is_sparse = form.is_sparse(by_default=is_sparse_better(cells.by_rows(layer), shown))
        output = CountsOutput(model, alignment.columns_P, shown, scale, posterior_sd, is_sparse, form)
        parts: dict[str, Any] = {"alignment": alignment, "output": output, "batches": batches}
        parts["trained_here"] = trained_here
        return cls(cells, layer, estimator, **parts, depth=depth, as_batch=as_batch)

    def blocks(self) -> "Iterator[tuple[Any, NDArray[np.float32], Any]]":
        """Yield the rows of the layer, of the embedding, and of the standard deviations."""
        depth_N, work = depths(self.depth, self.cells.n_obs), _EstimateBlock(self.alignment, self.output)

        def given(rows: slice) -> tuple[Batches, Any]:
            return self.batches.part(rows), None if depth_N is None else depth_N[rows]

        with progress_bar(self.cells.n_obs, "imputing", "cell") as bar:
            for rows, made in each_block(self.cells, self.layer, CELLS_AT_A_TIME, work, given=given):
                self.seen_G |= made.seen_G
                self.library.append(made.library_B)
                self.zeros += (made.rows.n_zeros, made.rows.n_filled)
                yield made.rows.layer, made.embedding, made.rows.sd
                bar.update(rows.stop - rows.start)

    def finish(self, result: StoredResult | TextResult) -> dict[str, Any]:
        """Refuse what only all cells together show, complete `result` and return the record."""
        library_N, recipe = np.concatenate(self.library), recipe_of(self.estimator)
        if self.trained_here is None:
            refuse_all_zero(int(library_N.sum()), self.cells.shape)
            report_empty(library_N == 0, reference=False, stacklevel=4)
        record = record_of(
            self.estimator,
            scale=self.output.scale,
            keep_observed=False,
            zeros=(int(self.zeros[0]), int(self.zeros[1])) if self.output.form.matrix else None,
            genes=self.cells.var_names[self.alignment.positions_P],
            choices=recipe["choices"] | self._facts(library_N) if self.trained_here is None else recipe["choices"],
            alignment=self.alignment if self.trained_here is None else None,
            more=self.output.form.record()
            | words_of(
                self.estimator,
                reason=self.trained_here or "as the model was trained",
                as_batch=self.as_batch,
                depth=self.depth,
            ),
        )
        modelled_G = np.isin(np.arange(self.cells.n_vars), self.alignment.positions_P)
        result.finish(size_factors(library_N, recipe["median_total"]), modelled_G, record)
        return record

    def _facts(self, library_N: "FloatArray") -> dict[str, Any]:
        """What was found in these data."""
        return {
            "layer": self.layer or "X",
            "median_total": recipe_of(self.estimator)["median_total"],
            "n_cells": self.cells.n_obs,
            "n_empty_cells": int((library_N == 0).sum()),
            **gene_facts(
                self.cells.n_vars, n_kept=self.alignment.positions_P.size, n_seen=int(np.count_nonzero(self.seen_G))
            ),
        }


class _Estimated(NamedTuple):
    rows: Rows
    embedding: "NDArray[np.float32]"
    library_B: "FloatArray"
    seen_G: "NDArray[np.bool_]"


@dataclass(frozen=True)
class _EstimateBlock:
    """What is done to each block, wherever; see `CountsRun`."""

    alignment: Alignment
    output: CountsOutput

    def __call__(self, counts: Any, rows: slice, given: tuple[Batches, Any]) -> _Estimated:
        refuse_values(counts, first_row=rows.start)
        refuse_fractions(counts)
        (batches, depth_B), library_B = given, row_sums(counts)
        x = molecules(self.alignment.apply(counts))
        new = self.output.rows(counts, x, batches, library_B=library_B, depth_B=depth_B)
        seen_G = np.bincount(counts.indices, minlength=counts.shape[1]) > 0
        return _Estimated(new, self.output.model.embed(x, batches.own_N), library_B, seen_G)


class StoredColumns:
    """Columns of a stored `obs`, read when asked for."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __iter__(self) -> Iterator[str]:
        return (str(name) for name in self.frame.attrs["column-order"])

    def __contains__(self, name: str) -> bool:
        return name in list(self)

    def __getitem__(self, name: str) -> Any:
        from anndata.io import read_elem

        return read_elem(self.frame[name])
