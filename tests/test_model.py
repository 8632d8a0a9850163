"""The parts of the default recipe: base, inputs, networks, training, mixture. Held-out entries never leak."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scautoimpute import AutoImpute, progress
from scautoimpute.model import masked
from scautoimpute.model.base import TwoWayBase, fit_base, fit_base_by
from scautoimpute.model.base_sums import BlockSums
from scautoimpute.model.counts_training import CountsTraining
from scautoimpute.model.epochs_bar import epochs_bar
from scautoimpute.model.inputs import Encoding, corrupt
from scautoimpute.model.masked import assign_folds, fit_masked, split_fold, split_held_out
from scautoimpute.model.mixture import mixture_weights
from scautoimpute.model.network import Autoencoder, initialise_small
from scautoimpute.model.settings import Settings
from scautoimpute.model.training import FoldData, HeldOut, Training, TrainingPlan, TrainingRecord, train_network

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25, deadline=None)
CPU = torch.device("cpu")


def additive(n_cells=200, n_genes=100, *, gene_sd=1.0, cell_sd=0.5, noise_sd=0.3, share=0.5, seed=0):
    """Observed entries of gene + cell effect + noise, and the two effects."""
    rng = np.random.default_rng(seed)
    gene, cell = rng.normal(6, gene_sd, n_genes), rng.normal(0, cell_sd, n_cells)
    x = gene + cell[:, None] + rng.normal(0, noise_sd, (n_cells, n_genes))
    return sparse.csr_array(np.where(rng.random(x.shape) < share, x, 0)), gene, cell


def structured(n_cells=60, n_genes=40, *, share=0.6, seed=0):
    """Entries that a low-rank model explains and gene + cell effects do not."""
    rng = np.random.default_rng(seed)
    x = 6 + rng.normal(size=(n_cells, 2)) @ rng.normal(size=(2, n_genes)) + rng.normal(0, 0.2, (n_cells, n_genes))
    return sparse.csr_array(np.where(rng.random(x.shape) < share, np.maximum(x, 0.1), 0).astype(np.float32))


def chosen(**values):
    return Settings.resolve(objective="masked", preset=None, **({"hidden": 8, "threshold": 1.0} | values))


# ----------------------------------------------------------------------------------------------------------------- base


def test_base_recovers_simulated_effects():
    x, gene, cell = additive()
    base = fit_base(x)
    effects = base.cell_effects(x)
    assert np.abs((base.gene_G - base.gene_G.mean()) - (gene - gene.mean())).max() < 4 * 0.3 / np.sqrt(60)
    assert np.abs((effects - effects.mean()) - (cell - cell.mean())).max() < 4 * 0.3 / np.sqrt(30)
    assert base.noise_sd == pytest.approx(0.3, rel=0.05)
    assert base.k_cell == pytest.approx(0.3**2 / 0.5**2, rel=0.3)  # noise variance over variance between cells


def test_what_is_expected_of_cells_averages_to_nothing_over_the_entries():
    rng = np.random.default_rng(2)
    detected = rng.random((80, 60)) < rng.uniform(0.1, 0.9, (80, 1))
    x = sparse.csr_array(np.where(detected, 4 + detected.mean(1, keepdims=True) + rng.normal(0, 0.2, (80, 60)), 0))
    base, n_observed = fit_base(x), np.diff(x.indptr).astype(float)
    assert base.cell_prior.slope > 0.1
    assert n_observed @ base.cell_prior(np.log(n_observed + 1)) / x.nnz == pytest.approx(0, abs=1e-10)


def test_base_is_exact_without_noise():
    x, gene, cell = additive(40, 30, noise_sd=0, share=0.8)
    truth = gene + cell[:, None]
    np.testing.assert_allclose(fit_base(x).predict(x), truth, atol=1e-2)
    assert np.abs(truth - truth.mean()).max() > 1


def test_without_noise_nothing_is_divided_by_almost_nothing():
    x = sparse.csr_array(np.ones((20, 9)) + np.arange(9) + np.arange(20)[:, None] % 4)
    assert fit_base(x).noise_sd == pytest.approx(1e-3 * x.data.std(), rel=0.1)
    assert fit_base_by(BlockSums(lambda: [x[:5], x[5:]], 9)).noise_sd == pytest.approx(fit_base(x).noise_sd)
    model = AutoImpute(hidden=16, n_folds=1, threshold=1.0, random_state=3).fit(x)
    assert model.history_["loss"].max() < 1e6
    np.testing.assert_allclose(model.impute(x, keep_observed=False), x.toarray(), atol=0.05)


def test_a_training_that_diverges_leaves_the_base():
    net = Autoencoder(6, 3, (4,))
    with torch.no_grad():
        next(net.parameters())[:2] = torch.tensor([[3e38], [torch.nan]])
    training = Training(net, TrainingPlan(learning_rate=1e-3, batch_size=2), torch.Generator())
    training.finish()
    assert (net(torch.randn(2, 6)) == 0).all()


def test_base_of_complete_data_is_the_closed_form():
    """Without missing entries every effect is its mean's deviation, shrunk by noise over variance between."""
    rng = np.random.default_rng(3)
    x = 5 + rng.normal(0, 0.4, 25) + rng.normal(0, 0.5, (40, 1)) + rng.normal(0, 1, (40, 25))
    base = fit_base(sparse.csr_array(x))
    noise = base.noise_sd**2

    def shrunk(deviations, n_behind):
        between = np.mean(deviations**2) - noise / n_behind
        return deviations * n_behind / (n_behind + noise / between), noise / between

    gene, _ = shrunk(x.mean(0) - x.mean(), 40)
    cell, k_cell = shrunk(x.mean(1) - x.mean(), 25)
    np.testing.assert_allclose(base.gene_G, x.mean() + gene, atol=1e-4)
    np.testing.assert_allclose(base.cell_effects(sparse.csr_array(x)), cell, atol=1e-4)
    assert base.k_cell == pytest.approx(k_cell, rel=1e-3)
    residual = x - x.mean() - gene - cell[:, None]
    assert noise == pytest.approx((residual**2).sum() / (x.size - 0.5 * (40 + 25)), rel=1e-3)


