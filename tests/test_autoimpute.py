"""The estimator: what it takes, what it returns, what it refuses, and what it keeps on disk."""

import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, NotFittedError, _masked_estimates
from scautoimpute.metrics import gene_cell_bias, gene_mean, hide_entries, recovery_scores

# No epoch counts as progress at threshold 1, so training ends by itself after its patience
FAST = {"hidden": 16, "n_folds": 1, "threshold": 1.0}
UNFINISHED = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out RMSE")


@pytest.fixture(scope="module")
def processed():
    counts = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    return sai.pp.recipe_autoimpute(counts, n_top_genes=50, copy=True)


@pytest.fixture(scope="module")
def x(processed):
    """Whole numbers, so that every type of number can hold them."""
    return np.rint(2 * processed.X.toarray())


@pytest.fixture(scope="module")
def model(processed):
    return AutoImpute(**FAST, random_state=3).fit(processed)


def named(x):
    cells, genes = ([f"{kind}{i}" for i in range(n)] for kind, n in zip(("cell", "gene"), x.shape, strict=True))
    return pd.DataFrame(x, index=cells, columns=genes)


# ---------------------------------------------------------------------------------------------------------- input types

INPUTS = {
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x.astype(np.float64),
    "int": lambda x: x.astype(np.int64),
    "nan": lambda x: np.where(x == 0, np.nan, x),
    "fortran": np.asfortranarray,
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array int": lambda x: sparse.csc_array(x.astype(np.int32)),
    "coo": sparse.coo_array,
    "DataFrame": named,
    "AnnData dense": lambda x: AnnData(named(x)),
    "AnnData sparse": lambda x: AnnData(sparse.csr_matrix(x)),
}


@pytest.fixture(scope="module")
def expected(x):
    model = AutoImpute(**FAST).fit(x)
    return model.impute(x), model.held_out_


@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS.keys())
def test_every_input_type_gives_the_same_bytes(x, expected, make):
    data = make(x)
    before = pickle.dumps(data)
    model = AutoImpute(**FAST)
    imputed = model.fit_impute(data)
    assert imputed.dtype == np.float32
    np.testing.assert_array_equal(imputed, expected[0])
    assert model.held_out_ == expected[1]
    assert pickle.dumps(data) == before  # the data are as they were


def test_layer_of_an_anndata(x, expected):
    adata = AnnData(np.ones_like(x), layers={"logs": x})
    np.testing.assert_array_equal(AutoImpute(**FAST).fit_impute(adata, layer="logs"), expected[0])
    with pytest.raises(ValueError, match=r"no layer 'log'.*'logs'"):
        AutoImpute(**FAST).fit(adata, layer="log")
    with pytest.raises(ValueError, match="only AnnData has layers"):
        AutoImpute(**FAST).fit(x, layer="logs")


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        (np.ones(5), ValueError, "cells × genes is needed"),
        (np.full((30, 20), -1.0), ValueError, "negative"),
        (np.full((30, 20), np.inf), ValueError, "infinite"),
        (np.zeros((30, 20)), ValueError, "0 observed entries"),
        (np.ones((1, 20)), ValueError, "at least 10 in 2 × 2"),
        (np.ones((0, 20)), ValueError, "empty matrix"),
        (np.full((30, 20), "a"), ValueError, "matrix of numbers"),
        ([[1.0, 2.0]], TypeError, "found a list"),
    ],
)
def test_data_that_cannot_be_used_are_refused(data, error, what):
    with pytest.raises(error, match=what) as raised:
        AutoImpute(**FAST).fit(data)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------------------- what comes out


def test_imputed_values(model, processed):
    observed = processed.X.toarray() > 0
    kept, smoothed = model.impute(processed), model.impute(processed, keep_observed=False)
    for imputed in (kept, smoothed):
        assert imputed.shape == (60, 50)
        assert imputed.dtype == np.float32
        assert imputed.min() >= 0
        assert np.isfinite(imputed).all()
    np.testing.assert_array_equal(kept[observed], processed.X.toarray()[observed])
    np.testing.assert_array_equal(kept[~observed], smoothed[~observed])
    assert (kept[~observed] > 0).mean() > 0.9
    assert np.abs(smoothed[observed] - kept[observed]).mean() > 0.05


def test_never_negative_even_where_the_network_is(processed):
    with pytest.warns(UserWarning, match="before it had converged"):
        model = AutoImpute(preset="paper", hidden=16, max_epochs=3).fit(processed)
    assert model.model_.predict(sparse.csr_array(processed.X)).min() < -1
    assert model.impute(processed, keep_observed=False).min() == 0


