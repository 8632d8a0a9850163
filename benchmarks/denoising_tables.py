"""Markdown tables of the rows of the denoising benchmark."""

from pathlib import Path

import pandas as pd

from denoising_data import PAIRS
from denoising_rivals import METHODS
from recovery_tables import hardware, markdown

__all__ = ["write_tables"]

SUBJECT = "autoimpute_counts"
OURS = {SUBJECT, "autoimpute"}
SEEN_AFTERWARDS = (  # when the recipe stood
    "mixology_RNAmix_sortseq",
    "zeisel_descend_1464",
    "mixology_sc_celseq2_5cl",
    "zheng_sorted_ref",
    "pbmc_donorA_frozen",
    "pbmc_facs_zheng",
)
# Title, whether more is better, digits, and what it says
MEASURES = {
    "deviance": (
        "Poisson deviance per held-out molecule",
        False,
        4,
        "Every cell's expectation at its own training total times the depth of the held-out molecules. Less is better.",
    ),
    "gain": (
        "Milli-nats per held-out molecule over the gene mean",
        True,
        1,
        "Multinomial log-likelihood above that of gene frequencies × library. More is better; ranks as the deviance.",
    ),
    "removed": (
        "Share of the removable error of logs that was removed",
        True,
        3,
        "Squared error of ln(1 + share × median held-out total): 0 is no imputation, 1 the noise floor of a second "
        "thinning, which is that of the expected logarithm, not of the logarithm of the rate.",
    ),
    "ari": (
        "ARI",
        True,
        3,
        "k-means on 20 principal components of the log, as many groups as there are types; types of fewer than 10 "
        "cells and unassigned cells are left out. Mean of five starts. No imputation goes through the same.",
    ),
    "silhouette": ("Silhouette of the types", True, 3, "On the same components."),
    "gene_r": (
        "Correlation with the deep reference, per gene",
        True,
        4,
        "Median over genes of Pearson's correlation of the shares, across cells. Of pbmc3k_ds0.3 the reference is what "
        "was not in the input.",
    ),
    "cell_r": (
        "Correlation with the deep reference, per cell",
        True,
        4,
        "Median over cells of that of square roots, across genes.",
    ),
    "bulk_r": (
        "Likeness to bulk",
        True,
        4,
        "Median over cells of Spearman's correlation with bulk RNA-seq of the cell's own line.",
    ),
    "fold_change_r": (
        "Log fold changes of bulk",
        True,
        4,
        "Spearman's correlation of the fold changes between two lines, cells' means against bulk; mean over pairs.",
    ),
    "op_mse": (
        "Open Problems v1, mean squared error",
        False,
        4,
        "As published, for comparison only: rewards the expected log at a tenth of the depth, not the rate. "
        'autoimpute_counts hands in just that (`scale="expected_log1p"`), the others their estimates. Less is called '
        "better.",
    ),
    "op_poisson": (
        "Open Problems v1, “Poisson loss”",
        False,
        4,
        "As published, for comparison only: its arguments are swapped, so it is linear in the estimate and falls with "
        "its size. MAGIC's winning variant leads because it hands in values at the total of the square roots.",
    ),
}


FOR_COMPARISON = ("op_mse", "op_poisson")  # which nobody is called ahead by


def write_tables(rows: pd.DataFrame, path: Path, *, jobs: int) -> str:
    """Write every table to `path` and return the text."""
    rows = rows.assign(dataset=pd.Categorical(rows["dataset"], rows["dataset"].unique()))
    parts = ["# Molecules not seen", hardware(jobs), legend(rows), "## Data", data_table(rows)]
    if SUBJECT in set(rows["method"]):
        parts += ["## Where a rival is ahead", behind(rows)]
    parts += ["## Best of each data set", winners(rows)]
    for measure, (title, more, digits, words) in MEASURES.items():
        known = rows.dropna(subset=[measure])
        if len(known):
            parts += [f"## {title}", words, score_table(known, measure, more=more, digits=digits)]
    parts += ["## Median seconds to choose and to fit", *of_gpus(rows), seconds_table(rows)]
    text = "\n\n".join(parts) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def legend(rows: pd.DataFrame) -> str:
    seeds = rows.loc[~rows["dataset"].isin(PAIRS), "seed"].nunique()
    absent = [method for method in METHODS if method not in set(rows["method"])]
    text = (
        f"Mean over {seeds} thinning seeds (standard deviation in brackets; n where a cell has fewer than the most of "
        "its column); pairs are thinned already, so they have one. Bold: the best over the seeds that most methods of "
        "the column have. `_eb`: with the empirical-Bayes step, by gene dispersions. Ranks, neighbours, the share of "
        "the gene mean and the dispersion's scale are chosen on a tenth of the training molecules. Where the largest "
        "that had been offered was chosen with the step, NMF was offered ranks 32 and 64, PCA 80, kNN 400 neighbours "
        "at seed 0 too. NMF takes 100 updates. Likelihoods are of the estimate with that share mixed in, everything "
        "else of the method's own values. The recipe of "
        f"autoimpute_counts was developed on these molecules, but not of {', '.join(SEEN_AFTERWARDS)}, which came "
        "when it stood."
    )
    return text + (f" Not run: {', '.join(absent)}." if absent else "")


