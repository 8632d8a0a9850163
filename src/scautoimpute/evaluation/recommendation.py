"""Which method to use on one's own data, in words; "do not impute" is an answer."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .scores import FLOORS, Column, best_within_noise, columns, difference

__all__ = ["RULE", "recommendation_of"]

_FLOOR, _NONE = "gene_cell_bias", "none"
_LEAST = 0.01  # a gain that is worth it: of RMSE and deviance this share, of ARI and silhouette so much

RULE = (
    "The rule. Recovery: a method helps if its RMSE at hidden entries (10 %) is below that of gene and cell effects "
    "alone by more than two standard errors over seeds. Molecules, where the counts are whole: if its deviance at "
    "held-out molecules is as much below that of what knows nothing of other cells and genes: no imputation, the mean "
    "of each gene, or gene and cell effects, whichever is lowest. Cell types, where labels were "
    "given: if it raises the adjusted Rand index or the silhouette of no imputation by more than two standard errors "
    "over cells, which all seeds share: the standard deviation of the difference over random halves of the cells. "
    f"And by at least {_LEAST:.0%} (of RMSE, deviance) or {_LEAST} (of index, silhouette), over two or more seeds. "
    "A method is recommended for what it helps with; if none helps with anything, the advice is not to impute."
)


def recommendation_of(results: Mapping[str, Any]) -> str:
    """Say what to do, and why.

    Parameters
    ----------
    results
        With ``cells``.

    Returns
    -------
    Paragraphs: the advice, what it rests on, one each, and the rule.
    """
    cells = results["cells"]
    recovery = _column(cells, "recovery", "rmse", "10%")
    molecules = _column(cells, "molecules", "held_out_deviance", "10%")
    clusters = _column(cells, "structure", "ari", "all types")
    separation = _column(cells, "structure", "silhouette", "all types")
    halves = {name: _halves(cells, f"{name}_of_half") for name in ("ari", "silhouette")}
    findings = [
        _finding("recovering hidden entries (RMSE)", recovery, floor=_FLOOR, lower=True),
        _finding("predicting held-out molecules (deviance)", molecules, floor=_lowest_floor(molecules), lower=True),
        _finding(
            "clusters that agree with the given types (ARI)", clusters, floor=_NONE, lower=False, halves=halves["ari"]
        ),
        _finding(
            "separating the given types (silhouette)", separation, floor=_NONE, lower=False, halves=halves["silhouette"]
        ),
    ]
    tested = [finding for finding in findings if finding is not None]
    paragraphs = [_advice([finding for finding in tested if finding[1]], tested), *(text for _, _, text in tested)]
    if clusters == {}:
        paragraphs.append("Whether cell types become clearer was not asked, since no labels were given (--labels).")
    return "\n\n".join([*paragraphs, RULE])


def _lowest_floor(column: Column) -> str:
    """Where there is no structure, the mean of each gene foretells far more than the counts as they are."""
    there = [name for name in FLOORS if name in column]
    return best_within_noise(column, lower=True, among=there)[0] if there else _NONE


_Finding = tuple[str, str, str]  # what for, the method that helps or "", in words


def _finding(
    purpose: str, column: Column, *, floor: str, lower: bool, halves: Sequence[Column] | None = None
) -> _Finding | None:
    """Compare the best method with the floor; None where that was not run. `halves` are for what seeds do not vary."""
    rivals = [name for name in column if name not in FLOORS]
    if floor not in column or not rivals:
        return None
    best, tied = best_within_noise(column, lower=lower, among=rivals)
    gap, error = difference(column, of=best, to=floor)
    n_seeds = len(column[best].keys() & column[floor].keys())
    if halves is not None:
        error = _error_over_cells(halves, of=best, to=floor)
    means = {name: statistics.fmean(column[name].values()) for name in (best, floor)}
    least = _LEAST * abs(means[floor]) if lower else _LEAST
    helps = n_seeds > 1 and math.isfinite(error) and (-gap if lower else gap) > max(2 * error, least)
    others = f" (tied: {', '.join(sorted(tied - {best}))})" if tied - {best} else ""
    text = (
        f"For {purpose}: {best}{others} has {means[best]:.4g}, {floor} {means[floor]:.4g}; difference {gap:+.4g} "
        f"({_noise(error, n_seeds, over_cells=halves is not None)}): "
        f"{'helps' if helps else 'does not help'}."
    )
    return purpose, best if helps else "", text


def _error_over_cells(halves: Sequence[Column], *, of: str, to: str) -> float:
    """Standard error of a difference between methods, from the same halves of the cells; NaN of fewer than two."""
    gained = [
        half[of][seed] - half[to][seed] for half in halves for seed in half.get(of, {}).keys() & half.get(to, {}).keys()
    ]
    return statistics.stdev(gained) if len(gained) > 1 else math.nan


def _noise(error: float, n_seeds: int, *, over_cells: bool) -> str:
    if n_seeds < 2:
        return "one seed, so noise is not known"
    if math.isnan(error):
        return "too few cells to be halved, so noise is not known"
    return f"standard error {error:.2g}{' over cells' if over_cells else ''}, {n_seeds} seeds"


def _advice(helping: Sequence[_Finding], tested: Sequence[_Finding]) -> str:
    if not tested:
        return "No recommendation: too few methods were run for one; run gene_cell_bias, none and at least one more."
    if not helping:
        return "Do not impute these data: nothing that was tested gets better by more than noise."
    by_method: dict[str, list[str]] = {}
    for purpose, method, _ in helping:
        by_method.setdefault(method, []).append(purpose)
    uses = "; ".join(f"{method} for {' and '.join(purposes)}" for method, purposes in by_method.items())
    without = [purpose for purpose, method, _ in tested if not method]
    rest = f" Nothing helps with {' or '.join(without)}." if without else ""
    return f"Use {uses}.{rest} Keep the observed counts for testing differences, which imputed values make too sure."


def _halves(cells: Sequence[Mapping[str, Any]], measure: str) -> list[Column]:
    return list(columns(cells, experiment="structure", measure=measure).values())


def _column(cells: Sequence[Mapping[str, Any]], experiment: str, measure: str, setting: str) -> Column:
    found = columns(cells, experiment=experiment, measure=measure)
    return next((column for (_, of), column in found.items() if of == setting), {})
