"""Which matrix of an object holds the counts, when nobody said."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .matrix import RAW, named_layers
from .sample import Sample, sample_rows

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["LARGEST_LOG", "USABLE", "FoundCounts", "Kind", "find_counts", "kind_of"]

Kind = Literal[
    "counts", "expected counts", "normalised", "counts with gaps", "logs", "scaled", "not finite", "empty", "several"
]  # fmt: skip
_IN_WORDS: dict[Kind, str] = {
    "counts": "whole numbers",
    "expected counts": "numbers in part whole and too large for logs, as expected counts are",
    "normalised": "numbers hardly ever whole but too large for logs, as TPM, RPM and FPKM are",
    "counts with gaps": "whole numbers with NaN among them",
    "logs": "what looks like logs",
    "scaled": "negative numbers, as after scaling",
    "not finite": "infinite numbers or NaN",
    "empty": "only zeros",
    "several": "several matrices that may be counts",
}
USABLE: tuple[Kind, ...] = ("counts", "expected counts", "normalised")
LARGEST_LOG = 30  # 2^30 and e^30 are above any count, so non-integers that all stay below are taken for logs
_WHOLE_SHARE = 0.2  # of the non-zero values of expected counts; of TPM or FPKM hardly any is whole
_EQUAL_TOTALS = 1e-3  # relative; cells that all have the same total have been divided by theirs
_VALUES_LOOKED_AT = 5_000_000
_UNNAMED = 3  # rank of a layer whose name does not say that it holds counts


@dataclass(frozen=True, slots=True)
class FoundCounts:
    """Where the counts are.

    Attributes
    ----------
    layer
        What to give as `layer`: None for `X`, the name of a layer, or ``"raw"``.
    kind
        What these values are: ``"counts"``, ``"expected counts"``, ``"normalised"``; if nothing can be used, what the
        first matrix, `X`, holds: ``"counts with gaps"``, ``"logs"``, ``"scaled"``, ``"not finite"`` or ``"empty"``; or
        ``"several"`` if it takes a person to tell which of several layers it is.
    reason
        Why, in words; one line.
    is_usable
        Whether these values can be imputed.
    """

    layer: str | None
    kind: Kind
    reason: str
    is_usable: bool


def find_counts(adata: "AnnData") -> FoundCounts:
    """Decide which matrix holds the counts: whole numbers before others, `X` before layers before `raw`.

    Parameters
    ----------
    adata
        An object in memory or on disk; it is not changed. Of a matrix of over 5 million values, sixteen blocks of
        rows are looked at, and the reason says so.

    Returns
    -------
    `X` if it holds whole numbers; else a layer that does (``"counts"`` first, then names with "count", "raw" or
    "umi"), or `raw`; else the one other layer that does. If several others do (``"spliced"`` and ``"unspliced"``), none
    of them is taken. Else the first whose values are no logs and not negative. If there is none, `X`, with `is_usable`
    False.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.array([[0.0, 1.1], [0.7, 0.0]]), layers={"counts": np.array([[0, 2], [1, 0]])})
    >>> find_counts(adata).layer
    'counts'
    >>> find_counts(adata).reason
    'layer counts holds whole numbers (X: what looks like logs)'
    """
    kinds: dict[str | None, Kind] = {}
    seen: dict[str | None, str] = {}
    unnamed: list[str | None] = []  # layers of whole numbers whose names do not say that they are counts
    for layer, matrix in _candidates(adata):
        sample = sample_rows(matrix, n_values=_VALUES_LOOKED_AT)
        kinds[layer] = kind_of(sample.values, flagged=layer is None and "log1p" in adata.uns)
        seen[layer] = "" if sample.is_whole else f", judged by {len(sample.rows):,} of {matrix.shape[0]:,} cells"
        if kinds[layer] != "counts" or not _is_no_mask(layer, sample):
            continue
        if _rank(layer) < _UNNAMED:
            return _found(layer, kinds, seen)
        unnamed.append(layer)
    if unnamed:
        return _found(unnamed[0], kinds, seen) if len(unnamed) == 1 else _several(unnamed)
    for layer, kind in kinds.items():
        if kind in USABLE[1:]:
            return _found(layer, kinds, seen)
    return _nothing(kinds)


def kind_of(values: Any, *, flagged: bool = False) -> Kind:
    """Return what values are by their signs, their size, and whether they are whole.

    Parameters
    ----------
    values
        Sparse matrix, cells × genes; the zeros it does not store do not matter.
    flagged
        Whether the object says that they are logs.
    """
    data = values.data[values.data != 0]
    if not np.isfinite(data).all():
        finite = data[np.isfinite(data)]
        is_count = finite.size and (finite >= 0).all() and (finite == np.rint(finite)).all()
        return "counts with gaps" if is_count and not np.isinf(data).any() else "not finite"
    if data.size == 0:
        return "empty"
    if data.min() < 0:
        return "scaled"
    whole_share = np.count_nonzero(data == np.rint(data)) / data.size
    if whole_share == 1:
        return "counts"
    if flagged or data.max() < LARGEST_LOG:
        return "logs"
    totals = np.asarray(values.sum(axis=1))
    is_share = np.ptp(totals[totals > 0]) <= _EQUAL_TOTALS * totals.max() and len(totals) > 1
    return "expected counts" if whole_share >= _WHOLE_SHARE and not is_share else "normalised"


def _candidates(adata: "AnnData") -> list[tuple[str | None, Any]]:
    """Matrices in the order of preference; of `raw` all genes, for what they are does not depend on the gene."""
    found: list[tuple[str | None, Any]] = [] if adata.X is None else [(None, adata.X)]
    found += named_layers(adata).items()
    if adata.raw is not None and RAW not in adata.layers:
        found.append((RAW, adata.raw.X))
    numbers = [(layer, matrix) for layer, matrix in found if matrix.dtype.kind in "iuf"]  # truth values are no counts
    return sorted(numbers, key=lambda pair: (_rank(pair[0]), pair[0] == RAW, pair[0] or ""))


def _rank(layer: str | None) -> int:
    """Return how much the place says that it holds counts, most first."""
    if layer in {None, "counts"}:
        return 0 if layer is None else 1
    return 2 if any(word in str(layer).lower() for word in ("count", "raw", "umi")) else _UNNAMED


def _is_no_mask(layer: str | None, sample: Sample) -> bool:
    """Whether whole numbers are counts: a layer of zeros and ones may as well mark something, unless it is "counts"."""
    return layer in {None, RAW, "counts"} or bool(sample.values.data.max(initial=0) > 1)


def _found(layer: str | None, kinds: dict[str | None, Kind], seen: dict[str | None, str]) -> FoundCounts:
    reason = f"{_name(layer)} holds {_IN_WORDS[kinds[layer]]}{seen[layer]}"
    passed_over = [name for name in kinds if name != layer]
    if passed_over and layer is not None:
        reason += f" ({'; '.join(f'{_name(name)}: {_IN_WORDS[kinds[name]]}' for name in passed_over)})"
    return FoundCounts(layer, kinds[layer], reason, is_usable=True)


def _several(layers: list[str | None]) -> FoundCounts:
    names = ", ".join(repr(layer) for layer in layers)
    reason = f"the layers {names} all hold whole numbers, and X does not: name the one to take with layer="
    return FoundCounts(None, "several", reason, is_usable=False)


def _nothing(kinds: dict[str | None, Kind]) -> FoundCounts:
    held = "; ".join(f"{_name(name)} holds {_IN_WORDS[kind]}" for name, kind in kinds.items())
    reason = f"no counts were found: {held or 'there is no matrix of numbers'}; put counts in X or in a layer"
    layer, kind = next(iter(kinds.items()), (None, "empty"))
    return FoundCounts(layer, kind, reason, is_usable=False)


def _name(layer: str | None) -> str:
    return "X" if layer is None else RAW if layer == RAW else f"layer {layer}"
