"""Every imputation method behind one contract: floors, matrix completion, smoothing, and AutoImpute.

`METHODS` says of each what it takes, where it comes from and what it should not be used for; `impute` runs one on the
counts or logs of an AnnData, `impute_matrix` on a processed matrix, as benchmarks do.
"""

from ._record import Imputed, Method, Preparation
from .apply import impute, impute_matrix
from .registry import METHODS, method_named

__all__ = ["METHODS", "Imputed", "Method", "Preparation", "impute", "impute_matrix", "method_named"]
