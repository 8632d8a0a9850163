"""The report of a run: what it rests on against independent computations, what it says, and how it looks."""

import re

import anndata
import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from scautoimpute import AutoImpute, datasets, methods, pp, tl
from scautoimpute.cli import app
from scautoimpute.io.matrix import row_sums
from scautoimpute.metrics import hide_entries, score_entries
from scautoimpute.metrics.entries import entry_gains
from scautoimpute.report.trust import write_trust_report
from scautoimpute.trust import evidence as evidence_module
from scautoimpute.trust import examine
from scautoimpute.trust.changes import measure_changes
from scautoimpute.trust.rerun import Way, way_of
from scautoimpute.trust.structure import checked_classes, measure_structure
from test_report import Page, looked_at

SMALL = {"max_cells": 150, "max_genes": 100}


def bundled():
    adata = datasets.pbmc68k_reduced()
    return adata[:300, :300].copy()


def masked_model(**options):
    return AutoImpute("masked", n_folds=1, max_epochs=4, hidden=8, random_state=0, **options)


@pytest.fixture(scope="module")
def smoothed():
    adata = bundled()
    methods.impute(adata, method="knn")
    return examine(adata, labels="cell_type", compare=["alra", "knn"], facts={"command": "knn <it>"}, **SMALL)


@pytest.fixture(scope="module")
def masked():
    adata = bundled()
    with pytest.warns(UserWarning, match="."):  # four epochs are too few
        tl.autoimpute(adata, model=masked_model())
    return examine(adata, **SMALL)


@pytest.fixture(scope="module")
def counted():
    adata = bundled()
    with pytest.warns(UserWarning, match="."):
        tl.autoimpute(adata, model=AutoImpute("counts", max_epochs=4, hidden=8, random_state=0))
    return examine(adata, labels="cell_type", **SMALL)


@pytest.fixture(scope="module")
def pages(smoothed, masked, counted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name, evidence in {"smoothed": smoothed, "masked": masked, "counted": counted}.items():
        write_trust_report(evidence, folder / f"{name}.html")
    return folder


# ---------------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize("scale", ["log1p", "counts", "cp10k", "log2"])
def test_without_imputation_nothing_changes_though_library_sizes_are_over_fewer_genes(scale):
    """Genes that fail the read filter hold a part of the molecules, which the scale of a run leaves out."""
    adata = datasets.simulate(n_cells=120, n_genes=800, library_size=1200, random_state=0)
    methods.impute(adata, method="none", scale=scale)
    modelled = adata.var_names.isin(adata.uns["imputed"]["genes"])
    assert adata.X[:, modelled].sum() < 0.96 * adata.X.sum()
    changes = examine(adata, max_cells=30, max_genes=20).changes
    assert max(gene.change for gene in changes.most) < 1e-4


@pytest.mark.parametrize("dtype", [object, "category"])
def test_cells_without_a_label_are_no_type(dtype):
    adata = datasets.simulate(n_cells=120, n_genes=60, random_state=0)
    adata.obs["typed"] = adata.obs["cell_type"].astype(object).where(np.arange(120) % 2 == 0).astype(dtype)
    methods.impute(adata, method="none")
    found = examine(adata, labels="typed", max_cells=60, max_genes=40)
    assert set(found.structure.classes) == {"type_1", "type_2", "type_3"}
    assert found.n_cells == 60
    assert found.held_out.harm.halves.n_cells == adata.obs["typed"].value_counts().max()
    adata.obs["typed"] = np.full(120, np.nan)
    with pytest.raises(ValueError, match="labels='typed' is empty for every cell"):
        examine(adata, labels="typed")


def test_hidden_entries_are_scored_as_a_loop_does():
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, size=(30, 12)).astype(float)
    hidden = hide_entries(x, share=0.2, random_state=1)
    estimate = rng.random(x.shape)
    losses = score_entries(hidden, imputed=estimate)
    visible = hidden.visible.toarray()
    expected = {"model": {}, "gene_mean": {}, "none": {}}
    for n, g, truth in zip(hidden.rows, hidden.cols, hidden.truth, strict=True):
        mean = visible[visible[:, g] > 0, g].mean()
        for name, value in (("model", estimate[n, g]), ("gene_mean", mean), ("none", 0.0)):
            expected[name][n] = expected[name].get(n, 0.0) + (truth - value) ** 2
    for name, by_cell in expected.items():
        np.testing.assert_allclose(losses[name], [by_cell[n] for n in sorted(by_cell)])


