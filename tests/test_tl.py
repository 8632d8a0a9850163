"""`tl.autoimpute`: counts in, a layer out, and nothing else changed."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute, NotFittedError

FAST = {"hidden": 16, "n_folds": 1, "threshold": 1.0}
SCALES = ("counts", "cp10k", "log1p", "log2")
N_TOP = 40


def fast(seed=0):
    return AutoImpute(**FAST, random_state=seed)


@pytest.fixture(scope="module")
def counts():
    """Counts with genes that fail the read filter and genes that pass it and are not selected."""
    return sai.datasets.simulate(n_cells=60, n_genes=80, n_types=3, random_state=0)


@pytest.fixture(scope="module")
def model(counts):
    model = fast()
    sai.tl.autoimpute(counts.copy(), model=model, n_top_genes=N_TOP)
    return model


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def passing(x):
    return (x >= 3).sum(0) >= 3


def on_scale(normalised_by_total, total, median, scale):
    """Independent of the package: share of the cell's reads → the value on `scale`."""
    return {
        "counts": normalised_by_total * total[:, None],
        "cp10k": normalised_by_total * 1e4,
        "log1p": np.log(1 + normalised_by_total * 1e4),
        "log2": np.log2(1 + normalised_by_total * median),
    }[scale]


def snapshot(adata):
    return {
        "X": dense(adata.X).copy(),
        "type": type(adata.X),
        "layers": {name: dense(layer).copy() for name, layer in adata.layers.items()},
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "uns": dict(adata.uns),
        "obsm": {name: np.array(values) for name, values in adata.obsm.items()},
    }


def assert_unchanged(adata, before, *, but=()):
    np.testing.assert_array_equal(dense(adata.X), before["X"])
    assert type(adata.X) is before["type"]
    assert adata.X.dtype == before["X"].dtype
    assert set(adata.layers) - set(before["layers"]) == set(but)
    for name, layer in before["layers"].items():
        np.testing.assert_array_equal(dense(adata.layers[name]), layer)
    pd.testing.assert_frame_equal(adata.obs[before["obs"].columns], before["obs"])
    assert set(adata.obs) - set(before["obs"]) == ({"autoimpute_size_factor"} if but else set())
    pd.testing.assert_frame_equal(adata.var[before["var"].columns], before["var"])
    assert set(adata.uns) - set(before["uns"]) == set(but)
    for name, values in before["obsm"].items():
        np.testing.assert_array_equal(adata.obsm[name], values)


def annotated(counts):
    adata = counts.copy()
    adata.obsm["X_pca"] = np.arange(120.0).reshape(60, 2)
    adata.uns["note"] = "mine"
    adata.var["length"] = np.arange(80)
    return adata


# ---------------------------------------------------------------------------------------------------------- what is set


def test_sets_the_fields_that_it_says_and_no_other(counts):
    adata = annotated(counts)
    before = snapshot(adata)
    assert sai.tl.autoimpute(adata, model=fast(), n_top_genes=N_TOP) is None
    assert_unchanged(adata, before, but=("imputed",))
    layer = adata.layers["imputed"]
    assert layer.shape == adata.shape
    assert layer.dtype == np.float32
    assert sparse.issparse(layer)
    assert layer.data.min() >= 0
    assert np.isfinite(layer.data).all()
    modelled = adata.var["autoimpute_modelled"]
    assert modelled.dtype == bool
    assert modelled.sum() == N_TOP
    assert set(adata.var) - set(before["var"]) == {"autoimpute_modelled"}
    assert set(adata.obsm) - set(before["obsm"]) == {"X_autoimpute"}
    assert adata.obsm["X_autoimpute"].shape == (60, 16)
    assert np.all(adata.obsm["X_autoimpute"].std(0) > 0)
    processed = sai.pp.recipe_autoimpute(counts, n_top_genes=N_TOP, copy=True)
    assert list(adata.var_names[modelled]) == list(processed.var_names)


