"""The estimator: AutoImpute."""

import warnings
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from ._alignment import align_genes
from ._estimand import Estimand, check_estimand
from ._recipe import model_shares
from ._seed import generator_of
from .errors import NotFittedError
from .io.matrix import CELLS_PER_BLOCK, as_observed, row_blocks
from .model.settings import Settings
from .progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from .model.masked import MaskedModel
    from .model.paper import PaperModel

    Data: TypeAlias = AnnData | NDArray[Any] | sparse.spmatrix | sparse.sparray | pd.DataFrame

__all__ = ["AutoImpute"]


class AutoImpute:
    """Recover expression lost to dropouts with an autoencoder trained on the observed entries.

    Takes processed data as they are: cells × genes, log2(normalised + 1), zeros (and NaN) missing. The recipe
    that makes such data from counts is a step of its own, `scautoimpute.pp.recipe_autoimpute`;
    `scautoimpute.tl.autoimpute` runs both.

    Parameters
    ----------
    objective
        `"masked"`: zeros are missing, the squared error over observed entries is minimised (paper, eq. 8), and an
        entry's expected log2 expression *given that it was detected* is estimated.
    estimand
        What `impute` returns by default. `"detected"`: expected log2 expression given that it was detected, which is
        what recovers hidden entries. `"expected"`: that times the probability of detection, the expected log2
        expression with zeros counted, for clustering and other analyses of whole cells; another network learns the
        probability. Not with `preset="paper"`.
    preset
        None for this package's recipe: an empirical-Bayes base, two small autoencoders per fold that improve on
        it, and a mixture weighted on held-out entries. `"paper"` for the published method to the letter.
    hidden
        Width of the hidden layer, or a tuple of widths. Default 128; 2000 with `preset="paper"`.
    optimizer
        `"adamw"` (default), `"rmsprop"` (torch's), or `"tf_rmsprop"` (the published program's; default with
        `preset="paper"`).
    learning_rate
        Default 3e-3 · (128 / width)^0.65; 1e-4 with `preset="paper"`.
    l2
        λ of eq. 8 with `preset="paper"` (default 1); else AdamW's weight decay (default 0.01).
    threshold
        What counts as progress: a relative fall of the held-out error by default (2e-4), a change of the loss per
        cell with `preset="paper"` (1e-4).
    max_epochs
        At most so many passes over the cells: default 150; 7000 full-batch steps with `preset="paper"`.
    batch_size
        Cells per step; default between 8 and 64, a quarter of the cells. `preset="paper"` always takes all.
    held_out_share, n_folds
        In each of `n_folds` folds (default 3) this share of the observed entries (default 0.1) is hidden, to stop
        training, weigh the networks and score the result. `preset="paper"` hides nothing unless asked.
    device
        `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, …
    random_state
        Seed or NumPy Generator. Same seed, same machine, same bytes.

    Attributes
    ----------
    history_
        DataFrame, one row per epoch and network: `network`, `fold`, `epoch`, `loss`, `held_out_rmse`.
    held_out_
        Scores at held-out entries: `n`, and `rmse`, `mae`, `nmse` of `model` and of three floors: `gene_mean` (of
        non-zeros), `gene_cell_bias` and `base` (its empirical-Bayes form, the recipe's own start). None if nothing
        was held out. Cross-validated: a fold's entries are predicted by the networks of that fold, which never saw
        them and were not stopped by them, with weights learned on other entries.
    weights_
        What each network is worth in the mixture; what is missing to one is the base's share.
    detection_
        With ``estimand="expected"``: at `n` entries hidden whatever their value, the cross-entropy (nats per entry) of
        the probability of detection, of the `model` and of its `base` (rates of the gene and the cell); else None.
    converged_
        Whether every network stopped by itself before `max_epochs`.
    genes_
        Names of the genes modelled, if the data had any.

    Notes
    -----
    One step costs about 9 · B · G · H multiply-adds for B cells, G genes, H hidden units. Memory: a dense float32
    matrix of the modelled genes per fold, and 3 · G · H weights per network (five times that while it is trained).

    References
    ----------
    Talwar, Mongia, Sengupta & Majumdar, AutoImpute: Autoencoder based imputation of single-cell RNA-seq data,
    Scientific Reports 8:16329 (2018).

    Examples
    --------
    >>> import scautoimpute as sai
    >>> adata = sai.datasets.simulate(n_cells=60, n_genes=80, random_state=0)
    >>> processed = sai.pp.recipe_autoimpute(adata, n_top_genes=50, copy=True)
    >>> model = sai.AutoImpute(n_folds=1, random_state=0).fit(processed)
    >>> model.impute(processed).shape
    (60, 50)
    """

    def __init__(
        self,
        objective: str = "masked",
        *,
        estimand: Estimand = "detected",
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
        )
        check_estimand(estimand, preset)
        self.estimand = estimand
        self.device = device
        self.random_state = random_state
        self.recipe_: dict[str, Any] | None = None  # how counts became the training data, where `tl` did it

    # ---------------------------------------------------------------------------------------------- fit

    def fit(self, data: "Data", *, layer: str | None = None, checkpoint: str | Path | None = None) -> Self:
        """Learn from the observed entries.

        Parameters
        ----------
        data
            Cells × genes, log2 scale.
        layer
            With AnnData, the layer to take.
        checkpoint
            A folder in which progress is kept, made if absent. Training that was stopped, however, and is started
            again with the same folder, data and settings goes on from there and gives the same bytes as if it had
            not been stopped. Every network is written down when it is finished and after an epoch (a step, with
            `preset="paper"`) if two seconds, or 50 times as long as writing takes, have passed since the last time:
            so much, or one epoch, is what a kill can cost. The folder stays until you remove it.

        Raises
        ------
        ValueError
            If the data are unfit, or (CheckpointError) the progress is damaged or that of another training.
        OSError
            If progress cannot be kept, or (BlockingIOError) another process is at work in the folder.
        """
        from .model.checkpoint import open_checkpoint
        from .model.fit import fit_model

        x, _, genes = as_observed(data, layer=layer, dtype=np.float32)
        if x.nnz < 10 or min(x.shape) < 2:
            msg = (
                f"{x.nnz} observed entries in {x.shape[0]} cells × {x.shape[1]} genes: at least 10 in 2 × 2 are "
                "needed; give more cells or genes"
            )
            raise ValueError(msg)
        device = _resolve_device(self.device)
        seed, rng = self.random_state, generator_of(self.random_state)
        with open_checkpoint(checkpoint, x=x, settings=self.settings, random_state=seed, device=device) as progress:
            expected = self.estimand == "expected"
            outcome = fit_model(x, self.settings, rng, device, progress, with_detection=expected)
        self.model_: MaskedModel | PaperModel = outcome.model
        self.history_: pd.DataFrame = outcome.history
        self.held_out_: dict[str, Any] | None = outcome.held_out
        self.converged_: bool = outcome.converged
        self.genes_: list[str] | None = None if genes is None else [str(gene) for gene in genes]
        self.n_genes_in_: int = x.shape[1]
        self.recipe_ = None
        self._warn()
        return self

    def _warn(self) -> None:
        if not self.converged_:
            msg = f"training ended at max_epochs={self.settings.max_epochs} before it had converged: raise max_epochs"
            warnings.warn(msg, stacklevel=3)
        scores = self.held_out_
        floor = min(("gene_mean", "gene_cell_bias"), key=lambda f: scores[f]["rmse"]) if scores else ""
        if scores and scores["model"]["rmse"] >= scores[floor]["rmse"]:
            msg = (
                f"held-out RMSE {scores['model']['rmse']:.4g} is no better than {floor.replace('_', ' ')}'s "
                f"{scores[floor]['rmse']:.4g}: the imputed values carry no structure beyond it; do not rely on them"
            )
            warnings.warn(msg, stacklevel=3)

    @property
    def weights_(self) -> dict[str, float]:
        """What each network is worth in the mixture; empty with `preset="paper"`."""
        from .model.masked import VARIANTS, MaskedModel

        self._check_fitted()
        if not isinstance(self.model_, MaskedModel):
            return {}
        return {v.name: float(w) for v, w in zip(VARIANTS, self.model_.weights_K, strict=True)}

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
        keep_observed: bool = True,
        estimand: Estimand | None = None,
    ) -> "NDArray[np.float32]":
        """Return cells × modelled genes on the log2 scale, float32, never negative; zeros for a cell with no entry.

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
            Fill only the missing entries (True), or replace the observed ones by their estimates too (False).
        estimand
            `"detected"` or `"expected"`, which only a model made with ``estimand="expected"`` can give; by default
            what the model was made with.

        Raises
        ------
        ValueError
            If the data do not fit the model, or it did not learn what `estimand` asks for.
        """
        x = self._aligned(data, layer)
        self._check_learned(estimand or self.estimand)
        imputed = np.empty(x.shape, dtype=np.float32)
        for rows in self._blocks(x, "imputing"):
            imputed[rows] = self._impute_block(x[rows], keep_observed, estimand)
        return imputed

    def _impute_block(
        self, x: "sparse.csr_array", keep_observed: bool, estimand: str | None = None
    ) -> "NDArray[np.float32]":
        """Estimates for a few cells that fit in memory as a dense matrix; `x` has the model's genes as columns."""
        imputed: NDArray[np.float32] = np.maximum(self.model_.predict(x), 0)
        detection = getattr(self.model_, "detection", None)
        if detection is not None and (estimand or self.estimand) == "expected":
            imputed *= detection.predict(x)  # E[x] = P(detected) · E[x | detected]
        imputed[np.diff(x.indptr) == 0] = 0  # nothing is known of a cell without observed entries
        if keep_observed:
            imputed[x.nonzero()] = x.data
        return imputed

    def fit_impute(
        self, data: "Data", *, layer: str | None = None, keep_observed: bool = True
    ) -> "NDArray[np.float32]":
        """Do `fit`, then `impute`, on the same data."""
        return self.fit(data, layer=layer).impute(data, layer=layer, keep_observed=keep_observed)

    def embed(self, data: "Data", *, layer: str | None = None) -> "NDArray[np.float32]":
        """Return cells × hidden units: the last hidden layer of the network with most weight."""
        x = self._aligned(data, layer)
        return np.concatenate([self.model_.embed(x[rows]) for rows in self._blocks(x, "embedding")])

    @staticmethod
    def _blocks(x: "sparse.csr_array", description: str) -> Iterator[slice]:
        with progress_bar(x.shape[0], description, "cell") as bar:
            for rows in row_blocks(x, CELLS_PER_BLOCK):
                yield rows
                bar.update(rows.stop - rows.start)

    def _aligned(self, data: "Data", layer: str | None) -> "sparse.csr_array":
        """Observed entries with the model's genes as columns, in its order."""
        self._check_fitted()
        x, _, genes = as_observed(data, layer=layer, dtype=np.float32)
        if genes is not None and self.genes_ is not None and list(genes) != self.genes_:
            alignment = align_genes(self.genes_, genes, share_G=model_shares(self.recipe_))
            if alignment.n_missing:
                warnings.warn(alignment.in_words(), stacklevel=3)
            x = alignment.apply(x)
        if x.shape[1] != self.n_genes_in_:
            msg = f"the data have {x.shape[1]} genes, the model was trained on {self.n_genes_in_}: give the same genes"
            raise ValueError(msg)
        return x

    def _check_learned(self, estimand: str) -> None:
        check_estimand(estimand, self.settings.preset)
        if estimand == "expected" and self.detection_ is None:
            msg = "estimand='expected' asks for what this model did not learn: train AutoImpute(estimand='expected')"
            raise ValueError(msg)

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
        seed = self.random_state
        description = {
            "random_state": int(seed) if isinstance(seed, Integral) else None,
            "settings": self.settings.to_json(),
            "genes": self.genes_,
            "n_genes_in": self.n_genes_in_,
            "held_out": self.held_out_,
            "converged": self.converged_,
            "history": self.history_.to_dict(orient="split", index=False),
            "recipe": self.recipe_,
        }
        write_model(Path(path), self.model_, description)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Read a model that `save` wrote, onto `device`."""
        import pandas as pd

        from .model.disk import read_model

        model, description = read_model(Path(path))
        estimator = cls(device=device)
        estimator.settings = Settings.from_json(description["settings"])
        estimator.model_ = model.to(_resolve_device(device))
        estimator.estimand = "detected" if estimator.detection_ is None else "expected"
        estimator.genes_, estimator.n_genes_in_ = description["genes"], description["n_genes_in"]
        estimator.held_out_, estimator.converged_ = description["held_out"], description["converged"]
        estimator.history_ = pd.DataFrame(description["history"]["data"], columns=description["history"]["columns"])
        estimator.recipe_, estimator.random_state = description["recipe"], description["random_state"]
        return estimator


def _resolve_device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        msg = f"device {name!r} is not there: this machine has {', '.join(here)}; choose one of them or 'auto'"
        raise ValueError(msg) from error
    return device