def test_the_true_gene_means_gain_no_more_than_is_attainable():
    """Of genes without structure the truth beats the estimated mean by about the attainable gain."""
    gained, attainable = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth_G = rng.uniform(4, 8, size=40)
        hidden = hide_entries(truth_G + rng.normal(size=(25, 40)), share=0.2, random_state=rng)
        gain = entry_gains(hidden, losses=score_entries(hidden, imputed=np.tile(truth_G, (25, 1))))["gene_mean"]
        gained.append(gain.mean)
        attainable.append(gain.attainable)
    assert np.mean(gained) == pytest.approx(np.mean(attainable), rel=0.15)


def test_changes_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(0.3, 4, size=24), size=(50, 24)).astype(float)
    before, after = np.log1p(counts), np.log1p(counts + rng.random(counts.shape))
    found = measure_changes(before, after=after, depth=np.full(50, 2e3), names=[f"g{g}" for g in range(24)])
    order = np.argsort(np.expm1(before).mean(axis=0), kind="stable").reshape(12, 2)  # or ties go either way
    np.testing.assert_allclose(found.mean, counts.mean(axis=0)[order].mean(axis=1))
    np.testing.assert_allclose(found.zeros_before, (counts == 0).mean(axis=0)[order].mean(axis=1))
    assert (found.zeros_after == 0).all()
    foretold = np.exp(-np.expm1(after) * 0.2).mean(axis=0)
    np.testing.assert_allclose(found.zeros_foretold, foretold[order].mean(axis=1))
    variation = counts.std(axis=0) / counts.mean(axis=0)
    np.testing.assert_allclose(found.cv_before, np.median(variation[order], axis=1))
    change = np.sqrt(((after - before) ** 2).mean(axis=0))
    assert [gene.name for gene in found.most] == [f"g{g}" for g in np.argsort(-change)[:8]]
    assert [gene.name for gene in found.least] == [f"g{g}" for g in np.argsort(change)[:8]]
    gene = int(found.most[0].name[1:])
    assert found.most[0].correlation == pytest.approx(np.corrcoef(before[:, gene], after[:, gene])[0, 1])


def test_silhouettes_are_scikit_learns_on_components_of_each():
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(0)
    classes = np.repeat(["a", "b", "c"], 30)
    before = rng.normal(size=(90, 20)) + 3 * rng.normal(size=(3, 20)).repeat(30, axis=0)
    after = before + rng.normal(size=before.shape)
    found = measure_structure(before, after=after, labels=classes, rng=rng)
    for values, silhouette in ((before, found.silhouette_before), (after, found.silhouette_after)):
        expected = silhouette_score(PCA(10, svd_solver="full").fit_transform(values), classes)
        assert silhouette == pytest.approx(expected, abs=0.01)
    assert found.given


def test_clusters_stand_in_for_labels():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(90, 20)) + 5 * rng.normal(size=(3, 20)).repeat([40, 30, 20], axis=0)
    found = measure_structure(values, after=values, labels=None, rng=rng)
    assert not found.given
    assert found.classes == ("cluster 1",) * 40 + ("cluster 2",) * 30 + ("cluster 3",) * 20


def test_rare_classes_are_drawn_together():
    labels = [f"type {n % 30}" for n in range(90)] + ["type 0"] * 30
    values = np.random.default_rng(0).normal(size=(120, 5))
    found = measure_structure(values, after=values, labels=labels, rng=np.random.default_rng(0))
    assert len(set(found.classes)) == 16
    assert {"type 0", "others"} <= set(found.classes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["a"] * 9, "holds one class, 'a', for all cells"), (list("abcdefghi"), "holds 9 classes for 9 cells")],
)
def test_labels_that_tell_nothing_are_refused(labels, said):
    with pytest.raises(ValueError, match=f"labels='x' {said}"):
        checked_classes(labels, name="labels='x'")


def test_what_is_asked_for_must_be_there():
    adata = bundled()
    with pytest.raises(ValueError, match="there is no imputed layer 'imputed' with a record in uns"):
        examine(adata)
    methods.impute(adata, method="gene_mean")
    with pytest.raises(ValueError, match="labels='type' is no column of obs: choose one of 'cell_type'"):
        examine(adata, labels="type")
    with pytest.raises(ValueError, match="method='nothing' is not known"):
        examine(adata, compare=["nothing"])
    with pytest.raises(ValueError, match="holds one class"):
        examine(adata[adata.obs["cell_type"] == adata.obs["cell_type"].iloc[0]].copy(), labels="cell_type")
    with pytest.raises(ValueError, match="no run of this package"):
        way_of({"something": "else"})


