"""What a run did, as lines for a reader or as JSON for a program."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import typer

__all__ = ["line", "memory_in_words", "report", "summarise"]

_ESTIMATES = {
    "masked": "expression given that it was detected: for recovering values, "
    "not for clustering or differential expression",
    "counts": "how many molecules are expected of every gene in every cell, zeros counted",
}
_SCORE_OF = {"masked": "rmse", "counts": "deviance"}
_EXPECTED = "expected expression, zeros counted: for clustering and other analyses of whole cells"


def summarise(
    record: dict[str, Any], key: str, source: Path | str, output: Path, started: float, *, assumed: str
) -> dict[str, Any]:
    """Everything that is told of a run, by the record that it leaves; `assumed` says why the counts are where."""
    from .. import __version__

    return {
        "version": __version__,
        "input": str(source),
        "counts": assumed,
        "output": str(output),
        "layer": key if "n_zeros" in record else None,
        "scale": record["scale_in_words"],
        "cells": record["recipe"]["n_cells"],
        "genes": record["recipe"]["n_genes_in"],
        "genes_modelled": len(record["genes"]),
        "zeros": record.get("n_zeros"),
        "zeros_filled": record.get("n_zeros_filled"),
        **(_of_training(record) if "settings" in record else _of_method(record)),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_gb": _peak_memory_gb(),
    }


def _of_training(record: dict[str, Any]) -> dict[str, Any]:
    scores, objective = record.get("held_out"), record["objective"]
    by = _SCORE_OF[objective]
    told = {
        "method": "autoimpute",
        "objective": objective,
        "objective_reason": record.get("objective_reason", "as the model was trained"),
        "estimate": _EXPECTED if objective == "masked" and record["estimand"] == "expected" else _ESTIMATES[objective],
        f"held_out_{by}": {name: s[by] for name, s in scores.items() if name != "n"} if scores else None,
        "held_out_entries": scores["n"] if scores else 0,
        "trained_before": record["trained_before"],
        "weights": record["weights"],
        "converged": record["converged"],
    }
    if objective == "counts":
        told |= {"weights_in_words": record["weights_in_words"], "batches": list(record.get("batches", []))}
        told |= {"staged": record.get("staged")}
    return told


def _of_method(record: dict[str, Any]) -> dict[str, Any]:
    return {"method": record["method"], "reference": record["reference"], "limits": record["limits"]}


def _peak_memory_gb() -> float | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def report(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    lines = {
        "counts": summary["counts"],
        "cells × genes": f"{summary['cells']} × {summary['genes']} ({summary['genes_modelled']} modelled)",
        "zeros filled": _filled_in_words(summary),
        "objective": _objective_in_words(summary),
        "held-out RMSE": _scores_in_words(summary),
        "held-out deviance": _deviance_in_words(summary),
        "mixture": summary.get("weights_in_words"),
        "batches": ", ".join(summary.get("batches", [])) or None,
        "trained on": summary.get("staged"),
        "time, peak memory": f"{summary['seconds']:.1f} s, {memory_in_words(summary)}",
        "result": f"{summary['output']}, {_result_in_words(summary)}",
        "what it estimates": summary.get("estimate"),
        "method": summary.get("reference"),
        "its limits": summary.get("limits"),
    }
    for name, text in lines.items():
        if text is not None:
            typer.echo(line(name, text))


def _filled_in_words(summary: dict[str, Any]) -> str | None:
    if summary["zeros"] is None:
        return None
    return f"{summary['zeros_filled']:,} of {summary['zeros']:,} in the modelled genes"


def _result_in_words(summary: dict[str, Any]) -> str:
    if summary["layer"] is None:
        return "obsm 'X_autoimpute': the embedding alone, no layer"
    return f"layer {summary['layer']!r}: {summary['scale']}"


def memory_in_words(summary: dict[str, Any]) -> str:
    """Return the peak memory of a run."""
    return "unknown" if summary["peak_memory_gb"] is None else f"{summary['peak_memory_gb']} GB"


def line(name: str, text: object) -> str:
    return f"{name:<19} {text}"


def _scores_in_words(summary: dict[str, Any]) -> str | None:
    if "held_out_rmse" not in summary:
        return None
    scores = summary["held_out_rmse"]
    if scores is None:
        return "not measured: nothing was held out (--held-out-share 0.1 holds out and scores 10 %)"
    return (
        f"{scores['model']:.4g} on {summary['held_out_entries']:,} entries the model never saw"
        f"{', when it was trained' if summary['trained_before'] else ''} "
        f"(gene mean {scores['gene_mean']:.4g}, gene + cell bias {scores['gene_cell_bias']:.4g}); log2 scale"
    )


def _objective_in_words(summary: dict[str, Any]) -> str | None:
    return f"{summary['objective']} ({summary['objective_reason']})" if "objective" in summary else None


def _deviance_in_words(summary: dict[str, Any]) -> str | None:
    scores = summary.get("held_out_deviance")
    if scores is None:
        return None
    return (
        f"{scores['model']:.4g} per molecule, of {summary['held_out_entries']:,} that the model never saw"
        f"{', when it was trained' if summary['trained_before'] else ''} "
        f"(gene mean {scores['gene_mean']:.4g}, no imputation {scores['no_imputation']:.4g}); Poisson, lower is better"
    )
