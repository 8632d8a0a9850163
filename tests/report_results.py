"""Results such as the evaluation writes, with numbers drawn at random, for tests of what the reports make of them."""

from itertools import pairwise

import numpy as np

METHODS = {
    "none": "No imputation",
    "gene_mean": "Gene mean",
    "gene_cell_bias": "Gene and cell effects",
    "als": "ALS",
    "soft_impute": "Soft-Impute",
    "knn": "kNN smoothing",
    "magic": "MAGIC",
    "scimpute": "scImpute",
    "drimpute": "DrImpute",
    "alra": "ALRA",
    "scvi": "scVI",
    "autoimpute": "AutoImpute",
    "autoimpute-paper": "AutoImpute, as published",
}
DATASETS = {"blakeley": 30, "zeisel": 1799, "usoskin & <others>": 150}
TYPES = ["EPI", "PE", "TE", "interneurons", "pyramidal CA1", "oligodendrocytes", "microglia", "A|B", "mural", "<i>"]
EXPERIMENTS = ("zeros", "recovery", "structure", "scale", "molecules")
SIZES = (1_000, 5_000, 10_000, 68_000)


def results(kind="paper", *, n_seeds=3, n_points=300):
    """Return results of all methods; some failed, one was not run."""
    rng = np.random.default_rng(0)
    datasets = dict(list(DATASETS.items())[: 1 if kind == "evaluation" else None])
    cells = [
        _cell(rng, experiment, dataset, method, seed, n_points)
        for experiment in ("recovery", "structure", "molecules")
        for dataset in datasets
        for method in METHODS
        for seed in range(n_seeds)
    ]
    if kind == "paper":
        cells += [_cell(rng, "zeros", "jurkat_293t", method, 0, n_points) for method in METHODS]
        cells += [_size(rng, n_cells, method) for method in METHODS for n_cells in SIZES]
    found = {"manifest": _manifest(kind, datasets), "cells": cells}
    if kind == "paper":
        return found | {"claims": CLAIMS}
    return found | {"recommendation": "Use AutoImpute: it predicts held-out molecules best.\n\nDo not test with it."}


CLAIMS = [
    {"paper": "lowest RMSE on all seven data sets", "ours": "lowest on 3 of 3", "reproduced": True},
    {"paper": "best ARI on five of eight", "ours": "best on 1 of 3", "reproduced": False},
    {"paper": "scales to 68,000 cells", "ours": "not run", "reproduced": None},
]


def _manifest(kind, datasets):
    facts = {
        name: {"cells": n, "genes": 1000, "types": {"EPI": 8, "TE": 16}, "note": ""} for name, n in datasets.items()
    }
    record = {"reference": "Someone & Other, Journal 1:1 (2018)", "limits": "Takes long.", "extra": None}
    return {
        "kind": kind,
        "command": f"scautoimpute {kind} data -o report",
        "versions": {"scautoimpute": "0.1", "numpy": "2.0"},
        "hardware": {"processor": "Some CPU", "cores": 2, "memory_gb": 7.9},
        "seeds": [0, 1, 2],
        "zero_rule": "Below half a read is zero.",
        "datasets": facts,
        "methods": {name: {"title": title, **record} for name, title in METHODS.items()},
        "experiments": {name: {"title": name, "what": f"How {name} was done."} for name in EXPERIMENTS},
        "notes": ["trapnell: no labels"],
    }


def _cell(rng, experiment, dataset, method, seed, n_points):
    cell = {"experiment": experiment, "dataset": dataset, "method": method, "seed": seed, "asked": {}}
    if method == "scvi" and dataset == "blakeley":
        return cell | _ended("failed", "30 cells are too few")
    if method == "magic" and dataset == "zeisel":
        return cell | _ended("not run", 'install it with: pip install "scautoimpute[compare]"')
    level = 1 + list(METHODS).index(method) / 10
    makes = {"recovery": _recovery, "structure": _structure, "molecules": _molecules, "zeros": _zeros}
    scores, figure = makes[experiment](rng, level, n_points)
    scores = [{"setting": s, "measure": m, "value": float(v)} for s, m, v in scores]
    return cell | _ended("done", "") | {"seconds": 3 * level, "peak_gb": 0.2, "scores": scores, "figure": figure}


def _ended(status, note):
    return {"status": status, "note": note, "seconds": None, "peak_gb": None, "scores": [], "figure": {}}


def _recovery(rng, level, n_points):
    shares = range(10, 60, 10)
    rows = [(f"{s}%", m, level * (1 + s / 200) + rng.normal(0, 0.02)) for s in shares for m in ("rmse", "mae", "nmse")]
    return rows, {}


def _molecules(rng, level, n_points):
    return [("10%", "held_out_deviance", 0.1 * level + rng.normal(0, 1e-3))], {}


def _structure(rng, level, n_points):
    types = rng.integers(len(TYPES), size=n_points)
    around = rng.normal(0, 5, (len(TYPES), 2)) / level
    boxes = {name: np.sort(rng.normal(-level, 1, 5)).round(3).tolist() for name in TYPES}
    rows = [("all types", "ari", min(level / 2, 1)), ("all types", "ari_sd", 0.02)]
    rows += [("all cells", "zero_fraction", 0.9 / level)]
    rows += [("all types", name, level / 4 + rng.normal(0, 0.01)) for name in ("silhouette", "silhouette_all_genes")]
    rows += [(name, "log_cv_median", box[2]) for name, box in boxes.items()]
    rows += [("all types", "log_cv_median", float(np.mean([box[2] for box in boxes.values()])))]
    figure = {"log_cv": boxes, "types": types.tolist(), "type_names": TYPES}
    return rows, figure | {"pca": (around[types] + rng.normal(0, 1, (n_points, 2))).round(3).tolist()}


def _zeros(rng, level, n_points):
    lines, rows = {}, []
    for name in ("Jurkat", "293T"):
        x = [0.0, *np.linspace(0.4, 7, 8).round(2).tolist()]
        y = [0.98, *(0.95 - np.linspace(0.1, 0.9, 8) / level).round(3).tolist()]
        bins = ["silent", *(f"{a} to {b}" for a, b in pairwise(x[1:])), "7 to 9"]
        lines[name] = {"bins": bins, "mean_ln_cpm": x, "zero_fraction": y}
        rows += [(name, "zeros_in_silent", y[0] - level / 100), (name, "zeros_in_expressed", level / 2)]
    return rows, {"lines": lines}


def _size(rng, n_cells, method):
    cell = {"experiment": "scale", "dataset": f"zeisel@{n_cells}", "method": method, "seed": 0}
    cell["asked"] = {"n_cells": n_cells}
    if n_cells == SIZES[-1] and method in {"als", "drimpute"}:
        return cell | _ended("timed out", "more than 300 s")
    use = {"seconds": n_cells / 500 * (1 + list(METHODS).index(method)), "peak_gb": n_cells / 20_000}
    scores = [
        {"setting": f"{n_cells:,} cells, resampled", "measure": name, "value": value} for name, value in use.items()
    ]
    return cell | _ended("done", "") | use | {"scores": scores}
