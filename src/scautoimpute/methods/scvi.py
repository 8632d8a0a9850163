"""scVI, by its authors' own program, which is an optional dependency: a variational autoencoder for counts."""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import MissingDependencyError
from ..io.matrix import row_blocks
from ._arrays import FloatArray
from ._checks import whole_number
from ._generators import generators_kept
from ._record import COUNTS, Method

__all__ = ["METHOD", "impute", "load"]


_CELLS_PER_BLOCK = 512  # times `n_samples` dense rows are held at once


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    n_latent: int = 10,
    max_epochs: int | None = None,
    n_samples: int = 25,
    accelerator: str = "auto",
) -> FloatArray:
    """Train scVI on the counts and return its expected share of each gene, times the molecules seen in the cell.

    Parameters
    ----------
    x
        Counts, cells × genes.
    rng
        Seeds the training.
    n_latent, max_epochs, accelerator
        As in ``scvi.model.SCVI`` and its ``train``, with their defaults.
    n_samples
        Draws of each cell's latent variables that the expectation is averaged over.
    """
    from anndata import AnnData

    whole_number("n_latent", n_latent, low=1)
    if max_epochs is not None:
        whole_number("max_epochs", max_epochs, low=1, hint=", or None for the program's own choice")
    whole_number("n_samples", n_samples, low=1)
    library = load()
    with generators_kept(torch_too=True), _quiet(), _settings_kept(library.settings):
        library.settings.seed = int(rng.integers(2**31))
        adata = AnnData(sparse.csr_matrix(x, dtype=np.float32))
        library.model.SCVI.setup_anndata(adata)
        model = library.model.SCVI(adata, n_latent=n_latent)
        model.train(max_epochs=max_epochs, accelerator=accelerator, enable_progress_bar=False)
        share_BG = [
            model.get_normalized_expression(
                indices=np.arange(rows.start, rows.stop),
                n_samples=n_samples,
                library_size=1.0,
                return_numpy=True,
            )
            for rows in row_blocks(x, _CELLS_PER_BLOCK)
        ]
    expected: FloatArray = np.concatenate(share_BG).astype(np.float64) * np.asarray(x.sum(axis=1))[:, None]
    return expected


@contextmanager
def _settings_kept(settings: Any) -> Iterator[None]:
    """Put back what setting the program's seed sets: that, torch's choice of algorithms, and the environment."""
    from torch.backends import cudnn

    before, environment = (settings.seed, cudnn.deterministic, cudnn.benchmark), dict(os.environ)
    try:
        yield
    finally:
        settings.seed, cudnn.deterministic, cudnn.benchmark = before
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lightning from advertising and from advising on the trainer, which scVI made."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def load() -> Any:
    """Import scvi-tools, or say how to install it."""
    try:
        return importlib.import_module("scvi")
    except ImportError as error:
        msg = (
            "method='scvi' needs scvi-tools, which is not installed: "
            'pip install "scautoimpute[scvi]", or choose another method='
        )
        raise MissingDependencyError(msg) from error


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """The shares and the result, dense; a block of draws in three copies; the networks; measured."""
    return 20.0 * n_cells * n_genes + 3 * 4.0 * _CELLS_PER_BLOCK * 25 * n_genes + 20.0 * 128 * n_genes + 1e8


METHOD = Method(
    name="scvi",
    title="scVI",
    impute=impute,
    takes=COUNTS,
    keeps_observed=False,
    reference="Lopez, Regier, Cole, Jordan & Yosef, Deep generative modeling for single-cell transcriptomics, "
    "Nat Methods 15:1053 (2018); scvi-tools at its defaults.",
    limits="For counts of molecules; needs some thousand cells to be more than its prior, and replaces every value.",
    peak_bytes=_peak_bytes,
    min_cells=20,
    extra="scvi",
    load=load,
    distributions=("numpy", "torch", "scvi-tools"),
)
