"""What has no effect, or no meaning, with one of the objectives."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._counts_scales import check_counts_scale
from ._estimand import check_estimand
from .io.write import check_compression, suffix_of
from .scales import check_masked_scale

if TYPE_CHECKING:
    from ._output_form import OutputForm

__all__ = ["refuse_for_counts", "refuse_for_masked", "refuse_form_in", "refuse_sd_in_text"]

_OBJECTS = (".h5ad", ".zarr")
_HELD = dict.fromkeys(_OBJECTS, ("sparse_below", "dtype", "matrix")) | dict.fromkeys(
    (".mtx", ".mtx.gz"), ("sparse_below",)
)
_WITH_LAYERS = (".h5ad", ".zarr", ".loom")


def refuse_for_counts(scale: str, depth: Any, keep_observed: bool | None, estimand: str | None) -> None:
    """Refuse what the counts objective does not know; parameters as of `scautoimpute.tl.autoimpute`."""
    check_counts_scale(scale, depth)
    check_estimand(estimand, objective="counts")
    if keep_observed:
        msg = (
            "keep_observed=True has no meaning with objective='counts', where all are estimates and a cell's own count "
            "has its share in them: leave it out, or choose objective='masked'"
        )
        raise ValueError(msg)


def refuse_for_masked(scale: str, depth: Any, of_counts: dict[str, Any]) -> None:
    """Refuse what only the counts objective knows; `of_counts` holds its options by name."""
    check_masked_scale(scale, depth)
    for name, value in of_counts.items():
        if value is not None and value is not False:
            msg = (
                f"{name}= is for objective='counts' and has no effect with 'masked': leave it out, or choose the former"
            )
            raise ValueError(msg)


def refuse_form_in(output: Path, form: "OutputForm", compression: str | None) -> None:
    """Refuse what a format cannot hold of what was asked of the output."""
    suffix = suffix_of(output)
    check_compression(compression, suffix)
    asked: dict[str, bool] = {
        "sparse_below": form.sparse_below is not None,
        "dtype": form.dtype != "float32",
        "matrix": not form.matrix,
    }
    given = [name for name, is_given in asked.items() if is_given and name not in _HELD.get(suffix, ())]
    if given:
        what = {"dtype": "dtype='float16'", "matrix": "matrix=False"}.get(given[0], f"{given[0]}=")
        msg = f"{output.name!r} has no place for {what}: write {' or '.join(_OBJECTS)}, or leave it out"
        raise ValueError(msg)


def refuse_sd_in_text(output: Path, posterior_sd: bool) -> None:
    """Refuse a file that has no place for standard deviations beside the layer."""
    if posterior_sd and not output.name.lower().endswith(_WITH_LAYERS):
        msg = (
            f"{output.name!r} holds one matrix, so there is no place for standard deviations: write "
            f"{', '.join(_WITH_LAYERS[:-1])} or {_WITH_LAYERS[-1]}, or leave them out"
        )
        raise ValueError(msg)
