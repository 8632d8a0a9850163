"""Tuning: what is hidden stays hidden, bad candidates go early, and the error is of entries nobody chose by."""

import json
import shlex
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute.cli import app
from scautoimpute.metrics import recovery_scores
from scautoimpute.model.settings import MANY_CELLS
from scautoimpute.tuning import Tuning, tune_processed
from scautoimpute.tuning.grid import TUNABLE, candidates, plan_rungs
from scautoimpute.tuning.search import _gain
from scautoimpute.tuning.split import Split, split_counts, split_processed

PAPER = {"preset": "paper", "grid": {"hidden": [4, 16], "learning_rate": [1e-3, 1e-2]}, "max_resources": 20}
N_TOP = 40


@pytest.fixture(scope="module")
def counts():
    adata = sai.datasets.simulate(n_cells=60, n_genes=80, n_types=3, random_state=0)
    return anndata.AnnData(adata.X, obs=adata.obs[[]], var=adata.var[[]])


@pytest.fixture(scope="module")
def paper(counts):
    return sai.tl.tune(counts, **PAPER, random_state=1)


def without_seconds(found):
    return found.table.drop(columns="seconds")


def changed_at(adata, rows, columns, by=7):
    """Counts with some of the entries multiplied."""
    changed = adata.copy()
    x = changed.X.tolil()
    x[rows, columns] = x[rows, columns].toarray() * by
    changed.X = sparse.csr_matrix(x)
    return changed


def split_of(adata, seed):
    """What `tl.tune` hides: its generator is the seed's."""
    return split_counts(adata, None, 0.1, np.random.default_rng(seed), n_top_genes=N_TOP, flavor="dispersion")


# ------------------------------------------------------------------------------------------------------ what is hidden


def test_hidden_counts_are_on_the_scale_of_the_visible_ones(counts):
    split = split_of(counts, 0)
    whole = split_processed(sparse.csr_array(counts.X), 0.1, np.random.default_rng(0))
    visible = whole.visible.toarray().astype(float)
    totals = visible[:, (visible >= 3).sum(0) >= 3].sum(1)
    factor = totals / np.median(totals)
    names = sai.pp.processed_matrix(
        anndata.AnnData(sparse.csr_matrix(visible), var=counts.var), n_top_genes=N_TOP
    ).genes
    x = counts.X.toarray().astype(float)
    expected = [
        np.log2(x[row, names[g]] / factor[row] + 1) for row, g in zip(split.rows_V, split.columns_V, strict=True)
    ]
    np.testing.assert_allclose(split.truth_V, expected, rtol=1e-12)
    assert not split.visible[split.rows_V, split.columns_V].any()
    shown = visible[:, names]
    np.testing.assert_allclose(split.visible.toarray(), np.log2(shown / factor[:, None] + 1), rtol=1e-6)


def test_two_equal_disjoint_shares_are_hidden(counts):
    x = sparse.csr_array(counts.X)
    split = split_processed(x, 0.2, np.random.default_rng(0))
    assert np.count_nonzero(split.untouched_V) == pytest.approx(0.2 * x.nnz, abs=1)
    assert np.count_nonzero(~split.untouched_V) == pytest.approx(0.2 * x.nnz, abs=1)
    back = split.visible.toarray()
    assert not back[split.rows_V, split.columns_V].any()
    back[split.rows_V, split.columns_V] = split.truth_V  # every entry once, or it would not be whole
    np.testing.assert_array_equal(back, x.toarray())
    assert len(set(zip(split.rows_V, split.columns_V, strict=True))) == len(split.rows_V)


def test_no_hidden_count_reaches_totals_genes_or_training(counts):
    whole = split_processed(sparse.csr_array(counts.X), 0.1, np.random.default_rng(3))
    split = split_of(counts, 3)
    other = split_of(changed_at(counts, whole.rows_V, whole.columns_V), 3)
    assert (split.visible != other.visible).nnz == 0
    assert not np.allclose(split.truth_V, other.truth_V)


@pytest.mark.parametrize(("preset", "hidden"), [(None, [8]), ("paper", [4, 8, 16])])
def test_nothing_is_chosen_by_untouched_entries(counts, preset, hidden):
    options = {"preset": preset, "grid": {"hidden": hidden}, "max_resources": 3, "random_state": 3}
    whole = split_processed(sparse.csr_array(counts.X), 0.1, np.random.default_rng(3))
    at = whole.rows_V[whole.untouched_V], whole.columns_V[whole.untouched_V]
    found = sai.tl.tune(counts, **options)
    other = sai.tl.tune(changed_at(counts, *at), **options)
    pd.testing.assert_frame_equal(without_seconds(found), without_seconds(other))
    assert found.best == other.best
    assert found.scores["best"]["rmse"] != other.scores["best"]["rmse"]


