"""A method of the registry in the form that the measures of harm call."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["imputer"]


def imputer(
    method: str, *, options: Mapping[str, Any] | None = None, keep_observed: bool | None = None
) -> Callable[[Any, np.random.Generator], NDArray[np.float64]]:
    """Return ``impute(counts, rng)``: counts, cells × genes, to dense logs, ln(1 + counts per 10,000).

    Parameters
    ----------
    method
        A name in `scautoimpute.methods.METHODS`.
    options
        Of the method, by name.
    keep_observed
        As in `scautoimpute.methods.impute`: by default as the method was published.

    Returns
    -------
    A function that gives what the user would get as a layer: genes that are not modelled keep their observed values.
    Warnings and progress of the method are not shown again: it runs on permuted and thinned data, of which they would
    speak.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=60, n_genes=50, random_state=0).X
    >>> imputer("gene_mean")(counts, np.random.default_rng(0)).shape
    (60, 50)
    """

    def impute(counts: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from anndata import AnnData
        from scipy import sparse

        from ..methods import impute as run
        from ..progress import no_progress

        adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32))
        with warnings.catch_warnings(), no_progress():
            warnings.simplefilter("ignore")
            run(adata, method=method, options=options, keep_observed=keep_observed, random_state=rng)
        logs = adata.layers["imputed"]
        return np.asarray(logs.toarray() if sparse.issparse(logs) else logs, dtype=np.float64)

    return impute
