"""Zeros against matched bulk: silent genes should keep theirs, expressed genes should lose them.

Shape suffixes: N cells of a line, G genes, R bulk replicates.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..trial import BY_DEFAULT, Trial, impute_layer

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["WHAT", "run"]

MOST_GENES = 3000

WHAT = (
    "Single cells with bulk RNA-seq of the same line. Bulk: TMM, ln(1 + counts per million), median of replicates; "
    "genes binned by it, as many in each bin, those without a read in bulk (median) in a bin of their own. Genes: all "
    f"that have at least 3 reads in at least 3 cells and are in the bulk, {MOST_GENES} drawn at random where there are "
    "more. Fraction of zeros per bin after imputation. "
    f"{BY_DEFAULT}"
)


def run(trial: Trial) -> dict[str, Any]:
    """Impute all lines at once, then compare each with its bulk."""
    from ...metrics import bulk_bins, bulk_expression, zero_fractions
    from ...metrics.zeros import counts_as_zero
    from ..bulk import read_bulk

    data = trial.task.data
    bulk = read_bulk(str(data.bulk))
    adata = _chosen_genes(trial.read(), set(bulk.index), data.layer)
    x_NG, names = impute_layer(trial, adata, layer=trial.task.data.layer, scale="counts", n_top_genes="all")
    figure = {}
    for line, (label, columns) in data.lines.items():
        is_line = np.ones(len(x_NG), dtype=bool) if label is None else np.asarray(adata.obs[data.labels] == label)
        # Normalised over all genes of the bulk, then looked up
        expression = bulk_expression(bulk[columns].to_numpy().T)[bulk.index.get_indexer(names)]
        bins = bulk_bins(expression)
        fractions = zero_fractions(counts_as_zero(x_NG[is_line]), bin_G=bins.bin_G, n_bins=len(bins.labels))
        for label_of_bin, fraction in zip(bins.labels, fractions, strict=True):
            trial.score(f"{line}: {label_of_bin}", {"zero_fraction": float(fraction)})
        trial.score(line, _summary(x_NG[is_line], bins.bin_G > 0))
        figure[line] = {
            "bins": bins.labels,
            "genes": np.bincount(bins.bin_G, minlength=len(bins.labels)).tolist(),
            "mean_ln_cpm": [_mean(expression[bins.bin_G == number]) for number in range(len(bins.labels))],
            "zero_fraction": [None if np.isnan(f) else round(float(f), 4) for f in fractions],
            "cells": int(is_line.sum()),
        }
    return {"lines": figure}


def _chosen_genes(adata: "AnnData", in_bulk: set[str], layer: str | None) -> "AnnData":
    """Return the genes that pass the recipe's filter and are in the bulk."""
    from ..._recipe import processed_matrix

    kept = processed_matrix(adata, layer=layer, n_top_genes="all").kept
    shared = kept[[name in in_bulk for name in adata.var_names[kept]]]
    if not shared.size:
        msg = (
            f"no gene is both in the bulk and expressed in the {adata.n_obs} cells: give bulk with the same gene names"
        )
        raise ValueError(msg)
    drawn = np.random.default_rng(0).permutation(shared)[:MOST_GENES]
    return adata[:, np.sort(drawn)].copy()


def _summary(x_NG: Any, is_expressed_G: Any) -> dict[str, float]:
    from ...metrics.zeros import counts_as_zero

    is_zero_NG = counts_as_zero(x_NG)
    parts = {"zeros_in_silent": ~is_expressed_G, "zeros_in_expressed": is_expressed_G}
    return {name: float(is_zero_NG[:, genes].mean()) for name, genes in parts.items() if genes.any()}


def _mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 3) if len(values) else None
