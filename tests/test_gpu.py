"""What runs on a GPU gives what the processor gives, to rounding; skipped where there is none.

On a machine with a GPU every other test runs there too, for `device="auto"` is the default.
"""

import numpy as np
import pytest
import torch
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute.model import checkpoint, recorded, training
from scautoimpute.model.counts import CountsModel, build_network
from scautoimpute.model.counts_dense import dense_counts, dense_loss, inputs_of
from scautoimpute.model.counts_inputs import CountsEncoding
from scautoimpute.model.counts_network import Rows, hidden_layer, multinomial_loss, offsets
from scautoimpute.model.network import initialise_small
from scautoimpute.model.thinning import split_molecules

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.filterwarnings("ignore:training ended at max_epochs"),
]


@pytest.fixture(scope="module")
def adata():
    return sai.datasets.simulate(n_cells=400, n_genes=300, random_state=0)


def imputed(adata, model):
    """The layer that a model makes of counts, dense."""
    there = adata.copy()
    sai.tl.autoimpute(there, model=model)
    layer = there.layers["imputed"]
    return layer.toarray() if sparse.issparse(layer) else layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_batches", [1, 3])
def test_loss_and_gradients_are_those_of_the_processor(adata, dtype, n_batches):
    x = sparse.csr_array(adata.X).astype(np.float32)
    shown, hidden = split_molecules(x, 0.4, np.random.default_rng(0))
    batch_N, results = np.arange(x.shape[0]) % n_batches, []
    for device in map(torch.device, ("cpu", "cuda")):
        encoding = CountsEncoding.fit(x, batch_N).to(device)
        net = build_network(x.shape[1], n_batches, (32,))
        initialise_small(net, torch.Generator().manual_seed(0), encoder_sd=1.0)
        net.to(device)
        h_BH, weight_GH = hidden_layer(net, inputs_of(shown, batch_N, encoding), encoding.centre_I), net.decoder.weight
        if device.type == "cpu":
            loss = multinomial_loss(
                h_BH, weight_GH, offsets(net, encoding, batch_N), Rows.of(hidden, device), dtype=dtype
            )
        else:
            offset_BG = offsets(net, encoding, torch.from_numpy(batch_N).to(device))
            loss = dense_loss(h_BH, weight_GH, offset_BG, dense_counts(hidden, device), dtype)
        loss.backward()
        results.append([loss.detach().cpu(), *(p.grad.cpu() for p in net.parameters())])
    rounding = {"rtol": 1e-3, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.05, "atol": 1e-4}
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, **rounding)


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_a_model_says_the_same_wherever_it_is(adata, objective, tmp_path):
    trained = AutoImpute(objective, max_epochs=10, device="gpu", random_state=0)
    sai.tl.autoimpute(adata.copy(), model=trained)
    trained.save(tmp_path / "model")
    results = [imputed(adata, AutoImpute.load(tmp_path / "model", device=device)) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(*results, rtol=0.02, atol=0.01)  # products in bfloat16


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_training_there_is_as_good(adata, objective):
    scores = []
    for device in ("cpu", "gpu"):
        model = AutoImpute(objective, device=device, random_state=0)
        sai.tl.autoimpute(adata.copy(), model=model)
        measure = "deviance" if objective == "counts" else "rmse"
        scores.append(model.held_out_["model"][measure])
    assert scores[1] == pytest.approx(scores[0], rel=0.01)


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_same_seed_same_bytes_there(adata, objective):
    models = (AutoImpute(objective, max_epochs=10, device="gpu", random_state=0) for _ in range(2))
    layers = [imputed(adata, model) for model in models]
    np.testing.assert_array_equal(*layers)


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_steps_that_are_repeated_are_those_that_are_computed(adata, objective, monkeypatch):
    layers = []
    for steps_before in (recorded.STEPS_BEFORE, 10**9):
        monkeypatch.setattr(recorded, "STEPS_BEFORE", steps_before)
        layers.append(imputed(adata, AutoImpute(objective, max_epochs=10, device="gpu", random_state=0)))
    np.testing.assert_array_equal(*layers)


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_a_training_goes_on_there_as_if_it_had_not_stopped(adata, objective, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "LARGEST_SHARE", np.inf)
    data = adata if objective == "counts" else sai.pp.recipe_autoimpute(adata, n_top_genes=200, copy=True)
    going_on, batch = training.Training.count_step, np.arange(adata.n_obs) % 2 if objective == "counts" else None

    def stop_early(self):
        going_on(self)
        if self.step == 30:  # four batches an epoch: in the midst of one, long after the first was recorded
            raise KeyboardInterrupt

    def trained(folder):
        model = AutoImpute(objective, max_epochs=12, device="gpu", random_state=0)
        model.fit(data, checkpoint=folder, batch=batch)
        return [p for net in networks_of(model) for p in net.parameters()]

    with monkeypatch.context() as stopping:
        stopping.setattr(training.Training, "count_step", stop_early)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "progress")
    assert list((tmp_path / "progress").glob("*.safetensors"))
    for stopped, whole in zip(trained(tmp_path / "progress"), trained(None), strict=True):
        torch.testing.assert_close(stopped, whole, rtol=0, atol=0)


def networks_of(model):
    """All of a fitted model."""
    fitted = model.model_
    return fitted.networks if isinstance(fitted, CountsModel) else [n for fold in fitted.folds for n in fold.networks]


def test_the_published_training_follows_the_processor(adata):
    losses = []
    for device in ("cpu", "gpu"):
        model = AutoImpute(preset="paper", hidden=64, max_epochs=100, device=device, random_state=0)
        processed = sai.pp.recipe_autoimpute(adata, n_top_genes=200, copy=True)
        with pytest.warns(UserWarning, match="converged|beat"):
            model.fit(processed)
        losses.append(model.history_["loss"].to_numpy())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
