"""The parts of the report of a run, each from the piece of evidence that it draws."""

from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..io.matrix import evenly_spaced
from ..metrics.gain import Gain
from ..trust.evidence import Evidence
from ..trust.words import in_standard_errors, untested
from .figures import Axis, Quartiles, boxes, lines, scatter_grid
from .page import Block, Figure, Prose, Table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MEASURES",
    "SIMPLER",
    "cells",
    "done",
    "genes",
    "harm",
    "method",
    "numbers",
    "relative_threshold",
    "rivals",
    "training",
    "variation",
    "zeros",
]

BEFORE, AFTER, FORETOLD = "before", "after", "expected on counting"
SIMPLER = {
    "none": "the counts as they are",
    "gene_mean": "the mean of each gene",
    "own_counts": "each cell's own counts, shrunk",
    "added": "own counts, by these and imputation together",
}
MEASURES = {
    "permuted": "correlations in permuted data",
    "halves": "differential expression between random halves of a type",
    "markers": "permuted genes as markers of types",
    "silent": "genes silent in a type",
    "correlations": "strength of correlations",
    "neighbours": "differences between neighbouring cells",
    "rare": "a rare type that was added",
}
_ESTIMATES = {
    "expected": "expected expression, zeros counted",
    "detected": "expression given that it was detected",
}
POINTS = 150  # of a training curve
_LOSSES = {
    "held_out_loss": "held-out loss (nats per molecule)",
    "held_out_rmse": "held-out RMSE (log2)",
    "loss": "training loss",
}


def done(evidence: Evidence) -> list[Block]:
    """What the run was: input, assumptions, parameters, versions, seed, command, time and memory."""
    from ..methods import METHODS

    record, recipe = evidence.record, evidence.record["recipe"]
    settings = record.get("settings", record.get("options", {}))
    reads = "values that are not whole" if evidence.has_fractions else "reads, by the size of their counts"
    rows = {
        **{name: text for name, text in evidence.facts.items() if text},
        "cells × genes": f"{int(recipe['n_cells']):,} × {int(recipe['n_genes_in']):,}, "
        f"of which {len(record['genes']):,} genes were modelled",
        "taken for": "molecules (UMIs)" if evidence.are_molecules else reads,
        "method": METHODS[evidence.way.method].title,
        "estimates": _ESTIMATES[evidence.way.estimates],
        "observed values": "kept" if evidence.way.keep_observed else "replaced by estimates",
        "result": str(record["scale_in_words"]),
        "zeros filled": f"{int(record['n_zeros_filled']):,} of {int(record['n_zeros']):,} in the modelled genes"
        if "n_zeros" in record
        else "not counted: no layer was written",
        "parameters": ", ".join(f"{name} {_plain(value)}" for name, value in settings.items()),
        "pre-processing": ", ".join(
            f"{name} {_plain(value)}" for name, value in recipe.items() if name != "kept_genes"
        ),
        "seed": str(record.get("random_state", "a generator")),
        "versions": _versions(record),
        "this report": f"{evidence.seconds:.1f} s; sample of {evidence.held_out.harm.n_cells:,} cells × "
        f"{evidence.held_out.harm.n_genes:,} genes where imputed anew, else of {evidence.n_cells:,} × "
        f"{evidence.n_genes:,}",
    }
    return [Table("The run.", ["", ""], [[name, text] for name, text in rows.items()], words=True)]


def _versions(record: Any) -> str:
    found = {"scautoimpute": record.get("package_version", "unknown"), **record.get("versions", {})}
    others = {name: metadata.version(name) for name in ("numpy", "scipy", "torch", "anndata", "scikit-learn")}
    return ", ".join(f"{name} {version}" for name, version in (others | found).items())


