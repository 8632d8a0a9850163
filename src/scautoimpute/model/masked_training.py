"""Training of the masked recipe's networks: two variants on every fold, side by side.

Shape legend: N cells, B cells in a batch, G genes.
"""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import torch

from .checkpoint import Checkpoint, NetworkFile
from .counts_network import product_type
from .network import Activation, Autoencoder, initialise_small
from .settings import MANY_CELLS, Settings
from .threads import torch_threads
from .training import FoldCells, Training, TrainingPlan, TrainingRecord, train_network

__all__ = ["LARGEST_GAIN", "VARIANTS", "OnEnd", "OnEpoch", "Variant", "train_all", "training_plan"]

N_SIDE = 2
# An epoch of many cells has many steps, of which more is asked: the fall of the error that counts as progress is that
# of 15 steps, an epoch of some thousand cells
STEPS_OF_GAIN, LARGEST_GAIN = 15, 0.01
# Of many cells, a variant whose error is so much larger than another's after so many steps is not gone on with: it
# takes half of the time and is given little weight
STEPS_TO_COMPARE, TOO_FAR_BEHIND = 1500, 0.01
OnEpoch = Callable[[str, int, TrainingRecord], None]
OnEnd = Callable[[TrainingRecord], None]


@dataclass(frozen=True)
class Variant:
    """One expert's network.

    The plain sigmoid starts at ½ in every unit, which the decoder turns into a gene effect: good where genes are
    well observed, a source of noise where they are not. The centred one without decoder bias cannot do that.
    Both are trained; held-out entries decide.
    """

    name: str
    activation: Activation
    decoder_bias: bool
    encoder_sd: float
    relative_rate: float

    def build(self, n_genes: int, hidden: tuple[int, ...]) -> Autoencoder:
        """Network with uninitialised weights: residuals and mask in, correction to the base out."""
        return Autoencoder(
            2 * n_genes, n_genes, hidden, activation=self.activation, decoder_bias=self.decoder_bias, n_side=N_SIDE
        )

    def start(self, data: FoldCells, hidden: tuple[int, ...], seed: int) -> tuple[Autoencoder, torch.Generator]:
        """Initialised network on the device of `data`, and the generator that training goes on with."""
        device = data.encoding.gene_G.device
        generator = torch.Generator(device).manual_seed(seed)
        net = self.build(data.shape[1], hidden).to(device)
        initialise_small(net, generator, encoder_sd=self.encoder_sd)
        return net, generator


VARIANTS = (
    Variant("sigmoid", "sigmoid", decoder_bias=True, encoder_sd=0.0315, relative_rate=1.0),
    Variant("centred", "centred_sigmoid", decoder_bias=False, encoder_sd=0.063, relative_rate=2 / 3),
)


@dataclass
class _Job:
    """The training of one variant on one fold, begun when it is first run and let go of when it has ended."""

    fold: int
    variant: Variant
    data: FoldCells
    plan: TrainingPlan
    hidden: tuple[int, ...]
    seed: int
    file: NetworkFile
    on_epoch: OnEpoch
    on_end: OnEnd
    record: TrainingRecord = field(default_factory=TrainingRecord)
    network: Autoencoder | None = None
    _training: Training | None = None

    def run(self, stop: threading.Event, n_steps: float = math.inf) -> None:
        """Train to the end, or that of the epoch in which `n_steps` are reached, or until told to stop."""
        if self.network is not None:
            return
        training = self._training = self._training or self._begun()
        if training.step >= n_steps:
            return
        for record in train_network(training, self.data):
            self.file.keep(training, now=stop.is_set())
            self.on_epoch(self.variant.name, self.fold, record)
            if stop.is_set() or training.step >= n_steps:
                return
        self.file.keep(training)
        self.on_end(training.record)
        self.network, self._training = training.net.requires_grad_(False), None

    def _begun(self) -> Training:
        net, generator = self.variant.start(self.data, self.hidden, self.seed)
        training = Training(net, self.plan, generator)
        self.file.load(training)
        self.record = training.record
        if self.record.epochs:
            self.on_epoch(self.variant.name, self.fold, self.record)
        return training

    def error_after(self, n_steps: int) -> float:
        """Least held-out error of the epochs up to that in which `n_steps` were reached."""
        n_epochs = math.ceil(n_steps / math.ceil(self.data.shape[0] / self.plan.batch_size))
        return min(epoch[Training.error_name] for epoch in self.record.epochs[:n_epochs])


