"""Recover expression lost to dropouts in single-cell RNA-seq (AutoImpute, Talwar et al., Sci Rep 8:16329, 2018)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, evaluation, io, methods, metrics, pl, pp, tl, trust
    from .apply import impute_file
    from .autoimpute import AutoImpute
    from .errors import MissingDependencyError, NotFittedError
    from .io.read import read
    from .io.write import write
    from .lazy import imputed_lazy

__version__ = "0.1.0"

__all__ = [
    "AutoImpute",
    "MissingDependencyError",
    "NotFittedError",
    "datasets",
    "evaluation",
    "impute_file",
    "imputed_lazy",
    "io",
    "methods",
    "metrics",
    "pl",
    "pp",
    "read",
    "report",
    "tl",
    "trust",
    "write",
]

# Where each public name lives; resolved on first use so that importing the package stays fast.
_HOMES = {
    "AutoImpute": ".autoimpute",
    "MissingDependencyError": ".errors",
    "NotFittedError": ".errors",
    "impute_file": ".apply",
    "imputed_lazy": ".lazy",
    "read": ".io",
    "write": ".io",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    else:
        value = importlib.import_module(f".{name}", __name__)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
