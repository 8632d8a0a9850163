"""The command line, end to end: real files, real processes, what comes out on each stream, and what is left behind."""

import fcntl
import gzip
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from importlib.metadata import entry_points
from importlib.util import find_spec

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse
from typer.testing import CliRunner

import real_process
import scautoimpute
from scautoimpute import methods
from scautoimpute.cli import app, main
from scautoimpute.datasets import simulate
from scautoimpute.methods import METHODS
from stored_counts import write_10x_h5

QUICK = ["--objective", "masked", "--max-epochs", "3", "--hidden", "16", "--seed", "5"]
LONG = ["--objective", "masked", "--hidden", "8000", "--max-epochs", "100000"]
OPTIONS = {"--output", "--layer", "--transpose", "--objective", "--preset", "--n-top-genes", "--flavor", "--scale"}
OPTIONS |= {
    "--smooth",
    "--keep-observed",
    "--key-added",
    "--hidden",
    "--max-epochs",
    "--model",
    "--from-model",
    "--seed",
    "--device",
}
OPTIONS |= {
    "--method",
    "--option",
    "--learning-rate",
    "--l2",
    "--threshold",
    "--overwrite",
    "--resume",
    "--json",
    "--debug",
    "--help",
}
ESTIMATE = "expression given that it was detected: for recovering values, not for clustering or differential expression"


def run(*arguments, cwd):
    return real_process.run(arguments, cwd)


def run_anew(*arguments, cwd):
    """Run the command in a process that has loaded nothing."""
    command = [sys.executable, "-m", "scautoimpute", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


def succeed(*arguments, cwd):
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def counts():
    """60 cells × 80 genes, the truth left out."""
    adata = simulate(n_cells=60, n_genes=80, random_state=0)
    return anndata.AnnData(adata.X, obs=adata.obs, var=adata.var)


@pytest.fixture(scope="module")
def files(tmp_path_factory, counts):
    """Folder with the same counts in every format that is read, and with files that are to be refused."""
    folder = tmp_path_factory.mktemp("files")
    counts.write_h5ad(folder / "cells.h5ad")
    frame = counts.to_df().astype(int)
    frame.to_csv(folder / "cells.csv")
    frame.T.to_csv(folder / "genes_by_cells.tsv.gz", sep="\t")
    write_10x_h5(counts, folder).rename(folder / "10x.h5")
    write_10x_folder(folder / "10x", counts)
    layered = anndata.AnnData(np.log1p(counts.X.toarray()), obs=counts.obs, var=counts.var)
    layered.layers["raw"] = counts.X.copy()
    layered.layers["negative"] = -counts.X.toarray()
    layered.write_h5ad(folder / "layered.h5ad")
    layers = {"spliced": counts.X, "unspliced": counts.X}
    anndata.AnnData(layered.X, obs=counts.obs, var=counts.var, layers=layers).write_h5ad(folder / "velocity.h5ad")
    anndata.AnnData(layered.X, obs=counts.obs, var=counts.var).write_h5ad(folder / "logged.h5ad")
    turned = counts.T.copy()
    turned.obs_names = [f"ENSG{number:011d}" for number in range(turned.n_obs)]
    turned.write_h5ad(folder / "turned.h5ad")
    (folder / "text.h5ad").write_text("not HDF5")
    (folder / "cells.xlsx").write_text("a spreadsheet")
    return folder


def write_10x_folder(folder, adata):
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        io.mmwrite(file, sparse.coo_matrix(adata.X.T.astype(int)))
    features = [f"{name}\t{name}\tGene Expression\n" for name in adata.var_names]
    (folder / "features.tsv.gz").write_bytes(gzip.compress("".join(features).encode()))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(adata.obs_names).encode()))


@pytest.fixture(scope="module")
def first(tmp_path_factory, files):
    """Folder of the run that the others are compared with, and what the process said."""
    folder = tmp_path_factory.mktemp("first")
    done = succeed(
        "impute", files / "cells.h5ad", "-o", "out.h5ad", *QUICK, "--model", "model.safetensors", "--json", cwd=folder
    )
    return folder, done


