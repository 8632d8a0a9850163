"""Refusing a result that would not fit in memory, before any work is done."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._output_form import OutputForm

__all__ = ["refuse_too_large_layer"]

_DENSE, _SPARSE = {"float32": 4.0, "float16": 2.0}, 8.0  # bytes of an entry: its value, and with it its column


def refuse_too_large_layer(
    shape: tuple[int, int], n_modelled: int, *, is_sparse: bool, n_layers: int, form: "OutputForm"
) -> None:
    """Raise ``MemoryError`` if the estimates, which are never zero, do not fit in what is free.

    How many are above a threshold is not known before.
    """
    from .methods._memory import available_bytes

    if not form.matrix or form.sparse_below is not None:
        return
    n_cells, n_genes = shape
    needed = n_layers * n_cells * (_SPARSE * n_modelled if is_sparse else _DENSE[form.dtype] * n_genes)
    free = available_bytes()
    if needed <= free:
        return
    fits = int(free / n_layers / n_cells / _SPARSE)
    msg = (
        f"the estimates of {n_cells:,} cells × {n_modelled if is_sparse else n_genes:,} genes take "
        f"{needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free: model at most about {fits:,} genes with "
        "n_top_genes= or genes=, ask for fewer with output_genes=, or for none with matrix=False and compute what is "
        "looked at with imputed_lazy; or let impute_file (--from-model) write them to a file, a block at a time"
    )
    raise MemoryError(msg)
