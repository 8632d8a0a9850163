"""What of a result is given: of which genes, with which entries, in which precision, or no matrix at all.

Shape legend: N cells, B cells of a block, G genes of the data, P of them modelled, O genes of the output, S of those
modelled.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
from scipy import sparse

from ._alignment import refuse_repeated, refuse_unknown

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from ._genes import IntArray

__all__ = ["WHOLE", "Collected", "OutputForm", "Rows", "Shown", "ValueType", "set_layers"]

ValueType = Literal["float32", "float16"]
LARGEST_HALF = float(np.finfo(np.float16).max)


class Rows(NamedTuple):
    """Some rows of the result: of the layer, of that of the standard deviations if asked for, and zeros filled."""

    layer: Any
    sd: Any | None
    n_zeros: int
    n_filled: int


class Shown(NamedTuple):
    """Which genes the output has.

    Attributes
    ----------
    genes_O
        Their positions among those of the data; None for all, in their order.
    columns_S
        Those of the model that are among them, as columns of the model.
    places_S
        Where these stand among the genes of the output.
    """

    genes_O: "IntArray | None"
    columns_S: "IntArray"
    places_S: "IntArray"

    def n_genes(self, n_data: int) -> int:
        """How many genes the output has of data of `n_data`."""
        return n_data if self.genes_O is None else self.genes_O.size

    def taken_of(self, counts: Any) -> Any:
        """Return the genes of the output, of counts of all genes of the data."""
        if self.genes_O is None:
            return counts
        some = counts[:, self.genes_O]
        some.sort_indices()
        return some


@dataclass(frozen=True)
class OutputForm:
    """Parameters of `scautoimpute.tl.autoimpute` and `scautoimpute.impute_file` of these names.

    Attributes
    ----------
    output_genes
        Names, in the order of the output; None for all.
    sparse_below
        Values under it are not stored.
    dtype
        Type of the values of the layer.
    matrix
        Whether there is a layer.
    """

    output_genes: tuple[str, ...] | None = None
    sparse_below: float | None = None
    dtype: ValueType = "float32"
    matrix: bool = True

    @classmethod
    def of(
        cls,
        output_genes: Iterable[str] | None,
        *,
        sparse_below: float | None,
        dtype: str,
        matrix: bool,
        posterior_sd: bool,
    ) -> Self:
        """Check what was asked; what cannot be had together is refused."""
        genes = None if output_genes is None else _names(output_genes)
        if dtype not in get_args(ValueType):
            msg = f"dtype={dtype!r} is not known: choose {' or '.join(map(repr, get_args(ValueType)))}"
            raise ValueError(msg)
        if sparse_below is not None and not (np.isfinite(sparse_below) and sparse_below > 0):
            msg = f"sparse_below={sparse_below!r} is no threshold: give a finite number above 0, on the asked scale"
            raise ValueError(msg)
        if sparse_below is not None and dtype == "float16":
            msg = (
                "sparse_below= and dtype='float16' exclude each other, SciPy having no sparse half precision: drop one"
            )
            raise ValueError(msg)
        if not matrix:
            given = {"output_genes": genes is not None, "sparse_below": sparse_below is not None}
            given |= {"dtype": dtype != "float32", "posterior_sd": posterior_sd}
            _refuse_without_matrix([name for name, is_given in given.items() if is_given])
        return cls(genes, sparse_below, dtype, matrix)  # type: ignore[arg-type]

    def shown(self, names: "pd.Index[str]", columns_P: "IntArray", genes_P: "IntArray") -> Shown:
        """Find the genes of the output.

        Parameters
        ----------
        names
            Of the genes of the data.
        columns_P, genes_P
            Which columns of the model the data have, and where they are among the genes of the data.

        Raises
        ------
        ValueError
            If the data lack some, or names of theirs repeat.
        """
        if self.output_genes is None:
            return Shown(None, columns_P, genes_P)
        import pandas as pd

        genes_O = _positions(self.output_genes, names)
        places_P = pd.Index(genes_O).get_indexer(genes_P)
        is_shown_P = places_P >= 0
        return Shown(genes_O, columns_P[is_shown_P], places_P[is_shown_P].astype(np.int64))

    def refuse_absent(self, names: "pd.Index[str]") -> None:
        """Refuse genes that are not among the `names` of the data, before any work is done."""
        if self.output_genes is not None:
            _positions(self.output_genes, names)

    def is_sparse(self, *, by_default: bool) -> bool:
        """Whether the layer is sparse; SciPy has no sparse matrices in half precision."""
        return self.sparse_below is not None or (by_default and self.dtype == "float32")

    def thinned(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return values with zeros in place of what is not stored."""
        return values if self.sparse_below is None else np.where(values < self.sparse_below, np.float32(0), values)

    def cast(self, values: Any) -> Any:
        """Bring rows to the type that was asked for."""
        if self.dtype == "float32":
            return values
        largest = float(values.max(initial=0))
        if largest > LARGEST_HALF:
            msg = (
                f"dtype='float16' holds up to {LARGEST_HALF:,.0f}, found {largest:,.0f}: take a log scale, or 'float32'"
            )
            raise ValueError(msg)
        return values.astype(np.float16)

    def record(self) -> dict[str, Any]:
        """What is recorded of a result that is not the usual one."""
        asked: dict[str, Any] = {"sparse_below": self.sparse_below}
        asked["dtype"] = None if self.dtype == "float32" else self.dtype
        asked["n_output_genes"] = None if self.output_genes is None else len(self.output_genes)
        return {name: value for name, value in asked.items() if value is not None} | (
            {} if self.matrix else {"matrix": False}
        )


