"""Components of few cells: their shares, what is kept of them beside noise, and what they add to the networks."""

import numpy as np
import pytest
import torch
from scipy import sparse

from scautoimpute import AutoImpute
from scautoimpute.model import components as of_few
from scautoimpute.model.components import LOWEST_FOLD, fit_components
from scautoimpute.model.counts_inputs import CountsEncoding
from scautoimpute.model.thinning import split_molecules
from scautoimpute.model.threads import torch_threads


def made_counts(n_cells=90, n_genes=50, spread=1.0, depth=4.0, seed=0):
    """Three types of cells, or, with no spread, one."""
    rng = np.random.default_rng(seed)
    rate = depth * np.exp(rng.normal(0, spread, (3, n_genes)) + rng.normal(0, 1, n_genes))[np.arange(n_cells) % 3]
    return sparse.csr_array(rng.poisson(rate * rng.uniform(0.5, 2, (n_cells, 1))).astype(np.float32))


def parted(x, n_batches=1):
    """Visible counts, the batch of each cell, its encoding, held-out molecules, and of which cells."""
    visible, held_out = split_molecules(x, 0.1, np.random.default_rng(1))
    batch = np.arange(x.shape[0]) % n_batches
    return visible, batch, CountsEncoding.fit(visible, batch), held_out, np.arange(x.shape[0])


def deviations(x, encoding, batch):
    """Computed in the other way: dense, in double precision."""
    frequency = np.exp(encoding.log_frequency_KG.double().numpy())[batch]
    expected = x.sum(axis=1)[:, None] * frequency
    return (x.toarray() - expected) / np.sqrt(expected), frequency


@pytest.mark.parametrize("n_batches", [1, 2])
def test_shares_are_those_of_dense_singular_vectors(n_batches):
    visible, batch, encoding, *held_out = parted(made_counts(), n_batches)
    found = fit_components(visible, batch, encoding, *held_out)
    y, frequency = deviations(visible, encoding, batch)
    _, singular, v = np.linalg.svd(y, full_matrices=False)
    n = len(found.kept_C)
    np.testing.assert_allclose(np.abs((v[:2] @ found.direction_GC.numpy())[:, :2].diagonal()), 1, atol=1e-4)
    noise = min(
        of_few.NOISE, key=lambda s: abs(shrunk(singular[:n] / np.sqrt(s), *y.shape) - found.kept_C.numpy()).sum()
    )
    np.testing.assert_allclose(found.kept_C, shrunk(singular[:n] / np.sqrt(noise), *y.shape), rtol=1e-2)
    d = found.direction_GC.double().numpy()
    fold = 1 + (y @ d * found.kept_C.numpy()) @ d.T / np.sqrt(visible.sum(axis=1)[:, None] * frequency)
    into = (batch + 1) % n_batches
    other = np.exp(encoding.log_frequency_KG.double().numpy())[into]
    for share, of in (
        (found.shares(visible, encoding, batch, batch), frequency),
        (found.shares(visible, encoding, batch, into), other),
    ):
        expected = np.maximum(fold, LOWEST_FOLD) * of
        np.testing.assert_allclose(share, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3)


def shrunk(singular, n_cells, n_genes):
    """Gavish and Donoho's optimal shrinkage in its first form, y = s / √m of an aspect ratio β = n / m, over y."""
    n, m = sorted((n_cells, n_genes))
    y, beta = singular / np.sqrt(m), n / m
    inside = np.maximum((y**2 - beta - 1) ** 2 - 4 * beta, 0)
    return np.where(y > 1 + np.sqrt(beta), np.sqrt(inside) / y, 0) / y


