"""Bad input gets one line that says what to do, and nothing is lost; `docs/bad_input.md` holds those lines."""

import os
import re
import resource
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bad_input import CASES, Case, good
from scautoimpute import progress
from scautoimpute.cli import app

TABLE = Path(__file__).parents[1] / "docs" / "bad_input.md"
EXPECTED = "training ended at --max-epochs 2 before it had converged"  # the cases are trained for two epochs
SAID: dict[str, str] = {}  # what each case was told, for the table

HEAD = """# What bad input is told

Every line below is what the command line printed when the test suite gave it that input
(`pytest tests/test_bad_input.py --write-docs` writes this page; without the option the tests hold the page to what is
said). After an error there is no new output, and an older one is as it was. `cells.h5ad` holds good counts, 60 cells ×
80 genes, except where the table says otherwise.
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    path = tmp_path_factory.mktemp("counts") / "cells.h5ad"
    good().write_h5ad(path)
    return path.read_bytes()


def answer(case: Case) -> tuple[int, str]:
    """Exit code and standard error of the case, run here."""
    if case.limit is None:
        done = CliRunner().invoke(app, list(case.arguments))
        return done.exit_code, done.stderr
    command = [sys.executable, "-m", "scautoimpute", *case.arguments]
    limit = (case.limit, case.limit)
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    return process.returncode, process.stderr


def contents() -> dict[Path, bytes]:
    """Every file here but what `--resume` goes on from."""
    files = [path for path in Path().rglob("*") if path.is_file() and ".out.h5ad.progress" not in path.parts]
    return {path: path.read_bytes() for path in files}


@pytest.mark.filterwarnings("default")  # as they are on the command line
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_bad_input_gets_one_line_and_loses_nothing(case, counts, tmp_path, monkeypatch):
    if case.title == "a device that does not exist" and torch.cuda.is_available():
        pytest.skip("it exists on this machine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 600.0)  # lines are looked at, not bars
    Path("cells.h5ad").write_bytes(counts)
    case.make()
    before = contents()
    code, said = answer(case)
    lines = [line for line in said.splitlines() if EXPECTED not in line]
    kind = "warning" if case.accepted else "error"
    about = [line for line in lines if line.startswith(kind)]
    after = contents()
    if case.accepted:
        assert code == 0, said
        assert Path("out.h5ad") in after
    else:
        assert code != 0
        assert len(about) == 1, said
        assert after == before
    assert all(line.startswith(("warning: ", "error: ")) for line in lines), said
    told = [re.sub(r"eof = \d+", "eof = …", line.replace(f"{tmp_path}/", "")) for line in lines]  # anndata's sizes
    SAID[case.title] = "<br>".join(told) or "(nothing: it is imputed)"


def test_the_page_says_what_was_said(request):
    if len(SAID) < len(CASES):
        pytest.skip("only some of the cases were run")
    written = page()
    if request.config.getoption("--write-docs"):
        TABLE.write_text(written, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == written, "run pytest tests/test_bad_input.py --write-docs"


def page() -> str:
    parts = [HEAD]
    for group, cases in groupby(CASES, key=lambda case: case.group):
        rows = [f"| {case.title} | {SAID[case.title].replace('|', '&#124;')} |" for case in cases]
        parts.append("\n".join([f"## {group}\n", "| what is wrong | what is said |", "| --- | --- |", *rows, ""]))
    return "\n".join(parts)
