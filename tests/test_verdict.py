"""The verdict: its rule on numbers, and what it says of simulated data whose answer is known."""

import numpy as np
import pytest
from scipy import sparse, special

from scautoimpute import AutoImpute, datasets
from scautoimpute.metrics import Gain, held_out_molecules, molecule_gain, score_molecules
from scautoimpute.metrics._molecules import logs_of
from scautoimpute.trust import imputer, judge, measure_harm
from scautoimpute.trust.harm import sampled
from scautoimpute.trust.rerun import trained
from scautoimpute.trust.structure import fine_clusters

# ---------------------------------------------------------------------------------------- held-out molecules


@pytest.fixture(scope="module")
def typed():
    return datasets.simulate(n_cells=300, n_genes=200, library_size=800, dropout=0, overdispersion=0, random_state=0)


def test_deviance_is_scikit_learns(typed):
    from sklearn.metrics import mean_poisson_deviance

    split = held_out_molecules(typed.X, share=0.2, random_state=0)
    deviance = score_molecules(split, imputed=np.ones(typed.shape))
    kept, held_out = split.kept.toarray(), split.held_out.toarray()
    mean = kept.sum(axis=1, keepdims=True) * kept.sum(axis=0) / kept.sum() * 0.25
    flat = 0.99 * np.tile(kept.sum(axis=1, keepdims=True) / 200 * 0.25, (1, 200)) + 0.01 * mean
    seen = kept.sum(axis=0) > 0
    for name, expected in (("gene_mean", mean), ("model", flat)):
        loop = [mean_poisson_deviance(held_out[n, seen], expected[n, seen]) * seen.sum() for n in range(300)]
        np.testing.assert_allclose(deviance[name], loop, rtol=1e-4)


def test_the_truth_foretells_best(typed):
    split = held_out_molecules(typed.X, random_state=0)
    truth = logs_of(sparse.csr_array(typed.layers["truth"].astype(float))).toarray()
    deviance = {name: values.mean() for name, values in score_molecules(split, imputed=truth).items()}
    assert deviance["model"] < deviance["own_counts"] < deviance["gene_mean"] < deviance["none"]
    assert deviance["mixture"] == pytest.approx(deviance["model"], rel=1e-3)


def test_own_counts_are_shrunk_by_the_dispersion_of_their_gene():
    rng = np.random.default_rng(3)
    x = rng.poisson(rng.gamma(2, 4, size=(40, 6)))
    split = held_out_molecules(x, share=0.3, random_state=0)
    kept, held_out = split.kept.toarray(), split.held_out.toarray()
    size, total = kept.sum(axis=1), kept.sum(axis=0)
    loop = np.zeros(40)
    mean = [[size[n] * total[g] / total.sum() for g in range(6)] for n in range(40)]
    shrunk = np.zeros((40, 6))
    for g in range(6):
        excess = sum((kept[n, g] - mean[n][g]) ** 2 - kept[n, g] for n in range(40))
        dispersion = max(0.0, excess / sum(mean[n][g] ** 2 for n in range(40)))
        for n in range(40):
            # Posterior mean: gamma prior of shape 1 / φ and this mean, Poisson counts
            shrunk[n, g] = (1 / dispersion + kept[n, g]) / (1 / (dispersion * mean[n][g]) + 1)
    for n in range(40):
        scaled = shrunk[n] * size[n] / shrunk[n].sum()
        expected = 0.3 / 0.7 * (0.99 * scaled + 0.01 * np.array(mean[n]))
        loop[n] = 2 * (special.xlogy(held_out[n], held_out[n] / expected) - held_out[n] + expected).sum()
    found = score_molecules(split, imputed=np.ones((40, 6)))["own_counts"]
    np.testing.assert_allclose(found, loop, rtol=1e-6)


def test_own_counts_are_the_gamma_poisson_posterior():
    """The shrunken count is the mean of the posterior, integrated numerically."""
    mean, dispersion, count = 3.0, 0.5, 7
    rate = np.linspace(1e-3, 60, 200_001)
    log_density = (1 / dispersion - 1) * np.log(rate) - rate / (mean * dispersion) + count * np.log(rate) - rate
    weight = special.softmax(log_density)
    assert (weight * rate).sum() == pytest.approx(mean * (1 + dispersion * count) / (1 + dispersion * mean), rel=1e-4)


