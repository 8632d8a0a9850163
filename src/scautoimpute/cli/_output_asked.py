"""What was asked of the output of a run, beyond its name: which genes, how they are stored, or no matrix."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._output_form import OutputForm

__all__ = ["as_options", "given_of", "output_asked", "refuse_report_of"]

_USUAL = ("dtype", "float32")
_INSTEAD = {"output_genes": "--output-genes", "dtype": "--dtype float16", "matrix": "--no-matrix"}


def output_asked(
    output: Path,
    *,
    output_genes: Path | None,
    sparse: float | None,
    dtype: str,
    compression: str | None,
    matrix: bool,
    sd: bool,
) -> "OutputForm":
    """Return the form of the output, if it goes together with the compression."""
    from .._output_form import OutputForm
    from .._refusals import refuse_form_in
    from ._counts_asked import gene_names

    names = gene_names(output_genes, "--output-genes")
    form = OutputForm.of(names, sparse_below=sparse, dtype=dtype, matrix=matrix, posterior_sd=sd)
    refuse_form_in(output, form, compression)
    return form


def given_of(asked: dict[str, Any], *, matrix: bool) -> dict[str, Any]:
    """Return by their names on the command line the options that were given, for other methods to refuse."""
    given = {name: value for name, value in asked.items() if value is not None and (name, value) != _USUAL}
    return given | ({} if matrix else {"no_matrix": True})


def as_options(form: "OutputForm", compression: str | None) -> dict[str, Any]:
    """Return as plain values what a run must have in common with the one that it goes on with."""
    return {
        "output_genes": None if form.output_genes is None else list(form.output_genes),
        "sparse": form.sparse_below,
        "dtype": form.dtype,
        "compression": compression,
        "matrix": form.matrix,
    }


def refuse_report_of(form: "OutputForm", report: Path | None) -> None:
    """Refuse a report of a run that leaves out what the report looks at."""
    given = [option for name, option in _INSTEAD.items() if getattr(form, name) not in {None, "float32", True}]
    if report is not None and given:
        msg = f"--report looks at the estimates of all genes in full, which {given[0]} leaves out: give one of them"
        raise ValueError(msg)
