"""MAGIC, by its authors' own program, an optional dependency under the GPL that is imported only when asked for."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..errors import MissingDependencyError
from ._checks import whole_number
from ._record import Method, Preparation

__all__ = ["METHOD", "impute", "load", "smooth"]

Dense = NDArray[np.float64]

_REACH = 3  # knn_max of the program is 3 · knn


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    knn: int = 5,
    t: int | Literal["auto"] = 3,
    n_pca: int | None = 100,
) -> Dense:
    """Diffuse over the graph of cells; options as in ``magic.MAGIC``, with its defaults."""
    return smooth(x, seed=int(rng.integers(2**31)), knn=knn, t=t, n_pca=n_pca)


def smooth(
    x: sparse.csr_array, *, seed: int, knn: int = 5, t: int | Literal["auto"] = 3, n_pca: int | None = 100
) -> Dense:
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
    with _global_generator_at(seed):
        return np.asarray(operator.fit_transform(x.toarray()), dtype=np.float64)


@contextmanager
def _global_generator_at(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator and put it back: t="auto" draws genes from it, whatever random_state is."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


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
