"""How often each measure of harm accuses what does no harm: nominally 1 % of the draws.

    python benchmarks/null_sizes.py [--draws 200]

Simulated cells of one type whose genes follow three programmes, and of three types; each draw is other data. Harmless
are: the same cells in another order (`halves`: every correlation of the genes is kept, the splits are others), no
imputation (`permuted`: the permuted data are compared with other permutations) and the true rates (`correlations`,
`neighbours`).
Of `markers`, `silent` and `rare` no imputation is within its null by construction. Writes
`benchmarks/results/null_sizes.md`.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse, stats

from recovery_tables import hardware, markdown
from scautoimpute import datasets
from scautoimpute.metrics import correlation_shift, neighbour_variance_share, permuted_correlations
from scautoimpute.metrics._molecules import logs_of
from scautoimpute.metrics.expression import null_differential_expression

RESULTS = Path(__file__).parent / "results" / "null_sizes.md"
STRENGTHS = {"independent genes": 0.0, "correlated genes": 0.3, "strongly correlated genes": 0.6}
Draw = Callable[[int], bool]  # seed → whether harm was found


def halves(strength: float, seed: int) -> bool:
    rng = np.random.default_rng(seed)
    programmes = rng.normal(size=(150, 3)) @ rng.normal(0, 1, size=(3, 200)) * strength
    rate = rng.gamma(1, 1, size=200) * np.exp(programmes)
    depth = 1500 * np.exp(rng.normal(0, 0.3, size=(150, 1)))
    logs = logs_of(rng.poisson(rate / rate.sum(axis=1, keepdims=True) * depth)).toarray()
    return null_differential_expression(logs, after=rng.permutation(logs), random_state=seed).harmful


def typed(seed: int) -> tuple[Any, Any]:
    """Counts, and their true rates as imputed logs."""
    made = {"n_cells": 150, "n_genes": 120, "library_size": 2000, "dropout": 0, "overdispersion": 0}
    adata = datasets.simulate(**made, random_state=seed)
    return adata.X, logs_of(sparse.csr_array(adata.layers["truth"].astype(float))).toarray()


def permuted(seed: int) -> bool:
    counts, _ = typed(seed)
    return permuted_correlations(counts, impute=lambda x, _: logs_of(x).toarray(), random_state=seed).harmful


def correlations(seed: int) -> bool:
    counts, truth = typed(seed)
    return correlation_shift(counts, after=truth, random_state=seed).harmful


def neighbours(seed: int) -> bool:
    counts, truth = typed(seed)
    return neighbour_variance_share(counts, after=truth, random_state=seed).harmful


def cases() -> Iterator[tuple[str, str, Draw]]:
    for name, strength in STRENGTHS.items():
        yield "halves", f"cells in another order, {name}", lambda seed, by=strength: halves(by, seed)
    yield "permuted", "no imputation", permuted
    yield "correlations", "the true rates", correlations
    yield "neighbours", "the true rates", neighbours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    rows = []
    for measure, harmless, draw in cases():
        found = sum(draw(seed) for seed in range(draws))
        between = stats.binomtest(found, draws).proportion_ci(0.95)
        rows.append([measure, harmless, f"{found} of {draws}", f"{100 * between.low:.1f}–{100 * between.high:.1f} %"])
        print(rows[-1], flush=True)
    table = markdown(["measure", "harmless", "called harmful", "95 % interval"], rows)
    about = "Draws of simulated data in which a measure of harm accuses what does none; 1 % is nominal."
    RESULTS.write_text("\n\n".join(["# The size of the nulls", hardware(1), about, table]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
