"""The counts objective where users meet it: `tl.autoimpute`, files, the command line."""

import json
from collections import namedtuple

import numpy as np
import psutil
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.stats import nbinom
from typer.testing import CliRunner

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute._counts_scales import expected_log1p
from scautoimpute._objective import objective_for
from scautoimpute.cli import app

QUICK = {"hidden": 8, "max_epochs": 60, "n_networks": 1, "random_state": 0}
UNTRAINED = pytest.mark.filterwarnings("ignore:training ended at", "ignore:held-out deviance")
pytestmark = UNTRAINED


@pytest.fixture(scope="module")
def counts():
    adata = sai.datasets.pbmc68k_reduced()[:240]
    adata = adata[:, np.asarray(adata.X.sum(0)).ravel() > 0].copy()
    adata.obs["lot"] = np.where(np.arange(adata.n_obs) % 3 == 0, "a", "b")
    return adata


@pytest.fixture(scope="module")
def model(counts):
    trained = AutoImpute("counts", **QUICK)
    sai.tl.autoimpute(counts.copy(), model=trained)
    return trained


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


# ------------------------------------------------------------------------------------------------------- the objective


def test_the_data_choose_the_objective_and_the_record_says_why(counts):
    assert objective_for(counts).objective == "counts"
    reads = AnnData(sparse.csr_matrix(dense(counts.X) * 3000))
    assert objective_for(reads) == ("masked", "counts of reads: a tenth of those above zero exceed 15,000", "expected")
    assert objective_for(AnnData(dense(counts.X) + 0.5)).objective == "masked"
    assert objective_for(counts, preset="paper").objective == "masked"
    assert objective_for(counts, estimand="detected").objective == "masked"
    assert objective_for(reads, objective="counts") == ("counts", "as asked", None)
    adata = counts.copy()
    sai.tl.autoimpute(adata, model=AutoImpute("counts", **QUICK))
    assert adata.uns["imputed"]["objective"] == "counts"
    assert adata.uns["imputed"]["objective_reason"] == "as the model was made"


# ----------------------------------------------------------------------------------------------------------- the scales


def test_every_scale_is_the_same_estimate(counts, model):
    library = dense(counts.X).sum(1, keepdims=True)
    expected, sd = model.posterior(counts)
    of = {
        scale: sai.tl.autoimpute(counts, model=model, scale=scale, posterior_sd=True, copy=True)
        for scale in ("counts", "cp10k", "log1p", "expected_log1p")
    }
    values = {scale: adata.layers["imputed"] for scale, adata in of.items()}
    assert all(v.dtype == np.float32 and isinstance(v, np.ndarray) and v.min() >= 0 for v in values.values())
    np.testing.assert_allclose(values["counts"], expected, rtol=1e-5)
    np.testing.assert_allclose(values["cp10k"], expected / library * 1e4, rtol=1e-5)
    np.testing.assert_allclose(values["log1p"], np.log1p(expected / library * 1e4), rtol=1e-5)
    assert (values["expected_log1p"] < values["log1p"]).all()  # Jensen
    np.testing.assert_allclose(of["counts"].layers["imputed_sd"], sd, rtol=1e-5)
    slope = 1e4 / library / (1 + expected / library * 1e4)
    np.testing.assert_allclose(of["log1p"].layers["imputed_sd"], sd * slope, rtol=1e-4)


def test_the_library_is_that_of_all_genes(counts):
    adata = counts.copy()
    sai.tl.autoimpute(adata, model=AutoImpute("counts", **QUICK), n_top_genes=60, scale="cp10k")
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    x = dense(counts.X)
    observed = x / x.sum(1, keepdims=True) * 1e4
    imputed = dense(adata.layers["imputed"])
    assert sparse.issparse(adata.layers["imputed"])  # few genes beside sparse counts
    np.testing.assert_allclose(imputed[:, ~modelled], observed[:, ~modelled], rtol=1e-5)
    np.testing.assert_allclose(imputed.sum(1), 1e4, rtol=1e-3)
    np.testing.assert_allclose(adata.obs["autoimpute_size_factor"], x.sum(1) / np.median(x.sum(1)))


