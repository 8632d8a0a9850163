"""What an epoch of the counts objective is spent on, beside the least that it could take; and seconds to the end.

    python benchmarks/counts_speed.py --data DIR            # DIR holds extra/pbmc3k.h5ad
    python benchmarks/counts_speed.py --data DIR --fit      # and train until it stops

A part's floor is its multiply-adds over the rate of a large matrix product, or its bytes over the rate of a large copy,
both measured first on the same machine. Times are processor time with one thread, the fastest of several calls: other
work on the machine only adds to them.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from scautoimpute import AutoImpute
from scautoimpute.model.counts import build_network
from scautoimpute.model.counts_fit import AVERAGE_EVERY
from scautoimpute.model.counts_inputs import CountsEncoding
from scautoimpute.model.counts_network import Rows, Workspace, hidden_layer, multinomial_loss, offsets, product_type
from scautoimpute.model.network import initialise_small
from scautoimpute.model.optimizer import make_optimizer
from scautoimpute.model.thinning import thin_values, with_values
from scautoimpute.model.training import average_weights

CPU = torch.device("cpu")
HIDDEN = 128
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def fastest(work: Callable[[], Any], repeats: int = 20) -> float:
    """Milliseconds of processor time of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1e3 * min(times)


def rates() -> dict[Any, float]:
    """Multiply-adds per ms in each type, and bytes per ms."""
    found: dict[Any, float] = {}
    for dtype in TYPES:
        a = torch.randn(1024, 1024).to(dtype)
        found[dtype] = 1024**3 / fastest(lambda a=a: a @ a)
    source, target = torch.randn(2**24), torch.empty(2**24)
    found["bytes"] = 2 * source.nbytes / fastest(lambda: target.copy_(source))
    return found


class Batch:
    """One batch and a network, with each part of a step as a method."""

    def __init__(self, x: sparse.csr_array, dtype: torch.dtype, size: int = 128) -> None:
        self.dtype, self.rng = dtype, np.random.default_rng(0)
        batch_N = np.zeros(x.shape[0], dtype=np.intp)
        self.encoding = CountsEncoding.fit(x, batch_N)
        self.x, self.batch_B = x[self.rng.permutation(x.shape[0])[:size]], batch_N[:size]
        self.net = build_network(x.shape[1], 1, (HIDDEN,))
        initialise_small(self.net, torch.Generator().manual_seed(0), encoder_sd=0.0183)
        first = self.net.layers[0].weight
        first.data = first.data.t().contiguous().t()
        self.averaged = build_network(x.shape[1], 1, (HIDDEN,))
        self.averaged.load_state_dict(self.net.state_dict())
        self.averaged.requires_grad_(False).layers[0].weight.data = first.data.clone()
        self.optimizer = make_optimizer("adamw", self.net.parameters(), lr=3e-3)
        self.workspace = Workspace()
        self.thin()
        self.forward()
        self.loss().backward()

    def thin(self) -> None:
        """Show a share of the molecules, and leave the others as the target."""
        shown_Z = thin_values(self.x.data, 0.6, self.rng)
        self.shown, self.target = with_values(self.x, shown_Z), with_values(self.x, self.x.data - shown_Z)
        self.inputs = self.encoding.encode(self.shown, self.batch_B)

    def forward(self) -> None:
        """First layer and activation."""
        self.h_BH = hidden_layer(self.net, self.inputs, self.encoding.centre_I)

    def encoder(self) -> None:
        """First layer, and its gradient."""
        self.forward()
        self.h_BH.backward(torch.ones_like(self.h_BH))

    def loss(self) -> torch.Tensor:
        """Loss of the head."""
        offset_BG, y = offsets(self.net, self.encoding, self.batch_B), Rows.of(self.target, CPU)
        weight = self.net.decoder.weight
        return multinomial_loss(self.h_BH, weight, offset_BG, y, dtype=self.dtype, workspace=self.workspace)

    def head(self) -> None:
        """Loss of the head, and its gradients."""
        self.h_BH = self.h_BH.detach().requires_grad_()
        self.loss().backward()

    def products(self) -> Callable[[], None]:
        """Return the three products with the decoder alone, as a function."""
        h, weight = self.h_BH.detach().to(self.dtype), self.net.decoder.weight.detach().to(self.dtype)
        by_logit = torch.randn(len(h), len(weight)).to(self.dtype)

        def work() -> None:
            torch.mm(h, weight.t(), out=by_logit)
            _ = by_logit @ weight, by_logit.t() @ h

        return work

    def average(self) -> None:
        """Running mean of the weights."""
        average_weights(tuple(self.averaged.parameters()), tuple(self.net.parameters()), 0.99)