def train_all(
    data: Sequence[FoldCells],
    settings: Settings,
    rng: np.random.Generator,
    *,
    on_epoch: OnEpoch,
    on_end: OnEnd,
    checkpoint: Checkpoint,
) -> list[tuple[Autoencoder, ...]]:
    """Train every variant on every fold; of many cells, those to the end that are not far behind another.

    Parameters
    ----------
    data
        Of each fold.
    settings, rng
        What is trained, and what seeds are drawn from.
    on_epoch, on_end, checkpoint
        As of `scautoimpute.model.masked.fit_masked`.

    Returns
    -------
    The networks of each fold, in the order of `VARIANTS`.
    """
    n_cells, device = data[0].shape[0], data[0].encoding.gene_G.device
    many = n_cells > MANY_CELLS
    product = product_type(device) if many else torch.float32
    plans = [training_plan(variant, settings, n_cells, product) for variant in VARIANTS]
    folds = [
        [
            _Job(
                fold=fold,
                variant=variant,
                data=of_fold,
                plan=plan,
                hidden=settings.hidden,
                seed=int(rng.integers(2**63)),
                file=checkpoint.network(f"fold{fold}-{variant.name}"),
                on_epoch=on_epoch,
                on_end=on_end,
            )
            for variant, plan in zip(VARIANTS, plans, strict=True)
        ]
        for fold, of_fold in enumerate(data)
    ]
    jobs = [job for of_fold in folds for job in of_fold]
    if many:
        _run(jobs, device, n_steps=STEPS_TO_COMPARE, share_threads=True)
        behind = [job for of_fold in folds for job in _far_behind(of_fold)]
        for job in behind:
            job.record.converged = True
        _run(behind, device, share_threads=True)  # which ends them with what they have learned
    _run([job for job in jobs if job.network is None], device, share_threads=many)
    return [tuple(job.network for job in of_fold if job.network is not None) for of_fold in folds]


def _run(jobs: Sequence[_Job], device: torch.device, *, n_steps: float = math.inf, share_threads: bool) -> None:
    """Run as many jobs at a time as torch has threads, on the CPU, one thread each or all shared among them.

    One thread each gives the same bits whatever their number, two products at once are faster than one on two threads.
    """
    n_threads, stop = torch.get_num_threads(), threading.Event()
    n_at_once = max(1, min(n_threads, len(jobs))) if device.type == "cpu" else 1
    threads_of_each = n_threads // n_at_once if share_threads or device.type != "cpu" else 1
    with ThreadPoolExecutor(n_at_once) as executor, torch_threads(threads_of_each):
        try:
            futures = [executor.submit(job.run, stop, n_steps) for job in jobs]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # a network that fails (its progress cannot be kept) does not wait for the others
        except BaseException:  # Ctrl-C must not wait for the networks that are being trained
            stop.set()
            executor.shutdown(cancel_futures=True)
            raise


def _far_behind(of_fold: Sequence[_Job]) -> list[_Job]:
    errors = [job.error_after(STEPS_TO_COMPARE) for job in of_fold]
    return [j for j, error in zip(of_fold, errors, strict=True) if error > min(errors) * (1 + TOO_FAR_BEHIND)]


def training_plan(
    variant: Variant, settings: Settings, n_cells: int, product: torch.dtype = torch.float32
) -> TrainingPlan:
    """How long and how fast to train a variant, and in which type to multiply."""
    batch_size = settings.batch_size or min(64, max(8, n_cells // 4))
    many = n_cells > MANY_CELLS
    epochs_of_few = math.ceil(n_cells / batch_size) / STEPS_OF_GAIN if many else 1.0
    return TrainingPlan(
        learning_rate=settings.learning_rate * variant.relative_rate,
        batch_size=batch_size,
        max_epochs=settings.max_epochs,
        min_gain=min(settings.threshold * max(1.0, epochs_of_few), LARGEST_GAIN),
        gains_add_up=many,
        weight_decay=settings.l2,
        optimizer=settings.optimizer,
        product=product,
    )