def test_cell_effects_of_new_cells_are_the_posterior_mean():
    base = fit_base(additive()[0])
    new = additive(15, seed=7)[0]
    for cell, effect in enumerate(base.cell_effects(new)):
        row = new[[cell]].tocoo()
        n, prior = row.nnz, base.cell_prior
        expected = prior.intercept + prior.slope * (np.log(n + 1) - prior.location) / prior.spread
        weight = n / (n + base.k_cell)
        mean = np.mean([value - base.gene_G[gene] for gene, value in zip(row.col, row.data, strict=True)])
        assert effect == pytest.approx(weight * mean + (1 - weight) * expected, rel=1e-10)
    np.testing.assert_allclose(base.predict(new), base.gene_G + base.cell_effects(new)[:, None])


@FEW
@given(seed=SEEDS)
def test_base_does_not_depend_on_the_order_of_cells_or_genes(seed):
    x = additive(20, 15, seed=1)[0]
    rng = np.random.default_rng(seed)
    cells, genes = rng.permutation(20), rng.permutation(15)
    shuffled = sparse.csr_array(x[cells][:, genes])
    np.testing.assert_allclose(
        fit_base(shuffled).predict(shuffled), fit_base(x).predict(x)[cells][:, genes], rtol=1e-9, atol=1e-9
    )


def detection_dependent(seed=0):
    """Genes of very different detection, whose level rises with the logarithm of it."""
    rng = np.random.default_rng(seed)
    detected = rng.random((150, 80)) < np.exp(rng.uniform(np.log(0.01), 0, size=80))
    level = 3 + 0.8 * np.log(detected.sum(0) + 1)
    return np.where(detected, level + rng.normal(0, 0.5, (150, 80)), 0)


def test_gene_without_observations_gets_what_is_expected_of_the_rarest():
    x = detection_dependent()
    x[:, 0] = 0
    base = fit_base(sparse.csr_array(x))
    rarest = np.argsort((x[:, 1:] > 0).sum(0))[:10] + 1
    assert base.gene_G[0] == pytest.approx(base.gene_G[rarest].mean(), abs=0.3)
    assert base.gene_G[0] < base.gene_G.mean() - 0.5


