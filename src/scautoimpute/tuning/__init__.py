"""Choosing λ, hidden size, learning rate and threshold on held-out entries, and saying whether it helped."""

from .result import Tuning
from .tune import tune, tune_processed

__all__ = ["Tuning", "tune", "tune_processed"]
