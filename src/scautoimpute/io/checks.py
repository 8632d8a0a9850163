"""What a path, a file's contents and the orientation of a matrix must be."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "NAMES_LOOKED_AT",
    "BadContentError",
    "NoRoomError",
    "UnreadableFileError",
    "WithoutNul",
    "looks_transposed",
    "one_line",
    "recognised_suffix",
    "refuse_transposed",
]

_ENSEMBL_GENE = re.compile(r"^ENS[A-Z]{0,4}G\d{6,}")
_BARCODE = re.compile(r"^[ACGT]{10,}(-\d+)?$")
# Genes that nearly every data set of a mammal holds, whichever genes were selected.
_WELL_KNOWN_GENE = re.compile(
    r"^(MT-(ND\dL?|CO\d|CYB|ATP\d|RNR\d)|RP[LS]P?\d+[AXYL]?\d*|ACTB|ACTG1|GAPDH|MALAT1|B2M|TMSB4X|TMSB10|EEF1A1|"
    r"EEF2|FTH1|FTL1?|TPT1|UBC|HSP90AB1|HSP90AA1|HSPA8|TUBA1B|TUBB|VIM|CD74|NEAT1|XIST|H3F3B|LDHA|ENO1|PKM|TPI1|"
    r"ACTA2|COX[4-8][A-C]\d*|NDUF[ABCSV]\d+)$",
    re.IGNORECASE,
)
NAMES_LOOKED_AT = 100_000  # no genome has more genes; millions of cell names need not all be read


class BadContentError(ValueError):
    """What a reader found in a file, in words; `read` puts the name of the file before it."""


class UnreadableFileError(ValueError):
    """What is wrong with the contents of a file, with its name: what was made of it before may still be right."""


class NoRoomError(OSError):
    """There is no place for what a file is unpacked to."""


def recognised_suffix(path: Path, allowed: Sequence[str]) -> str:
    """Return the entry of `allowed` that `path` ends in, or raise a ``ValueError`` that lists them."""
    name = path.name.lower()
    for suffix in sorted(allowed, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return suffix
    found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
    msg = f"{path} has {found}; allowed are {', '.join(allowed)}: rename or convert it"
    raise ValueError(msg)


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """Return what an error and its notes say as a single line of at most `limit` characters."""
    text = " ".join(" ".join([str(error), *getattr(error, "__notes__", [])]).split())
    return (text or type(error).__name__)[:limit]


def looks_transposed(adata: "AnnData") -> str | None:
    """Say why an object looks like genes × cells, or return None if nothing speaks for it.

    Decided by names: Ensembl gene ids or well-known gene symbols among the obs names, cell barcodes among the var
    names. The shape is only a supporting witness: it never decides without a gene name.

    Parameters
    ----------
    adata
        The object to look at; only its names and shape are read.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from anndata import AnnData
    >>> genes, cells = pd.DataFrame(index=["ENSG00000075624", "ENSG00000111640"]), pd.DataFrame(index=["c1", "c2"])
    >>> looks_transposed(AnnData(np.ones((2, 2)), obs=cells, var=genes)) is None
    True
    >>> looks_transposed(AnnData(np.ones((2, 2)), obs=genes, var=cells))
    "obs names such as 'ENSG00000075624' are genes"
    """
    obs, var = _some_names(adata.obs_names), _some_names(adata.var_names)
    gene = _gene_among(obs, other=var, is_tall=adata.n_obs > 5 * adata.n_vars)
    if gene is not None:
        return f"obs names such as {gene!r} are genes"
    barcodes = _matches(_BARCODE, var)
    if 2 * len(barcodes) > len(var) and not _matches(_BARCODE, obs):
        return f"var names such as {barcodes[0]!r} are cell barcodes"
    return None


def refuse_transposed(adata: "AnnData") -> None:
    """Raise a ``ValueError`` with the way to fix it if `adata` looks like genes × cells."""
    reason = looks_transposed(adata)
    if reason is not None:
        msg = (
            f"the {adata.n_obs} × {adata.n_vars} matrix looks like genes × cells ({reason}); cells × genes is needed: "
            f"pass adata.T, or --transpose on the command line"
        )
        raise ValueError(msg)


def _some_names(names: Any) -> list[str]:
    step = -(-len(names) // NAMES_LOOKED_AT) or 1
    return [str(name) for name in names[::step]]


def _matches(pattern: re.Pattern[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if pattern.match(name)]


def _gene_among(names: list[str], *, other: list[str], is_tall: bool) -> str | None:
    """Return one of `names` that shows them to be genes and `other` not to be, else None."""
    ensembl = _matches(_ENSEMBL_GENE, names)
    if 2 * len(ensembl) > len(names) and not _matches(_ENSEMBL_GENE, other):
        return ensembl[0]
    known, known_in_other = _matches(_WELL_KNOWN_GENE, names), _matches(_WELL_KNOWN_GENE, other)
    enough = 1 if is_tall else 3
    return known[0] if len(known) >= enough and not known_in_other else None


class WithoutNul:
    """A text or its bytes, opened, in which NUL is refused: lost blocks of a disk read as it, and parsers pass over it.

    SciPy's parser of Matrix Market crashes on it.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self, size: int = -1) -> Any:
        """Read as the handle does."""
        return self._checked(self._handle.read(size))

    def __iter__(self) -> "WithoutNul":
        return self

    def __next__(self) -> Any:
        return self._checked(next(self._handle))

    @staticmethod
    def _checked(text: Any) -> Any:
        if ("\0" if isinstance(text, str) else b"\0") in text:
            msg = "it holds NUL characters, which no text does: it is damaged; get it again"
            raise BadContentError(msg)
        return text
