"""Counts as the counts objective takes them: which genes are modelled, and how many molecules each cell has in all.

The library of a cell is taken over *all* genes of the data, modelled or not, as `scanpy.pp.normalize_total` takes it.

Shape legend: N cells, G genes of the data, P genes of the model.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._alignment import Alignment, refuse_repeated, refuse_unknown
from ._counts import checked_counts, library_facts, normalised_by, refuse_all_zero, report_empty
from ._counts_facts import CountsFacts
from ._genes import Flavor, FloatArray, IntArray, TopGenes, mean_variance, top_genes_by
from ._recipe import MIN_CELLS, aligned_genes, gene_counts, gene_facts, selection_choices
from ._training_report import refuse_few
from ._umi import molecules, refuse_fractions, refuse_reads
from .io.checks import refuse_transposed
from .io.matrix import CELLS_PER_BLOCK, blocks_of, row_sums

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["Counted", "counted_as", "counted_matrix", "counted_rows", "size_factors"]


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of the modelled genes, and what is known of the cells.

    Attributes
    ----------
    x
        Counts, N × P, in the model's order: a ``csr_array``, or rows of a file (`CountsRows`).
    genes
        Positions of the modelled genes among those of the data, those that it has.
    share_P
        Share of the molecules of the modelled genes that each of them has.
    library_N
        Molecules of each cell, over all genes of the data.
    median_total
        Median of those above zero; of the training data, for a model that was trained before.
    choices
        Every choice made and count found, in plain types.
    alignment
        Where the genes of a trained model are in the data; None where the genes are the data's own.
    """

    x: Any
    genes: IntArray
    share_P: FloatArray
    library_N: FloatArray
    median_total: float
    choices: dict[str, Any]
    alignment: Alignment | None = None

    @property
    def columns(self) -> IntArray:
        """Columns of `x` that the data have genes for, namely `genes`."""
        return np.arange(self.genes.size) if self.alignment is None else self.alignment.columns_P

    def recipe(self, names: "pd.Index[str]") -> dict[str, Any]:
        """Return what `counted_as` needs to take other cells alike; `names` are those of the data's genes."""
        genes = [str(name) for name in names[self.genes]]
        return {
            "genes": genes,
            "kept_genes": genes,
            "kept_share": self.share_P.tolist(),
            "median_total": self.median_total,
            "choices": self.choices,
        }


def counted_matrix(
    adata: "AnnData",
    *,
    layer: str | None = None,
    n_top_genes: TopGenes = None,
    flavor: Flavor = "dispersion",
    genes: Iterable[str] | None = None,
) -> Counted:
    """Take counts for training: of all genes that have a molecule, or of some of these.

    Parameters
    ----------
    adata
        Counts of molecules, cells × genes; it is not changed.
    layer
        Where they are; `X` by default.
    n_top_genes, flavor
        How many genes, and by what they are chosen of normalised counts; all by default.
    genes
        Names of the genes to model instead.

    Raises
    ------
    ValueError
        If values are no counts of molecules, or names in `genes` are not in the data or repeat.
    """
    from ._lazy_counts import lazy_counts

    refuse_transposed(adata)
    chosen: dict[str, Any] = {"n_top_genes": n_top_genes, "flavor": flavor, "genes": genes}
    lazy = lazy_counts(adata, layer)
    if lazy is not None:
        return counted_rows(lazy, lazy.facts(), adata.var_names, layer=layer, **chosen, take=lazy.of_genes)
    x = checked_counts(adata, layer)
    refuse_fractions(x)
    facts = CountsFacts.of([x], x.shape[1])
    return counted_rows(x, facts, adata.var_names, layer=layer, **chosen, take=lambda genes: molecules(x[:, genes]))


