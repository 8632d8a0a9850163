"""What the user may choose, what each preset chooses, and the checks on both."""

import math
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

from .optimizer import Optimizer

__all__ = ["MANY_CELLS", "Objective", "Preset", "Settings"]

Objective = Literal["masked", "counts"]
Preset = Literal["paper"]
MOST_NETWORKS = 20
# Many cells leave little to be gained by several folds, whose networks are averaged, and larger steps are then cheaper:
# what a step does to the weights costs as much whatever the number of its cells. A step of four times as many cells
# may be four times as long (measured: 2, 4, 8).
MANY_CELLS = 5000
_OF_MANY: dict[str, Any] = {"n_folds": 1, "batch_size": 256, "learning_rate": 1.2e-2}

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
    "counts": {
        "hidden": (128,),
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "l2": 0.0,
        "threshold": 1e-4,
        "max_epochs": 1000,
        "held_out_share": 0.05,
        "n_folds": 1,
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
    n_networks: int | None = None
    by_default: frozenset[str] = field(default=frozenset(), compare=False)  # what was not chosen

    @classmethod
    def resolve(cls, *, objective: str, preset: str | None, **chosen: Any) -> "Settings":
        """Fill what was not chosen (None) from the preset, and check all of it."""
        _one_of("objective", objective, get_args(Objective))
        if preset is not None:
            _one_of("preset", preset, get_args(Preset))
            if objective == "counts":
                msg = f"preset={preset!r} is a form of the masked objective: leave it out, or choose objective='masked'"
                raise ValueError(msg)
        values = _DEFAULTS["counts" if objective == "counts" else preset] | {
            name: value for name, value in chosen.items() if value is not None
        }
        values["hidden"] = _widths(values["hidden"])
        values |= {"by_default": frozenset(name for name, value in chosen.items() if value is None)}
        settings = cls(objective=objective, preset=preset, **({"batch_size": None} | values))  # type: ignore[arg-type]
        settings._check()
        _refuse_unused(settings, chosen)
        return settings

    def _check(self) -> None:
        _one_of("optimizer", self.optimizer, get_args(Optimizer))
        _number("learning_rate", self.learning_rate, 0, 10, open_low=True)
        _number("l2", self.l2, 0)
        _number("threshold", self.threshold, 0)
        _number("max_epochs", self.max_epochs, 1, whole=True)
        _number("n_folds", self.n_folds, 1, 20, whole=True)
        if self.batch_size is not None:
            _number("batch_size", self.batch_size, 1, whole=True)
        if self.n_networks is not None:
            _number("n_networks", self.n_networks, 1, MOST_NETWORKS, whole=True)
        lowest, highest = (0.0, 0.9) if self.preset == "paper" else (0.01, 0.9 / self.n_folds)
        _number("held_out_share", self.held_out_share, lowest, highest)

    def for_cells(self, n_cells: int) -> "Settings":
        """Return the settings for so many cells, of which those that were not chosen may depend on it."""
        if self.objective != "masked" or self.preset is not None:
            return self
        usual = _DEFAULTS[None]
        values = {"n_folds": usual["n_folds"], "batch_size": None, "learning_rate": usual["learning_rate"]}
        if n_cells > MANY_CELLS:
            values = _OF_MANY
        return replace(self, **{name: value for name, value in values.items() if name in self.by_default})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self) | {"hidden": list(self.hidden)}
        return {name: value for name, value in values.items() if name != "by_default"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Inverse of `to_json`; values that are out of range raise as they do in `resolve`."""
        _one_of("objective", values["objective"], get_args(Objective))
        _one_of("preset", values["preset"], (*get_args(Preset), None))
        settings = cls(**(values | {"hidden": _widths(values["hidden"])}))
        settings._check()
        return settings


def _one_of(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        msg = f"{name}={value!r} is not known: choose {' or '.join(repr(a) for a in allowed)}"
        raise ValueError(msg)


def _refuse_unused(settings: Settings, chosen: dict[str, Any]) -> None:
    """Refuse what was chosen explicitly and would have no effect."""
    is_paper = settings.preset == "paper"
    unused: dict[str, tuple[str, ...]] = {
        "preset='paper'": ("batch_size", "n_folds") if is_paper else (),
        f"optimizer={settings.optimizer!r} without preset='paper'": (
            ("l2",) if settings.optimizer != "adamw" and not is_paper else ()
        ),
        f"objective={settings.objective!r}": ("n_folds",) if settings.objective == "counts" else ("n_networks",),
    }
    for why, names in unused.items():
        for name in names:
            if chosen.get(name) is not None:
                msg = f"{name}={chosen[name]!r} has no effect with {why}: leave it out"
                raise ValueError(msg)


def _widths(hidden: Any) -> tuple[int, ...]:
    """Return the width of each hidden layer, given as one integer or several."""
    widths = tuple(hidden) if isinstance(hidden, (tuple, list)) else (hidden,)
    if not widths or any(isinstance(w, bool) or not isinstance(w, Integral) or w < 1 for w in widths):
        msg = f"hidden={hidden!r}: give the width of each hidden layer as integers of at least 1, e.g. (128,)"
        raise ValueError(msg)
    return tuple(int(width) for width in widths)


def _number(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False, whole: bool = False
) -> None:
    if isinstance(value, Integral if whole else Real) and not isinstance(value, bool):
        number = float(value)
        if (low < number if open_low else low <= number) and number <= high:
            return
    bound = f"above {low:g}" if open_low else f"of at least {low:g}"
    limit = "" if math.isinf(high) else f" and at most {high:.3g}"
    msg = f"{name}={value!r} is out of range: give {'an integer' if whole else 'a number'} {bound}{limit}"
    raise ValueError(msg)
