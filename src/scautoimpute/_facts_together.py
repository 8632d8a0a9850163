"""The first pass over the counts of a file by several processes: each reads its own cells, all know what all show."""

from typing import TYPE_CHECKING

from ._counts import has_fractions, refuse_values
from ._counts_facts import CountsFacts
from .io.matrix import CELLS_PER_BLOCK
from .model.processes import Processes, current
from .progress import progress_bar

if TYPE_CHECKING:
    from ._stored_counts import StoredCounts

__all__ = ["facts_together"]


def facts_together(counts: "StoredCounts") -> CountsFacts | None:
    """Return what all cells show, of which each process has read a part; None if it is alone, or if some are fractions.

    Parameters
    ----------
    counts
        Of a file that all processes have open.

    Raises
    ------
    ValueError
        If the values that this process has read are no counts.
    """
    processes = current()
    if processes.size == 1:
        return None
    first, *others = processes.all(_facts_of_part(counts, processes))
    if first is None or None in others:
        return None
    for other in others:
        first.merge(other)  # type: ignore[arg-type]
    return first


def _facts_of_part(counts: "StoredCounts", processes: Processes) -> CountsFacts | None:
    own, facts = processes.part(counts.shape[0]), CountsFacts(counts.shape[1])
    with progress_bar(own.stop - own.start, "looking at the counts", "cell") as bar:
        for start in range(own.start, own.stop, CELLS_PER_BLOCK):
            block = counts.cells.block(counts.layer, slice(start, min(start + CELLS_PER_BLOCK, own.stop)))
            refuse_values(block, first_row=start)
            if has_fractions(block):
                return None
            facts.add(block)
            bar.update(block.shape[0])
    return facts
