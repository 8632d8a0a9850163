"""Everything that the report of a run shows: what was done, what it changed, what it foretells, what harm it does."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ..io.matrix import named_layers, row_sums
from ..scales import PER_CELL, to_log1p
from .changes import Changes, measure_changes
from .held_out import HeldOut, hold_out
from .rerun import Way, way_of
from .structure import Structure, checked_classes, measure_structure
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from anndata import AnnData

    from ..autoimpute import AutoImpute

__all__ = ["Evidence", "examine", "record_in", "refuse_batches_of", "refuse_scale"]

UNLABELLED = ""
CELLS = 1000  # for what is compared before and after, without imputing anew


@dataclass(frozen=True, slots=True)
class Evidence:
    """What `examine` returns.

    Attributes
    ----------
    record
        What the run left of itself.
    way
        How it imputed.
    are_molecules
        Whether the counts look like molecules (UMIs) rather than reads.
    has_fractions
        Whether they are not even whole numbers.
    facts
        What else is told of the run, by its name.
    labels
        Name of the column that tells types apart, or None.
    verdict
        Its word and its reasons.
    held_out
        What the verdict rests on.
    changes, structure
        Before and after, in a sample of `n_cells` cells and `n_genes` modelled genes.
    seconds
        That all this took.
    """

    record: Mapping[str, Any]
    way: Way
    are_molecules: bool
    has_fractions: bool
    facts: Mapping[str, str]
    labels: str | None
    verdict: Verdict
    held_out: HeldOut
    changes: Changes
    structure: Structure
    n_cells: int
    n_genes: int
    seconds: float


def examine(
    adata: "AnnData",
    *,
    key: str = "imputed",
    labels: str | None = None,
    compare: Sequence[str] = (),
    model: "AutoImpute | None" = None,
    max_cells: int = 500,
    max_genes: int = 400,
    facts: Mapping[str, str] | None = None,
    random_state: int = 0,
) -> Evidence:
    """Collect what speaks for and against a run: whether imputation helps these data, and whether it does harm.

    Parameters
    ----------
    adata
        Counts and the layer that `scautoimpute.tl.autoimpute` or `scautoimpute.methods.impute` made of them.
    key
        Name of that layer and of its record in `uns`.
    labels
        Column of `obs` with the type of each cell; cells without one are left out. Without a column clusters of the
        counts are drawn, and what needs types is not measured.
    compare
        Names of methods in `scautoimpute.methods.METHODS` to foretell the same held-out data.
    model
        The trained `AutoImpute` that the run applied, to be applied again. Without it a run of AutoImpute is judged by
        training anew on the sample, as one that trained has to be: its own network has seen all molecules.
    max_cells, max_genes
        Size of the sample that is imputed anew, three or four times, with molecules held out, genes permuted and a
        rare type added: the modelled genes with the most molecules; all of them where `model` is given.
    facts
        What else to tell of the run in the report, by its name.
    random_state
        Seed.

    Returns
    -------
    Evidence
        For `scautoimpute.report.write_trust_report`.

    Raises
    ------
    ValueError
        If there is no such layer or column, the column tells no classes apart, a method is unknown, genes of the run
        are no longer there, mean counts cannot be told from its scale, `model` has batches, or the data are too few to
        hold anything out.

    Examples
    --------
    >>> from scautoimpute import datasets, methods
    >>> adata = datasets.simulate(n_cells=80, n_genes=60, random_state=0)
    >>> methods.impute(adata, method="none")
    >>> examine(adata, labels="cell_type").verdict.word
    'useless'
    """
    from .._counts import has_fractions
    from .._umi import umi_like
    from ..methods import method_named

    started = time.perf_counter()
    record = record_in(adata, key)
    way = way_of(record, model=model)
    if model is not None:
        refuse_batches_of(model)
    refuse_scale(str(record.get("scale")))
    _refuse_part(adata, record)
    label_N = classes_in(adata, labels)
    for name in compare:
        method_named(name)
    rng = np.random.default_rng(random_state)
    usable = np.arange(adata.n_obs) if label_N is None else np.flatnonzero(label_N != UNLABELLED)
    cells = np.sort(rng.choice(usable, size=min(CELLS, usable.size), replace=False))
    counts = _rows(_counts_of(adata, record), cells)
    genes = _modelled(adata, record, counts)
    fractions = has_fractions(counts)
    are_molecules = not fractions and bool(umi_like(counts))
    labels_N = None if label_N is None else label_N[cells]
    held_out = hold_out(
        counts[:, genes],
        names=adata.var_names[genes],
        way=way,
        labels=labels_N,
        rivals=compare,
        are_molecules=are_molecules,
        max_cells=max_cells,
        max_genes=max_genes if model is None else genes.size,
        random_state=random_state,
    )
    scaled_by = counts[:, _scaling_genes(adata, record, model)]
    depth_N = row_sums(scaled_by)
    filled = np.flatnonzero(depth_N)
    depth_N = depth_N[filled]
    before = _logs(counts[filled][:, genes].toarray() / (depth_N[:, None] / PER_CELL))
    after = _imputed_logs(adata.layers[key], cells[filled], genes, record, depth_N)
    return Evidence(
        record=record,
        way=way,
        are_molecules=are_molecules,
        has_fractions=fractions,
        facts=dict(facts or {}),
        labels=labels,
        verdict=judge(held_out.gain, found=held_out.harm.found),
        held_out=held_out,
        changes=measure_changes(before, after=after, depth=depth_N, names=adata.var_names[genes].tolist()),
        structure=measure_structure(
            before, after=after, labels=None if labels_N is None else labels_N[filled], rng=rng
        ),
        n_cells=filled.size,
        n_genes=genes.size,
        seconds=time.perf_counter() - started,
    )


def refuse_batches_of(model: "AutoImpute") -> None:
    """Refuse a trained model that would have to be told the batch of each cell that is imputed anew.

    Parameters
    ----------
    model
        Trained.
    """
    if model.batches_:
        msg = (
            f"the model was trained on batches ({', '.join(model.batches_[:3])}, …), which a report of its application "
            "cannot give it: leave out the report, or report on a run that trains"
        )
        raise ValueError(msg)


def refuse_scale(scale: str | None) -> None:
    """Refuse a scale from which mean counts cannot be told.

    Parameters
    ----------
    scale
        Of the layer.
    """
    if scale == "expected_log1p":
        msg = "a report compares mean counts, which scale='expected_log1p' does not tell: impute on another scale"
        raise ValueError(msg)


def _refuse_part(adata: "AnnData", record: Mapping[str, Any]) -> None:
    n_genes = int(record["recipe"].get("n_genes_in", adata.n_vars))
    if n_genes != adata.n_vars:
        msg = (
            f"the object has {adata.n_vars} genes and the run had {n_genes}, over which cells were scaled: impute "
            "without output_genes=, and examine before some genes are taken"
        )
        raise ValueError(msg)


def record_in(adata: "AnnData", key: str) -> Mapping[str, Any]:
    """Return the record of a run, or say that there is none under this name.

    Parameters
    ----------
    adata
        The object.
    key
        Name of the layer, and of its record in `uns`.
    """
    if key not in adata.layers or key not in adata.uns:
        found = ", ".join(repr(str(name)) for name in named_layers(adata) if name in adata.uns) or "none"
        msg = f"there is no imputed layer {key!r} with a record in uns (found: {found}): impute first, or give key="
        raise ValueError(msg)
    record: Mapping[str, Any] = adata.uns[key]
    return record


def classes_in(adata: "AnnData", column: str | None) -> Any | None:
    """Return the classes in a column of `obs`, `UNLABELLED` where there is none; None of None.

    A column that is absent or tells nothing apart is refused.
    """
    if column is None:
        return None
    if column not in adata.obs:
        found = ", ".join(map(repr, adata.obs.columns)) or "none"
        msg = f"labels={column!r} is no column of obs: choose one of {found}, or leave it out"
        raise ValueError(msg)
    is_known_N = adata.obs[column].notna().to_numpy()
    label_N = np.full(adata.n_obs, UNLABELLED, dtype=object)
    label_N[is_known_N] = checked_classes(adata.obs[column][is_known_N], name=f"labels={column!r}")
    return label_N.astype(str)


def _counts_of(adata: "AnnData", record: Mapping[str, Any]) -> Any:
    from ..io.matrix import counts_matrix

    layer = str(record["recipe"].get("layer", "X"))
    return counts_matrix(adata, None if layer == "X" else layer)


def _rows(matrix: Any, cells: Any) -> Any:
    """Return some rows as a ``csr_array``."""
    matrix = matrix.tocsr() if sparse.issparse(matrix) else matrix
    return sparse.csr_array(matrix[cells], dtype=np.float64)


def _modelled(adata: "AnnData", record: Mapping[str, Any], counts: Any) -> Any:
    """Positions of the genes that were modelled and are seen in the sample."""
    is_modelled_G = adata.var_names.isin([str(name) for name in record["genes"]])
    genes = np.flatnonzero(is_modelled_G & (np.bincount(counts.indices, minlength=counts.shape[1]) > 0))
    if genes.size < 2:
        msg = f"{genes.size} modelled genes are seen in {counts.shape[0]} cells, and 2 are needed: give more cells"
        raise ValueError(msg)
    return genes


def _scaling_genes(adata: "AnnData", record: Mapping[str, Any], model: "AutoImpute | None") -> Any:
    """Positions of the genes that the run took library sizes over: before and after have to be on one scale."""
    from ..metrics._matrices import csr_blocks

    least = record["recipe"].get("min_counts")
    if least is None:  # all of them
        return np.arange(adata.n_vars)
    kept = record["recipe"].get("kept_genes") if model is None else (model.recipe_ or {}).get("kept_genes")
    if kept is not None:
        return np.flatnonzero(adata.var_names.isin(kept))
    n_cells_G = np.zeros(adata.n_vars, dtype=np.int64)
    for block in csr_blocks(_counts_of(adata, record)):
        n_cells_G += np.bincount(block.indices[block.data >= least], minlength=adata.n_vars)
    return np.flatnonzero(n_cells_G >= record["recipe"]["min_cells"])


def _logs(rates: Any) -> Any:
    return np.log1p(rates).astype(np.float32)


def _imputed_logs(layer: Any, cells: Any, genes: Any, record: Mapping[str, Any], depth_N: Any) -> Any:
    """Bring rows of the layer to ln(1 + counts per 10,000)."""
    part = layer.tocsr() if sparse.issparse(layer) else layer
    values = part[cells][:, genes]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    median = float(record["recipe"].get("median_total", PER_CELL))
    return to_log1p(values, str(record["scale"]), size_factor=depth_N[:, None] / median, median_total=median)
