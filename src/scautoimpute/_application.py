"""What applying a model has in common, whichever its objective: places of estimates, and what is recorded.

Shape legend: B cells of a block, G genes of the data, P of them modelled.
"""

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from . import __version__
from .errors import NotFittedError
from .scales import check_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._alignment import Alignment
    from ._genes import IntArray
    from .autoimpute import AutoImpute


def spread(values_BP: "NDArray[np.float32]", genes_P: "IntArray", n_genes: int) -> sparse.csr_array:
    """B × G with `values_BP` in the columns `genes_P`; zeros are not stored."""
    packed = sparse.csr_array(values_BP)
    wide = sparse.csr_array((packed.data, genes_P[packed.indices], packed.indptr), shape=(len(values_BP), n_genes))
    wide.sort_indices()
    return wide


def check_key(key_added: str, layer: str | None) -> None:
    """Refuse a name for the result that would overwrite the counts, or that a file cannot hold."""
    if key_added == layer:
        msg = f"key_added={key_added!r} is the layer that holds the counts, which would be lost: give another name"
        raise ValueError(msg)
    if layer == f"{key_added}_sd":
        msg = f"key_added={key_added!r} would overwrite the layer {layer!r}, which holds the counts: give another name"
        raise ValueError(msg)
    if not key_added or "/" in key_added:
        msg = f"key_added={key_added!r} cannot be the name of a layer: give one that is not empty and has no '/'"
        raise ValueError(msg)


def recipe_of(estimator: "AutoImpute") -> dict[str, Any]:
    """Return how to process counts for a trained model."""
    if not estimator.is_fitted:
        msg = "this AutoImpute has not been trained: call fit, or load a trained one with AutoImpute.load"
        raise NotFittedError(msg)
    if estimator.recipe_ is None:
        msg = (
            "the model was trained on processed data, so how to process counts for it is not known: call its impute, "
            "or train one on counts with tl.autoimpute (--model on the command line)"
        )
        raise ValueError(msg)
    return estimator.recipe_


def zeros_filled(observed: sparse.csr_array, imputed_BP: "NDArray[np.float32]") -> tuple[int, int]:
    """How many entries of the modelled genes were zero, and how many of those no longer are."""
    n_zeros = int(np.prod(observed.shape)) - observed.nnz
    return n_zeros, int(np.count_nonzero(imputed_BP)) - int(np.count_nonzero(imputed_BP[observed.nonzero()]))


def record_of(
    estimator: "AutoImpute",
    *,
    scale: str,
    keep_observed: bool,
    zeros: tuple[int, int] | None,
    genes: Any,
    choices: dict[str, Any],
    alignment: "Alignment | None",
    estimand: str | None = None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """How a layer came about, as values that h5ad can store; an `alignment` means that the model was trained before.

    `estimand` is by default the estimator's own; `zeros` is None where there is no layer; `more` is recorded as it is.
    """
    settings = {k: v for k, v in estimator.settings.to_json().items() if v is not None}
    record = {
        "scale": scale,
        "scale_in_words": check_scale(scale),
        "objective": estimator.settings.objective,
        "keep_observed": keep_observed,
        "estimand": estimand or estimator.estimand,
        **({} if zeros is None else {"n_zeros": zeros[0], "n_zeros_filled": zeros[1]}),
        "genes": np.asarray(genes, dtype=object),
        "recipe": choices,
        "trained_before": alignment is not None,
        "package_version": __version__,
        "settings": settings,
        "converged": estimator.converged_,
        "weights": estimator.weights_,
        "history": estimator.history_,
    }
    if alignment is not None:
        record["alignment"] = alignment.record()
    if isinstance(estimator.random_state, Integral):
        record["random_state"] = int(estimator.random_state)
    if estimator.held_out_ is not None:
        record["held_out"] = estimator.held_out_
    if estimator.detection_ is not None:
        record["detection"] = estimator.detection_
    return record | (more or {})
