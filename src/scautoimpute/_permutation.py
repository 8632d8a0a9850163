"""Permuting each gene across cells on its own: what is left has every gene's values and no structure."""

from typing import Any

import numpy as np
from scipy import sparse


def permute_columns(x: Any, rng: np.random.Generator) -> Any:
    """Permute each column of a dense or sparse matrix on its own; a ``csr_array`` if it was sparse."""
    if not sparse.issparse(x):
        return rng.permuted(np.asarray(x), axis=0)
    columns = sparse.csc_array(x, copy=True)
    for start, end in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        # Where the non-zeros of a permuted column lie is a random set of rows; their own order is random too.
        columns.indices[start:end] = rng.choice(x.shape[0], size=end - start, replace=False)
    columns.has_sorted_indices = False
    return columns.tocsr()