def data_table(rows: pd.DataFrame) -> str:
    first = rows.drop_duplicates("dataset")
    lines = [[r.dataset, str(r.n_cells), str(r.n_genes)] for r in first.itertuples()]
    return markdown(["data set", "cells", "genes"], lines)


def behind(rows: pd.DataFrame) -> str:
    """List every data set and measure of which a rival has the better mean, over the seeds that both have."""
    lines, n_cells = [], 0
    measures = {measure: about for measure, about in MEASURES.items() if measure not in FOR_COMPARISON}
    for measure, (title, more, digits, _) in measures.items():
        for dataset, group in rows.dropna(subset=[measure]).groupby("dataset", observed=True):
            wide = group.pivot_table(index="seed", columns="method", values=measure, observed=True)
            if SUBJECT not in wide:
                continue
            sign = 1 if more else -1
            lead = {m: sign * (wide[m] - wide[SUBJECT]).mean() for m in wide if m not in OURS}
            if not lead:
                continue
            n_cells += 1
            rival = max(lead, key=lambda name: lead[name])
            if lead[rival] > 0:
                ours, theirs = wide[[SUBJECT, rival]].dropna().mean()
                lines.append([title, str(dataset), rival, f"{theirs:.{digits}f}", f"{ours:.{digits}f}"])
    summary = f"{SUBJECT} is best or equal in {n_cells - len(lines)} of {n_cells} cells (data set × measure)."
    if not lines:
        return summary
    return f"{summary} It is not in these:\n\n" + markdown(["measure", "data set", "rival", "rival's", "ours"], lines)


def at_common_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the seeds that most methods of their data set have: slow rivals have fewer seeds than the others."""
    n_here = rows.groupby(["dataset", "seed"], observed=True)["method"].transform("nunique")
    return rows[n_here == n_here.groupby(rows["dataset"], observed=True).transform("max")]


def winners(rows: pd.DataFrame) -> str:
    """Name the best method of each data set by likelihood, the next best, and how far behind that is."""
    lines = []
    for dataset, group in at_common_seeds(rows).groupby("dataset", observed=True):
        mean = group.groupby("method", observed=True)["gain"].mean().sort_values(ascending=False)
        first, second = mean.index[0], mean.index[1] if len(mean) > 1 else "–"
        lead = f"{mean.iloc[0] - mean.iloc[1]:.1f}" if len(mean) > 1 else "–"
        lines.append([str(dataset), first, f"{mean.iloc[0]:.1f}", second, lead, str(len(mean))])
    header = ["data set", "lowest deviance", "milli-nats over the gene mean", "next", "ahead by", "methods run"]
    return markdown(header, lines)


def score_table(rows: pd.DataFrame, measure: str, *, more: bool, digits: int) -> str:
    """One line per method, one column per data set: there are more methods than sets to a page."""
    scores = rows.groupby(["dataset", "method"], observed=True)[measure].agg(["mean", "std", "count"])
    datasets = [name for name in rows["dataset"].cat.categories if name in set(rows["dataset"])]
    compared = at_common_seeds(rows).groupby(["dataset", "method"], observed=True)[measure].mean()
    best = {name: compared[name].max() if more else compared[name].min() for name in datasets}
    most = {name: scores.loc[name]["count"].max() for name in datasets}
    lines = []
    for method in (m for m in METHODS if m in set(rows["method"])):
        cells = []
        for name in datasets:
            if (name, method) not in scores.index:
                cells.append("–")
                continue
            found = scores.loc[name, method]
            text = f"{found['mean']:.{digits}f}"
            text = f"**{text}**" if compared.get((name, method)) == best[name] else text
            text += "" if pd.isna(found["std"]) else f" ({found['std']:.{digits}f})"
            cells.append(text if found["count"] == most[name] else f"{text} n={found['count']:.0f}")
        lines.append([method, *cells])
    return markdown(["method", *datasets], lines)


def of_gpus(rows: pd.DataFrame) -> list[str]:
    """Which seconds are not of the processor: those whose note names a GPU."""
    there = rows[rows["note"].fillna("").str.contains("on an NVIDIA")]
    return [f"Those of {row.method} on {row.dataset}: {row.note}." for row in there.itertuples()]


def seconds_table(rows: pd.DataFrame) -> str:
    median = rows.pivot_table(index="method", columns="dataset", values="seconds", aggfunc="median", observed=True)
    median = median.reindex([method for method in METHODS if method in median.index])
    lines = [[name, *("–" if pd.isna(s) else f"{s:.1f}" for s in values)] for name, *values in median.itertuples()]
    return markdown(["method", *map(str, median.columns)], lines)
