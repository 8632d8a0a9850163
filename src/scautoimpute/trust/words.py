"""The evidence as an analyst should read it: what was foretold, what to use the values for, what not, and why."""

from collections.abc import Mapping
from typing import Any

from ..metrics.gain import Gain
from .evidence import Evidence

__all__ = [
    "STATES_DETECTED",
    "foretold",
    "in_standard_errors",
    "of_the_run",
    "percent_less",
    "untested",
    "uses",
    "weights_in_words",
]

STATES_DETECTED = (
    "These values are expression given that it was detected. As the mean over all cells they are too high: do not use "
    "them for clustering or differential expression."
)
# What helpful values can be used for, and the measures that all have to be within their null for it.
_USES: Mapping[str, tuple[str, ...]] = {
    "gene-gene correlations": ("permuted", "correlations"),
    "differential expression between types": ("halves", "markers"),
    "saying in which types a gene is silent": ("silent",),
    "gradients and variability within a type": ("neighbours",),
    "looking for rare types": ("rare",),
}
_SIMPLER = {
    "none": "no imputation",
    "gene_mean": "the mean of each gene",
    "own_counts": "each cell's own counts, shrunk",
}
_EXPERTS = {
    "gene_frequencies": "what a gene has in all cells",
    "gene_frequencies_own_counts": "that mean combined with the cell's own counts",
    "network": "the network",
    "network_own_counts": "the network combined with the cell's own counts",
    "components": "the components",
    "components_own_counts": "the components combined with the cell's own counts",
}


def percent_less(change: float) -> str:
    """Return a relative fall of a loss in words.

    Examples
    --------
    >>> percent_less(0.123), percent_less(-0.0123)
    ('12 % below', '1.2 % above')
    """
    size = abs(100 * change)
    return f"{f'{size:,.0f}' if size >= 10 else f'{size:.2g}'} % {'below' if change >= 0 else 'above'}"


def foretold(evidence: Evidence) -> str:
    """Return the held-out scores of the sample as a sentence."""
    held_out = evidence.held_out
    what = "molecules" if held_out.kind == "molecules" else "values above zero"
    loss = "deviance" if held_out.kind == "molecules" else "squared error"
    against = [name for name in ("none", "gene_mean", "own_counts") if name in held_out.gain]
    compared = _listed([f"{percent_less(held_out.gain[name].relative)} {_SIMPLER[name]}" for name in against])
    harm = held_out.harm
    return (
        f"On {100 * held_out.share:.0f} % of the {what} of {harm.n_cells:,} cells × {harm.n_genes:,} genes, which "
        f"{_unseen(evidence)}, its {loss} is {compared}."
    )


def _unseen(evidence: Evidence) -> str:
    """In what way the method has not seen what was held out."""
    if evidence.way.model is not None:
        return "the model was not shown here, but has learned from if it was trained on these cells"
    without = ", trained anew without batches" if "batches" in evidence.record else ""
    return f"the method{without}{',' * bool(without)} never saw"


def of_the_run(evidence: Evidence) -> str | None:
    """Return what the run itself scored on the data that it held out, as a sentence; None if it held nothing out."""
    scores = evidence.record.get("held_out")
    if not scores or "settings" not in evidence.record:
        return None
    by = "deviance" if "deviance" in scores["model"] else "rmse"
    what, loss = ("molecules", "deviance") if by == "deviance" else ("entries", "root mean squared error")
    against = [name for name in ("no_imputation", "gene_mean", "gene_cell_bias") if name in scores]
    words = _SIMPLER | {"no_imputation": "no imputation", "gene_cell_bias": "gene and cell effects"}
    model = float(scores["model"][by])
    compared = [f"{percent_less(1 - model / float(scores[name][by]))} {words[name]}" for name in against]
    before = ", when the model was trained," if evidence.record.get("trained_before") else ""
    return (
        f"In the run as a whole, on {int(scores['n']):,} held-out {what}{before} the {loss} was {model:.4g}: "
        f"{_listed(compared)}."
    )


def uses(evidence: Evidence) -> list[str]:
    """Return what the values can be used for: nothing, unless they help."""
    if evidence.verdict.word != "helps":
        return []
    if evidence.way.estimates == "detected":
        return ["the level that a gene has in a cell in which it is expressed"]
    found = {name: beyond for name, beyond in evidence.held_out.harm.found.items() if name not in untested(evidence)}
    allowed = [use for use, measures in _USES.items() if all(found.get(name) is False for name in measures)]
    clusters = "clustering" if found.get("permuted") is False else "clusters that the counts as they are show too"
    return ["the level of a gene in single cells, for plots", clusters, *allowed]


def untested(evidence: Evidence) -> dict[str, str]:
    """Return the measures that these data did not allow, and why."""
    harm, rivals = evidence.held_out.harm, evidence.held_out.failed
    missing = {name: why for name, why in harm.left_out.items() if name not in rivals}
    if harm.silent is not None and harm.silent.n_pairs == 0:
        missing["silent"] = "no gene of the sample is known to be silent in a type: too few molecules"
    return missing


def weights_in_words(record: Mapping[str, Any]) -> str | None:
    """Say what the estimate is made of.

    Parameters
    ----------
    record
        Of a run: its own words if it has any, else its weights of the experts or networks.

    Returns
    -------
    A sentence, or None if there is no mixture.

    Examples
    --------
    >>> weights_in_words({"weights": {"gene_frequencies": 0.1, "network": 0.9}})
    'Of the estimate 90 % is the network and 10 % what a gene has in all cells.'
    """
    if "weights_in_words" in record:
        said = str(record["weights_in_words"])
        return f"{said[0].upper()}{said[1:].rstrip('.')}."
    weights = record.get("weights", record.get("learned", {}).get("weights", {}))
    shares = {_EXPERTS.get(name, f"the {name} network"): float(weight) for name, weight in weights.items()}
    if not shares:
        return None
    if (rest := 1 - sum(shares.values())) > 0.005:  # of the masked objective: what no network has is the base's
        shares["the base, gene and cell effects without a network"] = rest
    order = sorted((name for name in shares if shares[name] >= 0.005), key=lambda name: -shares[name])
    parts = [f"{100 * shares[name]:.0f} % {'is ' if name == order[0] else ''}{name}" for name in order]
    return f"Of the estimate {_listed(parts)}."


def in_standard_errors(gain: Gain) -> str:
    """Return a gain with its spread, per cent of the simpler loss."""
    if gain.mean == 0 or gain.relative == 0:
        return "0 %"
    error = abs(100 * gain.relative * gain.standard_error / gain.mean)
    return f"{100 * gain.relative:.2f} ± {error:.2f} %".replace("-", "−")


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
