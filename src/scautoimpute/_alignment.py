"""New data against a trained model: which of its genes they have, by name, and whether those are enough.

A gene of the model that the data lack counts as unobserved in every cell; a gene that the model lacks is ignored.

Shape legend: N cells, G genes of the model, P those of them that the data have.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ._genes import FloatArray, IntArray

# Least share of the model's genes, and of their reads, that data must have. The networks are trained with 10 to 90 %
# of each cell's entries hidden. When 60 % were the most, they predicted better than gene means did with half of the
# genes taken away (Zeisel cortex RMSE 0.72 against 0.87, PBMC 3k 0.43 against 0.51), with three quarters worse (0.87,
# 0.56).
ENOUGH = 0.5
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the genes of a model stand in some data.

    Attributes
    ----------
    columns_P
        Which of the model's genes the data have.
    positions_P
        Where these stand among the genes of the data.
    n_genes
        How many genes the model has (G).
    n_ignored
        How many genes of the data are not among those of the model.
    example
        One that is missing, if any.
    share
        Share of the reads of the model's genes, in its training data, that those in the data had; None if unknown.
    """

    columns_P: IntArray
    positions_P: IntArray
    n_genes: int
    n_ignored: int
    example: str | None
    share: float | None

    @property
    def n_missing(self) -> int:
        """How many of the model's genes the data lack."""
        return self.n_genes - self.columns_P.size

    def apply(self, x: sparse.csr_array) -> sparse.csr_array:
        """Return the data's matrix `x` as N × G, in the model's order; the columns of missing genes are empty."""
        present = x[:, self.positions_P]
        columns = self.columns_P[present.indices].astype(present.indices.dtype)
        aligned = sparse.csr_array((present.data, columns, present.indptr), shape=(x.shape[0], self.n_genes))
        aligned.sort_indices()
        return aligned

    def in_words(self) -> str:
        """Say what is missing, for a warning; empty if nothing is."""
        if not self.n_missing:
            return ""
        share = "" if self.share is None else f"; they had {1 - self.share:.1%} of the reads of all its genes"
        return (
            f"{self.n_missing} of the model's {self.n_genes} genes (e.g. {self.example!r}) are not in the data and "
            f"count as unobserved{share}"
        )

    def record(self) -> dict[str, Any]:
        """Plain values to keep with a result."""
        known = {} if self.share is None else {"share_of_reads_missing": 1 - self.share}
        return {"n_genes": self.n_genes, "n_missing": self.n_missing, "n_ignored": self.n_ignored} | known


def align_genes(wanted: list[str], names: "pd.Index[str]", *, share_G: FloatArray | None = None) -> Alignment:
    """Find the genes of a trained model among `names`.

    Parameters
    ----------
    wanted
        Names of the model's genes.
    names
        Names of the data's genes.
    share_G
        Share of all reads of the training data that each of `wanted` had, if known.

    Raises
    ------
    ValueError
        If `names` repeat or `wanted` do, or fewer than half of the genes are there, or genes with less than half of
        the reads.
    """
    for whose, those in (("", names), (" of the model", pd.Index(wanted))):
        if not those.is_unique:
            twin = str(those[those.duplicated()][0])
            msg = f"gene names{whose} repeat (e.g. {twin!r}), so the model's genes cannot be found: make them unique"
            raise ValueError(msg)
    position_G: IntArray = names.get_indexer(wanted).astype(np.int64)
    found_G = position_G >= 0
    share = None if share_G is None or not share_G.any() else float(share_G[found_G].sum() / share_G.sum())
    if found_G.mean() < ENOUGH or (share is not None and share < ENOUGH):
        raise ValueError(_too_few(wanted, [str(name) for name in names], int(found_G.sum()), share))
    columns = np.flatnonzero(found_G)
    example = None if found_G.all() else wanted[int(found_G.argmin())]
    return Alignment(columns, position_G[columns], len(wanted), len(names) - columns.size, example, share)


def refuse_unknown(wanted: "Sequence[str]", names: "pd.Index[str]", *, parameter: str) -> None:
    """Refuse names, given as `parameter`, that are not among those of the data."""
    unknown = [name for name in wanted if name not in names]
    if unknown:
        msg = (
            f"{len(unknown)} of {len(wanted)} names in {parameter}= are not in the data (e.g. {unknown[0]!r}; the data "
            f"have e.g. {str(names[0])!r}): give names that are in var_names"
        )
        raise ValueError(msg)


def refuse_repeated(names: "pd.Index[str]", *, parameter: str) -> None:
    """Refuse names of the data among which those that `parameter` gives cannot be found."""
    if not names.is_unique:
        msg = f"gene names of the data repeat, so {parameter}= cannot tell them apart: make them unique"
        raise ValueError(msg)


def match_genes(
    x: sparse.csr_array,
    names: "pd.Index[str] | None",
    wanted: list[str] | None,
    *,
    n_genes: int,
    share_G: FloatArray | None = None,
) -> sparse.csr_array:
    """Return a matrix with the genes of a trained model as columns, matched by name where both sides have names.

    Warns, on behalf of the caller's caller, of genes that are missing; as `align_genes` refuses too many of them, and
    matrices without names that have another number of genes.
    """
    if names is not None and wanted is not None and list(names) != wanted:
        alignment = align_genes(wanted, names, share_G=share_G)
        if alignment.n_missing:
            warnings.warn(alignment.in_words(), stacklevel=4)
        x = alignment.apply(x)
    if x.shape[1] != n_genes:
        msg = f"the data have {x.shape[1]} genes, the model was trained on {n_genes}: give the same genes"
        raise ValueError(msg)
    return x


def _too_few(wanted: list[str], names: list[str], n_found: int, share: float | None) -> str:
    reads = "" if share is None else f", with {share:.1%} of their reads,"
    absent = next(_absent(wanted, names))
    other = next(_absent(names, wanted), names[0])
    return (
        f"only {n_found} of the model's {len(wanted)} genes{reads} are among the {len(names)} of the data; half of "
        f"both is needed (the model has e.g. {absent!r}, the data {other!r}): {_what_to_do(wanted, names)}"
    )


def _absent(ones: list[str], others: list[str]) -> Iterator[str]:
    known = set(others)
    return (one for one in ones if one not in known)


def _what_to_do(wanted: list[str], names: list[str]) -> str:
    if _are_ensembl(wanted) != _are_ensembl(names):
        ids, symbols = "Ensembl ids", "symbols"
        model, data = (ids, symbols) if _are_ensembl(wanted) else (symbols, ids)
        return f"the model names genes by {model}, the data by {data}: set var_names to {model}"
    if _match_better(wanted, names, _without_version):
        return "without the version after the dot they match: remove it from var_names, or add it"
    if _match_better(wanted, names, str.upper):
        return "more match but for upper and lower case, as human and mouse do: take a model of the same species"
    return "give data with the genes that the model was trained on, or train a model on these data"


def _are_ensembl(names: list[str]) -> bool:
    return 2 * sum(_ENSEMBL.match(name) is not None for name in names) > len(names)


def _without_version(name: str) -> str:
    return name.rpartition(".")[0] if _ENSEMBL.match(name) and "." in name else name


def _match_better(wanted: list[str], names: list[str], simplified: Callable[[str], str]) -> bool:
    """Whether far more names are on both sides once simplified: twice as many, and a twentieth at least."""
    exact = len(set(wanted) & set(names))
    simple = len({simplified(name) for name in wanted} & {simplified(name) for name in names})
    return simple > 2 * exact and simple >= len(wanted) / 20
