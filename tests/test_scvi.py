"""scVI through this package, where scvi-tools is installed (it is no part of the development dependencies)."""

import os
import random
import sys

import numpy as np
import pytest

import scautoimpute as sai
from scautoimpute import MissingDependencyError, methods

QUICK = {"max_epochs": 30}


@pytest.fixture
def _installed():
    pytest.importorskip("scvi", reason="scvi-tools is not installed: pip install scautoimpute[scvi]")


@pytest.fixture(scope="module")
def counts():
    return sai.datasets.simulate(n_cells=120, n_genes=150, random_state=0)


@pytest.mark.usefixtures("_installed")
def test_estimates_are_nearer_the_truth_than_the_counts_and_sum_to_the_library(counts):
    adata = methods.impute(counts, method="scvi", scale="counts", options=QUICK, copy=True)
    modelled = adata.var_names.isin(adata.uns["imputed"]["genes"])
    imputed, seen = adata.layers["imputed"].toarray()[:, modelled], adata.X.toarray()[:, modelled]
    truth = adata.layers["truth"][:, modelled]
    np.testing.assert_allclose(imputed.sum(1), seen.sum(1), rtol=1e-5)
    nearness = [np.corrcoef(np.log1p(values).ravel(), np.log1p(truth).ravel())[0, 1] for values in (imputed, seen)]
    assert nearness[0] > nearness[1] + 0.02


@pytest.mark.usefixtures("_installed")
def test_global_generators_and_the_folder_are_left_alone(counts, tmp_path, monkeypatch):
    import torch

    def states():
        import scvi

        generators = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002
        return *generators, scvi.settings.seed, torch.backends.cudnn.deterministic, dict(os.environ)

    monkeypatch.chdir(tmp_path)
    before = states()
    first = methods.impute(counts, method="scvi", options={"max_epochs": 2}, copy=True)
    assert states() == before
    assert list(tmp_path.iterdir()) == []
    second = methods.impute(counts, method="scvi", options={"max_epochs": 2}, copy=True)
    np.testing.assert_array_equal(first.layers["imputed"].toarray(), second.layers["imputed"].toarray())
    assert first.uns["imputed"]["versions"]["scvi-tools"]


def test_it_says_how_to_install_it(counts, monkeypatch):
    monkeypatch.setitem(sys.modules, "scvi", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r'pip install "scautoimpute\[scvi\]"'):
        methods.impute(counts, method="scvi", copy=True)


def test_logs_are_refused(counts, monkeypatch):
    with pytest.raises(ValueError, match="method='scvi' takes counts, and values='logs' was given"):
        methods.impute(counts, method="scvi", values="logs", copy=True)
