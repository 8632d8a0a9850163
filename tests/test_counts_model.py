"""The counts objective: thinning, gradients, the empirical-Bayes step, weights, what training may not see, and disk."""

import re
import tracemalloc
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, optimize, sparse, stats

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute._umi import umi_like
from scautoimpute.errors import CheckpointError
from scautoimpute.model import checkpoint as checkpoint_module
from scautoimpute.model import counts_fit, counts_staging, thinning
from scautoimpute.model.checkpoint import Checkpoint
from scautoimpute.model.counts import CountsModel, build_network
from scautoimpute.model.counts_dense import dense_counts, dense_inputs, dense_loss, parted
from scautoimpute.model.counts_inputs import CountsEncoding, batch_frequencies
from scautoimpute.model.counts_network import Rows, Workspace, hidden_layer, log_shares, multinomial_loss, offsets
from scautoimpute.model.counts_steps import CountsData, dense_steps, recorded_step, sparse_steps
from scautoimpute.model.counts_training import CountsTraining, held_out_loss
from scautoimpute.model.dispersion import DispersionMoments, gamma_posterior
from scautoimpute.model.mixture import expert_weights
from scautoimpute.model.network import Autoencoder, initialise_small
from scautoimpute.model.settings import Settings
from scautoimpute.model.thinning import split_molecules, thin_values
from scautoimpute.model.training import TrainingPlan

pytestmark = pytest.mark.filterwarnings("ignore:training ended at max_epochs", "ignore:held-out ")
CPU = torch.device("cpu")


