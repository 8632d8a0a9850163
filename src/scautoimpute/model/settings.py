"""What the user may choose, what each preset chooses, and the checks on both."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from .optimizer import Optimizer

__all__ = ["Objective", "Preset", "Settings"]

Objective = Literal["masked"]
Preset = Literal["paper"]

_DEFAULTS: dict[str | None, dict[str, Any]] = {
    None: {
        "hidden": (128,),
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "l2": 0.01,
        "threshold": 2e-4,
        "max_epochs": 150,
        "held_out_share": 0.1,
        "n_folds": 3,
    },
    # The published program's defaults (paper, Methods; AutoImpute.py)
    "paper": {
        "hidden": (2000,),
        "optimizer": "tf_rmsprop",
        "learning_rate": 1e-4,
        "l2": 1.0,
        "threshold": 1e-4,
        "max_epochs": 7000,
        "held_out_share": 0.0,
        "n_folds": 1,
    },
}


@dataclass(frozen=True)
class Settings:
    """Every choice that training depends on, resolved and checked; see `AutoImpute` for what each means."""

    objective: Objective
    preset: Preset | None
    hidden: tuple[int, ...]
    optimizer: Optimizer
    learning_rate: float
    l2: float
    threshold: float
    max_epochs: int
    batch_size: int | None
    held_out_share: float
    n_folds: int

    @classmethod
    def resolve(cls, *, objective: str, preset: str | None, **chosen: Any) -> "Settings":
        """Fill what was not chosen (None) from the preset, and check all of it."""
        _one_of("objective", objective, get_args(Objective))
        if preset is not None:
            _one_of("preset", preset, get_args(Preset))
        values = _DEFAULTS[preset] | {name: value for name, value in chosen.items() if value is not None}
        hidden = values["hidden"]
        values["hidden"] = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        # A wider layer takes proportionally smaller steps: measured optimum about 1/√width
        if preset is None and chosen.get("learning_rate") is None:
            values["learning_rate"] *= (128 / max(1, *values["hidden"], 1)) ** 0.65
        settings = cls(objective=objective, preset=preset, **({"batch_size": None} | values))  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        _one_of("optimizer", self.optimizer, get_args(Optimizer))
        if not self.hidden or any(not isinstance(width, int) or width < 1 for width in self.hidden):
            msg = f"hidden={self.hidden!r}: give the width of each hidden layer as integers of at least 1, e.g. (128,)"
            raise ValueError(msg)
        _between("learning_rate", self.learning_rate, 0, 10, open_low=True)
        _between("l2", self.l2, 0, math.inf)
        _between("threshold", self.threshold, 0, math.inf)
        _between("max_epochs", self.max_epochs, 1, math.inf)
        _between("n_folds", self.n_folds, 1, 20)
        if self.batch_size is not None:
            _between("batch_size", self.batch_size, 1, math.inf)
        lowest, highest = (0.0, 0.9) if self.preset == "paper" else (0.01, 0.9 / self.n_folds)
        _between("held_out_share", self.held_out_share, lowest, highest)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Inverse of `to_json`."""
        return cls(**(values | {"hidden": tuple(values["hidden"])}))


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        msg = f"{name}={value!r} is not known: choose {' or '.join(repr(a) for a in allowed)}"
        raise ValueError(msg)


def _between(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not low <= value <= high or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        limit = "" if math.isinf(high) else f" and at most {high:.3g}"
        msg = f"{name}={value!r} is out of range: give a value of {bound}{limit}"
        raise ValueError(msg)
