"""The methods that the recovery benchmark compares AutoImpute with, each as ``method(visible, seed) -> prediction``.

`visible` is a sparse cells × genes matrix on the log2 scale whose absent entries are missing, and the prediction is
dense, on the same scale, for every entry. The methods are the package's own (`scautoimpute.methods`); here is which
random stream each run draws from, and what else is put under the matrix factorisations.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scautoimpute import AutoImpute, MissingDependencyError
from scautoimpute.methods import als as alternating
from scautoimpute.methods import floors
from scautoimpute.methods import magic as diffusion
from scautoimpute.methods import soft_impute as soft
from scautoimpute.model.base import fit_base

__all__ = ["DEFAULT_METHODS", "METHODS", "Base", "Method", "preload"]

Dense = NDArray[np.float64]
Base = Callable[[sparse.csr_array], Dense]
Method = Callable[[sparse.csr_array, int], Dense]


def gene_mean(visible: sparse.csr_array, seed: int) -> Dense:  # noqa: ARG001
    return floors.gene_mean(visible)


def gene_cell_bias(visible: sparse.csr_array, seed: int) -> Dense:  # noqa: ARG001
    return floors.gene_cell_bias(visible)


def als(visible: sparse.csr_array, seed: int, *, base: Base = floors.gene_cell_bias) -> Dense:
    """Ridge matrix factorisation of the residuals of `base`."""
    return alternating.complete(visible, rng=_stream(seed, 1), base=base).values


def soft_impute(visible: sparse.csr_array, seed: int, *, base: Base = floors.gene_cell_bias) -> Dense:
    """Soft-impute of the residuals of `base`."""
    return soft.complete(visible, rng=_stream(seed, 1), base=base).values


def magic(visible: sparse.csr_array, seed: int) -> Dense:
    """MAGIC at its defaults; it has no notion of missing, so hidden entries are zeros."""
    return diffusion.smooth(visible, seed=seed)


def empirical_bayes_base(visible: sparse.csr_array) -> Dense:
    """AutoImpute's own base, for asking how much of its lead a rival gets from that alone."""
    return fit_base(visible).predict(visible)


def autoimpute(visible: sparse.csr_array, seed: int, **settings: Any) -> Dense:
    """AutoImpute as installed, in its default configuration or with other settings."""
    model = AutoImpute(random_state=_stream(seed, 2), **settings).fit(visible)
    return np.asarray(model.impute(visible, keep_observed=False), dtype=np.float64)


def autoimpute_paper(visible: sparse.csr_array, seed: int) -> Dense:
    """AutoImpute trained exactly as published, to its own stop."""
    return autoimpute(visible, seed, preset="paper")


def preload(method: str) -> None:
    """Import the library that `method` needs, where it is installed, so that no run time includes an import."""
    import torch  # noqa: F401

    if method == "magic":
        with suppress(MissingDependencyError):  # the method itself says what is missing
            diffusion.load()


def _stream(seed: int, number: int) -> np.random.Generator:
    """Return a stream of the method's own: the run's seed already drew which entries are hidden."""
    return np.random.default_rng([seed, number])


METHODS: dict[str, Method] = {
    "gene_mean": gene_mean,
    "gene_cell_bias": gene_cell_bias,
    "als": als,
    "soft_impute": soft_impute,
    "magic": magic,
    "autoimpute": autoimpute,
    # Only when named: minutes to hours a run, or no rival as commonly defined
    "autoimpute_paper": autoimpute_paper,
    "autoimpute_2000": partial(autoimpute, hidden=2000),
    "als_eb": partial(als, base=empirical_bayes_base),
    "soft_impute_eb": partial(soft_impute, base=empirical_bayes_base),
}
DEFAULT_METHODS = tuple(METHODS)[:6]
