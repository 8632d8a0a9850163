"""The report of a run on four real data sets, and what it costs beside the run.

    python benchmarks/reports.py FOLDER [--only NAME]   # FOLDER holds the files named in RUNS below

Writes docs/reports/NAME.html, and a picture of it if Chromium is there; prints seconds of the run and of the report.
"""

import argparse
import resource
import shutil
import subprocess
import time
from pathlib import Path

import scautoimpute as sai
from scautoimpute.report import write_trust_report

# Name → file, and the column of cell types.
RUNS = {
    "blakeley": ("paper/blakeley.h5ad", "cell_type"),
    "pbmc3k": ("extra/pbmc3k.h5ad", None),
    "jurkat_293t": ("paper/jurkat_293t.h5ad", "cell_type"),
    "zeisel": ("paper/zeisel.h5ad", "cell_type"),
}
FOLDER = Path(__file__).parents[1] / "docs" / "reports"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def report_on(name: str, data: Path) -> None:
    file, labels = RUNS[name]
    adata = sai.read(data / file)
    started, used = time.perf_counter(), time.process_time()
    sai.tl.autoimpute(adata)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    facts = {
        "input": Path(file).name,
        "command": f"scautoimpute impute {Path(file).name} -o imputed.h5ad --report {name}.html",
        "time, peak memory": f"{seconds:.1f} s ({processor:.1f} s of one processor), {peak:.2f} GB",
    }
    if labels:
        facts["command"] += f" --labels {labels}"
    used = time.process_time()
    evidence = sai.trust.examine(adata, labels=labels, facts=facts)
    write_trust_report(evidence, FOLDER / f"{name}.html")
    extra = time.process_time() - used
    print(f"{name}: {adata.n_obs} × {adata.n_vars}, run {processor:.1f} s, report {extra:.1f} s of one processor")
    print(f"  ratio {1 + extra / processor:.2f}; {evidence.verdict.in_words()}", flush=True)


def picture(name: str) -> None:
    if CHROMIUM is None:
        return
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,2400"]
    image = FOLDER / f"{name}.png"
    subprocess.run(
        [CHROMIUM, *options, f"--screenshot={image}", (FOLDER / f"{name}.html").as_uri()],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=list(RUNS), action="append")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for chosen in asked.only or RUNS:
        report_on(chosen, asked.data)
        picture(chosen)
