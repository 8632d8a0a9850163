"""What candidates see, what decides between them, and what stays untouched.

Shape legend: G genes, V hidden entries.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .._counts import checked_counts
from .._recipe import processed_matrix
from ..metrics.recovery import hide_entries

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["Split", "check_share", "split_counts", "split_processed"]

FEWEST_ENTRIES = 50  # in each share: of fewer, the error of two settings hardly differs but by chance
LARGEST_SHARE = 0.4


@dataclass(frozen=True)
class Split:
    """What candidates see, and the hidden entries, of which some decide between them and the others are untouched."""

    visible: sparse.csr_array
    rows_V: "NDArray[np.int64]"
    columns_V: "NDArray[np.int64]"
    truth_V: "NDArray[np.float64]"
    untouched_V: "NDArray[np.bool_]"

    def check(self) -> None:
        """Refuse to compare settings by a handful of entries."""
        fewest = min(np.count_nonzero(self.untouched_V), np.count_nonzero(~self.untouched_V))
        if fewest < FEWEST_ENTRIES:
            msg = (
                f"{fewest} held-out entries are too few to compare settings by; at least {FEWEST_ENTRIES} are needed: "
                "give more cells, more genes or a larger share"
            )
            raise ValueError(msg)


def check_share(share: float) -> None:
    """Refuse a share that is none, or that leaves too little to learn from."""
    if not 0 < share <= LARGEST_SHARE:
        msg = f"share={share!r} is out of range: give a number above 0 and at most {LARGEST_SHARE}; twice it is hidden"
        raise ValueError(msg)


def split_processed(x: Any, share: float, rng: np.random.Generator) -> Split:
    """Hide a share of the non-zero entries of `x` to choose by, and as many again to report on."""
    first = hide_entries(x, share=share, random_state=rng)
    second = hide_entries(first.visible, share=share / (1 - share), random_state=rng)
    rows, columns, truth = (
        np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("rows", "cols", "truth")
    )
    untouched = np.arange(len(rows)) >= len(first.rows)
    return Split(second.visible, rows, columns, truth.astype(np.float64), untouched)


def split_counts(adata: "AnnData", layer: str | None, share: float, rng: np.random.Generator, **recipe: Any) -> Split:
    """Hide counts, process what is left, and bring the hidden ones of its genes to its scale."""
    from anndata import AnnData

    hidden = split_processed(checked_counts(adata, layer), share, rng)
    visible = AnnData(sparse.csr_matrix(hidden.visible), obs=adata.obs[[]], var=adata.var[[]])
    if layer is None and "log1p" in adata.uns:
        visible.uns["log1p"] = adata.uns["log1p"]
    processed = processed_matrix(visible, **recipe)
    column_G = np.full(adata.n_vars, -1)
    column_G[processed.genes] = np.arange(len(processed.genes))
    # A cell that shows nothing has no scale, and nothing to be predicted from
    modelled_V = (column_G[hidden.columns_V] >= 0) & (np.diff(processed.log2.indptr)[hidden.rows_V] > 0)
    rows_V = hidden.rows_V[modelled_V]
    return Split(
        processed.log2,
        rows_V,
        column_G[hidden.columns_V[modelled_V]],
        np.log2(hidden.truth_V[modelled_V] / processed.size_factor[rows_V] + 1),
        hidden.untouched_V[modelled_V],
    )
