"""What is in a file, what would be assumed about it, and what imputing it would refuse."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import looks_transposed, one_line
from .find import USABLE, FoundCounts, find_counts, kind_of
from .lazy import opened
from .matrix import RAW, counts_matrix, named_layers, raw_positions
from .read import format_of
from .sample import Sample, n_stored, sample_rows, stored_bytes

if TYPE_CHECKING:
    from anndata import AnnData

    from .._objective import Chosen

__all__ = ["Description", "describe", "organism_of"]

_VALUES_LOOKED_AT = 20_000_000
_ENSEMBL = re.compile(r"^ENS([A-Z]{3,4})?G\d{6,}")
_UPPER, _CAPITALISED = re.compile(r"^[A-Z][A-Z0-9.-]+$"), re.compile(r"^[A-Z][a-z]+[a-z0-9.-]*$")
_ORGANISMS = {"": "human", "MUS": "mouse"}


@dataclass(frozen=True, slots=True)
class Description:
    """What `describe` found.

    Attributes
    ----------
    path, format, bytes_on_disk
        The file.
    cells, genes
        Its shape.
    matrices
        Per matrix (``"X"``, names of layers, ``"raw"``): its storage, dtype, shape, share of values that are not zero
        (of those stored, in a sparse matrix), and bytes in memory.
    obs, var, uns, obsm
        Names of what is there.
    assumed
        What `find_counts` says, or of the layer that was asked for.
    organism, orientation
        What the gene names tell, in words.
    library_size_median, genes_passing
        Of the assumed matrix, None if it cannot be imputed: reads of a cell, and genes with at least 3 reads in at
        least 3 cells (the paper's filter).
    looked_at
        Number of cells that these and the refusal are judged by.
    objective, objective_reason
        What `tl.autoimpute` would take by default, and why; None if it would refuse.
    refusal
        The line with which imputing it would fail, or None.
    warnings
        What would be warned about.
    """

    path: str
    format: str
    bytes_on_disk: int
    cells: int
    genes: int
    matrices: dict[str, dict[str, Any]]
    obs: list[str]
    var: list[str]
    uns: list[str]
    obsm: list[str]
    assumed: FoundCounts
    organism: str
    orientation: str
    library_size_median: float | None
    genes_passing: int | None
    looked_at: int
    objective: str | None
    objective_reason: str | None
    refusal: str | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain types."""
        return asdict(self)


def describe(path: str | Path, *, layer: str | None = None) -> Description:
    """Look into a file without loading more of an h5ad or zarr than a sample of 20 million values.

    Parameters
    ----------
    path
        What `read` reads.
    layer
        The matrix that holds the counts; by default the one that `find_counts` finds.

    Returns
    -------
    What is in it, what would be assumed and why, and what would be refused.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        If it cannot be read, as by `read`; or if there is no such layer.
    """
    path = Path(path).expanduser()
    with _recorded() as said, opened(path) as adata:
        found = find_counts(adata) if layer is None else _asked_for(adata, layer)
        sample = sample_rows(_matrix_of(adata, found.layer), n_values=_VALUES_LOOKED_AT)
        transposed = looks_transposed(adata)
        median, passing, chosen, refusal = _as_imputed(adata, sample, found.layer)
        return Description(
            path=str(path),
            format=format_of(path).removeprefix("."),
            bytes_on_disk=_size_of(path),
            cells=adata.n_obs,
            genes=adata.n_vars,
            matrices={name: _facts(matrix) for name, matrix in _matrices(adata).items()},
            obs=list(map(str, adata.obs)),
            var=list(map(str, adata.var)),
            uns=list(map(str, adata.uns)),
            obsm=list(map(str, adata.obsm)),
            assumed=found,
            organism=organism_of(adata.var_names if transposed is None else adata.obs_names),
            orientation="cells × genes" if transposed is None else f"genes × cells: {transposed}",
            library_size_median=median,
            genes_passing=passing,
            looked_at=len(sample.rows),
            objective=chosen and chosen.objective,
            objective_reason=chosen and chosen.reason,
            refusal=refusal,
            warnings=said,
        )


def organism_of(names: Any) -> str:
    """Return the organism that gene names tell, and by what; by Ensembl prefixes, else by the case of symbols.

    Examples
    --------
    >>> organism_of(["Actb", "Gapdh", "Sox2"])
    "mouse (or rat): symbols such as 'Actb' are capitalised"
    """
    names = [str(name) for name in names]
    species = [(match[1] or "", name) for name in names if (match := _ENSEMBL.match(name))]
    if 2 * len(species) > len(names):
        return f"{_ORGANISMS.get(species[0][0], 'other')}: Ensembl ids such as {species[0][1]!r}"
    for pattern, organism, case in (
        (_UPPER, "human", "in capitals"),
        (_CAPITALISED, "mouse (or rat)", "capitalised"),
    ):
        matching = [name for name in names if pattern.match(name)]
        if matching and len(matching) >= 0.6 * len(names):
            return f"{organism}: symbols such as {matching[0]!r} are {case}"
    return "not known by the names of the genes"


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """Give a list to which each warning to users is added, once, as it is when the block ends or the list is used."""
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_, **__: _note(said, message, category)
        yield said


def _note(said: list[str], message: Any, category: type[Warning]) -> None:
    text = " ".join(str(message).split())
    if issubclass(category, UserWarning) and text not in said:
        said.append(text)


def _matrices(adata: "AnnData") -> dict[str, Any]:
    found = {} if adata.X is None else {"X": adata.X}
    found |= named_layers(adata)
    return found if adata.raw is None or RAW in found else found | {RAW: adata.raw.X}


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _facts(matrix: Any) -> dict[str, Any]:
    n_values = int(np.prod(matrix.shape))
    storage = getattr(matrix, "format", "dense")
    n_nonzero = n_stored(matrix) if storage in {"csr", "csc"} else _nonzero_share(matrix) * n_values
    return {
        "storage": storage,
        "dtype": str(matrix.dtype),
        "shape": [int(size) for size in matrix.shape],
        "density": round(n_nonzero / max(1, n_values), 4),
        "bytes": stored_bytes(matrix),
    }


def _nonzero_share(matrix: Any) -> float:
    """Of a dense matrix, in a sample of its rows; what is no number counts as not zero."""
    if matrix.dtype.kind not in "biuf":
        return 1.0
    values = sample_rows(matrix, n_values=_VALUES_LOOKED_AT).values
    return float(values.nnz / max(1, np.prod(values.shape)))


def _matrix_of(adata: "AnnData", layer: str | None) -> Any:
    """The matrix as it is stored; of `raw` all genes, as taking some would load it."""
    if layer == RAW and layer not in adata.layers and adata.raw is not None:
        return adata.raw.X
    return counts_matrix(adata, layer)


def _asked_for(adata: "AnnData", layer: str) -> FoundCounts:
    kind = kind_of(sample_rows(_matrix_of(adata, layer), n_values=_VALUES_LOOKED_AT).values)
    return FoundCounts(layer, kind, f"{layer} was asked for; it holds {kind}", is_usable=kind in USABLE)


def _as_imputed(
    adata: "AnnData", sample: Sample, layer: str | None
) -> "tuple[float | None, int | None, Chosen | None, str | None]":
    """Return the median total of a cell, how many genes pass, the objective and the refusal, by imputing's checks."""
    from anndata import AnnData

    from .._objective import objective_for

    try:
        is_raw = layer == RAW and layer not in adata.layers
        genes = raw_positions(adata) if is_raw else None
        values = sample.values if genes is None else sample.values[:, genes]
        rows = AnnData(values, obs=adata.obs[[]].iloc[sample.rows], var=adata.var[[]])
        rows.uns = {"log1p": True} if layer is None and "log1p" in adata.uns else {}
        chosen = objective_for(rows)
        passing = _genes_passing(rows, chosen.objective)
    except ValueError as error:
        where = "" if sample.is_whole else f"in {len(sample.rows):,} cells looked at: "
        return None, None, None, f"{where}{one_line(error)}"
    return float(np.median(np.asarray(values.sum(axis=1)))), passing, chosen, None


def _genes_passing(rows: "AnnData", objective: str) -> int:
    """How many genes pass the paper's filter; refuses what training with `objective` would."""
    from .._counted import counted_matrix
    from .._recipe import MIN_CELLS, MIN_COUNTS, processed_matrix

    if objective == "masked":
        return int(processed_matrix(rows, n_top_genes="all").kept.size)
    x = counted_matrix(rows).x
    return int(np.count_nonzero(np.bincount(x.indices[x.data >= MIN_COUNTS], minlength=x.shape[1]) >= MIN_CELLS))