def test_cells_are_independent_of_each_other(model, processed, monkeypatch):
    imputed = model.impute(processed)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(model.impute(processed[order].copy()), imputed[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.impute(processed[7:8].copy()), imputed[7:8], rtol=1e-5, atol=1e-5)
    embedded = model.embed(processed)
    monkeypatch.setattr(_masked_estimates, "CELLS_PER_BLOCK", 13)
    np.testing.assert_allclose(model.impute(processed), imputed, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.embed(processed), embedded, rtol=1e-5, atol=1e-5)
    assert embedded.shape == (60, 16)
    assert embedded.std() > 0


def test_new_cells_and_empty_ones(model, processed):
    new = np.vstack([processed.X.toarray()[:3] * 1.1, np.zeros((1, 50))])
    imputed = model.impute(new)
    assert imputed.shape == (4, 50)
    assert np.isfinite(imputed).all()
    np.testing.assert_array_equal(imputed[:3][new[:3] > 0], new[:3][new[:3] > 0].astype(np.float32))


def test_genes_are_matched_by_name(model, processed):
    expected = model.impute(processed)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(model.impute(processed[:, order].copy()), expected)
    frame = processed.to_df()
    wider = pd.concat([frame.iloc[:, order], frame.iloc[:, :4].add_prefix("other_")], axis=1)
    np.testing.assert_array_equal(model.impute(wider), expected)
    np.testing.assert_array_equal(model.embed(wider), model.embed(processed))
    without_first = processed.X.toarray()
    without_first[:, 0] = 0
    with pytest.warns(UserWarning, match=r"1 of the model's 50 genes \(e\.g\. 'gene_.*'\) are not in the data"):
        imputed = model.impute(processed[:, 1:].copy())
    np.testing.assert_array_equal(imputed, model.impute(without_first))
    with pytest.raises(ValueError, match="the data have 49 genes, the model was trained on 50"):
        model.impute(processed.X[:, 1:])
    assert model.genes_ == list(processed.var_names)


def test_hidden_values_cannot_be_used_at_impute(processed):
    """Only positive entries are read: NaN, zeros and stored zeros are one and the same."""
    x = processed.X.toarray()
    model = AutoImpute(**FAST).fit(x)
    stored = sparse.csr_array(np.where(x == 0, 1, x))
    stored.data[x.ravel() == 0] = 0
    assert stored.nnz == x.size
    np.testing.assert_array_equal(model.impute(stored), model.impute(x))
    np.testing.assert_array_equal(model.impute(np.where(x == 0, np.nan, x)), model.impute(x))


def test_before_fit(processed, tmp_path):
    model = AutoImpute()
    assert issubclass(NotFittedError, ValueError)
    assert not model.is_fitted
    for use in (model.impute, model.embed):
        with pytest.raises(NotFittedError, match="call fit"):
            use(processed)
    with pytest.raises(NotFittedError):
        model.save(tmp_path / "model")
    with pytest.raises(NotFittedError):
        _ = model.weights_
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- seeds and disk


def test_same_seed_same_bytes(model, processed):
    imputed = model.impute(processed)
    again = AutoImpute(**FAST, random_state=3).fit(processed)
    assert again.impute(processed).tobytes() == imputed.tobytes()
    pd.testing.assert_frame_equal(again.history_, model.history_, check_exact=True)
    drawn = AutoImpute(**FAST, random_state=np.random.default_rng(3)).fit(processed)
    assert drawn.impute(processed).tobytes() == imputed.tobytes()
    other = AutoImpute(**FAST, random_state=4).fit(processed)
    assert other.impute(processed).tobytes() != imputed.tobytes()


def test_fitting_again_starts_afresh(model, processed):
    again = AutoImpute(**FAST, random_state=3).fit(np.ones((20, 9)) + np.arange(9) + np.arange(20)[:, None] % 4)
    assert again.n_genes_in_ == 9
    again.fit(processed)
    assert again.impute(processed).tobytes() == model.impute(processed).tobytes()


def test_another_process_trains_and_loads_to_the_same_bytes(model, processed, tmp_path):
    model.save(tmp_path / "model.safetensors")
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(processed.X))
    code = f"""
        import numpy as np, scipy.sparse as sp
        from scautoimpute import AutoImpute
        x = sp.load_npz("x.npz")
        np.save("trained.npy", AutoImpute(**{FAST!r}, random_state=3).fit(x).impute(x))
        np.save("loaded.npy", AutoImpute.load("model.safetensors").impute(x))
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True, cwd=tmp_path, timeout=120)
    for result in ("trained", "loaded"):
        assert np.load(tmp_path / f"{result}.npy").tobytes() == model.impute(processed).tobytes(), result


def equal_models(first, second, processed):
    assert (
        second.impute(processed, keep_observed=False).tobytes()
        == first.impute(processed, keep_observed=False).tobytes()
    )
    assert second.embed(processed).tobytes() == first.embed(processed).tobytes()
    assert second.settings == first.settings
    assert second.held_out_ == first.held_out_
    assert second.weights_ == first.weights_
    assert (second.genes_, second.n_genes_in_, second.recipe_) == (first.genes_, first.n_genes_in_, first.recipe_)
    assert second.converged_ == first.converged_
    pd.testing.assert_frame_equal(second.history_, first.history_, check_exact=True)


def test_save_and_load(model, processed, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("an older file")
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing is left beside it
    equal_models(model, AutoImpute.load(str(path)), processed)
    AutoImpute.load(path).save(tmp_path / "again")
    equal_models(model, AutoImpute.load(tmp_path / "again"), processed)


@UNFINISHED
def test_save_and_load_of_other_networks(processed, tmp_path):
    deep = AutoImpute(hidden=(12, 6), n_folds=2, max_epochs=2, device="cpu").fit(processed)
    paper = AutoImpute(preset="paper", hidden=16, max_epochs=4, held_out_share=0.1, device="cpu").fit(processed)
    for model in (deep, paper):
        model.save(tmp_path / "model")
        loaded = AutoImpute.load(tmp_path / "model", device="cpu")
        equal_models(model, loaded, processed)
        assert not loaded.converged_


def test_the_file_holds_tensors_and_json(model, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])  # safetensors: a JSON header, then nothing but numbers
    description = json.loads(header.pop("__metadata__")["scautoimpute"])
    assert description["settings"]["hidden"] == [16]
    assert path.stat().st_size == 8 + size + max(entry["data_offsets"][1] for entry in header.values())
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "F64"}
    with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
        pickle.loads(path.read_bytes())


def rewritten(path, *, tensors=None, header=None):
    """Change what a saved model holds; `header` maps the old description to the new text."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["scautoimpute"])
    kept = load_file(path)
    kept = tensors(kept) if tensors else kept
    save_file(kept, path, metadata=header(description) if header else {"scautoimpute": json.dumps(description)})


DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "a few bytes": lambda p: p.write_bytes(p.read_bytes()[:5]),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "last byte missing": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "text": lambda p: p.write_text("gene,cell\n1,2\n" * 50),
    "pickle": lambda p: p.write_bytes(pickle.dumps({"weights": np.ones(3)})),
    "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(4000)),
    "someone else's tensors": lambda p: save_file({"w": torch.ones(3)}, p),
    "no JSON": lambda p: rewritten(p, header=lambda _: {"scautoimpute": "{"}),
}
INSIDE_DAMAGE = {
    "no version": lambda p: rewritten(p, header=lambda _: {"scautoimpute": "{}"}),
    "a list": lambda p: rewritten(p, header=lambda _: {"scautoimpute": "[]"}),
    "no genes": lambda p: rewritten(p, header=lambda d: {"scautoimpute": json.dumps(without(d, "genes"))}),
    "no settings": lambda p: rewritten(p, header=lambda d: {"scautoimpute": json.dumps(d | {"settings": {}})}),
    "a tensor missing": lambda p: rewritten(p, tensors=lambda t: without(t, "base.gene")),
    "a tensor of another shape": lambda p: rewritten(
        p, tensors=lambda t: t | {"fold0.sigmoid.side.weight": t["weights"].clone()}
    ),
}


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize("damage", (DAMAGE | INSIDE_DAMAGE).values(), ids=DAMAGE | INSIDE_DAMAGE)
def test_files_that_are_no_models_are_refused(model, tmp_path, damage):
    path = tmp_path / "model"
    model.save(path)
    damage(path)
    with pytest.raises(ValueError, match="is not a model of scautoimpute, or is damaged: give a file") as raised:
        AutoImpute.load(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_saving_where_there_is_no_folder_is_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        model.save(tmp_path / "absent" / "model")


@pytest.mark.parametrize("random_state", ["a", -1, None, 1.5])
def test_random_states_that_are_no_seeds_are_refused(random_state):
    with pytest.raises(ValueError, match=r"^random_state=.*give an integer"):
        AutoImpute(random_state=random_state).fit(np.eye(30) + 1)


def test_repeated_gene_names_cannot_be_matched(model):
    names = [f"gene{i // 2}" for i in range(2 * model.n_genes_in_)]
    frame = pd.DataFrame(np.ones((2, len(names))), columns=names)
    with pytest.raises(ValueError, match=r"gene names repeat \(e\.g\. 'gene0'\)"):
        model.impute(frame)


def test_newer_and_absent_files_are_refused(model, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    rewritten(path, header=lambda d: {"scautoimpute": json.dumps(d | {"format_version": 99, "package_version": "7.5"})})
    with pytest.raises(ValueError, match=r"written by scautoimpute 7\.5 in format 99.*upgrade"):
        AutoImpute.load(path)
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        AutoImpute.load(tmp_path / "absent")


# ----------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("objective", "poisson"),
        ("preset", "papers"),
        ("hidden", 0),
        ("hidden", ()),
        ("hidden", (16, -1)),
        ("hidden", (16, 2.5)),
        ("optimizer", "sgd"),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", 11),
        ("learning_rate", float("nan")),
        ("l2", -0.1),
        ("threshold", -1e-9),
        ("max_epochs", 0),
        ("batch_size", 0),
        ("held_out_share", 0),
        ("held_out_share", 0.5),
        ("held_out_share", float("nan")),
        ("n_folds", 0),
        ("n_folds", 21),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}=.*(choose|give)") as raised:
        AutoImpute(**{parameter: value})
    assert repr(value) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("max_epochs", 2.5),
        ("batch_size", 8.5),
        ("n_folds", 1.5),
        ("hidden", 16.5),
        ("hidden", "wide"),
        ("hidden", True),
        ("l2", "some"),
    ],
)
def test_parameters_of_the_wrong_type_are_refused_by_name(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}="):
        AutoImpute(**{parameter: value})


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "rmsprop", "l2": 0.1}, {"preset": "paper", "n_folds": 2}, {"preset": "paper", "batch_size": 8}],
)
def test_what_would_have_no_effect_is_refused(settings):
    with pytest.raises(ValueError, match=f"^{list(settings)[-1]}=.* has no effect with"):
        AutoImpute(**settings)


