"""The report of a run, on the command line: refused early if it cannot be made, never at the cost of the output."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._summary import memory_in_words

if TYPE_CHECKING:
    from anndata import AnnData

    from ..autoimpute import AutoImpute
    from ..io.stream import StoredCells

__all__ = ["Reporting"]


@dataclass
class Reporting:
    """What was asked of the report, and the cells that it will look at.

    Attributes
    ----------
    path
        Where to write it; None if none was asked for.
    labels
        Column of `obs` with the type of each cell.
    compare
        Names of methods.
    seed
        Of the sample.
    adata
        The imputed cells or, of those applied in blocks, a sample of them.
    model
        The trained model, if one was applied.
    """

    path: Path | None
    labels: str | None
    compare: list[str]
    seed: int
    adata: "AnnData | None" = None
    model: "AutoImpute | None" = None

    def check(self, *others: Path | None, scale: str, overwrite: bool) -> None:
        """Refuse, before any file is read, a report that cannot be written or that would not be what was asked."""
        from ..io import check_writable
        from ..methods import method_named
        from ..trust.evidence import refuse_scale

        if self.path is None:
            for option, value in (("--labels", self.labels), ("--compare", self.compare)):
                if value:
                    msg = f"{option} is for a report and none was asked for: give --report report.html, or leave it out"
                    raise ValueError(msg)
            return
        for other in filter(None, others):
            if self.path.expanduser().resolve() == other.expanduser().resolve():
                msg = f"--report and another file of this run are the same, {other}: give two names"
                raise ValueError(msg)
        refuse_scale(scale)
        check_writable(self.path, overwrite=overwrite, any_suffix=True)
        for name in self.compare:
            method_named(name)

    def look_at(self, cells: "AnnData | StoredCells", *, model: "AutoImpute | None" = None) -> None:
        """Refuse a model that cannot be reported on, and labels that tell nothing apart, before the work is done."""
        from ..trust.evidence import classes_in, refuse_batches_of

        if self.path is not None:
            classes_in(_with_obs(cells), self.labels)
            if model is not None:
                refuse_batches_of(model)

    def keep(self, adata: "AnnData") -> None:
        """Take note of imputed cells."""
        self.adata = adata

    def draw(self, cells: "AnnData | StoredCells", layer: str | None) -> "AnnData | None":
        """Take a sample of the cells, with the counts in X, before anything is done to them; None without a report."""
        return None if self.path is None else _sample(cells, layer, self.seed)

    def keep_trained(self, cells: "AnnData | StoredCells", *, layer: str | None, **applied: Any) -> None:
        """Take note of cells that a model was trained on, or of a sample of those on disk; see `keep_applied`."""
        from anndata import AnnData

        if isinstance(cells, AnnData):
            self.keep(cells)
            return
        self.keep_applied(self.draw(cells, layer), **applied)
        self.model = None  # which has seen the molecules of these cells: the report trains anew to judge it

    def keep_applied(
        self,
        sample: "AnnData | None",
        *,
        record: dict[str, Any],
        key_added: str,
        model: "AutoImpute",
        **options: Any,
    ) -> None:
        """Impute a sample again, in memory: each cell is imputed on its own, so this is what was written."""
        if sample is None:
            return
        import warnings

        from .. import tl

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were shown of all cells
            tl.autoimpute(sample, model=model, key_added=key_added, **options)
        recipe = record["recipe"] | {"layer": "X", "kept_genes": (model.recipe_ or {}).get("kept_genes")}
        sample.uns[key_added] = record | {"recipe": recipe}
        self.adata, self.model = sample, model

    def write(self, summary: dict[str, Any], *, key: str, source: Path) -> None:
        """Make the report; whatever goes wrong, the output that was written before is named."""
        if self.path is None or self.adata is None:
            return
        from ..report.trust import write_trust_report
        from ..trust import examine

        facts = {
            "input": str(source),
            "command": shlex.join(["scautoimpute", *sys.argv[1:]]),
            "counts": str(summary["counts"]),
            "time, peak memory": f"{summary['seconds']:.1f} s, {memory_in_words(summary)}",
            "output": f"{summary['output']}, layer {key!r}",
        }
        asked: dict[str, Any] = {"labels": self.labels, "compare": self.compare, "model": self.model}
        try:
            evidence = examine(self.adata, key=key, facts=facts, random_state=self.seed, **asked)
            write_trust_report(evidence, self.path)
        except Exception as error:
            msg = f"the report could not be made ({error}); the result is complete in {summary['output']}"
            raise ValueError(msg) from error


def _with_obs(cells: "AnnData | StoredCells") -> "AnnData":
    """Return something with the columns of the cells."""
    from anndata import AnnData

    if isinstance(cells, AnnData):
        return cells
    from anndata.io import read_elem

    return AnnData(obs=read_elem(cells.root["obs"]))


def _sample(cells: "AnnData | StoredCells", layer: str | None, seed: int) -> "AnnData":
    """Return at most so many cells as are looked at, with the counts in X."""
    import numpy as np
    from anndata import AnnData
    from scipy import sparse

    from ..io.matrix import counts_matrix
    from ..trust.evidence import CELLS

    n_cells = min(CELLS, cells.n_obs)
    rows = np.sort(np.random.default_rng(seed).choice(cells.n_obs, size=n_cells, replace=False))
    obs = _with_obs(cells).obs.iloc[rows]
    counts = counts_matrix(cells, layer) if isinstance(cells, AnnData) else cells.by_rows(layer)
    blocks = [sparse.csr_matrix(counts[row : row + 1], dtype=np.float32) for row in rows.tolist()]
    sample = AnnData(sparse.vstack(blocks, format="csr"), obs=obs.copy())
    sample.var_names = cells.var_names
    return sample