# ------------------------------------------------------------------------------------------------------------ halving


def test_each_rung_keeps_the_best_as_a_loop_does(counts):
    x = sai.pp.processed_matrix(counts, n_top_genes=N_TOP).log2
    grid = {"l2": [1, 100], "learning_rate": [1e-4, 1e-2], "threshold": [1e-3, 1e-9], "hidden": [8]}
    found = tune_processed(x, preset="paper", grid=grid, min_resources=4, max_resources=12, random_state=5)
    rng = np.random.default_rng(5)
    split, seed = split_processed(x, 0.1, rng), int(rng.integers(2**31))
    chosen_by = ~split.untouched_V

    def score(row, steps):
        settings = {name: row[name] for name in TUNABLE}
        model = AutoImpute(preset="paper", max_epochs=steps, random_state=seed, **settings)
        with pytest.warns(UserWarning, match="before it had converged"):
            model.fit(split.visible)
        predicted = model.impute(split.visible, keep_observed=False)[split.rows_V, split.columns_V]
        return [recovery_scores(split.truth_V[v], predicted[v])["rmse"] for v in (chosen_by, ~chosen_by)]

    table = found.table.astype({"hidden": int})
    early = [score(row, 4)[0] for _, row in table.iterrows()]
    assert len(table) == 9
    kept = set(np.argsort(early, kind="stable")[:3]) | {int(np.flatnonzero(table["default"])[0])}
    went_on = table["rung"] > 0
    assert sorted(np.array(early)[went_on & ~table["default"]]) == sorted(np.sort(early)[:3])
    assert went_on.sum() == len(kept)
    for number, row in table.iterrows():
        assert row["max_epochs"] == (12 if went_on[number] else 4)
        assert row["rmse"] == pytest.approx(score(row, row["max_epochs"])[0], rel=1e-6)
    assert table["rmse"][went_on].is_monotonic_increasing
    assert found.best == {name: table[name][0] for name in TUNABLE}
    assert found.scores["best"]["rmse"] == pytest.approx(score(table.loc[0], 12)[1], rel=1e-6)
    default = table[table["default"]].iloc[0]
    assert found.scores["default"]["rmse"] == pytest.approx(score(default, 12)[1], rel=1e-6)


def test_a_threshold_not_met_changes_nothing_and_costs_nothing(counts):
    grid = {"threshold": [1e-6, 1e-3, 1e5], "hidden": [8]}
    found = sai.tl.tune(counts, preset="paper", grid=grid, min_resources=9, max_resources=9)
    table = found.table[found.table["hidden"] == 8].set_index("threshold")
    assert table["epochs"].to_dict() == {1e-6: 9, 1e-3: 9, 1e5: 1}
    assert table["rmse"][1e-6] == table["rmse"][1e-3] != table["rmse"][1e5]
    assert (table["seconds"][1e-6], table["converged"][1e5]) == (0, True)
    assert table["seconds"][1e-3] > 0


def test_training_that_ended_by_itself_is_not_repeated(counts):
    options = {"preset": "paper", "grid": {"threshold": [1e9]}, "random_state": 2}
    found = sai.tl.tune(counts, **options, min_resources=3, max_resources=9)
    once = sai.tl.tune(counts, **options, min_resources=9, max_resources=9)
    assert set(found.table["epochs"]) == {1, 9}
    columns = ["threshold", "epochs", "rmse"]
    pd.testing.assert_frame_equal(found.table[columns], once.table[columns])


@pytest.mark.parametrize("n_candidates", [2, 3, 7, 27, 100])
@pytest.mark.parametrize("factor", [1.5, 2, 3, 10])
@pytest.mark.parametrize("min_resources", [None, 1, 5, 150])
def test_rungs_shrink_by_the_factor_and_end_with_everything(n_candidates, factor, min_resources):
    rungs = plan_rungs(n_candidates, factor=factor, min_resources=min_resources, max_resources=150)
    sizes, resources = (np.array(column) for column in zip(*rungs, strict=True))
    assert (sizes[0], resources[-1]) == (n_candidates, 150)
    assert min_resources is None or resources[0] == min_resources
    assert np.all(np.diff(resources) > 0)
    np.testing.assert_array_equal(sizes[1:], np.ceil(sizes[:-1] / factor))
    assert np.all(resources[1:] / resources[:-1] <= factor + 1 / resources[:-1]) or sizes[-1] == 1


