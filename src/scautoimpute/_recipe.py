"""The recipe as one computation that leaves the object whole: counts in, processed matrix and what it took out."""

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._alignment import Alignment, align_genes
from ._counts import checked_counts, log2_plus_one, median_normalised, normalised_by, refuse_logs, report_empty
from ._genes import Flavor, FloatArray, IntArray, TopGenes, genes_passing, top_genes
from .io.checks import refuse_transposed

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "MIN_CELLS",
    "MIN_COUNTS",
    "Processed",
    "aligned_genes",
    "gene_counts",
    "gene_facts",
    "processed_as",
    "processed_matrix",
    "refuse_few_cells",
    "selection_choices",
]

MIN_COUNTS, MIN_CELLS = 3, 3  # the paper's filter: at least 3 reads in at least 3 cells


@dataclass(frozen=True, slots=True)
class Processed:
    """What `processed_matrix` returns.

    Attributes
    ----------
    log2
        ``csr_array``, cells × selected genes: log2(normalised counts + 1); float32, or float64 for `reference=True`.
    genes
        Positions of the columns of `log2` among the genes of the object, those that it has.
    kept
        Positions of the genes that pass the read filter, over which totals are taken.
    kept_share
        Share of all reads of `kept` that each of them has.
    size_factor
        Per cell, its total over the median total; 1 for an empty cell.
    median_total
        Median total per cell, in reads of the genes that pass the filter.
    choices
        Every choice made and count found, in plain types.
    alignment
        Where the genes of a trained model are in the object; None where the genes are the object's own.
    """

    log2: Any
    genes: IntArray
    kept: IntArray
    kept_share: FloatArray
    size_factor: FloatArray
    median_total: float
    choices: dict[str, Any]
    alignment: Alignment | None = None

    @property
    def columns(self) -> IntArray:
        """Columns of `log2` that the object has genes for, namely `genes`: all but those that `processed_as` misses."""
        return np.arange(self.genes.size) if self.alignment is None else self.alignment.columns_P

    def recipe(self, names: Any) -> dict[str, Any]:
        """Return what `processed_as` needs to process other cells alike; `names` are those of the object's genes."""
        return {
            "genes": [str(name) for name in names[self.genes]],
            "kept_genes": [str(name) for name in names[self.kept]],
            "kept_share": self.kept_share.tolist(),
            "median_total": self.median_total,
            "choices": self.choices,
        }


def processed_matrix(
    adata: "AnnData",
    *,
    layer: str | None = None,
    n_top_genes: TopGenes = 1000,
    flavor: Flavor = "dispersion",
    reference: bool = False,
) -> Processed:
    """Compute what `recipe_autoimpute` computes and leave `adata` as it is, backed or not.

    Parameters, errors and warnings are those of `recipe_autoimpute`.
    """
    refuse_transposed(adata)
    x = checked_counts(adata, layer)
    refuse_logs(x, flagged="log1p" in adata.uns and layer is None)
    refuse_few_cells(adata.n_obs)
    kept = genes_passing(x, min_counts=MIN_COUNTS, min_cells=MIN_CELLS, reference=reference)
    normalised, size_factor, facts = median_normalised(x[:, kept], reference=reference)
    chosen = top_genes(normalised, n_top_genes=n_top_genes, flavor=flavor, reference=reference)
    log2 = log2_plus_one(normalised[:, chosen]).astype(np.float64 if reference else np.float32)
    log2.sort_indices()
    choices = {
        "layer": layer or "X",
        "min_counts": MIN_COUNTS,
        "min_cells": MIN_CELLS,
        **selection_choices(n_top_genes, flavor, reference),
        **facts,
        **gene_counts(x, kept),
        "n_genes_selected": int(chosen.size),
        "scale": "log2",
    }
    reads = np.bincount(x.indices, x.data, minlength=x.shape[1])[kept]
    return Processed(log2, kept[chosen], kept, reads / reads.sum(), size_factor, facts["median_total"], choices)


def refuse_few_cells(n_cells: int) -> None:
    """Refuse so few cells that no gene can pass the filter."""
    if n_cells < MIN_CELLS:
        found = f"found {n_cells} cell{'s' * (n_cells != 1)}"
        msg = f"{found}; a gene is modelled if it has reads in at least {MIN_CELLS}: give more cells, 30 or better 100"
        raise ValueError(msg)


