"""What products in bfloat16 cost in accuracy: the same training with products in float32, scored on what neither saw.

    python benchmarks/products.py --data DIR

Counts: a tenth of the molecules held out of each set, gain over gene frequencies in milli-nats a molecule. Masked: a
tenth of the non-zeros of more than 5,000 cells (of fewer its products are in float32), RMSE. Beside them the same
training in bfloat16 from another seed: what chance alone moves. Writes `benchmarks/results/products.md`.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from denoising_data import find, split_of
from denoising_rivals import autoimpute_counts
from recovery import processed
from recovery_tables import hardware, markdown
from rivals import autoimpute
from scautoimpute.metrics import hide_entries, multinomial_gain, recovery_scores
from scautoimpute.model.counts_network import product_type

HERE = Path(__file__).parent
COUNTS = ("tung_NA19098", "mixology_sc_dropseq", "pbmc68k_700x765", "zeisel_descend_1464", "zeisel", "pbmc3k")
MASKED = ("pbmc_zheng_combined_9k", "neurons_1M_10k_x_1000")
CPU = torch.device("cpu")
ANOTHER = 100  # added to a seed


def gain(dataset: str, seed: int, start: int, data: Path) -> float:
    """Of the counts objective, milli-nats a molecule; `start` is the seed of the training."""
    split = split_of(dataset, seed, data)
    estimate = next(autoimpute_counts(split.train, start))
    return float(multinomial_gain(split.held_out, estimate.scored_NG, train=split.train))


def error(dataset: str, seed: int, start: int, data: Path) -> float:
    """Of the masked objective, RMSE at the hidden entries."""
    hidden = hide_entries(processed(dataset, "dispersion", find(dataset, data).parent), share=0.1, random_state=seed)
    return recovery_scores(hidden.truth, autoimpute(hidden.visible, start)[hidden.rows, hidden.cols])["rmse"]


def in_float32() -> AbstractContextManager[Any]:
    """Have this process find no processor that multiplies bfloat16."""
    no = dict.fromkeys(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), lambda: False)
    return patch.multiple(torch.cpu, **no)


def measured(data: Path, seeds: int) -> Iterator[tuple[str, str, int, list[float], list[float]]]:
    """Yield objective, data set, seed, the three scores and their seconds."""
    for objective, names, score in (("counts", COUNTS, gain), ("masked", MASKED, error)):
        for dataset in (name for name in names if find(name, data)):
            for seed in range(seeds if objective == "counts" else 1):
                scores, seconds = [], []
                for products, start in ((nullcontext(), seed), (in_float32(), seed), (nullcontext(), seed + ANOTHER)):
                    began = time.perf_counter()
                    with products:
                        scores.append(score(dataset, seed, start, data))
                    seconds.append(time.perf_counter() - began)
                yield objective, dataset, seed, scores, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data", help="folder of .h5ad files")
    parser.add_argument("--seeds", type=int, default=3, help="splits of each set of counts (default: 3)")
    options = parser.parse_args()
    if product_type(CPU) == torch.float32:
        print("this processor does not multiply bfloat16: there is nothing to compare", file=sys.stderr)
        return 1
    warnings.simplefilter("ignore", UserWarning)
    lines = []
    for objective, dataset, seed, scores, seconds in measured(options.data, options.seeds):
        digits = 2 if objective == "counts" else 4
        told = [f"{score:.{digits}f}" for score in scores]
        lines.append([objective, dataset, str(seed), *told, *(f"{s:.0f}" for s in seconds[:2])])
        print(lines[-1], flush=True)
    header = ["objective", "data set", "seed", "bfloat16", "float32", "bfloat16, another start", "s", "s, float32"]
    about = (
        "Products of matrices in bfloat16 and in float32, all else alike. Counts: milli-nats a held-out molecule over "
        "gene frequencies, more is better; masked: RMSE at hidden entries, less is better. The third is what another "
        "seed of the training moves. Seconds are by the clock, other work beside."
    )
    page = ["# Accuracy of products in bfloat16", hardware(1), about, markdown(header, lines)]
    (HERE / "results" / "products.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
