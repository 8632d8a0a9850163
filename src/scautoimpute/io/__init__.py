"""Files in, files out, and everything that knows dense from sparse from backed."""

from .checks import looks_transposed, refuse_transposed
from .describe import Description, describe
from .find import FoundCounts, find_counts
from .lazy import opened
from .matrix import as_observed, counts_matrix, is_integer_counts, row_blocks
from .read import read
from .write import check_writable, write

__all__ = [
    "Description",
    "FoundCounts",
    "as_observed",
    "check_writable",
    "counts_matrix",
    "describe",
    "find_counts",
    "is_integer_counts",
    "looks_transposed",
    "opened",
    "read",
    "refuse_transposed",
    "row_blocks",
    "write",
]