WHOLE = OutputForm()


def set_layers(adata: "AnnData", key: str, result: Rows, shown: Shown) -> None:
    """Leave the genes of the output in an object, as ``adata[:, output_genes]`` does in a copy, and add what was made.

    Layers of an earlier run that have no successor are removed.
    """
    if shown.genes_O is not None:
        adata._inplace_subset_var(shown.genes_O)
    for name, layer in ((key, result.layer), (f"{key}_sd", result.sd)):
        if layer is not None:
            adata.layers[name] = layer
    if result.layer is None:
        adata.layers.pop(key, None)


def _names(genes: Iterable[str]) -> tuple[str, ...]:
    if isinstance(genes, str):
        msg = f"output_genes={genes!r} is one text: give a list of names"
        raise TypeError(msg)
    names = tuple(str(gene) for gene in genes)
    if not names:
        msg = "output_genes= names no gene: give at least one, or matrix=False for no matrix at all"
        raise ValueError(msg)
    if len(set(names)) < len(names):
        repeated = next(name for place, name in enumerate(names) if name in names[:place])
        msg = f"output_genes= names {repeated!r} more than once: give each gene once"
        raise ValueError(msg)
    return names


def _positions(wanted: tuple[str, ...], names: "pd.Index[str]") -> "IntArray":
    refuse_repeated(names, parameter="output_genes")
    refuse_unknown(wanted, names, parameter="output_genes")
    found: IntArray = names.get_indexer(list(wanted)).astype(np.int64)
    return found


def _refuse_without_matrix(names: list[str]) -> None:
    if names:
        given = ", ".join(f"{name}=" for name in names)
        msg = f"matrix=False gives no layer, so {given} has no effect: leave out one or the other"
        raise ValueError(msg)


class Collected:
    """Rows of a result, kept in memory; a dense matrix is filled as they come.

    Parameters
    ----------
    shape
        Cells × genes of the output.
    form
        Of the output.
    is_sparse, with_sd
        Whether rows are sparse, and whether they come with standard deviations.
    """

    def __init__(self, shape: tuple[int, int], form: OutputForm, *, is_sparse: bool, with_sd: bool) -> None:
        n_matrices = (1 + with_sd) * form.matrix
        self._wholes = [np.empty(shape, form.dtype) for _ in range(0 if is_sparse else n_matrices)]
        self._parts: list[list[Any]] = [[] for _ in range(n_matrices if is_sparse else 0)]
        self._zeros = np.zeros(2, dtype=np.int64)

    def add(self, rows: slice, new: Rows) -> None:
        """Take the rows of some more cells, in their order."""
        self._zeros += (new.n_zeros, new.n_filled)
        for whole, values in zip(self._wholes, new[:2], strict=False):
            whole[rows] = values
        for part, values in zip(self._parts, new[:2], strict=False):
            part.append(values)

    def finish(self) -> Rows:
        """Return all rows."""
        wholes = self._wholes or [sparse.vstack(part, format="csr") for part in self._parts]
        layer, sd, *_ = [*wholes, None, None]
        return Rows(layer, sd, int(self._zeros[0]), int(self._zeros[1]))
