"""The recipe of the counts objective, in its five steps: hold out → base → network → components → mixture.

Shape legend: N cells, G genes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .checkpoint import Checkpoint, NetworkFile
from .components import MOST_CELLS, Components, fit_components
from .counts import CountsModel, build_network, estimates_with, network_names
from .counts_inputs import CountsEncoding
from .counts_network import gene_by_gene
from .counts_staging import Staged, other_counts, stage_together
from .counts_steps import CountsData
from .counts_store import CountsRows
from .counts_training import CountsTraining, train_counts
from .counts_weighing import HeldOutMolecules, weighed
from .network import Autoencoder, initialise_small
from .processes import Processes, current
from .settings import Settings
from .threads import threads_for, torch_threads
from .training import TrainingPlan, TrainingRecord

__all__ = ["AVERAGE_EVERY", "counts_plan", "fit_counts", "n_networks"]

ENCODER_SD = 0.0183
# What is averaged of few cells. Measured with 1, 3, 5 networks, milli-nats per held-out molecule over the gene mean:
# Tung (140 cells) 6.65, 6.94, 7.03; Drop-seq (225) 122.4, 124.1, 124.6; Jurkat/293T (338) 55.5, 56.9, 57.2;
# PBMC 68k (700) 353.0, 354.2, 354.5
NETWORKS_OF_FEW, FEW_CELLS = 3, 2000
# Epochs without progress after which a network stops, and the fewest and most steps of them. Ten or 300 steps find
# nothing more in five of six sets of 140 to 4,382 cells (.3 milli-nats in Zeisel), nor five in one of 9,470, and
# take a quarter to a half longer
PATIENCE_EPOCHS, PATIENCE_STEPS = 4, (150, 600)
AVERAGING, AVERAGE_EVERY = 0.99, 4  # of the weights; at every step it would take a twelfth of the time
OnEpoch = Callable[[str, TrainingRecord], None]


def fit_counts(
    x: CountsRows,
    batch_N: NDArray[np.intp],
    settings: Settings,
    rng: np.random.Generator,
    device: torch.device,
    *,
    batches: tuple[str, ...] = (),
    on_epoch: OnEpoch,
    checkpoint: Checkpoint | None = None,
    staging: Path | None = None,
) -> tuple[CountsModel, dict[str, Any], dict[str, TrainingRecord]]:
    """Hold out, take the gene frequencies, train the networks, find components, weigh the experts.

    Parameters
    ----------
    x
        Counts, N × G, which are read once.
    batch_N
        Batch of each cell, from 0.
    batches
        Their names, if the experiment has several.
    on_epoch
        Told the name of the network and its record after every epoch.
    checkpoint
        Where the networks are kept while they are trained, and gone on with; of several processes, by the first.
    staging
        Folder in which what is trained on is kept, on disk; in memory by default.

    Returns
    -------
    The model, its scores on held-out molecules, and what happened in the training of each network.
    """
    processes, checkpoint = current(), checkpoint or Checkpoint()
    staged = stage_together(x, settings.held_out_share, rng, processes, folder=staging)
    _refuse_different(processes.all(staged.digest))
    checkpoint.claim(staged.digest)
    _refuse_nothing_held_out(staged, settings.held_out_share)
    encoding = CountsEncoding.fit(staged.visible, batch_N).to(device)
    data = CountsData(staged.visible, batch_N, encoding, staged.stopping.rows, staged.stopping.cells, processes)
    trained = {
        name: _train(data, settings, rng, partial(on_epoch, name), checkpoint.network(name))
        for name in network_names(n_networks(x.shape[0], settings))
    }
    cells = staged.weighing.cells
    held_out = HeldOutMolecules(staged.visible[cells], staged.weighing.rows, batch_N[cells])
    components = processes.from_first(_components(staged, batch_N, encoding) if processes.is_first else None)
    n_estimates = len(estimates_with(components))
    even_K, none_EG = np.full(2 * n_estimates, 0.5 / n_estimates), torch.zeros(n_estimates, x.shape[1])
    networks = tuple(net for net, _ in trained.values())
    model = CountsModel(networks, encoding, none_EG, even_K, batches, components).to(device)
    model, scores = weighed(model, held_out, staged.visible, batch_N, processes)
    return model, scores, {name: record for name, (_, record) in trained.items()}


def _components(staged: Staged, batch_N: NDArray[np.intp], encoding: CountsEncoding) -> Components | None:
    if staged.visible.shape[0] > MOST_CELLS:
        return None
    return fit_components(staged.visible, batch_N, encoding, staged.stopping.rows, staged.stopping.cells)


def n_networks(n_cells: int, settings: Settings) -> int:
    """Return how many networks are trained: as asked, else by the number of cells."""
    return settings.n_networks or (NETWORKS_OF_FEW if n_cells <= FEW_CELLS else 1)


def counts_plan(settings: Settings, n_cells: int) -> TrainingPlan:
    """How long and how fast to train each network."""
    return TrainingPlan(
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size or min(128, max(16, n_cells // 4)),
        max_epochs=settings.max_epochs,
        min_gain=settings.threshold,
        patience_epochs=PATIENCE_EPOCHS,
        patience_steps=PATIENCE_STEPS,
        weight_decay=settings.l2,
        averaging=AVERAGING,
        average_every=AVERAGE_EVERY,
        optimizer=settings.optimizer,
    )


def _train(
    data: CountsData,
    settings: Settings,
    rng: np.random.Generator,
    on_epoch: Callable[[TrainingRecord], None],
    file: NetworkFile,
) -> tuple[Autoencoder, TrainingRecord]:
    n_cells, n_genes = data.visible.shape
    generator = torch.Generator(data.device).manual_seed(int(rng.integers(2**63)))
    net = build_network(n_genes, data.encoding.n_batches, settings.hidden).to(data.device)
    initialise_small(net, generator, encoder_sd=ENCODER_SD)
    net = gene_by_gene(net)
    plan = counts_plan(settings, n_cells)
    training = CountsTraining(net, plan, generator, rng=np.random.default_rng(rng.integers(2**63)))
    training.processes = data.processes
    file.load(training)
    _go_on_together(training, data.processes)
    if training.record.epochs:
        on_epoch(training.record)
    with torch_threads(threads_for(plan.batch_size * n_genes, data.device)):
        for record in train_counts(training, data, after_step=partial(file.keep, training)):
            file.keep(training)
            on_epoch(record)
    file.keep(training)
    return net.requires_grad_(False), training.record


def _go_on_together(training: CountsTraining, processes: Processes) -> None:
    """Bring every process to where the first is, which alone reads checkpoints."""
    if processes.size == 1:
        return
    tensors, values = training.state() if processes.is_first else ({}, {})
    on_cpu = {group: {n: tensor.cpu() for n, tensor in named.items()} for group, named in tensors.items()}
    on_cpu, values = processes.from_first((on_cpu, values))
    if not processes.is_first:
        training.load_state(on_cpu, values)


def _refuse_different(digests: list[str]) -> None:
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise other_counts(others[0], len(digests))


def _refuse_nothing_held_out(staged: Staged, share: float | None) -> None:
    if not len(staged.weighing.cells):
        msg = (
            f"held_out_share={share} of the molecules of {staged.visible.shape[0]} cells leave nothing to score on: "
            "no cell has both held-out and visible molecules; give more cells, deeper ones, or another share"
        )
        raise ValueError(msg)