def test_nearly_empty_cells_are_not_extrapolated_to():
    x = detection_dependent().T
    x[0, 1:] = 0
    base = fit_base(sparse.csr_array(x[1:]))
    inside = base.cell_effects(sparse.csr_array(x[1:]))
    effect = base.cell_effects(sparse.csr_array(np.vstack([x[:1], np.zeros_like(x[:1])])))
    assert (effect >= inside.min() - 0.5).all()
    assert (effect <= inside.max() + 0.5).all()


def test_gene_seen_once_is_shrunk_to_what_its_rarity_predicts():
    x = detection_dependent()
    x[:, 0] = 0
    x[5, 0] = 12
    assert fit_base(sparse.csr_array(x)).gene_G[0] < 8
    x[:100, 0] = 12
    assert fit_base(sparse.csr_array(x)).gene_G[0] > 11


@pytest.mark.parametrize(
    "x",
    [
        np.full((1, 6), 3.0),
        np.array([[1.0, 2, 3, 4]]),
        np.full((7, 5), 2.0),
        np.array([[1.0], [2], [3]]),
        np.eye(4),
        np.array([[0.0, 0, 0], [0, 5, 0]]),
        np.vstack([np.zeros((2, 4)), np.arange(1.0, 9).reshape(2, 4)]),
    ],
    ids=["constant cell", "one cell", "constant", "one gene", "diagonal", "one entry", "empty cells"],
)
def test_base_of_degenerate_data_is_finite_and_within_reach(x):
    x = sparse.csr_array(x)
    prediction = fit_base(x).predict(x)
    assert prediction.shape == x.shape
    assert np.isfinite(prediction).all()
    assert prediction.min() >= x.data.min() - np.ptp(x.data) - 1e-6
    assert prediction.max() <= x.data.max() + np.ptp(x.data) + 1e-6


def test_base_survives_json():
    x = additive(30, 20)[0]
    base = fit_base(x)
    again = TwoWayBase.from_json(base.gene_G, base.to_json())
    assert again.to_json() == base.to_json()
    np.testing.assert_array_equal(again.predict(x), base.predict(x))


# --------------------------------------------------------------------------------------------------------------- inputs


@pytest.fixture(scope="module")
def encoding():
    x = structured()
    return Encoding.fit(x, fit_base(x))


@FEW
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 1e6]))
def test_what_is_not_kept_has_no_effect_on_the_encoding(encoding, seed, scale):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.uniform(0, 9, (7, 40)).astype(np.float32))
    observed = torch.tensor((rng.random((7, 40)) < 0.5).astype(np.float32))
    kept = observed * torch.tensor((rng.random((7, 40)) < 0.6).astype(np.float32))
    other = torch.where(kept == 1, x, torch.tensor(rng.normal(0, scale, (7, 40)).astype(np.float32)))
    share = torch.full((7, 1), 0.6)
    first, second = (encoding.encode(values, observed, kept, share) for values in (x, other))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name
    third = encoding.encode(x + kept, observed, kept, share)
    assert not torch.equal(first.input_BI, third.input_BI)  # what is kept does have an effect


def test_encoding_shows_residuals_and_the_mask_in_each_gene_s_unit(encoding):
    x = structured(seed=5)
    dense = x.toarray()
    encoded = encoding.encode(*(torch.tensor(m) for m in (dense, (dense > 0).astype("f4"), (dense > 0).astype("f4"))))
    base = encoding.base.predict(x)
    np.testing.assert_allclose(encoded.base_BG.numpy(), base, rtol=1e-5)
    residual, mask = np.split(encoded.input_BI.numpy(), 2, axis=1)
    expected = np.where(dense > 0, dense - base, 0) * encoding.residual_unit_G.numpy()
    np.testing.assert_allclose(residual, expected, atol=1e-5)
    detection = encoding.detection_G.numpy()
    np.testing.assert_allclose(mask, ((dense > 0) - detection) * encoding.detection_unit_G.numpy(), atol=1e-5)
    fitted = structured().toarray()
    np.testing.assert_allclose(detection, (fitted > 0).mean(0), rtol=1e-6)
    n_shown = (dense > 0).sum(1)
    np.testing.assert_allclose(
        encoded.side_BS[:, 1].numpy(), np.log(n_shown + 1) - np.log((fitted > 0).sum(1) + 1).mean(), atol=1e-5
    )


