"""The counts objective of AutoImpute through the same door as its rivals.

Shape suffixes: N cells, Z stored values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..autoimpute import AutoImpute
from ._record import COUNTS, Imputed, Method

__all__ = ["METHOD", "impute"]

_ROUNDING = 1e-3  # of a molecule, to which counts that were divided and multiplied back are whole


def impute(
    x: sparse.csr_array,
    *,
    rng: np.random.Generator,
    hidden: int | tuple[int, ...] | None = None,
    learning_rate: float | None = None,
    l2: float | None = None,
    threshold: float | None = None,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    held_out_share: float | None = None,
    n_networks: int | None = None,
    device: str = "auto",
) -> Imputed:
    """Train the counts objective and return the posterior mean of every count, at the cell's own number of molecules.

    Normalised counts are taken back to molecules if each cell's values are multiples of its smallest one.

    Parameters
    ----------
    x
        Counts of molecules, cells × genes.
    rng
        Seeds holding out, the weights and the thinning.
    hidden, learning_rate, l2, threshold, max_epochs, batch_size, held_out_share, n_networks, device
        As in `scautoimpute.AutoImpute`.
    """
    model = AutoImpute(
        "counts",
        hidden=hidden,
        learning_rate=learning_rate,
        l2=l2,
        threshold=threshold,
        max_epochs=max_epochs,
        batch_size=batch_size,
        held_out_share=held_out_share,
        n_networks=n_networks,
        device=device,
        random_state=rng,
    )
    molecules, unit_N = _molecules(x)
    values = model.fit(molecules).impute(molecules)
    learned: dict[str, Any] = {
        "settings": {name: value for name, value in model.settings.to_json().items() if value is not None},
        "converged": model.converged_,
        "weights": model.weights_,
        "held_out": model.held_out_,
        "history": model.history_,
    }
    return Imputed(values.astype(np.float64) * unit_N[:, None], learned)


def _molecules(x: sparse.csr_array) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Whole counts, and what one molecule of each cell was; values that are no multiples of it are left as they are."""
    smallest_N = np.minimum.reduceat(x.data, x.indptr[:-1]) if np.diff(x.indptr).all() else np.ones(x.shape[0])
    one_N = np.ones(x.shape[0])
    for unit_N in (one_N, smallest_N):
        count_Z = x.data / np.repeat(unit_N, np.diff(x.indptr))
        whole_Z = np.rint(count_Z)
        if np.abs(count_Z - whole_Z).max() <= _ROUNDING:
            return sparse.csr_array((whole_Z, x.indices, x.indptr), shape=x.shape), unit_N
    return x, one_N


def _peak_bytes(n_cells: int, n_genes: int) -> float:
    """The result twice, blocks of cells through the experts and the head, five times 2 · G · H weights."""
    return 12.0 * n_cells * n_genes + 40.0 * 512 * n_genes + 4.0 * 5 * 2 * n_genes * 128 + 1e8


METHOD = Method(
    name="autoimpute-counts",
    title="AutoImpute, counts objective",
    impute=impute,
    takes=COUNTS,
    keeps_observed=False,
    reference="This package's recipe: a multinomial autoencoder on thinned counts, an empirical-Bayes step, a mixture "
    "with weights learned on held-out molecules.",
    limits="For counts of molecules (UMIs) only: reads and values that were normalised otherwise are refused.",
    peak_bytes=_peak_bytes,
    distributions=("numpy", "torch"),
)
