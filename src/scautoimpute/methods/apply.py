"""The door that every method is run through."""

import time
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import __version__
from .._application import check_key
from .._seed import generator_of
from ..io.matrix import as_observed, counts_matrix
from ..scales import check_scale
from ._checks import (
    Values,
    check_logs,
    checked_keeping,
    checked_options,
    checked_scale,
    per_cell,
    refuse_few_cells,
)
from ._layer import imputed_layer, layer_bytes, zeros_filled
from ._memory import refuse_too_large
from ._prepare import Prepared, prepare_counts, prepare_logs, scaled_alone
from ._record import Imputed, Method
from .registry import method_named

if TYPE_CHECKING:
    from anndata import AnnData

    from .._genes import Flavor, TopGenes
    from ..scales import Scale

__all__ = ["impute", "impute_matrix"]

_AS_GIVEN = "the logs as given"


def impute(
    adata: "AnnData",
    *,
    method: str,
    layer: str | None = None,
    values: Values = "counts",
    n_top_genes: "TopGenes" = "all",
    flavor: "Flavor | None" = None,
    scale: "Scale | None" = None,
    keep_observed: bool | None = None,
    key_added: str = "imputed",
    options: Mapping[str, Any] | None = None,
    random_state: int | np.random.Generator = 0,
    copy: bool = False,
) -> "AnnData | None":
    """Impute with any method of `METHODS`: to the scale that it works on, through it, and back.

    Parameters
    ----------
    adata
        Cells × genes.
    method
        A name in `scautoimpute.methods.METHODS`, whose record says where it comes from and what its limits are.
    layer
        Where the values are; `X` by default.
    values
        `"counts"`, or `"logs"`: processed logs, which are given to the method as they are.
    n_top_genes, flavor
        Genes to model, of those with at least 3 reads in 3 cells, and by what they are chosen; see
        `scautoimpute.pp.select_genes` (by default all, and by dispersion). Of logs every gene that has an entry is
        modelled.
    scale
        Of the result, as in `scautoimpute.tl.autoimpute`: `"log1p"` (default), `"cp10k"`, `"counts"` or `"log2"`.
        Logs stay on their own.
    keep_observed
        Fill only the zeros (True), or replace observed values too (False); by default as the method was published.
    key_added
        Name of the new layer, and of the record in `uns`.
    options
        Of the method, by name; ``METHODS[method].options`` has the defaults.
    random_state
        Seed or NumPy Generator. Same seed, same machine, same bytes.
    copy
        Return a changed copy instead.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.layers[key_added]``
        Cells × all genes, float32, never negative; sparse if the values are. Genes that were not modelled and cells
        without entries keep their observed values.
    ``adata.uns[key_added]``
        Method, reference, options, scale, genes modelled, pre-processing, how many zeros were filled, what the method
        chose or `learned`, versions, seed and seconds.

    `adata.X` and everything else stay as they are.

    Raises
    ------
    ValueError
        If the matrix is not what `values` says (logged, negative, transposed), the method takes only counts and logs
        are given, there are too few cells, or a name or option is unknown.
    MissingDependencyError
        If the method needs a library that is not installed.
    MemoryError
        If it would need more memory than is free: before any work is done.

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> sai.methods.impute(adata, method="knn", options={"n_neighbors": 5})
    >>> adata.layers["imputed"].shape, adata.uns["imputed"]["scale"]
    ((60, 80), 'log1p')
    """
    record = method_named(method)
    chosen = checked_options(record, options)
    scale_used = checked_scale(values, scale)
    kept = checked_keeping(record, keep_observed)
    check_key(key_added, layer)
    check_logs(record, values, n_top_genes, flavor)
    rng = generator_of(random_state)
    if record.load is not None:
        record.load()
    started = time.perf_counter()
    if copy:
        adata = adata.to_memory(copy=True) if adata.isbacked else adata.copy()
    if values == "logs":
        prepared = prepare_logs(adata, layer=layer)
    else:
        prepared = prepare_counts(
            adata, record.takes, layer=layer, n_top_genes=n_top_genes, flavor=flavor or "dispersion"
        )
    counts = counts_matrix(adata, layer)
    _refuse_size(record, prepared, counts, fewer_genes=" with n_top_genes=" if values == "counts" else "")
    result = _run(record, prepared.x_MG, rng, _of_cells(record, chosen, prepared.cells_M, adata.n_obs))
    made, n_filled = imputed_layer(counts, prepared, result.values, scale=scale_used, keep_observed=kept)
    adata.layers[key_added] = made
    adata.uns[key_added] = {
        **_record_of(record, chosen, random_state),
        "values": values,
        "scale": "as given" if values == "logs" else scale_used,
        "scale_in_words": _AS_GIVEN if values == "logs" else check_scale(scale_used),
        "keep_observed": kept,
        **zeros_filled(adata.n_obs, prepared, n_filled),
        "genes": adata.var_names[prepared.genes_G].to_numpy(dtype=object),
        "recipe": prepared.choices,
        "learned": result.learned,
        "seconds": round(time.perf_counter() - started, 3),
    }
    return adata if copy else None


