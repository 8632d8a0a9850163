"""The rivals of the denoising benchmark choose on molecules that are not scored, and their arithmetic is right."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from anndata import AnnData
from scipy import sparse, stats

from scautoimpute.datasets import simulate
from scautoimpute.metrics import gene_frequencies, multinomial_gain, thin
from scautoimpute.model.thinning import thin_values

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("denoising")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rivals(benchmark):
    return sys.modules["denoising_rivals"]


@pytest.fixture(scope="module")
def data_of_benchmark(benchmark):
    return sys.modules["denoising_data"]


@pytest.fixture(scope="module")
def choice(benchmark):
    return sys.modules["denoising_choice"]


@pytest.fixture(scope="module")
def counts():
    """Two kinds of 60 cells in all, 40 genes, more variable than Poisson."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.8, 4.0, size=(2, 40))[np.arange(60) % 2] * rng.gamma(4.0, 0.25, size=(60, 40))
    return sparse.csr_array(rng.poisson(rate).astype(float))


@pytest.fixture(scope="module")
def profile(rivals, counts):
    return next(iter(rivals.knn_profiles(counts, [{"k": 10, "n_pcs": 10}], np.random.default_rng(0))))[1]


def test_dispersions_by_loop(choice, counts, profile):
    x = counts.toarray()
    mu = profile.astype(float) * x.sum(axis=1, keepdims=True)
    by_gene = [
        np.clip(sum((x[i, g] - mu[i, g]) ** 2 - mu[i, g] for i in range(60)) / np.sum(mu[:, g] ** 2), 1e-4, 20)
        for g in range(40)
    ]
    np.testing.assert_allclose(choice.dispersions(profile, counts), by_gene, rtol=1e-4, atol=1e-6)


def test_the_posterior_is_that_of_a_gamma_prior(choice, counts, profile):
    """By the conjugate update: shape 1/φ + x, rate 1/(φ μ) + 1; then divided by the cell's sum."""
    x = counts.toarray()
    phi = choice.dispersions(profile, counts) * 1.7
    mu = np.maximum(profile.astype(float) * x.sum(axis=1, keepdims=True), 1e-30)
    mean = stats.gamma(1 / phi + x, scale=1 / (1 / (phi * mu) + 1)).mean()
    expected = mean / mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(choice.posterior(profile, counts, 1.7), expected, rtol=2e-3, atol=1e-7)


def test_what_is_chosen_is_the_best_at_the_molecules_held_out(choice, counts, profile):
    inner = choice.Inner.of(counts, np.random.default_rng(1))
    floor, score = choice.choose_floor(profile, inner)
    for other in choice.FLOORS:
        assert inner.score(choice.mixed(profile, inner.frequency_G, other)[inner.cell, inner.gene]) <= score + 1e-9
    prior, eb = choice.choose_prior(profile, inner, floor=floor)
    made = choice.posterior(choice.mixed(profile, inner.frequency_G, prior.floor), inner.train, prior.scale)
    assert inner.score(made[inner.cell, inner.gene]) == pytest.approx(eb, abs=1e-5)
    for scale in choice.SCALES:
        other = choice.posterior(choice.mixed(profile, inner.frequency_G, prior.floor), inner.train, scale)
        assert inner.score(other[inner.cell, inner.gene]) <= eb + 1e-5


def test_some_cells_are_the_same_problem(choice, counts, profile, monkeypatch):
    inner = choice.Inner.of(counts, np.random.default_rng(1))
    monkeypatch.setattr(choice, "_CELLS_AT_MOST", 20)
    part_profile, part = choice._some_cells(profile, inner)
    assert part_profile.shape == (20, 40)
    assert part.train.shape == (20, 40)
    whole = sparse.csr_array((inner.y, (inner.cell, inner.gene)), shape=counts.shape)
    kept = sparse.csr_array((part.y, (part.cell, part.gene)), shape=(20, 40))
    chosen = np.linspace(0, 59, 20).astype(int)
    np.testing.assert_array_equal(kept.toarray(), whole[chosen].toarray())