def test_a_training_that_diverges_is_last(counts):
    found = sai.tl.tune(counts, preset="paper", grid={"l2": [1e38, 2], "hidden": [8]}, max_resources=4, min_resources=4)
    assert found.table["l2"].iloc[-1] == 1e38
    assert np.isinf(found.table[["rmse", "mae", "nmse"]].iloc[-1]).all()
    assert np.isfinite(found.scores["best"]["rmse"])


# ---------------------------------------------------------------------------------------------------- what comes back


def test_the_table_says_what_was_tried(paper):
    table = paper.table
    columns = ["learning_rate", "hidden", "default", "rung", "max_epochs", "epochs", "converged"]
    assert list(table) == [*columns, "rmse", "mae", "nmse", "seconds", "outcome"]
    assert len(table) == 5
    assert {tuple(pair) for pair in table[["hidden", "learning_rate"]].to_numpy()} == {
        (hidden, rate) for hidden in (4, 16) for rate in (1e-3, 1e-2)
    } | {(2000, 1e-4)}
    assert table["default"].sum() == 1
    assert table[table["default"]]["hidden"].item() == 2000
    assert table["outcome"][0] == "best"
    assert set(table["outcome"][table["rung"] < table["rung"].max()]) == {"eliminated"}
    assert set(table["outcome"][1:][table["rung"] == table["rung"].max()]) == {"kept"}
    assert paper.n_chosen_by == pytest.approx(paper.n_untouched, rel=0.1)


def test_best_settings_make_a_model(paper, counts):
    model = paper.model()
    assert not model.is_fitted
    assert (model.settings.preset, model.random_state) == ("paper", 1)
    assert model.settings.hidden == (paper.best["hidden"],)
    assert model.settings.learning_rate == paper.best["learning_rate"]
    assert paper.best["hidden"] in {4, 16}
    model.settings = replace(model.settings, max_epochs=2)
    adata = counts.copy()
    with pytest.warns(UserWarning, match="before it had converged"):
        sai.tl.autoimpute(adata, model=model)
    assert adata.uns["imputed"]["settings"]["hidden"] == [paper.best["hidden"]]


def test_tuning_the_published_method_helps_and_is_told_when_it_is_no_use(paper):
    assert paper.helped
    assert paper.verdict.startswith("tuning helped: RMSE ")
    assert paper.scores["best"]["rmse"] > paper.scores["gene_mean"]["rmse"]
    assert paper.verdict.endswith(f"non-zeros does better, {paper.scores['gene_mean']['rmse']:.4g}")


@pytest.mark.parametrize(
    ("is_default", "gain", "said"),
    [
        (True, 0.0, "nothing beat the defaults, RMSE 1 on 90 untouched entries: keep them"),
        (False, 0.05, "tuning helped: RMSE 0.95 against 1 of the defaults (-5.00% ± 2.00%) on 90 untouched entries"),
        (False, 0.015, "tuning made no clear difference: RMSE 0.985 against 1"),
        (False, -0.05, "tuning did harm: RMSE 1.05 against 1 of the defaults (+5.00% ± 2.00%)"),
    ],
)
def test_the_verdict_is_that_of_the_untouched_entries(is_default, gain, said):
    scores = {"best": {"rmse": 1 - gain}, "default": {"rmse": 1.0}, "gene_mean": {"rmse": 2.0}}
    table = pd.DataFrame({"l2": [1.0], "default": [is_default]})
    found = Tuning(table, {"l2": 1.0}, scores, 90, 90, gain, 0.01, None, "cpu", 0)
    assert found.verdict.startswith(said)
    assert found.helped == (gain == 0.05)


def test_the_standard_error_is_that_of_a_bootstrap_over_cells():
    rng = np.random.default_rng(0)
    cells = np.repeat(np.arange(200), 20)
    shared = rng.normal(size=200)[cells]  # what errors of one cell have in common
    truth = np.zeros(len(cells))
    default, best = shared + rng.normal(size=len(cells)), 0.9 * shared + rng.normal(size=len(cells))
    split = Split(sparse.csr_array((200, 1)), cells, cells * 0, truth, np.ones(len(cells), dtype=bool))
    found = _gain(split, default, best)
    squares = np.stack([np.bincount(cells, error**2) for error in (default, best)])
    drawn = squares[:, rng.integers(200, size=(2000, 200))].sum(2)
    assert found["gain"] == pytest.approx(1 - np.sqrt(np.mean(best**2) / np.mean(default**2)))
    assert found["gain_se"] == pytest.approx(np.sqrt(drawn[1] / drawn[0]).std(), rel=0.1)