def test_a_run_is_done_again_as_it_was():
    adata = bundled()
    methods.impute(adata, method="knn", options={"n_neighbors": 7})
    way = way_of(adata.uns["imputed"])
    assert (way.method, way.options["n_neighbors"], way.keep_observed) == ("knn", 7, False)
    again = way.on_counts(adata.var_names)(adata.X, np.random.default_rng(0))
    np.testing.assert_allclose(again, np.asarray(adata.layers["imputed"].todense()), rtol=1e-6)


def test_the_record_of_a_file_is_the_record_of_the_run(tmp_path, masked):
    import anndata

    adata = bundled()
    with pytest.warns(UserWarning, match="."):
        tl.autoimpute(adata, model=masked_model())
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = examine(anndata.read_h5ad(tmp_path / "a.h5ad"), **SMALL)
    assert read.way.options == masked.way.options
    assert read.held_out.gain == masked.held_out.gain
    assert read.verdict == masked.verdict


def test_masked_runs_are_judged_by_hidden_entries(masked, counted, smoothed):
    assert [e.held_out.kind for e in (masked, counted, smoothed)] == ["entries", "molecules", "molecules"]
    assert [e.way.estimates for e in (masked, counted, smoothed)] == ["detected", "expected", "expected"]
    assert set(masked.held_out.gain) == {"gene_mean", "none"}
    assert masked.held_out.gain["none"].relative > 0.5  # a hidden value is not zero


def test_reads_are_not_split():
    adata = bundled()
    adata.X = sparse.csr_matrix(adata.X.multiply(np.random.default_rng(0).uniform(200, 900, size=adata.shape))).rint()
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    methods.impute(adata, method="knn")
    found = examine(adata, labels="cell_type", compare=["als", "magic"], **SMALL)
    assert not found.are_molecules
    assert found.held_out.kind == "entries"
    assert {"correlations", "neighbours", "rare"} <= set(found.held_out.harm.left_out)
    assert found.held_out.harm.permuted is not None
    assert set(found.held_out.rivals) | set(found.held_out.failed) == {"als", "magic"}


def test_values_that_are_not_whole_are_judged_by_hidden_entries(tmp_path):
    adata = bundled()
    adata.X = sparse.csr_matrix(adata.X.multiply(np.random.default_rng(0).uniform(0.5, 9, size=adata.shape)))
    methods.impute(adata, method="knn")
    found = examine(adata, labels="cell_type", **SMALL)
    assert found.held_out.kind == "entries"
    assert found.held_out.harm.found == {}
    write_trust_report(found, tmp_path / "r.html")
    said = text_of(tmp_path / "r.html")
    assert "values that are not whole" in said
    assert "the values are not whole numbers, and this is measured on counts" in said


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_set_beside_the_counts_is_refused():
    adata = bundled()
    tl.autoimpute(adata, model=AutoImpute("counts", hidden=8, max_epochs=2), scale="expected_log1p")
    with pytest.raises(ValueError, match="scale='expected_log1p' does not tell"):
        examine(adata, **SMALL)
    adata.layers["foreign"], adata.uns["foreign"] = adata.X, {"k": 10}
    with pytest.raises(ValueError, match="the record holds k, and no run of this package"):
        examine(adata, key="foreign", **SMALL)
    methods.impute(adata, method="knn")
    with pytest.raises(ValueError, match="the object has 50 genes and the run had 300"):
        examine(adata[:, :50].copy(), **SMALL)


def test_rivals_foretell_the_same_molecules(smoothed):
    assert smoothed.held_out.rivals["knn"].mean == 0  # itself
    assert smoothed.held_out.rivals["alra"].standard_error > 0
    assert set(smoothed.held_out.rivals) == {"alra", "knn"}


def test_the_same_seed_gives_the_same_evidence(smoothed):
    adata = bundled()
    methods.impute(adata, method="knn")
    again = examine(adata, labels="cell_type", compare=["alra", "knn"], **SMALL)
    assert again.held_out.gain == smoothed.held_out.gain
    assert again.verdict == smoothed.verdict
    np.testing.assert_array_equal(again.structure.after, smoothed.structure.after)


# ---------------------------------------------------------------------------------------------- the page


def text_of(path):
    return re.sub(r"\s+", " ", path.read_text().replace("\N{NO-BREAK SPACE}", " "))