def test_what_reads_a_wide_layer_learns_more_slowly():
    net = Autoencoder(6, 5, (256, 64), n_side=2)
    rates = dict(zip((name for name, _ in net.named_parameters()), net.width_factors, strict=True))
    slow = {"encoder.1.weight": 0.5, "decoder.weight": 2.0}  # 128 over 256, and over 64
    assert rates == dict.fromkeys(rates, 1.0) | slow


@pytest.mark.parametrize("kind", [Training, CountsTraining])
def test_a_step_of_training_is_as_long_as_the_width_allows(kind):
    """The first one of AdamW, without decay, moves every weight by its rate."""
    net, generator = Autoencoder(6, 5, (256,)), torch.Generator().manual_seed(0)
    initialise_small(net, generator)
    before = [weights.detach().clone() for weights in net.weights]
    training = kind(net, TrainingPlan(learning_rate=1e-3, batch_size=4, weight_decay=0.0), generator)
    training.take_step(net(torch.randn(4, 6, generator=generator)).square().sum())
    moved = [float((now.detach() - was).abs().max()) for now, was in zip(net.weights, before, strict=True)]
    assert moved == pytest.approx([1e-3, 0.5e-3], rel=1e-3)


def test_corruption_shows_a_share_of_what_was_observed():
    generator = torch.Generator().manual_seed(0)
    observed = (torch.rand(400, 500, generator=generator) < 0.5).float()
    kept, keep = corrupt(observed, generator, low=0.1, high=0.9)
    assert torch.all(kept <= observed)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert keep.shape == (400, 1)
    assert 0.1 <= keep.min() < 0.12
    assert 0.88 < keep.max() <= 0.9
    share = kept.sum(1) / observed.sum(1)
    assert (share - keep[:, 0]).abs().max() < 0.15  # 4.5 standard deviations at 250 entries
    assert float((share - keep[:, 0]).mean().abs()) < 0.01
    assert not torch.equal(corrupt(observed, generator, low=0.1, high=0.9)[0], kept)  # anew every time


# ---------------------------------------------------------------------------------------------------------------- folds


@FEW
@given(
    seed=SEEDS,
    n_folds=st.integers(1, 5),
    share=st.floats(0.02, 0.18),
    n_cells=st.integers(4, 15),
    n_genes=st.integers(4, 15),
)
def test_folds_hide_disjoint_shares_and_store_nothing_hidden(seed, n_folds, share, n_cells, n_genes):
    rng = np.random.default_rng(seed)
    x = sparse.csr_array(np.where(rng.random((n_cells, n_genes)) < 0.7, rng.uniform(1, 5, (n_cells, n_genes)), 0))
    size = max(2, round(share * x.nnz))
    if size * n_folds > x.nnz:
        return
    assigned = assign_folds(x.nnz, chosen(n_folds=n_folds, held_out_share=share), rng)
    assert sorted(set(assigned)) == sorted({*range(n_folds), *([-1] if size * n_folds < x.nnz else [])})
    assert [int((assigned == fold).sum()) for fold in range(n_folds)] == [size] * n_folds
    dense = x.toarray()
    for fold in range(n_folds):
        seen, hidden = split_fold(x, assigned == fold)
        assert seen.nnz + len(hidden.rows) == x.nnz
        assert np.all(seen.data > 0)  # nothing hidden is stored, not even as a zero
        assert np.all(seen.toarray()[hidden.rows, hidden.columns] == 0)
        np.testing.assert_array_equal(dense[hidden.rows, hidden.columns], hidden.values)
        rebuilt = seen.toarray()
        rebuilt[hidden.rows, hidden.columns] = hidden.values
        np.testing.assert_array_equal(rebuilt, dense)
        halves = split_held_out(hidden, rng)
        places = [set(zip(half.rows.tolist(), half.columns.tolist(), strict=True)) for half in halves]
        assert not places[0] & places[1]
        assert places[0] | places[1] == set(zip(hidden.rows.tolist(), hidden.columns.tolist(), strict=True))
        assert abs(len(places[0]) - len(places[1])) <= 1
        for half in halves:
            np.testing.assert_array_equal(dense[half.rows, half.columns], half.values)


