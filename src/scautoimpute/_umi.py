"""Are these counts of molecules? What the counts objective must know before it takes zeros for data."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from ._histogram import CountHistogram
from .io.matrix import matrix_and_names, refuse_shape, to_csr

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["UmiVerdict", "counts_and_genes", "molecules", "refuse_fractions", "refuse_reads", "umi_like", "verdict_on"]

LARGEST_UMI_DECILE = 80.0
SMALLEST_READ_TOTAL = 10_000.0
INSTEAD = "objective='masked' takes processed logs of any kind of data (scautoimpute.pp.recipe_autoimpute makes them)"


class UmiVerdict(NamedTuple):
    """Whether counts look like molecules, the 90th percentile of those above zero, and the median total of a cell.

    It is falsy where they do not.
    """

    is_umi: bool
    upper_decile: float
    median_total: float

    def __bool__(self) -> bool:
        return self.is_umi


def umi_like(counts: "sparse.csr_array | NDArray[Any]") -> UmiVerdict:
    """Tell counts of molecules (UMIs) from counts of reads, by how large the larger of the counts above zero are.

    One molecule is sequenced many times, so that reads come in tens and hundreds where molecules come in ones. Counts
    are taken for molecules if nine in ten of those above zero are at most 80, or half of the cells have at most 10,000
    in all, as panels of few genes do.

    Parameters
    ----------
    counts
        Cells × genes, whole numbers; array or scipy sparse matrix. Give all genes that were measured: the most
        expressed ones of deep data alone may look like reads.

    Returns
    -------
    A verdict that is true or false, with the two numbers that it rests on.

    Notes
    -----
    Measured on published sets (90th percentile and share of ones among the counts above zero, median total per cell).
    The share of ones overlaps (usoskin above Tung), as do totals; the percentile leaves a gap of a factor of 16, in
    the middle of which the limit stands.

    ==========================  =====  =========  ===========
    molecules                    90 %  share of 1  median total
    ==========================  =====  =========  ===========
    saver_baron, down-sampled       3       0.72          534
    saver_manno, down-sampled       3       0.71          475
    jaitin_spleen                   3       0.77          958
    neurons_1M (1,000 genes)        4       0.66          137
    pbmc3k                          5       0.70        2,197
    pbmc68k (765 genes)             5       0.53          653
    pbmc_facs_zheng                 6       0.68        1,509
    zheng_sorted_ref                6       0.65        3,270
    saver_baron                     7       0.42        5,484
    saver_manno                     8       0.35        4,835
    mixology_sc_celseq2_5cl         8       0.43       21,379
    jurkat_293t                     9       0.37       12,440
    mixology_sc_dropseq             9       0.40       22,597
    mixology_sc_celseq2            10       0.38       34,839
    mixology_RNAmix_sortseq        10       0.37       32,658
    mixology_cellmix               10       0.42       11,165
    zeisel                         11       0.26       12,915
    tung_NA19098 (mean ≥ 5)        21       0.17       76,888
    ==========================  =====  =========  ===========

    ==========================  =====  =========  ===========
    reads                        90 %  share of 1  median total
    ==========================  =====  =========  ===========
    quake_darmanis                342       0.13      519,020
    usoskin                       451       0.21       35,712
    blakeley (GEO)              1,778       0.10   11,402,663
    kolodziejczyk               2,154       0.03    2,154,358
    preimplantation_deng        2,597       0.08    9,141,597
    blakeley                    4,182       0.05    5,409,367
    ==========================  =====  =========  ===========

    Examples
    --------
    >>> bool(umi_like(np.array([[0, 1, 3], [1, 0, 12]])))
    True
    >>> umi_like(np.array([[0, 9000, 12000], [150, 0, 8000]])).is_umi
    False
    """
    values: NDArray[Any] = np.asarray(counts.data if sparse.issparse(counts) else counts)
    histogram = CountHistogram()
    histogram.add(values[values > 0])
    return verdict_on(histogram, np.asarray(counts.sum(axis=1)))


def verdict_on(histogram: CountHistogram, total_N: "NDArray[Any]") -> UmiVerdict:
    """Tell counts of molecules from reads by a histogram of those above zero, and the total of each cell."""
    upper, total = histogram.quantile(0.9), float(np.median(total_N))
    return UmiVerdict(upper <= LARGEST_UMI_DECILE or total <= SMALLEST_READ_TOTAL, upper, total)


def counts_and_genes(
    data: Any, *, layer: str | None = None, must_look_like_umi: bool = True
) -> "tuple[sparse.csr_array, pd.Index[str] | None]":
    """Return counts of molecules, cells × genes, as a canonical float32 CSR, and the gene names, or refuse the data.

    Parameters
    ----------
    data
        AnnData, DataFrame, array or scipy sparse matrix; it is not changed.
    layer
        With AnnData, the layer to take instead of `X`.
    must_look_like_umi
        Refuse counts of reads; what a trained model is applied to need not be told apart again.

    Raises
    ------
    ValueError
        If some values are NaN, infinite, negative or no whole numbers, or too large for molecules.
    """
    from ._counts import refuse_values

    matrix, _, genes = matrix_and_names(data, layer=layer)
    refuse_shape(matrix)
    x = to_csr(matrix)
    x.eliminate_zeros()
    refuse_values(x)
    refuse_fractions(x)
    if must_look_like_umi:
        refuse_reads(umi_like(x))
    return molecules(x), genes


def refuse_fractions(x: Any) -> None:
    """Refuse values that are not whole numbers."""
    from ._counts import has_fractions

    if has_fractions(x):
        first = x.data[np.flatnonzero(x.data != np.rint(x.data))[0]]
        msg = (
            f"values are not whole numbers (e.g. {first:.6g}), so they are normalised or logged; objective='counts' "
            f"takes the molecules that were counted: give raw counts (layer=); {INSTEAD}"
        )
        raise ValueError(msg)


def refuse_reads(verdict: UmiVerdict) -> None:
    """Refuse counts that are too large for molecules."""
    if not verdict:
        msg = (
            f"a tenth of the counts above zero exceed {verdict.upper_decile:,.0f} (molecules stay below "
            f"{LARGEST_UMI_DECILE:.0f}), so these are reads, which objective='counts' cannot take: {INSTEAD}"
        )
        raise ValueError(msg)


def molecules(x: Any) -> sparse.csr_array:
    """Return canonical counts as float32, in which they are exact up to 16 million."""
    return x.astype(np.float32)
