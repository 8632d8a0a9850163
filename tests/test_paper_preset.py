"""`preset="paper"`: held step by step to trajectories that the original program stored."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from scautoimpute import AutoImpute
from scautoimpute.metrics import recovery_scores
from scautoimpute.model.network import Autoencoder, initialise_normal
from scautoimpute.model.objectives import masked_squared_error, weight_penalty
from scautoimpute.model.optimizer import TFRMSProp, make_optimizer
from scautoimpute.model.paper import PaperModel, train_paper
from scautoimpute.model.settings import Settings

RUNS = ("full", "masked")
STORED_STEPS = (1, 2, 10, 50, 100)
# What TensorFlow calls them, and where torch keeps them
NAMES = {"E": "encoder.0.weight", "bE": "encoder.0.bias", "D": "decoder.weight", "bD": "decoder.bias"}


def stored(golden, run):
    with np.load(golden / f"autoimpute_trajectory_{run}.npz") as file:
        return {name: file[name] for name in file.files}


def start(run, dtype):
    """Network at the stored initial weights, its optimiser, and the data."""
    net = Autoencoder(60, 60, (40,)).to(dtype)
    weights = {name: torch.tensor(run[f"{short}0"].T.copy(), dtype=dtype) for short, name in NAMES.items()}
    net.load_state_dict(weights)
    optimizer = TFRMSProp(
        net.parameters(), float(run["lr_f32"]), decay=float(run["decay_f32"]), epsilon=float(run["epsilon_f32"])
    )
    return net, optimizer, torch.tensor(run["X"], dtype=dtype)


def weights_of(net):
    parameters = dict(net.named_parameters())
    return {short: parameters[name].detach().numpy().T.copy() for short, name in NAMES.items()}


def follow(run, dtype, *, n_steps=300):
    """Loss and penalty before every step, weights after some, and the reconstruction after the last."""
    net, optimizer, x = start(run, dtype)
    losses, penalties, weights, gradient = [], [float(weight_penalty(net.weights, 1.0).detach())], {}, None
    for step, (loss, _) in enumerate(train_paper(net, x, optimizer, threshold=0, max_steps=n_steps), start=1):
        losses.append(loss)
        penalties.append(float(weight_penalty(net.weights, 1.0).detach()))
        if step == 1:
            gradient = {
                s: p.grad.numpy().T.copy() for s, n in NAMES.items() for k, p in net.named_parameters() if k == n
            }
        if step in STORED_STEPS:
            weights[step] = weights_of(net)
    return {
        "loss": np.array(losses),
        "total": np.array(losses) + np.array(penalties[:-1]),
        "weights": weights,
        "gradient": gradient,
        "imputed": net(x).detach().numpy(),
        "final": weights_of(net),
    }


@pytest.fixture(scope="module", params=RUNS)
def run(request, golden):
    return stored(golden, request.param)


@pytest.fixture(scope="module")
def single(run):
    return follow(run, torch.float32)


@pytest.fixture(scope="module")
def double(run):
    return follow(run, torch.float64)


# --------------------------------------------------------------------------------------------------------- trajectories


def test_double_precision_follows_the_original(run, double):
    assert len(double["loss"]) == 300
    np.testing.assert_allclose(double["loss"], run["data_loss_f64"], rtol=1e-12)
    np.testing.assert_allclose(double["total"], run["total_loss_f64"], rtol=1e-9)
    np.testing.assert_allclose(double["imputed"], run["imputed_f64"], atol=1e-10, rtol=0)
    for name, tolerance in {"D": 1e-10, "bE": 1e-10, "bD": 1e-10, "E": 1e-4}.items():  # E: saturated units, noisy sign
        np.testing.assert_allclose(double["final"][name], run[f"{name}_f64"], atol=tolerance, rtol=0)


def test_single_precision_follows_the_original(run, single):
    np.testing.assert_allclose(single["loss"][:100], run["data_loss"][:100], rtol=1e-6)
    np.testing.assert_allclose(single["loss"], run["data_loss"], rtol=5e-4)
    np.testing.assert_allclose(single["total"], run["total_loss"], rtol=5e-4)
    np.testing.assert_allclose(single["imputed"], run["imputed"], atol=2e-2, rtol=0)


def test_loss_per_cell_is_what_the_script_printed(run, single):
    np.testing.assert_allclose(single["loss"] / 30, run["script_loss_per_cell"], rtol=5e-4)


def test_first_gradient_is_the_original_s(run, single):
    for name, gradient in single["gradient"].items():
        expected = run[f"grad0_{name}"]
        np.testing.assert_allclose(gradient, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("step", STORED_STEPS)
def test_weights_after_each_stored_step(run, single, step):
    # Rounding grows with the steps, most in E, whose saturated sigmoids have gradients of about 1e-10
    tolerance = {1: 1e-6, 2: 1e-6, 10: 5e-6, 50: 2e-5, 100: 5e-4}[step]
    for name, weights in single["weights"][step].items():
        expected = run[f"step{step}_{name}"]
        np.testing.assert_allclose(weights, expected, atol=tolerance, rtol=0)
        assert np.abs(weights - run[f"{name}0"]).max() > 0.5e-3  # it has moved by about the learning rate


def test_masked_entries_score_as_the_script_printed(golden):
    run = stored(golden, "masked")
    rows, columns, truth = run["mask_i"], run["mask_j"], run["mask_truth"]
    assert np.all(run["X"][rows, columns] == 0)
    np.testing.assert_array_equal(run["X_unmasked"][rows, columns], truth)
    scores = recovery_scores(truth, follow(run, torch.float32)["imputed"][rows, columns])
    assert scores == pytest.approx({name: float(run[name]) for name in ("rmse", "mae", "nmse")}, rel=1e-4)


def test_stop_rule_stops_where_the_original_did(golden):
    run, stop = stored(golden, "full"), stored(golden, "stop")
    net, optimizer, x = start(run, torch.float32)
    steps = list(train_paper(net, x, optimizer, threshold=float(stop["threshold"])))
    assert len(steps) == stop["stop_iteration"] == 120
    assert [converged for _, converged in steps] == [False] * 119 + [True]
    np.testing.assert_allclose([loss for loss, _ in steps[:-1]], stop["script_data_loss"], rtol=2e-6)
    np.testing.assert_allclose(net(x).detach().numpy(), stop["imputed"], atol=1e-3, rtol=0)  # last update applied


@pytest.mark.parametrize(("case", "epsilon"), [("default", 1e-10), ("bigeps", 0.5)])
def test_rmsprop_equals_tensorflow_s(golden, case, epsilon):
    with np.load(golden / "autoimpute_rmsprop_unit.npz") as file:
        gradient, values, squares = file["grad"], file[f"{case}_var"], file[f"{case}_rms"]
        lr, stored_epsilon = float(file["lr"]), float(file["bigeps_epsilon"])
    assert epsilon in {1e-10, stored_epsilon}
    parameter = torch.nn.Parameter(torch.zeros(7))
    optimizer = TFRMSProp([parameter], lr, epsilon=epsilon)
    for value, square in zip(values, squares, strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(optimizer.state[parameter]["square"].numpy(), square, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ no stored files


@pytest.mark.parametrize("epsilon", [1e-10, 0.5])
def test_rmsprop_equals_a_loop(epsilon):
    rng = np.random.default_rng(0)
    value, square = rng.normal(size=(4, 3)), np.ones((4, 3))
    parameter = torch.nn.Parameter(torch.tensor(value))
    optimizer = TFRMSProp([parameter], 0.05, decay=0.8, epsilon=epsilon)
    for _ in range(20):
        gradient = rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-4, 3, size=(4, 3))
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        for i, j in np.ndindex(4, 3):
            square[i, j] = 0.8 * square[i, j] + 0.2 * gradient[i, j] ** 2
            value[i, j] -= 0.05 * gradient[i, j] / np.sqrt(square[i, j] + epsilon)
    np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)


def test_rmsprop_leaves_parameters_without_gradient_alone():
    moved, still = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = TFRMSProp([moved, still], 0.1)
    moved.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(3))
    assert torch.all(moved < 1)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_named_optimizers_are_what_they_are_called():
    parameters = list(Autoencoder(5, 5, (3,)).parameters())
    assert isinstance(make_optimizer("tf_rmsprop", parameters, lr=0.1), TFRMSProp)
    assert isinstance(make_optimizer("rmsprop", parameters, lr=0.1), torch.optim.RMSprop)


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "tf_rmsprop"])
def test_parameters_have_rates_of_their_own(name):
    """Two with one factor each are updated as by two optimisers of these rates."""
    factors, gradient = (1.0, 0.25), torch.tensor([[0.3, -2.0], [1.0, 0.1]])
    together = [torch.nn.Parameter(torch.ones(2, 2)) for _ in factors]
    apart = [torch.nn.Parameter(torch.ones(2, 2)) for _ in factors]
    optimizers = [make_optimizer(name, together, lr=0.1, relative_rates=factors)]
    optimizers += [make_optimizer(name, [p], lr=0.1 * factor) for p, factor in zip(apart, factors, strict=True)]
    for _ in range(3):
        for parameter in (*together, *apart):
            parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(together, apart, strict=True))
    assert not torch.equal(*together)


def test_weights_decay_alike_whatever_their_rates():
    slow, fast = parameters = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    optimizer = make_optimizer("adamw", parameters, lr=0.1, weight_decay=0.3, relative_rates=(0.25, 4.0))
    for parameter in parameters:
        parameter.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(slow.detach(), torch.full((2, 2), 0.97))
    torch.testing.assert_close(fast.detach(), slow.detach())


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("gradient_is_transposed", [False, True])
def test_adamw_is_torchs_whatever_the_order_in_memory(is_transposed, gradient_is_transposed):
    generator = torch.Generator().manual_seed(0)
    matrix, vector, *gradients = (
        torch.randn(shape, generator=generator) for shape in ((70, 90), (90,), *[(70, 90)] * 3)
    )
    ours, theirs = ([torch.nn.Parameter(matrix.clone()), torch.nn.Parameter(vector.clone())] for _ in range(2))
    still = torch.nn.Parameter(vector.clone())  # has no gradient
    if is_transposed:
        ours[0].data = ours[0].data.t().contiguous().t()
    adamw = make_optimizer("adamw", [*ours, still], lr=0.1, weight_decay=0.3)
    groups = [{"params": theirs[:1], "weight_decay": 0.3}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.1, foreach=False, fused=False)
    for gradient in gradients:
        ours[0].grad = gradient.t().contiguous().t() if gradient_is_transposed else gradient.clone()
        theirs[0].grad = gradient.clone()
        ours[1].grad, theirs[1].grad = gradient[0].clone(), gradient[0].clone()
        adamw.step()
        reference.step()
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(still.detach(), vector)
    adamw.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


def test_training_does_not_import_the_compiler_of_torch():
    """Which takes a second."""
    code = (
        "import sys, numpy as np, scautoimpute as sai\n"
        "x = np.random.default_rng(0).poisson(1.0, (40, 20)).astype(np.float32)\n"
        "for objective in ('counts', 'masked'):\n"
        "    sai.AutoImpute(objective, hidden=4, max_epochs=2, random_state=0).fit(x)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def loop_loss(x, observed, encoder, b_encoder, decoder, b_decoder, l2):
    """Eq. 8 one entry at a time."""
    total = 0.0
    for i, j in zip(*np.nonzero(observed), strict=True):
        hidden = [1 / (1 + np.exp(-(row @ x[i] + b))) for row, b in zip(encoder, b_encoder, strict=True)]
        total += (x[i, j] - (decoder[j] @ np.array(hidden) + b_decoder[j])) ** 2
    return total + l2 / 2 * (sum(e**2 for e in encoder.flat) + sum(d**2 for d in decoder.flat))


def test_loss_of_eq_8_and_its_gradient_equal_a_loop():
    rng = np.random.default_rng(1)
    observed = rng.random((5, 7)) < 0.6
    x = np.where(observed, rng.uniform(1, 4, size=(5, 7)), 0)
    parameters = [rng.normal(size=s) for s in ((3, 7), 3, (7, 3), 7)]
    net = Autoencoder(7, 7, (3,)).double()
    net.load_state_dict(dict(zip(NAMES.values(), map(torch.tensor, parameters), strict=True)))
    x_NG = torch.tensor(x)
    loss = masked_squared_error(x_NG, net(x_NG), torch.tensor(observed).double()) + weight_penalty(net.weights, 1.7)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(loop_loss(x, observed, *parameters, 1.7), rel=1e-12)
    for index, parameter in enumerate(net.state_dict(keep_vars=True)[name] for name in NAMES.values()):
        for where in np.ndindex(parameters[index].shape):
            ends = []
            for shift in (1e-5, -1e-5):
                moved = [p.copy() for p in parameters]
                moved[index][where] += shift
                ends.append(loop_loss(x, observed, *moved, 1.7))
            assert float(parameter.grad[where]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_a_gene_that_nobody_shows_gets_no_gradient_from_the_data():
    x = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 1.0]])
    net = Autoencoder(3, 3, (4,))
    masked_squared_error(x, net(x), (x != 0).float()).backward()
    assert torch.equal(net.decoder.weight.grad[1], torch.zeros(4))
    assert float(net.decoder.bias.grad[1]) == 0
    assert float(net.decoder.bias.grad[0]) != 0


def test_first_change_is_measured_from_zero():
    x = torch.tensor([[1e-4, 1e-4]])
    net = Autoencoder(2, 2, (1,))
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    steps = list(train_paper(net, x, TFRMSProp(net.parameters(), 1e-3), threshold=1e-3, max_steps=5))
    assert len(steps) == 1
    assert steps[0][1]
    assert float(net.decoder.bias.detach().abs().max()) > 0  # the step that met the rule was still applied


def test_preset_resolves_to_the_published_defaults():
    settings = AutoImpute(preset="paper").settings
    assert settings == Settings(
        objective="masked",
        preset="paper",
        hidden=(2000,),
        optimizer="tf_rmsprop",
        learning_rate=1e-4,
        l2=1.0,
        threshold=1e-4,
        max_epochs=7000,
        batch_size=None,
        held_out_share=0.0,
        n_folds=1,
    )
    network = PaperModel.build(50, settings)
    initialise_normal(network, torch.Generator().manual_seed(0))
    assert [tuple(w.shape) for w in network.weights] == [(2000, 50), (50, 2000)]
    for parameter in network.parameters():
        values = parameter.detach().numpy()
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
        assert abs(values.std() - 1) < 5 / np.sqrt(values.size)


def test_fitting_with_the_preset_trains_that_network():
    """One step of the estimator moves N(0, 1) weights by no more than RMSProp's first step can."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((40, 30)) < 0.5, rng.uniform(1, 5, size=(40, 30)), 0)
    with pytest.warns(UserWarning, match="before it had converged"):
        model = AutoImpute(preset="paper", hidden=300, max_epochs=1).fit(x)
    assert model.held_out_ is None
    assert list(model.history_["epoch"]) == [1]
    reconstruction = model.impute(x, keep_observed=False)
    net = model.model_.network.cpu()
    weights = net.encoder[0].weight.numpy()
    assert weights.shape == (300, 30)
    assert weights.std() == pytest.approx(1, abs=0.03)
    hidden = 1 / (1 + np.exp(-(x @ weights.T + net.encoder[0].bias.numpy())))
    expected = hidden @ net.decoder.weight.numpy().T + net.decoder.bias.numpy()
    np.testing.assert_allclose(reconstruction, np.maximum(expected, 0), atol=1e-4)
    assert (expected < 0).any()
