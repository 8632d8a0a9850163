"""Running every method on data sets, each in a process of its own: what is kept, resumed, refused and survived."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import anndata
import numpy as np
import psutil
import pytest
from scipy import sparse

import scautoimpute as sai
from scautoimpute import datasets
from scautoimpute.evaluation import evaluate, reproduce

CHEAP = ["none", "gene_mean", "gene_cell_bias"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three simulated sets: with types, without, and with a single one; and bulk of the first."""
    made = tmp_path_factory.mktemp("sets")
    for name, n_cells in (("typed", 45), ("untyped", 30), ("single", 36)):
        adata = datasets.simulate(n_cells=n_cells, n_genes=80, random_state=1)
        if name == "untyped":
            del adata.obs["cell_type"]
        if name == "single":
            adata.obs["cell_type"] = "one"
        adata.write_h5ad(made / f"{name}.h5ad")
    write_bulk(made / "bulk_typed.csv")
    return made


def write_bulk(path):
    adata = datasets.simulate(n_cells=45, n_genes=80, random_state=1)
    rate = np.asarray(adata.layers["truth"]).mean(axis=0)
    rate[::4] = 0
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["gene", "r1", "r2"])
        draws = np.random.default_rng(0).poisson(rate * 20, size=(2, rate.size))
        writer.writerows(zip(adata.var_names, *draws, strict=True))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "report"
    results = reproduce(folder, output=output, methods=CHEAP, seeds=2, experiments=["zeros", "recovery", "structure"])
    return output, results


def cells_of(results, **wanted):
    return [cell for cell in results["cells"] if all(cell[name] == value for name, value in wanted.items())]


# ------------------------------------------------------------------------------------------------ what is found


def test_every_cell_is_done_and_scored(run):
    _, results = run
    assert {cell["status"] for cell in results["cells"]} == {"done"}
    assert len(cells_of(results, experiment="recovery")) == 3 * len(CHEAP) * 2
    recovery = cells_of(results, experiment="recovery")[0]
    assert {s["setting"] for s in recovery["scores"]} == {"10%", "20%", "30%", "40%", "50%"}
    assert {s["measure"] for s in recovery["scores"]} == {"rmse", "mae", "nmse", "seconds"}
    json.dumps(results, allow_nan=False)


def test_recovery_is_what_the_metrics_give(run, folder):
    from scautoimpute import pp, read
    from scautoimpute.metrics import gene_mean, hide_entries, recovery_scores

    full = pp.recipe_autoimpute(read(folder / "typed.h5ad"), flavor="cv", copy=True).X.astype(np.float64)
    hidden = hide_entries(full, share=0.3, random_state=1)
    expected = recovery_scores(hidden.truth, gene_mean(hidden.visible)[hidden.cols])
    cell = cells_of(run[1], experiment="recovery", dataset="typed", method="gene_mean", seed=1)[0]
    found = {s["measure"]: s["value"] for s in cell["scores"] if s["setting"] == "30%" and s["measure"] != "seconds"}
    assert found == pytest.approx(expected)


def test_without_imputation_zeros_are_the_observed_ones(run, folder):
    from scautoimpute import read

    x = read(folder / "typed.h5ad").X.toarray()
    cell = cells_of(run[1], experiment="zeros", dataset="typed", method="none")[0]
    line = cell["figure"]["lines"]["all cells"]
    assert line["bins"][0] == "silent"
    modelled = (x >= 3).sum(axis=0) >= 3
    assert sum(line["genes"]) == modelled.sum()
    left = sum(n * f for n, f in zip(line["genes"], line["zero_fraction"], strict=True)) / sum(line["genes"])
    assert left == pytest.approx((x[:, modelled] == 0).mean(), abs=1e-3)
    filled = cells_of(run[1], experiment="zeros", dataset="typed", method="gene_mean")[0]
    assert filled["figure"]["lines"]["all cells"]["zero_fraction"][-1] == 0


