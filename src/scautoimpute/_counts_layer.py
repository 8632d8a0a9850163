"""From a block of counts to the rows of a layer, by the counts objective; the same in memory and from a file.

Shape legend: N cells, B cells of a block, G genes of the data, O of the output, P genes of the model, S of these in
the output.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from ._application import spread, zeros_filled
from ._counts_scales import from_counts, sd_from_counts
from ._output_form import WHOLE, OutputForm, Rows, Shown
from .io.matrix import evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ._genes import FloatArray, IntArray
    from .model.counts import CountsModel
    from .model.counts_store import CountsRows

__all__ = ["Batches", "CountsOutput", "is_sparse_better", "own_count_share"]

MOST_MODELLED = 0.5  # share of the genes up to which a sparse layer takes less memory than a dense one
CELLS_LOOKED_AT = 512


class Batches(NamedTuple):
    """Batch of each cell, and that to estimate for (None for its own), as positions among those of the model."""

    own_N: "NDArray[np.intp]"
    into_N: "NDArray[np.intp] | None"

    def part(self, rows: slice) -> "Batches":
        """Return those of some cells."""
        return Batches(self.own_N[rows], None if self.into_N is None else self.into_N[rows])


@dataclass(frozen=True)
class CountsOutput:
    """How the estimates of a model become rows.

    Attributes
    ----------
    model
        A trained one.
    columns_P
        Which of its genes the data have.
    shown
        Which genes the output has.
    scale, with_sd
        As in `scautoimpute.tl.autoimpute`.
    is_sparse
        Whether rows are a ``csr_matrix`` or an array.
    form
        What else was asked of them.
    """

    model: "CountsModel"
    columns_P: "IntArray"
    shown: Shown
    scale: str
    with_sd: bool
    is_sparse: bool
    form: OutputForm = WHOLE

    def rows(
        self, counts: Any, x: sparse.csr_array, batches: Batches, *, library_B: "FloatArray", depth_B: Any = None
    ) -> Rows:
        """Return rows of the output's genes; those that are not modelled keep their counts, brought to the same scale.

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
        if not self.form.matrix:
            return Rows(None, None, 0, 0)
        parts = list(self._modelled(x, batches, library_B, depth_B))
        values_BS, sd_BS = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        whole = self.shown.columns_S.size == x.shape[1] and self.shown.genes_O is None
        present = x if whole else x[:, self.shown.columns_S]
        others = self._others(self.shown.taken_of(counts), library_B)
        values_BS = self.form.thinned(values_BS)
        layer = self._spread(values_BS, others)
        sd = None
        if self.with_sd:
            sd_BS = sd_BS if self.form.sparse_below is None else np.where(values_BS > 0, sd_BS, np.float32(0))
            sd = self._spread(sd_BS, sparse.csr_array(others.shape, dtype=np.float32))
        return Rows(layer, sd, *zeros_filled(present, values_BS))

    def _modelled(
        self, x: sparse.csr_array, batches: Batches, library_B: "FloatArray", depth_B: Any
    ) -> "Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]":
        """Yield values and standard deviations of the modelled genes of the output, a few cells at a time."""
        for rows, mean_BS, sd_BS in self._posterior(x, batches):
            library, depth = library_B[rows], None if depth_B is None else depth_B[rows]
            values_BS = from_counts(mean_BS, sd_BS, self.scale, library_B=library, depth_B=depth)
            scaled_BS = sd_from_counts(mean_BS, sd_BS, self.scale, library_B=library) if self.with_sd else sd_BS[:, :0]
            yield values_BS, scaled_BS

    def _posterior(self, x: sparse.csr_array, batches: Batches) -> "Iterator[tuple[slice, Any, Any]]":
        """Yield mean and standard deviation of the modelled genes of the output."""
        columns_S = self.shown.columns_S
        if self.columns_P.size == x.shape[1]:
            columns = None if self.shown.genes_O is None else columns_S
            yield from self.model.posterior(x, *batches, columns=columns, with_sd=self.needs_sd)
            return
        for rows, mean_BG, sd_BG in self.model.posterior(x, *batches, with_sd=self.needs_sd):
            # The molecules seen are of the genes that the data have
            share_B1 = mean_BG[:, self.columns_P].sum(1, keepdims=True)
            share_B1 /= np.maximum(mean_BG.sum(1, keepdims=True), 1e-30)
            sd_BS = sd_BG[:, columns_S] if self.needs_sd else sd_BG
            yield rows, *(values / np.maximum(share_B1, 1e-30) for values in (mean_BG[:, columns_S], sd_BS))

    @property
    def needs_sd(self) -> bool:
        """Whether anything is made of the standard deviations."""
        return self.with_sd or self.scale == "expected_log1p"

    def _others(self, counts: Any, library_B: "FloatArray") -> sparse.csr_array:
        """Observed values of the genes that are not modelled."""
        modelled_O = np.zeros(counts.shape[1], dtype=bool)
        modelled_O[self.shown.places_S] = True
        kept_Z = ~modelled_O[counts.indices]
        row_Z = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[kept_Z]
        scale = "log1p" if self.scale == "expected_log1p" else self.scale
        value_Z = counts.data[kept_Z].astype(np.float64)
        value_Z = from_counts(value_Z[:, None], value_Z[:, None], scale, library_B=library_B[row_Z])[:, 0]
        return sparse.csr_array((self.form.thinned(value_Z), (row_Z, counts.indices[kept_Z])), shape=counts.shape)

    def _spread(self, values_BS: "NDArray[np.float32]", others: sparse.csr_array) -> Any:
        places_S, n_genes = self.shown.places_S, others.shape[1]
        if self.is_sparse:
            return sparse.csr_matrix(others + spread(values_BS, places_S, n_genes))
        if places_S.size == n_genes and np.array_equal(places_S, np.arange(n_genes)):
            return self.form.cast(values_BS)
        dense: NDArray[np.float32] = others.toarray().astype(np.float32, copy=False)
        dense[:, places_S] = values_BS
        return self.form.cast(dense)


