"""What is estimated of an entry: its expression given that it was detected, or its expected expression."""

from typing import Literal, TypeAlias, get_args

__all__ = ["Estimand", "check_estimand"]

Estimand: TypeAlias = Literal["detected", "expected"]


def check_estimand(estimand: str, preset: str | None) -> None:
    """Refuse an unknown name, and what the published method cannot give."""
    if estimand not in get_args(Estimand):
        msg = f"estimand={estimand!r} is not known: choose {' or '.join(map(repr, get_args(Estimand)))}"
        raise ValueError(msg)
    if estimand == "expected" and preset == "paper":
        msg = "estimand='expected' is no part of preset='paper', which knows nothing of zeros: leave one of them out"
        raise ValueError(msg)
