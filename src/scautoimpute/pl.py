"""Plots of what imputation did to an AnnData."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["overview", "pca", "training", "zeros"]

INK, GREY, BLUE, ORANGE = "#222222", "#9a9a9a", "#2b6cb0", "#dd6b20"


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
    The matplotlib figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    before, after, zero_axes, loss_axes = figure.subplots(1, 4)
    pca(adata, key=key, layer=layer, color=color, ax=before, imputed=False)
    pca(adata, key=key, layer=layer, color=color, ax=after)
    zeros(adata, key=key, layer=layer, ax=zero_axes)
    training(adata, key=key, ax=loss_axes)
    if color is not None:
        handles, labels = after.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=6, frameon=False, fontsize=8, markerscale=2)
    if save is not None:
        figure.savefig(save, dpi=150)
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

    `imputed=False` draws the observed data instead: ln(1 + counts per 10,000). The title gives the silhouette of
    `color` on those two components where there are two classes or more.
    """
    from sklearn.decomposition import PCA

    modelled = adata.var["autoimpute_modelled"].to_numpy()
    values = _log_values(adata, key, modelled) if imputed else _log_counts(adata, layer, modelled)
    scores = PCA(2, svd_solver="full").fit_transform(values)
    labels = adata.obs[color].astype(str).to_numpy() if color is not None else np.full(adata.n_obs, "cells")
    for index, label in enumerate(sorted(set(labels))):
        chosen = labels == label
        ax.scatter(scores[chosen, 0], scores[chosen, 1], s=7, color=_color(index), label=label, linewidths=0)
    title = "imputed" if imputed else "observed"
    if color is not None and 1 < len(set(labels)) < adata.n_obs:
        from sklearn.metrics import silhouette_score

        title += f" (silhouette {silhouette_score(scores, labels):.2f})"
    _finish(ax, title, "PC 1", "PC 2")
    ax.set(xticks=[], yticks=[])


def zeros(adata: "AnnData", *, ax: "Axes", key: str = "imputed", layer: str | None = None) -> None:
    """Plot the share of zeros of each modelled gene against its mean count, before and after."""
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    counts = _dense(adata.X if layer is None else adata.layers[layer], modelled)
    after = _dense(adata.layers[key], modelled)
    mean = counts.mean(0)
    ax.scatter(mean, (counts == 0).mean(0), s=6, color=GREY, linewidths=0, label="observed")
    ax.scatter(mean, (after == 0).mean(0), s=6, color=BLUE, linewidths=0, label="imputed")
    ax.set_xscale("log")
    _finish(ax, "zeros per gene", "mean count", "share of zeros")
    ax.legend(frameon=False, fontsize=8)


def training(adata: "AnnData", *, ax: "Axes", key: str = "imputed") -> None:
    """Plot the held-out error (or, where nothing was held out, the loss) of each network against the epoch."""
    history = adata.uns[key]["history"]
    held_out = bool(history["held_out_rmse"].notna().any())
    column = "held_out_rmse" if held_out else "loss"
    for index, (name, network) in enumerate(history.groupby("network", observed=True)):
        for number, (_, fold) in enumerate(network.groupby("fold")):
            label = str(name) if number == 0 else None
            ax.plot(fold["epoch"], fold[column], color=(BLUE, ORANGE)[index % 2], lw=1.2, label=label)
    _finish(ax, "training", "epoch", "held-out RMSE (log2)" if held_out else "loss per cell")
    ax.legend(frameon=False, fontsize=8)


def _log_counts(adata: "AnnData", layer: str | None, modelled: "NDArray[np.bool_]") -> "NDArray[Any]":
    matrix = adata.X if layer is None else adata.layers[layer]
    total = np.maximum(np.asarray(matrix.sum(1)).ravel()[:, None], 1)
    values: NDArray[Any] = np.log1p(_dense(matrix, modelled) / total * 1e4)
    return values


def _log_values(adata: "AnnData", key: str, modelled: "NDArray[np.bool_]") -> "NDArray[Any]":
    values = _dense(adata.layers[key], modelled)
    return values if adata.uns[key]["scale"] in {"log1p", "log2"} else np.log1p(values)


def _dense(matrix: Any, columns: "NDArray[np.bool_]") -> "NDArray[Any]":
    chosen = matrix[:, np.flatnonzero(columns)]
    values: NDArray[Any] = np.asarray(chosen.toarray() if hasattr(chosen, "toarray") else chosen)
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
