"""Scores that say whether imputation helps; nothing here knows a model."""

from .recovery import Hidden, gene_cell_bias, gene_mean, hide_entries, recovery_scores

__all__ = ["Hidden", "gene_cell_bias", "gene_mean", "hide_entries", "recovery_scores"]
