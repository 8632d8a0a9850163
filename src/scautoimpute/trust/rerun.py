"""How a run imputed, to be done again on the held-out, permuted and spiked data that it is judged by."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..metrics._molecules import Impute
from ..progress import no_progress
from .imputer import imputer

if TYPE_CHECKING:
    from pandas import Index

    from ..autoimpute import AutoImpute

__all__ = ["Way", "on_logs", "way_of"]


@dataclass(frozen=True, slots=True)
class Way:
    """A method with its options.

    Attributes
    ----------
    method
        Its name in `scautoimpute.methods.METHODS`.
    options
        By name.
    keep_observed
        Whether observed values stay; None as the method was published.
    estimates
        `"expected"` expression, zeros counted, or expression given that it was `"detected"`.
    model
        The trained model, where the run applied one.
    """

    method: str
    options: Mapping[str, Any]
    keep_observed: bool | None
    estimates: str
    model: "AutoImpute | None" = None

    def on_counts(self, names: "Index[str]") -> Impute:
        """Return ``impute(counts, rng)`` as `scautoimpute.trust.imputer` does, for genes of these names."""
        if self.model is not None:
            return _applied(self.model, names, self.keep_observed)
        return imputer(self.method, options=self.options, keep_observed=self.keep_observed)

    def on_logs(self, names: "Index[str]") -> Impute:
        """Return a function of a processed matrix and a Generator, for hidden entries of genes of these names."""
        if self.model is not None:
            return _applied_to_logs(self.model, names)
        return on_logs(self.method, options=self.options)


def _applied(model: "AutoImpute", names: "Index[str]", keep_observed: bool | None) -> Impute:
    def impute(counts: Any, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG001 (nothing is drawn)
        from anndata import AnnData

        from .. import tl

        adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32))
        adata.var_names = names
        with warnings.catch_warnings(), no_progress():
            warnings.simplefilter("ignore")  # as in `imputer`
            tl.autoimpute(adata, model=model, keep_observed=keep_observed)
        logs = adata.layers["imputed"]
        return np.asarray(logs.toarray() if sparse.issparse(logs) else logs, dtype=np.float64)

    return impute


def _applied_to_logs(model: "AutoImpute", names: "Index[str]") -> Impute:
    def impute(log2: Any, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG001 (as above)
        from anndata import AnnData

        adata = AnnData(sparse.csr_matrix(log2, dtype=np.float32))
        adata.var_names = names
        with warnings.catch_warnings(), no_progress():
            warnings.simplefilter("ignore")
            values = model.impute(adata, keep_observed=False)
        column_G = names.get_indexer(model.genes_ or names)
        made = np.zeros(log2.shape)
        made[:, column_G[column_G >= 0]] = values[:, column_G >= 0]
        return made

    return impute


def on_logs(method: str, *, options: Mapping[str, Any] | None = None) -> Impute:
    """Return a function of a processed matrix and a Generator that imputes it with `method` and `options`."""

    def impute(x: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from ..methods import impute_matrix

        with warnings.catch_warnings(), no_progress():
            warnings.simplefilter("ignore")
            return impute_matrix(x, method=method, rng=rng, options=options)

    return impute


def way_of(record: Mapping[str, Any], *, model: "AutoImpute | None" = None) -> Way:
    """Return the way that a run imputed.

    Parameters
    ----------
    record
        What the run left in ``adata.uns[key_added]``.
    model
        The trained model that it applied, if it did; else it is trained anew.

    Returns
    -------
    Way

    Raises
    ------
    ValueError
        If the record is none of this package.

    Examples
    --------
    >>> way_of({"method": "knn", "options": {"n_neighbors": 5}, "keep_observed": False}).method
    'knn'
    """
    if "settings" in record:
        return _way_of_training(record, model)
    if "method" not in record or "options" not in record:
        msg = f"the record holds {', '.join(map(str, record)) or 'nothing'}, and no run of this package: impute first"
        raise ValueError(msg)
    options = {name: _plain(value) for name, value in record["options"].items()}
    detected = record["method"] in {"autoimpute", "autoimpute-paper"}
    return Way(str(record["method"]), options, bool(record["keep_observed"]), "detected" if detected else "expected")


def _way_of_training(record: Mapping[str, Any], model: "AutoImpute | None") -> Way:
    from ..methods import METHODS

    settings = {name: _plain(value) for name, value in record["settings"].items()}
    of_counts = settings["objective"] == "counts"
    paper = settings.get("preset") == "paper"
    method = "autoimpute-counts" if of_counts else "autoimpute-paper" if paper else "autoimpute"
    estimates = str(record.get("estimand", "expected" if of_counts else "detected"))
    taken = {name: value for name, value in settings.items() if name in METHODS[method].options}
    if "estimand" in METHODS[method].options:
        taken["estimand"] = estimates
    return Way(method, taken, None if of_counts else bool(record["keep_observed"]), estimates, model)


def _plain(value: Any) -> Any:
    """As it was given, whatever a file made of it."""
    if isinstance(value, np.ndarray | list):
        return tuple(np.asarray(value).tolist()) if np.ndim(value) else np.asarray(value).item()
    return value.item() if isinstance(value, np.generic) else value
