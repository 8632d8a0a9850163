"""Everything that a run found, as one plain dictionary and as a tidy table."""

import csv
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..io.complete import complete_or_absent
from ..methods import METHODS
from ..metrics.zeros import ZERO_RULE
from .experiments import EXPERIMENTS
from .settings import SIZES, Settings

__all__ = ["COLUMNS", "MEASURES", "manifest_of", "rows", "write_results"]

COLUMNS = (
    "experiment", "dataset", "method", "seed", "setting", "measure", "value", "status", "seconds", "peak_gb", "note",
    "versions", "hardware", "command",
)  # fmt: skip

# What each measure is called, and which end of it is better
MEASURES: dict[str, dict[str, Any]] = {
    "rmse": {"title": "RMSE", "better": "lower", "unit": "log2"},
    "mae": {"title": "MAE", "better": "lower", "unit": "log2"},
    "nmse": {"title": "NMSE", "better": "lower", "unit": "‖error‖ / ‖truth‖"},
    "ari": {"title": "adjusted Rand index", "better": "higher", "unit": ""},
    "ari_sd": {"title": "its standard deviation over restarts of k-means", "better": None, "unit": ""},
    "silhouette": {"title": "average silhouette, two principal components", "better": "higher", "unit": ""},
    "silhouette_all_genes": {"title": "average silhouette, all modelled genes", "better": "higher", "unit": ""},
    "ari_of_half": {"title": "adjusted Rand index, half of the cells", "better": "higher", "unit": ""},
    "silhouette_of_half": {"title": "average silhouette, half of the cells", "better": "higher", "unit": ""},
    "log_cv_median": {"title": "median ln(coefficient of variation) within a type", "better": "lower", "unit": "ln"},
    "zero_fraction": {"title": "fraction of zeros", "better": None, "unit": ""},
    "zeros_in_silent": {"title": "fraction of zeros, genes silent in bulk", "better": "higher", "unit": ""},
    "zeros_in_expressed": {"title": "fraction of zeros, genes expressed in bulk", "better": "lower", "unit": ""},
    "held_out_deviance": {"title": "Poisson deviance at held-out molecules", "better": "lower", "unit": "per entry"},
    "seconds": {"title": "processor time, one thread", "better": "lower", "unit": "s"},
    "peak_gb": {"title": "peak memory", "better": "lower", "unit": "GB"},
}
_MADE_WITH = ("versions", "hardware")
_LIBRARIES = ("numpy", "scipy", "torch", "scikit-learn", "scanpy", "anndata", "magic-impute", "scvi-tools")


def manifest_of(kind: str, settings: Settings, datasets: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """Return what is said of a run: versions, seeds, hardware, command, data, and what is behind every name."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "kind": kind,
        "created": now,
        "updated": now,
        "command": " ".join(["scautoimpute", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | _versions(),
        "hardware": _hardware() | {"jobs": settings.jobs},
        "seeds": list(range(settings.seeds)),
        "settings": {
            "labels": settings.labels,
            "methods": list(settings.methods),
            "experiments": list(settings.experiments),
            "full": settings.full,
            "time_limit_seconds": settings.time_limit,
            "memory_limit_gb": settings.memory_limit,
            "shares": list(settings.shares),
            "sizes": list(SIZES),
        },
        "zero_rule": ZERO_RULE,
        "datasets": datasets,
        "methods": {name: _method(name) for name in settings.methods},
        "experiments": {name: {"title": e.title, "what": e.what} for name, e in EXPERIMENTS.items()},
        "measures": MEASURES,
        "notes": list(notes),
    }


def _method(name: str) -> dict[str, Any]:
    record = METHODS[name]
    return {
        "title": record.title,
        "reference": record.reference,
        "limits": record.limits,
        "keeps_observed": record.keeps_observed,
        "extra": record.extra,
    }


def _versions() -> dict[str, str]:
    from .. import __version__

    found = {"scautoimpute": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    import psutil

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "threads_per_process": 1,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tidy rows of `results`: one for each score, and one without a score for a cell that has none.

    Each ends in what the run was made with, so that the tables of several runs can be put together.
    """
    manifest = results["manifest"]
    made_with = {part: ", ".join(f"{key} {value}" for key, value in manifest[part].items()) for part in _MADE_WITH}
    for cell in results["cells"]:
        for score in cell["scores"] or [{}]:
            row = cell | score | made_with | {"command": manifest["command"]}
            yield {name: row.get(name) for name in COLUMNS}


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Write ``results.json`` and ``results.csv``.

    Parameters
    ----------
    results
        As `scautoimpute.evaluation.reproduce` returns them.
    folder
        Where to.
    """
    with complete_or_absent(folder / "results.json") as beside:
        beside.write_text(json.dumps(results, allow_nan=False, ensure_ascii=False), encoding="utf-8")
    with complete_or_absent(folder / "results.csv") as beside, beside.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, COLUMNS)
        table.writeheader()
        table.writerows(rows(results))
