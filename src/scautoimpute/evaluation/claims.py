"""What the paper says in words, beside what was found here."""

from typing import Any

__all__ = ["claims_of"]


def claims_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    return []