def is_sparse_better(counts: Any, shown: Shown) -> bool:
    """Whether a layer of few modelled genes, beside sparse counts, is better kept sparse: estimates are never zero."""
    stored_sparse = sparse.issparse(counts) or hasattr(counts, "format")
    n_genes = counts.shape[1] if shown.genes_O is None else shown.genes_O.size
    return stored_sparse and shown.columns_S.size <= MOST_MODELLED * n_genes


def own_count_share(model: "CountsModel", x: "CountsRows", own_N: "NDArray[np.intp]") -> float:
    """Share of the estimate, in molecules, that comes from the cells' own counts; the rest is learned structure.

    An expert with empirical Bayes takes s·x of its estimate from the count x; see
    `scautoimpute.model.dispersion`. Taken over at most 512 cells, evenly spaced.
    """
    from .model.counts import expected
    from .model.dispersion import own_share

    chosen = evenly_spaced(x.shape[0], CELLS_LOOKED_AT)
    own, whole, looked_at = 0.0, 0.0, x[chosen]
    for rows in model.blocks(looked_at):
        block, own_B = looked_at[rows], own_N[chosen[rows]]
        x_BG, library_B1 = model.dense(block)
        shares = model.shares(block, own_B, own_B)
        for index, (mean_BG, unit_BG) in enumerate(expected(shares, library_B1)):
            own_BG = own_share(unit_BG * model.dispersion_EG[index])
            posterior_BG = mean_BG + own_BG * (x_BG - mean_BG)
            weight = float(model.weights_K[2 * index + 1])
            own += weight * float((own_BG * x_BG).sum())
            whole += weight * float(posterior_BG.sum()) + float(model.weights_K[2 * index]) * float(mean_BG.sum())
    return own / whole if whole else 0.0