def test_record_in_uns(counts, model):
    adata = counts.copy()
    trained = fast(5)
    sai.tl.autoimpute(adata, model=trained, n_top_genes=N_TOP, flavor="cv", scale="cp10k", keep_observed=False)
    record = adata.uns["imputed"]
    assert record["scale"] == "cp10k"
    assert record["scale_in_words"] == "counts per 10,000"
    assert record["keep_observed"] is False
    assert record["package_version"] == sai.__version__
    assert record["random_state"] == 5
    assert record["settings"]["hidden"] == [16]
    assert record["held_out"] == trained.held_out_
    assert record["converged"] is True
    assert record["weights"] == trained.weights_
    assert record["recipe"]["flavor"] == "cv"
    assert record["recipe"]["n_top_genes"] == N_TOP
    x = dense(counts.X)
    assert record["recipe"]["median_total"] == np.median(x[:, passing(x)].sum(1))
    pd.testing.assert_frame_equal(record["history"], trained.history_)


def test_copy_returns_a_changed_copy_and_leaves_the_input(counts, model):
    adata = annotated(counts)
    before = snapshot(adata)
    changed = sai.tl.autoimpute(adata, model=model, copy=True)
    assert_unchanged(adata, before)
    assert "autoimpute_modelled" not in adata.var
    assert "X_autoimpute" not in adata.obsm
    assert_unchanged(changed, before, but=("imputed",))
    sai.tl.autoimpute(adata, model=model)
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), dense(changed.layers["imputed"]))
    assert not np.shares_memory(changed.X.data, adata.X.data)


def test_key_added_keeps_earlier_results(counts, model):
    adata = counts.copy()
    sai.tl.autoimpute(adata, model=model)
    first = dense(adata.layers["imputed"]).copy()
    sai.tl.autoimpute(adata, model=model, key_added="smooth", keep_observed=False)
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), first)
    assert adata.uns["imputed"]["keep_observed"] is True
    assert adata.uns["smooth"]["keep_observed"] is False
    assert not np.array_equal(dense(adata.layers["smooth"]), first)


def test_layer_is_where_the_counts_are(counts, model):
    plain, layered = counts.copy(), counts.copy()
    layered.layers["raw"] = counts.X.copy()
    layered.X = sparse.csr_matrix(np.log1p(dense(counts.X) / 7))
    for adata, layer in ((plain, None), (layered, "raw")):
        sai.tl.autoimpute(adata, layer=layer, model=fast(), n_top_genes=N_TOP)
    np.testing.assert_array_equal(dense(layered.layers["imputed"]), dense(plain.layers["imputed"]))
    np.testing.assert_array_equal(dense(layered.layers["raw"]), dense(counts.X))
    with pytest.raises(ValueError, match="no layer 'absent'"):
        sai.tl.autoimpute(layered, layer="absent", model=model)


def test_every_container_gives_the_same_numbers(counts, model, array_type):
    adata = counts.copy()
    adata.X = array_type(dense(counts.X))
    sai.tl.autoimpute(adata, model=model)
    expected = sai.tl.autoimpute(counts, model=model, copy=True).layers["imputed"]
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), dense(expected))
    assert sparse.issparse(adata.layers["imputed"]) == sparse.issparse(adata.X)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_number_types_give_the_same_numbers(counts, model, dtype):
    adata = counts.copy()
    adata.X = counts.X.astype(dtype)
    sai.tl.autoimpute(adata, model=model)
    assert adata.X.dtype == dtype
    expected = sai.tl.autoimpute(counts, model=model, copy=True).layers["imputed"]
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), dense(expected))
    assert adata.layers["imputed"].dtype == np.float32


def test_same_seed_same_bytes(counts):
    layers = []
    for seed in (1, np.random.default_rng(1), 2):
        adata = sai.tl.autoimpute(counts, model=fast(seed), n_top_genes=N_TOP, copy=True)
        layers.append(dense(adata.layers["imputed"]).tobytes())
        assert ("random_state" in adata.uns["imputed"]) == isinstance(seed, int)
    assert layers[0] == layers[1] != layers[2]


# --------------------------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("scale", SCALES)
def test_scale_at_observed_entries_and_genes_that_were_not_modelled(counts, model, scale):
    adata = sai.tl.autoimpute(counts, model=model, scale=scale, copy=True)
    layer, x = dense(adata.layers["imputed"]), dense(counts.X).astype(np.float64)
    total = x[:, passing(x)].sum(1)
    expected = on_scale(x / total[:, None], total, np.median(total), scale)
    np.testing.assert_allclose(layer[x > 0], expected[x > 0], rtol=1e-6)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    assert (~modelled & passing(x)).sum() > 0
    assert (~passing(x)).sum() > 0
    np.testing.assert_allclose(layer[:, ~modelled], expected[:, ~modelled], rtol=1e-6)
    assert np.all(layer[:, ~modelled][x[:, ~modelled] == 0] == 0)
    if scale == "counts":
        np.testing.assert_array_equal(layer[x > 0], x[x > 0])


