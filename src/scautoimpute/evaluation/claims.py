"""What the paper says in words, beside what was found here.

Talwar, Mongia, Sengupta & Majumdar, Sci Rep 8:16329 (2018). Ties: a difference
of at most one standard error over seeds.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .scores import FLOORS, Column, best_within_noise, columns, difference

__all__ = ["SUBJECT", "claims_of"]

SUBJECT = "autoimpute"
_PUBLISHED = "autoimpute-paper"
_NO_METHOD = "none"
_MOST_EXCEPTIONS = 6  # named; the table has them all

_Claim = tuple[str, bool | None]  # what was found here, and whether it is what the paper says


def claims_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold each claim against the results.

    Parameters
    ----------
    results
        With ``cells``.

    Returns
    -------
    For each claim ``paper``, ``ours`` and ``reproduced``, which is None where it could not be tested.
    """
    cells = results["cells"]
    tests: list[tuple[str, Callable[[], _Claim]]] = [
        (
            "The lowest RMSE of all methods on all seven data sets, at every share hidden.",
            lambda: _lowest(cells, "rmse"),
        ),
        ("The lowest MAE of all methods on all seven data sets, at every share hidden.", lambda: _lowest(cells, "mae")),
        (
            "The lowest NMSE of all methods on all seven data sets, at every share hidden.",
            lambda: _lowest(cells, "nmse"),
        ),
        ("The best adjusted Rand index on five of eight data sets.", lambda: _best_clusters(cells)),
        ("Clusters agree with cell types at least as well as without imputation.", lambda: _no_worse(cells)),
        (
            "Expression varies less within a cell type than without imputation.",
            lambda: _against_none(cells, "log_cv_median", "structure", lower=True, words="varies less"),
        ),
        (
            "Cell types are better separated than without imputation (average silhouette).",
            lambda: _against_none(cells, "silhouette", "structure", lower=False, words="is higher"),
        ),
        ("Genes silent in bulk keep their zeros, expressed genes lose theirs.", lambda: _zeros(cells)),
        ("Imputes 68,000 cells, where all others run out of memory.", lambda: _scale(cells)),
    ]
    return [_as_claim(text, *test()) for text, test in tests]


def _as_claim(text: str, ours: str, reproduced: bool | None) -> dict[str, Any]:
    verdict = {True: "reproduced", False: "not reproduced", None: "not tested"}[reproduced]
    return {"paper": text, "ours": ours, "reproduced": reproduced, "verdict": verdict}


def _rivals(column: Column) -> list[str]:
    return [name for name in column if not name.startswith(SUBJECT)]


def _compared(cells: Sequence[Mapping[str, Any]], experiment: str, measure: str) -> dict[tuple[str, str], Column]:
    """Scores of the subject and its rivals, where both are."""
    found = columns(cells, experiment=experiment, measure=measure)
    return {
        key: {name: column[name] for name in (SUBJECT, *_rivals(column))}
        for key, column in found.items()
        if SUBJECT in column and _rivals(column)
    }


def _lowest(cells: Sequence[Mapping[str, Any]], measure: str) -> _Claim:
    found = _compared(cells, "recovery", measure)
    if not found:
        return "not run", None
    outcomes = {key: best_within_noise(column, lower=True) for key, column in found.items()}
    lost = [f"{data} {setting} ({best})" for (data, setting), (best, tied) in outcomes.items() if SUBJECT not in tied]
    n_lowest = sum(best == SUBJECT for best, _ in outcomes.values())
    n_sets = len({data for data, _ in found})
    n_tied = len(found) - n_lowest - len(lost)
    text = (
        f"this package's masked objective is lowest in {n_lowest} and tied in {n_tied} of {len(found)} (data set × "
        f"share) on {n_sets} data sets"
    )
    words = [_with_exceptions(text, "lower", lost), *_published(cells, measure)]
    return f"{'; '.join(words)}.", n_lowest == len(found)


def _published(cells: Sequence[Mapping[str, Any]], measure: str) -> list[str]:
    """Say of the published training, where it has results, how often it is lowest of all but this package's own."""
    found = [c for c in columns(cells, experiment="recovery", measure=measure).values() if _PUBLISHED in c]
    lowest = [best_within_noise(c, lower=True, among=[_PUBLISHED, *_rivals(c)])[0] for c in found if _rivals(c)]
    return [f"the published training is lowest in {lowest.count(_PUBLISHED)} of its {len(lowest)}"] if lowest else []


def _with_exceptions(text: str, word: str, lost: Sequence[str]) -> str:
    if not lost:
        return text
    more = f" and {len(lost) - _MOST_EXCEPTIONS} more" if len(lost) > _MOST_EXCEPTIONS else ""
    return f"{text}; {word} than it: {', '.join(lost[:_MOST_EXCEPTIONS])}{more}"