def test_data_frames_with_numbered_columns(x):
    frame = pd.DataFrame(x)
    assert AutoImpute(n_folds=1, hidden=8).fit_impute(frame).shape == frame.shape


def test_what_was_chosen_is_what_is_used():
    settings = AutoImpute(hidden=(64, 32), learning_rate=0.01, l2=0.2, n_folds=4, batch_size=5).settings
    assert (settings.hidden, settings.learning_rate, settings.l2) == ((64, 32), 0.01, 0.2)
    assert (settings.n_folds, settings.batch_size, settings.max_epochs) == (4, 5, 150)
    assert AutoImpute(preset="paper", held_out_share=0, hidden=7).settings.hidden == (7,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_a_device_that_is_not_there_is_refused(x, model, tmp_path):
    with pytest.raises(ValueError, match="'cuda' is not there: this machine has cpu; choose"):
        AutoImpute(**FAST, device="cuda").fit(x)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="'cuda' is not there"):
        AutoImpute.load(tmp_path / "model", device="cuda")


def test_a_device_that_nobody_has_is_refused(x):
    with pytest.raises(ValueError, match="device 'abacus' is not there"):
        AutoImpute(**FAST, device="abacus").fit(x)


# ----------------------------------------------------------------------------------------------------- warnings, scores


@pytest.mark.filterwarnings("ignore:held-out RMSE")
def test_warns_when_it_was_stopped_early(processed):
    with pytest.warns(UserWarning, match="max_epochs=2 before it had converged: raise max_epochs") as caught:
        model = AutoImpute(hidden=16, n_folds=1, max_epochs=2).fit(processed)
    assert caught[0].filename == __file__
    assert not model.converged_
    assert set(model.history_["epoch"]) == {1, 2}


def test_warns_when_no_structure_was_found():
    genes_only = np.tile(np.linspace(2, 6, 20), (40, 1))  # gene means are the whole truth
    with pytest.warns(UserWarning, match=r"no better than gene mean's .*do not rely on them"):
        model = AutoImpute(**FAST).fit(genes_only)
    assert model.held_out_["model"]["rmse"] >= model.held_out_["gene_mean"]["rmse"]
    np.testing.assert_allclose(model.impute(genes_only, keep_observed=False), genes_only, atol=0.05)


