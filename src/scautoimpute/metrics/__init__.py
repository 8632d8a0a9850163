"""Scores that say whether imputation helps, and measures of the harm it may do; nothing here knows a model."""

from .bulk import Bins, bulk_bins, bulk_expression, tmm_factors
from .counts import gene_frequencies, multinomial_gain, poisson_deviance, poisson_log_likelihood, thin
from .entries import entry_gains, score_entries
from .expression import FalseMarkers, NullExpression, false_markers, null_differential_expression
from .gain import Gain, HeldOutMolecules, held_out_molecules, molecule_gain, score_molecules
from .log_error import log_normalised_error
from .open_problems import open_problems_mse, open_problems_poisson
from .rare import RarePull, rare_pull, spike_in
from .recovery import Hidden, gene_cell_bias, gene_mean, hide_entries, recovery_scores
from .signals import PermutedCorrelations, SilentMarkers, permuted_correlations, silent_markers
from .smoothing import CorrelationShift, NeighbourVariance, correlation_shift, neighbour_variance_share
from .structure import cluster_agreement, first_components, silhouette
from .truth import bulk_similarity, reference_correlation
from .variance import five_numbers, log_variation, variation_by_type
from .zeros import counts_as_zero, zero_fractions

__all__ = [
    "Bins",
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
    "bulk_bins",
    "bulk_expression",
    "bulk_similarity",
    "cluster_agreement",
    "correlation_shift",
    "counts_as_zero",
    "entry_gains",
    "false_markers",
    "first_components",
    "five_numbers",
    "gene_cell_bias",
    "gene_frequencies",
    "gene_mean",
    "held_out_molecules",
    "hide_entries",
    "log_normalised_error",
    "log_variation",
    "molecule_gain",
    "multinomial_gain",
    "neighbour_variance_share",
    "null_differential_expression",
    "open_problems_mse",
    "open_problems_poisson",
    "permuted_correlations",
    "poisson_deviance",
    "poisson_log_likelihood",
    "rare_pull",
    "recovery_scores",
    "reference_correlation",
    "score_entries",
    "score_molecules",
    "silent_markers",
    "silhouette",
    "spike_in",
    "thin",
    "tmm_factors",
    "variation_by_type",
    "zero_fractions",
]
