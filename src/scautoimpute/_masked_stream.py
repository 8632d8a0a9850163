"""The masked objective on cells of a file: blocks on their way through a model, and what is known of all of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._application import recipe_of, record_of
from ._cluster import each_block
from ._counts import has_fractions, may_be_log, refuse_all_zero, refuse_small, refuse_values, report_empty
from ._masked_layer import MaskedOutput
from ._output_form import OutputForm, Rows
from ._recipe import FittedRecipe, gene_facts
from .autoimpute import AutoImpute
from .io.matrix import CELLS_PER_BLOCK
from .io.result import StoredResult, TextResult
from .io.stream import StoredCells
from .progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ._genes import FloatArray

__all__ = ["MaskedRun"]


class MaskedRun:
    """Blocks of cells on their way through the model, and what is known when all have passed."""

    def __init__(
        self,
        cells: StoredCells,
        layer: str | None,
        estimator: AutoImpute,
        recipe: FittedRecipe,
        output: MaskedOutput,
        *,
        trained_here: str | None = None,
    ) -> None:
        self.trained_here = trained_here
        self.cells, self.layer, self.estimator, self.recipe, self.output = cells, layer, estimator, recipe, output
        self.logs_said = layer is None and "log1p" in cells.uns
        self.has_fractions, self.largest, self.n_entries = False, 0.0, 0
        self.seen_G = np.zeros(cells.n_vars, dtype=bool)
        self.size_factor: list[FloatArray] = []
        self.is_empty: list[NDArray[np.bool_]] = []
        self.zeros = np.zeros(2, dtype=np.int64)

    @classmethod
    def of(
        cls,
        cells: StoredCells,
        layer: str | None,
        estimator: AutoImpute,
        *,
        scale: str,
        keep_observed: bool,
        form: OutputForm,
        trained_here: str | None = None,
    ) -> "MaskedRun":
        """Match the genes of a file with those of the model; say once what is missing, if anything.

        `trained_here` is why the objective is this one, if the model was just trained on these cells.
        """
        recipe = FittedRecipe.to(cells.var_names, recipe_of(estimator), stacklevel=5)
        shown = form.shown(cells.var_names, recipe.alignment.columns_P, recipe.alignment.positions_P)
        output = MaskedOutput(
            estimator.model_,  # type: ignore[arg-type]
            shown,
            recipe.recipe["median_total"],
            scale,
            keep_observed,
            estimator.estimand == "expected",
            form.is_sparse(by_default=hasattr(cells.by_rows(layer), "format")),
            form,
        )
        return cls(cells, layer, estimator, recipe, output, trained_here=trained_here)

    def blocks(self) -> "Iterator[tuple[Any, NDArray[np.float32]]]":
        """Yield the rows of the layer and of the embedding."""
        with progress_bar(self.cells.n_obs, "imputing", "cell") as bar:
            for rows, made in each_block(
                self.cells, self.layer, CELLS_PER_BLOCK, _ImputeBlock(self.recipe, self.output)
            ):
                self._note(made)
                if rows.start == 0 and self.has_fractions:
                    self._refuse_logs_early()
                yield made.rows.layer, made.embedding
                bar.update(rows.stop - rows.start)

    def _note(self, made: "_Imputed") -> None:
        self.n_entries += made.n_entries
        self.seen_G |= made.seen_G
        self.has_fractions = self.has_fractions or made.has_fractions
        self.largest = max(self.largest, made.largest)
        self.size_factor.append(made.size_factor_B)
        self.is_empty.append(made.is_empty_B)
        self.zeros += (made.rows.n_zeros, made.rows.n_filled)

    def _refuse_logs_early(self) -> None:
        """Look for a value that no log has in all cells, before the work is done rather than after."""
        largest = self.largest
        if not self.logs_said:
            rest = self.cells.rows(self.layer, CELLS_PER_BLOCK)
            largest = next((v for v in (x.data.max(initial=0) for x in rest) if not may_be_log(v)), largest)
        refuse_small(largest, flagged=self.logs_said)

    def finish(self, result: StoredResult | TextResult) -> dict[str, Any]:
        """Refuse what only all cells together show, complete `result` and return the record."""
        refuse_all_zero(self.n_entries, self.cells.shape)
        if self.has_fractions:
            refuse_small(self.largest, flagged=self.logs_said)
        is_empty = np.concatenate(self.is_empty)
        if self.trained_here is None:
            report_empty(is_empty, reference=False, stacklevel=4)
        alignment = self.recipe.alignment
        record = record_of(
            self.estimator,
            scale=self.output.scale,
            keep_observed=self.output.keep_observed,
            zeros=(int(self.zeros[0]), int(self.zeros[1])) if self.output.form.matrix else None,
            genes=self.cells.var_names[alignment.positions_P],
            choices=self.recipe.choices(self.layer, self._facts(is_empty)),
            alignment=alignment if self.trained_here is None else None,
            more={"objective_reason": self.trained_here or "as the model was trained"} | self.output.form.record(),
        )
        modelled = np.isin(np.arange(self.cells.n_vars), alignment.positions_P)
        result.finish(np.concatenate(self.size_factor), modelled, record)
        return record

    def _facts(self, is_empty: "NDArray[np.bool_]") -> dict[str, Any]:
        """What was found in these data."""
        return {
            "n_cells": self.cells.n_obs,
            "n_empty_cells": int(is_empty.sum()),
            **gene_facts(self.cells.n_vars, n_kept=self.recipe.kept.size, n_seen=int(np.count_nonzero(self.seen_G))),
        }


class _Imputed(NamedTuple):
    rows: Rows
    embedding: "NDArray[np.float32]"
    size_factor_B: "FloatArray"
    is_empty_B: "NDArray[np.bool_]"
    seen_G: "NDArray[np.bool_]"
    n_entries: int
    has_fractions: bool
    largest: float


@dataclass(frozen=True)
class _ImputeBlock:
    """What is done to each block, wherever; see `MaskedRun`."""

    recipe: FittedRecipe
    output: MaskedOutput

    def __call__(self, counts: Any, rows: slice, _: None) -> _Imputed:
        refuse_values(counts, first_row=rows.start)
        log2, size_factor_B, is_empty_B = self.recipe.process(counts)
        new = self.output.rows(counts, log2, size_factor_B)
        seen_G = np.bincount(counts.indices, minlength=counts.shape[1]) > 0
        found = int(counts.nnz), has_fractions(counts), float(counts.data.max(initial=0))
        return _Imputed(new, self.output.model.embed(log2), size_factor_B, is_empty_B, seen_G, *found)