@pytest.fixture(scope="module")
def first_layer(first):
    return anndata.read_h5ad(first[0] / "out.h5ad").layers["imputed"].toarray()


@pytest.fixture(scope="module")
def normalised(counts):
    """Counts at the median library size, the median total, and the genes that pass the filter, by a loop."""
    x = counts.X.toarray().astype(float)
    passing = np.array([sum(value >= 3 for value in gene) >= 3 for gene in x.T])
    totals = x[:, passing].sum(axis=1)
    return x / totals[:, None] * np.median(totals), np.median(totals), passing


# --------------------------------------------------------------------------------------------- what comes out


def test_h5ad_in_and_out(first, first_layer, counts, normalised):
    folder, _ = first
    result = anndata.read_h5ad(folder / "out.h5ad")
    per_cell, median_total, passing = normalised
    assert list(result.obs_names) == list(counts.obs_names)
    assert list(result.var_names) == list(counts.var_names)
    assert (result.X != counts.X).nnz == 0
    assert result.X.dtype == counts.X.dtype
    assert list(result.var["autoimpute_modelled"]) == list(passing)
    assert result.obsm["X_autoimpute"].shape == (60, 16)
    observed = counts.X.toarray() > 0
    np.testing.assert_allclose(first_layer[observed], np.log1p(per_cell * 1e4 / median_total)[observed], rtol=1e-5)
    assert first_layer.min() >= 0
    assert (first_layer[:, passing] > 0).mean() > observed[:, passing].mean()
    assert (first_layer[:, ~passing][~observed[:, ~passing]] == 0).all()
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "out.h5ad"]


def test_json_is_all_of_stdout_and_true(first, first_layer, counts, normalised):
    summary = json.loads(first[1].stdout)
    passing = normalised[2]
    zeros = counts.X.toarray()[:, passing] == 0
    assert summary["version"] == scautoimpute.__version__
    assert (summary["cells"], summary["genes"], summary["genes_modelled"]) == (60, 80, passing.sum())
    assert summary["zeros"] == zeros.sum()
    assert summary["zeros_filled"] == (first_layer[:, passing][zeros] > 0).sum()
    assert (summary["output"], summary["layer"]) == ("out.h5ad", "imputed")
    assert summary["scale"] == "ln(1 + counts per 10,000)"
    assert summary["estimate"] == ESTIMATE
    assert summary["converged"] is False
    assert summary["held_out_entries"] > 100
    assert set(summary["held_out_rmse"]) == {"model", "gene_mean", "gene_cell_bias", "base"}
    assert all(0 < score < 5 for score in summary["held_out_rmse"].values())
    assert summary["seconds"] > 0
    assert 0.05 < summary["peak_memory_gb"] < 10


def test_too_few_epochs_are_a_warning_that_names_the_option(first):
    warnings = [line for line in stable(first[1].stderr) if "no better than gene cell bias" not in line]  # on some GPUs
    assert warnings == ["warning: training ended at --max-epochs 3 before it had converged: raise --max-epochs"]


