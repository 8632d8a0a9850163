"""Training of the masked recipe's networks: two variants on every fold, side by side."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from .checkpoint import Checkpoint, NetworkFile
from .counts_network import product_type
from .network import Activation, Autoencoder, initialise_small
from .settings import MANY_CELLS, Settings
from .threads import torch_threads
from .training import FoldCells, Training, TrainingPlan, TrainingRecord, train_network

__all__ = ["LARGEST_GAIN", "VARIANTS", "OnEpoch", "Variant", "train_all", "training_plan"]

N_SIDE = 2
# An epoch of many cells has many steps, of which more is asked: the fall of the error that counts as progress is that
# of 15 steps, an epoch of some thousand cells
STEPS_OF_GAIN, LARGEST_GAIN = 15, 0.01
# Of many cells, a variant whose error is so much larger than another's after so many steps is not gone on with. Real
# sets of 10,000 cells are done with both after 300 to 800 steps. PBMC 3k resampled to 68,579 cells goes on for 22,000:
# the centred variant, 1 % behind at 1,608 steps, was 16 % behind at the end and had taken a quarter of the time
STEPS_TO_COMPARE, TOO_FAR_BEHIND = 1500, 0.01
OnEpoch = Callable[[str, int, TrainingRecord], None]


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


@dataclass(eq=False)
class _Job:
    """The training of one variant on one fold, begun when it is first run and let go of when it has ended."""

    fold: int
    variant: Variant
    data: FoldCells
    plan: TrainingPlan
    hidden: tuple[int, ...]
    seed: int
    checkpoint: Checkpoint
    on_epoch: OnEpoch
    record: TrainingRecord = field(default_factory=TrainingRecord)
    network: Autoencoder | None = None
    _begun: tuple[Training, NetworkFile] | None = None

    def run(self, stop: threading.Event, n_steps: float = math.inf) -> None:
        """Train to the end, or that of the epoch in which `n_steps` are reached, or until told to stop."""
        if self.network is not None:
            return
        training, file = self._begun = self._begun or self._begin()
        if training.step >= n_steps:
            return
        for record in train_network(training, self.data):
            paused = stop.is_set() or training.step >= n_steps
            file.keep(training, now=paused)
            self.on_epoch(self.variant.name, self.fold, record)
            if paused:
                return
        self._end(training, file)

    def leave(self) -> None:
        """End the training with what it has learned, if it has not ended."""
        if self._begun is None:
            return
        training, file = self._begun
        self.record.left_behind = not training.is_over
        training.finish()
        self._end(training, file)

    def reached(self, n_steps: int) -> bool:
        """Whether training went on for so many steps."""
        return len(self.record.epochs) >= self._epochs_of(n_steps)

    def error_after(self, n_steps: int) -> float:
        """Least held-out error of the epochs up to that in which `n_steps` were reached."""
        return min(epoch[Training.error_name] for epoch in self.record.epochs[: self._epochs_of(n_steps)])

    def _epochs_of(self, n_steps: int) -> int:
        return math.ceil(n_steps / self.plan.steps_per_epoch(self.data.shape[0]))

    def _begin(self) -> tuple[Training, NetworkFile]:
        net, generator = self.variant.start(self.data, self.hidden, self.seed)
        training = Training(net, self.plan, generator)
        file = self.checkpoint.network(f"fold{self.fold}-{self.variant.name}")
        file.load(training)
        self.record = training.record
        if self.record.epochs:
            self.on_epoch(self.variant.name, self.fold, self.record)
        return training, file

    def _end(self, training: Training, file: NetworkFile) -> None:
        file.keep(training)
        self.network, self._begun = training.net.requires_grad_(False), None


def train_all(
    data: Sequence[FoldCells],
    settings: Settings,
    rng: np.random.Generator,
    *,
    on_epoch: OnEpoch,
    checkpoint: Checkpoint,
) -> list[tuple[Autoencoder, ...]]:
    """Train every variant on every fold; of many cells, those to the end that are not far behind another.

    Parameters
    ----------
    data
        Of each fold.
    settings, rng
        What is trained, and what seeds are drawn from.
    on_epoch, checkpoint
        As of `scautoimpute.model.masked.fit_masked`.

    Returns
    -------
    The networks of each fold, in the order of `VARIANTS`.
    """
    n_cells, device = data[0].shape[0], data[0].encoding.gene_G.device
    many = n_cells > MANY_CELLS
    product = product_type(device) if many else torch.float32
    folds = [
        [
            _Job(
                fold=fold,
                variant=variant,
                data=of_fold,
                plan=training_plan(variant, settings, n_cells, product),
                hidden=settings.hidden,
                seed=int(rng.integers(2**63)),
                checkpoint=checkpoint,
                on_epoch=on_epoch,
            )
            for variant in VARIANTS
        ]
        for fold, of_fold in enumerate(data)
    ]
    jobs = [job for of_fold in folds for job in of_fold]
    if many:
        _run(jobs, device, n_steps=STEPS_TO_COMPARE, share_threads=True)
        jobs = _not_far_behind(jobs)
    _run(jobs, device, share_threads=many)
    return [tuple(cast("Autoencoder", job.network) for job in of_fold) for of_fold in folds]


def _run(jobs: Sequence[_Job], device: torch.device, *, n_steps: float = math.inf, share_threads: bool) -> None:
    """Run as many jobs at a time as torch has threads, on the CPU; on a GPU one.

    One thread each gives bits that do not depend on how many threads there are; shared, none is idle.
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


def _not_far_behind(jobs: Sequence[_Job]) -> list[_Job]:
    """Leave the variants that are far behind the best on all folds together; return the jobs that were compared else.

    These are the same after a stop, for threads are shared among them.
    """
    by_variant = [[job for job in jobs if job.variant is variant] for variant in VARIANTS]
    errors = [np.mean([job.error_after(STEPS_TO_COMPARE) for job in of_variant]) for of_variant in by_variant]
    going_on: list[_Job] = []
    for of_variant, error in zip(by_variant, errors, strict=True):
        if error > min(errors) * (1 + TOO_FAR_BEHIND):
            for job in of_variant:
                job.leave()
        else:
            going_on += [job for job in of_variant if job.reached(STEPS_TO_COMPARE)]
    return going_on


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