def fit_quietly(x, options, seed=0):
    """Model, held-out prediction, and the loss of every epoch by network and fold."""
    losses = {}

    def on_epoch(network, fold, record):
        losses[network, fold] = [epoch["loss"] for epoch in record.epochs]

    model, prediction = fit_masked(x, options, np.random.default_rng(seed), CPU, on_epoch=on_epoch)
    return model, prediction, losses


def test_values_of_hidden_entries_never_reach_training(monkeypatch):
    x, hidden_of = structured(), []
    original = masked.split_fold

    def remembering(matrix, hidden_Z):
        hidden_of.append(hidden_Z)
        return original(matrix, hidden_Z)

    monkeypatch.setattr(masked, "split_fold", remembering)
    options = chosen(n_folds=2, max_epochs=6)
    first, prediction, losses = fit_quietly(x, options)
    changed = x.copy()
    changed.data[hidden_of[0]] += 4  # what fold 0 does not see and fold 1 does
    second, _, losses_after = fit_quietly(changed, options)
    np.testing.assert_array_equal(hidden_of[2], hidden_of[0])
    encodings = [(a.encoding, b.encoding) for a, b in zip(first.folds, second.folds, strict=True)]
    same = [
        all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        and a.base.to_json() == b.base.to_json()
        and np.array_equal(a.base.gene_G, b.base.gene_G)
        for a, b in encodings
    ]
    assert same == [True, False]
    for network, fold in losses:
        pairs = list(zip(losses[network, fold], losses_after[network, fold], strict=False))
        assert len(pairs) > 1
        assert all(a == b for a, b in pairs) == (fold == 0)
    for held_out, visible in zip(prediction.scoring, prediction.visible, strict=True):
        assert np.all(visible.toarray()[held_out.rows, held_out.columns] == 0)


def test_recipe_finds_structure_and_reports_it_at_entries_it_did_not_see():
    x = structured(120, 60, share=0.7)
    model, prediction, _ = fit_quietly(x, chosen(n_folds=2, hidden=32))
    base_error, model_error = (
        np.sqrt(np.mean((p - prediction.truth_V) ** 2)) for p in (prediction.base_V, prediction.model_V)
    )
    assert model_error < 0.6 * base_error
    assert 0 < model.weights_K.sum() <= 1 + 1e-9
    dense = x.toarray()
    truth = np.concatenate([dense[h.rows, h.columns] for h in prediction.scoring])
    np.testing.assert_array_equal(prediction.truth_V, truth)
    bases = [
        fit_base(v).predict(v)[h.rows, h.columns] for h, v in zip(prediction.scoring, prediction.visible, strict=True)
    ]
    np.testing.assert_allclose(prediction.base_V, np.concatenate(bases), rtol=1e-5)


def test_prediction_is_base_plus_weighted_mean_correction():
    x = structured()
    model, _, _ = fit_quietly(x, chosen(n_folds=2, max_epochs=5))
    model = dataclasses.replace(model, weights_K=np.array([0.5, 0.25]))
    dense = torch.tensor(x.toarray())
    expected = fit_base(x).predict(x)
    for fold in model.folds:
        _, corrections = fold.corrections(dense, (dense > 0).float())
        expected += 0.5 / 2 * corrections[0].numpy() + 0.25 / 2 * corrections[1].numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)
    nothing = dataclasses.replace(model, weights_K=np.zeros(2))
    np.testing.assert_allclose(nothing.predict(x), fit_base(x).predict(x), rtol=1e-6)


def fold_data(x, stopping):
    return FoldData(torch.tensor(x.toarray()), Encoding.fit(x, fit_base(x)), stopping)


