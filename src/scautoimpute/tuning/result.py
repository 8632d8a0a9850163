"""What a search for settings found."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..autoimpute import AutoImpute

__all__ = ["Tuning"]


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes
    ----------
    table
        One row per candidate, best first: its settings; `default`, whether they are the preset's own; `rung`, the
        last that it reached, `max_epochs`, what it was given there, and `epochs`, what its longest training took of
        that; `converged`; `rmse`, `mae`, `nmse` at the entries that candidates were chosen by; `seconds` in all
        rungs; and `outcome`: `"best"`, `"kept"` (to the last rung) or `"eliminated"`.
    best
        Settings of the winner, as `AutoImpute` takes them.
    scores
        `rmse`, `mae`, `nmse` of `best`, of `default` and of `gene_mean` (of non-zeros) at entries that took no part
        in training, stopping or choosing.
    n_chosen_by, n_untouched
        How many entries candidates were chosen by, and how many the `scores` are of.
    gain, gain_se
        How much lower the RMSE of `best` is than that of `default` at the untouched entries, as a share of the
        latter, and its standard error over cells.
    preset, device, random_state
        As they were given.
    """

    table: pd.DataFrame
    best: dict[str, Any]
    scores: dict[str, dict[str, float]]
    n_chosen_by: int
    n_untouched: int
    gain: float
    gain_se: float
    preset: str | None
    device: str
    random_state: int | np.random.Generator

    @property
    def helped(self) -> bool:
        """Whether the winner beats the defaults at untouched entries by more than two standard errors."""
        return self.gain > 2 * self.gain_se

    @property
    def verdict(self) -> str:
        """What the untouched entries say, in words."""
        best, default = self.scores["best"]["rmse"], self.scores["default"]["rmse"]
        measured = (
            f"RMSE {best:.4g} against {default:.4g} of the defaults ({-self.gain:+.2%} ± {2 * self.gain_se:.2%}) "
            f"on {self.n_untouched:,} untouched entries"
        )
        if self.table["default"].iloc[0]:
            words = (
                f"nothing beat the defaults, RMSE {default:.4g} on {self.n_untouched:,} untouched entries: keep them"
            )
        elif self.helped:
            words = f"tuning helped: {measured}"
        elif self.gain < -2 * self.gain_se:
            words = f"tuning did harm: {measured}: keep the defaults"
        else:
            words = f"tuning made no clear difference: {measured}: the defaults are as good"
        mean = self.scores["gene_mean"]["rmse"]
        return words if best < mean else f"{words}; but the mean of each gene's non-zeros does better, {mean:.4g}"

    def model(self) -> AutoImpute:
        """Return a new, untrained `AutoImpute` with the best settings."""
        return AutoImpute(preset=self.preset, device=self.device, random_state=self.random_state, **self.best)
