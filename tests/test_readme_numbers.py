"""The tables of the README are those of the committed benchmarks."""

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
README, RESULTS = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"
OURS, FLOORS = "autoimpute_counts", ("none", "gene_mean", "gene_mean_eb")
FAMILIES = {"Poisson NMF": "nmf", "PCA": "pca"}


def table(first_column):
    """Rows of the table whose header begins so, as lists of texts."""
    lines = README.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


def agrees(text, value):
    """Whether a number is what is printed, with as many digits."""
    digits = len(text.partition(".")[2])
    return f"{value:.{digits}f}" == text


@pytest.fixture(scope="module")
def denoising():
    rows = pd.read_csv(RESULTS / "denoising.csv")
    return rows[rows["seed"] == 0].pivot_table(index="n_cells", columns="method", values="gain")


def cells(name):
    return int(re.search(r"\(([\d,]+)\)", name)[1].replace(",", ""))


def test_every_set_of_counts_has_its_row(denoising):
    assert sorted(cells(name) for name, *_ in table("data set (cells) | raw counts")) == sorted(denoising.index)


@pytest.mark.parametrize("row", table("data set (cells) | raw counts"), ids=lambda row: row[0])
def test_held_out_molecules(row, denoising):
    name, raw, base, best, ours = row
    gains = denoising.loc[cells(name)].dropna()
    rivals = gains.drop([OURS, "autoimpute", *FLOORS], errors="ignore")
    best_gain, best_name = re.fullmatch(r"([\d.]+) \((.+)\)", best).groups()
    assert rivals.idxmax() == f"{FAMILIES[best_name]}_eb"
    assert agrees(best_gain, rivals.max())
    assert agrees(raw, gains["none"])
    assert agrees(base, gains["gene_mean_eb"])
    assert agrees(ours, gains[OURS])


def test_the_counts_objective_is_ahead_on_all_sets_with_every_seed():
    rows = pd.read_csv(RESULTS / "denoising.csv")
    deviance = rows.pivot_table(index=["dataset", "seed"], columns="method", values="deviance")
    assert (deviance.drop(columns=OURS).min(axis=1) > deviance[OURS]).all()
    assert deviance.index.get_level_values("dataset").nunique() == 19


NAMES = {"Deng": "preimplantation_deng", "Jurkat/293T": "jurkat_293t", "Darmanis": "quake_darmanis"}


def test_two_thousand_hidden_units():
    rows = (
        pd.read_csv(RESULTS / "variants.csv")
        .drop(columns=["flavor", "note"])
        .pivot_table(index="dataset", columns="method")
    )
    found = re.findall(r"(\S+) ([\d.]+) against ([\d.]+)[,;]", README[README.index("`hidden=2000`") :])
    assert len(found) == 3
    for written, wide, default in found:
        name = NAMES.get(written.strip("("), written.strip("(").lower())
        assert agrees(wide, rows.loc[name, ("rmse", "autoimpute_2000")])
        assert agrees(default, rows.loc[name, ("rmse", "autoimpute")])
    seconds = rows["seconds"]
    ratio = seconds["autoimpute_2000"] / seconds["autoimpute"]
    assert 8.5 < ratio.min() < ratio.max() < 15.5


@pytest.mark.parametrize("row", table("data set (cells) | gene mean"), ids=lambda row: row[0])
def test_hidden_values(row):
    rows = pd.read_csv(RESULTS / "recovery.csv")
    rows = rows[(rows["share"] == 0.1) & (rows["flavor"] == "cv")]
    name = row[0].partition(" (")[0]
    means = rows[rows["dataset"] == NAMES.get(name, name.lower())].groupby("method")["rmse"].agg(["mean", "count"])
    assert (means["count"] == 10).all()
    methods = ("gene_mean", "gene_cell_bias", "magic", "soft_impute", "als", "autoimpute")
    for text, method in zip(row[1:], methods, strict=False):
        assert agrees(text, means.loc[method, "mean"]), method
    assert means["mean"].idxmin() == "autoimpute"