def table(x: sparse.csr_array, dtype: torch.dtype, rate: dict[Any, float]) -> list[tuple[str, float, float]]:
    """Milliseconds and floor of each part of a step."""
    batch = Batch(x, dtype)
    size, n_genes, n_weights = batch.x.shape[0], x.shape[1], sum(p.numel() for p in batch.net.parameters())
    products = fastest(batch.products())
    entries, width = size * n_genes, torch.finfo(dtype).bits // 8
    # The gradient table is written once and read by the optimiser; of the table the rows of the stored genes are read
    encoder_bytes = 4 * n_genes * HIDDEN * 2
    return [
        ("thinning and inputs", fastest(batch.thin), batch.x.nnz * 16 / rate["bytes"]),
        ("encoder, CSR × dense", fastest(batch.encoder), encoder_bytes / rate["bytes"]),
        ("decoder, 3 products", products, 3 * entries * HIDDEN / rate[dtype]),
        ("softmax and target", fastest(batch.head) - products, entries * (2 * width + 4 * 4) / rate["bytes"]),
        ("optimiser", fastest(batch.optimizer.step), 7 * 4 * n_weights / rate["bytes"]),
        ("average", fastest(batch.average) / AVERAGE_EVERY, 3 * 4 * n_weights / AVERAGE_EVERY / rate["bytes"]),
    ]


def genes_seen(path: Path) -> sparse.csr_array:
    """Counts of the genes that at least three cells show."""
    import anndata

    x = sparse.csr_array(anndata.read_h5ad(path).X).astype(np.float32)
    x = x[:, np.flatnonzero(np.bincount(x.indices, minlength=x.shape[1]) >= 3)]
    x.sort_indices()
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", default="extra/pbmc3k")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, rate = genes_seen(arguments.data / f"{arguments.name}.h5ad"), rates()
    print(f"{arguments.name}: {x.shape[0]} cells × {x.shape[1]} genes, {x.nnz / x.shape[0]:.0f} stored counts a cell")
    print(f"one thread; {rate['bytes'] / 1e6:.0f} GB/s; multiply-adds: ", end="")
    print(", ".join(f"{rate[dtype] / 1e6:.0f} G/s {name}" for dtype, name in TYPES.items()))
    n_steps = -(-x.shape[0] // 128)
    for dtype, name in TYPES.items():
        rows = table(x, dtype, rate)
        chosen = " (chosen on this processor)" if dtype == product_type(CPU) else ""
        print(
            f"\n{name}{chosen}: ms per epoch of {n_steps} batches of 128 cells\n\n| part | ms | floor |\n|---|--:|--:|"
        )
        for part, found, floor in [*rows, ("sum", *np.sum([row[1:] for row in rows], axis=0))]:
            print(f"| {part} | {n_steps * found:.0f} | {n_steps * floor:.0f} |")
    if arguments.fit:
        torch.set_num_threads(n_threads)
        started, used = time.perf_counter(), time.process_time()
        model = AutoImpute("counts", device="cpu", random_state=0).fit(x)
        epochs = len(model.history_)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        print(f"\nfit, {n_threads} threads: {seconds:.1f} s ({used:.1f} s of processor), {epochs} epochs")


if __name__ == "__main__":
    main()
