"""One cell of the table of results: what is asked of it, and what came of it, in plain types that a file can hold."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["DataSet", "Outcome", "Status", "Task"]

Status = Literal["done", "failed", "timed out", "out of memory", "not run"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A file and what is known of it.

    Attributes
    ----------
    name, path
        What it is called in tables, and where it is.
    layer
        Where its counts are; None for `X`.
    labels
        Column of `obs` with the cell types; None if it has none that can be used.
    cells, genes
        Its size.
    is_counts
        Whether the values are whole numbers.
    lines
        Where matched bulk is: for each cell line its label (None for all cells) and its columns in `bulk`.
    bulk
        The file of bulk counts.
    facts
        What the manifest says of it.
    """

    name: str
    path: str
    layer: str | None
    labels: str | None
    cells: int
    genes: int
    is_counts: bool
    lines: dict[str, tuple[str | None, list[str]]] = field(default_factory=dict)
    bulk: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """A cell to fill.

    Attributes
    ----------
    experiment, dataset, method, seed
        Which one.
    data
        What it is run on.
    asked
        What else its scores depend on, e.g. the shares to hide; plain types.
    after
        Name of the cell that must have gone well before this one is worth trying.
    cost
        Rough guess of its seconds, for the order and the time left.
    """

    experiment: str
    dataset: str
    method: str
    seed: int
    data: DataSet
    asked: dict[str, Any]
    after: str | None = None
    cost: float = 1.0

    @property
    def name(self) -> str:
        """As in the name of its file."""
        return f"{self.experiment}.{self.dataset}.{self.method}.{self.seed}"


@dataclass(slots=True)
class Outcome:
    """What came of a task.

    Attributes
    ----------
    status, note
        How it ended, and why or what else is to be said, in a line.
    seconds
        Processor time of imputing, in one thread.
    peak_gb
        Memory that imputing took at most beyond what was held before.
    scores
        ``{"setting", "measure", "value"}`` each.
    figure
        Small arrays that the figures are drawn from.
    """

    status: Status = "done"
    note: str = ""
    seconds: float | None = None
    peak_gb: float | None = None
    scores: list[dict[str, Any]] = field(default_factory=list)
    figure: dict[str, Any] = field(default_factory=dict)

    def as_cell(self, task: Task) -> dict[str, Any]:
        """Return what is written of the task and its outcome."""
        which = {name: getattr(task, name) for name in ("experiment", "dataset", "method", "seed", "asked")}
        return which | asdict(self)
