"""Passes over the cells of a file: on the workers of a Dask cluster where a client of one is active, else in here.

A worker opens the file itself, so that only what was made of a block is sent. Blocks are handed out in their order and
few are on their way at a time, so that what one process writes is what it writes without a cluster, in as flat a
memory. Whatever a lost worker had is done again by another.
"""

import pickle
import sys
import threading
import time
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from ._ahead import made_ahead
from .io.checks import one_line
from .io.matrix import row_blocks
from .io.stream import StoredCells, reopened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Work", "each_block"]

MADE_AHEAD = 2  # blocks for each worker beyond those that its threads are at
SECONDS_WITHOUT_WORKERS = 60.0  # a nanny has a new worker up in a few
SECONDS_BETWEEN_LOOKS = 1.0
MOST_READY = 4  # passes that a worker keeps files open for
MOST_ENDED = 64  # passes that a worker remembers the end of

Made_co = TypeVar("Made_co", covariant=True)
Made = TypeVar("Made")


class Work(Protocol[Made_co]):
    """What is done to a block: it depends on nothing else, and can be pickled."""

    def __call__(self, counts: Any, rows: slice, given: Any, /) -> Made_co:
        """Make something of the counts of some cells, a canonical ``csr_array``, and what is known of these besides."""


def each_block(
    cells: StoredCells,
    layer: str | None,
    size: int,
    work: Work[Made],
    *,
    given: Callable[[slice], Any] = lambda _: None,
    among: slice | None = None,
) -> Iterator[tuple[slice, Made]]:
    """Yield which cells a block is of and what `work` makes of it, block after block in the order of the file.

    Parameters
    ----------
    cells, layer
        Where the counts are.
    size
        Cells of a block.
    work
        What is done to each.
    given
        What is known of some cells besides their counts.
    among
        Which cells; by default all.
    """
    blocks = row_blocks(cells.by_rows(layer), size, among=among)
    client = _active_client() if cells.stays_on_disk(layer) else None
    if client is None:
        for rows, counts in made_ahead((rows, cells.block(layer, rows)) for rows in blocks):
            yield rows, work(counts, rows, given(rows))
        return
    yield from _on_workers(client, _Job.of(cells, layer, work), blocks, given)


# ---------------------------------------------------------------------------------------------------- where it is asked


def _active_client() -> Any:
    """Return the client that is active here, if any; who never imported the library pays nothing for the question."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


class _Job(NamedTuple):
    """What a worker needs to know once for all blocks."""

    path: Path
    n_bytes: int | None
    shape: tuple[int, int]
    names: "pd.Index[str]"
    layer: str | None
    work: Work[Any]
    version: str

    @classmethod
    def of(cls, cells: StoredCells, layer: str | None, work: Work[Any]) -> "_Job":
        path = cells.path.absolute()
        return cls(path, _size(path), cells.shape, cells.var_names, layer, work, _version())


class _Packed(NamedTuple):
    token: str
    job: bytes


class _UnderWay(NamedTuple):
    rows: slice
    worker: str | None
    future: Any


def _on_workers(
    client: Any, job: _Job, blocks: Iterator[slice], given: Callable[[slice], Any]
) -> Iterator[tuple[slice, Any]]:
    token = uuid4().hex
    packed = _sent(client, _Packed(token, pickle.dumps(job)))
    under_way: deque[_UnderWay] = deque()

    def begin(rows: slice, workers: dict[str, int]) -> _UnderWay:
        worker = _least_busy(workers, under_way)
        asked: dict[str, Any] = {"key": f"scautoimpute-{token}-{rows.start}", "pure": False, "workers": worker}
        asked["allow_other_workers"] = worker is not None  # for it may be gone by then
        future = client.submit(_block, packed, rows.start, rows.stop, given(rows), **asked)
        return _UnderWay(rows, worker, future)

    try:
        while True:
            workers = _workers(client)
            room = max(1, sum(workers.values()) + MADE_AHEAD * len(workers)) - len(under_way)
            for rows in islice(blocks, max(0, room)):
                under_way.append(begin(rows, workers))
            if not under_way:
                return
            first = under_way.popleft()
            rows, made = first.rows, _result(client, first)
            del first  # so that the cluster forgets what is here
            yield rows, made
    finally:
        under_way.clear()
        with suppress(Exception):  # workers that are gone have nothing open
            if _workers(client):
                client.run(_close, token, on_error="ignore")


def _sent(client: Any, packed: _Packed) -> Any:
    """Send once what every block needs; as a task rather than as data, which would be lost with whoever held them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(_Packed, *packed, key=f"scautoimpute-{packed.token}", pure=False)