def test_what_a_gene_mean_loses_by_being_estimated_is_the_attainable_gain():
    """With the true profile for a model, the gain over the estimated gene mean is the attainable one on average."""
    gained, attainable = [], 0.0
    for seed in range(40):
        adata = datasets.simulate(
            n_cells=30, n_genes=80, structure="none", dropout=0, overdispersion=0, random_state=seed
        )
        profile = np.log1p(1e4 * adata.layers["truth"][0] / adata.layers["truth"][0].sum())
        found = molecule_gain(adata.X, impute=lambda x, rng, p=profile: np.tile(p, (x.shape[0], 1)), random_state=seed)
        gained.append(found["gene_mean"].mean)
        attainable = found["gene_mean"].attainable
    assert np.mean(gained) == pytest.approx(attainable, rel=0.35)


def test_an_unknown_share_is_refused():
    with pytest.raises(ValueError, match="share is 1; allowed is above 0 and below 1"):
        held_out_molecules(np.ones((3, 3)), share=1)


# ---------------------------------------------------------------------------------------- the rule


def gain(mean, error=0.1, attainable=0.0):
    return Gain(mean=mean, standard_error=error, relative=mean / 10, attainable=attainable)


@pytest.mark.parametrize(
    ("gains", "found", "word"),
    [
        ({"gene_mean": gain(1)}, {}, "helps"),
        ({"gene_mean": gain(1)}, {"permuted": True, "rare": True}, "helps"),
        ({"gene_mean": gain(0.2)}, {}, "useless"),  # two standard errors
        ({"gene_mean": gain(1, attainable=2)}, {}, "useless"),
        ({"gene_mean": gain(-1)}, {}, "useless"),
        ({"gene_mean": gain(-1)}, {"rare": True}, "useless"),
        ({"gene_mean": gain(-1)}, {"markers": True}, "harmful"),
        ({"gene_mean": gain(1), "none": gain(-1)}, {}, "harmful"),
        ({"gene_mean": gain(1), "none": gain(0)}, {}, "useless"),
        ({"gene_mean": gain(1), "own_counts": gain(-1)}, {}, "harmful"),
        ({"gene_mean": gain(1), "none": gain(1), "own_counts": gain(-1)}, {}, "useless"),
        ({"gene_mean": gain(1), "none": gain(1), "own_counts": gain(-1)}, {"permuted": True}, "harmful"),
        ({"gene_mean": gain(1), "own_counts": gain(-1), "added": gain(1)}, {}, "helps"),
        ({"gene_mean": gain(1), "own_counts": gain(0), "added": gain(0)}, {}, "useless"),
        ({"gene_mean": gain(1), "own_counts": gain(0), "added": gain(0)}, {"rare": True}, "useless"),
        ({"gene_mean": gain(1), "own_counts": gain(0), "added": gain(0)}, {"halves": True}, "harmful"),
        ({"gene_mean": gain(0), "own_counts": gain(0), "added": gain(0)}, {"halves": True}, "useless"),
        ({"gene_mean": gain(0), "own_counts": gain(0), "added": gain(0)}, {}, "useless"),
    ],
)
def test_the_rule(gains, found, word):
    verdict = judge(gains, found=found)
    assert verdict.word == word
    assert set(verdict.cautions) == {name for name, beyond in found.items() if beyond}
    assert verdict.in_words().startswith(f"Imputation {'helps' if word == 'helps' else f'is {word} here'}: held-out")


def test_the_verdict_ends_in_words():
    verdict = judge({"gene_mean": gain(2.5)}, found={"halves": True, "rare": False})
    assert verdict.in_words() == (
        "Imputation helps: held-out data are foretold 25 % better than by the mean of each gene. Do not use it for "
        "differential expression: genes are called together between random halves of a type."
    )
    assert verdict.thresholds == {"gene_mean": pytest.approx(0.2326)}


