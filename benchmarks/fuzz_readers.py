"""Damaged files through every reader: each must be read rightly or refused in one line, within seconds.

    python benchmarks/fuzz_readers.py --cases 10000 --write docs/fuzz.md

Real counts are written in every format, then damaged: bytes flipped, cut, repeated or zeroed, and in text also fields
replaced by things that spreadsheets put there. A case is its number: `--only 4711` does that one again, in this
process. What is read from damaged text is compared with what Python's own `csv` and `float` make of it; of a gzip file,
whose checksum guards the contents, with the counts that went in.
"""

import argparse
import csv
import gzip
import io
import multiprocessing
import queue
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
from scipy import sparse

from scautoimpute import __version__, datasets, read, write

SECONDS_FOR_ONE = 30
N_CELLS, N_GENES = 24, 30
ODD_FIELDS = ("", "NA", "nan", "inf", "-1", "1e999", "1,5", '"', "=SUM(A1)", "0x1F", "1_000", "é", "\0", "TRUE", " 7 ")
GOOD = {"the same counts", "refused in one line", "other counts, as the text says", "other counts"}


# ---------------------------------------------------------------------------------------------- the files


NAMES = ("a.csv", "a.tsv.gz", "csr.h5ad", "a.zarr", "a.mtx", "gz.mtx.gz", "dense.h5ad", "10x.h5")


def write_originals(folder: Path) -> None:
    """Write real counts in every format."""
    real = datasets.pbmc68k_reduced()[:N_CELLS, :N_GENES].copy()
    adata = ad.AnnData(sparse.csr_matrix(real.X), obs=real.obs[["cell_type"]], var=real.var[[]])
    adata.uns["note"] = np.array(["real counts"])
    for name in NAMES[:6]:
        write(adata, folder / name)
    dense = adata.copy()
    dense.X, dense.layers["csc"] = dense.X.toarray(), sparse.csc_matrix(adata.X)
    write(dense, folder / "dense.h5ad")
    write_10x_h5(folder / "10x.h5", adata)


def write_10x_h5(path: Path, adata: ad.AnnData) -> None:
    """Write as Cell Ranger 3 does."""
    import h5py

    by_cell = sparse.csr_matrix(adata.X)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(list(adata.obs_names), dtype="S")
        group["data"], group["indices"], group["indptr"] = by_cell.data.astype(int), by_cell.indices, by_cell.indptr
        group["shape"] = [adata.n_vars, adata.n_obs]
        features = group.create_group("features")
        for key in ("id", "name"):
            features[key] = np.array(list(adata.var_names), dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * adata.n_vars, dtype="S")
        features["genome"] = np.array(["hg19"] * adata.n_vars, dtype="S")


# ---------------------------------------------------------------------------------------------- the damage


def damage(raw: bytes, rng: np.random.Generator, *, is_text: bool) -> bytes:
    """Return the bytes of a file with one to four accidents."""
    for _ in range(rng.integers(1, 5)):
        raw = accident_to_text(raw, rng) if is_text and rng.random() < 0.6 else accident(raw, rng)
    return raw


def accident(raw: bytes, rng: np.random.Generator) -> bytes:
    if not raw:
        return raw
    start = int(rng.integers(len(raw)))
    stop = min(len(raw), start + int(rng.choice([1, 2, 8, 64, 512, 4096])))
    before, inside, after = raw[:start], raw[start:stop], raw[stop:]
    flipped = bytes([inside[0] ^ (1 << int(rng.integers(8)))]) + inside[1:]
    accidents = (
        before,
        before + after,
        before + inside + inside + after,
        before + bytes(len(inside)) + after,
        before + rng.bytes(len(inside)) + after,
        before + flipped + after,
        raw + inside,
    )
    return accidents[int(rng.integers(len(accidents)))]


def accident_to_text(raw: bytes, rng: np.random.Generator) -> bytes:
    separator = b"\t" if b"\t" in raw[:200] else b","
    lines = raw.split(b"\n")
    fields = lines[line := int(rng.integers(len(lines)))].split(separator)
    fields[int(rng.integers(len(fields)))] = str(rng.choice(ODD_FIELDS)).encode()
    if rng.random() < 0.2:
        fields.append(b"1")
    lines[line] = separator.join(fields)
    if rng.random() < 0.1:
        lines.insert(line, lines[line])
    return b"\n".join(lines)