def test_the_fraction_of_zeros_left_is_that_of_the_counts_without_imputation(run, folder):
    from scautoimpute import read

    x = read(folder / "untyped.h5ad").X.toarray()
    modelled = (x >= 3).sum(axis=0) >= 3
    scores = cells_of(run[1], experiment="structure", dataset="untyped", method="none")[0]["scores"]
    (left,) = [s["value"] for s in scores if s["measure"] == "zero_fraction"]
    assert left == pytest.approx((x[:, modelled] == 0).mean())


def test_sets_without_types_are_left_out_of_what_needs_them_and_it_is_said(run):
    _, results = run
    for name, why in (("untyped", "no column 'cell_type'"), ("single", "1 class in 36 cells")):
        (cell, *_) = cells_of(results, experiment="structure", dataset=name)
        assert {s["measure"] for s in cell["scores"]} == {"log_cv_median", "zero_fraction"}
        assert any(note.startswith(name) and why in note for note in results["manifest"]["notes"])
    (cell, *_) = cells_of(results, experiment="structure", dataset="typed")
    assert {"ari", "ari_sd", "silhouette", "silhouette_all_genes"} <= {s["measure"] for s in cell["scores"]}
    assert len(cell["figure"]["pca"]) == len(cell["figure"]["types"]) == 45