def test_expected_log_is_the_sum_over_counts():
    rng = np.random.default_rng(0)
    mean, ratio, factor = (10 ** rng.uniform(low, high, 200) for low, high in ((-6, 2.5), (-5, 1.5), (-2, 3)))
    n = np.arange(20_000)
    direct = [
        float(nbinom.pmf(n, m / r, 1 / (1 + r)) @ np.log1p(f * n)) for m, r, f in zip(mean, ratio, factor, strict=True)
    ]
    np.testing.assert_allclose(expected_log1p(mean, np.sqrt(mean * ratio), factor=factor), direct, atol=1e-6)


def test_expected_log_is_what_cells_of_that_depth_show(counts):
    model = AutoImpute("counts", n_networks=1, random_state=0)  # trained to its end
    sai.tl.autoimpute(counts.copy(), model=model)
    deep = sai.tl.autoimpute(counts, model=model, scale="expected_log1p", depth=1e9, copy=True).layers["imputed"]
    own = sai.tl.autoimpute(counts, model=model, scale="expected_log1p", copy=True).layers["imputed"]
    per_cell = dense(counts.X).sum(1)
    same = sai.tl.autoimpute(counts, model=model, scale="expected_log1p", depth=per_cell, copy=True)
    np.testing.assert_array_equal(own, same.layers["imputed"])
    assert (own <= deep + 1e-6).all()  # what depth adds is certainty
    difference = own.mean(0) - np.log1p(dense(counts.X) / per_cell[:, None] * 1e4).mean(0)
    assert np.sqrt(np.square(difference).mean()) < 0.07
    assert np.abs(difference).max() < 0.45  # of genes of one type; 0.46 with networks alone, trained to their end


# --------------------------------------------------------------------------------------------------- genes and batches


def test_genes_by_name_and_genes_without_molecules(counts):
    adata = counts.copy()
    adata.X = sparse.csr_matrix(dense(adata.X) * (np.arange(adata.n_vars) != 5))
    names = [*adata.var_names[:40][::-1]]
    sai.tl.autoimpute(adata, model=AutoImpute("counts", **QUICK), genes=names)
    assert list(adata.uns["imputed"]["genes"]) == [g for i, g in enumerate(adata.var_names[:40]) if i != 5]
    assert (dense(adata.layers["imputed"])[:, 5] == 0).all()
    sai.tl.autoimpute(adata, model=AutoImpute("counts", **QUICK), key_added="all")
    assert adata.var["autoimpute_modelled"].sum() == adata.n_vars - 1
    assert (adata.layers["all"][:, 5] == 0).all()


def test_a_cell_is_estimated_for_the_batch_that_is_named(counts):
    shifted = counts.copy()
    x = dense(shifted.X)
    x[(shifted.obs["lot"] == "a").to_numpy(), :20] *= 4
    shifted.X = sparse.csr_matrix(x)
    model = AutoImpute("counts", **QUICK)
    sai.tl.autoimpute(shifted, model=model, batch_key="lot", scale="cp10k")
    assert list(shifted.uns["imputed"]["batches"]) == ["a", "b"]
    own = shifted.layers["imputed"]
    as_b = sai.tl.autoimpute(shifted, model=model, batch_key="lot", as_batch="b", scale="cp10k", copy=True)
    is_a = (shifted.obs["lot"] == "a").to_numpy()
    assert as_b.layers["imputed"][is_a][:, :20].mean() < 0.6 * own[is_a][:, :20].mean()
    np.testing.assert_array_equal(as_b.layers["imputed"][~is_a], own[~is_a])
    assert as_b.uns["imputed"]["as_batch"] == "b"


def test_an_empty_cell_stays_zero(counts, model):
    adata = counts.copy()
    adata.X = sparse.csr_matrix(dense(adata.X) * (np.arange(adata.n_obs) != 3)[:, None])
    with pytest.warns(UserWarning, match="1 of 240 cells have no reads"):
        sai.tl.autoimpute(adata, model=model, posterior_sd=True)
    assert not adata.layers["imputed"][3].any()
    assert not adata.layers["imputed_sd"][3].any()
    assert np.isfinite(adata.layers["imputed"]).all()


