"""What was asked of a training: its objective, and what only the counts objective knows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._objective import Chosen
    from ..autoimpute import AutoImpute

__all__ = ["as_parameters", "gene_names", "untrained"]


def gene_names(path: Path | None, option: str = "--genes") -> list[str] | None:
    """Read names of genes, one a line; whatever follows a tab or a comma, and empty lines, are left out."""
    from ..io.checks import one_line

    if path is None:
        return None
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{option} {path} cannot be read as text ({one_line(error)}): give a file with a name on each line"
        raise ValueError(msg) from error
    names = [line.replace(",", "\t").split("\t")[0].strip() for line in text.splitlines()]
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        msg = f"{option} {path} names no gene: give a file with a name on each line"
        raise ValueError(msg)
    return found


def as_parameters(of_counts: dict[str, Any]) -> dict[str, Any]:
    """Return options as parameters of `tl.autoimpute`, but for what was not asked."""
    return {{"sd": "posterior_sd"}.get(name, name): value for name, value in of_counts.items()}


def untrained(chosen: "Chosen | None", *, training: dict[str, Any], device: str, seed: int) -> "AutoImpute":
    """Make the estimator that was asked for, with the objective that was `chosen` for the data if they are known."""
    from ..autoimpute import AutoImpute

    asked = {name: value for name, value in training.items() if value is not None}
    if chosen is not None:
        asked |= {"objective": chosen.objective, "estimand": chosen.estimand}
    return AutoImpute(device=device, random_state=seed, **asked)
