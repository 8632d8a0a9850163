"""Which objective suits some data, and why: counts of molecules get `"counts"`, everything else `"masked"`."""

from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from ._counts import checked_counts, has_fractions
from ._estimand import Estimand, check_estimand
from ._umi import LARGEST_UMI_DECILE, SMALLEST_READ_TOTAL, UmiVerdict, umi_like
from .io.checks import refuse_transposed
from .model.settings import Objective, Settings

if TYPE_CHECKING:
    from anndata import AnnData

    from .autoimpute import AutoImpute

__all__ = [
    "OF_FRACTIONS",
    "Chosen",
    "check_model",
    "chosen_objective",
    "objective_by",
    "objective_for",
    "objective_of",
    "objective_of_model",
]


class Chosen(NamedTuple):
    """An objective, why it is that, and what it is to estimate, None for what it estimates by default."""

    objective: Objective
    reason: str
    estimand: Estimand | None = None


OF_FRACTIONS = Chosen("masked", "values are not whole numbers, so no counts of molecules", "expected")


def chosen_objective(
    counts: Any, *, objective: str | None = None, preset: str | None = None, estimand: str | None = None
) -> Chosen:
    """Choose the objective: as asked, or as another choice implies, or by the data.

    Parameters
    ----------
    counts
        Cells × genes, all that were measured; array or scipy sparse matrix.
    objective, preset, estimand
        What the user asked for; see `AutoImpute`.

    Raises
    ------
    ValueError
        If there is no such objective.

    Examples
    --------
    >>> import numpy as np
    >>> chosen_objective(np.array([[0, 1, 3], [1, 0, 2]])).objective
    'counts'
    >>> chosen_objective(np.array([[0, 1.5], [2.0, 0]]))
    Chosen(objective='masked', reason='values are not whole numbers, so no counts of molecules', estimand='expected')
    """
    if objective is not None:
        if objective not in get_args(Objective):
            msg = f"objective={objective!r} is not known: choose {' or '.join(map(repr, get_args(Objective)))}"
            raise ValueError(msg)
        return Chosen(cast("Objective", objective), "as asked", cast("Estimand | None", estimand))
    for name, value in (("preset", preset), ("estimand", estimand)):
        if value is not None:
            return Chosen(
                "masked", f"{name}={value!r} is a choice of this objective", cast("Estimand | None", estimand)
            )
    return objective_of(counts)


def objective_for(
    adata: "AnnData",
    *,
    layer: str | None = None,
    objective: str | None = None,
    preset: str | None = None,
    estimand: str | None = None,
) -> Chosen:
    """Return the objective that `scautoimpute.tl.autoimpute` would take, and why.

    Parameters
    ----------
    adata, layer, objective, preset, estimand
        As in `scautoimpute.tl.autoimpute`.

    Raises
    ------
    ValueError
        If values are negative, NaN, infinite, all zero or transposed, or there is no such objective.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> sai.tl.objective_for(sai.datasets.pbmc68k_reduced()).reason
    'counts of molecules: nine in ten of those above zero are at most 5'
    """
    asked = {"objective": objective, "preset": preset, "estimand": estimand}
    if any(value is not None for value in asked.values()):
        return chosen_objective(None, **asked)
    from ._lazy_counts import lazy_counts

    refuse_transposed(adata)
    lazy = lazy_counts(adata, layer)
    return chosen_objective(checked_counts(adata, layer)) if lazy is None else lazy.choose()


def objective_of(counts: Any) -> Chosen:
    """Choose by the data alone; without molecules, what is expected is estimated, zeros counted, as of molecules."""
    from scipy import sparse

    if has_fractions(counts if sparse.issparse(counts) else sparse.csr_array(counts)):
        return OF_FRACTIONS
    return objective_by(umi_like(counts))


def objective_by(verdict: UmiVerdict) -> Chosen:
    """Choose by what was found of whole numbers."""
    if not verdict:
        reads = f"counts of reads: a tenth of those above zero exceed {verdict.upper_decile:,.0f}"
        return Chosen("masked", reads, "expected")
    if verdict.upper_decile <= LARGEST_UMI_DECILE:
        return Chosen(
            "counts", f"counts of molecules: nine in ten of those above zero are at most {verdict.upper_decile:,.0f}"
        )
    few = f"half of the cells have at most {min(verdict.median_total, SMALLEST_READ_TOTAL):,.0f} in all"
    return Chosen("counts", f"counts of molecules: {few}")


def objective_of_model(settings: Settings, *, is_fitted: bool) -> Chosen:
    """Return the objective of a model that was given, trained or not."""
    return Chosen(settings.objective, "as the model was trained" if is_fitted else "as the model was made")


def check_model(
    model: "AutoImpute | None",
    objective: str | None,
    preset: str | None = None,
    estimand: str | None = None,
    *,
    checkpoint: Any = None,
) -> None:
    """Refuse what was asked for beside a model that is something else; without a model, what does not go together."""
    if model is None:
        check_estimand(estimand, preset=preset, objective=objective)
        return
    given = {"preset": preset, "objective": objective if objective != model.settings.objective else None}
    for name, value in given.items():
        if value is not None:
            its_own = f"AutoImpute({name}={value!r})"
            msg = f"both model= and {name}={value!r} were given: set the {name} of the model, {its_own}"
            raise ValueError(msg)
    if model.is_fitted and checkpoint is not None:
        msg = f"checkpoint={str(checkpoint)!r} has no effect with a trained model: leave it out"
        raise ValueError(msg)
    check_estimand(estimand, preset=model.settings.preset, objective=model.settings.objective)
    if estimand == "expected" and model.estimand != "expected":
        msg = (
            "estimand='expected' asks for what this model does not learn: make it with AutoImpute(estimand='expected')"
        )
        raise ValueError(msg)
