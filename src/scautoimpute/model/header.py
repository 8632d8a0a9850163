"""What the JSON beside a model's tensors may hold: every field is checked before anything is built from it."""

import math
from collections.abc import Callable
from typing import Any

__all__ = ["DESCRIPTION", "check_header"]

# What a model is saved with, beside its tensors
DESCRIPTION = ("settings", "genes", "n_genes_in", "held_out", "converged", "history", "recipe", "random_state")
# What is scored with each objective, and by what
_SCORED = {"rmse": {"model", "gene_mean", "gene_cell_bias"}, "deviance": {"model", "gene_mean", "no_imputation"}}


def check_header(header: Any) -> None:
    """Raise a ``ValueError`` that names the first field which is missing or of another type than it should be.

    Fields that are not known are ignored: a later version may add some without a new format.
    """
    if not isinstance(header, dict):
        msg = "the description is no JSON object"
        raise ValueError(msg)
    for name, (holds, expected) in _FIELDS.items():
        if name not in header or not holds(header[name]):
            msg = (
                f"the field {name!r} of the description is {'not ' if name in header else 'missing; it is '}{expected}"
            )
            raise ValueError(msg)
    _check_genes(header)


def _check_genes(header: dict[str, Any]) -> None:
    recipe = header["recipe"] or {"genes": header["genes"], "kept_genes": header["genes"]}
    lists = [genes for genes in (header["genes"], recipe["genes"]) if genes is not None]
    if any(len(genes) != header["n_genes_in"] for genes in lists) or not set(recipe["genes"] or []) <= set(
        recipe["kept_genes"] or []
    ):
        msg = "the lists of genes in the description do not fit together"
        raise ValueError(msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_names(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values) and len(set(values)) == len(values)


def _are_shares(values: Any) -> bool:
    return isinstance(values, list) and all(_is_number(v) and v >= 0 for v in values) and abs(sum(values) - 1) < 1e-6


def _are_scores(values: Any) -> bool:
    if not isinstance(values, dict) or not _is_whole(values.get("n")):
        return False
    tables = {name: scores for name, scores in values.items() if name != "n"}
    return any(
        tables.keys() >= scored
        and all(
            isinstance(scores, dict)
            and _is_number(scores.get(by))
            and all(isinstance(v, float) for v in scores.values())
            for scores in tables.values()
        )
        for by, scored in _SCORED.items()
    )


def _is_table(values: Any) -> bool:
    if (
        not isinstance(values, dict)
        or not _are_names(values.get("columns"))
        or not isinstance(values.get("data"), list)
    ):
        return False
    width = len(values["columns"])
    return all(
        isinstance(row, list) and len(row) == width and all(isinstance(v, str | int | float | None) for v in row)
        for row in values["data"]
    )


def _is_recipe(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and _are_names(values.get("genes"))
        and _are_names(values.get("kept_genes"))
        and _are_shares(values.get("kept_share"))
        and len(values["kept_share"]) == len(values["kept_genes"])
        and _is_number(values.get("median_total"))
        and values["median_total"] > 0
        and isinstance(values.get("choices"), dict)
        and all(isinstance(choice, str | int | float) for choice in values["choices"].values())
    )


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "package_version": (lambda value: isinstance(value, str), "a text"),
    "settings": (lambda value: isinstance(value, dict), "an object of settings"),
    "model": (lambda value: isinstance(value, dict), "an object of numbers"),
    "genes": (_or_null(_are_names), "a list of different names, or null"),
    "n_genes_in": (lambda value: _is_whole(value, 1), "a number of genes"),
    "held_out": (_or_null(_are_scores), "an object of scores, or null"),
    "converged": (lambda value: isinstance(value, bool), "true or false"),
    "history": (_is_table, "a table of columns and rows"),
    "recipe": (_or_null(_is_recipe), "a recipe of pre-processing, or null"),
    "random_state": (_or_null(_is_whole), "a seed, or null"),
}
