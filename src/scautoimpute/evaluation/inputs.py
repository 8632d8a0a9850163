"""The data sets of a folder, what each holds, and whether it is the same file as before."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .bulk import PAIRS, columns_of_lines, find_bulk
from .task import DataSet

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["describe", "find_datasets"]


def find_datasets(folder: Path, *, labels: str, bulk: Path | None, names: Sequence[str] | None) -> list[DataSet]:
    """Describe every ``.h5ad`` of `folder`, and of the folders with bulk those single cells that bulk belongs to.

    Parameters
    ----------
    folder
        Of the data sets.
    labels
        Column of `obs` with the cell types.
    bulk
        Folder with bulk RNA-seq and its single cells; by default `folder`, then ``extra`` beside it.
    names
        Take these only.

    Returns
    -------
    The data sets, by size; those that only the bulk brings have ``"zeros"`` alone under ``facts["experiments"]``.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no data set, or one that was asked for is not there, or a file cannot be used.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.h5ad"))} if folder.is_dir() else {}
    if not paths:
        what = "has no .h5ad file" if folder.is_dir() else "is no folder"
        msg = f"{folder} {what}: give a folder with one .h5ad file for each data set"
        raise FileNotFoundError(msg)
    folders = [folder, folder.parent / "extra"] if bulk is None else [bulk]
    beside = {
        pair.dataset: path
        for pair in PAIRS
        for path in (f / f"{pair.dataset}.h5ad" for f in folders)
        if path.is_file() and pair.dataset not in paths and find_bulk(pair.dataset, folders=folders)
    }
    unknown = [name for name in names or [] if name not in paths | beside]
    if unknown:
        msg = f"--datasets has {unknown[0]!r}, found are {', '.join(paths | beside)}: choose among these"
        raise ValueError(msg)
    chosen = {name: path for name, path in (paths | beside).items() if names is None or name in names}
    found = [describe(path, labels=labels, folders=folders, only_zeros=name in beside) for name, path in chosen.items()]
    return sorted(found, key=lambda data: data.cells)


def describe(path: Path, *, labels: str | None, folders: Sequence[Path] = (), only_zeros: bool = False) -> DataSet:
    """Read the file at `path` and say what is in it.

    Parameters
    ----------
    path
        Of the data set.
    labels
        Column of `obs` with the cell types, if any.
    folders
        Where bulk may be.
    only_zeros
        Whether it is there for the comparison with bulk alone.

    Returns
    -------
    What is known of it.

    Raises
    ------
    ValueError
        If there are no counts in it.
    """
    from ..io import find_counts, read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        adata = read(path)
    counts = find_counts(adata)
    if not counts.is_usable:
        msg = f"{path.name}: {counts.reason}"
        raise ValueError(msg)
    column, types, note = _types(adata, labels)
    found = find_bulk(path.stem, folders=folders)
    lines = columns_of_lines(found[0], lines=found[1]) if found else {}
    absent = [label for label, _ in lines.values() if label is not None and label not in types]
    if absent:
        note = "; ".join(filter(None, [note, f"bulk not used: no cell is labelled {absent[0]!r}"]))
        lines = {}
    facts = {
        "file": path.name,
        "bytes": sum(part.stat().st_size for part in _files(path)),
        "sha256": _digest(path),
        "cells": int(adata.n_obs),
        "genes": int(adata.n_vars),
        "counts": counts.reason,
        "labels": column,
        "types": types,
        "bulk": found[0].name if found and lines else None,
        "bulk_sha256": _digest(found[0]) if found and lines else None,
        "experiments": ["zeros"] if only_zeros else None,
        "note": note,
        "caveats": _caveats(adata),
    }
    return DataSet(
        name=path.stem.replace(".", "_"),  # a dot divides the parts of a cell's name
        path=str(path.resolve()),
        layer=counts.layer,
        labels=column,
        cells=int(adata.n_obs),
        genes=int(adata.n_vars),
        is_counts=counts.kind == "counts",
        lines=lines,
        bulk=str(found[0].resolve()) if found and lines else None,
        facts=facts,
    )


def _types(adata: "AnnData", labels: str | None) -> tuple[str | None, dict[str, int], str]:
    """The column if it can be used, the sizes of its types, and else why not."""
    if labels is None:
        return None, {}, "no labels were given"
    if labels not in adata.obs:
        return None, {}, f"no column {labels!r} in obs: left out of the experiments that need labels"
    sizes = {str(name): int(n) for name, n in adata.obs[labels].value_counts().items() if n}
    if not 2 <= len(sizes) < sum(sizes.values()):
        n_types = f"{len(sizes)} class{'es' * (len(sizes) != 1)} in {sum(sizes.values())} cells"
        return None, sizes, f"obs[{labels!r}] has {n_types}: left out of the experiments that need types"
    n_missing = int(np.count_nonzero(adata.obs[labels].isna()))
    return labels, sizes, f"{n_missing} cells without a label are not scored by type" if n_missing else ""


def _caveats(adata: "AnnData") -> str:
    """What the file says of itself, if it does."""
    try:
        return str(json.loads(adata.uns["source"]).get("caveats", ""))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _files(path: Path) -> list[Path]:
    """Return the file, or those of a folder in order."""
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and digests of a folder's files."""
    if path.is_dir():
        listed = "".join(f"{_digest(part)} {part.relative_to(path).as_posix()}\n" for part in _files(path))
        return hashlib.sha256(listed.encode()).hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def facts_that_count(facts: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for results to belong together."""
    return {name: facts[name] for name in ("sha256", "labels", "bulk_sha256")}
