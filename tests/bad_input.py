"""Every bad input that the command line answers in one line: how to make it, and what it is told.

`tests/test_bad_input.py` runs them and holds `docs/bad_input.md` to what was said.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scautoimpute.datasets import simulate

QUICK = ("--max-epochs", "2", "--hidden", "4", "--n-top-genes", "40")
IMPUTE = ("impute", "cells.h5ad", "-o", "out.h5ad", *QUICK)

GENES = (*IMPUTE[:-2], "--genes", "genes.txt")


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    group, title
        The table that it stands in, and what is wrong in the reader's words.
    arguments
        The command, in a folder where `cells.h5ad` holds good counts.
    make
        Makes the bad input in that folder.
    accepted
        Whether it is imputed all the same, with a warning.
    limit
        The largest file that the process may write, in bytes: a disk that fills up.
    """

    group: str
    title: str
    arguments: tuple[str, ...] = IMPUTE
    make: Callable[[], None] = lambda: None
    accepted: bool = False
    limit: int | None = None


def good() -> ad.AnnData:
    """60 cells × 80 genes of counts."""
    simulated = simulate(n_cells=60, n_genes=80, random_state=0)
    return ad.AnnData(simulated.X, obs=simulated.obs, var=simulated.var)


def changed(change: Callable[[ad.AnnData], ad.AnnData | None]) -> Callable[[], None]:
    """Make `cells.h5ad` from the good counts after a change to them."""

    def make() -> None:
        adata = good()
        with_change = change(adata)
        (adata if with_change is None else with_change).write_h5ad("cells.h5ad")

    return make


def values(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    """Make `cells.h5ad` with other values in a dense X."""

    def make_x(adata: ad.AnnData) -> None:
        adata.X = change(adata.X.toarray())

    return changed(make_x)


def one_entry(value: float) -> Callable[[], None]:
    def put(x: np.ndarray) -> np.ndarray:
        x[40, 3] = value
        return x

    return values(put)


def text(name: str, content: str) -> Callable[[], None]:
    return lambda: Path(name).write_text(content) and None


def of(name: str) -> tuple[str, ...]:
    """The command on another file."""
    return ("impute", name, *IMPUTE[2:])


def cut_short() -> None:
    whole = Path("cells.h5ad").read_bytes()
    Path("cells.h5ad").write_bytes(whole[: len(whole) // 2])


def csv_with(cell: str) -> Callable[[], None]:
    def make() -> None:
        frame = good().to_df().astype(int).astype(str)
        frame.iloc[7, 2] = cell
        frame.to_csv("cells.csv")

    return make


def turned(adata: ad.AnnData) -> ad.AnnData:
    adata.var_names = [f"ENSG{number:011d}" for number in range(adata.n_vars)]
    return adata.T.copy()


def repeated(axis: str) -> Callable[[], None]:
    def repeat(adata: ad.AnnData) -> None:
        names = list(getattr(adata, axis))
        names[1] = names[0]
        setattr(adata, axis, names)

    return changed(repeat)


def model_of_other_genes() -> None:
    adata = good()
    adata.var_names = [f"other_{name}" for name in adata.var_names]
    adata.write_h5ad("other.h5ad")
    command = ("impute", "other.h5ad", "-o", "other_out.h5ad", "--model", "other.model", *QUICK)
    subprocess.run([sys.executable, "-m", "scautoimpute", *command], check=True, capture_output=True)


def empty_rows_and_columns(x: np.ndarray) -> np.ndarray:
    x[5], x[:, 7] = 0, 0
    return x


def logged(adata: ad.AnnData) -> None:
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray() / adata.X.toarray().sum(1, keepdims=True) * 1e4))


def scaled(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0) + 1e-9)


def many_genes() -> None:
    rng = np.random.default_rng(0)
    x = sparse.random_array((60, 30_000), density=0.05, rng=rng, data_sampler=lambda size: rng.poisson(4, size) + 1.0)
    var = pd.DataFrame(index=[f"gene_{number}" for number in range(30_000)])
    ad.AnnData(sparse.csr_matrix(x), var=var).write_h5ad("cells.h5ad")


def two_lots(adata: ad.AnnData) -> None:
    adata.obs["lot"] = ["a", "b"] * 30


def one_of_a_lot(adata: ad.AnnData) -> None:
    adata.obs["lot"] = ["a"] * 59 + ["b"]


def old_output() -> None:
    Path("out.h5ad").write_bytes(b"yesterday's result")


def replace(old: str, new: str) -> tuple[str, ...]:
    return tuple(new if word == old else word for word in IMPUTE)


FILES, VALUES, SHAPE = "The file", "The values", "Shape and names"
OUTPUT, OPTIONS, MODELS = "The output", "Options", "Models and devices"

