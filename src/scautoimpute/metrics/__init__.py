"""Scores that say whether imputation helps; nothing here knows a model."""

from .bulk import Bins, bulk_bins, bulk_expression, tmm_factors
from .recovery import Hidden, gene_cell_bias, gene_mean, hide_entries, recovery_scores
from .structure import cluster_agreement, first_components, silhouette
from .variance import five_numbers, log_variation, variation_by_type
from .zeros import counts_as_zero, zero_fractions

__all__ = [
    "Bins",
    "Hidden",
    "bulk_bins",
    "bulk_expression",
    "cluster_agreement",
    "counts_as_zero",
    "first_components",
    "five_numbers",
    "gene_cell_bias",
    "gene_mean",
    "hide_entries",
    "log_variation",
    "recovery_scores",
    "silhouette",
    "tmm_factors",
    "variation_by_type",
    "zero_fractions",
]
