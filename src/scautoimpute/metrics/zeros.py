"""What is left of the zeros: of genes that are silent all should be, of expressed ones as few as possible.

Shape suffixes: N cells, G genes.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ZERO_RULE", "counts_as_zero", "zero_fractions"]

HALF_A_MOLECULE = 0.5
ZERO_RULE = (
    "An imputed value counts as zero if it is below half a read of its cell (below 0.5 on the scale of the cell's own "
    "counts), for methods that never return exact zeros are asked about expression, not about rounding; observed "
    "zeros and whole counts stay what they are under this rule."
)


def counts_as_zero(imputed_NG: Any) -> NDArray[np.bool_]:
    """Say of every value whether it rounds to no read.

    Parameters
    ----------
    imputed_NG
        Cells × genes, on the scale of each cell's own counts.

    Returns
    -------
    True where the value is below half a read.

    Examples
    --------
    >>> counts_as_zero([[0.0, 0.4, 1.0]]).tolist()
    [[True, True, False]]
    """
    return np.asarray(np.asarray(imputed_NG) < HALF_A_MOLECULE)


def zero_fractions(is_zero_NG: Any, *, bin_G: ArrayLike, n_bins: int) -> NDArray[np.float64]:
    """Fraction of zeros among the entries of the genes of each bin.

    Parameters
    ----------
    is_zero_NG
        Whether each entry is zero.
    bin_G
        Number of the bin of every gene, from 0.
    n_bins
        How many bins there are.

    Returns
    -------
    One fraction per bin; NaN for a bin without genes.

    Examples
    --------
    >>> zero_fractions([[True, False, True], [True, False, False]], bin_G=[0, 1, 1], n_bins=2).tolist()
    [1.0, 0.25]
    """
    fraction_G = np.asarray(is_zero_NG, dtype=np.float64).mean(axis=0)
    bins = np.asarray(bin_G)
    n_genes = np.bincount(bins, minlength=n_bins)
    total = np.bincount(bins, weights=fraction_G, minlength=n_bins)
    return np.asarray(np.divide(total, n_genes, out=np.full(n_bins, np.nan), where=n_genes > 0))
