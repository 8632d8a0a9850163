"""The estimator: AutoImpute."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from ._alignment import match_genes
from ._batches import learned_batches, refuse_batches
from ._estimand import Estimand, check_estimand, check_learned, default_estimand, keeps_observed
from ._fitted import description_of, named_weights, restore
from ._masked_estimates import cell_blocks, impute_block
from ._recipe import model_shares
from ._seed import generator_of
from ._training_report import refuse_few_molecules, refuse_too_few, report_training
from ._umi import counts_and_genes
from .errors import NotFittedError
from .io.matrix import as_observed
from .model.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from ._staging import Staging
    from .model.counts import CountsModel
    from .model.masked import MaskedModel
    from .model.paper import PaperModel

    Data: TypeAlias = AnnData | NDArray[Any] | sparse.spmatrix | sparse.sparray | pd.DataFrame

__all__ = ["AutoImpute"]


class AutoImpute:
    """Recover expression lost to dropouts with an autoencoder.

    The masked objective takes processed data as they are: cells × genes, log2(normalised + 1), zeros (and NaN) missing.
    The recipe that makes such data from counts is a step of its own, `scautoimpute.pp.recipe_autoimpute`;
    `scautoimpute.tl.autoimpute` runs both. The counts objective takes counts of molecules.

    Parameters
    ----------
    objective
        `"masked"`: zeros are missing, the squared error over observed entries is minimised (paper, eq. 8), and an
        entry's expected log2 expression *given that it was detected* is estimated. `"counts"`: zeros are data, the
        multinomial likelihood of molecules left out of the input is maximised, and the expected number of molecules
        of every gene in every cell is estimated; for counts of molecules (UMIs).
    estimand
        What `impute` returns by default. `"detected"` (default): expected log2 expression given that it was detected,
        which is what recovers hidden entries. `"expected"`: that times the probability of detection, the expected log2
        expression with zeros counted, for clustering and other analyses of whole cells; another network learns the
        probability. Not with `preset="paper"`, nor with `objective="counts"`, which always estimates what is expected.
    preset
        None for this package's recipe: an empirical-Bayes base, two small autoencoders per fold that improve on
        it, and a mixture weighted on held-out entries. `"paper"` for the published method to the letter (masked).
    hidden
        Width of the hidden layer, or a tuple of widths. Default 128; 2000 with `preset="paper"`.
    optimizer
        `"adamw"`, `"rmsprop"` (torch's) or `"tf_rmsprop"` (the published program's, default with `preset="paper"`).
    learning_rate
        Default 3e-3 (masked, more than 5,000 cells: 1.2e-2), times 128 / width for what reads a layer; `"paper"`: 1e-4.
    l2
        λ of eq. 8 with `preset="paper"` (default 1); else AdamW's weight decay (default 0.01; counts: 0).
    threshold
        Progress is a relative fall of the held-out error (2e-4; of more than 5,000 cells so much in 15 steps, falls add
        up), of counts one in nats per molecule (1e-4, or 1 % of the fall), of `"paper"` a change of the loss per cell.
    max_epochs
        Passes over the cells at most: 150, of counts 1000; 7000 full-batch steps with `preset="paper"`.
    batch_size
        Cells per step: a quarter, 8 to 64; 256 of more than 5,000 (counts: 16 to 128); all with `preset="paper"`.
    held_out_share, n_folds
        In each of `n_folds` folds (default 3, of more than 5,000 cells 1) this share of the observed entries (0.1) is
        hidden, to stop, weigh and score: of each cell's molecules 0.05, once; `"paper"`: none unless asked.
    n_networks
        How many networks are averaged, of counts only: by default three for up to 2,000 cells, one for more.
    device
        `"auto"` (a GPU if there is one), `"gpu"`, `"cpu"`, `"cuda:1"`, …
    random_state
        Seed or NumPy Generator. Same seed, same machine, same bytes.

    Attributes
    ----------
    history_
        DataFrame, one row per epoch and network: `network`, `fold`, `epoch`, `loss`, `held_out_rmse`; of counts
        `held_out_loss` (nats per molecule, NaN after epochs that were not evaluated).
    held_out_
        Scores at held-out entries, None if there are none: `n`, and `rmse`, `mae`, `nmse` of `model` and of three
        floors: `gene_mean` (of non-zeros), `gene_cell_bias` and `base` (its empirical-Bayes form, the recipe's start).
        Cross-validated: a fold's entries are predicted by the networks of that fold, which neither saw them nor were
        stopped by them, with weights learned on other entries. Of counts: `n` molecules, and the Poisson `deviance` per
        held-out molecule of `model`, `gene_mean` (times the library size), the experts and `no_imputation` (the cell's
        own counts, a 2 % share of gene frequencies added).
    weights_
        What each network is worth in the mixture; what is missing to one is the base's share. Of counts what the
        experts are: `gene_frequencies`, `network` (the mean), `components` if any, alone and with `own_counts`.
    detection_
        With ``estimand="expected"``: at `n` entries hidden whatever their value, the cross-entropy (nats per entry) of
        the probability of detection, of the `model` and of its `base` (rates of the gene and the cell); else None.
    converged_
        Whether every network stopped by itself before `max_epochs`, or was left far behind (of many cells).
    genes_, batches_
        Names of the genes modelled, if the data had any, and of the batches that counts were trained with.

    Notes
    -----
    A step of B cells, G genes, H hidden units costs 7 · B · G · H multiply-adds (bfloat16 above 5,000 cells). Memory:
    24 · G · H weights per network, and per fold 6 bytes of an observed entry, up to 5,000 cells a dense float32 matrix.

    References
    ----------
    Talwar, Mongia, Sengupta & Majumdar, AutoImpute: Autoencoder based imputation of single-cell RNA-seq data,
    Scientific Reports 8:16329 (2018).

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> processed = sai.pp.recipe_autoimpute(adata, n_top_genes=50, copy=True)
    >>> model = sai.AutoImpute(n_folds=1, max_epochs=300, random_state=0).fit(processed)
    >>> model.impute(processed).shape
    (60, 50)
    """

    def __init__(
        self,
        objective: str = "masked",
        *,
        estimand: Estimand | None = None,
        preset: str | None = None,
        hidden: int | tuple[int, ...] | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        l2: float | None = None,
        threshold: float | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        held_out_share: float | None = None,
        n_folds: int | None = None,
        n_networks: int | None = None,
        device: str = "auto",
        random_state: int | np.random.Generator = 0,
    ) -> None:
        self.settings = Settings.resolve(
            objective=objective,
            preset=preset,
            hidden=hidden,
            optimizer=optimizer,
            learning_rate=learning_rate,
            l2=l2,
            threshold=threshold,
            max_epochs=max_epochs,
            batch_size=batch_size,
            held_out_share=held_out_share,
            n_folds=n_folds,
            n_networks=n_networks,
        )
        check_estimand(estimand, preset=preset, objective=objective)
        self.estimand = estimand or default_estimand(objective)
        self.device = device
        self.random_state = random_state
        self.recipe_: dict[str, Any] | None = None  # how counts became the training data, where `tl` did it

    # ---------------------------------------------------------------------------------------------- fit

    def fit(
        self, data: "Data", *, layer: str | None = None, batch: Any = None, checkpoint: str | Path | None = None
    ) -> Self:
        """Learn from the observed entries, or the counts.

        Parameters
        ----------
        data
            Cells × genes, log2 scale; counts of molecules with `objective="counts"`.
        layer
            With AnnData, the layer to take.
        batch
            Label of each cell's batch, of which encoder and decoder are told; `objective="counts"` only.
        checkpoint
            A folder in which progress is kept, made if absent. Training that was stopped, however, and is started
            again with the same folder, data and settings goes on from there and gives the same bytes. Every network
            is written down when it is finished and after an epoch (a step, of counts and with `preset="paper"`) if two
            seconds, or 50 times as long as writing takes, have passed: so much, or one epoch, is what a kill can cost.

        Raises
        ------
        ValueError
            If the data are unfit (normalised, or reads, for counts), a batch has a single cell, or (CheckpointError)
            the progress is damaged or that of another training.
        OSError
            If progress cannot be kept, or (BlockingIOError) another process is at work in the folder.
        """
        return self._fit(*self._read(data, layer, fitting=True), batch, checkpoint)

    def _fit(
        self, x: Any, genes: Any, batch: Any, checkpoint: str | Path | None, *, staging: "Staging | None" = None
    ) -> Self:
        """Learn from a matrix that has been checked; of counts, from rows of a file too, with a place to stage them."""
        from .model.checkpoint import open_checkpoint
        from .model.device import resolve_device
        from .model.fit import fit_counts_model, fit_model

        refuse_batches(batch, self.settings.objective)
        batch_N, names = learned_batches(batch, x.shape[0])
        (refuse_few_molecules if self._of_counts else refuse_too_few)(x)
        self.settings = self.settings.for_cells(x.shape[0])
        device, rng = resolve_device(self.device), generator_of(self.random_state)
        told = {"shape": x.shape, "settings": self.settings, "random_state": self.random_state, "device": device}
        with open_checkpoint(checkpoint, **told, batch_N=batch_N if names else None) as progress:
            if self._of_counts:
                kept: dict[str, Any] = {"checkpoint": progress, "staging": staging}
                outcome = fit_counts_model(x, batch_N, self.settings, rng, device, batches=names, **kept)
            else:
                more: dict[str, Any] = {"with_detection": self.estimand == "expected", "staging": staging}
                outcome = fit_model(x, self.settings, rng, device, progress, **more)
        self.model_: MaskedModel | PaperModel | CountsModel = outcome.model
        self.history_: pd.DataFrame = outcome.history
        self.held_out_: dict[str, Any] | None = outcome.held_out
        self.converged_: bool = outcome.converged
        self.genes_: list[str] | None = None if genes is None else [str(gene) for gene in genes]
        self.n_genes_in_: int = x.shape[1]
        self.recipe_ = None
        report_training(self.held_out_, self.converged_, max_epochs=self.settings.max_epochs)
        return self

    @property
    def batches_(self) -> list[str]:
        """Names of the batches that a model of counts was trained on."""
        self._check_fitted()
        return list(getattr(self.model_, "batches", ()))

    @property
    def weights_(self) -> dict[str, float]:
        """What each network is worth in the mixture; empty with `preset="paper"`."""
        self._check_fitted()
        return named_weights(self.model_)

    @property
    def detection_(self) -> dict[str, Any] | None:
        """How well detection is predicted; None if that was not learned."""
        self._check_fitted()
        detection = getattr(self.model_, "detection", None)
        return None if detection is None else dict(detection.held_out)

    # ---------------------------------------------------------------------------------------------- apply

    def impute(
        self,
        data: "Data",
        *,
        layer: str | None = None,
        keep_observed: bool | None = None,
        estimand: Estimand | None = None,
        batch: Any = None,
        as_batch: str | None = None,
    ) -> "NDArray[np.float32]":
        """Return cells × modelled genes, float32, never negative; zeros for a cell with no entry.

        On the log2 scale; with `objective="counts"` the expected counts at the cell's own number of molecules.
        The columns are the model's genes, `genes_`, those too that the data lack.

        Parameters
        ----------
        data
            The training cells or others; cells are independent of each other. Genes are matched by name where both
            sides have names: others than the model's are ignored, and its genes that are missing count as unobserved
            in every cell, with a warning, as long as half of them are there. Without names their number must be the
            model's.
        layer
            With AnnData, the layer to take.
        keep_observed
            Fill only the missing entries (True, the default with ``estimand="detected"``), or replace the observed ones
            by their estimates too (False). Of counts, all are estimates: a cell's own count has its share in them.
        estimand
            `"detected"` or `"expected"`, which only a model made with ``estimand="expected"`` can give; by default
            what the model was made with.
        batch, as_batch
            Label of each cell's batch, for a model that was trained with batches, and the name of one to estimate
            for instead of the cell's own.

        Raises
        ------
        ValueError
            If the data do not fit the model, or it did not learn what `estimand` asks for.
        """
        if self._of_counts:
            self._check_estimand(estimand)
            if keep_observed:
                msg = "keep_observed=True has no meaning with objective='counts': leave it out, all are estimates"
                raise ValueError(msg)
            return self._posterior(data, layer, batch, as_batch, with_sd=False)[0]
        refuse_batches(batch, self.settings.objective)
        x = self._aligned(data, layer)
        self._check_estimand(estimand)
        estimand = estimand or self.estimand
        keep, expected = keeps_observed(keep_observed, estimand), estimand == "expected"
        imputed = np.empty(x.shape, dtype=np.float32)
        model: MaskedModel | PaperModel = self.model_  # type: ignore[assignment]
        for rows in cell_blocks(x, "imputing"):
            imputed[rows] = impute_block(model, x[rows], keep_observed=keep, expected=expected)
        return imputed

    def posterior(
        self, data: "Data", *, layer: str | None = None, batch: Any = None, as_batch: str | None = None
    ) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
        """Return posterior mean (what `impute` returns) and standard deviation of the expected counts, float32.

        The latter tells how uncertain each expert is and how far they are apart; a new count would scatter beyond it.
        `objective="counts"` only.

        Parameters
        ----------
        data, layer, batch, as_batch
            As for `impute`.
        """
        self._check_fitted()
        if not self._of_counts:
            msg = "posterior is for objective='counts'; the masked objective has no standard deviations: use impute"
            raise ValueError(msg)
        return self._posterior(data, layer, batch, as_batch, with_sd=True)

    def _posterior(
        self, data: "Data", layer: str | None, batch: Any, as_batch: str | None, *, with_sd: bool
    ) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
        from ._batches import batch_positions
        from .model.counts import whole_posterior

        x = self._aligned(data, layer)
        model: CountsModel = self.model_  # type: ignore[assignment]
        batch_N, into_N = batch_positions(batch, as_batch, x.shape[0], model.batches)
        return whole_posterior(model, x, batch_N, into_N, with_sd=with_sd)

    def fit_impute(
        self, data: "Data", *, layer: str | None = None, keep_observed: bool | None = None
    ) -> "NDArray[np.float32]":
        """Do `fit`, then `impute`, on the same data."""
        return self.fit(data, layer=layer).impute(data, layer=layer, keep_observed=keep_observed)

    def embed(self, data: "Data", *, layer: str | None = None, batch: Any = None) -> "NDArray[np.float32]":
        """Return cells × hidden units: the last hidden layer of the network with most weight; of counts, the first."""
        from ._batches import batch_positions
        from .model.counts import CountsModel

        x = self._aligned(data, layer)
        if isinstance(self.model_, CountsModel):
            return self.model_.embed(x, batch_positions(batch, None, x.shape[0], self.model_.batches)[0])
        return np.concatenate([self.model_.embed(x[rows]) for rows in cell_blocks(x, "embedding")])

    def _aligned(self, data: "Data", layer: str | None) -> "sparse.csr_array":
        """Observed entries with the model's genes as columns, in its order."""
        self._check_fitted()
        x, genes = self._read(data, layer)
        return match_genes(x, genes, self.genes_, n_genes=self.n_genes_in_, share_G=model_shares(self.recipe_))

    def _read(self, data: "Data", layer: str | None, *, fitting: bool = False) -> tuple[Any, Any]:
        if self._of_counts:
            return counts_and_genes(data, layer=layer, must_look_like_umi=fitting)
        x, _, genes = as_observed(data, layer=layer, dtype=np.float32)
        return x, genes

    @property
    def _of_counts(self) -> bool:
        return self.settings.objective == "counts"

    def _check_estimand(self, estimand: str | None) -> None:
        check_learned(estimand, self.settings, learned=self.detection_ is not None)

    @property
    def is_fitted(self) -> bool:
        """Whether the model has been trained or loaded."""
        return hasattr(self, "model_")

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            msg = "this AutoImpute has not been trained: call fit, or load a trained one with AutoImpute.load"
            raise NotFittedError(msg)

    # ---------------------------------------------------------------------------------------------- disk

    def save(self, path: str | Path) -> None:
        """Write the trained model to one file of tensors and JSON (safetensors; no pickle), replacing any before."""
        from .model.disk import write_model

        self._check_fitted()
        write_model(Path(path), self.model_, description_of(self))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Read a model that `save` wrote, onto `device`."""
        from .model.device import resolve_device
        from .model.disk import read_model

        model, description = read_model(Path(path))
        estimator = cls(device=device)
        estimator.model_ = model.to(resolve_device(device))
        restore(estimator, description)
        return estimator