def processed_as(adata: "AnnData", recipe: dict[str, Any], *, layer: str | None = None) -> Processed:
    """Process other cells as those of a trained model were: its genes, its median total; see `Processed.recipe`.

    Genes of the model that `adata` lacks count as unobserved: their columns of `log2` are empty.

    Raises
    ------
    ValueError
        As `recipe_autoimpute`, and if `adata` has less than half of the model's genes, or of their reads.

    Warns
    -----
    UserWarning
        If genes that the model was trained on are not in `adata`; and as `recipe_autoimpute`.
    """
    refuse_transposed(adata)
    x = checked_counts(adata, layer)
    refuse_logs(x, flagged="log1p" in adata.uns and layer is None)
    fitted = FittedRecipe.to(adata.var_names, recipe, stacklevel=6)
    log2, size_factor, is_empty = fitted.process(x)
    report_empty(is_empty, reference=False, stacklevel=5)
    facts = {"n_cells": x.shape[0], "n_empty_cells": int(is_empty.sum()), **gene_counts(x, fitted.kept)}
    return Processed(
        log2,
        fitted.alignment.positions_P,
        fitted.kept,
        fitted.kept_share,
        size_factor,
        recipe["median_total"],
        fitted.choices(layer, facts),
        fitted.alignment,
    )


@dataclass(frozen=True, slots=True)
class FittedRecipe:
    """A trained model's pre-processing, for the genes that some data have.

    Attributes
    ----------
    alignment
        Where the model's genes are in the data.
    kept, kept_share
        Positions of the genes that library sizes are taken over, and their shares of the reads in training.
    median
        Total over these genes that a cell of size factor 1 has: smaller than in training if some are missing.
    recipe
        What the model keeps.
    """

    alignment: Alignment
    kept: IntArray
    kept_share: FloatArray
    median: float
    recipe: dict[str, Any]

    @classmethod
    def to(cls, names: "pd.Index[str]", recipe: dict[str, Any], *, stacklevel: int) -> "FittedRecipe":
        """Match the genes of `recipe` with those called `names`; say once what is missing, if anything."""
        alignment = align_genes(recipe["genes"], names, share_G=model_shares(recipe))
        position: IntArray = names.get_indexer(recipe["kept_genes"]).astype(np.int64)
        present, share = position >= 0, np.asarray(recipe["kept_share"])
        missing = [alignment.in_words()] if alignment.n_missing else []
        if not present.all():
            missing.append(
                f"{np.count_nonzero(~present)} of the {present.size} genes that library sizes were taken over in "
                f"training are not in the data; the others had {share[present].sum():.1%} of the reads, which is "
                "allowed for"
            )
            warnings.warn("; ".join(missing), stacklevel=stacklevel)
        median = recipe["median_total"] * share[present].sum()
        return cls(alignment, position[present], share[present], median, recipe)

    def process(self, x: Any) -> tuple[Any, FloatArray, NDArray[np.bool_]]:
        """Return cells × the model's genes as log2, the size factor of each cell, and whether it has no reads."""
        normalised, size_factor, is_empty = normalised_by(x[:, self.kept], self.median)
        columns = pd.Index(self.kept).get_indexer(self.alignment.positions_P)
        log2 = log2_plus_one(replace(self.alignment, positions_P=columns).apply(normalised)).astype(np.float32)
        return log2, size_factor, is_empty

    def choices(self, layer: str | None, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the record of `processed_matrix`, with what was found in these data."""
        return {**self.recipe["choices"], "layer": layer or "X", "median_total": self.recipe["median_total"], **facts}


def aligned_genes(names: "pd.Index[str]", recipe: dict[str, Any], *, stacklevel: int) -> Alignment:
    """Match the genes of a model of counts with those called `names`; warn of what is missing, if anything."""
    alignment = align_genes(recipe["genes"], names, share_G=model_shares(recipe))
    if alignment.n_missing:
        warnings.warn(alignment.in_words(), stacklevel=stacklevel + 1)
    return alignment


def model_shares(recipe: dict[str, Any] | None) -> FloatArray | None:
    """Share of all reads of the training data that each gene of a model had, if its recipe and names tell."""
    kept = pd.Index([] if recipe is None else recipe["kept_genes"])
    if recipe is None or not kept.is_unique:
        return None
    share: FloatArray = np.asarray(recipe["kept_share"])[kept.get_indexer(recipe["genes"])]
    return share


def selection_choices(n_top_genes: TopGenes, flavor: Flavor, reference: bool) -> dict[str, Any]:
    n_top = "all" if n_top_genes in {None, "all"} else int(n_top_genes)
    return {"flavor": str(flavor), "n_top_genes": n_top, "reference": bool(reference)}


def gene_counts(x: Any, kept: IntArray) -> dict[str, int]:
    seen_G = np.bincount(x.indices, minlength=x.shape[1]) > 0
    return gene_facts(x.shape[1], n_kept=kept.size, n_seen=int(np.count_nonzero(seen_G)))


def gene_facts(n_genes: int, *, n_kept: int, n_seen: int) -> dict[str, int]:
    """What is recorded of the genes of some data: how many there are, are kept, and have no read."""
    return {"n_genes_in": n_genes, "n_genes_kept": n_kept, "n_empty_genes": n_genes - n_seen}
