"""Seconds of training and of imputing on a GPU and on the processor of the same machine, side by side.

    python benchmarks/gpu.py --source extra/pbmc3k.h5ad                # every case; minutes on a large machine
    python benchmarks/gpu.py --source extra/pbmc3k.h5ad --cases counts counts_1024

Cells are resampled in memory from those of --source. An epoch takes the difference of two runs that differ by their
number of epochs alone, so that start-up, reading and the last passes are not in it. Writes `results/gpu.md`.
"""

import argparse
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from recovery_tables import markdown, processor
from resample import Source
from scautoimpute import AutoImpute
from scautoimpute._simulation import redrawn

RESULTS = Path(__file__).parent / "results" / "gpu.md"
ABOUT = """# A GPU beside the processor

Cells are RESAMPLED (`benchmarks/resample.py`). Seconds of one epoch (of all networks; of a step, where the training is
full batch) and of imputing all cells; the ratio is how many times faster the GPU is."""


@dataclass(frozen=True)
class Case:
    """What is trained: how many cells of which genes, with which settings, two numbers of epochs by device."""

    cells: int
    genes: str
    settings: dict[str, Any]
    epochs: dict[str, tuple[int, int]] = field(default_factory=lambda: {"cpu": (1, 4), "gpu": (2, 20)})
    unit: str = "epoch"
    log: bool = field(default=False)


COUNTS: dict[str, Any] = {"objective": "counts", "n_networks": 1}
MASKED: dict[str, Any] = {"objective": "masked", "n_folds": 1}
CASES = {
    "counts": Case(10_000, "all", COUNTS),
    "counts_1024": Case(10_000, "all", COUNTS | {"batch_size": 1024}),
    "counts_1000_genes": Case(50_000, "1000", COUNTS),
    "masked": Case(10_000, "1000", MASKED, log=True),
    "masked_2000": Case(10_000, "1000", MASKED | {"hidden": 2000}, log=True),
    "paper": Case(3_000, "1000", {"preset": "paper"}, {"cpu": (5, 25), "gpu": (100, 1100)}, "step", log=True),
}


def matrix(case: Case, source: Path) -> sparse.csr_array:
    """Resampled counts, or logs of them."""
    real = Source.read(source, case.genes)
    rng = np.random.default_rng(0)
    counts = redrawn(real.counts, rng.integers(real.counts.shape[0], size=case.cells), rng)
    x = sparse.csr_array(counts).astype(np.float32)
    return x.log1p() / np.float32(np.log(2)) if case.log else x


def seconds(case: Case, x: sparse.csr_array, device: str, epochs: int) -> tuple[float, float, float]:
    """Return what training for at most so many epochs took, how many each network had, and what imputing took."""
    model = AutoImpute(**case.settings, max_epochs=epochs, device=device, random_state=0)
    started = time.perf_counter()
    model.fit(x)
    trained = time.perf_counter()
    model.impute(x[:5000])
    imputing = (time.perf_counter() - trained) * x.shape[0] / min(x.shape[0], 5000)
    return trained - started, len(model.history_) / model.history_["network"].nunique(), imputing


def row(name: str, source: Path) -> list[str]:
    case = CASES[name]
    x = matrix(case, source)
    found = []
    for device in ("cpu", "gpu"):
        seconds(case, x[:500], device, 1)  # loads libraries and kernels
        (short, few, _), (long, many, imputing) = (seconds(case, x, device, n) for n in case.epochs[device])
        found.append(((long - short) / (many - few), imputing))
    (cpu, cpu_impute), (gpu, gpu_impute) = found
    size = f"{case.cells:,} × {x.shape[1]:,}"
    values = [f"{cpu:.3f}", f"{gpu:.3f}", f"{cpu / gpu:.1f} ×"]
    values += [f"{cpu_impute:.2f}", f"{gpu_impute:.2f}", f"{cpu_impute / gpu_impute:.1f} ×"]
    print(name, size, *values, flush=True)
    return [name, size, case.unit, *values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="h5ad of real counts that cells are resampled from")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # so few epochs converge to nothing
    rows = [row(name, arguments.source) for name in arguments.cases]
    head = ["case", "cells × genes", "of an", "processor, s", "GPU, s", "ratio"]
    head += ["imputing, processor, s", "GPU, s", "ratio"]
    machine = f"{torch.cuda.get_device_name()} beside {processor()}, {torch.get_num_threads()} threads; torch "
    table = "\n\n".join([ABOUT, machine + torch.__version__ + ".", markdown(head, rows)]) + "\n"
    arguments.output.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