def trained(data, **plan):
    net = Autoencoder(80, 40, (8,), n_side=2)
    initialise_small(net, torch.Generator().manual_seed(0))
    plan = TrainingPlan(**({"learning_rate": 1e-2, "batch_size": 16, "max_epochs": 8} | plan))
    *_, record = train_network(Training(net, plan, torch.Generator().manual_seed(1)), data)
    return net, record


@pytest.mark.parametrize(("gains_add_up", "at_last_gain"), [(False, 1), (True, 4)])
def test_small_falls_of_the_error_add_up_where_asked(gains_add_up, at_last_gain):
    plan = TrainingPlan(learning_rate=1e-2, batch_size=16, min_gain=0.01, gains_add_up=gains_add_up)
    training = Training(Autoencoder(80, 40, (8,), n_side=2), plan, torch.Generator())
    training.begin(1.0)
    for error in (0.98, 0.976, 0.973, 0.970, 0.968):  # the first falls by 1 % at once, the three after it together
        training.step += 1
        training.add_epoch(0.5, error, 16)
    assert training.last_gain == at_last_gain
    assert training.best_error == 0.968


def test_network_that_cannot_help_ends_as_the_base():
    x = structured()
    rows, columns = (where[:30] for where in np.nonzero(x.toarray() == 0))
    base = fit_base(x).predict(x)[rows, columns].astype(np.float32)  # nothing is left to explain
    data = fold_data(x, HeldOut(rows, columns, base))
    net, record = trained(data)
    encoded = data.encoding.encode(data.visible_NG, *2 * [(data.visible_NG > 0).float()])
    assert torch.equal(net(encoded.input_BI, encoded.side_BS), torch.zeros(60, 40))
    assert record.best_epoch == 0
    assert len(record.epochs) >= 1


def test_training_ends_with_the_weights_of_the_best_epoch():
    seen, hidden = split_fold(structured(), np.random.default_rng(0).random(structured().nnz) < 0.2)
    data = fold_data(seen, hidden)
    net, record = trained(data, max_epochs=60, learning_rate=3e-2)
    encoded = data.encoding.encode(data.visible_NG, *2 * [(data.visible_NG > 0).float()])
    y = (encoded.base_BG + net(encoded.input_BI, encoded.side_BS)).detach().numpy()
    error = np.sqrt(np.mean((y[hidden.rows, hidden.columns] - hidden.values) ** 2))
    errors = [epoch["held_out_rmse"] for epoch in record.epochs]
    assert error == pytest.approx(min(errors), rel=1e-4)
    assert record.epochs[record.best_epoch - 1]["held_out_rmse"] == min(errors)
    base = encoded.base_BG.numpy()[hidden.rows, hidden.columns]
    assert error < 0.9 * np.sqrt(np.mean((base - hidden.values) ** 2))


@pytest.mark.parametrize("every", [1, 3])
def test_the_averaged_weights_are_those_of_a_loop(every):
    plan = TrainingPlan(learning_rate=0.01, batch_size=4, averaging=0.8, average_every=every)
    training = Training(Autoencoder(4, 2, (3,)), plan, torch.Generator())
    mean = training.net.decoder.weight.detach().clone()
    for step in range(1, 25):
        with torch.no_grad():
            training.net.decoder.weight.fill_(float(step % 7))
        training.count_step()
        if step % every == 0:
            fading = min(0.8**every, 1 - 1 / (step // every + 1))
            mean = fading * mean + (1 - fading) * float(step % 7)
    torch.testing.assert_close(training.averaged.decoder.weight.detach(), mean)


# -------------------------------------------------------------------------------------------------------------- mixture


@FEW
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_mixture_is_as_good_as_a_grid_search(seed, scale):
    rng = np.random.default_rng(seed)
    corrections = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 2)) * scale
    residual = corrections @ rng.uniform(-0.5, 1.2, 2) + rng.normal(0, 0.5 * scale, 60)
    weights = mixture_weights(corrections, residual)
    assert np.all(weights >= 0)
    assert weights.sum() <= 1 + 1e-12

    def error(w):
        return np.mean((residual - corrections @ w) ** 2)

    grid = np.linspace(0, 1, 101)
    best = min(error(np.array([a, b])) for a in grid for b in grid if a + b <= 1 + 1e-9)
    assert error(weights) <= best + 2e-3 * np.mean(corrections**2)  # the ridge costs this much at most
    assert error(weights) <= error(np.zeros(2)) + 1e-9 * scale**2