def test_the_mixture_is_told_in_words(counts):
    adata = counts.copy()
    model = AutoImpute("counts", **QUICK)
    sai.tl.autoimpute(adata, model=model, scale="counts")
    share = adata.uns["imputed"]["own_count_share"]
    x, network = dense(counts.X), model.model_
    own = np.zeros(x.shape)
    experts = network.experts(sparse.csr_array(counts.X), np.zeros(240, int), np.zeros(240, int))
    means = [of.cpu().numpy() for of, _ in experts][::2]
    units = means[0], means[1], (means[0] + means[2]) / 2  # components are off by an amount as well as by a factor
    for index, unit in enumerate(units):
        ratio = unit * network.dispersion_EG[index].cpu().numpy()
        own += network.weights_K[2 * index + 1] * ratio / (1 + ratio) * x
    assert share == pytest.approx(own.sum() / adata.layers["imputed"].sum(), rel=0.02)
    assert adata.uns["imputed"]["weights_in_words"].startswith(f"{1 - share:.0%} of the estimate is structure")


# -------------------------------------------------------------------------------------------------- files, command line


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("n_top_genes", [None, 50])
def test_a_file_in_blocks_equals_memory(suffix, n_top_genes, counts, tmp_path):
    model = AutoImpute("counts", **QUICK)
    sai.tl.autoimpute(counts[:150].copy(), model=model, batch_key="lot", n_top_genes=n_top_genes)
    model.save(tmp_path / "model")
    rows = np.arange(1100) % 240
    rows_named = [f"cell_{number}" for number in range(1100)]
    many = AnnData(counts.X[rows], obs=counts.obs.iloc[rows].set_axis(rows_named), var=counts.var)
    (many.write_h5ad if suffix == "h5ad" else many.write_zarr)(tmp_path / f"in.{suffix}")
    options = {"batch_key": "lot", "as_batch": "a", "scale": "expected_log1p", "depth": 500.0, "posterior_sd": True}
    output = tmp_path / f"out.{suffix}"
    record = sai.impute_file(tmp_path / f"in.{suffix}", output=output, model=tmp_path / "model", **options)
    streamed = sai.read(output)
    sai.tl.autoimpute(many, model=model, **options)
    for key in ("imputed", "imputed_sd"):
        assert sparse.issparse(streamed.layers[key]) == (n_top_genes is not None)
        np.testing.assert_array_equal(dense(streamed.layers[key]), dense(many.layers[key]))
    np.testing.assert_array_equal(streamed.obsm["X_autoimpute"], many.obsm["X_autoimpute"])
    np.testing.assert_array_equal(streamed.obs["autoimpute_size_factor"], many.obs["autoimpute_size_factor"])
    assert record.keys() == many.uns["imputed"].keys()
    assert record["recipe"] == many.uns["imputed"]["recipe"]


def test_data_that_lack_genes_of_the_model_keep_their_library(counts, model):
    part = counts[:, 60:].copy()
    with pytest.warns(UserWarning, match="60 of the model's"):
        sai.tl.autoimpute(part, model=model, scale="counts")
    np.testing.assert_allclose(part.layers["imputed"].sum(1), dense(part.X).sum(1), rtol=1e-4)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_standard_deviations_of_an_earlier_run_do_not_stay(suffix, counts, model, tmp_path):
    """They would be taken for those of the layer beside them."""
    adata = counts.copy()
    adata.layers["imputed_sd"] = counts.X.copy()  # of the user, not of a run
    sai.tl.autoimpute(adata, model=model)
    assert "imputed_sd" in adata.layers
    sai.tl.autoimpute(adata, model=model, posterior_sd=True)
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    sai.write(adata, source)
    sai.impute_file(source, output=output, model=model, scale="cp10k")
    sai.tl.autoimpute(adata, model=model, scale="cp10k")
    assert "imputed_sd" not in adata.layers
    assert "imputed_sd" not in sai.read(output).layers


def test_counts_are_not_overwritten_with_standard_deviations(counts, model):
    adata = counts.copy()
    adata.layers["imputed_sd"] = adata.X
    with pytest.raises(ValueError, match="key_added='imputed' would overwrite the layer 'imputed_sd'"):
        sai.tl.autoimpute(adata, layer="imputed_sd", model=model, posterior_sd=True)


