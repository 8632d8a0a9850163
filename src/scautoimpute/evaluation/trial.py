"""What an experiment uses while it runs: data as asked for, a meter of time and memory, and a place for scores."""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .task import Task

if TYPE_CHECKING:
    from anndata import AnnData

    from ..scales import Scale

__all__ = ["BY_DEFAULT", "FLAVOR", "N_TOP_GENES", "Trial", "impute_layer"]

BY_DEFAULT = (
    "AutoImpute is run as it is by default: the counts objective for counts of molecules, the masked objective's "
    "expected expression for other data."
)

N_TOP_GENES = 1000  # the paper's recipe
FLAVOR: Literal["cv"] = "cv"


class Trial:
    """One running task.

    Attributes
    ----------
    task
        What is asked.
    seconds, peak_gb
        Of all that was `measured`: the sum, and the most.
    """

    def __init__(self, task: Task, send: Callable[[list[dict[str, Any]]], None]) -> None:
        self.task, self.seconds, self.peak_gb = task, 0.0, 0.0
        self._send = send

    def read(self) -> "AnnData":
        """Return the data set of the task."""
        from ..io import read

        return read(self.task.data.path)

    def score(self, setting: str, measures: dict[str, float]) -> None:
        """Hand in the scores of a setting; what has no value is left out. They are kept even if the task is stopped."""
        finite = {name: float(value) for name, value in measures.items() if math.isfinite(value)}
        self._send([{"setting": setting, "measure": name, "value": value} for name, value in finite.items()])

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the time and memory of what is done inside; one thread's processor time, which others do not change."""
        _forget_peak()
        held, started = _held_gb(), time.process_time()
        yield
        self.seconds += time.process_time() - started
        self.peak_gb = max(self.peak_gb, _peak_gb() - held)


def impute_layer(
    trial: Trial, adata: "AnnData", *, layer: str | None, scale: "Scale", n_top_genes: Any = N_TOP_GENES
) -> Any:
    """Impute counts with the method of the task; AutoImpute as it is by default for such counts.

    Parameters
    ----------
    trial
        Whose method, seed and meter are used.
    adata, layer
        Where the counts are; a layer and a record are added to the object.
    scale
        Of the result.
    n_top_genes
        As in `scautoimpute.methods.impute`.

    Returns
    -------
    The modelled genes, cells × genes, dense, and their names.
    """
    import numpy as np
    from scipy import sparse

    from ..methods import impute

    task = trial.task
    with trial.measured():
        impute(
            adata,
            **_for_these(task.method, adata, layer),
            layer=layer,
            n_top_genes=n_top_genes,
            flavor=FLAVOR,
            scale=scale,
            key_added="_imputed",
            random_state=np.random.default_rng([task.seed, 2]),
        )
    names = adata.uns["_imputed"]["genes"]
    imputed: Any = adata.layers["_imputed"]
    of_genes = imputed[:, adata.var_names.get_indexer(names)]
    return np.asarray(of_genes.toarray() if sparse.issparse(of_genes) else of_genes, dtype=np.float64), names


def _for_these(method: str, adata: "AnnData", layer: str | None) -> dict[str, Any]:
    """Return the method and its options: AutoImpute takes molecules for counts, of anything else what is expected."""
    from .._counts import has_fractions
    from .._umi import umi_like
    from ..io import counts_matrix
    from ..io.matrix import to_csr

    if method != "autoimpute":
        return {"method": method}
    counts = to_csr(counts_matrix(adata, layer))
    if not has_fractions(counts) and umi_like(counts):
        return {"method": "autoimpute-counts"}
    return {"method": method, "options": {"estimand": "expected"}, "keep_observed": False}


def _forget_peak() -> None:
    """Let the peak begin anew at what the process holds now, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5", encoding="ascii")
        except OSError:  # some containers forbid it: the peak is then that of the whole process
            return


def _held_gb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def _peak_gb() -> float:
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii")) if status.exists() else None
    return int(found[1]) * 1024 / 1e9 if found else _held_gb()
