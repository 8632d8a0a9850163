"""Where randomness comes from."""

from numbers import Integral
from typing import Any

import numpy as np


def generator_of(random_state: Any) -> np.random.Generator:
    """Return the Generator that a seed or a Generator stands for; anything else is refused."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, Integral) and int(random_state) >= 0:
        return np.random.default_rng(int(random_state))
    msg = f"random_state={random_state!r}: give an integer of at least 0, or a numpy Generator"
    raise ValueError(msg)
