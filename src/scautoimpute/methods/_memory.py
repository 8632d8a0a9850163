"""How much memory is free, and refusing what would not fit in it before any work is done."""

from collections.abc import Callable
from pathlib import Path

from ._record import Method

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(cgroup: Path = _CGROUP) -> float:
    """Memory that can be had without swapping: of the machine, or of the container where that is less."""
    import psutil

    return min(float(psutil.virtual_memory().available), _left_in_cgroup(cgroup))


def _left_in_cgroup(cgroup: Path) -> float:
    """What is left of a version 2 control group's limit, its file cache being given back when needed."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if limit == "max" else float(int(limit) - used + int(stat.get("inactive_file", 0)))


def refuse_too_large(
    record: Method, n_cells: int, n_genes: int, *, layer_bytes: Callable[[int], float], fewer_genes: str = ""
) -> None:
    """Raise ``MemoryError`` if the method's peak, or its result with the layer made of it, exceeds what is free.

    `fewer_genes` says how genes can be left out, where the caller has an argument for that.
    """

    def needed(n: int) -> float:
        return max(record.peak_bytes(n, n_genes), 8.0 * n * n_genes + layer_bytes(n))

    free = available_bytes()
    if needed(n_cells) <= free:
        return
    msg = (
        f"method={record.name!r} needs about {_size(needed(n_cells))} for {n_cells:,} cells × {n_genes:,} genes "
        f"and {_size(free)} are free: {_what_fits(needed, n_cells, free)}, or fewer genes{fewer_genes}"
    )
    raise MemoryError(msg)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.2g} MB"


def _what_fits(needed: Callable[[int], float], n_cells: int, free: float) -> str:
    """Bisect the number of cells; two digits of it, since the estimate has no more."""
    fits, too_many = 0, n_cells
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if needed(middle) <= free else (fits, middle)
    unit = 10 ** max(0, len(str(fits)) - 2)
    return f"about {fits // unit * unit:,} cells of so many genes fit; give fewer cells" if fits else "no cell fits"
