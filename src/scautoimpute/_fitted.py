"""What a trained estimator is, besides its tensors: as plain values for a file, and in names for a reader."""

from collections import Counter
from numbers import Integral
from typing import TYPE_CHECKING, Any

from .model.settings import Settings

if TYPE_CHECKING:
    from .autoimpute import AutoImpute
    from .model.counts import CountsModel
    from .model.masked import MaskedModel
    from .model.paper import PaperModel

__all__ = ["description_of", "named_weights", "restore"]

_AS_THEY_ARE = {
    "genes": "genes_",
    "n_genes_in": "n_genes_in_",
    "held_out": "held_out_",
    "converged": "converged_",
    "recipe": "recipe_",
}


def named_weights(model: "MaskedModel | PaperModel | CountsModel") -> dict[str, float]:
    """Weight of each expert (counts) or network (masked) in the mixture; none with `preset="paper"`."""
    from .model.counts import CountsModel, expert_names
    from .model.masked import MaskedModel
    from .model.masked_training import VARIANTS

    if isinstance(model, CountsModel):
        return dict(zip(expert_names(len(model.weights_K)), model.weights_K.tolist(), strict=True))
    if not isinstance(model, MaskedModel):
        return {}
    return {v.name: float(w) for v, w in zip(VARIANTS, model.weights_K, strict=True)}


def description_of(estimator: "AutoImpute") -> dict[str, Any]:
    """Plain values to write beside the tensors.

    Raises
    ------
    ValueError
        If names of genes repeat, by which no genes of other data could be found.
    """
    _refuse_repeated(estimator.genes_)
    seed = estimator.random_state
    return {
        "random_state": int(seed) if isinstance(seed, Integral) else None,
        "settings": estimator.settings.to_json(),
        "history": estimator.history_.to_dict(orient="split", index=False),
        **{name: getattr(estimator, attribute) for name, attribute in _AS_THEY_ARE.items()},
    }


def _refuse_repeated(genes: list[str] | None) -> None:
    if genes is not None and len(set(genes)) < len(genes):
        repeated = next(name for name, n in Counter(genes).items() if n > 1)
        msg = (
            f"gene names repeat (e.g. {repeated!r}), so a saved model could not find its genes in other data: "
            "make them unique (adata.var_names_make_unique()) and train again"
        )
        raise ValueError(msg)


def restore(estimator: "AutoImpute", description: dict[str, Any]) -> None:
    """Inverse of `description_of`, for an estimator whose tensors are in place."""
    import pandas as pd

    estimator.settings = Settings.from_json(description["settings"])
    estimator.random_state = description["random_state"]
    estimator.history_ = pd.DataFrame(description["history"]["data"], columns=description["history"]["columns"])
    for name, attribute in _AS_THEY_ARE.items():
        setattr(estimator, attribute, description[name])
    expected = estimator.settings.objective == "counts" or estimator.detection_ is not None
    estimator.estimand = "expected" if expected else "detected"