def test_mixture_gives_all_to_the_truth_and_nothing_to_what_harms():
    rng = np.random.default_rng(0)
    residual, noise = rng.normal(size=500), rng.normal(size=500)
    np.testing.assert_allclose(mixture_weights(np.stack([residual, noise], 1), residual), [1, 0], atol=0.01)
    np.testing.assert_allclose(mixture_weights(np.stack([residual, -residual], 1), residual), [1, 0], atol=0.01)
    harmful = np.stack([-residual, -residual + 0.1 * noise], 1)
    np.testing.assert_allclose(mixture_weights(harmful, residual), [0, 0], atol=1e-6)
    np.testing.assert_allclose(mixture_weights(np.zeros((500, 2)), residual), [0, 0], atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("hidden", [(5,), (6, 4), (7, 3, 5)], ids=str)
@pytest.mark.parametrize("activation", ["sigmoid", "centred_sigmoid"])
def test_network_equals_numpy(hidden, activation):
    torch.manual_seed(0)
    net = Autoencoder(9, 4, hidden, activation=activation, n_side=2).double()
    x, side = np.random.default_rng(0).normal(size=(11, 9)), np.random.default_rng(1).normal(size=(11, 2))
    phi = {
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "centred_sigmoid": lambda z: 0.5 * np.tanh(z / 2),
        "linear": lambda z: z,
    }[activation]
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    h = x
    for layer in range(len(hidden)):
        h = phi(h @ state[f"encoder.{layer}.weight"].T + state[f"encoder.{layer}.bias"])
    expected = h @ state["decoder.weight"].T + state["decoder.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(net.embed(torch.tensor(x)).numpy(), h, rtol=1e-12)
        np.testing.assert_allclose(net(torch.tensor(x)).numpy(), expected, rtol=1e-10)
        with_side = net(torch.tensor(x), torch.tensor(side)).numpy()
    np.testing.assert_allclose(with_side, expected + side @ state["side.weight"].T, rtol=1e-10)
    assert [tuple(w.shape) for w in net.weights] == [(b, a) for a, b in zip((9, *hidden), (*hidden, 4), strict=True)]


def test_permuting_cells_permutes_the_output():
    net = Autoencoder(9, 4, (5,), decoder_bias=False).double()
    assert net.decoder.bias is None
    x, order = torch.rand(20, 9, dtype=torch.float64), torch.randperm(20)
    torch.testing.assert_close(net(x[order]), net(x)[order], rtol=1e-12, atol=1e-12)


def test_small_start_is_small_and_begins_at_nothing():
    net = Autoencoder(2000, 1000, (64, 32), n_side=2)
    initialise_small(net, torch.Generator().manual_seed(0), encoder_sd=0.05)
    first, second = net.layers
    assert float(first.weight.detach().std()) == pytest.approx(0.05, rel=0.02)
    assert float(second.weight.detach().std()) == pytest.approx(1 / 8, rel=0.1)
    assert float(net.decoder.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not any(p.detach().any() for p in (first.bias, second.bias, net.decoder.bias, net.side.weight))


def test_the_bar_is_as_long_as_trainings_are_thought_to_take():
    records = [TrainingRecord() for _ in range(3)]
    plan = TrainingPlan(learning_rate=0.01, batch_size=10, max_epochs=50)
    with progress.no_progress(), epochs_bar(3, plan, 100, n_steps=200) as bar:
        assert bar.expected == 60  # nothing is known but what is usual: 20 epochs each
        for record, n_epochs in zip(records, (10, 30, 50), strict=True):
            record.epochs += [{}] * n_epochs
        bar.show("a", records[0])
        assert bar.expected == 60
        records[0].converged = True
        bar.show("a", records[0])
        assert bar.expected == 30  # the others as long as the one that has ended
        bar.show("b", records[1])
        assert bar.expected == pytest.approx(10 + 33 + 10)  # one goes on beyond that
        records[1].left_behind = True
        bar.show("c", records[2])
        assert bar.expected == 90  # the third has had all that it may have
