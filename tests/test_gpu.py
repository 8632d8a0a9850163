"""What runs on a GPU gives what the processor gives, to rounding; skipped where there is none.

On a machine with a GPU every other test runs there too, for `device="auto"` is the default.
"""

import numpy as np
import pytest
import torch
from scipy import sparse

import scautoimpute as sai
from scautoimpute import AutoImpute
from scautoimpute.model import masked_training, recorded
from scautoimpute.model.counts import build_network
from scautoimpute.model.counts_inputs import CountsEncoding
from scautoimpute.model.counts_network import Inputs, Rows, hidden_layer, multinomial_loss, offsets
from scautoimpute.model.network import initialise_small

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.filterwarnings("ignore:training ended at max_epochs"),
]


@pytest.fixture(scope="module")
def adata():
    return sai.datasets.simulate(n_cells=400, n_genes=300, random_state=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_the_processor(adata, dtype):
    x = sparse.csr_array(adata.X).astype(np.float32)
    batch_N, results = np.zeros(x.shape[0], dtype=np.intp), []
    for device in map(torch.device, ("cpu", "cuda")):
        encoding = CountsEncoding.fit(x, batch_N).to(device)
        net = build_network(x.shape[1], 1, (32,))
        initialise_small(net, torch.Generator().manual_seed(0), encoder_sd=1.0)
        net.to(device)
        h_BH = hidden_layer(net, Inputs.of(encoding.encode(x, batch_N), device), encoding.centre_I)
        offset_BG, y = offsets(net, encoding, batch_N), Rows.of(x, device)
        loss = multinomial_loss(h_BH, net.decoder.weight, offset_BG, y, dtype=dtype)
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
    results = []
    for device in ("cpu", "cuda"):
        there = adata.copy()
        sai.tl.autoimpute(there, model=AutoImpute.load(tmp_path / "model", device=device))
        layer = there.layers["imputed"]
        results.append(layer.toarray() if sparse.issparse(layer) else layer)
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
    layers = []
    for _ in range(2):
        there = adata.copy()
        sai.tl.autoimpute(there, model=AutoImpute(objective, max_epochs=10, device="gpu", random_state=0))
        layer = there.layers["imputed"]
        layers.append(layer.toarray() if sparse.issparse(layer) else layer)
    np.testing.assert_array_equal(*layers)


@pytest.mark.parametrize("objective", ["counts", "masked"])
def test_steps_that_are_repeated_are_those_that_are_computed(adata, objective, monkeypatch):
    layers = []
    for steps_before in (recorded.STEPS_BEFORE, 10**9):
        monkeypatch.setattr(recorded, "STEPS_BEFORE", steps_before)
        there = adata.copy()
        sai.tl.autoimpute(there, model=AutoImpute(objective, max_epochs=10, device="gpu", random_state=0))
        layer = there.layers["imputed"]
        layers.append(layer.toarray() if sparse.issparse(layer) else layer)
    np.testing.assert_array_equal(*layers)


def test_a_training_goes_on_there_as_if_it_had_not_stopped(adata, monkeypatch, tmp_path):
    going_on, processed = masked_training.train_network, sai.pp.recipe_autoimpute(adata, n_top_genes=200, copy=True)

    def stop_early(training, data):
        for record in going_on(training, data):
            yield record
            if len(record.epochs) == 4:
                raise KeyboardInterrupt

    def trained(checkpoint):
        model = AutoImpute("masked", max_epochs=8, device="gpu", random_state=0)
        return model.fit(processed, checkpoint=checkpoint).impute(processed)

    with monkeypatch.context() as stopping:
        stopping.setattr(masked_training, "train_network", stop_early)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "progress")
    np.testing.assert_array_equal(trained(tmp_path / "progress"), trained(None))


def test_the_published_training_follows_the_processor(adata):
    losses = []
    for device in ("cpu", "gpu"):
        model = AutoImpute(preset="paper", hidden=64, max_epochs=100, device=device, random_state=0)
        processed = sai.pp.recipe_autoimpute(adata, n_top_genes=200, copy=True)
        with pytest.warns(UserWarning, match="converged|beat"):
            model.fit(processed)
        losses.append(model.history_["loss"].to_numpy())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