def test_same_seed_same_bytes(first, files, tmp_path):
    folder, _ = first
    succeed("impute", files / "cells.h5ad", "-o", "out.h5ad", *QUICK, "--model", "model.safetensors", cwd=tmp_path)
    for name in ("out.h5ad", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_from_model_applies_without_training(first, first_layer, files, tmp_path):
    model = first[0] / "model.safetensors"
    (tmp_path / "out.h5ad").write_text("older")
    done = succeed("impute", files / "cells.h5ad", "-o", "out.h5ad", "--from-model", model, "--overwrite", cwd=tmp_path)
    result = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(result.layers["imputed"].toarray(), first_layer, rtol=1e-6)
    assert stable(done.stderr) == []
    trained = anndata.read_h5ad(first[0] / "out.h5ad").uns["imputed"]["history"]
    assert len(trained) > 3
    pd.testing.assert_frame_equal(result.uns["imputed"]["history"], trained)
    assert done.stdout.splitlines()[-1].endswith(ESTIMATE)


def test_csv_to_gzipped_tsv_on_the_log2_scale(files, first_layer, normalised, tmp_path):
    succeed("impute", files / "cells.csv", "-o", "out.tsv.gz", *QUICK, "--scale", "log2", cwd=tmp_path)
    frame = pd.read_csv(tmp_path / "out.tsv.gz", sep="\t", index_col=0)
    assert frame.index[0] == "cell_1"
    assert list(frame.columns[:2]) == ["gene_1", "gene_2"]
    expected = np.log2(1 + np.expm1(first_layer) * normalised[1] / 1e4)
    np.testing.assert_allclose(frame.to_numpy(), expected, rtol=1e-4, atol=1e-5)


def test_10x_h5_to_csv_at_each_cells_own_library_size(files, first_layer, counts, normalised, tmp_path):
    options = ["--scale", "counts", "--n-top-genes", "all"]
    succeed("impute", files / "10x.h5", "-o", "out.csv", *QUICK, *options, cwd=tmp_path)
    imputed = pd.read_csv(tmp_path / "out.csv", index_col=0).to_numpy()
    x = counts.X.toarray()
    np.testing.assert_allclose(imputed[x > 0], x[x > 0], rtol=1e-5)
    totals = x[:, normalised[2]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(imputed, np.expm1(first_layer) * totals / 1e4, rtol=1e-3, atol=1e-4)


def test_10x_folder_smoothed_to_counts_per_10k(files, first_layer, counts, tmp_path):
    succeed("impute", files / "10x", "-o", "out.h5ad", *QUICK, "--scale", "cp10k", "--smooth", cwd=tmp_path)
    result = anndata.read_h5ad(tmp_path / "out.h5ad")
    smooth, filled = result.layers["imputed"].toarray(), np.expm1(first_layer)
    observed = counts.X.toarray() > 0
    assert list(result.var["gene_ids"][:2]) == ["gene_1", "gene_2"]
    np.testing.assert_allclose(smooth[~observed], filled[~observed], rtol=1e-3, atol=1e-3)
    modelled = observed & result.var["autoimpute_modelled"].to_numpy()
    assert np.isclose(smooth[modelled], filled[modelled], rtol=1e-3).mean() < 0.1  # observed values were replaced


def test_transposed_text_with_the_published_method(files, tmp_path):
    options = ["--transpose", "--preset", "paper", "--hidden", 4, "--max-epochs", 2, "--n-top-genes", 20]
    (tmp_path / "out.csv").write_text("older")
    arguments = ["impute", files / "genes_by_cells.tsv.gz", "-o", "out.csv", *options, "--flavor", "cv", "--overwrite"]
    done = succeed(*arguments, cwd=tmp_path)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["cells"].endswith("60 × 80 (20 modelled)")
    assert "not measured: nothing was held out (--held-out-share 0.1" in lines["held-out"]
    frame = pd.read_csv(tmp_path / "out.csv", index_col=0)
    assert frame.shape == (60, 80)
    assert frame.index[0] == "cell_1"
    assert frame.to_numpy().min() >= 0
    assert "raise --max-epochs" in done.stderr


def test_counts_in_a_layer_and_a_name_for_the_result(files, first_layer, tmp_path):
    options = ["--layer", "raw", "--key-added", "filled"]
    done = succeed("impute", files / "layered.h5ad", "-o", "out.h5ad", *QUICK, *options, cwd=tmp_path)
    before, after = anndata.read_h5ad(files / "layered.h5ad"), anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(after.X, before.X)
    assert set(after.layers) - {None} == {"raw", "negative", "filled"}  # None is X, since anndata 0.13
    np.testing.assert_allclose(after.layers["filled"].toarray(), first_layer, rtol=1e-5)
    assert after.uns["filled"]["random_state"] == 5
    assert "out.h5ad, layer 'filled': ln(1 + counts per 10,000)" in done.stdout


def test_demo_writes_a_result_and_a_picture(tmp_path):
    done = run_anew("demo", "--output", tmp_path / "made" / "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "made" / "demo"
    assert sorted(path.name for path in folder.iterdir()) == ["pbmc68k_imputed.h5ad", "pbmc68k_imputed.png"]
    assert (folder / "pbmc68k_imputed.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    result = anndata.read_h5ad(folder / "pbmc68k_imputed.h5ad")
    assert result.shape == (700, 765)
    scores = result.uns["imputed"]["held_out"]
    deviance = {name: score["deviance"] for name, score in scores.items() if name != "n"}
    assert deviance["model"] < deviance["gene_mean"] < deviance["no_imputation"]
    assert deviance["model"] == min(deviance.values())
    assert "counts of molecules" in done.stdout
    assert "700 × 765" in done.stdout
    assert "pbmc68k_imputed.png" in done.stdout


def test_counts_are_found_where_they_are(files, tmp_path):
    done = succeed("impute", files / "layered.h5ad", "-o", "found.h5ad", *QUICK, cwd=tmp_path)
    assert "raw holds whole numbers (X: what looks like logs" in done.stdout
    succeed("impute", files / "layered.h5ad", "-o", "named.h5ad", "--layer", "raw", *QUICK, cwd=tmp_path)
    assert (tmp_path / "found.h5ad").read_bytes() == (tmp_path / "named.h5ad").read_bytes()


# ------------------------------------------------------------------------------------------------- other methods


@pytest.mark.filterwarnings("ignore:held-out deviance")  # sixty cells, deeply sequenced: counts as they are do as well
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"scvi", "magic", "autoimpute", "autoimpute-paper"}))
def test_every_method_runs_from_the_command_line(method, files, tmp_path, monkeypatch):
    """MAGIC and scVI, which not everybody has, are run in tests of their own."""
    monkeypatch.chdir(tmp_path)
    arguments = ["impute", str(files / "cells.h5ad"), "-o", "out.h5ad", "--method", method, "--json", "--seed", "3"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    told, written = json.loads(done.stdout), anndata.read_h5ad("out.h5ad")
    expected = methods.impute(anndata.read_h5ad(files / "cells.h5ad"), method=method, random_state=3, copy=True)
    np.testing.assert_array_equal(written.layers["imputed"].toarray(), expected.layers["imputed"].toarray())
    assert told["method"] == method
    assert told["limits"] == METHODS[method].limits
    assert told["zeros_filled"] == expected.uns["imputed"]["n_zeros_filled"]


def test_options_of_a_method_reach_it(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["impute", str(files / "cells.h5ad"), "-o", "out.h5ad", "--method", "drimpute"]
    done = CliRunner().invoke(app, [*arguments, "--option", "n_clusters=[3, 4]", "--option", "average=median"])
    assert done.exit_code == 0, done.stderr
    used = anndata.read_h5ad("out.h5ad").uns["imputed"]["options"]
    assert list(used["n_clusters"]) == [3, 4]
    assert used["average"] == "median"


@pytest.mark.filterwarnings("ignore:training ended", "ignore:held-out RMSE")
@pytest.mark.parametrize(("option", "name"), [("--method", "autoimpute"), ("--preset", "paper")])
def test_autoimpute_is_a_method_like_the_others(option, name, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = {"autoimpute": [], "paper": ["--method", "autoimpute-paper"]}[name]
    for output, words in (("a.csv", [option, name]), ("b.csv", same)):
        done = CliRunner().invoke(app, ["impute", str(files / "cells.csv"), "-o", output, *words, *QUICK])
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


# ------------------------------------------------------------------------------------------------- what is refused

REFUSED = {
    "missing file": (["nowhere.h5ad"], "nowhere.h5ad does not exist"),
    "damaged file": (["{files}/text.h5ad"], "damaged or not what its suffix says"),
    "input suffix": (["{files}/cells.xlsx"], "has suffix '.xlsx'; allowed are .h5ad"),
    "10x folder without a matrix": (["{files}"], "holds no matrix.mtx"),
    "output suffix": (["{files}/cells.h5ad", "-o", "out.xlsx"], "has suffix '.xlsx'; allowed are .h5ad"),
    "output folder missing": (["{files}/cells.h5ad", "-o", "nowhere/out.h5ad"], "does not exist; create it"),
    "output in a file": (["{files}/cells.h5ad", "-o", "{files}/cells.csv/out.h5ad"], "is a file, not a folder"),
    "model folder missing": (["{files}/cells.h5ad", "--model", "nowhere/m"], "does not exist; create it"),
    "model is the input": (
        ["{files}/cells.h5ad", "--model", "{files}/cells.h5ad"],
        "--model and the input are the same",
    ),
    "model to apply is the output": (
        ["{files}/cells.h5ad", "--from-model", "out.h5ad"],
        "--from-model and --output are",
    ),
    "several layers": (
        ["{files}/velocity.h5ad"],
        "'spliced', 'unspliced' all hold whole numbers, and X does not",
    ),
    "model is the output": (["{files}/cells.h5ad", "--model", "out.h5ad"], "--model and --output are the same file"),
    "layer": (["{files}/layered.h5ad", "--layer", "x"], "no layer 'x'; its layers are"),
    "layer to be replaced": (["{files}/layered.h5ad", "--layer", "raw", "--key-added", "raw"], "--key-added 'raw' is"),
    "name of the result": (["{files}/cells.h5ad", "--key-added", "a/b"], "--key-added 'a/b' cannot be the name"),
    "transposed": (["{files}/turned.h5ad"], "looks like genes × cells (obs names such as 'ENSG00000000000' are genes)"),
    "logged": (["{files}/logged.h5ad"], "look logged already"),
    "method": (["{files}/cells.h5ad", "--method", "x"], "--method 'x' is not known: choose 'none', 'gene_mean'"),
    "options of training with a method": (
        ["{files}/cells.h5ad", "--method", "knn", "--hidden", "9", "--model", "m"],
        "--model, --hidden has no effect with --method knn: leave it out; what it takes itself is given by --option",
    ),
    "option of no method": (
        ["{files}/cells.h5ad", "--option", "k=1"],
        "--option 'k' is for another method: name it with --method",
    ),
    "option without a value": (["{files}/cells.h5ad", "--method", "knn", "--option", "k"], "'k' is not NAME=VALUE"),
    "option that is not there": (
        ["{files}/cells.h5ad", "--method", "knn", "--option", "k=1"],
        "--option has 'k', which --method 'knn' does not take: allowed are n_neighbors",
    ),
    "extra that is not there": (["{files}/cells.h5ad", "--method", "scvi"], 'pip install "scautoimpute[scvi]"'),
    "smooth with nothing to smooth": (
        ["{files}/cells.h5ad", "--method", "drimpute", "--smooth"],
        "--smooth has no effect: --method 'drimpute' estimates no observed values; leave it out",
    ),
    "negative": (["{files}/layered.h5ad", "--layer", "negative"], "values are negative"),
    "n_top_genes in words": (["{files}/cells.h5ad", "--n-top-genes", "some"], "--n-top-genes some is not a number"),
    "n_top_genes of none": (["{files}/cells.h5ad", "--n-top-genes", "0"], "--n-top-genes 0 is not a number"),
    "flavor": (["{files}/cells.h5ad", "--flavor", "x"], "--flavor 'x' is not known: choose 'dispersion' or 'cv'"),
    "scale": (["{files}/cells.h5ad", "--scale", "x"], "--scale 'x' is not known: choose 'counts', 'cp10k'"),
    "objective": (
        ["{files}/cells.h5ad", "--objective", "x"],
        "--objective 'x' is not known: choose 'masked' or 'counts'",
    ),
    "preset": (["{files}/cells.h5ad", "--preset", "x"], "--preset 'x' is not known: choose 'paper'"),
    "hidden": (["{files}/cells.h5ad", "--hidden", "0"], "--hidden 0: give the width"),
    "max_epochs": (["{files}/cells.h5ad", "--max-epochs", "0"], "--max-epochs 0 is out of range"),
    "seed": (["{files}/cells.h5ad", "--seed", "-1"], "--seed -1 is negative"),
    "device": (["{files}/cells.h5ad", "--device", "cuda:77"], "device 'cuda:77' is not there: this machine has cpu"),
    "model file missing": (["{files}/cells.h5ad", "--from-model", "nowhere"], "there is no model file 'nowhere'"),
    "model file of another kind": (["{files}/cells.h5ad", "--from-model", "{files}/cells.csv"], "is not a model of"),
    "options of training with a model": (
        ["{files}/cells.h5ad", "--from-model", "m", "--preset", "paper", "--n-top-genes", "5", "--max-epochs", "1"],
        "leave out --preset, --max-epochs, --n-top-genes, or leave out --from-model",
    ),
}


@pytest.mark.parametrize("case", ["missing file", "damaged file", "layer", "transposed", "device", "output suffix"])
def test_errors_are_one_line_and_leave_nothing(case, files, tmp_path):
    arguments, said = REFUSED[case]
    before = snapshot(files)
    refused(run("impute", *complete(arguments, files), cwd=tmp_path), said)
    assert list(tmp_path.iterdir()) == []
    assert snapshot(files) == before


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_errors_say_what_to_type(arguments, said, files, tmp_path, monkeypatch):
    """Without a process of its own for each."""
    if "scvi" in arguments and find_spec("scvi"):
        pytest.skip("the extra is there")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["impute", *complete(arguments, files)])
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = stable(done.stderr)
    assert line.startswith("error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def complete(arguments, files):
    arguments = [argument.format(files=files) for argument in arguments]
    return arguments if "-o" in arguments else [*arguments, "-o", "out.h5ad"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "Unable to allocate 9 TiB): model fewer genes with --n-top-genes"),
        (KeyError("no such gene"), "unexpected KeyError (no such gene): run again with --debug"),
        (ValueError("two\n  lines about\nlayer=3"), "error: two lines about --layer 3"),
        (ValueError("/scale=1/x is not there"), "error: /scale=1/x is not there"),
    ],
)
def test_whatever_is_raised_becomes_one_line(error, said, files, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scautoimpute.apply.train_and_impute", fail)
    done = CliRunner().invoke(app, ["impute", str(files / "cells.h5ad"), "-o", "out.h5ad"])
    assert done.exit_code == 1
    (line,) = stable(done.stderr)
    assert line.startswith("error: ")
    assert said in line


def test_an_existing_output_is_kept(files, tmp_path):
    (tmp_path / "out.h5ad").write_text("older")
    refused(run("impute", files / "cells.h5ad", "-o", "out.h5ad", cwd=tmp_path), "exists; give --overwrite to replace")
    assert (tmp_path / "out.h5ad").read_text() == "older"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(files, tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused(run("impute", files / "cells.h5ad", "-o", tmp_path / "out.h5ad", cwd=files), "cannot be written")
    finally:
        tmp_path.chmod(0o700)


def test_demo_refuses_a_file_for_a_folder(files):
    refused(run("demo", "-o", files / "cells.csv", cwd=files), "is a file, not a folder")


@pytest.mark.parametrize("before_command", [True, False], ids=["before the command", "after it"])
def test_debug_shows_the_traceback(before_command, tmp_path):
    arguments = ["impute", "nowhere.h5ad", "-o", "out.h5ad"]
    done = run_anew(*(["--debug", *arguments] if before_command else [*arguments, "--debug"]), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Traceback")
    assert "FileNotFoundError: nowhere.h5ad does not exist" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["impute", "cells.h5ad"], "--output"),
        (["impute", "-o", "out.h5ad"], "IN"),
        (["impute", "cells.h5ad", "-o", "out.h5ad", "--layr", "x"], "--layr"),
        (["impute", "cells.h5ad", "-o", "out.h5ad", "--hidden", "many"], "--hidden"),
        (["inpute"], "inpute"),
    ],
)
def test_misspelt_commands_exit_with_2_and_point_to_the_help(arguments, said, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr.splitlines()[-1]
    assert " -h' for help." in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("arguments", [["impute", "-h"], ["impute", "--help"], ["impute"]])
def test_help_names_every_option(arguments, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert OPTIONS - set(re.findall(r"--[a-z0-9-]+", done.stdout + done.stderr)) == set()
    assert done.returncode == (0 if len(arguments) == 2 else 2)


def test_the_program_without_arguments_lists_its_commands(tmp_path):
    done = run(cwd=tmp_path)
    assert "impute" in done.stdout + done.stderr
    assert "demo" in done.stdout + done.stderr


def test_version_and_console_script(tmp_path):
    assert succeed("--version", cwd=tmp_path).stdout == f"scautoimpute {scautoimpute.__version__}\n"
    (script,) = entry_points(group="console_scripts", name="scautoimpute")
    assert script.load() is main


# --------------------------------------------------------------------------------------------- stopped half-way


def test_ctrl_c_on_a_terminal_clears_the_bar_and_leaves_nothing(files, tmp_path):
    # A shell may have started this test with SIGINT ignored, which children inherit: a terminal's would not be.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('scautoimpute', run_name='__main__', alter_sys=True)"
    )
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    arguments = ["impute", str(files / "cells.h5ad"), "-o", "out.h5ad", "--model", "model", *LONG]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=its_end
    ) as process:
        os.close(its_end)
        shown = read_until(terminal, b"training", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stdout.read() == b""
    shown += read_until(terminal, None, process)
    os.close(terminal)
    *bar, blank, last, end = shown.decode().replace("\r\n", "\n\r").split("\r")
    assert re.search(r"epoch/s|s/epoch", "".join(bar))
    assert blank.strip() == ""
    assert last.startswith("interrupted: no result was written; go on with: scautoimpute impute ")
    assert end == ""
    assert [path.name for path in tmp_path.iterdir()] == [".out.h5ad.progress"]


def test_sigterm_ends_as_cleanly(files, tmp_path):
    command = [sys.executable, "-m", "scautoimpute", "impute", str(files / "cells.h5ad"), "-o", "out.h5ad", *LONG]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        shown = read_until(process.stderr.fileno(), b"training", process)
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stdout == b""
    assert stable((shown + stderr).decode()) == [
        f"interrupted: no result was written; go on with: {shlex.join(['scautoimpute', *command[3:], '--resume'])}"
    ]
    assert [path.name for path in tmp_path.iterdir()] == [".out.h5ad.progress"]


FORGETFUL = """
import signal, sys, time, weakref
from scautoimpute.cli import app, main
from scautoimpute.cli._app import one_line_errors

class Thing:
    pass

@app.command()
def forget(number: int):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    with one_line_errors():
        del thing
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_where_python_raises_nothing_is_not_lost(number, code):
    command = [sys.executable, "-c", FORGETFUL, "forget", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (code, "interrupted: no result was written\n")


def read_until(descriptor, wanted, process, seconds=60):
    """Read until `wanted` appears, or to the end for None."""
    seen, deadline = b"", time.monotonic() + seconds
    while wanted is None or wanted not in seen:
        if not select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            process.kill()
            pytest.fail(f"no {wanted!r} within {seconds} s: {seen!r}")
        try:
            more = os.read(descriptor, 65536)
        except OSError:  # how a terminal says that its other end was closed
            more = b""
        if not more and wanted is not None:
            pytest.fail(f"{wanted!r} never came: {seen!r}")
        if not more:
            break
        seen += more
    return seen


def stable(stderr):
    """Lines that are still to be seen once a progress bar, if one came up, has been cleared."""
    lines = stderr.replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip() and "%|" not in line]


def refused(done, said):
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = stable(done.stderr)
    assert line.startswith("error: ")
    assert said in line


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