def test_every_family_gives_shares(rivals, counts):
    for family in rivals._FAMILIES:
        name = next(iter(family.variants))
        if name in {"scvi", "autoimpute", *rivals.unavailable()}:
            continue
        settings = [family.settings[0], *family.settings[-2:]] if len(family.settings) > 1 else family.settings
        settings = [s for s in settings if s.get("rank", 0) < 40]
        found = list(family.profiles(counts, settings, np.random.default_rng(0)))
        assert found, name
        for setting, made in found:
            assert made.dtype == np.float32
            assert made.min() >= 0, (name, setting)
            np.testing.assert_allclose(made.sum(axis=1), 1, rtol=1e-4)


def test_components_of_full_rank_are_the_counts(rivals, counts):
    x = counts[:, gene_frequencies(counts) > 1e-3]
    own = x.toarray() / x.sum(axis=1)[:, None]
    rank = min(x.shape) - 1
    for curve in ("sqrt", "linear"):
        made = next(iter(rivals.pca_profiles(x, [{"curve": curve, "rank": rank}], np.random.default_rng(0))))[1]
        assert np.abs(made - own).max() < 0.02


def test_scored_molecules_play_no_part_in_a_choice(rivals, counts):
    """An estimate is a function of the training molecules and the seed, and the empirical-Bayes step helps."""
    train, held_out = thin(counts, share=0.1, random_state=0)
    first, again = (list(rivals.estimates("knn", train, 3)) for _ in range(2))
    assert [e.method for e in first] == ["knn", "knn_eb"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.scored_NG, other.scored_NG)
        assert one.choice == other.choice
    gain = {e.method: multinomial_gain(held_out, e.scored_NG, train=train) for e in first}
    assert gain["knn_eb"] > gain["knn"] > 0


@pytest.fixture
def files(tmp_path):
    """Simulated cells of two lines in files named as those of the benchmark, and bulk of the lines."""
    adata = simulate(n_cells=60, n_genes=40, n_types=2, random_state=0)
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)
    types = np.where(adata.obs["cell_type"] == adata.obs["cell_type"].iloc[0], "Jurkat", "293T")
    types[:3] = ["rare", "unassigned", "nan"]
    deep = AnnData(counts, obs=pd.DataFrame({"cell_type": types}, index=adata.obs_names), var=adata.var[[]])
    part = thin_values(counts.data, 0.4, np.random.default_rng(1))
    for layer in ("downsampled_saver", "downsampled_0.3"):
        deep.layers[layer] = sparse.csr_matrix((part, counts.indices, counts.indptr), counts.shape)
    for name in ("jurkat_293t", "saver_manno_pair", "pbmc3k_ds0.3_pair"):
        deep.write_h5ad(tmp_path / f"{name}.h5ad")
    columns = {"jurkat_1": np.arange(40.0), "jurkat_2": np.ones(40), "293T_1": np.full(40, 7.0)}
    bulk = pd.DataFrame(columns, index=deep.var_names).drop(index=deep.var_names[5])
    bulk.to_csv(tmp_path / "bulk_jurkat_293t_GSE129240.csv.gz")
    return deep, tmp_path


def kept_of(deep, matrix):
    """Rows and columns that a split keeps of counts: genes stored thrice, cells of more than ten molecules."""
    genes = np.flatnonzero((matrix.toarray() > 0).sum(axis=0) >= 3)
    return np.ix_(np.flatnonzero(matrix.toarray()[:, genes].sum(axis=1) > 10), genes)


def test_a_split_parts_the_molecules_of_a_set(data_of_benchmark, files):
    deep, folder = files
    split = data_of_benchmark.split_of("jurkat_293t", 0, folder)
    kept = kept_of(deep, deep.X)
    np.testing.assert_array_equal((split.train + split.held_out).toarray(), deep.X.toarray()[kept])
    assert (split.second.toarray() <= split.train.toarray()).all()
    assert split.held_out.sum() / deep.X.sum() == pytest.approx(0.1, abs=0.02)
    assert split.second.sum() / split.held_out.sum() == pytest.approx(1, abs=0.1)
    assert split.depth == pytest.approx(1 / 9)
    other = data_of_benchmark.split_of("jurkat_293t", 1, folder)
    assert (other.train != split.train).nnz
    assert set(split.labels) == {"Jurkat", "293T", ""}
    assert list(split.labels[:3]) == ["", "", ""]


