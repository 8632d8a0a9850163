"""How a run imputed, to be done again on the held-out, permuted and spiked data that it is judged by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .imputer import imputer

__all__ = ["Way", "way_of"]


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
    """

    method: str
    options: Mapping[str, Any]
    keep_observed: bool | None
    estimates: str

    @property
    def on_counts(self) -> Callable[[Any, np.random.Generator], NDArray[np.float64]]:
        """In the form of `scautoimpute.trust.imputer`."""
        return imputer(self.method, options=self.options, keep_observed=self.keep_observed)

    @property
    def on_logs(self) -> Callable[[Any, np.random.Generator], NDArray[np.float64]]:
        """A function of a processed matrix and a Generator, for hidden entries."""
        return on_logs(self.method, options=self.options)


def on_logs(
    method: str, *, options: Mapping[str, Any] | None = None
) -> Callable[[Any, np.random.Generator], NDArray[np.float64]]:
    """Return a function of a processed matrix and a Generator that imputes it with `method` and `options`."""
    import warnings

    def impute(x: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        from ..methods import impute_matrix

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return impute_matrix(x, method=method, rng=rng, options=options)

    return impute


def way_of(record: Mapping[str, Any]) -> Way:
    """Return the way that a run imputed.

    Parameters
    ----------
    record
        What the run left in ``adata.uns[key_added]``.

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
        return _way_of_training(record)
    if "method" not in record or "options" not in record:
        msg = f"the record holds {', '.join(map(str, record)) or 'nothing'}, and no run of this package: impute first"
        raise ValueError(msg)
    options = {name: _plain(value) for name, value in record["options"].items()}
    detected = record["method"] in {"autoimpute", "autoimpute-paper"}
    return Way(str(record["method"]), options, bool(record["keep_observed"]), "detected" if detected else "expected")


def _way_of_training(record: Mapping[str, Any]) -> Way:
    from ..methods import METHODS

    settings = {name: _plain(value) for name, value in record["settings"].items()}
    of_counts = settings["objective"] == "counts"
    paper = settings.get("preset") == "paper"
    method = "autoimpute-counts" if of_counts else "autoimpute-paper" if paper else "autoimpute"
    estimates = str(record.get("estimand", "expected" if of_counts else "detected"))
    taken = {name: value for name, value in settings.items() if name in METHODS[method].options}
    if "estimand" in METHODS[method].options:
        taken["estimand"] = estimates
    return Way(method, taken, None if of_counts else bool(record["keep_observed"]), estimates)


def _plain(value: Any) -> Any:
    """As it was given, whatever a file made of it."""
    if isinstance(value, np.ndarray | list):
        return tuple(np.asarray(value).tolist()) if np.ndim(value) else np.asarray(value).item()
    return value.item() if isinstance(value, np.generic) else value
