"""Whether imputation helps these data, and whether it does harm: measured, then said in words."""

from .harm import Harm, measure_harm
from .imputer import imputer
from .verdict import Verdict, judge

__all__ = ["Harm", "Verdict", "imputer", "judge", "measure_harm"]
