"""Detection probabilities, and the estimand "expected" that they make of expression given detection."""

import warnings

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

from scautoimpute import AutoImpute, apply, datasets, methods, pp, tl
from scautoimpute.cli import app
from scautoimpute.model import detection
from scautoimpute.model.checkpoint import Checkpoint
from scautoimpute.model.settings import Settings

CPU = torch.device("cpu")
QUICK = {"n_folds": 1, "hidden": 16, "max_epochs": 30}


@pytest.fixture(scope="module")
def processed():
    """log2 values of 250 cells × 100 genes of the bundled sample."""
    cells = pp.recipe_autoimpute(datasets.pbmc68k_reduced()[:250].copy(), n_top_genes=100, copy=True)
    return sparse.csr_array(cells.X)


@pytest.fixture(scope="module")
def fitted(processed):
    """A model of both estimands."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="training ended at max_epochs")
        return AutoImpute(estimand="expected", **QUICK).fit(processed)


@pytest.fixture
def settings():
    """Of a short training."""
    return Settings.resolve(objective="masked", preset=None, **QUICK)


def fit_quietly(estimator, x, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="training ended at max_epochs")
        return estimator.fit(x, **options)


# ------------------------------------------------------------------------------------------------------------ the model


def test_rates_are_shrunken_as_computed_gene_by_gene():
    detected, known = np.array([0, 3, 9, 40, 50]), np.array([50, 48, 50, 49, 50])
    raw = [d / k for d, k in zip(detected, known, strict=True)]
    mean = sum(raw) / len(raw)
    variance = sum((r - mean) ** 2 for r in raw) / len(raw)
    weight = min(max(mean * (1 - mean) / variance - 1, 1.0), 200.0)
    expected = [(d + weight * mean) / (k + weight) for d, k in zip(detected, known, strict=True)]
    np.testing.assert_allclose(detection.shrunken_rates(detected, known), expected)


def test_rates_of_genes_never_or_always_detected_stay_between_zero_and_one():
    rates = detection.shrunken_rates(np.array([0, 10_000]), np.array([10_000, 10_000]))
    assert np.all((rates > 0) & (rates < 1))


def test_the_network_predicts_detection_better_than_the_rates_of_gene_and_cell(fitted):
    scores = fitted.detection_
    assert scores["n"] > 1000
    assert scores["model"] < 0.95 * scores["base"]


def test_probabilities_are_calibrated(fitted, processed):
    probability = fitted.model_.detection.predict(processed)
    assert probability.shape == processed.shape
    assert probability.mean() == pytest.approx(processed.nnz / np.prod(processed.shape), rel=0.08)
    rates, seen = probability.mean(0), (processed > 0).toarray().mean(0)
    assert np.abs(rates - seen).max() < 0.1


def test_held_out_entries_take_no_part_in_training(processed, settings, monkeypatch):
    """Change every entry that scores, zeros into values and back: the same network, another score."""
    noted = {}
    original = detection._hidden_entries

    def note(x_NG, known_NG, rng):
        noted["cells"], stopping, noted["scored"] = original(x_NG, known_NG, rng)
        return noted["cells"], stopping, noted["scored"]

    monkeypatch.setattr(detection, "_hidden_entries", note)
    before, _ = detection.fit_detection(processed, settings, np.random.default_rng(1), CPU)
    changed, scored = processed.toarray(), noted["scored"]
    at = noted["cells"][scored.rows], scored.columns
    changed[at] = np.where(changed[at] > 0, 0, 2.5)
    after, _ = detection.fit_detection(sparse.csr_array(changed), settings, np.random.default_rng(1), CPU)
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name]), name
    assert torch.equal(before.logit_G, after.logit_G)
    assert after.held_out["model"] > before.held_out["model"]


def test_where_detection_has_no_structure_the_network_adds_next_to_nothing(settings):
    rng = np.random.default_rng(0)
    rate_G = rng.uniform(0.1, 0.9, 60)
    x = (rng.random((80, 60)) < rate_G) * rng.uniform(1, 2, (80, 60))
    model, _ = detection.fit_detection(sparse.csr_array(x.astype(np.float32)), settings, np.random.default_rng(0), CPU)
    assert model.held_out["model"] <= model.held_out["base"] * 1.01
    assert np.abs(model.predict(sparse.csr_array(x)) - rate_G).mean() < 0.08


def test_training_goes_on_from_where_it_was_kept(processed, settings, tmp_path, monkeypatch):
    whole, _ = detection.fit_detection(processed, settings, np.random.default_rng(0), CPU)
    half = Settings.resolve(objective="masked", preset=None, **(QUICK | {"max_epochs": 12}))
    monkeypatch.setattr(detection.Training, "finish", lambda _: None)  # as if killed after 12 epochs
    monkeypatch.setattr("scautoimpute.model.checkpoint.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("scautoimpute.model.checkpoint.LARGEST_SHARE", 1e9)
    detection.fit_detection(processed, half, np.random.default_rng(0), CPU, checkpoint=Checkpoint(tmp_path))
    assert list(tmp_path.glob("detection*"))
    monkeypatch.undo()
    resumed, record = detection.fit_detection(
        processed, settings, np.random.default_rng(0), CPU, checkpoint=Checkpoint(tmp_path)
    )
    assert len(record.epochs) > 12
    np.testing.assert_array_equal(resumed.predict(processed), whole.predict(processed))


# ------------------------------------------------------------------------------------------------------- the estimator


def test_expected_is_detected_times_the_probability_of_detection(fitted, processed):
    given = fitted.impute(processed, keep_observed=False, estimand="detected")
    expected = fitted.impute(processed)
    np.testing.assert_allclose(expected, given * fitted.model_.detection.predict(processed), rtol=1e-6)
    kept = fitted.impute(processed, keep_observed=True)
    np.testing.assert_array_equal(kept[processed.nonzero()], processed.data)
    is_zero = processed.toarray() == 0
    np.testing.assert_array_equal(kept[is_zero], expected[is_zero])


def test_expected_is_nearer_to_entries_hidden_whatever_their_value(processed):
    """The label-free case for it: squared error over all hidden entries, zeros included."""
    x = processed.toarray()
    hidden = np.random.default_rng(5).random(x.shape) < 0.1
    visible = sparse.csr_array(np.where(hidden, 0, x))
    model = fit_quietly(AutoImpute(estimand="expected", **QUICK), visible)
    error = {
        name: np.mean((model.impute(visible, estimand=name)[hidden] - x[hidden]) ** 2)
        for name in ("detected", "expected")
    }
    gene_mean = (np.where(hidden, 0, x).sum(0) / (~hidden).sum(0))[np.nonzero(hidden)[1]]
    assert error["expected"] < 0.9 * np.mean((gene_mean - x[hidden]) ** 2)
    assert error["expected"] < 0.5 * error["detected"]


def test_learning_detection_changes_nothing_else(fitted, processed):
    alone = fit_quietly(AutoImpute(**QUICK), processed)
    np.testing.assert_array_equal(alone.impute(processed), fitted.impute(processed, estimand="detected"))
    assert alone.detection_ is None
    assert alone.held_out_ == fitted.held_out_


def test_a_cell_without_entries_gets_zeros(fitted, processed):
    cells = processed[:3].tolil()
    cells[1] = 0
    imputed = fitted.impute(sparse.csr_array(cells))
    assert not imputed[1].any()
    assert imputed[0].any()


def test_saved_and_loaded_alike(fitted, processed, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = AutoImpute.load(tmp_path / "model")
    assert loaded.estimand == "expected"
    assert loaded.detection_ == fitted.detection_
    for estimand in ("detected", "expected"):
        np.testing.assert_array_equal(
            loaded.impute(processed, estimand=estimand), fitted.impute(processed, estimand=estimand)
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AutoImpute(estimand="mean"), "estimand='mean' is not known: choose 'detected' or 'expected'"),
        (lambda: AutoImpute(estimand="expected", preset="paper"), "no part of preset='paper'"),
        (lambda: tl.autoimpute(datasets.simulate(), estimand="mean"), "estimand='mean' is not known"),
        (lambda: tl.autoimpute(datasets.simulate(), estimand="expected", preset="paper"), "no part of preset='paper'"),
        (
            lambda: tl.autoimpute(datasets.simulate(), estimand="expected", model=AutoImpute()),
            "asks for what this model does not learn",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_of_one_estimand_refuses_the_other(processed):
    model = fit_quietly(AutoImpute(**QUICK), processed)
    with pytest.raises(ValueError, match=r"did not learn: train AutoImpute\(estimand='expected'\)"):
        model.impute(processed, estimand="expected")
    with pytest.raises(ValueError, match="is not known"):
        model.impute(processed, estimand="mean")


# --------------------------------------------------------------------------------------------------- the ways to use it


def test_layer_and_record(tmp_path):
    adata = datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    model = AutoImpute(estimand="expected", n_folds=1, max_epochs=100)
    tl.autoimpute(adata, model=model)
    tl.autoimpute(adata, model=model, estimand="detected", key_added="given")
    assert (adata.uns["imputed"]["estimand"], adata.uns["given"]["estimand"]) == ("expected", "detected")
    assert adata.uns["imputed"]["detection"] == model.detection_
    assert adata.layers["imputed"].sum() < adata.layers["given"].sum()
    model.save(tmp_path / "model")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    record = apply.impute_file(
        tmp_path / "cells.h5ad", output=tmp_path / "out.h5ad", model=AutoImpute.load(tmp_path / "model")
    )
    assert record["estimand"] == "expected"
    applied = anndata.read_h5ad(tmp_path / "out.h5ad").layers["imputed"]
    np.testing.assert_allclose(_dense(applied), _dense(adata.layers["imputed"]), atol=1e-5)


def _dense(x):
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def test_as_an_option_of_the_method(processed):
    options = {"n_folds": 1, "hidden": 16, "max_epochs": 5}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="training ended at max_epochs")
        given, expected = (
            methods.impute_matrix(
                processed, method="autoimpute", rng=np.random.default_rng(0), options={**options, "estimand": estimand}
            )
            for estimand in ("detected", "expected")
        )
    ratio = expected[given > 0] / given[given > 0]
    assert 0 < ratio.min() < ratio.max() < 1


def test_on_the_command_line(tmp_path):
    cells = tmp_path / "cells.h5ad"
    datasets.simulate(n_cells=60, n_genes=80, random_state=0).write_h5ad(cells)
    args = ["impute", str(cells), "-o", str(tmp_path / "out.h5ad"), "--estimand", "expected"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "expected expression, zeros counted" in done.output
    assert anndata.read_h5ad(tmp_path / "out.h5ad").uns["imputed"]["estimand"] == "expected"
    refused = CliRunner().invoke(app, [*args, "--preset", "paper", "--overwrite"])
    assert refused.exit_code != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jurkat_293t", "preimplantation_deng"])
def test_clusters_survive_what_filling_every_zero_destroys(shared_data, name):
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    cells = pp.recipe_autoimpute(anndata.read_h5ad(shared_data / "paper" / f"{name}.h5ad"), flavor="cv", copy=True)
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    model = fit_quietly(AutoImpute(estimand="expected", random_state=0), cells)

    def rand_index(values):
        kmeans = (KMeans(len(set(labels)), n_init=10, random_state=seed) for seed in range(5))
        return np.mean([adjusted_rand_score(labels, k.fit_predict(values)) for k in kmeans])

    x = _dense(cells.X)
    expected = rand_index(model.impute(cells))
    assert expected >= rand_index(x) - 0.01
    assert expected > rand_index(model.impute(cells, estimand="detected")) + 0.02
