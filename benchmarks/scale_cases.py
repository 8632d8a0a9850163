"""The runs of the scale benchmark: of which cells and genes, with which options, and what was asked of them."""

from dataclasses import dataclass, replace

__all__ = ["CASES", "LARGE", "SIZES", "Case"]

SIZES = (1_000, 10_000, 68_579, 200_000, 1_300_000)
PAPER = 68_579  # cells of the largest set of the paper
COMPARED = (1_000, 3_000, 5_000, 10_000, PAPER)  # that other methods are run on too
LARGE = 1_300_000
COUNTS = ("--objective", "counts")
WIDE = ("--objective", "masked", "--hidden", "2000")
FIVE_MINUTES = ("--max-epochs", "32")  # resampled cells are learned by heart, which takes longer than real ones do
N_OUTPUT_GENES = 1000


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    family
        What is run; its cases differ in the number of cells.
    cells, genes
        Of the input; genes are a number, the most dispersed ones, or "all".
    options
        Of `scautoimpute impute`.
    output_genes
        How many genes the output has, if not all.
    most_seconds, most_gb, most_imports_s
        What was asked of time, peak memory, and seconds for loading libraries.
    """

    family: str
    cells: int
    genes: str
    options: tuple[str, ...]
    output_genes: int | None = None
    most_seconds: float | None = None
    most_gb: float | None = None
    most_imports_s: float | None = None

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.family}_{self.cells}"


def _of(family: str, genes: str, options: tuple[str, ...], sizes: tuple[int, ...], **asked: int) -> list[Case]:
    return [Case(family, size, genes, options, **asked) for size in sizes]


_ASKED = {
    f"masked_5_minutes_{PAPER}": {"most_seconds": 300, "most_gb": 1.5},
    f"masked_2000_{PAPER}": {"most_seconds": 300, "most_gb": 1.5},
    f"counts_all_{PAPER}": {"most_seconds": 900, "most_gb": 3.0},
    f"counts_1000_{LARGE}": {"most_seconds": 2400, "most_gb": 3.0},
    f"counts_10000_{LARGE}": {"most_seconds": 7200, "most_gb": 4.0},
    "counts_1000_1000": {"most_imports_s": 3.0},
}
_ALL = [
    *_of("counts_1000", "1000", COUNTS, SIZES),
    *_of("masked_5_minutes", "1000", (*WIDE, *FIVE_MINUTES), SIZES[:3]),
    *_of("masked_2000", "1000", WIDE, SIZES[:3]),
    *_of("masked_converged", "1000", (*WIDE, "--threshold", "2e-5", "--max-epochs", "1000"), SIZES[:3]),
    *_of("counts_all", "all", COUNTS, COMPARED),
    *_of("counts_10000", "10000", COUNTS, SIZES, output_genes=N_OUTPUT_GENES),
    *_of("magic_all", "all", ("--method", "magic"), COMPARED),
    *_of("scvi_all", "all", ("--method", "scvi"), COMPARED),
]
CASES = [replace(case, **_ASKED.get(case.name, {})) for case in _ALL]