def counted_rows(
    x: Any,
    facts: CountsFacts,
    names: "pd.Index[str]",
    *,
    layer: str | None,
    n_top_genes: TopGenes,
    flavor: Flavor,
    genes: Iterable[str] | None,
    take: Callable[[IntArray], Any],
) -> Counted:
    """Do as `counted_matrix` does with counts of which rows can be taken, wherever they are.

    Parameters
    ----------
    x
        Canonical counts, N × G, of which blocks of rows are taken.
    facts
        What is known of them.
    names
        Of their genes.
    layer, n_top_genes, flavor, genes
        As of `counted_matrix`.
    take
        Gives the counts of some genes, N × P.
    """
    refuse_all_zero(int(facts.cells_G.sum()), x.shape)
    refuse_reads(facts.verdict)
    if n_top_genes is not None and genes is not None:
        msg = f"both genes= and n_top_genes={n_top_genes!r} were given: give one of them"
        raise ValueError(msg)
    _refuse_few_cells(x.shape[0])
    refuse_few(int(facts.cells_G.sum()), int(facts.total_G.sum()), x.shape)
    library_N, seen = facts.libraries(), facts.seen
    found = library_facts(library_N, reference=False, stacklevel=5)
    if genes is None:
        normalised = _normalised(x, found["median_total"])

        def moments() -> tuple[FloatArray, FloatArray]:
            mean_G, variance_G = mean_variance(normalised, *x.shape)
            return mean_G[seen], variance_G[seen]

        chosen = seen[top_genes_by(moments, seen.size, n_top_genes, flavor=flavor, reference=False)]
        how = selection_choices(n_top_genes, flavor, reference=False)
    else:
        chosen, how = _named_genes(genes, names, seen), {"n_top_genes": "given by name"}
    of_genes = gene_facts(x.shape[1], n_kept=seen.size, n_seen=seen.size)
    choices = {"layer": layer or "X", **how, **found, **of_genes, "n_genes_selected": int(chosen.size)}
    share_P = facts.total_G[chosen] / facts.total_G[chosen].sum()
    return Counted(take(chosen), chosen, share_P, library_N, found["median_total"], choices)


def _normalised(x: Any, median: float) -> "Callable[[], Iterator[Any]]":
    """Return what goes through the cells block by block, normalised."""
    return lambda: (normalised_by(block, median)[0] for _, block in blocks_of(x, CELLS_PER_BLOCK))


def counted_as(adata: "AnnData", recipe: dict[str, Any], *, layer: str | None = None) -> Counted:
    """Take counts for a trained model, with its genes as columns; those that `adata` lacks have no molecules.

    Raises
    ------
    ValueError
        If values are no whole counts, or the data have less than half of the model's genes, or of their molecules.

    Warns
    -----
    UserWarning
        If genes of the model are missing, or cells have no molecules.
    """
    refuse_transposed(adata)
    x = checked_counts(adata, layer)
    refuse_fractions(x)
    alignment = aligned_genes(adata.var_names, recipe, stacklevel=4)
    library_N = row_sums(x)
    report_empty(library_N == 0, reference=False, stacklevel=4)
    facts = {
        "n_cells": x.shape[0],
        "n_empty_cells": int((library_N == 0).sum()),
        **gene_counts(x, alignment.positions_P),
    }
    choices = {**recipe["choices"], "layer": layer or "X", "median_total": recipe["median_total"], **facts}
    share_P = np.asarray(recipe["kept_share"])
    aligned = molecules(alignment.apply(x))
    return Counted(aligned, alignment.positions_P, share_P, library_N, recipe["median_total"], choices, alignment)


def _refuse_few_cells(n_cells: int) -> None:
    """Refuse so few cells that they show no structure."""
    if n_cells < MIN_CELLS:
        found = f"found {n_cells} cell{'s' * (n_cells != 1)}"
        msg = f"{found}; structure is what differs between cells: give more, at least {MIN_CELLS}, 30 or better 100"
        raise ValueError(msg)


def size_factors(library_N: FloatArray, median_total: float) -> FloatArray:
    """Molecules of each cell over the median of the training data; 1 for an empty cell."""
    return np.where(library_N > 0, library_N / median_total, 1.0)


def _named_genes(genes: Iterable[str], names: "pd.Index[str]", seen: "NDArray[np.intp]") -> IntArray:
    """Positions of the genes called so, in the data's order, but for those without a molecule."""
    wanted = [str(gene) for gene in genes]
    refuse_unknown(wanted, names, parameter="genes")
    refuse_repeated(names, parameter="genes")
    positions = np.intersect1d(names.get_indexer(wanted), seen)
    if positions.size < 2:
        msg = (
            f"{positions.size} of the {len(wanted)} genes in genes= have a molecule in any cell: give 2 or more that do"
        )
        raise ValueError(msg)
    return positions.astype(np.int64)