def test_same_seed_same_table(paper, counts):
    pd.testing.assert_frame_equal(without_seconds(sai.tl.tune(counts, **PAPER, random_state=1)), without_seconds(paper))
    again = sai.tl.tune(counts, **PAPER, random_state=np.random.default_rng(1))
    assert again.scores == paper.scores
    assert sai.tl.tune(counts, **PAPER, random_state=2).scores != paper.scores


def test_every_container_and_layer_gives_the_same_and_is_left_alone(paper, counts, array_type):
    adata = anndata.AnnData(np.log1p(counts.X.toarray()), obs=counts.obs, var=counts.var)
    adata.layers["raw"] = array_type(counts.X.toarray())
    before = adata.copy()
    found = sai.tl.tune(adata, layer="raw", **PAPER, random_state=1)
    assert found.scores == paper.scores
    np.testing.assert_array_equal(adata.X, before.X)
    assert (adata.layers["raw"] != before.layers["raw"]).sum() == 0
    assert not adata.uns
    assert not adata.obsm


def test_processed_data_in_every_form(counts):
    processed = sai.pp.recipe_autoimpute(counts, n_top_genes=N_TOP, copy=True)
    options = {"grid": {"hidden": [(8, 4), 8]}, "max_resources": 3}
    found = [tune_processed(data, **options) for data in (processed, processed.to_df(), processed.X)]
    assert found[0].scores == found[1].scores == found[2].scores
    assert set(found[0].table["hidden"]) == {128, 8, (8, 4)}
    two_layers = replace(found[0], best={"hidden": (8, 4)}).model()
    assert two_layers.settings.hidden == (8, 4)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_the_grids_hold_the_defaults():
    for preset, n_cells in ((None, 60), (None, MANY_CELLS + 1), ("paper", MANY_CELLS + 1)):
        tried = candidates(None, preset, n_cells)
        assert len(tried) == 36
        settings = AutoImpute(preset=preset).settings.for_cells(n_cells).to_json()
        assert tried[0] == {name: settings[name] for name in TUNABLE} | {"hidden": settings["hidden"][0]}


