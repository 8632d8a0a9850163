"""Scores that say whether imputation helps, and measures of the harm it may do; nothing here knows a model."""

from .entries import entry_gains, score_entries
from .expression import FalseMarkers, NullExpression, false_markers, null_differential_expression
from .gain import Gain, HeldOutMolecules, held_out_molecules, molecule_gain, score_molecules
from .rare import RarePull, rare_pull, spike_in
from .recovery import Hidden, gene_cell_bias, gene_mean, hide_entries, recovery_scores
from .signals import PermutedCorrelations, SilentMarkers, permuted_correlations, silent_markers
from .smoothing import CorrelationShift, NeighbourVariance, correlation_shift, neighbour_variance_share

__all__ = [
    "CorrelationShift",
    "FalseMarkers",
    "Gain",
    "HeldOutMolecules",
    "Hidden",
    "NeighbourVariance",
    "NullExpression",
    "PermutedCorrelations",
    "RarePull",
    "SilentMarkers",
    "correlation_shift",
    "entry_gains",
    "false_markers",
    "gene_cell_bias",
    "gene_mean",
    "held_out_molecules",
    "hide_entries",
    "molecule_gain",
    "neighbour_variance_share",
    "null_differential_expression",
    "permuted_correlations",
    "rare_pull",
    "recovery_scores",
    "score_entries",
    "score_molecules",
    "silent_markers",
    "spike_in",
]
