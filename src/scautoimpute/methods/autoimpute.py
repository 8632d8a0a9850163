"""AutoImpute itself through the same door as its rivals: this package's recipe, and the published training.

`scautoimpute.tl.autoimpute` does the same with more to set and more to keep (models, embeddings).
"""

from typing import Any

import numpy as np
from scipy import sparse

from .._estimand import Estimand
from ..autoimpute import AutoImpute
from ..io.matrix import CELLS_PER_BLOCK
from ._record import Imputed, Method, Preparation

__all__ = ["METHOD", "PAPER", "impute", "impute_as_published"]

_TALWAR = (
    "Talwar, Mongia, Sengupta & Majumdar, AutoImpute: Autoencoder based imputation of single-cell RNA-seq data, "
    "Sci Rep 8:16329 (2018)"
)


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    estimand: Estimand | None = None,
    hidden: int | tuple[int, ...] | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    l2: float | None = None,
    threshold: float | None = None,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    held_out_share: float | None = None,
    n_folds: int | None = None,
    device: str = "auto",
) -> Imputed:
    """Train and impute as `scautoimpute.AutoImpute` does by default; its options."""
    model = AutoImpute(
        estimand=estimand,
        hidden=hidden,
        optimizer=optimizer,
        learning_rate=learning_rate,
        l2=l2,
        threshold=threshold,
        max_epochs=max_epochs,
        batch_size=batch_size,
        held_out_share=held_out_share,
        n_folds=n_folds,
        device=device,
        random_state=rng,
    )
    return _fit_impute(model, x)


def impute_as_published(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    hidden: int | tuple[int, ...] | None = None,
    learning_rate: float | None = None,
    l2: float | None = None,
    threshold: float | None = None,
    max_epochs: int | None = None,
    held_out_share: float | None = None,
    device: str = "auto",
) -> Imputed:
    """Train and impute as the paper does (``preset="paper"``); options of `scautoimpute.AutoImpute`."""
    model = AutoImpute(
        preset="paper",
        hidden=hidden,
        learning_rate=learning_rate,
        l2=l2,
        threshold=threshold,
        max_epochs=max_epochs,
        held_out_share=held_out_share,
        device=device,
        random_state=rng,
    )
    return _fit_impute(model, x)


def _fit_impute(model: AutoImpute, x: sparse.csr_array) -> Imputed:
    values = model.fit(x).impute(x, keep_observed=False)
    learned: dict[str, Any] = {
        "settings": {name: value for name, value in model.settings.to_json().items() if value is not None},
        "converged": model.converged_,
        "weights": model.weights_,
        "history": model.history_,
    }
    if model.held_out_ is not None:
        learned["held_out"] = model.held_out_
    if model.detection_ is not None:
        learned["detection"] = model.detection_
    return Imputed(values.astype(np.float64), learned)


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """Three folds' dense matrices, a block of cells through the networks, networks of 3 · G · H weights; measured."""
    block = 100.0 * min(n_cells, CELLS_PER_BLOCK) * n_genes
    return 24.0 * n_cells * n_genes + block + 4.0 * 11 * 3 * n_genes * 128 + 1e8


def _peak_bytes_paper(n_cells: int, n_genes: int) -> float:
    """The full batch through 2000 hidden units, and five times 2 · G · H weights."""
    return 4.0 * (8 * n_cells * n_genes + 4 * n_cells * 2000 + 5 * 2 * n_genes * 2000) + 1e8


METHOD = Method(
    name="autoimpute",
    title="AutoImpute",
    impute=impute,
    takes=Preparation("median", "log2p1"),
    keeps_observed=True,
    estimates_observed=True,
    reference=f"{_TALWAR}; this package's recipe.",
    limits=(
        "Estimates expression given that it was detected, so it overestimates genes that are truly off, unless "
        "estimand='expected'."
    ),
    peak_bytes=_peak_bytes,
    distributions=("numpy", "torch"),
)
PAPER = Method(
    name="autoimpute-paper",
    title="AutoImpute as published",
    impute=impute_as_published,
    takes=Preparation("median", "log2p1"),
    keeps_observed=False,
    reference=f"{_TALWAR}; AutoImpute.py at commit b09485d.",
    limits="Takes minutes to hours, and at its published defaults scores worse than the mean of each gene.",
    peak_bytes=_peak_bytes_paper,
    distributions=("numpy", "torch"),
)