def test_what_is_not_in_the_grid_stays_as_the_preset_has_it():
    assert candidates({"hidden": [512, 512, 128]}, None, 60) == [{"hidden": 128}, {"hidden": 512}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grid": {}}, "the grid is {}: give values for one or more of l2, learning_rate, threshold, hidden"),
        ({"grid": {"l2": []}}, r"the grid's l2 is \[\]: give a list of one or more values"),
        ({"grid": {"l2": 0.1}}, "the grid's l2 is 0.1: give a list"),
        ({"grid": {"depth": [1]}}, "the grid has 'depth', which cannot be tuned: choose from l2"),
        ({"grid": {"hidden": [128]}}, "nothing but the defaults"),
        ({"grid": {"l2": [-1]}}, "l2=-1 is out of range: give a number of at least 0"),
        ({"grid": {"hidden": [1.5]}}, "hidden=1.5: give the width"),
        ({"grid": {"learning_rate": [11]}}, "learning_rate=11 is out of range"),
        ({"preset": "x"}, "preset='x' is not known"),
        ({"factor": 1}, "factor=1 is out of range: give a number above 1"),
        ({"factor": "3"}, "factor='3' is out of range"),
        ({"min_resources": 0}, "min_resources=0 is out of range: give an integer from 1 to 150"),
        ({"max_resources": 0}, "max_epochs=0 is out of range"),
        ({"share": 0.5}, "share=0.5 is out of range: give a number above 0 and at most 0.4"),
        ({"share": 0.01}, r"\d+ held-out entries are too few to compare settings by; at least 50 are needed"),
    ],
)
def test_errors_are_one_line(counts, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        sai.tl.tune(counts, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["logged", "negative"])
def test_what_is_no_counts_is_refused(counts, kind):
    x = counts.X.toarray()
    adata = anndata.AnnData(np.log1p(x) if kind == "logged" else -x)
    with pytest.raises(ValueError, match=kind):
        sai.tl.tune(adata, **PAPER)


# ----------------------------------------------------------------------------------------------------- the command line

TYPED = ["--preset", "paper", "--grid", "hidden=4,16", "--grid", "learning-rate=1e-3,1e-2", "--max-epochs", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("tune")
    counts.write_h5ad(folder / "cells.h5ad")
    counts.to_df().T.to_csv(folder / "genes_by_cells.csv")
    return folder


def typed(folder, monkeypatch, *arguments):
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.filterwarnings("ignore:training ended at max_epochs=20")
def test_the_command_prints_what_the_function_returns(folder, paper, monkeypatch):
    done = typed(folder, monkeypatch, "tune", "cells.h5ad", "-o", "table.csv", *TYPED, "--seed", "1")
    assert done.exit_code == 0, done.stderr
    written = pd.read_csv(folder / "table.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(written, without_seconds(paper), check_dtype=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 5 + 8
    assert lines[1].endswith("best")
    assert paper.verdict in done.stdout
    command = next(line for line in lines if line.startswith("to use them")).split(maxsplit=3)[3]
    _, *words = shlex.split(command)
    imputed = typed(folder, monkeypatch, *words)
    assert imputed.exit_code == 0, imputed.stderr
    settings = anndata.read_h5ad(folder / "imputed.h5ad").uns["imputed"]["settings"]
    assert settings["learning_rate"] == paper.best["learning_rate"]
    assert list(settings["hidden"]) == [paper.best["hidden"]]
    assert (settings["preset"], settings["max_epochs"]) == ("paper", 20)


@pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out RMSE")
def test_the_command_asks_for_the_objective_that_was_tuned(folder, monkeypatch):
    """For molecules another one is the default."""
    quick = ["--grid", "hidden=4", "--max-epochs", "2"]
    done = typed(folder, monkeypatch, "tune", "cells.h5ad", *quick, "--json")
    _, *words = shlex.split(json.loads(done.stdout)["command"])
    reads = anndata.read_h5ad("cells.h5ad")
    reads.X = reads.X * 7.5
    reads.write_h5ad("reads.h5ad")
    (folder / "imputed.h5ad").unlink(missing_ok=True)
    assert (
        "--objective"
        not in json.loads(typed(folder, monkeypatch, "tune", "reads.h5ad", *quick, "--json").stdout)["command"]
    )
    imputed = typed(folder, monkeypatch, *words)
    assert imputed.exit_code == 0, imputed.stderr
    assert anndata.read_h5ad(folder / "imputed.h5ad").uns["imputed"]["settings"]["objective"] == "masked"


def test_json_is_all_of_stdout(folder, paper, monkeypatch):
    arguments = ["genes_by_cells.csv", "--transpose", *TYPED, "--seed", "1", "--json"]
    done = typed(folder, monkeypatch, "tune", *arguments)
    found = json.loads(done.stdout)
    assert found["best"] == paper.best
    assert found["scores"] == paper.scores
    assert found["verdict"] == paper.verdict
    assert found["command"].startswith(
        "scautoimpute impute genes_by_cells.csv -o imputed.h5ad --transpose --preset paper"
    )
    pd.testing.assert_frame_equal(
        pd.DataFrame(found["table"]).drop(columns="seconds"), without_seconds(paper), check_dtype=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grid", "depth=1"], "the grid has 'depth', which cannot be tuned"),
        (
            ["--grid", "l2"],
            "--grid 'l2' is not a name and its values: give numbers without spaces, as in 'l2=0.1,1,10'",
        ),
        (["--grid", "l2=a"], "--grid 'l2=a' is not a name and its values"),
        (["--grid", "l2=1", "--grid", "l2=2"], "--grid has l2 twice"),
        (["--grid", "hidden=0"], "--hidden 0: give the width"),
        (["--factor", "1"], "--factor 1.0 is out of range"),
        (["--min-epochs", "200"], "--min-epochs 200 is out of range: give an integer from 1 to 150"),
        (["--share", "0.01"], "held-out entries are too few"),
        (["--n-top-genes", "x"], "--n-top-genes x is not a number"),
        (["-o", "table.h5ad"], "has suffix '.h5ad'; allowed are .csv, .tsv"),
        (["-o", "cells.csv"], "exists; give --overwrite to replace"),
    ],
)
def test_errors_say_what_to_type(arguments, said, folder, monkeypatch):
    (folder / "cells.csv").write_text("older")
    done = typed(folder, monkeypatch, "tune", "cells.h5ad", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if "%|" not in line]
    assert line.startswith("error: ")
    assert said in line
    assert (folder / "cells.csv").read_text() == "older"