@pytest.mark.parametrize("name", ["smoothed", "masked", "counted"])
def test_the_page_needs_nothing_else_and_says_all(pages, name):
    path = pages / f"{name}.html"
    page = Page(path.read_text())
    assert page.open == []
    assert not [e for e in page.elements if e["tag"] in {"script", "iframe", "img", "object"}]
    assert "http" not in path.read_text()
    assert len(path.read_bytes()) < 1_000_000
    titles = [e["text"] for e in page.all("h2")]
    assert titles[:4] == ["In words", "What was done", "Held-out data", "False signals and over-smoothing"]
    assert {"Zeros", "Variation", "Cells", "Genes that changed most and least", "How the verdict is reached"} <= set(
        titles
    )
    assert ("Training" in titles) == (name != "smoothed")
    assert all(len(e["aria-label"]) > 5 for e in page.all("svg"))
    assert len(page.all("figure")) >= 4


def test_the_page_begins_with_the_verdict(pages, smoothed):
    page = Page((pages / "smoothed.html").read_text())
    first = next(e for e in page.elements if "verdict" in e.get("class", ""))
    assert smoothed.verdict.reason.replace(" %", "\N{NO-BREAK SPACE}%") in first["text"]
    kinds = {"helps": "good", "useless": "caution", "harmful": "bad"}
    assert kinds[smoothed.verdict.word] in first["class"]
    said = text_of(pages / "smoothed.html")
    for caution in smoothed.verdict.cautions.values():
        assert caution in said
    assert "knn &lt;it&gt;" in said
    assert f"On 10 % of the molecules of 150 cells × {smoothed.held_out.harm.n_genes} genes" in said
    assert "alra" in said


def test_a_masked_run_is_told_what_it_estimates(pages):
    said = text_of(pages / "masked.html")
    assert "These values are expression given that it was detected" in said
    assert "On 10 % of the values above zero" in said
    assert "root mean squared error was" in said
    assert "Not tested" in said  # without labels


def test_a_run_on_counts_is_scored_by_molecules_as_a_whole(pages, counted):
    said = text_of(pages / "counted.html")
    assert f"on {counted.record['held_out']['n']:,} held-out molecules the deviance was" in said
    assert "no imputation" in said


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False)])
def test_the_report_in_a_browser(pages, tmp_path, width, dark):
    path = pages / "counted.html"
    seen, complaints = looked_at(path, tmp_path, width=width, dark=dark)
    page = Page(path.read_text())
    assert complaints == []
    assert seen["overflow"] <= 0
    assert len(seen["drawings"]) == len(page.all("svg"))
    assert all(w > 100 and h > 20 and alt for w, h, alt in seen["drawings"])
    assert all(w > 50 and h > 20 for w, h in seen["tables"])
    assert min(seen["letters"]) >= 8
    grey = [sum(map(int, re.findall(r"\d+", seen[part])[:3])) / 3 for part in ("ground", "ink")]
    assert (grey[0] < 50 and grey[1] > 200) if dark else (grey[0] > 240 and grey[1] < 60)


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata = bundled()[:120, :120].copy()
    adata.obs["one"] = "a"
    adata.write_h5ad("in.h5ad")
    return tmp_path


def command(*arguments):
    return CliRunner().invoke(app, ["impute", "in.h5ad", "-o", "out.h5ad", *arguments])


def test_the_command_writes_the_report(folder):
    done = command("--method", "knn", "--report", "r.html", "--labels", "cell_type", "--compare", "als")
    assert done.exit_code == 0, done.output
    said = text_of(folder / "r.html")
    assert "k-nearest-neighbour" in said
    assert "in.h5ad" in said
    assert "out.h5ad, layer 'imputed'" in said.replace("&#39;", "'")
    assert (folder / "out.h5ad").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "in.h5ad"], "--report and another file of this run are the same, in.h5ad"),
        (["--report", "no/r.html"], "no"),
        (["--report", "."], "is a folder"),
        (["--report", "old.html"], "old.html exists; give --overwrite to replace it"),
        (["--labels", "cell_type"], "--labels is for a report and none was asked for"),
        (["--compare", "als"], "--compare is for a report and none was asked for"),
        (["--report", "r.html", "--compare", "alss"], "--method 'alss' is not known"),
        (
            ["--report", "r.html", "--labels", "type"],
            "--labels 'type' is no column of obs: choose one of 'cell_type', 'one'",
        ),
        (["--report", "r.html", "--labels", "one"], "--labels 'one' holds one class, 'a', for all cells"),
    ],
)
def test_what_cannot_be_reported_is_refused_before_the_work(folder, arguments, said):
    (folder / "old.html").write_text("old")
    done = command("--method", "knn", *arguments)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (folder / "out.h5ad").exists()
    assert (folder / "old.html").read_text() == "old"