def test_halves_of_the_cells_are_the_same_for_every_method(run, folder):
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    from scautoimpute import pp, read

    full = pp.recipe_autoimpute(read(folder / "typed.h5ad"), flavor="cv", copy=True)
    x, types = full.X.toarray(), full.obs["cell_type"].to_numpy().astype(str)
    (cell,) = cells_of(run[1], experiment="structure", dataset="typed", method="none", seed=1)
    found = [s["value"] for s in cell["scores"] if s["measure"] == "silhouette_of_half"]
    rng = np.random.default_rng([1, 5])
    halves = [rng.permutation(len(types))[: len(types) // 2] for _ in range(5)]
    loop = [silhouette_score(PCA(2, svd_solver="full").fit_transform(x[h]), types[h]) for h in halves]
    np.testing.assert_allclose(found, loop, atol=1e-4)
    assert sum(s["measure"] == "ari_of_half" for s in cell["scores"]) == 5


def test_tables_hold_every_score(run):
    output, results = run
    with (output / "results.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == sum(len(cell["scores"]) for cell in results["cells"])
    assert sum(float(row["value"]) for row in rows) == pytest.approx(
        sum(s["value"] for cell in results["cells"] for s in cell["scores"])
    )
    assert json.loads((output / "results.json").read_text()) == results
    manifest = results["manifest"]
    assert {"numpy", "torch", "scautoimpute"} <= set(manifest["versions"])
    assert manifest["hardware"]["processor"]
    assert manifest["datasets"]["typed"]["types"] == {"type_1": 15, "type_2": 15, "type_3": 15}
    assert list(rows[0])[-3:] == ["versions", "hardware", "command"]
    for row in rows:
        assert f"scautoimpute {manifest['versions']['scautoimpute']}, numpy {np.__version__}" in row["versions"]
        assert row["hardware"].startswith(f"processor {manifest['hardware']['processor']}, cores {os.cpu_count()}, ")
        assert row["command"] == manifest["command"]


def test_tables_of_two_runs_can_be_put_together_in_pandas(run, folder, tmp_path):
    import pandas as pd

    output, _ = run
    evaluate(folder / "typed.h5ad", output=tmp_path / "out", methods=["none", "scvi"], seeds=1, table_only=True)
    both = pd.concat([pd.read_csv(at / "results.csv") for at in (output, tmp_path / "out")], ignore_index=True)
    assert not both[["versions", "hardware", "command"]].isna().any(axis=None)
    assert both["value"].isna().sum() == (both["status"] == "not run").sum() > 0
    mean = both.pivot_table(index="dataset", columns="method", values="value")
    assert list(mean.columns) == sorted(CHEAP)


def test_deviance_of_molecules_is_that_of_scikit_learn(folder, tmp_path):
    from sklearn.metrics import mean_poisson_deviance

    from scautoimpute import read

    adata = read(folder / "typed.h5ad")
    results = evaluate(folder / "typed.h5ad", output=tmp_path / "out", methods=["none"], seeds=1)
    (found,) = [s["value"] for s in cells_of(results, experiment="molecules")[0]["scores"]]
    x = adata.X.toarray().astype(int)
    rng, aside = np.random.default_rng([0, 4]), np.zeros_like(x)
    aside[x > 0] = rng.binomial(x[x > 0], 0.1)
    left = x - aside
    modelled = (left >= 3).sum(axis=0) >= 3
    left, aside = left[:, modelled], aside[:, modelled]
    gene_mean = left.sum(axis=1, keepdims=True) * left.sum(axis=0) / left.sum()
    expected = (0.99 * left + 0.01 * gene_mean) / 9
    assert found == pytest.approx(mean_poisson_deviance(aside.ravel(), expected.ravel()), rel=1e-5)


# ------------------------------------------------------------------------------------------------ going on


def test_what_has_ended_is_not_run_again(run, folder):
    output, results = run
    before = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    removed = output / "cells" / "recovery.typed.none.1.json"
    removed.unlink()
    (output / "cells" / "recovery.typed.gene_mean.0.json").write_text('{"cut off')
    options = {"methods": CHEAP, "seeds": 2, "experiments": ["zeros", "recovery", "structure"]}
    planned = reproduce(folder, output=output, table_only=True, **options)
    assert sum(cell["note"] == "not yet" for cell in planned["cells"]) == 2
    again = reproduce(folder, output=output, **options)
    after = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == {removed.name, "recovery.typed.gene_mean.0.json"}
    scores = [[s for s in c["scores"] if s["measure"] != "seconds"] for c in results["cells"]]
    assert [[s for s in c["scores"] if s["measure"] != "seconds"] for c in again["cells"]] == scores


def test_other_data_of_the_same_name_are_refused(folder, tmp_path):
    sets = tmp_path / "sets"
    sets.mkdir()
    datasets.simulate(n_cells=30, n_genes=60).write_h5ad(sets / "a.h5ad")
    options = {"methods": ["none"], "experiments": ["recovery"], "seeds": 1, "table_only": True}
    reproduce(sets, output=tmp_path / "out", **options)
    datasets.simulate(n_cells=30, n_genes=60, random_state=9).write_h5ad(sets / "a.h5ad")
    with pytest.raises(ValueError, match=r"other data, settings or versions \(sha256 of a\)"):
        reproduce(sets, output=tmp_path / "out", **options)
    with pytest.raises(ValueError, match="kind"):
        evaluate(sets / "a.h5ad", output=tmp_path / "out", methods=["none"], table_only=True)


def test_another_file_is_not_evaluated_into_the_same_folder(folder, tmp_path):
    options = {"output": tmp_path / "out", "methods": ["none"], "table_only": True}
    evaluate(folder / "typed.h5ad", **options)
    with pytest.raises(ValueError, match=r"other data, settings or versions \(file typed, now untyped\)"):
        evaluate(folder / "untyped.h5ad", **options)


def test_other_versions_of_a_rival_are_refused_and_one_that_is_new_is_not(folder, tmp_path):
    options = {"output": tmp_path / "out", "methods": ["none"], "table_only": True}
    evaluate(folder / "typed.h5ad", **options)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    here = manifest["versions"].pop("magic-impute", None)
    path.write_text(json.dumps(manifest))
    evaluate(folder / "typed.h5ad", **options)
    if here is not None:
        manifest["versions"]["magic-impute"] = "0.0.1"
        path.write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"magic-impute 0\.0\.1, now"):
            evaluate(folder / "typed.h5ad", **options)


def test_what_was_done_with_full_is_shown_without(folder, tmp_path):
    asked = {"methods": ["autoimpute-paper"], "datasets": ["typed"], "seeds": 1, "experiments": ["structure"]}
    asked |= {"output": tmp_path / "out", "time_limit": 0.3, "table_only": True}
    done = tmp_path / "out" / "cells" / "structure.typed.autoimpute-paper.0.json"
    [cell] = reproduce(folder, **asked, full=True)["cells"]
    done.write_text(json.dumps(cell | {"status": "done", "note": ""}))
    assert reproduce(folder, **asked)["cells"][0]["status"] == "done"


def test_other_seeds_are_not_tried_where_the_first_took_too_long(folder, tmp_path):
    asked = {"methods": ["autoimpute-paper"], "datasets": ["typed"], "seeds": 3, "experiments": ["structure"]}
    results = reproduce(folder, output=tmp_path / "out", time_limit=0.3, full=True, **asked)
    assert [cell["status"] for cell in results["cells"]] == ["timed out", "not run", "not run"]
    assert results["cells"][2]["note"] == "not tried: timed out with another seed"


def test_by_default_a_file_takes_minutes(folder, tmp_path):
    """What takes hours is left out and said so; the recommendation needs 10 % hidden alone."""
    results = evaluate(folder / "typed.h5ad", output=tmp_path / "out", table_only=True)
    methods = {cell["method"] for cell in results["cells"]}
    assert "autoimpute" in methods
    assert not methods & {"scvi", "autoimpute-paper"}
    assert {tuple(cell["asked"]["shares"]) for cell in cells_of(results, experiment="recovery")} == {(0.1,)}
    assert any("left out, since they take hours: autoimpute-paper, scvi" in n for n in results["manifest"]["notes"])
    full = evaluate(folder / "typed.h5ad", output=tmp_path / "full", table_only=True, full=True)
    assert {"scvi", "autoimpute-paper"} <= {cell["method"] for cell in full["cells"]}
    assert {len(cell["asked"]["shares"]) for cell in cells_of(full, experiment="recovery")} == {5}


def test_a_second_run_into_a_folder_is_refused_while_the_first_lives(run, folder):
    from scautoimpute._lock import sole_owner

    output, results = run
    with (
        sole_owner(output),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()} is at work in .*: let it finish"),
    ):
        reproduce(folder, output=output, methods=["none"])
    assert json.loads((output / "manifest.json").read_text())["created"] == results["manifest"]["created"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_run_goes_on_and_a_second_one_beside_it_is_refused(folder, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "scautoimpute", "reproduce", str(folder), "-o", str(output), "--seeds", "1"]
    command += ["--jobs", "1", "-d", "typed", "-e", "recovery", "--methods", "none,gene_mean,autoimpute-paper"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(output.glob("cells/*.json"))) == 2 and workers_of(first.pid))
    with pytest.raises(BlockingIOError, match=f"process {first.pid} is at work"):
        reproduce(folder, output=output, methods=["none"])
    family = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130
    assert f"what has ended is kept in {output}; go on with: scautoimpute reproduce" in said
    psutil.wait_procs(family, timeout=20)
    assert not [process for process in family if process.is_running() and process.status() != "zombie"]
    results = reproduce(
        folder, output=output, methods=["none", "gene_mean"], datasets=["typed"], seeds=1, table_only=True
    )
    assert [cell["status"] for cell in cells_of(results, experiment="recovery")] == ["done", "done"]


def workers_of(pid):
    """Processes that the server of the run has forked."""
    return [deep for near in psutil.Process(pid).children() for deep in near.children()]


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


# ------------------------------------------------------------------------------------------------ accidents


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_is_killed_costs_its_own_cell(folder, tmp_path):
    output = tmp_path / "out"
    program = (
        "from scautoimpute.evaluation import reproduce\n"
        f"reproduce({str(folder)!r}, output={str(output)!r}, methods=['none', 'autoimpute-paper'], jobs=1, seeds=1,"
        "          datasets=['typed', 'untyped'], experiments=['recovery'], time_limit=5)"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    victim = wait_for(lambda: len(list(output.glob("cells/*.json"))) == 2 and workers_of(run.pid))[0]
    os.kill(victim.pid, signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0
    assert "leaked" not in said
    cells = {(c["dataset"], c["method"]): c for c in json.loads((output / "results.json").read_text())["cells"]}
    killed = cells["untyped", "autoimpute-paper"]
    assert killed["status"] == "failed"
    assert "killed by SIGKILL" in killed["note"]
    assert cells["typed", "none"]["status"] == cells["untyped", "none"]["status"] == "done"
    assert cells["typed", "autoimpute-paper"]["status"] in {"done", "timed out"}


def test_limits_of_time_and_memory_are_held_and_named(folder, tmp_path):
    options = {"experiments": ["recovery"], "datasets": ["typed"], "seeds": 1, "full": True, "output": tmp_path / "out"}
    slow = reproduce(folder, methods=["autoimpute-paper"], time_limit=0.3, **options)
    assert [(c["status"], c["note"]) for c in slow["cells"]] == [("timed out", "stopped after 0.3 s (--time-limit)")]
    large = reproduce(folder, methods=["autoimpute-paper"], memory_limit=0.01, retry=True, **options)
    assert large["cells"][0]["status"] == "out of memory"
    assert "--memory-limit 0.01" in large["cells"][0]["note"]
    kept = reproduce(folder, methods=["autoimpute-paper"], **options)  # without retry
    assert kept["cells"] == large["cells"]


def test_more_cells_are_not_tried_where_fewer_took_too_long(folder, tmp_path):
    asked = {"methods": ["autoimpute-paper"], "experiments": ["scale"], "time_limit": 0.3}
    results = reproduce(folder, output=tmp_path / "out", full=True, **asked)
    ended = [(cell["asked"]["n_cells"], cell["status"], cell["note"]) for cell in results["cells"]]
    assert [status for _, status, _ in ended] == ["timed out", "not run", "not run", "not run"]
    assert ended[1][2] == "not tried: timed out with fewer cells"
    assert results["claims"][-1]["reproduced"] is None


def test_resampled_cells_are_called_so_in_every_table(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("scautoimpute.evaluation.plan.SIZES", (70,))
    asked = {"methods": ["none"], "experiments": ["scale"], "datasets": ["typed"]}
    [cell] = reproduce(folder, output=tmp_path / "out", **asked)["cells"]
    assert [(s["setting"], s["measure"]) for s in cell["scores"]] == [
        ("70 cells, resampled", "seconds"),
        ("70 cells, resampled", "peak_gb"),
    ]
    with (tmp_path / "out" / "results.csv").open(newline="") as handle:
        assert {row["setting"] for row in csv.DictReader(handle)} == {"70 cells, resampled"}


def test_a_method_that_cannot_run_says_why(tmp_path):
    datasets.simulate(n_cells=12, n_genes=60).write_h5ad(tmp_path / "few.h5ad")
    results = reproduce(
        tmp_path, output=tmp_path / "out", methods=["none", "scimpute"], experiments=["recovery"], seeds=1
    )
    assert cells_of(results, method="none")[0]["status"] == "done"
    for cell in cells_of(results, method="scimpute"):
        assert cell["status"] in {"done", "failed"}
        assert cell["status"] == "done" or cell["note"]


def test_the_published_training_is_not_begun_where_it_would_not_end(folder, tmp_path):
    asked = {"methods": ["autoimpute-paper"], "datasets": ["typed"], "seeds": 1, "time_limit": 1.5}
    results = reproduce(folder, output=tmp_path / "out", experiments=["structure"], **asked)
    [cell] = results["cells"]
    assert cell["status"] == "not run"
    assert "--full" in cell["note"]


@pytest.mark.skipif(find_spec("scvi") is not None, reason="scvi-tools is installed")
def test_a_method_whose_extra_is_not_installed_is_named_with_the_command(folder, tmp_path):
    results = reproduce(folder, output=tmp_path / "out", methods=["scvi"], datasets=["typed"], seeds=1)
    assert {cell["status"] for cell in results["cells"]} == {"not run"}
    assert all('pip install "scautoimpute[scvi]"' in cell["note"] for cell in results["cells"])


# ------------------------------------------------------------------------------------------------ bad input


def test_bad_input_is_refused_in_one_line(folder, tmp_path):
    options = {"output": tmp_path / "out", "table_only": True}
    (tmp_path / "empty").mkdir()
    refused = [
        (tmp_path / "empty", {}, FileNotFoundError, "has no .h5ad file"),
        (tmp_path / "nowhere", {}, FileNotFoundError, "is no folder"),
        (folder, {"datasets": ["zeisel"]}, ValueError, "--datasets has 'zeisel', found are single, typed, untyped"),
        (folder, {"methods": ["magick"]}, ValueError, "--methods 'magick' is not known: choose none, gene_mean"),
        (folder, {"experiments": ["fig7"]}, ValueError, "--experiments 'fig7' is not known: choose zeros"),
        (folder, {"seeds": 0}, ValueError, "--seeds 0 is not positive"),
        (folder, {"time_limit": -1}, ValueError, "--time-limit -1 is not positive"),
    ]
    for source, given, kind, words in refused:
        with pytest.raises(kind) as caught:
            reproduce(source, **options, **given)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_of_other_things_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"no manifest\.json"):
        reproduce(folder, output=tmp_path, table_only=True)
    with pytest.raises(NotADirectoryError, match="is a file"):
        reproduce(folder, output=tmp_path / "thesis.tex", table_only=True)


def test_logs_are_refused_with_the_name_of_the_file(tmp_path):
    adata = datasets.simulate(n_cells=30, n_genes=60)
    adata.X = np.log1p(adata.X.toarray()) / 3
    del adata.layers["truth"]
    adata.write_h5ad(tmp_path / "logged.h5ad")
    with pytest.raises(ValueError, match=r"logged\.h5ad: no counts were found"):
        reproduce(tmp_path, output=tmp_path / "out", table_only=True)


def test_a_bulk_file_without_numbers_is_refused(tmp_path):
    datasets.simulate(n_cells=30, n_genes=60).write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "bulk_a.csv").write_text("gene,r1\ngene_1,many\n")
    with pytest.raises(ValueError, match=r"bulk_a\.csv holds no bulk counts"):
        reproduce(tmp_path, output=tmp_path / "out", table_only=True)


# ------------------------------------------------------------------------------------------------ one's own data


def test_a_file_is_evaluated_without_labels_and_with(tmp_path):
    adata = datasets.simulate(n_cells=60, n_genes=80, random_state=2)
    adata.write_h5ad(tmp_path / "mine.h5ad")
    results = evaluate(
        tmp_path / "mine.h5ad", output=tmp_path / "a", methods=["none", "gene_cell_bias", "alra"], seeds=2
    )
    assert {cell["experiment"] for cell in results["cells"]} == {"molecules", "recovery", "structure"}
    assert "no labels were given" in results["recommendation"]
    assert "ARI" not in results["recommendation"].split("The rule.")[0]
    labelled = evaluate(
        tmp_path / "mine.h5ad",
        output=tmp_path / "b",
        labels="cell_type",
        methods=["none", "gene_cell_bias", "alra"],
        seeds=2,
    )
    assert "For clusters that agree with the given types (ARI): alra" in labelled["recommendation"]
    assert "over cells, 2 seeds" in labelled["recommendation"]


@pytest.mark.parametrize(("labels", "words"), [("kind", "no column 'kind'"), ("one", "1 class in 30 cells")])
def test_labels_that_cannot_be_used_are_refused(tmp_path, labels, words):
    adata = datasets.simulate(n_cells=30, n_genes=60)
    adata.obs["one"] = "one"
    adata.write_h5ad(tmp_path / "mine.h5ad")
    with pytest.raises(ValueError, match=words):
        evaluate(tmp_path / "mine.h5ad", output=tmp_path / "out", labels=labels, table_only=True)


def test_a_file_of_another_format_is_evaluated(tmp_path):
    datasets.simulate(n_cells=30, n_genes=60).to_df().to_csv(tmp_path / "mine.csv")
    results = evaluate(tmp_path / "mine.csv", output=tmp_path / "out", methods=["none"], seeds=1)
    assert {cell["status"] for cell in results["cells"]} == {"done"}


def test_a_folder_is_evaluated_and_known_again(tmp_path):
    """As zarr and 10x are."""
    adata = datasets.simulate(n_cells=30, n_genes=60)
    sai.write(adata, tmp_path / "mine.zarr")
    once = {"output": tmp_path / "out", "methods": ["none"], "seeds": 1}
    results = evaluate(tmp_path / "mine.zarr", **once)
    assert {cell["status"] for cell in results["cells"]} == {"done"}
    evaluate(tmp_path / "mine.zarr", **once, table_only=True)
    sai.write(adata[:29].copy(), tmp_path / "mine.zarr", overwrite=True)
    with pytest.raises(ValueError, match="mine"):
        evaluate(tmp_path / "mine.zarr", **once)


def test_counts_without_structure_are_not_to_be_imputed(tmp_path):
    """Pooled neighbours foretell more than the counts as they are, and no more than the mean of each gene."""
    rng = np.random.default_rng(0)
    rate_NG = rng.gamma(20, 1 / 20, (150, 1)) * rng.gamma(0.5, 1, 80)
    anndata.AnnData(sparse.csr_matrix(rng.poisson(rate_NG).astype(np.float32))).write_h5ad(tmp_path / "noise.h5ad")
    methods = ["none", "gene_mean", "gene_cell_bias", "knn"]
    results = evaluate(tmp_path / "noise.h5ad", output=tmp_path / "out", methods=methods, seeds=2)
    deviances = {
        cell["method"]: cell["scores"][0]["value"] for cell in results["cells"] if cell["experiment"] == "molecules"
    }
    assert deviances["gene_mean"] < deviances["knn"] < deviances["none"]
    assert results["recommendation"].startswith("Do not impute")


def test_a_script_without_a_guard_evaluates(tmp_path):
    """The processes that do the work do not run the script again."""
    datasets.simulate(n_cells=30, n_genes=60).write_h5ad(tmp_path / "mine.h5ad")
    (tmp_path / "script.py").write_text(
        "from scautoimpute.evaluation import evaluate\n"
        "results = evaluate('mine.h5ad', output='out', methods=['none'], seeds=1)\n"
        "print({cell['status'] for cell in results['cells']})\n"
    )
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "{'done'}\n", done.stderr


# ------------------------------------------------------------------------------------------------ the command line


def command(*words):
    from typer.testing import CliRunner

    from scautoimpute.cli import app

    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce", "{empty}", "-o", "{out}"], "has no .h5ad file"),
        (["reproduce", "{sets}", "-o", "{out}", "-e", "recovery,fig7"], "--experiments 'fig7' is not known"),
        (["evaluate", "{empty}/x.h5ad", "-o", "{out}"], "does not exist"),
        (["evaluate", "{sets}/typed.h5ad", "-o", "{out}", "--labels", "kind"], "--labels kind: no column 'kind'"),
        (["evaluate", "{sets}/typed.h5ad", "-o", "{sets}"], "no manifest.json"),
    ],
)
def test_commands_say_in_one_line_what_is_wrong(folder, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    places = {"sets": folder, "empty": tmp_path / "empty", "out": tmp_path / "out"}
    result = command(*(word.format(**places) for word in words))
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_commands_end_in_claims_a_recommendation_and_a_report(folder, tmp_path):
    pytest.importorskip("scautoimpute.report")
    out = tmp_path / "out"
    told = command(
        "reproduce", folder, "-o", out, "-m", "none,gene_mean", "-e", "recovery", "-d", "typed", "--seeds", 1
    )
    assert told.exit_code == 0, told.output
    assert "The lowest RMSE of all methods" in told.stdout
    assert "2 done" in told.stdout
    assert (out / "report.html").read_text().startswith("<!")
    told = command("evaluate", folder / "typed.h5ad", "-o", tmp_path / "mine", "-m", "none,alra", "--seeds", 1)
    assert told.exit_code == 0, told.output
    assert "The rule." in told.stdout
    assert "<h2>Zeros left</h2>" in (tmp_path / "mine" / "report.html").read_text()