def test_a_table_has_no_place_for_standard_deviations(counts, model, tmp_path):
    counts.write_h5ad(tmp_path / "in.h5ad")
    said = "'out.csv.gz' holds one matrix, so there is no place for standard deviations"
    with pytest.raises(ValueError, match=said):
        sai.impute_file(tmp_path / "in.h5ad", output=tmp_path / "out.csv.gz", model=model, posterior_sd=True)
    result = run("impute", tmp_path / "in.h5ad", "-o", tmp_path / "out.csv.gz", "--sd")
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "out.csv.gz").exists()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_says_what_it_chose_and_how_good_it_is(counts, tmp_path):
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(counts.var_names[:50]), encoding="utf-8")
    command = ["impute", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad", "--hidden", 8, "--max-epochs", 60]
    options = ["--genes", tmp_path / "genes.txt", "--batch-key", "lot", "--sd", "--json"]
    done = run(*command, *options)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["objective"], told["genes_modelled"], told["batches"]) == ("counts", 50, ["a", "b"])
    assert told["objective_reason"].startswith("counts of molecules: nine in ten")
    assert told["held_out_deviance"].keys() >= {"model", "gene_mean", "no_imputation"}
    assert {"imputed", "imputed_sd"} <= set(sai.read(tmp_path / "out.h5ad").layers)
    said = run(*command, "--overwrite").stdout
    assert "held-out deviance" in said
    assert "of the estimate is structure" in said
    assert "objective           counts: counts of molecules" in run("info", tmp_path / "in.h5ad").stdout


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"scale": "log2"}, "scale='log2' is not for objective='counts'"),
        ({"depth": 500.0}, "depth= has no effect with scale='log1p'"),
        ({"scale": "expected_log1p", "depth": -1.0}, "is no number of molecules"),
        ({"scale": "expected_log1p", "depth": np.inf}, "depth=inf is no number of molecules: give a finite one"),
        ({"scale": "expected_log1p", "depth": "deep"}, "depth='deep' is no number of molecules"),
        ({"scale": "expected_log1p", "depth": np.zeros(240)}, "240 of 240 values of depth= are no numbers"),
        ({"scale": "expected_log1p", "depth": np.ones(3)}, "give one number, or one for each cell"),
        ({"keep_observed": True}, "keep_observed=True has no meaning"),
        ({"estimand": "expected", "objective": "counts"}, "estimand='expected' has no effect with objective='counts'"),
        ({"genes": ["HES4", "no gene"]}, "1 of 2 names in genes= are not in the data (e.g. 'no gene'"),
        ({"genes": ["HES4"], "n_top_genes": 5}, "both genes= and n_top_genes=5"),
        ({"batch_key": "run"}, "there is no column 'run' in obs (batch_key); its columns are"),
        ({"batch_key": "alone"}, "1 of 3 batches have a single cell (e.g. 'c')"),
        ({"as_batch": "a"}, "as_batch='a' has no effect on a model trained without batches"),
        ({"objective": "masked", "scale": "expected_log1p"}, "scale='expected_log1p' is for objective='counts'"),
        ({"objective": "masked", "batch_key": "lot"}, "batch_key= is for objective='counts'"),
        ({"objective": "masked", "posterior_sd": True}, "posterior_sd= is for objective='counts'"),
        ({"objective": "count"}, "objective='count' is not known"),
    ],
)
def test_what_has_no_meaning_is_refused_in_a_line(options, part, counts):
    adata = counts.copy()
    adata.obs["alone"] = np.where(np.arange(240) == 7, "c", adata.obs["lot"])
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the line is compared below)
        sai.tl.autoimpute(adata, **options)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "imputed" not in adata.layers


def test_reads_and_normalised_values_are_refused(counts):
    reads = AnnData(sparse.csr_matrix(dense(counts.X) * 3000))
    with pytest.raises(ValueError, match="so these are reads"):
        sai.tl.autoimpute(reads, objective="counts")
    with pytest.raises(ValueError, match="values are not whole numbers"):
        sai.tl.autoimpute(AnnData(dense(counts.X) * 0.37), objective="counts")


def test_what_does_not_fit_in_memory_is_refused_with_its_size(counts, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(300_000))
    with pytest.raises(MemoryError, match=r"240 cells × 762 genes take 0.0 GB .* n_top_genes= or genes="):
        sai.tl.autoimpute(counts.copy())
