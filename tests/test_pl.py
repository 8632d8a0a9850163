"""The plots draw what they say: what is on the axes against numbers computed here."""

import subprocess
import sys

import anndata
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.metrics import silhouette_score

from scautoimpute import AutoImpute, pl, tl
from scautoimpute.datasets import simulate


@pytest.fixture(scope="module")
def imputed():
    adata = simulate(n_cells=60, n_genes=80, random_state=0)
    adata.layers["raw"] = adata.X.copy()
    with pytest.warns(UserWarning, match="before it had converged"):
        tl.autoimpute(adata, model=AutoImpute(hidden=8, max_epochs=4, random_state=0))
    return adata


@pytest.fixture(params=["sparse", "dense"])
def adata(request, imputed):
    adata = imputed.copy()
    if request.param == "dense":
        adata.X, adata.layers["imputed"] = adata.X.toarray(), adata.layers["imputed"].toarray()
    return adata


@pytest.fixture
def ax():
    return Figure().subplots()


def array(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def points(ax):
    return [c.get_offsets().data for c in ax.collections if isinstance(c, PathCollection)]


def two_components(values):
    """Scores on the first two principal components, by the singular value decomposition."""
    u, d, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    return u[:, :2] * d[:2]


def same_up_to_sign(drawn, expected):
    for column in (0, 1):
        sign = np.sign(np.dot(drawn[:, column], expected[:, column]))
        np.testing.assert_allclose(sign * drawn[:, column], expected[:, column], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------------- zeros


def test_zeros_before_and_after(adata, ax):
    pl.zeros(adata, ax=ax)
    counts, after = array(adata.X), array(adata.layers["imputed"])
    expected = []
    for matrix in (counts, after):
        genes = [g for g in range(adata.n_vars) if adata.var["autoimpute_modelled"].iloc[g]]
        expected.append([(np.mean(counts[:, g]), np.mean([value == 0 for value in matrix[:, g]])) for g in genes])
    np.testing.assert_allclose(points(ax), expected, rtol=1e-5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["observed", "imputed"]
    assert ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean count", "share of zeros")


def test_zeros_of_the_layer_that_holds_the_counts(imputed, ax):
    adata = imputed.copy()
    adata.X = np.ones(adata.shape)
    pl.zeros(adata, layer="raw", ax=ax)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    np.testing.assert_allclose(points(ax)[0][:, 1], (array(adata.layers["raw"])[:, modelled] == 0).mean(axis=0))


# ---------------------------------------------------------------------------------------------------- pca


def test_pca_of_the_imputed(adata, ax):
    pl.pca(adata, ax=ax)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    (drawn,) = points(ax)
    same_up_to_sign(drawn, two_components(array(adata.layers["imputed"])[:, modelled]))
    assert ax.get_title(loc="left") == "imputed"


def test_pca_of_the_observed(adata, ax):
    pl.pca(adata, ax=ax, imputed=False)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    counts = array(adata.X)
    passing = (counts >= 3).sum(0) >= 3  # totals are over the genes that pass the read filter
    per_10k = counts / counts[:, passing].sum(axis=1, keepdims=True) * 1e4
    (drawn,) = points(ax)
    same_up_to_sign(drawn, two_components(np.log1p(per_10k)[:, modelled]))
    assert ax.get_title(loc="left") == "observed"


def test_pca_takes_the_logarithm_of_a_scale_without_one(imputed, ax):
    adata = imputed.copy()
    adata.layers["imputed"].data = np.expm1(adata.layers["imputed"].data)
    adata.uns["imputed"] = adata.uns["imputed"] | {"scale": "cp10k"}
    pl.pca(adata, ax=ax)
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    same_up_to_sign(points(ax)[0], two_components(array(imputed.layers["imputed"])[:, modelled]))


def test_pca_by_class(adata, ax):
    pl.pca(adata, ax=ax, color="cell_type")
    modelled = adata.var["autoimpute_modelled"].to_numpy()
    scores = two_components(array(adata.layers["imputed"])[:, modelled])
    drawn, labels = points(ax), ax.get_legend_handles_labels()[1]
    assert labels == ["type_1", "type_2", "type_3"]
    for label, cells in zip(labels, drawn, strict=True):
        assert len(cells) == (adata.obs["cell_type"] == label).sum()
    order = np.concatenate([np.flatnonzero(adata.obs["cell_type"] == label) for label in labels])
    same_up_to_sign(np.concatenate(drawn), scores[order])
    assert len({to_hex(c.get_facecolor()[0]) for c in ax.collections}) == 3
    expected = silhouette_score(scores, adata.obs["cell_type"])
    assert ax.get_title(loc="left") == f"imputed (silhouette {expected:.2f})"


@pytest.mark.parametrize("labels", [["one"] * 60, [f"cell {n}" for n in range(60)]], ids=["one class", "all differ"])
def test_pca_has_no_silhouette_where_it_means_nothing(imputed, ax, labels):
    adata = imputed.copy()
    adata.obs["label"] = labels
    pl.pca(adata, ax=ax, color="label")
    assert ax.get_title(loc="left") == "imputed"
    assert sum(map(len, points(ax))) == 60


def test_pca_by_number_has_a_colour_scale(imputed, ax):
    adata = imputed.copy()
    adata.obs["total"] = array(adata.X).sum(axis=1)
    pl.pca(adata, ax=ax, color="total")
    np.testing.assert_allclose(ax.collections[0].get_array(), adata.obs["total"])
    assert ax.figure.axes[1].get_ylabel() == "total"
    assert len(pl.overview(adata, color="total").axes) == 6  # four panels and two scales


# ---------------------------------------------------------------------------------------------------- training


def test_training_draws_the_held_out_error_of_each_network_and_fold(imputed, ax):
    pl.training(imputed, ax=ax)
    history = imputed.uns["imputed"]["history"]
    runs = list(history.groupby(["network", "fold"], sort=True))
    assert len(runs) == len(ax.lines) > 1
    for line, (_, rows) in zip(ax.lines, runs, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), rows["epoch"])
        np.testing.assert_array_equal(line.get_ydata(), rows["held_out_rmse"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == sorted(set(history["network"]))
    assert ax.get_ylabel() == "held-out RMSE (log2)"


def test_training_draws_the_loss_where_nothing_was_held_out(imputed, ax):
    adata = imputed.copy()
    history = adata.uns["imputed"]["history"].assign(held_out_rmse=np.nan)
    adata.uns["imputed"] = adata.uns["imputed"] | {"history": history[history["fold"] == 0]}
    pl.training(adata, ax=ax)
    first = history[(history["fold"] == 0) & (history["network"] == min(history["network"]))]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), first["loss"])
    assert ax.get_ylabel() == "loss per cell"


# ---------------------------------------------------------------------------------------------------- overview


def test_overview_has_the_four_panels_and_is_written(adata, tmp_path):
    before = adata.copy()
    figure = pl.overview(adata, color="cell_type", save=tmp_path / "figure.png")
    panels = figure.axes
    assert [panel.get_title(loc="left").split(" (")[0] for panel in panels] == [
        "observed", "imputed", "zeros per gene", "training"
    ]  # fmt: skip
    for panel, draw in zip(
        panels,
        (
            lambda ax: pl.pca(adata, ax=ax, color="cell_type", imputed=False),
            lambda ax: pl.pca(adata, ax=ax, color="cell_type"),
            lambda ax: pl.zeros(adata, ax=ax),
            lambda ax: pl.training(adata, ax=ax),
        ),
        strict=True,
    ):
        alone = Figure().subplots()
        draw(alone)
        for drawn, expected in zip(points(panel), points(alone), strict=True):
            np.testing.assert_allclose(drawn, expected)
        assert len(panel.lines) == len(alone.lines)
        assert points(alone) or alone.lines
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["type_1", "type_2", "type_3"]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert list(adata.uns) == list(before.uns)
    np.testing.assert_array_equal(array(adata.X), array(before.X))


def test_overview_without_colour_of_another_key_and_layer(imputed):
    adata = imputed.copy()
    adata.layers["filled"], adata.uns["filled"] = adata.layers.pop("imputed"), adata.uns.pop("imputed")
    adata.X = None
    figure = pl.overview(adata, key="filled", layer="raw")
    assert figure.legends == []
    expected = Figure().subplots()
    pl.zeros(imputed, ax=expected)
    np.testing.assert_allclose(points(figure.axes[2]), points(expected))


def test_a_file_that_was_read_back_is_drawn_alike(imputed, tmp_path):
    imputed.write_h5ad(tmp_path / "imputed.h5ad")
    for backed in (None, "r"):
        again = anndata.read_h5ad(tmp_path / "imputed.h5ad", backed=backed)
        for drawn, expected in zip(pl.overview(again).axes, pl.overview(imputed).axes, strict=True):
            assert len(drawn.lines) == len(expected.lines)
            np.testing.assert_allclose(points(drawn), points(expected), rtol=1e-5, atol=1e-5)


def test_pyplot_is_not_touched():
    program = """
import sys, warnings
from scautoimpute import AutoImpute, pl, tl
from scautoimpute.datasets import simulate
adata = simulate(n_cells=60, n_genes=80, random_state=0)
warnings.simplefilter("ignore")
tl.autoimpute(adata, model=AutoImpute(hidden=4, max_epochs=1))
pyplot = sys.modules.get("matplotlib.pyplot")
pl.overview(adata, color="cell_type")
assert sys.modules.get("matplotlib.pyplot") is pyplot
assert pyplot is None or pyplot.get_fignums() == []
print("drawn")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "drawn\n", done.stderr


# ---------------------------------------------------------------------------------------------------- refused


def test_a_column_that_is_not_there(imputed, ax):
    with pytest.raises(ValueError, match=r"no column 'x' in obs; its columns are 'cell_type'"):
        pl.pca(imputed, ax=ax, color="x")
    with pytest.raises(ValueError, match=r"no column 'x' in obs"):
        pl.overview(imputed, color="x")


@pytest.mark.parametrize("draw", [pl.pca, pl.zeros, pl.training])
def test_a_result_that_is_not_there(imputed, ax, draw):
    with pytest.raises(ValueError, match=r"no result 'other' in this object: run tl\.autoimpute first"):
        draw(imputed, ax=ax, key="other")
    with pytest.raises(ValueError, match=r"run tl\.autoimpute first"):
        draw(anndata.AnnData(np.ones((3, 3))), ax=ax)


def test_a_layer_that_is_not_there(imputed, ax):
    with pytest.raises(ValueError, match=r"no layer 'x'; its layers are"):
        pl.zeros(imputed, ax=ax, layer="x")


def test_a_format_that_is_not_known_leaves_no_file(imputed, tmp_path):
    with pytest.raises(ValueError, match=r"(?i)format 'xyz' is not supported"):
        pl.overview(imputed, save=tmp_path / "figure.xyz")
    assert list(tmp_path.iterdir()) == []