def made_counts(n_cells=60, n_genes=40, seed=0, depth=3.0):
    """Counts of three types of cells, an all-zero gene among them."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.5, 2, (3, n_genes)) * depth / 3
    x = rng.poisson(profile[np.arange(n_cells) % 3] * rng.uniform(0.5, 2, (n_cells, 1)))
    x[:, 5] = 0
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def counts():
    return made_counts()


@pytest.fixture(scope="module")
def trained(counts):
    return AutoImpute("counts", hidden=8, max_epochs=30, random_state=0).fit(counts)


# ------------------------------------------------------------------------------------------------- when it is over


@pytest.mark.parametrize(
    ("fall", "later", "ends_after"),
    [
        (0.1, 0.0004, 10),  # 0.002 in five steps, of 0.5 before
        (0.1, 0.0015, None),  # too little in each step, not in five
        (0.001, 0.00001, 10),  # a hundredth, but less than is told from chance
        (-0.1, -0.1, 5),
    ],
)
def test_training_ends_when_little_is_gained_of_what_was(fall, later, ends_after):
    """Five steps of one slope, then of another; five steps without progress are the end."""
    plan = TrainingPlan(learning_rate=0.1, batch_size=8, min_gain=1e-4, patience_epochs=5, patience_steps=(5, 5))
    training = CountsTraining(Autoencoder(3, 3, (2,)), plan, torch.Generator())
    training.begin(1.0)
    for error in 1 - np.cumsum([fall] * 5 + [later] * 60):
        training.step += 1
        training.add_epoch(0.5, float(error), 8)
        if training.record.converged:
            break
    assert (training.step if training.record.converged else None) == ends_after


# -------------------------------------------------------------------------------------------------------- thinning


def test_thinning_is_binomial():
    rng = np.random.default_rng(0)
    for value, share in ((1, 0.3), (7, 0.6), (12, 0.9), (13, 0.2), (400, 0.1)):
        drawn = thin_values(np.full(20_000, value), share, rng).astype(int)
        expected = stats.binom(value, share).pmf(np.arange(value + 1)) * 20_000
        common = expected > 5
        observed = np.bincount(drawn, minlength=value + 1)
        chi2 = ((observed - expected)[common] ** 2 / expected[common]).sum()
        assert stats.chi2(common.sum()).sf(chi2) > 1e-4, (value, share)


def test_thinning_takes_each_molecule_once(counts):
    x = sparse.csr_array(counts)
    stay, taken = split_molecules(x, 0.25, np.random.default_rng(1))
    np.testing.assert_array_equal((stay + taken).toarray(), counts)
    assert stay.data.min() >= 1
    assert taken.data.min() >= 1
    assert taken.sum() / x.sum() == pytest.approx(0.25, abs=0.02)
    assert thin_values(x.data, 1.0, np.random.default_rng(0)).tolist() == x.data.tolist()
    assert not thin_values(x.data, 0.0, np.random.default_rng(0)).any()


def test_thinning_takes_little_memory_and_blocks_do_not_show(monkeypatch):
    values_Z = np.random.default_rng(0).geometric(0.15, 500_000).astype(np.float32)
    tracemalloc.start()
    drawn = thin_values(values_Z, 0.3, np.random.default_rng(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 35e6  # all molecules at once take 45 MB
    monkeypatch.setattr(thinning, "VALUES_AT_A_TIME", 999)
    again = thin_values(values_Z, 0.3, np.random.default_rng(1))
    assert drawn.tobytes() == again.tobytes()


def test_thinning_takes_the_share_of_each_row(monkeypatch):
    values_Z = np.random.default_rng(0).geometric(0.15, 30_000).astype(np.float32)
    share_B, indptr = np.array([0.9, 0.5, 0.1, 0.3]), np.array([0, 10_000, 10_000, 25_000, 30_000])
    drawn = thin_values(values_Z, share_B, np.random.default_rng(1), indptr=indptr)
    for share, start, end in zip(share_B, indptr, indptr[1:], strict=False):
        if end > start:
            assert drawn[start:end].sum() / values_Z[start:end].sum() == pytest.approx(share, abs=0.01)
    monkeypatch.setattr(thinning, "VALUES_AT_A_TIME", 999)
    again = thin_values(values_Z, share_B, np.random.default_rng(1), indptr=indptr)
    assert drawn.tobytes() == again.tobytes()


# -------------------------------------------------------------------------------------------------- loss and gradients


@pytest.fixture
def layers():
    """Hidden layer, decoder and offset in float64-like precision, and counts with an empty row."""
    generator = torch.Generator().manual_seed(0)
    h_BH, weight_GH, offset = (torch.randn(s, generator=generator) for s in ((5, 3), (7, 3), (1, 7)))
    y = np.random.default_rng(0).poisson(0.8, (5, 7)).astype(np.float32)
    y[2] = 0
    return [t.requires_grad_() for t in (h_BH, weight_GH, offset)], y


def test_the_loss_is_that_of_a_loop(layers):
    (h, weight, offset), y = layers
    loss = multinomial_loss(h, weight, offset, Rows.of(sparse.csr_array(y), CPU))
    total = 0.0
    for row, counts in zip((h @ weight.T + offset).detach().double().numpy(), y, strict=True):
        share = np.exp(row) / np.exp(row).sum()
        total -= sum(n * np.log(p) for n, p in zip(counts, share, strict=True))
    assert loss.item() == pytest.approx(total / y.sum(), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_analytic_gradient_is_that_of_autograd(layers, rows):
    tensors, y = layers
    tensors[2] = tensors[2].detach().expand(rows, 7).clone().requires_grad_()
    h, weight, offset = tensors
    reference = -(torch.as_tensor(y) * torch.log_softmax(h @ weight.T + offset, 1)).sum() / y.sum()
    expected = torch.autograd.grad(reference * 1.7, tensors)
    loss = multinomial_loss(h, weight, offset, Rows.of(sparse.csr_array(y), CPU), workspace=Workspace())
    for found, wanted in zip(torch.autograd.grad(loss * 1.7, tensors), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_keep_the_loss(layers):
    (h, weight, offset), y = layers
    target = Rows.of(sparse.csr_array(y), CPU)
    exact, rounded = (
        multinomial_loss(h, weight, offset, target, dtype=dtype).item() for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact


@pytest.mark.parametrize("n_batches", [1, 3])
def test_the_sparse_layer_is_the_dense_one(counts, n_batches):
    x, batch_N = sparse.csr_array(counts), np.arange(60) % n_batches
    encoding = CountsEncoding.fit(x, batch_N)
    side = n_batches if n_batches > 1 else 0
    net = Autoencoder(40 + side, 40, (4, 3), activation="gelu", n_side=side)
    initialise_small(net, torch.Generator().manual_seed(0), encoder_sd=1.0)
    inputs = encoding.encode(x, batch_N)
    dense = torch.as_tensor(inputs.toarray()) - encoding.centre_I
    np.testing.assert_allclose(dense.mean(0).numpy(), 0, atol=1e-5)
    results = [hidden_layer(net, inputs, encoding.centre_I), net.embed(dense)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(r.square().sum(), net.layers[0].parameters()) for r in results]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_batches", [1, 3])
def test_dense_cells_have_the_inputs_and_the_loss_of_sparse_ones(counts, n_batches):
    x, batch_N = sparse.csr_array(counts, dtype="f4"), np.arange(60) % n_batches
    encoding = CountsEncoding.fit(x, batch_N)
    wanted = encoding.encode(x, batch_N).toarray() - encoding.centre_I.numpy()
    found = dense_inputs(dense_counts(x, CPU), torch.from_numpy(batch_N), encoding)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    seeded = torch.Generator().manual_seed(0)
    h_BH, weight_GH, offset_BG = (torch.randn(shape, generator=seeded) for shape in ((60, 5), (40, 5), (60, 40)))
    loss = dense_loss(h_BH, weight_GH, offset_BG, dense_counts(x, CPU), torch.float32)
    torch.testing.assert_close(loss, multinomial_loss(h_BH, weight_GH, offset_BG, Rows.of(x, CPU)))


def test_molecules_of_dense_cells_are_parted_by_a_share_of_each_cell():
    x_BG = torch.from_numpy(np.random.default_rng(0).poisson(50, (200, 100))).float()
    shown_BG, rest_BG = parted(x_BG, (0.3, 0.9), torch.Generator().manual_seed(0))
    torch.testing.assert_close(shown_BG + rest_BG, x_BG, rtol=0, atol=0)
    share_B1 = shown_BG.sum(1, keepdim=True) / x_BG.sum(1, keepdim=True)
    assert stats.kstest(share_B1.flatten(), stats.uniform(0.3, 0.6).cdf).pvalue > 0.01
    chi2_BG = (shown_BG / x_BG - share_B1).square() * x_BG / (share_B1 * (1 - share_B1))
    assert float(chi2_BG.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("n_batches", [1, 3])
def test_dense_cells_give_the_gradients_of_sparse_ones(counts, n_batches):
    x, batch_N = sparse.csr_array(counts, dtype="f4"), np.arange(60) % n_batches
    shown, hidden = split_molecules(x, 0.4, np.random.default_rng(0))
    encoding, batch_B = CountsEncoding.fit(x, batch_N), torch.from_numpy(batch_N)
    net = build_network(40, n_batches, (8, 5))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    h_BH = hidden_layer(net, encoding.encode(shown, batch_N), encoding.centre_I)
    of_sparse = multinomial_loss(h_BH, net.decoder.weight, offsets(net, encoding, batch_N), Rows.of(hidden, CPU))
    h_BH = hidden_layer(net, dense_inputs(dense_counts(shown, CPU), batch_B, encoding), encoding.centre_I)
    hidden_BG = dense_counts(hidden, CPU)
    of_dense = dense_loss(h_BH, net.decoder.weight, offsets(net, encoding, batch_B), hidden_BG, torch.float32)
    torch.testing.assert_close(of_dense, of_sparse)
    gradients = [torch.autograd.grad(loss, list(net.parameters())) for loss in (of_sparse, of_dense)]
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_dense_steps_learn_what_sparse_ones_do(counts):
    x, batch_N = sparse.csr_array(counts, dtype="f4"), np.zeros(60, dtype=int)
    data, gains = CountsData(x, batch_N, CountsEncoding.fit(x, batch_N), x, np.arange(60)), []
    for is_dense in (False, True):
        net = build_network(40, 1, (8,))
        initialise_small(net, torch.Generator().manual_seed(0), encoder_sd=0.1)
        plan = TrainingPlan(learning_rate=0.01, batch_size=20)
        training = CountsTraining(net, plan, torch.Generator().manual_seed(1))
        steps = partial(dense_steps, training, data, recorded_step(training, data))
        steps = steps if is_dense else partial(sparse_steps, training, data, Workspace())
        losses = [step.loss for step in steps(list(np.arange(60).reshape(3, 20)) * 60)]
        assert len(losses) == training.step == 180
        gains.append(held_out_loss(None, data) - held_out_loss(training.averaged, data))
    assert gains[0] > 0.02
    assert gains[1] == pytest.approx(gains[0], rel=0.2)


def test_inputs_are_log_normalised_in_the_genes_unit(counts):
    encoding = CountsEncoding.fit(sparse.csr_array(counts), np.zeros(60, dtype=int))
    library = counts.sum(1, keepdims=True)
    log = np.log1p(counts / library * np.median(library))
    expected = (log - log.mean(0)) * 3 / np.sqrt(40) / np.maximum(log.std(0), 0.15)
    found = encoding.encode(sparse.csr_array(counts), np.zeros(60, dtype=int)).toarray() - encoding.centre_I.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_untrained_network_gives_the_gene_frequencies(counts):
    x, batch_N = sparse.csr_array(counts), np.zeros(60, dtype=int)
    encoding = CountsEncoding.fit(x, batch_N)
    share_G = (counts.sum(0) + 0.05) / (counts.sum() + 0.05 * 40)
    shares = log_shares(torch.zeros(2, 3), torch.zeros(40, 3), encoding.log_frequency_KG).exp()
    np.testing.assert_allclose(shares.numpy(), [share_G] * 2, rtol=1e-5)
    data = CountsData(x, batch_N, encoding, x[:7], np.arange(7))
    assert held_out_loss(None, data) == pytest.approx(
        -(counts[:7] @ np.log(share_G)).sum() / counts[:7].sum(), rel=1e-5
    )


def test_batches_differ_by_as_much_as_the_data_warrant():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(30))
    batch_N = np.arange(80) % 2
    same = rng.multinomial(500, share, 80)
    other = np.where(batch_N[:, None], same, rng.multinomial(500, rng.dirichlet(np.ones(30)), 80))
    pooled = same.sum(0) / same.sum()
    alike, unlike = (batch_frequencies(sparse.csr_array(x.astype(float)), batch_N) for x in (same, other))
    raw = np.stack([x / x.sum() for x in (other[batch_N == 0].sum(0), other[batch_N == 1].sum(0))])
    np.testing.assert_allclose(alike.sum(1), 1)
    assert np.abs(alike - pooled).max() < np.abs(same[batch_N == 0].sum(0) / (40 * 500) - pooled).max() / 5
    np.testing.assert_allclose(unlike, raw, atol=2e-3)


# ------------------------------------------------------------------------------------------- empirical Bayes, mixture


@pytest.mark.parametrize(("x", "mu", "phi"), [(0, 0.4, 1.5), (3, 0.4, 1.5), (12, 5.0, 0.2)])
def test_the_posterior_is_that_of_numerical_integration(x, mu, phi):
    # Two genes, so that the sum to which the cell's rates are brought back is known
    prior = stats.gamma(1 / phi, scale=mu * phi)

    root = np.linspace(1e-6, 4, 40_000)  # of rates up to 64; its cube, because the density has a pole at zero
    density = stats.poisson(root**3).pmf(x) * prior.pdf(root**3) * 3 * root**2

    def moment(power):
        return integrate.simpson(root ** (3 * power) * density, x=root)

    mean = moment(1) / moment(0)
    variance = moment(2) / moment(0) - mean**2
    x_BG, mean_BG = torch.tensor([[float(x), 7.0]]), torch.tensor([[mu, 9.0]])
    found, spread = gamma_posterior(x_BG, mean_BG, mean_BG * torch.tensor([phi, 0.0]))
    back = (mu + 9.0) / (mean + 9.0)  # the rates of a cell sum to what was expected
    assert float(found[0, 0]) == pytest.approx(mean * back, rel=1e-4)
    own = phi * mu / (1 + phi * mu)
    assert variance == pytest.approx(mean * own, rel=1e-4)
    assert float(spread[0, 0]) == pytest.approx(mean * own * back, rel=1e-4)


def test_dispersions_by_moments():
    rng = np.random.default_rng(0)
    mean = np.full((20_000, 2), 2.0)
    x = rng.poisson(mean * np.stack([rng.gamma(2, 0.5, 20_000), np.ones(20_000)], 1))
    moments, by_double = DispersionMoments(2), DispersionMoments(2)
    for block in (slice(0, 7_000), slice(7_000, None)):
        x_BG, mean_BG = torch.as_tensor(x[block]).float(), torch.as_tensor(mean[block]).float()
        moments.add(x_BG, mean_BG, mean_BG)
        by_double.add(x_BG, mean_BG, 2 * mean_BG)
    np.testing.assert_allclose(moments.estimate(), [0.5, 1e-4], atol=0.03)
    assert by_double.estimate()[0] == pytest.approx(moments.estimate()[0] / 2)  # in units twice as large


def test_expert_weights_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    share, n = rng.dirichlet(np.ones(400), 3).T, rng.poisson(3, 400)

    def loss(w):
        return -(n @ np.log(share @ w)) / n.sum()

    best = optimize.minimize(
        lambda z: loss(np.exp(z) / np.exp(z).sum()), np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6}
    )
    weights = expert_weights(share, n)
    assert weights.sum() == pytest.approx(1)
    assert loss(weights) <= best.fun + 1e-6
    np.testing.assert_allclose(weights, np.exp(best.x) / np.exp(best.x).sum(), atol=0.01)


def test_the_sd_is_that_of_draws_from_the_mixture(trained, counts):
    mean, sd = trained.posterior(counts[:3])
    model, rng, x = trained.model_, np.random.default_rng(0), sparse.csr_array(counts[:3])
    experts = [(m.cpu().numpy(), v.cpu().numpy()) for m, v in model.experts(x, *[np.zeros(3, int)] * 2)]
    expected = [(m, np.broadcast_to(v, m.shape)) for m, v in experts]
    which = rng.choice(len(expected), size=40_000, p=model.weights_K)
    draws = np.empty((40_000, 3, 40))
    for expert, (m, v) in enumerate(expected):
        inside = which == expert
        if v.any():
            draws[inside] = rng.gamma(m**2 / v, v / m, size=(inside.sum(), *m.shape))
        else:
            draws[inside] = m
    np.testing.assert_allclose(mean, draws.mean(0), rtol=0.05, atol=0.01)
    np.testing.assert_allclose(sd, draws.std(0), rtol=0.08, atol=0.02)


def test_the_variance_of_large_counts_keeps_its_digits():
    model = SimpleNamespace(weights_K=[0.5, 0.0, 0.5])
    experts = [(torch.full((1, 1), mean), torch.ones(1, 1)) for mean in (30_000.0, 7.0, 30_001.0)]
    mean, variance = CountsModel._mixed(model, iter(experts), None, with_variance=True)
    assert (mean.item(), variance.item()) == (30_000.5, 1.25)


# ----------------------------------------------------------------------------------------------------------- the fit


def fitted(x, rng=3, folder=None, on_epoch=lambda *_: None, **chosen):
    settings = Settings.resolve(
        objective="counts", preset=None, **{"hidden": 6, "max_epochs": 25, "n_networks": 2} | chosen
    )
    return counts_fit.fit_counts(
        sparse.csr_array(x),
        np.zeros(len(x), dtype=int),
        settings,
        np.random.default_rng(rng),
        CPU,
        on_epoch=on_epoch,
        checkpoint=Checkpoint(folder),
    )


def weights_of(model):
    return [weights for network in model.networks for weights in network.state_dict().values()]


def test_cells_of_which_nothing_is_left_to_see_are_not_scored():
    """Of them no molecule is expected, so that each would add 2·ln 1e30 to the deviance of whatever is scored."""
    x, rng = made_counts(160), np.random.default_rng(0)
    x[80:] = 0
    x[np.arange(80, 160), rng.integers(6, 40, 80)] = 1
    scores = fitted(x, held_out_share=0.5)[1]
    deep = made_counts(160)[:80]
    assert scores["gene_mean"]["deviance"] < 1.5 * fitted(deep, held_out_share=0.5)[1]["gene_mean"]["deviance"]


def test_too_few_molecules_are_refused_in_a_line():
    one_each = np.eye(40)[np.arange(240) % 40]
    for x, part in (
        (made_counts(12, depth=0.2), "at least 200 are needed, of which a part is held out"),
        (one_each, "leave nothing to score on: no cell has both"),
    ):
        with pytest.raises(ValueError, match=part) as caught:
            AutoImpute("counts", hidden=4, max_epochs=2).fit(x)
        assert "\n" not in str(caught.value)


def test_held_out_molecules_are_never_seen_in_training(counts, monkeypatch):
    """Moving the weighing molecules to other genes changes weights and scores, and not a bit of the network."""
    split = counts_staging.split_molecules
    results = []
    for moved in (False, True):
        calls = []

        def parted(x, share, rng, moved=moved, calls=calls):
            stay, taken = split(x, share, rng)
            calls.append(share)
            if moved and len(calls) == 2:  # those that stay are for weighing
                stay = sparse.csr_array(stay.toarray()[:, ::-1])
            return stay, taken

        monkeypatch.setattr(counts_staging, "split_molecules", parted)
        results.append(fitted(counts))
        assert len(calls) == 2
    (one, scores, record), (other, moved_scores, moved_record) = results
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert str(record) == str(moved_record)  # NaN in both
    assert scores != moved_scores


def test_structure_is_found_and_the_mixture_is_no_worse_than_its_parts():
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, 4, (3, 60))[np.arange(200) % 3] * rng.uniform(0.5, 2, (200, 1))
    x = rng.poisson(rate).astype(np.float32)
    model = AutoImpute("counts", hidden=16, batch_size=32, random_state=0).fit(x)
    deviance = {name: score["deviance"] for name, score in model.held_out_.items() if name != "n"}
    assert deviance["model"] < min(deviance["gene_mean"], deviance["no_imputation"])
    assert deviance["model"] <= min(deviance.values()) + 0.02
    assert model.converged_
    assert sum(model.weights_.values()) == pytest.approx(1)
    names = [f"{name}{own}" for name in ("gene_frequencies", "network", "components") for own in ("", "_own_counts")]
    assert list(model.weights_) == names
    by_mean = x.sum(1, keepdims=True) * x.sum(0) / x.sum()
    error = {name: np.abs(v - rate).mean() for name, v in {"x": x, "mean": by_mean, "model": model.impute(x)}.items()}
    assert error["model"] < 0.5 * min(error["x"], error["mean"])


def test_no_structure_leaves_the_gene_frequencies():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(50))
    x = np.stack([rng.multinomial(n, share) for n in rng.integers(100, 400, 150)]).astype(np.float32)
    imputed = AutoImpute("counts", hidden=8, max_epochs=60, random_state=0).fit(x).impute(x)
    expected = x.sum(1, keepdims=True) * share
    assert np.corrcoef(imputed.ravel(), expected.ravel())[0, 1] > 0.98
    assert np.abs(imputed - expected).mean() < 0.25 * np.abs(x - expected).mean()


def test_what_comes_out(trained, counts):
    mean, sd = trained.posterior(counts)
    assert mean.dtype == sd.dtype == np.float32
    assert mean.shape == sd.shape == counts.shape
    np.testing.assert_allclose(mean.sum(1), counts.sum(1), rtol=1e-4)
    assert (mean > 0).all()
    assert (sd >= 0).all()
    assert trained.impute(counts).tobytes() == mean.tobytes()
    assert trained.embed(counts).shape == (60, 8)
    history = trained.history_
    assert history["held_out_loss"].notna().any()
    assert history.columns.tolist() == ["network", "fold", "epoch", "loss", "held_out_loss"]


def test_containers_give_the_same(trained, counts, array_type):
    assert trained.impute(array_type(counts)).tobytes() == trained.impute(counts).tobytes()


def test_cells_are_independent_of_each_other(trained, counts):
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(trained.impute(counts[order]), trained.impute(counts)[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained.impute(counts[:1]), trained.impute(counts)[:1], rtol=1e-5, atol=1e-6)


def test_an_all_zero_cell_stays_zero(counts):
    x = counts.copy()
    x[4] = 0
    mean, sd = AutoImpute("counts", hidden=4, max_epochs=3).fit(x).posterior(x)
    assert not mean[4].any()
    assert not sd[4].any()
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()


def test_the_same_seed_gives_the_same_bytes(counts):
    models = [AutoImpute("counts", hidden=4, max_epochs=5, random_state=seed).fit(counts) for seed in (1, 1, 2)]
    one, same, other = (m.impute(counts).tobytes() for m in models)
    assert one == same
    assert one != other


def test_permuted_genes_come_back_permuted(trained, counts):
    names = [f"gene{i}" for i in range(40)]
    frame = pd.DataFrame(counts, columns=names)
    model = AutoImpute("counts", hidden=4, max_epochs=3).fit(frame)
    assert model.impute(frame[names[::-1]]).tobytes() == model.impute(frame).tobytes()


# ----------------------------------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def two_batches():
    """Cells of three types in two batches; in the second, half of the genes are caught four times as often."""
    rng = np.random.default_rng(0)
    batch = np.array(["a", "b"] * 90)
    factor = np.where((batch == "b")[:, None] & (np.arange(40) < 20), 4.0, 1.0)
    profile = rng.gamma(0.7, 3, (3, 40))[np.arange(180) // 2 % 3]
    return rng.poisson(profile * factor).astype(np.float32), batch, profile, factor


def test_cells_are_imputed_for_their_own_batch_or_a_named_one(two_batches):
    x, batch, profile, _ = two_batches
    model = AutoImpute("counts", hidden=8, max_epochs=60, random_state=0).fit(x, batch=batch)
    assert model.batches_ == ["a", "b"]
    own, as_a = model.impute(x, batch=batch), model.impute(x, batch=batch, as_batch="a")
    in_a = batch == "a"
    assert own[in_a].tobytes() == as_a[in_a].tobytes()
    share = {name: v / v.sum(1, keepdims=True) for name, v in {"own": own, "as": as_a, "truth": profile}.items()}
    error = {name: np.abs(np.log(share[name][~in_a] / share["truth"][~in_a])).mean() for name in ("own", "as")}
    assert error["as"] < 0.6 * error["own"]
    assert model.embed(x, batch=batch).shape == (180, 8)
    np.testing.assert_allclose(as_a.sum(1), x.sum(1), rtol=1e-5)  # as many molecules, whatever the batch


BAD_BATCHES = {
    "one cell": (lambda b: np.where(np.arange(len(b)) == 3, "alone", b), "have a single cell (e.g. 'alone')"),
    "too few": (lambda b: b[:-1], "batch= has 179 labels, 0 of them missing, for 180 cells"),
    "missing": (lambda b: np.where(np.arange(len(b)) == 3, None, b.astype(object)), "1 of them missing"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_bad_batches_are_refused(two_batches, kind):
    change, said = BAD_BATCHES[kind]
    with pytest.raises(ValueError, match=re.escape(said)):
        AutoImpute("counts").fit(two_batches[0], batch=change(two_batches[1]))


def test_batches_of_a_trained_model(two_batches, tmp_path):
    x, batch, *_ = two_batches
    model = AutoImpute("counts", hidden=4, max_epochs=3).fit(x, batch=batch)
    for given, said in (
        ({}, "was trained on 2 batches (e.g. 'a')"),
        ({"batch": ["c"] * 180}, "knows no batch 'c'"),
        ({"batch": batch, "as_batch": "z"}, "knows no batch 'z'; it was trained on 'a', 'b'"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            model.impute(x, **given)
    model.save(tmp_path / "model")
    loaded = AutoImpute.load(tmp_path / "model")
    assert loaded.impute(x, batch=batch, as_batch="b").tobytes() == model.impute(x, batch=batch, as_batch="b").tobytes()
    without = AutoImpute("counts", hidden=4, max_epochs=3).fit(x)
    for given in ({"as_batch": "a"}, {"batch": batch}):
        with pytest.raises(ValueError, match="trained without batches"):
            without.impute(x, **given)
    assert without.impute(x, batch=["a"] * 180).tobytes() == without.impute(x).tobytes()
    with pytest.raises(ValueError, match="has no effect with objective='masked'"):
        AutoImpute().fit(np.log2(x + 1), batch=batch)


# ----------------------------------------------------------------------------------------------------- what is refused


REFUSED = {
    "logs": (np.log1p, "are not whole numbers .* so they are normalised or logged; .*objective='masked'"),
    "normalised": (lambda x: x / x.sum(1, keepdims=True) * 1e4, "are not whole numbers .*objective='masked'"),
    "negative": (lambda x: x - 1, "values are negative"),
    "NaN": (lambda x: np.where(x == 2, np.nan, x), "values are NaN"),
    "reads": (lambda x: np.rint(x * 157), r"a tenth of the counts above zero exceed .* so these are reads, .*masked"),
    "all zero": (lambda x: x * 0, "0 observed entries"),
    "one cell": (lambda x: x[:1], "at least 10 in 2 × 2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unfit_data_are_refused_in_one_line(kind):
    change, said = REFUSED[kind]
    with pytest.raises(ValueError, match=said) as raised:
        AutoImpute("counts").fit(change(made_counts(40, 300, depth=3)))
    assert "\n" not in str(raised.value)


def test_options_that_mean_nothing_are_refused(trained, counts):
    with pytest.raises(ValueError, match="keep_observed=True has no meaning"):
        trained.impute(counts, keep_observed=True)
    with pytest.raises(ValueError, match="preset='paper' is a form of the masked objective"):
        AutoImpute("counts", preset="paper")
    with pytest.raises(ValueError, match="n_folds=3 has no effect"):
        AutoImpute("counts", n_folds=3)
    with pytest.raises(ValueError, match="n_networks=3 has no effect with objective='masked'"):
        AutoImpute("masked", n_networks=3)
    with pytest.raises(ValueError, match="n_networks=21 is out of range"):
        AutoImpute("counts", n_networks=21)
    with pytest.raises(ValueError, match="posterior is for objective='counts'"):
        AutoImpute(hidden=3, max_epochs=2, n_folds=1).fit(np.log2(counts + 1)).posterior(counts)


SETS = {  # whether they are molecules
    "extra/pbmc3k": True,
    "extra/mixology_sc_celseq2": True,
    "extra/tung_NA19098": True,
    "paper/zeisel": True,
    "paper/pbmc68k_700x765": True,
    "paper/quake_darmanis": False,
    "paper/usoskin": False,
    "paper/kolodziejczyk": False,
    "paper/blakeley": False,
}


@pytest.mark.parametrize("name", SETS)
def test_molecules_are_told_from_reads(name, shared_data):
    import anndata

    verdict = umi_like(anndata.read_h5ad(shared_data / f"{name}.h5ad").X)
    assert bool(verdict) == SETS[name]
    assert not 30 < verdict.upper_decile < 300  # far from the limit


# ------------------------------------------------------------------------------------------------------ disk, resuming


def test_a_model_of_genes_that_cannot_be_told_apart_is_not_saved(counts, tmp_path):
    """It could not be read again: that is said before the training is lost."""
    frame = pd.DataFrame(counts, columns=[f"gene{i // 2}" for i in range(40)])
    model = AutoImpute("counts", hidden=4, max_epochs=2).fit(frame)
    with pytest.raises(ValueError, match=r"gene names repeat \(e\.g\. 'gene0'\)"):
        model.save(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_a_saved_model_gives_the_same_bytes(trained, counts, tmp_path):
    trained.save(tmp_path / "model")
    loaded = AutoImpute.load(tmp_path / "model")
    assert [a.tobytes() for a in loaded.posterior(counts)] == [a.tobytes() for a in trained.posterior(counts)]
    assert loaded.embed(counts).tobytes() == trained.embed(counts).tobytes()
    assert loaded.weights_ == trained.weights_
    assert loaded.held_out_ == trained.held_out_
    assert loaded.settings == trained.settings


class StoppedError(Exception):
    """What the test stops training with."""


def test_training_goes_on_to_the_same_bits(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(checkpoint_module, "LARGEST_SHARE", np.inf)
    whole, scores, record = fitted(counts)
    n_stops = 0

    def stop(name, record, seen=set()):  # noqa: B006 (each epoch stops once)
        if len(record.epochs) % 4 == 0 and (name, len(record.epochs)) not in seen:
            seen.add((name, len(record.epochs)))
            raise StoppedError

    while True:
        try:
            resumed, again, record_again = fitted(counts, folder=tmp_path, on_epoch=stop)
            break
        except StoppedError:
            n_stops += 1
    assert n_stops == 2 * 6
    assert again == scores
    assert str(record_again) == str(record)  # NaN in both
    for a, b in zip(weights_of(whole), weights_of(resumed), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_few_cells_have_several_networks_whose_shares_are_averaged(counts):
    """Each starts elsewhere; what they expect is the mean of what each by itself expects."""
    model, _, records = fitted(counts, n_networks=3)
    assert list(records) == ["network", "network2", "network3"]
    x, batch = sparse.csr_array(counts[:5].astype(np.float32)), np.zeros(5, dtype=int)
    each = [replace(model, networks=(network,)).shares(x, batch, batch)[1].numpy() for network in model.networks]
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(model.shares(x, batch, batch)[1].numpy(), np.mean(each, axis=0), rtol=1e-5)
    asked, by_cells = (Settings.resolve(objective="counts", preset=None, n_networks=n) for n in (2, None))
    assert [counts_fit.n_networks(n, by_cells) for n in (30, 2000, 2001)] == [3, 3, 1]
    assert counts_fit.n_networks(10**6, asked) == 2


def test_a_checkpoint_of_other_batches_is_refused(two_batches, tmp_path):
    x, batch, *_ = two_batches
    AutoImpute("counts", hidden=3, max_epochs=2).fit(x, batch=batch, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="batches was"):
        AutoImpute("counts", hidden=3, max_epochs=2).fit(x, batch=batch[::-1], checkpoint=tmp_path)


@pytest.mark.slow
def test_real_molecules_are_predicted_better_than_by_any_part():
    adata = sai.datasets.pbmc68k_reduced()
    model = AutoImpute("counts", random_state=0).fit(adata)
    deviance = {name: score["deviance"] for name, score in model.held_out_.items() if name != "n"}
    assert deviance["model"] == min(deviance.values())
    # Milli-nats per held-out molecule over the gene mean: the share of the objective that the network adds
    assert 500 * (deviance["gene_mean"] - deviance["model"]) > 335
