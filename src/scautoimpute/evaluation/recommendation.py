"""Which method to use, in words."""

from typing import Any

__all__ = ["recommendation_of"]


def recommendation_of(results: dict[str, Any]) -> dict[str, Any]:
    return {}
