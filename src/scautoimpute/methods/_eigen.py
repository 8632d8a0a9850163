"""Eigenvalues and eigenvectors of symmetric matrices, nearly equal eigenvalues too.

Shape legend: N rows, R eigenvalues asked for.
"""

import numpy as np

from ._arrays import FloatArray

__all__ = ["symmetric_eigen"]


def symmetric_eigen(
    matrix_NN: FloatArray, *, above: float | None = None, n_largest: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, rising, and their vectors, N × R.

    LAPACK's fastest driver, SciPy's default, fails on some processors where many eigenvalues are equal, as those of
    cells that are all alike are; the second one, which takes three times as long, never does.

    Parameters
    ----------
    matrix_NN
        Symmetric.
    above
        Only eigenvalues larger than this.
    n_largest
        Only so many, the largest.

    Examples
    --------
    >>> values, vectors = symmetric_eigen(np.ones((3, 3)), n_largest=1)
    >>> values.round(6).tolist(), vectors.shape
    ([3.0], (3, 1))
    """
    from scipy import linalg

    n = len(matrix_NN)
    by_value = None if above is None else (above, np.inf)
    by_index = None if n_largest is None else (n - n_largest, n - 1)
    try:
        values_R, vectors_NR = linalg.eigh(matrix_NN, subset_by_value=by_value, subset_by_index=by_index)
    except linalg.LinAlgError:
        values_R, vectors_NR = linalg.eigh(matrix_NN, driver="evd")
        wanted = np.flatnonzero(values_R > (-np.inf if above is None else above))[-(n_largest or n) :]
        values_R, vectors_NR = values_R[wanted], vectors_NR[:, wanted]
    return values_R, vectors_NR