def _plain(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return " × ".join(map(str, value)) if isinstance(value, list | tuple | np.ndarray) else str(value)


def relative_threshold(gain: Gain, threshold: float) -> str:
    """Return what a gain had to exceed, in per cent of the simpler loss."""
    return f"± {abs(100 * threshold * gain.relative / gain.mean):.2f} %" if gain.mean else "–"


def rivals(evidence: Evidence) -> list[Block]:
    """Each method that was asked for, on the same held-out data."""
    held_out = evidence.held_out
    if not held_out.rivals and not held_out.failed:
        return []
    rows = [[name, in_standard_errors(gain), _which(gain)] for name, gain in held_out.rivals.items()]
    rows += [[name, "", why] for name, why in held_out.failed.items()]
    caption = "How far the loss of this run's method falls below that of others on the same held-out data, in per cent."
    return [Table(caption, ["than", "better by", "so"], rows, words=True)]


def _which(gain: Gain) -> str:
    if abs(gain.mean) <= 2.326 * gain.standard_error:  # 99 %, as in the verdict
        return "no difference beyond chance"
    return "this run's method foretells better" if gain.mean > 0 else "the other one foretells better"


def harm(evidence: Evidence) -> list[Block]:
    """Each measure against its null, and the correlations drawn."""
    measured, missing, rows = evidence.held_out.harm, untested(evidence), []
    for name, title in MEASURES.items():
        found = getattr(measured, name)
        if name in missing:
            rows.append([title, "not measured", "", missing[name]])
        else:
            value, limit = numbers(name, found)
            rows.append([title, value, limit, "beyond its null" if found.harmful else "within its null"])
    caption = "Measures of harm on the sample. Within its null is what no imputation, or chance, would give too."
    if evidence.labels is None and measured.halves is not None:
        caption += (
            " No types being known, the halves are of the largest of up to eight clusters (k-means) of the counts."
        )
    table = Table(caption, ["measure", "found", "null (99 %)", "so"], rows, words=True)
    return [*_correlation_figure(evidence), table]


def numbers(name: str, found: Any) -> tuple[str, str]:
    """Return value and limit of a measure of harm, with what they are of.

    Parameters
    ----------
    name
        In `MEASURES`.
    found
        What was measured.
    """
    of: dict[str, Callable[[], tuple[str, str]]] = {
        "permuted": lambda: (f"{found.share_after:.1%} of gene pairs correlate", f"{found.limit:.1%}"),
        "halves": lambda: (
            f"{found.share_of_splits:.1%} of splits have too many calls",
            f"{found.limit_of_splits:.1%}",
        ),
        "markers": lambda: (
            f"{found.after:.1%} of tests call a permuted gene (before: {found.before:.1%})",
            f"{found.limit:.1%}",
        ),
        "silent": lambda: (
            f"{found.share_beyond:.1%} of {found.n_pairs} genes silent in a type are lifted",
            f"1.0%, beyond {found.bound:.0%} of their level elsewhere",
        ),
        "correlations": lambda: _strengths(found.sizes, found.limit),
        "neighbours": lambda: (
            f"{found.share_below:.0%} of the genes differ less between neighbours than in the counts, freed of noise; "
            f"the median gene lost {found.lost:.0%} of that variance",
            f"{found.limit_below:.0%} of the genes",
        ),
        "rare": lambda: (f"pulled {found.pull:.0%} of the way to the crowd", f"{found.limit:.0%}"),
    }
    value, limit = of[name]()
    return value.replace("%", " %"), limit.replace("%", " %")


def _strengths(sizes: tuple[float, float, float], limit: float) -> tuple[str, str]:
    before, after, free = sizes
    return f"r of {after:.2f} in the quadratic mean (before: {before:.2f})", f"{limit:.2f} (freed of noise: {free:.2f})"


def _correlation_figure(evidence: Evidence) -> list[Block]:
    measured = evidence.held_out.harm
    panels: dict[str, dict[str, Quartiles]] = {}
    if measured.permuted is not None:
        panels["|r| in permuted data"] = {BEFORE: _box(measured.permuted.before), AFTER: _box(measured.permuted.after)}
    if measured.correlations is not None:
        shift = measured.correlations
        free = {"counts, freed of noise": _box(np.abs(shift.held_out))}
        panels["|r| in the data"] = {BEFORE: _box(np.abs(shift.before)), AFTER: _box(np.abs(shift.after)), **free}
    if not panels:
        return []
    alt = "Box plots of the correlations of gene pairs before and after imputation, in permuted data and in the data."
    caption = (
        "Correlations of gene pairs: minimum, quartiles, maximum. In permuted data, in which each gene is shuffled "
        "across cells, none are real: after should look like before. In the data after should not exceed the counts "
        "freed of noise."
    )
    return [Figure(partial(boxes, panels, x=Axis("|r| of a pair of genes"), strong=AFTER), alt, caption)]


def _box(values: ArrayLike) -> Quartiles:
    return Quartiles(*np.quantile(np.asarray(values, dtype=float), [0, 0.25, 0.5, 0.75, 1]).tolist())


def training(evidence: Evidence) -> list[Block]:
    """The curve, if this run trained."""
    history = evidence.record.get("history", evidence.record.get("learned", {}).get("history"))
    if evidence.record.get("trained_before"):
        return [Prose("The model was trained before; its training is in the report of that run.")]
    if history is None or not len(history):
        return []
    by = next(name for name in _LOSSES if name in history and history[name].notna().any())
    panels = {"Training": {}}  # type: dict[str, dict[str, list[tuple[float, float, float]]]]
    for (network, fold), part in history[history[by].notna()].groupby(["network", "fold"], sort=False):
        name = f"{network}, fold {int(fold) + 1}" if history["fold"].nunique() > 1 else str(network)
        shown = part.iloc[evenly_spaced(len(part), POINTS)]
        panels["Training"][name] = [(float(x), float(y), 0.0) for x, y in zip(shown["epoch"], shown[by], strict=True)]
    converged = evidence.record.get("converged", evidence.record.get("learned", {}).get("converged"))
    ended = (
        "It stopped by itself" if converged else "It was stopped at the most epochs allowed, before it had converged"
    )
    alt = f"Training curve: {_LOSSES[by]} against the epoch, a line for each network."
    figure = partial(lines, panels, x=Axis("epoch"), y=Axis(_LOSSES[by]))
    return [Figure(figure, alt, f"{_LOSSES[by][0].upper()}{_LOSSES[by][1:]} by epoch. {ended}.")]


_EXPRESSION = Axis("mean counts per 10,000 before", logarithmic=True)


def zeros(evidence: Evidence) -> list[Block]:
    """Shares of zeros against mean expression."""
    found = evidence.changes
    drawn = {BEFORE: found.zeros_before, AFTER: found.zeros_after}
    if evidence.are_molecules:
        drawn[FORETOLD] = found.zeros_foretold
    told = (
        f" “{FORETOLD}” is what counting molecules at the imputed rates would give: for expected expression it should "
        "lie on “before”, below it the values are too high."
        if evidence.are_molecules
        else ""
    )
    y = Axis("share of zeros", limits=(-0.04, 1.04))
    return [
        Figure(
            partial(lines, {"Zeros": _points(found.mean, drawn)}, x=_EXPRESSION, y=y),
            "Share of zeros against mean expression before and after imputation, a line for each.",
            f"Zeros before and after imputation, by groups of genes of similar expression.{told}",
        )
    ]


def variation(evidence: Evidence) -> list[Block]:
    """Coefficients of variation against mean expression."""
    found = evidence.changes
    panel = _points(found.mean, {BEFORE: found.cv_before, AFTER: found.cv_after})
    return [
        Figure(
            partial(lines, {"Variation": panel}, x=_EXPRESSION, y=Axis("coefficient of variation", limits=(0, None))),
            "Coefficient of variation of genes against mean expression before and after imputation, a line for each.",
            "Standard deviation over mean of the genes across cells, median of groups of genes of similar expression. "
            "Noise makes up most of it where expression is low; less is not better if differences between cells went "
            "with it.",
        )
    ]


def _points(x: Any, drawn: dict[str, Any]) -> dict[str, list[tuple[float, float, float]]]:
    return {name: [(float(a), float(b), 0.0) for a, b in zip(x, y, strict=True)] for name, y in drawn.items()}


def cells(evidence: Evidence) -> list[Block]:
    """Cells on principal components before and after, and how well classes are told apart."""
    found = evidence.structure
    by = f"column {evidence.labels}" if found.given else "clusters (k-means) of the counts"
    panels = {"before": (found.before, found.classes), "after": (found.after, found.classes)}
    before, after = (
        "none, there being one class" if value is None else f"{value:.2f}"
        for value in (found.silhouette_before, found.silhouette_after)
    )
    warning = "" if found.given else " The clusters were made of the data before, which favours these."
    caption = (
        f"Cells on the first two principal components, each of its own, coloured by {by}. Silhouette of these on "
        f"{found.n_components} components: {before} before, {after} after.{warning} Higher is no proof of truth: "
        "smoothing raises it too."
    )
    alt = f"Cells on two principal components before and after imputation, coloured by {by}."
    classes = sorted(set(found.classes))
    return [Figure(partial(scatter_grid, panels, classes=classes, most=1000), alt, caption, small=True)]


def genes(evidence: Evidence) -> list[Block]:
    """The genes that changed most and least."""
    found = evidence.changes
    columns = ["gene", "change of ln", "mean before", "mean after", "zeros before", "zeros after", "r"]
    tables: list[Block] = []
    for which, those in (("most", found.most), ("least", found.least)):
        rows = [
            [
                gene.name,
                f"{gene.change:.2f}",
                f"{gene.mean_before:.3g}",
                f"{gene.mean_after:.3g}",
                f"{gene.zeros_before:.0%}",
                f"{gene.zeros_after:.0%}",
                f"{gene.correlation:.2f}",
            ]
            for gene in those
        ]
        caption = (
            f"The genes that changed {which}, of {found.n_considered:,} modelled ones that are seen in a tenth of the "
            "cells: root mean square change of ln(1 + counts per 10,000), mean counts per 10,000, zeros, and "
            "correlation of before with after across cells."
        )
        if rows:
            tables.append(Table(caption, columns, rows))
    return tables


def method(evidence: Evidence) -> list[Block]:
    """Source and limits of the method."""
    from ..methods import METHODS

    of = METHODS[evidence.way.method]
    return [Prose(f"{of.title}: {of.reference}\n\nIts limits: {of.limits}")]
