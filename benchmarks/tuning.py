"""Does tuning help, and what does dropping bad candidates early save? Default against tuned, on untouched entries.

    python benchmarks/tuning.py                                # the grid below on three of the paper's sets, seeds 0-2
    python benchmarks/tuning.py --datasets blakeley --seeds 1 --n-top-genes 1000 --preset paper --max-epochs 1000

Per data set and seed: successive halving as `scautoimpute.tl.tune` does it, then, with seed 0, every candidate of the
same grid to its own end. Everything in one thread; the time is that of the processor, which others on it do not change.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import torch

from recovery_tables import hardware, markdown
from scautoimpute import tl
from scautoimpute.tuning import Tuning

HERE = Path(__file__).parent
SETS = ("blakeley", "preimplantation_deng", "jurkat_293t")
GRIDS: dict[str | None, dict[str, list[float]]] = {
    None: {"l2": [0.01, 1], "learning_rate": [1e-3, 3e-3, 1e-2], "threshold": [2e-3, 2e-4], "hidden": [32, 128]},
    "paper": {"l2": [1, 10, 100], "learning_rate": [1e-4, 1e-3], "threshold": [1e-2, 1e-4], "hidden": [64, 500]},
}
HEADER = [
    "data set",
    "seed",
    "defaults",
    "halving",
    "gain ± 2 s.e.",
    "full grid",
    "chosen by halving",
    "chosen by grid",
]
HEADER += ["seconds: halving", "full grid", "saved"]


def search(adata: anndata.AnnData, options: argparse.Namespace, seed: int, **changed: Any) -> tuple[Tuning, float]:
    """What a search found, and the processor time that it took."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty cells: the same ones in every search
        found = tl.tune(
            adata,
            preset=options.preset,
            grid=GRIDS[options.preset],
            n_top_genes=options.n_top_genes,
            max_resources=options.max_epochs,
            device="cpu",
            random_state=seed,
            **changed,
        )
    return found, time.process_time() - started


def row(name: str, seed: int, adata: anndata.AnnData, options: argparse.Namespace) -> list[str]:
    halving, seconds = search(adata, options, seed)
    scores = halving.scores
    cells = [name, str(seed), f"{scores['default']['rmse']:.4f}", f"{scores['best']['rmse']:.4f}"]
    cells.append(f"{halving.gain:+.2%} ± {2 * halving.gain_se:.2%}")
    if seed >= options.full_seeds:
        return [*cells, "–", chosen(halving), "–", f"{seconds:.0f}", "–", "–"]
    longest = int(halving.table["max_epochs"].max())
    full, full_seconds = search(adata, options, seed, min_resources=longest)
    cells += [f"{full.scores['best']['rmse']:.4f}", chosen(halving), chosen(full)]
    return [*cells, f"{seconds:.0f}", f"{full_seconds:.0f}", f"{1 - seconds / full_seconds:.0%}"]


def chosen(found: Tuning) -> str:
    if found.table["default"].iloc[0]:
        return "the defaults"
    return ", ".join(f"{name} {value:g}" for name, value in found.best.items())


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    torch.set_num_threads(1)
    rows = []
    for name in options.datasets:
        adata = anndata.read_h5ad(options.data / f"{name}.h5ad")
        for seed in range(options.seeds):
            rows.append(row(name, seed, adata, options))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
            options.output.write_text(page(rows, options, arguments), encoding="utf-8")  # what is known, if cut off
    print(page(rows, options, arguments))
    return 0


def page(rows: list[list[str]], options: argparse.Namespace, arguments: Sequence[str]) -> str:
    grid = "; ".join(f"{name} {', '.join(f'{v:g}' for v in values)}" for name, values in GRIDS[options.preset].items())
    parts = [
        f"# Tuning{' of the published training' if options.preset else ''}",
        f"`{' '.join(['python benchmarks/tuning.py', *arguments])}`",
        hardware(1),
        f"Grid: {grid}; and the defaults. Genes: {options.n_top_genes}. RMSE (log2 scale) at entries that took no part "
        "in training, stopping or choosing; gain of halving's choice over the defaults, twice its standard error over "
        "cells. Seconds of processor time in one thread; the full grid on the first seeds only.",
        markdown(HEADER, rows),
    ]
    return "\n\n".join(parts) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=HERE.parent.parent / "shared/data/paper", help="folder of the paper's .h5ad files")
    add("--datasets", nargs="+", default=SETS, metavar="NAME", help=f"default: {' '.join(SETS)}")
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    add("--full-seeds", type=int, default=1, metavar="N", help="seeds on which the full grid is run too (default: 1)")
    add("--n-top-genes", type=int, default=300, metavar="N", help="genes to model (default: 300, for time)")
    add("--preset", choices=["paper"], help="tune the published training instead of the default recipe")
    add("--max-epochs", type=int, metavar="N", help="at most so many in the last rung (default: the preset's)")
    add("--output", type=Path, default=HERE / "results/tuning.md", help="markdown file to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
