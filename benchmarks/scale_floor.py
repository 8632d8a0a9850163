"""The least that a run could take on this machine: its products over their measured rate, its bytes over the disk's.

    python benchmarks/scale_floor.py FOLDER        # measure, in a process of its own, and print the rates as JSON

Multiply-adds of one cell and epoch, with G genes, H hidden units and n counts stored:

- counts: 3·G·H of the decoder (logits, and the gradients of weights and hidden layer) and 2·n·H of the encoder, whose
  input is sparse; once more G·H + n·H when the cell is imputed. In bfloat16 where the processor multiplies that.
- masked: 7·G·H (2·G inputs, residuals and which are there; the input needs no gradient) of every network; once more
  3·G·H of each when the cell is imputed. In float32, training on many cells in bfloat16 where the processor has it.

Bytes: the input is read once, the output is written once. Evaluation, the softmax and whatever else is not counted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIDDEN = 128
MANY_CELLS = 5000  # above which the masked objective is trained by blocks, in bfloat16
BYTES = 2**29  # of the file that the disk is measured with


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second.

    Attributes
    ----------
    float32, bfloat16
        Multiply-adds of a large matrix product, with all threads.
    read, write
        Bytes of a large file, past the cache.
    threads
        Of the products.
    """

    float32: float
    bfloat16: float
    read: float
    write: float
    threads: int

    @classmethod
    def measured(cls, folder: Path) -> "Rates":
        """Measure in another process, so that the one that runs the benchmark stays small."""
        done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True, check=True)
        return cls(**json.loads(done.stdout))


@dataclass(frozen=True)
class Work:
    """What a run did.

    Attributes
    ----------
    objective
        `"counts"` or `"masked"`.
    cells, genes, hidden
        Sizes; genes that are modelled.
    stored
        Counts in the input.
    epochs
        Of all networks together.
    networks
        How many there are.
    bytes_read, bytes_written
        Sizes of input and output.
    """

    objective: str
    cells: int
    genes: int
    hidden: int
    stored: int
    epochs: int
    networks: int
    bytes_read: int
    bytes_written: int

    def multiply_adds(self) -> float:
        """Of all matrix products."""
        dense, sparse = self.cells * self.genes * self.hidden, self.stored * self.hidden
        of_an_epoch = 3 * dense + 2 * sparse if self.objective == "counts" else 7 * dense
        return self.epochs * of_an_epoch + self.imputing()

    def imputing(self) -> float:
        """Those of imputing all cells."""
        dense, sparse = self.cells * self.genes * self.hidden, self.stored * self.hidden
        return dense + sparse if self.objective == "counts" else self.networks * 3 * dense

    def product_seconds(self, rates: Rates) -> float:
        """Of the products, at the rate of large ones."""
        fast = max(rates.float32, rates.bfloat16)
        trained = self.multiply_adds() - self.imputing()
        of_many = self.objective == "counts" or self.cells > MANY_CELLS
        imputed = self.imputing() / (fast if self.objective == "counts" else rates.float32)
        return trained / (fast if of_many else rates.float32) + imputed

    def disk_seconds(self, rates: Rates) -> float:
        """Of reading the input and writing the output."""
        return self.bytes_read / rates.read + self.bytes_written / rates.write


def measure(folder: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(2048, 2048).to(dtype)
        found[str(dtype).removeprefix("torch.")] = 2048**3 / fastest(lambda a=a: a @ a)
    return found | disk(folder)


def fastest(work: Callable[[], Any], repeats: int = 10) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def disk(folder: Path) -> dict[str, float]:
    """Bytes per second of writing a file until it is on the disk, and of reading it again from there."""
    path, block = folder / "disk.tmp", os.urandom(2**24)
    try:
        started = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        written = time.perf_counter() - started
        started = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            while file.read(len(block)):
                pass
        return {"write": BYTES / written, "read": BYTES / (time.perf_counter() - started)}
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the disk is measured")
    print(json.dumps(measure(parser.parse_args().folder)))