def impute_matrix(
    x: Any, *, method: str, rng: np.random.Generator, options: Mapping[str, Any] | None = None
) -> NDArray[np.float64]:
    """Impute a processed matrix, log2(normalised counts + 1), as the paper's recovery test does.

    A method that takes counts is given 2^x − 1; any other the log2 values as they are.

    Parameters
    ----------
    x
        Cells × genes: array, DataFrame or sparse matrix; zeros, stored or not, and NaN are missing.
    method
        A name in `scautoimpute.methods.METHODS`.
    rng
        What the method draws from.
    options
        Of the method, by name.

    Returns
    -------
    Dense, cells × genes, log2 scale, never negative: the method's own value for every entry, observed ones included.
    Zeros for a cell without entries, which the method is not shown.

    Raises
    ------
    ValueError
        If `x` is not finite and non-negative, there are too few cells, or a name or option is unknown.
    MissingDependencyError, MemoryError
        As in `impute`.

    Examples
    --------
    >>> visible = np.array([[1.0, 0.0], [3.0, 2.0]])
    >>> impute_matrix(visible, method="gene_mean", rng=np.random.default_rng(0))
    array([[2., 2.],
           [2., 2.]])
    """
    record = method_named(method)
    chosen = checked_options(record, options)
    if record.load is not None:
        record.load()
    observed, _, _ = as_observed(x, dtype=np.float64)
    cells = np.flatnonzero(np.diff(observed.indptr))
    refuse_few_cells(record, cells.size)
    refuse_too_large(record, cells.size, x.shape[1], layer_bytes=lambda n: 8.0 * n * x.shape[1])
    imputed = np.zeros(observed.shape)
    of_cells = _of_cells(record, chosen, cells, observed.shape[0])
    imputed[cells] = np.maximum(_run_on_log2(record, observed[cells], rng, of_cells), 0)
    return imputed


def _run_on_log2(record: Method, x: Any, rng: np.random.Generator, options: dict[str, Any]) -> NDArray[np.float64]:
    if not record.takes_counts:
        return _run(record, x, rng, options).values
    counts = x.copy()
    counts.data = np.exp2(x.data) - 1
    scaled, unit_N = scaled_alone(counts, record.takes)
    values = _run(record, scaled, rng, options).values * unit_N[:, None]
    return np.asarray(np.log2(np.maximum(values, 0) + 1), dtype=np.float64)


def _of_cells(record: Method, options: dict[str, Any], cells: NDArray[np.int64], n_cells: int) -> dict[str, Any]:
    """Options with, of those that have a value per cell, the values of these of the object's cells only."""
    return {
        name: per_cell(name, value, n_cells)[..., cells] if name in record.per_cell and value is not None else value
        for name, value in options.items()
    }


def _run(record: Method, x: Any, rng: np.random.Generator, options: dict[str, Any]) -> Imputed:
    """Call the method and make sure that what it returned can be used."""
    returned = record.impute(x, rng=rng, **options)
    result = returned if isinstance(returned, Imputed) else Imputed(returned, {})
    n_bad = result.values.size - int(np.count_nonzero(np.isfinite(result.values)))
    if n_bad or result.values.shape != x.shape:
        msg = (
            f"method={record.name!r} returned {n_bad} NaN or infinite values for {x.shape[0]} cells × {x.shape[1]} "
            "genes: these data are beyond it; give more cells or fewer genes, or choose another method="
        )
        raise ValueError(msg)
    return result


def _refuse_size(record: Method, prepared: Prepared, counts: Any, *, fewer_genes: str) -> None:
    n_cells, n_modelled = prepared.x_MG.shape
    refuse_few_cells(record, n_cells)
    is_sparse = sparse.issparse(counts[:1])
    of_layer = partial(layer_bytes, n_genes=counts.shape[1], n_modelled=n_modelled, is_sparse=is_sparse)
    refuse_too_large(record, n_cells, n_modelled, layer_bytes=of_layer, fewer_genes=fewer_genes)


def _record_of(record: Method, options: dict[str, Any], random_state: Any) -> dict[str, Any]:
    """What h5ad can store of the method and how it was called."""
    used = {name: _storable(value) for name, value in (record.options | options).items() if value is not None}
    done = {
        "method": record.name,
        "title": record.title,
        "reference": record.reference,
        "limits": record.limits,
        "options": used,
        "package_version": __version__,
        "versions": {name: metadata.version(name) for name in record.distributions},
    }
    return done | ({"random_state": int(random_state)} if isinstance(random_state, Integral) else {})


def _storable(value: Any) -> Any:
    """Single values as they are; anything longer as an array of numbers, or of strings, missing ones as ""."""
    if np.ndim(value) == 0:
        return value
    values = np.asarray(value)
    if values.dtype.kind in "biuf":
        return values
    import pandas as pd

    as_objects = values.astype(object)
    missing = pd.isna(as_objects)
    as_objects[~missing] = [str(one) for one in as_objects[~missing]]
    as_objects[missing] = ""
    return as_objects