def test_held_out_scores(model, processed):
    scores = model.held_out_
    assert set(scores) == {"n", "model", "gene_mean", "gene_cell_bias", "base"}
    n_observed = int((processed.X.toarray() > 0).sum())
    assert scores["n"] == pytest.approx(0.05 * n_observed, abs=2)  # half of what was held out; the rest stops training
    for name in ("model", "gene_mean", "gene_cell_bias", "base"):
        assert set(scores[name]) == {"rmse", "mae", "nmse"}
        assert 0 < scores[name]["mae"] <= scores[name]["rmse"]
    assert scores["model"]["rmse"] < scores["gene_mean"]["rmse"]
    assert model.converged_
    assert set(model.weights_) == {"sigmoid", "centred"}
    assert 0 < sum(model.weights_.values()) <= 1 + 1e-9
    assert list(model.history_.columns) == ["network", "fold", "epoch", "loss", "held_out_rmse"]
    assert len(model.history_.groupby(["network", "fold"])) == 2


def test_beats_the_floors_at_entries_it_never_saw():
    counts = sai.datasets.simulate(n_cells=150, n_genes=150, marker_share=0.5, random_state=1)
    full = sai.pp.recipe_autoimpute(counts, n_top_genes=100, copy=True).X
    hidden = hide_entries(full, share=0.1, random_state=0)
    model = AutoImpute(hidden=64, n_folds=2, threshold=1.0).fit(hidden.visible)
    gene, cell = gene_cell_bias(hidden.visible)
    predicted = {
        "model": model.impute(hidden.visible)[hidden.rows, hidden.cols],
        "gene_mean": gene_mean(hidden.visible)[hidden.cols],
        "gene_cell_bias": gene[hidden.cols] + cell[hidden.rows],
    }
    scores = {name: recovery_scores(hidden.truth, values) for name, values in predicted.items()}
    for measure in ("rmse", "mae", "nmse"):
        assert scores["model"][measure] < 0.85 * scores["gene_mean"][measure]
        assert scores["model"][measure] < 0.85 * scores["gene_cell_bias"][measure]
    reported = model.held_out_["model"]["rmse"]
    assert scores["model"]["rmse"] == pytest.approx(reported, rel=0.2)  # an honest estimate of itself


def test_paper_preset_runs_and_scores(processed):
    with pytest.warns(UserWarning, match="max_epochs|no better than") as caught:
        model = AutoImpute(preset="paper", max_epochs=30, hidden=16, held_out_share=0.1).fit(processed)
    assert ["max_epochs=30 before" in str(w.message) for w in caught] == [True, False]
    assert "no better than" in str(caught[1].message)
    observed = int((processed.X.toarray() > 0).sum())
    assert model.held_out_["n"] == round(0.1 * observed)
    assert set(model.held_out_) == {"n", "model", "gene_mean", "gene_cell_bias"}
    assert model.weights_ == {}
    assert list(model.history_["epoch"]) == list(range(1, 31))
    assert model.history_["loss"].is_monotonic_decreasing
    assert model.embed(processed).shape == (60, 16)


def test_paper_preset_stops_by_its_threshold(processed):
    model = AutoImpute(preset="paper", hidden=16, threshold=2.0, learning_rate=1e-3, max_epochs=5000).fit(processed)
    assert model.converged_
    loss = model.history_["loss"].to_numpy()
    assert 2 < len(loss) < 5000
    changes = np.abs(np.diff(loss))
    assert changes[-1] <= 2.0
    assert np.all(changes[:-1] > 2.0)


@UNFINISHED
@pytest.mark.parametrize(
    "options",
    [{"hidden": (64, 32)}, {"optimizer": "adamw"}, {"optimizer": "rmsprop"}, {"optimizer": "tf_rmsprop"}],
    ids=str,
)
def test_networks_and_optimizers_learn(processed, options):
    model = AutoImpute(**({"n_folds": 1, "max_epochs": 60, "hidden": 32} | options)).fit(processed)
    assert model.held_out_["model"]["rmse"] < model.held_out_["base"]["rmse"]
    width = options.get("hidden", (32,))[-1]
    assert model.embed(processed).shape == (60, width)
    network = model.model_.folds[0].networks[0]
    assert len(network.layers) == len(options.get("hidden", (32,)))


@UNFINISHED
def test_options_reach_training(processed):
    default = {"n_folds": 1, "max_epochs": 3, "hidden": 16}
    losses = {}
    for option in ({}, {"batch_size": 60}, {"learning_rate": 0.1}, {"l2": 5.0}, {"optimizer": "rmsprop"}):
        model = AutoImpute(**default, **option).fit(processed)
        losses[str(option)] = tuple(model.history_["loss"])
    assert len(set(losses.values())) == len(losses)
