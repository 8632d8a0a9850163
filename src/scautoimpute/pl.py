"""Plots of what imputation did to an AnnData."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .io.complete import complete_or_absent
from .io.matrix import counts_matrix
from .scales import to_log1p

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["overview", "pca", "training", "zeros"]

CELLS_SCORED = 5000  # the silhouette compares all pairs
# Column of the history, and what its axis is called
_HELD_OUT = {"held_out_rmse": "held-out RMSE (log2)", "held_out_loss": "held-out loss (nats per molecule)"}
INK, GREY, BLUE = "#222222", "#9a9a9a", "#2b6cb0"


def overview(
    adata: "AnnData",
    *,
    key: str = "imputed",
    layer: str | None = None,
    color: str | None = None,
    save: str | Path | None = None,
) -> "Figure":
    """Draw cells before and after (PCA), zeros before and after, and the training curve, side by side.

    Parameters
    ----------
    adata
        With the results of `scautoimpute.tl.autoimpute`.
    key
        The `key_added` of that call.
    layer
        Where the counts were; `X` by default.
    color
        Column of `obs` to colour cells by, e.g. their type.
    save
        Also write the figure here; the suffix says the format.

    Returns
    -------
    The matplotlib figure, which pyplot knows nothing of.

    Raises
    ------
    ValueError
        If the results, the layer or the column are not in `adata`, or the suffix of `save` is no format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _check(adata, key, color)
    figure = Figure(figsize=(17, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    before, after, zero_axes, loss_axes = figure.subplots(1, 4)
    pca(adata, key=key, layer=layer, color=color, ax=before, imputed=False)
    pca(adata, key=key, layer=layer, color=color, ax=after)
    zeros(adata, key=key, layer=layer, ax=zero_axes)
    training(adata, key=key, ax=loss_axes)
    handles, labels = after.get_legend_handles_labels()
    if color is not None and handles:
        figure.legend(handles, labels, loc="outside lower left", ncols=6, frameon=False, fontsize=8, markerscale=2)
    if save is not None:
        with complete_or_absent(Path(save)) as beside:
            figure.savefig(beside, dpi=150)
    return figure


def pca(
    adata: "AnnData",
    *,
    ax: "Axes",
    key: str = "imputed",
    layer: str | None = None,
    color: str | None = None,
    imputed: bool = True,
) -> None:
    """Scatter the cells on the first two principal components of the modelled genes, on the log scale.

    The title gives the silhouette of the classes in `color` on those two components, if there are two or more.

    Parameters
    ----------
    adata
        With the results of `scautoimpute.tl.autoimpute`.
    ax
        Matplotlib axes to draw in.
    key
        The `key_added` of that call.
    layer
        Where the counts were; `X` by default.
    color
        Column of `obs` to colour cells by: classes get a colour each, numbers a colour scale.
    imputed
        Draw the imputed values (True), or the observed ones as ln(1 + counts per 10,000) (False).

    Raises
    ------
    ValueError
        If the results, the layer or the column are not in `adata`.
    """
    from sklearn.decomposition import PCA

    _check(adata, key, color)
    modelled = _modelled(adata, key)
    values = _log_values(adata, key, modelled) if imputed else _log_counts(adata, key, layer, modelled)
    scores = PCA(2, svd_solver="full").fit_transform(values)
    title = "imputed" if imputed else "observed"
    if color is not None and adata.obs[color].dtype.kind in "iuf":
        points = ax.scatter(scores[:, 0], scores[:, 1], s=7, c=adata.obs[color], linewidths=0)
        ax.figure.colorbar(points, ax=ax, label=color)
    else:
        labels = np.asarray(adata.obs[color]).astype(str) if color is not None else np.full(adata.n_obs, "cells")
        title += _draw_classes(ax, scores, labels)
    _finish(ax, title, "PC 1", "PC 2")
    ax.set(xticks=[], yticks=[])


def _draw_classes(ax: "Axes", scores: "NDArray[Any]", labels: "NDArray[Any]") -> str:
    """Scatter each class in its colour; return their silhouette in words, or nothing where it has no meaning."""
    from sklearn.metrics import silhouette_score

    classes = np.unique(labels)
    for index, label in enumerate(classes):
        chosen = labels == label
        ax.scatter(scores[chosen, 0], scores[chosen, 1], s=7, color=_color(index), label=label, linewidths=0)
    if not 1 < len(classes) < len(labels):
        return ""
    some = np.random.default_rng(0).permutation(len(labels))[:CELLS_SCORED]
    if not 1 < len(set(labels[some])) < len(some):
        return ""
    return f" (silhouette {silhouette_score(scores[some], labels[some]):.2f})"


def zeros(adata: "AnnData", *, ax: "Axes", key: str = "imputed", layer: str | None = None) -> None:
    """Plot the share of zeros of each modelled gene against its mean count, before and after.

    Parameters
    ----------
    adata
        With the results of `scautoimpute.tl.autoimpute`.
    ax
        Matplotlib axes to draw in.
    key
        The `key_added` of that call.
    layer
        Where the counts were; `X` by default.

    Raises
    ------
    ValueError
        If the results or the layer are not in `adata`.
    """
    _check(adata, key)
    modelled = _modelled(adata, key)
    counts = _dense(_in_memory(counts_matrix(adata, layer)), modelled)
    after = _dense(_in_memory(adata.layers[key]), modelled)
    mean = counts.mean(0)
    ax.scatter(mean, (counts == 0).mean(0), s=6, color=GREY, linewidths=0, label="observed")
    ax.scatter(mean, (after == 0).mean(0), s=6, color=BLUE, linewidths=0, label="imputed")
    ax.set_xscale("log")
    _finish(ax, "zeros per gene", "mean count", "share of zeros")
    ax.legend(frameon=False, fontsize=8)


def training(adata: "AnnData", *, ax: "Axes", key: str = "imputed") -> None:
    """Plot the held-out error (or, where nothing was held out, the loss) of each network against the epoch.

    Parameters
    ----------
    adata
        With the results of `scautoimpute.tl.autoimpute`.
    ax
        Matplotlib axes to draw in.
    key
        The `key_added` of that call.

    Raises
    ------
    ValueError
        If the results are not in `adata`.
    """
    _check(adata, key)
    history = adata.uns[key]["history"]
    column = next((name for name in _HELD_OUT if name in history and history[name].notna().any()), "loss")
    for index, (name, network) in enumerate(history.groupby("network", observed=True)):
        for number, (_, fold) in enumerate(network.groupby("fold")):
            label = str(name) if number == 0 else None
            seen = fold[fold[column].notna()]  # of counts not every epoch is evaluated
            ax.plot(seen["epoch"], seen[column], color=_color(index), lw=1.2, label=label)
    _finish(ax, "training", "epoch", _HELD_OUT.get(column, "loss per cell"))
    ax.legend(frameon=False, fontsize=8)


def _check(adata: "AnnData", key: str, color: str | None = None) -> None:
    if not isinstance(adata.uns.get(key), dict) or "history" not in adata.uns[key] or key not in adata.layers:
        msg = (
            f"there is no result {key!r} in this object: run tl.autoimpute first, or give the key_added it was run with"
        )
        raise ValueError(msg)
    if color is not None and color not in adata.obs:
        columns = ", ".join(map(repr, adata.obs.columns)) or "none"
        msg = f"there is no column {color!r} in obs; its columns are {columns}: give one of them, or none"
        raise ValueError(msg)


def _modelled(adata: "AnnData", key: str) -> "NDArray[np.int64]":
    """Return the positions of the genes that the run `key` modelled."""
    return np.flatnonzero(adata.var_names.isin(adata.uns[key]["genes"]))


def _log_counts(adata: "AnnData", key: str, layer: str | None, genes: "NDArray[np.int64]") -> "NDArray[Any]":
    counts = _dense(_in_memory(counts_matrix(adata, layer)), genes)
    return to_log1p(counts, "counts", **_sizes(adata, key))


def _log_values(adata: "AnnData", key: str, genes: "NDArray[np.int64]") -> "NDArray[Any]":
    return to_log1p(_dense(_in_memory(adata.layers[key]), genes), adata.uns[key]["scale"], **_sizes(adata, key))


def _sizes(adata: "AnnData", key: str) -> dict[str, Any]:
    size_factor = adata.obs["autoimpute_size_factor"].to_numpy()[:, None]
    return {"size_factor": size_factor, "median_total": adata.uns[key]["recipe"]["median_total"]}


def _in_memory(matrix: Any) -> Any:
    """Return a backed matrix as one that can be summed and cut."""
    if hasattr(matrix, "to_memory"):
        return matrix.to_memory()
    return matrix if sparse.issparse(matrix) else np.asarray(matrix)


def _dense(matrix: Any, columns: "NDArray[np.int64]") -> "NDArray[Any]":
    chosen = matrix[:, columns]
    values: NDArray[Any] = np.asarray(chosen.toarray() if sparse.issparse(chosen) else chosen)
    return values


def _color(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](index % 10) if index < 10 else colormaps["tab20b"]((index - 10) % 20)


def _finish(ax: "Axes", title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
