"""How a run imputed, to be done again on the held-out, permuted and spiked data that it is judged by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..metrics._matrices import dense
from ..metrics._molecules import Impute
from .imputer import imputer, unheard

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas import Index

    from ..autoimpute import AutoImpute

__all__ = ["Way", "on_logs", "trained", "way_of"]


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
    settings
        Of an `AutoImpute` that the run trained.
    model
        The trained model, where the run applied one.
    """

    method: str
    options: Mapping[str, Any]
    keep_observed: bool | None
    estimates: str
    settings: Mapping[str, Any] | None = None
    model: "AutoImpute | None" = None

    def on_counts(self, names: "Index[str]") -> Impute:
        """Return ``impute(counts, rng)`` as `scautoimpute.trust.imputer` does, for genes of these names."""
        if self.model is not None:
            return _applied(lambda _: self.model, names, self.keep_observed)
        if self.settings is not None:
            return trained(self.settings, estimates=self.estimates, keep_observed=self.keep_observed, names=names)
        return imputer(self.method, options=self.options, keep_observed=self.keep_observed)

    def on_logs(self, names: "Index[str]") -> Impute:
        """Return a function of a processed matrix and a Generator, for hidden entries of genes of these names.

        Hidden entries were detected, so that expression *given detection* is asked for, whatever the run estimates.
        """
        if self.model is not None:
            return _applied_to_logs(self.model, names)
        given = {"estimand": "detected"} if "estimand" in self.options else {}
        return on_logs(self.method, options={**self.options, **given})


def trained(
    settings: Mapping[str, Any],
    *,
    estimates: str = "expected",
    keep_observed: bool | None = None,
    names: "Index[str] | None" = None,
) -> Impute:
    """Return ``impute(counts, rng)`` that trains an `AutoImpute` of these settings, as `tl.autoimpute` does.

    Parameters
    ----------
    settings
        Everything that training depends on, as in the record of a run.
    estimates, keep_observed
        As in `Way`.
    names
        Of the genes; not needed.
    """
    from ..autoimpute import AutoImpute
    from ..model.settings import Settings

    def new(rng: np.random.Generator) -> AutoImpute:
        objective = settings["objective"]
        model = AutoImpute(objective, estimand=estimates if objective == "masked" else None, random_state=rng)  # type: ignore[arg-type]
        model.settings = Settings.from_json({"preset": None, "batch_size": None} | dict(settings))
        return model

    return _applied(new, names, keep_observed)


def _applied(
    model_of: "Callable[[np.random.Generator], AutoImpute | None]",
    names: "Index[str] | None",
    keep_observed: bool | None,
) -> Impute:
    def impute(counts: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from anndata import AnnData

        from .. import tl

        adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32))
        if names is not None:
            adata.var_names = names[: adata.n_vars]
        with unheard():
            tl.autoimpute(adata, model=model_of(rng), n_top_genes="all", keep_observed=keep_observed)
        return dense(adata.layers["imputed"])

    return impute


def _applied_to_logs(model: "AutoImpute", names: "Index[str]") -> Impute:
    def impute(log2: Any, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG001 (as above)
        from anndata import AnnData

        adata = AnnData(sparse.csr_matrix(log2, dtype=np.float32))
        adata.var_names = names
        estimand: Any = None if model.settings.objective == "counts" else "detected"
        with unheard():
            values = model.impute(adata, keep_observed=False, estimand=estimand)
        column_G = names.get_indexer(model.genes_ or names)
        made = np.zeros(log2.shape)
        made[:, column_G[column_G >= 0]] = values[:, column_G >= 0]
        return made

    return impute


def on_logs(method: str, *, options: Mapping[str, Any] | None = None) -> Impute:
    """Return a function of a processed matrix and a Generator that imputes it with `method` and `options`."""

    def impute(x: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from ..methods import impute_matrix

        with unheard():
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
    if of_counts:  # as many as the run had, however few cells are looked at
        taken["n_networks"] = settings["n_networks"] = int(record.get("n_networks", 1))
    keep = None if of_counts else bool(record["keep_observed"])
    return Way(method, taken, keep, estimates, settings, model)


def _plain(value: Any) -> Any:
    """As it was given, whatever a file made of it."""
    if isinstance(value, np.ndarray | list):
        return tuple(np.asarray(value).tolist()) if np.ndim(value) else np.asarray(value).item()
    return value.item() if isinstance(value, np.generic) else value
