"""The recipe as one computation that leaves the object whole: counts in, processed matrix and what it took out."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._counts import checked_counts, log2_plus_one, median_normalised, refuse_logs
from ._genes import Flavor, FloatArray, IntArray, TopGenes, genes_passing, positions_of_genes, top_genes
from .io.checks import refuse_transposed

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "MIN_CELLS",
    "MIN_COUNTS",
    "Processed",
    "gene_counts",
    "processed_as",
    "processed_matrix",
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
        Positions of the columns of `log2` among the genes of the object.
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
    """

    log2: Any
    genes: IntArray
    kept: IntArray
    kept_share: FloatArray
    size_factor: FloatArray
    median_total: float
    choices: dict[str, Any]

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


def processed_as(adata: "AnnData", recipe: dict[str, Any], *, layer: str | None = None) -> Processed:
    """Process other cells as those of a trained model were: its genes, its median total; see `Processed.recipe`.

    Raises
    ------
    ValueError
        As `recipe_autoimpute`, and if genes of the model are not in `adata`.
    """
    refuse_transposed(adata)
    x = checked_counts(adata, layer)
    refuse_logs(x, flagged="log1p" in adata.uns and layer is None)
    genes = positions_of_genes(recipe["genes"], adata.var_names)
    kept, share, median = _kept_of(recipe, adata)
    normalised, size_factor, facts = median_normalised(x[:, kept], reference=False, median=median)
    log2 = log2_plus_one(normalised[:, pd.Index(kept).get_indexer(genes)]).astype(np.float32)
    log2.sort_indices()
    facts["median_total"] = recipe["median_total"]
    choices = recipe["choices"] | {"layer": layer or "X", **facts, **gene_counts(x, kept)}
    return Processed(log2, genes, kept, share, size_factor, recipe["median_total"], choices)


def _kept_of(recipe: dict[str, Any], adata: "AnnData") -> tuple[IntArray, FloatArray, float]:
    """Positions of the genes that totals are taken over, their shares of reads, and the median total over them.

    Of a data set that lacks some of them the totals are smaller, and so is the median they are compared with.
    """
    position = adata.var_names.get_indexer(recipe["kept_genes"])
    present, share = position >= 0, np.asarray(recipe["kept_share"])
    if not present.all():
        warnings.warn(
            f"{np.count_nonzero(~present)} of the {present.size} genes that library sizes were taken over in training "
            f"are not in the data; the others had {share[present].sum():.0%} of the reads, which is allowed for",
            stacklevel=5,
        )
    return position[present].astype(np.int64), share[present], recipe["median_total"] * share[present].sum()


def selection_choices(n_top_genes: TopGenes, flavor: Flavor, reference: bool) -> dict[str, Any]:
    n_top = "all" if n_top_genes in {None, "all"} else int(n_top_genes)
    return {"flavor": str(flavor), "n_top_genes": n_top, "reference": bool(reference)}


def gene_counts(x: Any, kept: IntArray) -> dict[str, int]:
    n_genes: int = x.shape[1]
    return {
        "n_genes_in": n_genes,
        "n_genes_kept": int(kept.size),
        "n_empty_genes": n_genes - int(np.count_nonzero(np.bincount(x.indices, minlength=n_genes))),
    }
