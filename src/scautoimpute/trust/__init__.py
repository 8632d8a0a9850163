"""Whether imputation helps these data, and whether it does harm: measured, then said in words."""

from .evidence import Evidence, examine
from .harm import Harm, measure_harm
from .imputer import imputer
from .verdict import Verdict, judge

__all__ = ["Evidence", "Harm", "Verdict", "examine", "imputer", "judge", "measure_harm"]
