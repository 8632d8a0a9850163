"""Open a file and leave its matrices on disk where the format allows it."""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .hdf5 import open_hdf5
from .read import format_of, make_names_unique, parsing, read, refuse_no_matrix, unpacked
from .read_anndata import is_described, quietly
from .store import open_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

__all__ = ["holds_raw", "opened", "stored_matrix"]


@contextmanager
def opened(path: Path) -> "Iterator[AnnData]":
    """Yield the object in the file `path`, for as long as the block lasts.

    Of h5ad and zarr, names, `obs` and `var` are read, `X`, the layers and `raw` stay on disk, and of `uns` only the
    keys are there; `obsm` and the like are left out. Every other format, and h5ad of anndata before 0.7, is read in
    full.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As `read` does.
    """
    path = path.expanduser()
    suffix = format_of(path)
    with ExitStack() as open_files:
        with parsing(path):
            group = _group_of(open_files.enter_context(unpacked(path, suffix)), suffix, open_files)
            adata = None if group is None else _on_disk(group)
        if adata is None:
            yield read(path)
            return
        refuse_no_matrix(adata, path)
        make_names_unique(adata)
        yield adata


def _group_of(path: Path, suffix: str, open_files: ExitStack) -> Any:
    """Return the root of a file whose parts anndata can read one by one, else None."""
    if suffix.startswith(".h5ad"):
        group = open_files.enter_context(open_hdf5(path))
    elif suffix in {".zarr", ".zarr.zip"}:
        group = open_files.enter_context(open_zarr(path))
    else:
        return None
    return group if is_described(group) else None


def _on_disk(group: Any) -> "AnnData":
    from anndata import AnnData
    from anndata.io import read_elem

    raw = group["raw"] if holds_raw(group) else None
    with quietly():
        adata = AnnData(
            X=stored_matrix(group["X"]) if "X" in group else None,
            obs=read_elem(group["obs"]),
            var=read_elem(group["var"]),
            layers={name: stored_matrix(group["layers"][name]) for name in group.get("layers", {})},
            uns=dict.fromkeys(group.get("uns", {}), True),
            raw=None if raw is None else {"X": stored_matrix(raw["X"]), "var": read_elem(raw["var"])},
        )
    return cast("AnnData", adata)


def holds_raw(group: Any) -> bool:
    """Return whether the root of a file holds ``adata.raw``; an array stands for None."""
    return "raw" in group and not hasattr(group["raw"], "shape") and "X" in group["raw"]


def stored_matrix(item: Any) -> Any:
    """Return a matrix that stays on disk: an array as it is, a group as anndata's sparse matrix."""
    from anndata.io import sparse_dataset

    return item if hasattr(item, "shape") else sparse_dataset(item)
