"""A method of the registry in the form that the measures of harm call."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..metrics._matrices import dense
from ..progress import no_progress

__all__ = ["imputer", "unheard"]


@contextmanager
def unheard() -> Iterator[None]:
    """Show no warnings and no progress: a run on permuted and thinned data would speak of these."""
    with warnings.catch_warnings(), no_progress():
        warnings.simplefilter("ignore")
        yield


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
    Warnings and progress of the method are not shown again.

    Examples
    --------
    >>> from scautoimpute import datasets
    >>> counts = datasets.simulate(n_cells=60, n_genes=50, random_state=0).X
    >>> imputer("gene_mean")(counts, np.random.default_rng(0)).shape
    (60, 50)
    """

    def impute(counts: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from anndata import AnnData

        from ..methods import impute as run

        adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32))
        with unheard():
            run(adata, method=method, options=options, keep_observed=keep_observed, random_state=rng)
        return dense(adata.layers["imputed"])

    return impute
