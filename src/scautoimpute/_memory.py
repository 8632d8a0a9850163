"""Refusing a result that would not fit in memory, before any work is done."""

__all__ = ["refuse_too_large_layer"]

_DENSE, _SPARSE = 4.0, 8.0  # bytes of an entry: a float32, and with it its column


def refuse_too_large_layer(shape: tuple[int, int], n_modelled: int, *, is_sparse: bool, n_layers: int) -> None:
    """Raise ``MemoryError`` if the estimates, which are never zero, do not fit in what is free."""
    from .methods._memory import available_bytes

    n_cells, n_genes = shape
    needed = n_layers * n_cells * (_SPARSE * n_modelled if is_sparse else _DENSE * n_genes)
    free = available_bytes()
    if needed <= free:
        return
    fits = int(free / n_layers / n_cells / _SPARSE)
    msg = (
        f"the estimates of {n_cells:,} cells × {n_modelled if is_sparse else n_genes:,} genes take "
        f"{needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free: model at most about {fits:,} genes with "
        "n_top_genes= or genes=, or train on some of the cells and let impute_file (--from-model) write the rest "
        "to a file, a block of cells at a time"
    )
    raise MemoryError(msg)
