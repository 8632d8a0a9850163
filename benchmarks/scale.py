"""Time and memory from a thousand cells to 1.3 million, each run a process of its own through the command line.

    python benchmarks/scale.py --source extra/pbmc3k.h5ad                      # runs of up to 10,000 cells: minutes
    python benchmarks/scale.py --source extra/pbmc3k.h5ad --cells 1300000      # runs of so many cells
    python benchmarks/scale.py --source extra/pbmc3k.h5ad --families counts_all magic_all --cells 68579
    python benchmarks/scale.py --table                                         # only print the table there is

Inputs are RESAMPLED cells (benchmarks/resample.py), made in --folder if they are not there. A run is `scautoimpute
impute IN -o OUT` with the options of its case (benchmarks/scale_cases.py) and those of --extra; seconds are of the
whole process, processor seconds and peak memory those of the operating system. One row of
`benchmarks/results/scale.csv` per run; a case that has --repeats rows is not run again. Beside each stands its floor
(benchmarks/scale_floor.py), of rates measured before the first run: the machine has to be quiet. MAGIC, scVI and the
training to convergence run when named in --families; scVI may have another --python.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any

from row_files import read_rows, write_rows
from scale_cases import CASES, SIZES, Case
from scale_floor import HIDDEN, Rates, Work
from scale_tables import write_tables

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale.csv"
FAMILIES = tuple(dict.fromkeys(case.family for case in CASES))
USUAL = ("counts_1000", "counts_all", "counts_10000", "masked_5_minutes", "masked_2000")
NOT_KNOWN = float("nan")


@dataclass
class Row:
    """One run.

    Attributes
    ----------
    wall_s, cpu_s, peak_gb
        Of the whole process.
    imports_s
        Of that, seconds that loading libraries takes in a process that does nothing else.
    epochs
        Of all networks together.
    held_out, held_out_floor
        Error of the model at what was held out, and of gene means: deviance per molecule (counts) or RMSE (masked).
    product_s, disk_s
        The floor.
    threads, load
        Of the products, and how many processes ran beside the benchmark, over the last minute.
    note
        Why it did not end, if it did not.
    """

    family: str
    cells: int
    genes: int
    options: str
    wall_s: float
    cpu_s: float
    peak_gb: float
    imports_s: float
    epochs: int
    held_out: float
    held_out_floor: float
    input_gb: float
    output_gb: float
    product_s: float
    disk_s: float
    threads: int
    load: float
    version: str
    note: str


# ---------------------------------------------------------------------------------------------------------- one run


def input_of(case: Case, source: Path, folder: Path) -> Path:
    """Return resampled cells, made in a process of its own unless they are there."""
    path = folder / f"{source.stem}_{case.genes}_{case.cells}.h5ad"
    if not path.exists():
        size = ["--cells", str(case.cells), "--genes", case.genes]
        subprocess.run([sys.executable, HERE / "resample.py", source, path, *size], check=True)
    return path


def command_of(case: Case, cells: Path, output: Path, extra: list[str]) -> list[str]:
    """Options of a run; names of the genes of the output are written beside it."""
    options = [*case.options, *extra]
    if "--method" not in case.options:
        options += ["--n-top-genes", "all", "--model", str(output.with_suffix(".model"))]
    if case.output_genes is not None:
        names = output.with_suffix(".genes.txt")
        names.write_text("\n".join(genes_of(cells)[:: max(1, int(case.genes) // case.output_genes)]))
        options += ["--output-genes", str(names)]
    return ["impute", str(cells), "-o", str(output), "--overwrite", "--json", *options]


def genes_of(path: Path) -> list[str]:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path) as file:
        return read_elem(file["var"]).index.tolist()


def run(case: Case, cells: Path, folder: Path, *, python: str, extra: list[str], rates: Rates) -> Row:
    """Run a case, and look at what it wrote."""
    output = folder / "output.h5ad"
    load = os.getloadavg()[0]
    whole = [python, "-m", "scautoimpute", *command_of(case, cells, output, extra)]
    measured, told, note = process(whole)
    objective = told.get("objective", "")
    floor = (NOT_KNOWN, NOT_KNOWN)
    epochs = networks = 0
    if objective:
        epochs, networks = trained(output)
        work = Work(
            objective, case.cells, told["genes_modelled"], hidden_of(case), stored_in(cells), epochs, networks,
            cells.stat().st_size, output.stat().st_size,
        )  # fmt: skip
        floor = work.product_seconds(rates), work.disk_seconds(rates)
    scores = told.get(f"held_out_{'deviance' if objective == 'counts' else 'rmse'}") or {}
    row = Row(
        family=case.family,
        cells=case.cells,
        genes=len(genes_of(cells)),
        options=shlex.join([*case.options, *extra]),
        **measured,
        imports_s=imports(whole) if case.cells == SIZES[0] and not note else NOT_KNOWN,
        epochs=epochs,
        held_out=scores.get("model", NOT_KNOWN),
        held_out_floor=scores.get("gene_mean", NOT_KNOWN),
        input_gb=cells.stat().st_size / 1e9,
        output_gb=output.stat().st_size / 1e9 if output.exists() else NOT_KNOWN,
        product_s=floor[0],
        disk_s=floor[1],
        threads=rates.threads,
        load=load,
        version=version(),
        note=note,
    )
    for path in folder.glob("output.*"):
        path.unlink()
    return row


def process(command: list[str]) -> tuple[dict[str, float], dict[str, Any], str]:
    """Run a process; return what it took, the summary that it printed, and its last words if it failed."""
    started = time.perf_counter()
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        measured = {
            "wall_s": time.perf_counter() - started,
            "cpu_s": used.ru_utime + used.ru_stime,
            "peak_gb": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
        }
        said, words = (text_of(file) for file in (out, err))
    if child.returncode:
        return measured, {}, words[-1] if words else f"ended by signal {-child.returncode}"
    return measured, json.loads(said[-1]), ""


def text_of(file: Any) -> list[str]:
    file.seek(0)
    return file.read().strip().splitlines()


def imports(command: list[str]) -> float:
    """Seconds that a run spends on loading modules, by what Python tells of each."""
    done = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True, check=True)
    found = (line.removeprefix("import time:").split("|")[0].strip() for line in done.stderr.splitlines())
    return sum(int(text) for text in found if text.isdecimal()) / 1e6


def trained(output: Path) -> tuple[int, int]:
    """Epochs of all networks together, and how many networks there are."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(output) as file:
        history = read_elem(file["uns/imputed/history"])
    return len(history), len(history[["network", "fold"]].drop_duplicates())


