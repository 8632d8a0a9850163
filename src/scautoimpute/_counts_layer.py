"""From a block of counts to the rows of a layer, by the counts objective; the same in memory and from a file.

Shape legend: N cells, B cells of a block, G genes of the data, P genes of the model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from ._application import spread, zeros_filled
from ._counts_scales import from_counts, sd_from_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ._genes import FloatArray, IntArray
    from .model.counts import CountsModel
    from .model.counts_store import CountsRows

__all__ = ["Batches", "CountsOutput", "Rows", "is_sparse_better", "own_count_share"]

MOST_MODELLED = 0.5  # share of the genes up to which a sparse layer takes less memory than a dense one
CELLS_LOOKED_AT = 512


class Batches(NamedTuple):
    """Batch of each cell, and that to estimate for (None for its own), as positions among those of the model."""

    own_N: "NDArray[np.intp]"
    into_N: "NDArray[np.intp] | None"

    def part(self, rows: slice) -> "Batches":
        """Return those of some cells."""
        return Batches(self.own_N[rows], None if self.into_N is None else self.into_N[rows])


class Rows(NamedTuple):
    """Some rows of the result: of the layer, of that of the standard deviations if asked for, and zeros filled."""

    layer: Any
    sd: Any | None
    n_zeros: int
    n_filled: int


@dataclass(frozen=True)
class CountsOutput:
    """How the estimates of a model become rows.

    Attributes
    ----------
    model
        A trained one.
    columns_P, genes_P
        Which of its genes the data have, and where they are among those of the data.
    scale, with_sd
        As in `scautoimpute.tl.autoimpute`.
    is_sparse
        Whether rows are a ``csr_matrix`` or an array.
    """

    model: "CountsModel"
    columns_P: "IntArray"
    genes_P: "IntArray"
    scale: str
    with_sd: bool
    is_sparse: bool

    def rows(
        self, counts: Any, x: sparse.csr_array, batches: Batches, *, library_B: "FloatArray", depth_B: Any = None
    ) -> Rows:
        """Return rows of all genes; genes that are not modelled keep their counts, brought to the same scale.

        Parameters
        ----------
        counts
            ``csr_array`` of all genes of the data, B × G.
        x
            Counts of the model's genes, in its order.
        batches
            Of these cells.
        library_B, depth_B
            As in `from_counts`.
        """
        parts = list(self._modelled(x, batches, library_B, depth_B))
        values_BP, sd_BP = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        present = x if self.columns_P.size == x.shape[1] else x[:, self.columns_P]
        others = self._others(counts, library_B)
        layer = self._spread(values_BP, others)
        sd = self._spread(sd_BP, sparse.csr_array(counts.shape, dtype=np.float32)) if self.with_sd else None
        return Rows(layer, sd, *zeros_filled(present, values_BP))

    def _modelled(
        self, x: sparse.csr_array, batches: Batches, library_B: "FloatArray", depth_B: Any
    ) -> "Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]":
        """Yield values and standard deviations of the genes that the data have, a few cells at a time."""
        for rows, mean_BG, sd_BG in self.model.posterior(x, *batches):
            library, depth = library_B[rows], None if depth_B is None else depth_B[rows]
            mean_BP, sd_BP = mean_BG, sd_BG
            if self.columns_P.size < x.shape[1]:  # the molecules seen are of the genes that the data have
                mean_BP, sd_BP = mean_BG[:, self.columns_P], sd_BG[:, self.columns_P]
                share_B1 = mean_BP.sum(1, keepdims=True) / np.maximum(mean_BG.sum(1, keepdims=True), 1e-30)
                mean_BP, sd_BP = (values / np.maximum(share_B1, 1e-30) for values in (mean_BP, sd_BP))
            values_BP = from_counts(mean_BP, sd_BP, self.scale, library_B=library, depth_B=depth)
            sd_BP = sd_from_counts(mean_BP, sd_BP, self.scale, library_B=library) if self.with_sd else sd_BP[:, :0]
            yield values_BP, sd_BP

    def _others(self, counts: Any, library_B: "FloatArray") -> sparse.csr_array:
        """Observed values of the genes that are not modelled."""
        modelled_G = np.zeros(counts.shape[1], dtype=bool)
        modelled_G[self.genes_P] = True
        kept_Z = ~modelled_G[counts.indices]
        row_Z = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[kept_Z]
        scale = "log1p" if self.scale == "expected_log1p" else self.scale
        value_Z = counts.data[kept_Z].astype(np.float64)
        value_Z = from_counts(value_Z[:, None], value_Z[:, None], scale, library_B=library_B[row_Z])[:, 0]
        return sparse.csr_array((value_Z, (row_Z, counts.indices[kept_Z])), shape=counts.shape)

    def _spread(self, values_BP: "NDArray[np.float32]", others: sparse.csr_array) -> Any:
        if self.is_sparse:
            return sparse.csr_matrix(others + spread(values_BP, self.genes_P, others.shape[1]))
        if self.genes_P.size == others.shape[1] and np.array_equal(self.genes_P, np.arange(others.shape[1])):
            return values_BP
        dense: NDArray[np.float32] = others.toarray().astype(np.float32, copy=False)
        dense[:, self.genes_P] = values_BP
        return dense


def is_sparse_better(counts: Any, n_modelled: int) -> bool:
    """Whether a layer of few modelled genes, beside sparse counts, is better kept sparse: estimates are never zero."""
    stored_sparse = sparse.issparse(counts) or hasattr(counts, "format")
    return stored_sparse and n_modelled <= MOST_MODELLED * counts.shape[1]


def own_count_share(model: "CountsModel", x: "CountsRows", own_N: "NDArray[np.intp]") -> float:
    """Share of the estimate, in molecules, that comes from the cells' own counts; the rest is learned structure.

    An expert with empirical Bayes takes s·x of its estimate from the count x, with s = φμ / (1 + φμ); see
    `scautoimpute.model.dispersion`. Taken over at most 512 cells, evenly spaced.
    """
    from .model.dispersion import own_share

    chosen = np.unique(np.linspace(0, x.shape[0] - 1, min(x.shape[0], CELLS_LOOKED_AT)).astype(np.intp))
    own, whole, looked_at = 0.0, 0.0, x[chosen]
    for rows in model.blocks(looked_at):
        block, own_B = looked_at[rows], own_N[chosen[rows]]
        x_BG, library_B1 = model.dense(block)
        shares = model.shares(block, own_B, own_B)
        for index, share_BG in enumerate(shares):
            mean_BG = share_BG * library_B1
            own_BG = own_share(mean_BG, model.dispersion_2G[index])
            posterior_BG = mean_BG + own_BG * (x_BG - mean_BG)
            weight = float(model.weights_K[2 * index + 1])
            own += weight * float((own_BG * x_BG).sum())
            whole += weight * float(posterior_BG.sum()) + float(model.weights_K[2 * index]) * float(mean_BG.sum())
    return own / whole if whole else 0.0
