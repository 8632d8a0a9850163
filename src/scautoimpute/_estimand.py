"""What is estimated of an entry: its expression given that it was detected, or its expected expression."""

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from .model.settings import Settings

__all__ = ["Estimand", "check_estimand", "check_learned", "default_estimand"]

Estimand: TypeAlias = Literal["detected", "expected"]


def check_estimand(estimand: str | None, *, preset: str | None = None, objective: str | None = None) -> None:
    """Refuse an unknown name, and what the published method or the objective cannot be told; None is no choice."""
    if estimand is None:
        return
    if estimand not in get_args(Estimand):
        msg = f"estimand={estimand!r} is not known: choose {' or '.join(map(repr, get_args(Estimand)))}"
        raise ValueError(msg)
    if objective == "counts":
        msg = f"estimand={estimand!r} has no effect with objective='counts', which estimates what is expected: omit it"
        raise ValueError(msg)
    if estimand == "expected" and preset == "paper":
        msg = "estimand='expected' is no part of preset='paper', which knows nothing of zeros: leave one of them out"
        raise ValueError(msg)


def default_estimand(objective: str) -> Estimand:
    """Return what an objective estimates unless told otherwise."""
    return "expected" if objective == "counts" else "detected"


def check_learned(estimand: str | None, settings: "Settings", *, learned: bool) -> None:
    """Refuse to estimate what a trained model did not learn."""
    check_estimand(estimand, preset=settings.preset, objective=settings.objective)
    if estimand == "expected" and not learned:
        msg = "estimand='expected' asks for what this model did not learn: train AutoImpute(estimand='expected')"
        raise ValueError(msg)