def _overall(cells: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Column]:
    found = _compared(cells, "structure", measure)
    return {data: column for (data, setting), column in found.items() if setting == "all types"}


def _best_clusters(cells: Sequence[Mapping[str, Any]]) -> _Claim:
    found = _overall(cells, "ari")
    if not found:
        return "not run", None
    outcomes = {data: best_within_noise(column, lower=False) for data, column in found.items()}
    best = [data for data, (name, _) in outcomes.items() if name == SUBJECT]
    tied = [data for data, (_, names) in outcomes.items() if SUBJECT in names and data not in best]
    wins = {
        name: sum(name in names for _, names in outcomes.values()) for name in {n for c in found.values() for n in c}
    }
    rival = max((name for name in wins if name != SUBJECT), key=lambda name: wins[name])
    others = f"the most of any rival is {wins[rival]} ({rival})"
    text = f"best on {len(best)} and tied-best on {len(tied)} of {len(found)}; best or tied, {others}."
    return text, 8 * (len(best) + len(tied)) >= 5 * len(found)


def _no_worse(cells: Sequence[Mapping[str, Any]]) -> _Claim:
    found = {data: column for data, column in _overall(cells, "ari").items() if _NO_METHOD in column}
    if not found:
        return "not run", None
    gaps = {data: difference(column, of=SUBJECT, to=_NO_METHOD) for data, column in found.items()}
    worse = [f"{data} ({gap:+.3f})" for data, (gap, error) in gaps.items() if gap < -error]
    text = f"on {len(found) - len(worse)} of {len(found)} data sets"
    return f"{_with_exceptions(text, 'worse', worse)}.", not worse


def _against_none(
    cells: Sequence[Mapping[str, Any]], measure: str, experiment: str, *, lower: bool, words: str
) -> _Claim:
    found = columns(cells, experiment=experiment, measure=measure)
    pairs = [
        column
        for (_, setting), column in found.items()
        if setting == "all types" and {SUBJECT, _NO_METHOD} <= set(column)
    ]
    if not pairs:
        return "not run", None
    gaps = [difference(column, of=SUBJECT, to=_NO_METHOD)[0] for column in pairs]
    better = sum(gap < 0 if lower else gap > 0 for gap in gaps)
    text = f"{words} on {better} of {len(gaps)} data sets; the median difference is {statistics.median(gaps):+.2f}."
    return text, better == len(gaps)


def _zeros(cells: Sequence[Mapping[str, Any]]) -> _Claim:
    silent = columns(cells, experiment="zeros", measure="zeros_in_silent")
    loud = columns(cells, experiment="zeros", measure="zeros_in_expressed")
    both = [key for key in silent if key in loud and {SUBJECT, _NO_METHOD} <= silent[key].keys() & loud[key].keys()]
    if not both:
        return "not run", None

    def mean(of: Mapping[tuple[str, str], Column], method: str) -> float:
        return statistics.fmean(statistics.fmean(of[key][method].values()) for key in both)

    kept, lost = (
        mean(silent, SUBJECT) / (mean(silent, _NO_METHOD) or 1),
        1 - mean(loud, SUBJECT) / (mean(loud, _NO_METHOD) or 1),
    )
    text = f"{kept:.0%} of the zeros of silent genes are kept, {lost:.0%} of those of expressed genes are filled."
    return text, kept > 0.5 and lost > 0.5


def _scale(cells: Sequence[Mapping[str, Any]]) -> _Claim:
    asked = [cell for cell in cells if cell["experiment"] == "scale"]
    largest = max((cell["asked"]["n_cells"] for cell in asked), default=0)
    ended = {cell["method"]: cell["status"] for cell in asked if cell["asked"]["n_cells"] == largest}
    if SUBJECT not in ended or "not yet" in {cell["note"] for cell in asked}:
        return "not run", None
    rivals = [name for name in ended if not name.startswith(SUBJECT)]
    done = [name for name in rivals if ended[name] == "done"]
    stopped: dict[str, list[str]] = {}  # why → who, of those that were tried at all
    for cell in asked:
        if cell["method"] in rivals and cell["status"] not in {"done", "not run"}:
            stopped.setdefault(cell["status"], []).append(cell["method"])
    others = "; ".join(f"{', '.join(dict.fromkeys(names))} {why}" for why, names in stopped.items())
    how = f"{largest:,} resampled cells: {SUBJECT} {ended[SUBJECT]}; of the others {', '.join(done) or 'none'} done"
    found = f"{how}; {others or 'none that was tried did not end'}."
    is_alone = ended[SUBJECT] == "done" and set(done) <= set(FLOORS)  # which run on any number of cells
    return found, is_alone and "out of memory" in stopped