def damaged_copy(original: Path, folder: Path, rng: np.random.Generator) -> Path:
    """Copy a file, or a folder of which one file is damaged or lost."""
    copy = folder / original.name
    if original.is_file():
        copy.write_bytes(damaged_bytes(original, rng))
        return copy
    shutil.copytree(original, copy)
    inside = sorted(path for path in copy.rglob("*") if path.is_file())
    victim = inside[int(rng.integers(len(inside)))]
    if rng.random() < 0.05:
        victim.unlink()
    else:
        victim.write_bytes(damaged_bytes(victim, rng))
    return copy


def damaged_bytes(path: Path, rng: np.random.Generator) -> bytes:
    """Damage a text inside or outside of its gzip file."""
    raw = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.5:
        return gzip.compress(damage(gzip.decompress(raw), rng, is_text=True))
    return damage(raw, rng, is_text=path.suffix in {".csv", ".tsv", ".mtx"})


# ---------------------------------------------------------------------------------------------- the verdict


def outcome(path: Path, original: ad.AnnData) -> str:
    """Read a damaged file and say what came of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(path)
            matrix = values(found)
    except (ValueError, OSError) as error:
        line = str(error)
        return "refused in one line" if "\n" not in line and path.name in line else f"refused badly: {line!r}"
    except MemoryError:
        return "refused in one line"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"
    return judged(found, matrix, path, original)


def judged(found: ad.AnnData, matrix: np.ndarray, path: Path, original: ad.AnnData) -> str:
    """Say whether what was read is what the file holds."""
    if matrix.shape != found.shape or not found.obs_names.is_unique or not found.var_names.is_unique:
        return f"no whole object: {matrix.shape}, {found.shape}"
    if same(found, matrix, list(original.obs_names), list(original.var_names), values(original)):
        return "the same counts"
    try:
        expected = as_python_reads(path)
    except (ValueError, csv.Error) as error:
        return f"wrong: taken, though it is no table of numbers to Python ({error})"
    if expected is None:
        return "other counts"
    return "other counts, as the text says" if same(found, matrix, *expected) else "wrong: not what the text says"


def values(adata: ad.AnnData) -> np.ndarray:
    x = next(iter(adata.layers.values())) if adata.X is None else adata.X
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def same(found: ad.AnnData, matrix: np.ndarray, cells: list[str], genes: list[str], x: np.ndarray) -> bool:
    """Whether it is that matrix; names that repeated have been numbered."""
    if matrix.shape != x.shape or not np.array_equal(matrix.astype(np.float32), x.astype(np.float32), equal_nan=True):
        return False
    pairs = ((found.obs_names, cells), (found.var_names, genes))
    return all(len(set(told)) < len(told) or list(names) == told for names, told in pairs)


def as_python_reads(path: Path) -> tuple[list[str], list[str], np.ndarray] | None:
    """What a csv or tsv holds, by other means than the reader's; None for other formats."""
    name = path.name.removesuffix(".gz")
    if not name.endswith((".csv", ".tsv")):
        return None
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = io.StringIO(raw.decode("utf-8-sig"), newline="")
    header, *rows = (row for row in csv.reader(text, delimiter="," if name.endswith(".csv") else "\t") if row)
    genes = header if len(header) == len(rows[0]) - 1 else header[1:]
    numbers = [[number(field) for field in row[1:]] for row in rows]
    return [row[0] for row in rows], genes, np.array(numbers, dtype=np.float64)


def number(field: str) -> float:
    if field.strip() in {"", "NA", "nan", "NaN", "N/A", "null", "NULL", "None", "n/a", "#N/A", "<NA>", "-nan", "-NaN"}:
        return float("nan")
    return {"TRUE": 1.0, "FALSE": 0.0}.get(field, float("nan")) if field.isalpha() and len(field) > 3 else float(field)


# ---------------------------------------------------------------------------------------------- many cases


@dataclass(frozen=True)
class Result:
    """What came of one case."""

    case: int
    name: str
    verdict: str
    seconds: float


def run_case(case: int, originals: Path) -> Result:
    """Do one case; everything about it follows from its number."""
    rng = np.random.default_rng(case)
    name = NAMES[case % len(NAMES)]
    original = ad.read_h5ad(originals / "csr.h5ad")
    with tempfile.TemporaryDirectory() as folder:
        path = damaged_copy(originals / name, Path(folder), rng)
        started = time.perf_counter()
        verdict = outcome(path, original)
        return Result(case, name, verdict, time.perf_counter() - started)