def test_shrinkage_recovers_a_signal_in_noise():
    """What is kept is what brings the singular values nearest the matrix without noise."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, 2)))[0] for n in (300, 200))
    signal = (u * [60, 40]) @ v.T
    left, s, right = np.linalg.svd(signal + rng.normal(size=(300, 200)))
    kept = of_few._kept(s, 300, 200)
    assert (kept > 0).sum() == 2

    def error(kept):
        return np.linalg.norm((left[:, :2] * s[:2] * kept) @ right[:2] - signal)

    best = error(kept[:2])
    for factor in (0.9, 1.1):
        assert error(kept[:2] * factor) > best
    assert error(np.ones(2)) > best


@pytest.mark.filterwarnings("ignore:held-out deviance")  # there is nothing to learn
def test_noise_has_no_components():
    assert fit_components(*parted(made_counts(300, 80, spread=0))) is None
    model = AutoImpute("counts", hidden=3, max_epochs=2, n_networks=1, random_state=0)
    with pytest.warns(UserWarning, match="max_epochs"):
        model.fit(made_counts(300, 80, spread=0))
    assert list(model.weights_)[-1] == "network_own_counts"


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (3, 40), (40, 3)])
def test_few_cells_or_genes(shape):
    found = fit_components(*parted(made_counts(*shape, depth=40)))
    assert found is None or len(found.kept_C) < min(shape)


@pytest.mark.parametrize("small", [500, 0])
def test_cells_all_alike(small, monkeypatch):
    monkeypatch.setattr(of_few, "SMALL", small)
    monkeypatch.setattr(of_few, "MOST_COMPONENTS", 4)
    x = sparse.csr_array(np.tile(np.arange(1, 9, dtype=np.float32), (20, 1)))
    nothing = sparse.csr_array(x.shape, dtype=np.float32)
    none = fit_components(x, np.zeros(20, int), CountsEncoding.fit(x, np.zeros(20, int)), nothing, np.arange(20))
    assert none is None


def test_a_cell_without_molecules_has_the_shares_of_its_batch():
    visible, batch, encoding, *held_out = parted(made_counts(), 2)
    found = fit_components(visible, batch, encoding, *held_out)
    empty = sparse.csr_array((1, visible.shape[1]), dtype=np.float32)
    share = found.shares(empty, encoding, np.array([1]), np.array([1]))[0]
    torch.testing.assert_close(share, torch.softmax(encoding.log_frequency_KG[1], 0))


def test_of_many_cells_some_are_taken(monkeypatch):
    x = made_counts(400)
    whole = fit_components(*parted(x))
    monkeypatch.setattr(of_few, "COUNTS_TAKEN", x.nnz // 2)
    monkeypatch.setattr(of_few, "CELLS_TAKEN", 100)
    part = fit_components(*parted(x))
    between = (whole.direction_GC[:, :2].T @ part.direction_GC[:, :2]).numpy()
    assert np.linalg.svd(between)[1].min() > 0.95
    assert (part.kept_C[:2] < whole.kept_C[:2]).all()


def test_they_add_to_what_networks_know(monkeypatch):
    """Of 120 cells, each a mixture of six programmes: nearer the rates, and likelier the molecules held out."""
    rng = np.random.default_rng(0)
    rate = rng.dirichlet(np.full(6, 0.3), 120) @ rng.gamma(0.3, 8, (6, 300))
    x = rng.poisson(rate).astype(np.float32)
    error, deviance = {}, {}
    for most in (10_000, 0):
        monkeypatch.setattr("scautoimpute.model.counts_fit.MOST_CELLS", most)
        model = AutoImpute("counts", random_state=0).fit(x)
        error[most] = np.square(np.sqrt(model.impute(x)) - np.sqrt(rate)).mean()
        deviance[most] = model.held_out_["model"]["deviance"]
        assert (model.model_.components is None) == (not most)
        assert list(model.weights_)[4:] == (["components", "components_own_counts"] if most else [])
        assert model.weights_.keys() - {"gene_frequencies", "gene_frequencies_own_counts"} <= model.held_out_.keys()
    assert error[10_000] < 0.8 * error[0]
    assert deviance[10_000] < deviance[0]


def repeated(n_cells):
    """Cells drawn again and again from twenty, so that there are fewer directions than are asked for."""
    return made_counts(20)[np.random.default_rng(0).integers(20, size=n_cells)]


@pytest.mark.parametrize(
    "x", [made_counts(), repeated(90), repeated(700), made_counts(600, 510)], ids=lambda x: x.shape
)
def test_one_fit_gives_one_model(x, monkeypatch):
    first, second = (fit_components(*parted(x)) for _ in range(2))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])
    monkeypatch.setattr(of_few, "SMALL", 20 if min(x.shape) < 500 else 1000)  # the other way
    other = fit_components(*parted(x))
    np.testing.assert_allclose(other.kept_C, first.kept_C, rtol=1e-2, atol=1e-3)


def test_what_foretells_nothing_is_left_out():
    visible, batch, encoding, held_out, cells = parted(made_counts())
    nothing = sparse.csr_array(held_out.shape, dtype=np.float32)
    assert fit_components(visible, batch, encoding, nothing, cells) is None
    of_others = held_out[np.roll(cells, 1)]
    assert fit_components(visible, batch, encoding, of_others, cells) is None


def test_more_noise_leaves_less():
    singular = np.array([60.0, 40.0, 20.0])
    assert (of_few._kept(singular / np.sqrt(2), 300, 200) <= of_few._kept(singular, 300, 200)).all()
    assert not of_few._kept(np.array([0.0, 30.0]), 300, 200).any()


def test_several_threads_find_what_one_does():
    one = fit_components(*parted(made_counts()))
    with torch_threads(2):
        two = fit_components(*parted(made_counts()))
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor)