def test_large_losses_are_written_out():
    verdict = judge({"gene_mean": gain(1), "none": gain(-312.4)}, found={})
    assert "foretold 3,124 % worse than by the counts as they are. Use the counts" in verdict.reason


def test_a_verdict_needs_the_gene_mean():
    with pytest.raises(ValueError, match="gain is over none; the gain over gene_mean is needed"):
        judge({"none": gain(1)}, found={})


# ---------------------------------------------------------------------------------------- simulated data


def simulated(case, seed, *, n_cells=400, n_genes=300):
    """No structure at all; types at a depth that single cells have; the same with each gene permuted."""
    made = {"n_cells": n_cells, "n_genes": n_genes, "library_size": 1000, "dropout": 0, "overdispersion": 0}
    structure = "none" if case == "useless" else "types"
    adata = datasets.simulate(structure=structure, marker_log_fold=1.5, **made, random_state=seed)
    return datasets.permute_genes(adata, random_state=seed) if case == "harmful" else adata


def verdict_on(case, seed, *, n_networks=None, **size):
    """By the default of counts of molecules, of so many networks."""
    adata, model = simulated(case, seed, **size), AutoImpute("counts", n_networks=n_networks)
    impute = trained(model.settings.to_json())
    harm = measure_harm(adata.X, impute=impute, labels=adata.obs["cell_type"], random_state=seed)
    return judge(harm.gain, found=harm.found)


CASES = ("helps", "useless", "harmful")


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_on_simulated_data(case):
    assert verdict_on(case, 0, n_networks=1, n_cells=160, n_genes=120).word == case


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("case", CASES)
def test_the_verdict_on_more_simulated_data(case, seed):
    assert verdict_on(case, seed).word == case


def test_smoothing_that_does_not_validate_invents_where_there_is_nothing():
    adata = simulated("useless", 0)
    harm = measure_harm(adata.X, impute=imputer("knn"), random_state=0)
    verdict = judge(harm.gain, found=harm.found)
    assert verdict.word == "harmful"
    assert "permuted" in verdict.cautions
    assert set(harm.left_out) >= {"markers", "silent"}


def test_what_changes_nothing_is_useless_and_does_no_harm(typed):
    harm = measure_harm(typed.X, impute=imputer("none"), labels=typed.obs["cell_type"])
    assert not any(harm.found.values())
    assert judge(harm.gain, found=harm.found).word == "useless"


def test_halves_are_of_one_type_where_no_types_are_known(typed):
    logs = logs_of(typed.X)
    cluster = fine_clusters(logs.toarray(), rng=np.random.default_rng(0))
    halves = measure_harm(typed.X, impute=imputer("none")).halves
    assert 20 <= halves.n_cells < typed.obs["cell_type"].value_counts().max()
    for number in np.unique(cluster):
        assert typed.obs["cell_type"][cluster == number].value_counts(normalize=True).max() > 0.9


def test_samples_are_bounded_and_keep_labels_with_their_cells(typed):
    names = np.arange(300)
    x, labels = sampled(typed.X, names, max_cells=50, max_genes=20, rng=np.random.default_rng(0))
    assert x.shape == (50, 20)
    top = np.sort(np.argsort(-np.asarray(typed.X[labels.astype(int)].sum(axis=0)).ravel(), kind="stable")[:20])
    np.testing.assert_array_equal(x.toarray(), typed.X[labels.astype(int)][:, top].toarray())


@pytest.mark.parametrize("method", ["gene_cell_bias", "alra", "drimpute", "soft_impute"])
def test_every_measure_runs_on_methods_of_the_registry(method):
    adata = datasets.simulate(n_cells=120, n_genes=100, random_state=0)
    harm = measure_harm(adata.X, impute=imputer(method), labels=adata.obs["cell_type"])
    assert harm.left_out == {}
    assert all(np.isfinite(g.mean) for g in harm.gain.values())


def test_real_counts_are_judged():
    adata = datasets.pbmc68k_reduced()
    harm = measure_harm(adata.X, impute=imputer("knn"), labels=adata.obs["cell_type"], max_cells=300, max_genes=200)
    assert (harm.n_cells, harm.n_genes) == (300, 200)
    assert harm.permuted.harmful