def work(cases: "multiprocessing.Queue[int]", results: "multiprocessing.Queue[Result | int]", folder: Path) -> None:
    """Do cases until there are none; tells the number of each before it begins, in case it does not come back."""
    read(folder / "10x.h5")  # so that no case is charged with the import of scanpy
    while (case := cases.get()) >= 0:
        results.put(case)
        results.put(run_case(case, folder))


def run_all(n_cases: int, seconds: float, folder: Path) -> list[Result]:
    """Do the cases in a process of their own, which is replaced when one kills it or does not end."""
    context = multiprocessing.get_context("spawn")
    done: list[Result] = []
    pending = iter(range(n_cases))
    stop = time.monotonic() + seconds
    case: int | None = next(pending, None)
    while case is not None and time.monotonic() < stop:
        cases, results = context.Queue(), context.Queue()
        worker = context.Process(target=work, args=(cases, results, folder), daemon=True)
        worker.start()
        while case is not None and time.monotonic() < stop:
            cases.put(case)
            result = answer_of(worker, results)
            done.append(
                result
                or Result(case, NAMES[case % len(NAMES)], "crash" if not worker.is_alive() else "hang", SECONDS_FOR_ONE)
            )
            case = next(pending, None)
            if len(done) % 500 == 0:
                print(f"{len(done)} cases", file=sys.stderr)
            if result is None:
                break
        worker.kill()
        worker.join()
    return done


def answer_of(worker: "multiprocessing.Process", results: "multiprocessing.Queue[Result | int]") -> Result | None:
    """Wait for the result of a case; None if the process died or took too long after it had begun."""
    deadline = time.monotonic() + 120  # until it has started and written its files
    while time.monotonic() < deadline and (worker.is_alive() or not results.empty()):
        try:
            told = results.get(timeout=0.2)
        except queue.Empty:
            continue
        if isinstance(told, Result):
            return told
        deadline = time.monotonic() + SECONDS_FOR_ONE
    return None


# ---------------------------------------------------------------------------------------------- the page


def page(results: list[Result], seconds: float) -> str:
    names = sorted({result.name for result in results})
    verdicts = sorted({short(result.verdict) for result in results}, key=lambda verdict: (verdict not in GOOD, verdict))
    counts = Counter((result.name, short(result.verdict)) for result in results)
    slowest = max(results, key=lambda result: result.seconds)
    bad = [result for result in results if result.verdict not in GOOD]
    return "\n".join(
        [
            "# Damaged files through every reader\n",
            f"`python benchmarks/fuzz_readers.py --cases {len(results)}` with scautoimpute {__version__}: "
            f"{len(results):,} damaged files in {seconds / 60:.0f} minutes; the slowest took {slowest.seconds:.1f} s. "
            f"{'None' if not bad else len(bad)} ended in a traceback, a crash, a hang or a wrong result.\n",
            "| file | " + " | ".join(verdicts) + " |",
            "| --- |" + " ---: |" * len(verdicts),
            *(f"| {name} | " + " | ".join(f"{counts[name, v]:,}" for v in verdicts) + " |" for name in names),
            '\n"Other counts" are changes that no reader can see: a digit in a text, a bit in an array without a',
            "checksum. Those of text were compared with what Python's own `csv` and `float` read. A reader that takes",
            f"{SECONDS_FOR_ONE} s is killed, and counted as a hang.",
            *("",) * bool(bad),
            *(f"- case {result.case} ({result.name}): {result.verdict}" for result in bad[:50]),
        ]
    )


def short(verdict: str) -> str:
    return verdict.split(":", maxsplit=1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600, help="stop after so long")
    parser.add_argument("--only", type=int, help="do this case again, here")
    parser.add_argument("--write", type=Path, help="write the page here")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        write_originals(Path(folder))
        if arguments.only is not None:
            print(run_case(arguments.only, Path(folder)))
            return
        results = run_all(arguments.cases, arguments.seconds, Path(folder))
    text = page(results, time.monotonic() - started)
    print(text)
    if arguments.write:
        arguments.write.write_text(text + "\n", encoding="utf-8")
    sys.exit(any(result.verdict not in GOOD for result in results))


if __name__ == "__main__":
    main()