def _workers(client: Any) -> dict[str, int]:
    """Return the number of threads of each worker; none if the scheduler does not answer."""
    try:
        return dict(client.nthreads())
    except Exception:
        return {}


def _least_busy(workers: dict[str, int], under_way: Iterable[_UnderWay]) -> str | None:
    """Return who has fewest blocks to make: left to itself, the cluster gives all to whoever has what they need."""
    busy = Counter(block.worker for block in under_way if not block.future.done())
    return min(workers, key=lambda worker: busy[worker] / workers[worker], default=None)


def _result(client: Any, block: _UnderWay) -> Any:
    """Wait for a block, as long as there is anybody to make it."""
    which = f"cells {block.rows.start + 1} to {block.rows.stop}"
    seen = time.monotonic()
    while True:
        try:
            return _result_soon(block.future)
        except (ValueError, MemoryError):  # of the counts, in the words of the work itself
            raise
        except Exception as error:
            if not isinstance(error, TimeoutError) or block.future.status == "error":
                raise RuntimeError(_not_made(which, error)) from error
        now = time.monotonic()
        seen = now if _workers(client) else seen
        if now - seen >= SECONDS_WITHOUT_WORKERS:
            msg = (
                f"the Dask cluster has had no workers for {now - seen:.0f} seconds, with {which} still to be made: "
                "start workers and run again, or close the client to do without"
            )
            raise RuntimeError(msg)


def _result_soon(future: Any) -> Any:
    """Return a result; TimeoutError if it is not there in a moment, or its worker does not hand it over."""
    from distributed import wait

    if not future.done():
        wait(future, timeout=SECONDS_BETWEEN_LOOKS)
    return future.result(timeout=SECONDS_WITHOUT_WORKERS)


def _not_made(which: str, error: Exception) -> str:
    found = f"the Dask cluster has not made {which} ({one_line(error, limit=160)})"
    return f"{found}: see to its scheduler and workers, which need this version of scautoimpute too, and run again"


def _version() -> str:
    from . import __version__

    return __version__


def _size(path: Path) -> int | None:
    """Bytes of a file; a folder has none of its own."""
    return path.stat().st_size if path.is_file() else None


# ---------------------------------------------------------------------------------------------------------- in a worker


class _Ready:
    """The file, open, and what is to be done to its blocks; it is closed when nobody refers to it."""

    def __init__(self, job: _Job) -> None:
        self.job, self._opened = job, ExitStack()
        _refuse_another_version(job)
        _refuse_another_file(job, job.path.exists() and job.n_bytes == _size(job.path))
        self.cells = self._opened.enter_context(reopened(job.path, job.names))
        _refuse_another_file(job, self.cells.shape == job.shape)


_ready: OrderedDict[str, _Ready] = OrderedDict()
_ended: deque[str] = deque(maxlen=MOST_ENDED)
_opening = threading.Lock()


def _block(packed: _Packed, start: int, stop: int, given: Any) -> Any:
    ready = _made_ready(packed)
    rows = slice(start, stop)
    return ready.job.work(ready.cells.block(ready.job.layer, rows), rows, given)


def _made_ready(packed: _Packed) -> _Ready:
    """Return what is kept from block to block; a block begun before its pass ended, and late, leaves nothing open."""
    with _opening:
        ready = _ready.get(packed.token) or _Ready(pickle.loads(packed.job))
        if packed.token not in _ended:
            _ready[packed.token] = ready
            while len(_ready) > MOST_READY:
                _ready.popitem(last=False)
        return ready


def _close(token: str) -> None:
    with _opening:
        _ended.append(token)
        _ready.pop(token, None)


def _refuse_another_version(job: _Job) -> None:
    from distributed import get_worker

    if job.version != _version():
        found = f"worker {get_worker().address} of the Dask cluster has scautoimpute {_version()}"
        msg = f"{found}, this process {job.version}: install the same everywhere"
        raise ValueError(msg)


def _refuse_another_file(job: _Job, is_same: bool) -> None:
    from distributed import get_worker

    if not is_same:
        found = "another file than this process at" if job.path.exists() else "nothing at"
        msg = (
            f"worker {get_worker().address} of the Dask cluster finds {found} {job.path}: put the file where all "
            "workers see it under the same path, or close the client to do without them"
        )
        raise ValueError(msg)
