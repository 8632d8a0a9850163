"""Programs that draw from the global generators: put those back as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def generators_kept(*, torch_too: bool) -> Iterator[None]:
    """Put the global generators of NumPy and Python, and torch's where it is used, back as they were."""
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        if torch_too:
            import torch

            with torch.random.fork_rng():
                yield
        else:
            yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
