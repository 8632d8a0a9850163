"""Making the next things while one is used: a block is read, or a batch drawn, beside the products of the last."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["made_ahead"]

T = TypeVar("T")


def made_ahead(items: Iterable[T], *, n_ahead: int = 1) -> Iterator[T]:
    """Yield `items` in their order; up to `n_ahead` more are made by one other thread meanwhile.

    An error comes where the item would have. When the iterator is left early, what is being made is waited for.

    Parameters
    ----------
    items
        Iterated over in the other thread.
    n_ahead
        How many are held besides the one in use; with 0, each is made when it is asked for, by no other thread.

    Examples
    --------
    >>> list(made_ahead(n**2 for n in range(4)))
    [0, 1, 4, 9]
    """
    if not n_ahead:
        yield from items
        return
    source, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(n_ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