def test_an_old_report_is_replaced_if_asked(folder):
    (folder / "old.html").write_text("old")
    assert command("--method", "gene_mean", "--report", "old.html", "--overwrite").exit_code == 0
    assert "Imputation" in (folder / "old.html").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning")  # so few epochs are too few, and the command says so
@pytest.mark.parametrize("output", ["out.h5ad", "out.csv"])
def test_a_model_that_is_applied_is_reported_without_training(folder, output):
    quick = ["--objective", "masked", "--max-epochs", "3", "--hidden", "8"]
    assert command(*quick, "--model", "m.sai").exit_code == 0
    arguments = ["in.h5ad", "-o", output, "--overwrite", "--from-model", "m.sai", "--report", "r.html"]
    done = CliRunner().invoke(app, ["impute", *arguments, "--labels", "cell_type"])
    assert done.exit_code == 0, done.output
    said = text_of(folder / "r.html")
    assert "but has learned from if it was trained on these cells" in said
    assert "<h2>Training</h2>" in said
    assert "Training curve" not in said


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_some_genes_of_a_model_that_is_applied_are_reported_of_all(folder):
    """Whether the input is read a block at a time or as a whole."""
    quick = ["--objective", "masked", "--max-epochs", "3", "--hidden", "8"]
    assert command(*quick, "--model", "m.sai").exit_code == 0
    adata = anndata.read_h5ad("in.h5ad")
    adata.to_df().to_csv("in.csv")
    (folder / "genes.txt").write_text("\n".join(AutoImpute.load("m.sai").genes_[:5]))
    said = []
    for name in ("in.h5ad", "in.csv"):
        words = [name, "-o", "some.h5ad", "--overwrite", "--from-model", "m.sai", "--output-genes", "genes.txt"]
        done = CliRunner().invoke(app, ["impute", *words, "--report", "r.html"])
        assert done.exit_code == 0, done.output
        said.append(re.search(r"On 10 % of the .*? is .*?\.", text_of(folder / "r.html"))[0])
    assert said[0] == said[1]
    assert anndata.read_h5ad("some.h5ad").n_vars == 5


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sample_of_a_large_file_is_on_the_scale_of_the_run(folder, monkeypatch):
    """Genes that pass the filter in the file, and few of them in so few cells, make the library."""
    monkeypatch.setattr(evidence_module, "CELLS", 12)
    seen = []
    monkeypatch.setattr(evidence_module, "row_sums", lambda x: seen.append(x.shape[1]) or row_sums(x))
    done = command("--objective", "masked", "--max-epochs", "3", "--hidden", "8", "--report", "r.html", "--json")
    assert done.exit_code == 0, done.output
    assert seen == [anndata.read_h5ad("out.h5ad").uns["imputed"]["recipe"]["n_genes_kept"]]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_batches_of_a_model(folder):
    adata = anndata.read_h5ad("in.h5ad")
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.write_h5ad("in.h5ad")
    quick = ["--objective", "counts", "--max-epochs", "3", "--hidden", "8", "--batch-key", "donor"]
    done = command(*quick, "--model", "m.sai", "--report", "r.html")
    assert done.exit_code == 0, done.output
    assert "the method, trained anew without batches, never saw" in text_of(folder / "r.html")
    (folder / "out.h5ad").unlink()
    done = command("--from-model", "m.sai", "--batch-key", "donor", "--report", "r2.html")
    assert done.exit_code == 1
    assert "the model was trained on batches (a, b" in done.stderr
    assert not (folder / "out.h5ad").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # so few cells are too few, and the command says so
def test_a_report_that_fails_does_not_cost_the_result(folder):
    datasets.simulate(n_cells=8, n_genes=14, library_size=200, random_state=0).write_h5ad("in.h5ad")
    done = command("--objective", "masked", "--max-epochs", "2", "--hidden", "4", "--report", "r.html")
    assert done.exit_code == 1
    assert "error: the report could not be made (" in done.stderr
    assert "the result is complete in out.h5ad" in done.stderr
    assert (folder / "out.h5ad").exists()
    assert not (folder / "r.html").exists()


def test_hidden_entries_are_foretold_given_detection_whatever_the_run_estimates():
    counts = datasets.simulate(n_cells=60, n_genes=50, random_state=0)
    log2 = pp.recipe_autoimpute(counts, n_top_genes=40, copy=True)
    quick = {"n_folds": 1, "hidden": 8, "max_epochs": 3}
    given, expected = (
        Way("autoimpute", quick | {"estimand": of}, True, of).on_logs(log2.var_names)(log2.X, np.random.default_rng(0))
        for of in ("detected", "expected")
    )
    np.testing.assert_array_equal(given, expected)
