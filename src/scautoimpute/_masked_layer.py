"""From a block of counts to the rows of a layer, by the masked objective; the same in memory and from a file.

Shape legend: B cells of a block, G genes of the data, O of the output, P genes of the model, S of these in the output.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._application import spread
from ._masked_estimates import impute_block
from ._output_form import WHOLE, OutputForm, Rows, Shown
from .io.matrix import block_csr, row_blocks, rows_per_block
from .scales import from_normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._genes import FloatArray
    from .model.masked import MaskedModel
    from .model.paper import PaperModel

__all__ = ["MaskedOutput"]


@dataclass(frozen=True)
class MaskedOutput:
    """How the estimates of a model become rows.

    Attributes
    ----------
    model
        A trained one.
    shown
        Which genes the output has.
    median_total
        As in `Processed`.
    scale, keep_observed
        As in `scautoimpute.tl.autoimpute`.
    expected
        Whether the estimand is `"expected"`.
    is_sparse
        Whether rows are a ``csr_matrix`` or an array.
    form
        What else was asked of them.
    """

    model: "MaskedModel | PaperModel"
    shown: Shown
    median_total: float
    scale: str
    keep_observed: bool
    expected: bool
    is_sparse: bool
    form: OutputForm = WHOLE

    def rows(self, counts: Any, log2: sparse.csr_array, size_factor_B: "FloatArray") -> Rows:
        """Return rows of the output's genes: imputed where modelled, observed elsewhere.

        Parameters
        ----------
        counts
            Of all genes of the data, B × G, in any container.
        log2
            Of the model's genes, B × P; log2 of normalised counts.
        size_factor_B
            As in `Processed`.
        """
        if not self.form.matrix:
            return Rows(None, None, 0, 0)
        imputed_BP = impute_block(self.model, log2, keep_observed=self.keep_observed, expected=self.expected)
        observed = self._observed(counts)
        seen_BS = observed[:, self.shown.places_S].toarray() / size_factor_B[:, None]
        filled_BS = np.exp2(imputed_BP[:, self.shown.columns_S]) - np.float32(1)
        if self.keep_observed:  # the exact counts, rather than what is left of them after a logarithm and back
            filled_BS = np.where(seen_BS > 0, seen_BS, filled_BS)
        values_BS = self._on_scale(np.asarray(filled_BS, dtype=np.float64), size_factor_B[:, None])
        layer = self._spread(values_BS, self._others(observed, size_factor_B))
        is_zero_BS = seen_BS == 0
        return Rows(layer, None, int(is_zero_BS.sum()), int(np.count_nonzero(values_BS[is_zero_BS])))

    def _observed(self, counts: Any) -> sparse.csr_array:
        observed = block_csr(counts).astype(np.float64)
        observed.sum_duplicates()
        taken: sparse.csr_array = self.shown.taken_of(observed)
        return taken

    def _on_scale(self, values: "FloatArray", size_factor: "FloatArray") -> "NDArray[np.float32]":
        scaled = from_normalised(values, self.scale, size_factor=size_factor, median_total=self.median_total)
        return self.form.thinned(scaled)

    def _others(self, observed: sparse.csr_array, size_factor_B: "FloatArray") -> sparse.csr_array:
        """Observed values of the genes that are not modelled."""
        is_modelled_O = np.isin(np.arange(observed.shape[1]), self.shown.places_S)
        factor_Z = np.repeat(size_factor_B, np.diff(observed.indptr))
        values_Z = self._on_scale(observed.data / factor_Z, factor_Z)
        return sparse.csr_array(
            (np.where(is_modelled_O[observed.indices], 0, values_Z), observed.indices, observed.indptr),
            shape=observed.shape,
        )

    def _spread(self, values_BS: "NDArray[np.float32]", others: sparse.csr_array) -> Any:
        if self.is_sparse:
            return sparse.csr_matrix(others + spread(values_BS, self.shown.places_S, others.shape[1]))
        dense = np.empty(others.shape, dtype=np.float32)
        for rows in row_blocks(dense, rows_per_block(others.shape[1])):
            dense[rows] = others[rows].toarray()
        dense[:, self.shown.places_S] = values_BS
        return self.form.cast(dense)