CASES = [
    Case(FILES, "no such file", of("nowhere.h5ad")),
    Case(FILES, "a suffix that is not known", of("cells.xlsx"), text("cells.xlsx", "a spreadsheet")),
    Case(FILES, "text that is called .h5ad", make=text("cells.h5ad", "not HDF5")),
    Case(FILES, "an .h5ad that is cut short", make=cut_short),
    Case(FILES, "an empty file", of("cells.csv"), text("cells.csv", "")),
    Case(FILES, "a folder that is not 10x output", of("folder"), lambda: Path("folder").mkdir()),
    Case(FILES, "a word among the numbers of a CSV", of("cells.csv"), csv_with("missing!")),
    Case(FILES, "a CSV row that is too long", of("cells.csv"), text("cells.csv", ",A,B\nc1,1,2\nc2,1,2,3\n")),
    Case(FILES, "commas in a .tsv", of("cells.tsv"), text("cells.tsv", ",A,B\nc1,1,2\nc2,1,2\n")),
    Case(VALUES, "a NaN", make=one_entry(np.nan)),
    Case(VALUES, "an infinite value", make=one_entry(np.inf)),
    Case(VALUES, "a negative value", make=one_entry(-2)),
    Case(VALUES, "logs where counts are needed", make=changed(logged)),
    Case(VALUES, "scaled (z-scored) values where counts are needed", make=values(scaled)),
    Case(VALUES, "nothing but zeros", make=values(np.zeros_like)),
    Case(VALUES, "an empty field in a CSV", of("cells.csv"), csv_with("")),
    Case(SHAPE, "genes × cells", make=changed(turned)),
    Case(SHAPE, "one cell", make=changed(lambda adata: adata[:1].copy())),
    Case(SHAPE, "two cells", make=changed(lambda adata: adata[:2].copy())),
    Case(SHAPE, "one gene", make=changed(lambda adata: adata[:, :1].copy())),
    Case(SHAPE, "fewer than 30 cells", make=changed(lambda adata: adata[:20].copy()), accepted=True),
    Case(SHAPE, "30,000 genes", make=many_genes, accepted=True),
    Case(SHAPE, "an empty cell and an empty gene", make=values(empty_rows_and_columns), accepted=True),
    Case(SHAPE, "repeated gene names", make=repeated("var_names"), accepted=True),
    Case(SHAPE, "repeated cell names", make=repeated("obs_names"), accepted=True),
    Case(OUTPUT, "the output exists", make=old_output),
    Case(OUTPUT, "a folder that does not exist", replace("out.h5ad", "nowhere/out.h5ad")),
    Case(OUTPUT, "a folder in place of a file", replace("out.h5ad", "results.h5ad"), Path("results.h5ad").mkdir),
    Case(OUTPUT, "a suffix that cannot be written", replace("out.h5ad", "out.xlsx")),
    Case(OUTPUT, "the disk is full", (*IMPUTE, "--overwrite"), old_output, limit=4096),
    Case(OPTIONS, "no such layer", (*IMPUTE, "--layer", "cuonts")),
    Case(OPTIONS, "the new layer has the name of the old", (*IMPUTE, "--layer", "counts", "--key-added", "counts")),
    Case(OPTIONS, "an unknown objective", (*IMPUTE, "--objective", "variance")),
    Case(OPTIONS, "reads where molecules are needed", (*IMPUTE, "--objective", "counts"), values(lambda x: x * 3000)),
    Case(
        OPTIONS,
        "fractions where molecules are needed",
        (*IMPUTE, "--objective", "counts"),
        values(lambda x: x * 300.5),
    ),
    Case(OPTIONS, "a scale of the other objective", (*IMPUTE, "--scale", "log2")),
    Case(OPTIONS, "a depth that is for another scale", (*IMPUTE, "--depth", "500")),
    Case(OPTIONS, "observed counts kept among estimates", (*IMPUTE, "--keep-observed")),
    Case(OPTIONS, "batches with the masked objective", (*IMPUTE, "--objective", "masked", "--batch-key", "lot")),
    Case(OPTIONS, "no such column of batches", (*IMPUTE, "--batch-key", "lot")),
    Case(OPTIONS, "a batch with one cell", (*IMPUTE, "--batch-key", "lot"), changed(one_of_a_lot)),
    Case(OPTIONS, "no such batch", (*IMPUTE, "--batch-key", "lot", "--as-batch", "z"), changed(two_lots)),
    Case(OPTIONS, "names of genes that are not in the file", GENES, text("genes.txt", "gene_1\nACTB\n")),
    Case(OPTIONS, "no file of gene names", GENES),
    Case(OPTIONS, "an unknown preset", (*IMPUTE, "--preset", "papre")),
    Case(OPTIONS, "an unknown scale", (*IMPUTE, "--scale", "tpm")),
    Case(OPTIONS, "an unknown way to choose genes", (*IMPUTE, "--flavor", "seurat")),
    Case(OPTIONS, "a number of genes that is none", replace("40", "many")),
    Case(OPTIONS, "a width of zero", replace("4", "0")),
    Case(OPTIONS, "a negative seed", (*IMPUTE, "--seed", "-1")),
    Case(OPTIONS, "a share out of range", (*IMPUTE, "--held-out-share", "0.9")),
    Case(MODELS, "no such model", ("impute", "cells.h5ad", "-o", "out.h5ad", "--from-model", "nowhere.model")),
    Case(
        MODELS,
        "a file that is no model",
        ("impute", "cells.h5ad", "-o", "out.h5ad", "--from-model", "cells.h5ad"),
    ),
    Case(
        MODELS,
        "a model trained on other genes",
        ("impute", "cells.h5ad", "-o", "out.h5ad", "--from-model", "other.model"),
        model_of_other_genes,
    ),
    Case(
        MODELS,
        "options of the training beside a trained model",
        ("impute", "cells.h5ad", "-o", "out.h5ad", "--from-model", "some.model", "--hidden", "64"),
    ),
    Case(MODELS, "a device that is not there", (*IMPUTE, "--device", "cuda:7")),
    Case(MODELS, "a device that does not exist", (*IMPUTE, "--device", "gpu")),
]
