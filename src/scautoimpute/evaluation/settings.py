"""What a run is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["PAPER_EXPERIMENTS", "SHARES", "SIZES", "Settings"]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
SIZES = (1_000, 5_000, 10_000, 68_000)
COUNTS = "autoimpute-counts"
PAPER_EXPERIMENTS = ("zeros", "recovery", "structure", "scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of a run, checked.

    Attributes
    ----------
    labels
        Column of `obs` with the cell types; None without.
    methods, experiments
        Which, in order.
    left_out
        Methods that take long, which were not named.
    shares
        Of the entries that are hidden in turn.
    seeds
        Seeds 0 to so many less one.
    full
        Whether the published training, which takes minutes to hours, is run with every seed and share too.
    jobs
        Processes at a time, of one thread each; None for one per processor.
    time_limit, memory_limit
        Of a cell: processor seconds, gigabytes.
    retry
        Whether cells that failed are run again.

    Raises
    ------
    ValueError
        If a name is unknown or a number out of its range.
    """

    labels: str | None
    methods: tuple[str, ...]
    experiments: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    shares: tuple[float, ...] = SHARES
    seeds: int = 3
    full: bool = False
    jobs: int | None = None
    time_limit: float = 300
    memory_limit: float | None = None
    retry: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "jobs", "time_limit", "memory_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                msg = f"--{name.replace('_', '-')} {value} is not positive: give a number above 0"
                raise ValueError(msg)

    @classmethod
    def checked(
        cls,
        *,
        methods: Sequence[str] | None,
        experiments: Sequence[str] | None,
        allowed: Sequence[str],
        leave_out: Sequence[str] = (),
        **others: Any,
    ) -> "Settings":
        """Return the settings, with every method but `leave_out`, and all `allowed` experiments, where none are named.

        The counts objective has no column of its own unless named: of molecules it is what `autoimpute` stands for.
        """
        from ..methods import METHODS

        usual = [name for name in METHODS if name not in {COUNTS, *leave_out}]
        of_methods = _chosen("--methods", methods or usual, tuple(METHODS))
        of_experiments = _chosen("--experiments", experiments, tuple(allowed))
        left_out = () if methods else tuple(leave_out)
        return cls(methods=of_methods, experiments=of_experiments, left_out=left_out, **others)


def _chosen(option: str, asked: Sequence[str] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in asked or () if name not in allowed]
    if unknown:
        msg = f"{option} {unknown[0]!r} is not known: choose {', '.join(allowed)}"
        raise ValueError(msg)
    return allowed if not asked else tuple(name for name in allowed if name in asked)
