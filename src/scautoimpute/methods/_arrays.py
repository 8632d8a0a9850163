"""What arrays are called in signatures, and what a base of the matrix factorisations is."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
IndexArray = NDArray[np.intp]
Base = Callable[[sparse.csr_array], FloatArray]  # from the observed entries to an estimate of all
