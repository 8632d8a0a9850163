"""Many cells out of few: an h5ad of any number of cells, resampled from a real count set, in the memory of a few.

    python benchmarks/resample.py extra/pbmc3k.h5ad cells.h5ad --cells 68579                 # genes of 3 cells or more
    python benchmarks/resample.py extra/pbmc3k.h5ad cells.h5ad --cells 1300000 --genes 1000  # the most dispersed ones

Each cell is one of the real ones, drawn with replacement, with counts drawn anew from Poisson distributions whose
expectations are the real counts: library sizes and means of genes are those of the source, and so is what there is of
structure. Real zeros stay zeros, and some real ones become zeros, so that a cell stores about a third fewer counts than
it did. What the cells are is written in `uns["resampled"]`, and the real cell behind each in `obs["source_cell"]`. The
same source, options and seed give the same file.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse

MIN_CELLS = 3
CELLS_AT_A_TIME = 8192  # part of what the seed stands for


@dataclass(frozen=True)
class Source:
    """Real counts of the chosen genes.

    Attributes
    ----------
    counts
        Cells × genes.
    genes
        Their names.
    name
        Of the file.
    """

    counts: "sparse.csr_matrix"
    genes: "pd.Index[str]"
    name: str

    @classmethod
    def read(cls, path: Path, genes: str) -> "Source":
        """Read counts; `genes` is a number, or 'all' for every gene that is seen in three cells."""
        from scipy import sparse

        import scautoimpute as sai

        adata = sai.read(path)
        layer = sai.io.find_counts(adata).layer
        chosen = chosen_genes(adata, layer, genes)
        counts = sparse.csr_matrix(sai.io.counts_matrix(adata, layer), dtype=np.float32)[:, chosen]
        return cls(counts, adata.var_names[chosen], path.name)


def chosen_genes(adata: Any, layer: str | None, genes: str) -> np.ndarray:
    """Return positions of the most dispersed genes: of those that pass the recipe's filter if these are enough."""
    from scautoimpute._genes import genes_passing, top_genes
    from scautoimpute._recipe import processed_matrix
    from scautoimpute.io import as_observed

    if genes != "all":
        passing = processed_matrix(adata, layer=layer, n_top_genes=int(genes)).genes
        if passing.size == int(genes):
            return passing
    x = as_observed(adata, layer=layer, dtype=np.float64)[0]
    seen = genes_passing(x, min_counts=1, min_cells=MIN_CELLS, reference=False)
    if genes == "all":
        return seen
    if seen.size < int(genes):
        msg = f"{seen.size} genes are seen in {MIN_CELLS} cells, {genes} were asked for: give fewer, or 'all'"
        raise ValueError(msg)
    x.data *= np.repeat(np.median(x.sum(1)) / x.sum(1), np.diff(x.indptr))
    return seen[top_genes(x[:, seen], n_top_genes=int(genes), flavor="dispersion", reference=False)]


def write_resampled(source: Source, output: Path, *, n_cells: int, seed: int, dtype: str = "float32") -> None:
    """Write `n_cells` resampled cells, a block at a time; nothing is under the name of `output` before it is complete.

    Parameters
    ----------
    source
        Where cells are drawn from.
    output
        An h5ad; replaced if it exists.
    n_cells
        How many to draw.
    seed
        Of the draws.
    dtype
        Of the stored counts: float32, as most files have, or uint16.
    """
    from scautoimpute._simulation import redrawn
    from scautoimpute.io.complete import complete_or_absent

    rng = np.random.default_rng([seed, n_cells])
    with complete_or_absent(output.resolve()) as beside, new_file(beside, source, n_cells, seed, dtype) as file:
        for first in range(0, n_cells, CELLS_AT_A_TIME):
            rows = rng.integers(source.counts.shape[0], size=min(CELLS_AT_A_TIME, n_cells - first))
            file.append(redrawn(source.counts, rows, rng), rows)


class ResampledFile:
    """An h5ad to which cells are appended; names of cells too are written a block at a time."""

    def __init__(self, file: h5py.File, source: Source, n_cells: int, dtype: str) -> None:
        from scautoimpute.io._arrays_on_disk import CsrOnDisk, mark

        self.x = CsrOnDisk(file, "X", shape=(n_cells, len(source.genes)), dtype=np.dtype(dtype))
        obs = file.create_group("obs")
        mark(obs, "dataframe", "0.2.0")
        obs.attrs["_index"] = "_index"
        obs.attrs["column-order"] = np.array(["source_cell"], dtype=h5py.string_dtype())
        self.names = obs.create_dataset("_index", (n_cells,), h5py.string_dtype())
        self.rows = obs.create_dataset("source_cell", (n_cells,), np.int32)
        mark(self.names, "string-array", "0.2.0")
        mark(self.rows, "array", "0.2.0")
        self.n_cells = 0

    def append(self, counts: "sparse.csr_matrix", rows: np.ndarray) -> None:
        """Write some more cells, and which real cells they are of."""
        cells = slice(self.n_cells, self.n_cells + len(rows))
        self.x.append(counts)
        self.names[cells] = [f"cell_{number}" for number in range(cells.start, cells.stop)]
        self.rows[cells] = rows
        self.n_cells = cells.stop


@contextmanager
def new_file(path: Path, source: Source, n_cells: int, seed: int, dtype: str) -> Iterator[ResampledFile]:
    """Open a file that holds names of genes, and what its cells will be."""
    import pandas as pd
    from anndata import AnnData
    from anndata.io import write_elem

    how = {
        "source": source.name,
        "source_cells": source.counts.shape[0],
        "cells": n_cells,
        "seed": seed,
        "how": "cells drawn with replacement, counts drawn from Poisson distributions around the real ones",
    }
    with h5py.File(path, "w") as file:
        write_elem(file, "/", AnnData(var=pd.DataFrame(index=source.genes), uns={"resampled": how}))
        del file["obs"]
        yield ResampledFile(file, source, n_cells, dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="h5ad or another file of real counts")
    parser.add_argument("output", type=Path, help="h5ad to write")
    parser.add_argument("--cells", type=int, required=True, help="how many")
    parser.add_argument(
        "--genes", default="all", help="how many, the most dispersed ones (default: all seen in 3 cells)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "uint16"), default="float32", help="of the stored counts")
    arguments = parser.parse_args()
    started = time.perf_counter()
    source = Source.read(arguments.source, arguments.genes)
    write_resampled(source, arguments.output, n_cells=arguments.cells, seed=arguments.seed, dtype=arguments.dtype)
    size = arguments.output.stat().st_size / 1e9
    print(
        f"{arguments.output}: {arguments.cells:,} cells × {len(source.genes):,} genes RESAMPLED from "
        f"{source.counts.shape[0]:,} of {source.name}; {size:.2f} GB in {time.perf_counter() - started:.1f} s"
    )


if __name__ == "__main__":
    main()