@pytest.mark.parametrize(("name", "holds_input"), [("saver_manno_pair", False), ("pbmc3k_ds0.3_pair", True)])
def test_a_pair_is_scored_at_what_the_input_does_not_hold(data_of_benchmark, files, name, holds_input):
    deep, folder = files
    split = data_of_benchmark.split_of(name, 0, folder)
    shallow = deep.layers["downsampled_0.3"]
    kept = kept_of(deep, shallow)
    np.testing.assert_array_equal(split.train.toarray(), shallow.toarray()[kept])
    wanted = (deep.X - shallow if holds_input else deep.X).toarray()[kept]
    np.testing.assert_array_equal(split.held_out.toarray(), wanted)
    assert split.depth == pytest.approx(wanted.sum() / split.train.sum())
    assert split.second is None


def test_bulk_of_a_line_is_the_sum_of_its_samples(data_of_benchmark, files):
    deep, folder = files
    split = data_of_benchmark.split_of("jurkat_293t", 0, folder)
    bulk = split.bulk
    kinds = sorted({label.lower() for label in deep.obs["cell_type"]})
    assert deep.var_names[5] not in split.genes[bulk.genes]
    jurkat, other = (bulk.samples[kinds.index(kind)] for kind in ("jurkat", "293t"))
    np.testing.assert_array_equal(jurkat, [deep.var_names.get_loc(gene) + 1 for gene in split.genes[bulk.genes]])
    assert (other == 7).all()
    assert [kinds[kind] for kind in bulk.kind[3:]] == [label.lower() for label in deep.obs["cell_type"][3:]]


def test_rows_are_written_read_and_not_run_again(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["row_files"], "ProcessPoolExecutor", _InThisProcess)
    command = ["--data", str(tmp_path), "--seeds", "0", "--output", str(tmp_path / "rows.csv"), "--methods", "none"]
    assert benchmark.main(command) == 0
    rows = benchmark.read_rows(tmp_path / "rows.csv", benchmark.Row)
    assert [(row.dataset, row.method, row.n_cells) for row in rows] == [("pbmc68k_reduced", "none", 700)]
    assert rows[0].removed == 0
    assert benchmark.main([*command, "gene_mean", "gene_mean_eb"]) == 0
    assert "1 runs to do, 1 rows" in capsys.readouterr().err
    rows = {row.method: row for row in benchmark.read_rows(tmp_path / "rows.csv", benchmark.Row)}
    assert rows["gene_mean"].gain == pytest.approx(0, abs=0.01)
    assert rows["gene_mean_eb"].gain > rows["none"].gain
    assert benchmark.main([*command, "--table"]) == 0
    table = (tmp_path / "rows.md").read_text()
    assert "| pbmc68k_reduced | gene_mean_eb |" in table
    assert "Not run: knn" in table


class _InThisProcess:
    """A pool that runs what it is given at once, for tests of the bookkeeping."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, *args):
        from concurrent.futures import Future

        done = Future()
        done.set_result(function(*args))
        return done

    def shutdown(self, **kwargs):
        pass


KILLED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from row_files import one_thread_pool

def busy(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    with one_thread_pool(1) as pool:
        pool.submit(busy, sys.argv[2]).result()
"""


def test_what_runs_a_task_ends_with_a_benchmark_that_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    told = tmp_path / "worker"
    process = subprocess.Popen([sys.executable, tmp_path / "killed.py", BENCHMARKS, told])
    try:
        while not told.exists() or not told.read_text():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    worker, end = int(told.read_text()), time.monotonic() + 60
    while is_alive(worker):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_cell_in_which_a_rival_is_ahead_is_listed(benchmark):
    import pandas as pd

    tables = sys.modules["denoising_tables"]
    scores = {"autoimpute_counts": (3.0, 10.0), "nmf_eb": (2.5, 9.0), "autoimpute": (1.0, 99.0)}
    rows = pd.DataFrame(
        [
            {"dataset": "zeisel", "seed": seed, "method": method, "deviance": deviance, "gain": gain + seed}
            for method, (deviance, gain) in scores.items()
            for seed in (0, 1)
        ]
    ).assign(**{name: np.nan for name in tables.MEASURES if name not in {"deviance", "gain"}})
    text = tables.behind(rows)
    assert text.startswith("autoimpute_counts is best or equal in 1 of 2 cells")
    assert "| zeisel | nmf_eb | 2.5000 | 3.0000 |" in text  # less is better; our own other method is no rival
    assert tables.winners(rows.assign(dataset=rows["dataset"].astype("category"))).endswith(
        "| zeisel | autoimpute | 99.5 | autoimpute_counts | 89.0 | 3 |"
    )
