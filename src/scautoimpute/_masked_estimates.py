"""What the masked objective says of cells, block by block.

Shape legend: B cells of a block, G genes of the model.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .io.matrix import CELLS_PER_BLOCK, row_blocks
from .progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model.masked import MaskedModel
    from .model.paper import PaperModel

__all__ = ["cell_blocks", "impute_block"]


def cell_blocks(x: Any, description: str) -> Iterator[slice]:
    """Rows of as many cells as are dense in memory at a time, with a progress bar."""
    with progress_bar(x.shape[0], description, "cell") as bar:
        for rows in row_blocks(x, CELLS_PER_BLOCK):
            yield rows
            bar.update(rows.stop - rows.start)


def impute_block(
    model: "MaskedModel | PaperModel", x: sparse.csr_array, *, keep_observed: bool, expected: bool
) -> "NDArray[np.float32]":
    """Estimates on the log2 scale, B × G, never negative, for cells whose observed entries `x` stores.

    Parameters
    ----------
    keep_observed
        Fill only the missing entries.
    expected
        Multiply with the probability of detection, if the model learned it.
    """
    imputed: NDArray[np.float32] = np.maximum(model.predict(x), 0)
    detection = getattr(model, "detection", None)
    if expected and detection is not None:
        imputed *= detection.predict(x)  # E[x] = P(detected) · E[x | detected]
    imputed[np.diff(x.indptr) == 0] = 0  # nothing is known of a cell without observed entries
    if keep_observed:
        imputed[np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.indices] = x.data  # stored zeros among them
    return imputed
