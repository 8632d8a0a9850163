"""MAGIC, by its authors' own program, an optional dependency under the GPL that is imported only when asked for."""

import importlib
from typing import Any, Literal

import numpy as np
from scipy import sparse

from ..errors import MissingDependencyError
from ._arrays import FloatArray
from ._checks import whole_number
from ._generators import generators_kept
from ._record import Method, Preparation

__all__ = ["METHOD", "impute", "load", "smooth"]


_REACH = 3  # knn_max of the program is 3 · knn


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    knn: int = 5,
    t: int | Literal["auto"] = 3,
    n_pca: int | None = 100,
) -> FloatArray:
    """Diffuse over the graph of cells; options as in ``magic.MAGIC``, with its defaults.

    Parameters
    ----------
    x
        Square roots of counts per 10,000, or logs; cells × genes.
    rng
        Seeds the randomised principal components.
    knn
        Which neighbour's distance is the width of a cell's kernel, which reaches to three times as many.
    t
        Steps of the diffusion; `"auto"` takes those after which a further one changes little.
    n_pca
        Principal components that cells are compared by; None compares all genes.

    Returns
    -------
    Diffused values of every entry, on the scale of `x`.

    Raises
    ------
    ValueError
        If an option is no whole number of at least 1, or there are no more than three times `knn` cells.
    MissingDependencyError
        If magic-impute is not installed.
    """
    return smooth(x, seed=int(rng.integers(2**31)), knn=knn, t=t, n_pca=n_pca)


def smooth(
    x: sparse.csr_array, *, seed: int, knn: int = 5, t: int | Literal["auto"] = 3, n_pca: int | None = 100
) -> FloatArray:
    """Run MAGIC with its own seed for the randomised principal components."""
    whole_number("knn", knn, low=1)
    if not (isinstance(t, str) and t == "auto"):
        whole_number("t", t, low=1, hint=", or 'auto'")
    if n_pca is not None:
        whole_number("n_pca", n_pca, low=1, hint=", or None for no principal components")
    if x.shape[0] <= _REACH * knn:
        msg = (
            f"options= has knn={knn}, and MAGIC looks {_REACH} times as far: more than {_REACH * knn} cells are "
            f"needed, found {x.shape[0]}; give a smaller knn, or more cells"
        )
        raise ValueError(msg)
    operator = load().MAGIC(knn=knn, t=t, n_pca=n_pca, random_state=seed, n_jobs=1, verbose=0)
    with generators_kept(torch_too=False):
        np.random.seed(seed)  # noqa: NPY002 - t="auto" draws genes from it, whatever random_state is
        return np.asarray(operator.fit_transform(x.toarray()), dtype=np.float64)


def load() -> Any:
    """Import magic-impute, or say how to install it."""
    try:
        return importlib.import_module("magic")
    except ImportError as error:
        msg = (
            "method='magic' needs magic-impute (GPL-2), which is not installed: "
            'pip install "scautoimpute[compare]", or choose another method='
        )
        raise MissingDependencyError(msg) from error


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """The dense input, a copy of it, and two steps of the diffusion; plus the scores and the graph."""
    return 8.0 * (5 * n_cells * n_genes + 4 * 100 * n_cells)


METHOD = Method(
    name="magic",
    title="MAGIC",
    impute=impute,
    takes=Preparation(1e4, "sqrt"),
    keeps_observed=False,
    reference="van Dijk et al., Recovering gene interactions from single-cell data using data diffusion, Cell 174:716 "
    "(2018); magic-impute 3.0.0.",
    limits="Replaces every value and knows no missing ones, so hidden entries pull towards zero; makes genes look more "
    "correlated than they are; knn has to be given below 16 cells.",
    peak_bytes=_peak_bytes,
    min_cells=_REACH + 1,
    extra="compare",
    load=load,
    distributions=("numpy", "scipy", "magic-impute", "graphtools"),
)
