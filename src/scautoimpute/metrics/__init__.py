"""Scores that say whether imputation helps; nothing here knows a model."""

from .counts import (
    gene_frequencies,
    multinomial_gain,
    poisson_deviance,
    poisson_log_likelihood,
    thin,
)
from .log_error import log_normalised_error
from .open_problems import open_problems_mse, open_problems_poisson
from .recovery import Hidden, gene_cell_bias, gene_mean, hide_entries, recovery_scores
from .truth import bulk_similarity, reference_correlation

__all__ = [
    "Hidden",
    "bulk_similarity",
    "gene_cell_bias",
    "gene_frequencies",
    "gene_mean",
    "hide_entries",
    "log_normalised_error",
    "multinomial_gain",
    "open_problems_mse",
    "open_problems_poisson",
    "poisson_deviance",
    "poisson_log_likelihood",
    "recovery_scores",
    "reference_correlation",
    "thin",
]
