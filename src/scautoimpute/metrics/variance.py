"""How much the expression of a gene varies among cells of one type. Shape suffixes: N cells, G genes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["five_numbers", "log_variation", "variation_by_type"]

_FEWEST_CELLS = 3


def log_variation(x_NG: Any) -> NDArray[np.float64]:
    """Natural log of the coefficient of variation of every gene.

    Parameters
    ----------
    x_NG
        Cells × genes, not logged.

    Returns
    -------
    One value for each gene that is expressed and varies; the others have no logarithm.

    Examples
    --------
    >>> log_variation(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]])).round(3).tolist()
    [-0.347]
    """
    x_NG = np.asarray(x_NG, dtype=np.float64)
    mean_G, deviation_G = x_NG.mean(axis=0), x_NG.std(axis=0, ddof=1)
    varies_G = deviation_G > 1e-9 * np.maximum(mean_G, 1e-300)  # below is rounding
    usable_G = (mean_G > 0) & varies_G
    return np.asarray(np.log(deviation_G[usable_G] / mean_G[usable_G]))


def variation_by_type(x_NG: Any, *, types: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """`log_variation` within every type that has at least three cells.

    Parameters
    ----------
    x_NG
        Cells × genes, not logged.
    types
        Of each cell.

    Returns
    -------
    Values of the genes, by type; none for a type in which no gene varies.
    """
    of_cell = np.asarray(types).astype(str)
    names, sizes = np.unique(of_cell, return_counts=True)
    kept = [str(name) for name, size in zip(names, sizes, strict=True) if size >= _FEWEST_CELLS]
    return {name: log_variation(x_NG[of_cell == name]) for name in kept}


def five_numbers(values: ArrayLike) -> list[float]:
    """Least, first quartile, median, third quartile and greatest of some `values`; none of no values.

    Returns
    -------
    Five numbers, or an empty list.

    Examples
    --------
    >>> five_numbers([4, 1, 2, 3, 5])
    [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    given = np.asarray(values, dtype=np.float64)
    return [float(q) for q in np.quantile(given, [0, 0.25, 0.5, 0.75, 1])] if given.size else []