@pytest.mark.parametrize("keep_observed", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_scale_of_imputed_entries(counts, model, scale, keep_observed):
    adata = sai.tl.autoimpute(counts, model=model, scale=scale, keep_observed=keep_observed, copy=True)
    x = dense(counts.X).astype(np.float64)
    total, modelled = x[:, passing(x)].sum(1), adata.var["autoimpute_modelled"].to_numpy()
    logs = np.log2(1 + x[:, modelled] / total[:, None] * np.median(total))
    share = (2.0 ** model.impute(logs, keep_observed=keep_observed) - 1) / np.median(total)
    expected = on_scale(share, total, np.median(total), scale)
    np.testing.assert_allclose(dense(adata.layers["imputed"])[:, modelled], expected, rtol=2e-4, atol=1e-5)
    assert (expected[x[:, modelled] == 0] > 0).mean() > 0.9


def test_smoothing_changes_observed_values_of_modelled_genes_only(counts, model):
    adata = sai.tl.autoimpute(counts, model=model, scale="counts", keep_observed=False, copy=True)
    layer, x = dense(adata.layers["imputed"]), dense(counts.X)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    np.testing.assert_allclose(layer[:, ~modelled], x[:, ~modelled], rtol=1e-6)
    observed = x[:, modelled] > 0
    assert (layer[:, modelled][observed] != x[:, modelled][observed]).mean() > 0.95
    assert np.corrcoef(np.log1p(layer[:, modelled][observed]), np.log1p(x[:, modelled][observed]))[0, 1] > 0.8


def test_the_counts_are_never_overwritten(counts):
    adata = counts.copy()
    adata.layers["counts"] = adata.X.copy()
    with pytest.raises(ValueError, match="key_added='counts' is the layer that holds the counts"):
        sai.tl.autoimpute(adata, layer="counts", key_added="counts")


def test_scale_is_checked_before_anything_is_done(counts):
    adata = counts.copy()
    with pytest.raises(ValueError, match=r"scale='tpm' is not known: choose 'counts', 'cp10k', 'log1p', 'log2'"):
        sai.tl.autoimpute(adata, scale="tpm")
    assert set(adata.layers) - {None} == {"truth"}  # None is X, since anndata 0.13


@pytest.mark.parametrize("keep_observed", [True, False])
def test_zeros_filled_are_counted(counts, keep_observed):
    model = fast()
    adata = counts.copy()
    sai.tl.autoimpute(adata, model=model, n_top_genes=N_TOP, keep_observed=keep_observed)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    zero = dense(counts.X)[:, modelled] == 0
    record = adata.uns["imputed"]
    assert record["n_zeros"] == zero.sum()
    filled = dense(adata.layers["imputed"])[:, modelled] > 0
    assert record["n_zeros_filled"] == (zero & filled).sum() > 0


def test_zeros_that_stay_zero_are_not_counted(counts):
    """The paper's network goes below zero, where nothing is filled."""
    adata = counts.copy()
    with pytest.warns(UserWarning, match="before it had converged"):
        sai.tl.autoimpute(adata, model=AutoImpute(preset="paper", hidden=16, max_epochs=3), n_top_genes=N_TOP)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    zero = dense(counts.X)[:, modelled] == 0
    record = adata.uns["imputed"]
    filled = zero & (dense(adata.layers["imputed"])[:, modelled] > 0)
    assert record["n_zeros_filled"] == filled.sum()
    assert 0 < filled.sum() < zero.sum() == record["n_zeros"]


def test_library_sizes_allow_for_genes_that_the_data_lack(counts, model):
    whole = sai.tl.autoimpute(counts, model=model, scale="cp10k", copy=True)
    part = counts[:, model.genes_].copy()
    with pytest.warns(UserWarning, match=r"genes that library sizes were taken over .* are not in the data"):
        sai.tl.autoimpute(part, model=model, scale="cp10k")
    ratio = dense(part.layers["imputed"]).sum() / dense(whole[:, model.genes_].layers["imputed"]).sum()
    assert ratio == pytest.approx(1, abs=0.1)


def test_two_runs_keep_their_own_genes_and_training_anew_forgets_the_recipe(counts):
    adata, small = counts.copy(), AutoImpute(n_folds=1, random_state=0)
    sai.tl.autoimpute(adata, model=small, n_top_genes=20, key_added="few")
    sai.tl.autoimpute(adata, model=fast(), n_top_genes=40, key_added="many")
    assert (len(adata.uns["few"]["genes"]), len(adata.uns["many"]["genes"])) == (20, 40)
    small.fit(sai.pp.recipe_autoimpute(counts, n_top_genes=20, flavor="cv", copy=True))
    with pytest.raises(ValueError, match="how to process counts for it is not known"):
        sai.tl.autoimpute(adata, model=small)


def test_backed_counts_give_a_sparse_layer(counts, tmp_path, model):
    counts.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for adata in (sai.tl.autoimpute(backed, model=model, copy=True), backed):
        if adata is backed:
            sai.tl.autoimpute(adata, model=model)
        assert sparse.issparse(adata.layers["imputed"])
    backed.file.close()


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("keep_observed", [True, False])
def test_result_survives_a_file(counts, model, tmp_path, keep_observed):
    adata = sai.tl.autoimpute(counts, model=model, keep_observed=keep_observed, copy=True)
    adata.write_h5ad(tmp_path / "out.h5ad")
    again = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(dense(again.layers["imputed"]), dense(adata.layers["imputed"]))
    np.testing.assert_array_equal(again.obsm["X_autoimpute"], adata.obsm["X_autoimpute"])
    pd.testing.assert_series_equal(again.var["autoimpute_modelled"], adata.var["autoimpute_modelled"])
    expected, record = dict(adata.uns["imputed"]), again.uns["imputed"]
    pd.testing.assert_frame_equal(
        record.pop("history"), expected.pop("history"), check_index_type=False, check_categorical=False
    )
    assert list(record.pop("genes")) == list(expected.pop("genes")) == model.genes_
    assert list(record["settings"].pop("hidden")) == [16]
    expected["settings"] = {k: v for k, v in expected["settings"].items() if k != "hidden"}
    assert record == expected


def test_paper_record_survives_a_file(counts, tmp_path):
    adata = counts.copy()
    model = AutoImpute(preset="paper", hidden=16, max_epochs=3, held_out_share=0.1)
    with pytest.warns(UserWarning, match="max_epochs|no better than"):
        sai.tl.autoimpute(adata, model=model, n_top_genes=N_TOP)
    adata.write_h5ad(tmp_path / "out.h5ad")
    record = anndata.read_h5ad(tmp_path / "out.h5ad").uns["imputed"]
    assert record["settings"]["preset"] == "paper"
    assert record["held_out"] == adata.uns["imputed"]["held_out"]
    np.testing.assert_array_equal(record["history"]["loss"], adata.uns["imputed"]["history"]["loss"])
    assert record["history"]["held_out_rmse"].isna().all()
    model.save(tmp_path / "model")
    again = sai.tl.autoimpute(counts, model=AutoImpute.load(tmp_path / "model"), copy=True)
    again.write_h5ad(tmp_path / "again.h5ad")
    pd.testing.assert_frame_equal(
        anndata.read_h5ad(tmp_path / "again.h5ad").uns["imputed"]["history"], record["history"]
    )


# --------------------------------------------------------------------------------------------------------------- models


def test_unfitted_model_is_trained_as_the_recipe_and_fit_would(counts):
    model = fast(2)
    adata = sai.tl.autoimpute(counts, model=model, n_top_genes=N_TOP, scale="log2", copy=True)
    assert model.is_fitted
    processed = sai.pp.recipe_autoimpute(counts, n_top_genes=N_TOP, copy=True)
    by_hand = fast(2)
    imputed = by_hand.fit_impute(processed)
    assert model.genes_ == by_hand.genes_ == list(processed.var_names)
    layer = dense(adata[:, processed.var_names].layers["imputed"])
    np.testing.assert_allclose(layer, imputed, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(adata.obsm["X_autoimpute"], by_hand.embed(processed))


def test_fitted_model_uses_its_own_genes_and_library_size(counts, model, tmp_path):
    new = sai.datasets.simulate(n_cells=7, n_genes=80, library_size=9000, random_state=9)
    x = dense(new.X).astype(np.float64)
    train = dense(counts.X)
    kept = passing(train)
    median = np.median(train[:, kept].sum(1))
    assert model.recipe_["median_total"] == median
    adata = new.copy()
    sai.tl.autoimpute(adata, model=model, scale="log2", n_top_genes=3)  # few cells, but nothing is learned: no warning
    assert list(adata.var_names[adata.var["autoimpute_modelled"]]) == model.genes_
    logs = np.log2(1 + x / x[:, kept].sum(1, keepdims=True) * median)
    layer = dense(adata.layers["imputed"])
    np.testing.assert_allclose(layer[x > 0], logs[x > 0], rtol=1e-6)
    columns = new.var_names.get_indexer(model.genes_)
    np.testing.assert_allclose(layer[:, columns], model.impute(logs[:, columns]), rtol=1e-5, atol=1e-5)
    in_training, here = counts_recipe(counts), adata.uns["imputed"]["recipe"]
    assert here == in_training | {"n_cells": 7, "n_empty_genes": int((x.sum(0) == 0).sum())}
    assert adata.uns["imputed"]["trained_before"]
    model.save(tmp_path / "model")
    again = sai.tl.autoimpute(new, model=AutoImpute.load(tmp_path / "model"), scale="log2", copy=True)
    np.testing.assert_array_equal(dense(again.layers["imputed"]), layer)


def counts_recipe(counts):
    return sai.pp.processed_matrix(counts, n_top_genes=N_TOP).choices


def test_fitted_model_finds_its_genes_by_name(counts, model):
    expected = sai.tl.autoimpute(counts, model=model, copy=True)
    order = np.random.default_rng(0).permutation(80)
    shuffled = counts[:, order].copy()
    sai.tl.autoimpute(shuffled, model=model)
    np.testing.assert_allclose(
        dense(shuffled.layers["imputed"]), dense(expected.layers["imputed"])[:, order], rtol=1e-6
    )
    few = counts[:, model.genes_[: N_TOP // 2 - 1]].copy()
    with pytest.raises(ValueError, match=rf"only {N_TOP // 2 - 1} of the model's {N_TOP} genes, with .* are among"):
        sai.tl.autoimpute(few, model=model)
    assert "imputed" not in few.layers


def test_model_without_a_recipe_is_refused(counts):
    processed = sai.pp.recipe_autoimpute(counts, n_top_genes=N_TOP, copy=True)
    model = fast().fit(processed)
    with pytest.raises(ValueError, match="trained on processed data"):
        sai.tl.autoimpute(counts.copy(), model=model)


def test_model_and_preset_exclude_each_other(counts):
    model = fast()
    with pytest.raises(ValueError, match=r"AutoImpute\(preset='paper'\)"):
        sai.tl.autoimpute(counts.copy(), model=model, preset="paper")
    with pytest.raises(NotFittedError):
        model.impute(counts)


@pytest.mark.filterwarnings("ignore:held-out RMSE", "ignore:training ended")
def test_preset_and_seed_reach_the_model_made_here(counts):
    with pytest.raises(ValueError, match="preset='papers' is not known"):
        sai.tl.autoimpute(counts.copy(), preset="papers")
    small = counts[:40, :12].copy()
    sai.tl.autoimpute(small, objective="masked", n_top_genes=8, random_state=11)
    record = small.uns["imputed"]
    assert record["random_state"] == 11
    assert record["settings"] == {k: v for k, v in AutoImpute().settings.to_json().items() if v is not None}


# ------------------------------------------------------------------------------------------------------------ bad input


def with_x(counts, change):
    adata = counts.copy()
    adata.X = change(dense(counts.X).copy())
    return adata


def with_entry(value):
    def change(x):
        x[3, 4] = value
        return x

    return change


def transposed(counts):
    adata = counts.copy()
    adata.var_names = [f"ENSG{i:011d}" for i in range(80)]
    return adata.T.copy()


BAD = {
    "logged": (lambda c: with_x(c, np.log1p), "look logged already"),
    "negative": (lambda c: with_x(c, with_entry(-1)), "1 of 60 × 80 values are negative"),
    "NaN": (lambda c: with_x(c, with_entry(np.nan)), "1 of 60 × 80 values are NaN"),
    "infinite": (lambda c: with_x(c, with_entry(np.inf)), "values are infinite"),
    "transposed": (transposed, "looks like genes × cells.*adata.T"),
    "zero": (lambda c: with_x(c, np.zeros_like), "values are zero"),
}


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(("make", "what"), BAD.values(), ids=BAD.keys())
def test_what_is_not_counts_is_refused_in_one_line(counts, model, make, what, is_fitted):
    adata = make(counts)
    with pytest.raises(ValueError, match=what) as raised:
        sai.tl.autoimpute(adata, model=model if is_fitted else fast())
    assert "\n" not in str(raised.value)
    assert "imputed" not in adata.layers
    assert "imputed" not in adata.uns


@pytest.mark.parametrize(("option", "value"), [("n_top_genes", 0), ("n_top_genes", "most"), ("flavor", "seurat")])
def test_unknown_options_are_refused(counts, option, value):
    with pytest.raises(ValueError, match=str(value)):
        sai.tl.autoimpute(counts.copy(), model=fast(), **{option: value})


@pytest.mark.filterwarnings("ignore:held-out RMSE")
def test_few_cells_are_warned_about(counts):
    few = counts[:29].copy()
    with pytest.warns(UserWarning, match="29 cells are few"):
        sai.tl.autoimpute(few, model=fast(), n_top_genes=20)
    assert few.layers["imputed"].shape == (29, 80)


def test_empty_cells_stay_empty_and_are_reported(counts):
    x = dense(counts.X).copy()
    x[5] = 0
    adata = counts.copy()
    adata.X = x
    with pytest.warns(UserWarning, match="1 of 60 cells have no reads"):
        sai.tl.autoimpute(adata, model=fast(), n_top_genes=N_TOP)
    layer = adata.layers["imputed"]
    assert np.isfinite(layer).all()
    assert not layer[5].any()
    totals = np.delete(np.expm1(layer).sum(1), 5)
    assert totals.max() < 5 * np.median(totals)


def test_half_precision_counts_are_imputed(counts):
    whole = with_x(counts, lambda x: x.clip(0, 2000))
    half = with_x(counts, lambda x: x.clip(0, 2000).astype(np.float16))
    for adata in (whole, half):
        sai.tl.autoimpute(adata, model=fast())
    np.testing.assert_array_equal(dense(half.layers["imputed"]), dense(whole.layers["imputed"]))


@pytest.mark.filterwarnings("ignore:training ended", "ignore:held-out")
@pytest.mark.parametrize("objective", ["masked", "counts"])
def test_repeated_gene_names_are_imputed_and_drawn(objective):
    """As scanpy reads 10x files; only another object's genes cannot be told apart."""
    adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    most = np.argsort(np.asarray(adata.X.sum(axis=0)).ravel())[-2:]
    adata.var_names = ["twin" if gene in most else name for gene, name in enumerate(adata.var_names)]
    model = AutoImpute(objective, hidden=4, max_epochs=2)
    sai.tl.autoimpute(adata, model=model, n_top_genes="all")
    assert model.genes_.count("twin") == 2
    figure = sai.pl.overview(adata)
    assert len(figure.axes) > 2
    adata.var_names = [f"gene{number}" for number in range(80)]
    with pytest.raises(ValueError, match="gene names of the model repeat"):
        sai.tl.autoimpute(adata, model=model)


@pytest.mark.filterwarnings("ignore:training ended", "ignore:held-out")
def test_values_whose_log_is_nothing_are_imputed():
    """Such as are left when what floats around the cells has been taken away."""
    adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    adata.X = adata.X.astype(np.float64) * 1.5
    adata.X.data[::7] = 1e-20
    sai.tl.autoimpute(adata, model=AutoImpute("masked", hidden=4, max_epochs=2))
    layer = adata.layers["imputed"]
    assert np.isfinite(layer.toarray() if sparse.issparse(layer) else layer).all()