def hidden_of(case: Case) -> int:
    return int(case.options[case.options.index("--hidden") + 1]) if "--hidden" in case.options else HIDDEN


def stored_in(path: Path) -> int:
    import h5py

    with h5py.File(path) as file:
        return int(file["X/data"].shape[0])


def version() -> str:
    """Of the package, with the commit."""
    import scautoimpute

    asked = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"{scautoimpute.__version__} {commit}".strip()


# --------------------------------------------------------------------------------------------------------- all runs


def chosen(arguments: argparse.Namespace, rows: list[Row]) -> list[Case]:
    """Cases that were asked for and have not been run often enough."""
    cases = [c for c in CASES if c.family in arguments.families and c.cells in arguments.cells]
    done = [(row.family, row.cells) for row in rows]
    return [case for case in cases for _ in range(arguments.repeats - done.count((case.family, case.cells)))]


def run_all(arguments: argparse.Namespace) -> None:
    cases = chosen(arguments, read_rows(arguments.output, Row))
    if not cases:
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rates = Rates.measured(arguments.folder)
    print(rates, file=sys.stderr)
    for case in cases:
        cells = input_of(case, arguments.source, arguments.folder)
        row = run(case, cells, arguments.folder, python=arguments.python, extra=arguments.extra, rates=rates)
        write_rows(arguments.output, [*read_rows(arguments.output, Row), row], Row)
        print(f"{case.name}: {row.wall_s:.1f} s, {row.peak_gb:.2f} GB {row.note}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="h5ad of real counts that cells are resampled from")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=USUAL, metavar="NAME", help=f"of {FAMILIES}")
    of_cells = sorted({case.cells for case in CASES})
    parser.add_argument(
        "--cells", nargs="+", type=int, choices=of_cells, default=SIZES[:2], metavar="N", help="numbers"
    )
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "scautoimpute-scale", help="of the files")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each case; the table has their medians")
    parser.add_argument(
        "--extra", type=shlex.split, default=[], help="options for every run, such as '--max-memory 2G'"
    )
    parser.add_argument("--python", default=sys.executable, help="of the environment with another method")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the rows there are")
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.source is None:
            parser.error("--source is needed: an h5ad of real counts, such as extra/pbmc3k.h5ad")
        run_all(arguments)
    print(write_tables(read_rows(arguments.output, Row), arguments.output.with_suffix(".md")))


if __name__ == "__main__":
    main()
