"""Training on the cells of a file: a block at a time where the file and the objective allow it, else as a whole."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ._batches import batch_positions, learned_batches
from ._counted import counted_rows
from ._counts_run import batch_labels, train_on
from ._counts_stream import StoredColumns
from ._masked_run import train_masked
from ._objective import Chosen, chosen_objective, objective_for
from ._processed_rows import processed_rows
from ._stored_counts import StoredCounts
from .io import read, refuse_transposed
from .io.stream import StoredCells

if TYPE_CHECKING:
    from anndata import AnnData

    from ._genes import Flavor, TopGenes
    from ._staging import Staging
    from .autoimpute import AutoImpute

__all__ = ["ToTrainOn", "cells_to_train_on", "refuse_budget", "train_cells"]

_HELD_WHOLE = {"paper": "preset='paper'", None: "the masked objective and estimand='expected'"}
Finder = Callable[[Any], tuple[str | None, str]]


class ToTrainOn(NamedTuple):
    """Cells, the layer that holds their counts and why it is that, the objective, and their counts if on disk."""

    cells: "AnnData | StoredCells"
    layer: str | None
    assumed: str
    chosen: Chosen
    counts: StoredCounts | None = None


@contextmanager
def cells_to_train_on(
    source: Path, *, output: Path, transpose: bool, find: Finder, asked: dict[str, Any]
) -> Iterator[ToTrainOn]:
    """Yield the cells of a file and the objective for them; they stay on disk if they are counts that can be streamed.

    Parameters
    ----------
    source, output, transpose
        As in `scautoimpute.impute_file`.
    find
        Tells in which layer the counts are, and why.
    asked
        `objective`, `preset` and `estimand`, as of `scautoimpute.tl.objective_for`.
    """
    from .apply import cells_of

    known = chosen_objective(None, **asked) if any(value is not None for value in asked.values()) else None
    if known is not None and known.objective != "counts" and not _masked_by_blocks(asked):
        yield _whole(read(source, transpose=transpose), find, asked)
        return
    with ExitStack() as opened:
        cells = opened.enter_context(cells_of(source, output=output, transpose=transpose))
        if not isinstance(cells, StoredCells):
            yield _whole(cells, find, asked)
            return
        refuse_transposed(cast("AnnData", cells))
        layer, assumed = find(cells)
        if known is not None and known.objective == "masked":
            yield ToTrainOn(cells, layer, assumed, known)
            return
        counts = StoredCounts(cells, layer)
        chosen = known or counts.choose()
        if chosen.objective == "counts":
            yield ToTrainOn(cells, layer, assumed, chosen, counts)
            return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* repeated .* names were made unique")  # said when it was opened
        adata = read(source, transpose=transpose)
    yield ToTrainOn(adata, layer, assumed, chosen)


def _masked_by_blocks(asked: dict[str, Any]) -> bool:
    """Whether training goes by blocks: the published method takes all cells at once, detection all entries."""
    return asked.get("preset") is None and asked.get("estimand") != "expected"


def _whole(adata: "AnnData", find: Finder, asked: dict[str, Any]) -> ToTrainOn:
    layer, assumed = find(adata)
    return ToTrainOn(adata, layer, assumed, objective_for(adata, layer=layer, **asked))


def train_cells(
    ready: ToTrainOn,
    estimator: "AutoImpute",
    *,
    n_top_genes: "TopGenes",
    flavor: "Flavor",
    genes: Iterable[str] | None,
    batch_key: str | None,
    as_batch: str | None,
    checkpoint: "str | Path | None",
    staging: "Staging",
) -> None:
    """Train on cells that stay on disk; as `scautoimpute.tl.autoimpute` trains, to the same bytes.

    Parameters
    ----------
    ready
        Cells on disk and their counts.
    estimator
        What to train.
    n_top_genes, flavor, genes, batch_key, as_batch, checkpoint
        As in `scautoimpute.tl.autoimpute`.
    staging
        Where the counts are kept meanwhile.
    """
    cells = cast("StoredCells", ready.cells)
    if ready.counts is None:
        n_top = 1000 if n_top_genes is None else n_top_genes
        processed = processed_rows(cells, layer=ready.layer, n_top_genes=n_top, flavor=flavor)
        train_masked(processed, estimator, cells.var_names, checkpoint=checkpoint, staging=staging)
        return
    counts = ready.counts
    batch = batch_labels(StoredColumns(cells.root["obs"]), batch_key)
    batch_positions(batch, as_batch, cells.n_obs, learned_batches(batch, cells.n_obs)[1])  # refused before all is read
    selection: dict[str, Any] = {"n_top_genes": n_top_genes, "flavor": flavor, "genes": genes, "layer": ready.layer}
    counted = counted_rows(counts, counts.facts(), cells.var_names, take=counts.of_genes, **selection)
    train_on(counted, estimator, cells.var_names, batch=batch, checkpoint=checkpoint, staging=staging)


def refuse_budget(ready: ToTrainOn, max_memory: int | str | None, *, preset: str | None = None) -> None:
    """Refuse to promise a bound on memory where the cells were read as a whole."""
    stays_on_disk = isinstance(ready.cells, StoredCells) and ready.cells.stays_on_disk(ready.layer)
    if max_memory is not None and not stays_on_disk:
        of_masked = ready.chosen.objective == "masked" and (preset == "paper" or ready.chosen.estimand == "expected")
        why = f"with {_HELD_WHOLE[preset]}" if of_masked else "from or to a file of this kind"
        msg = (
            f"max_memory={max_memory!r} cannot be kept to {why}, where all cells are in memory at once: leave it out, "
            "or give counts in an .h5ad or .zarr that holds them by cells, or a 10x .h5"
        )
        raise ValueError(msg)
