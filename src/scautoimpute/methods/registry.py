"""Every method by name: floors first, then the rivals, then AutoImpute."""

from collections.abc import Mapping
from types import MappingProxyType

from . import alra, als, autoimpute, autoimpute_counts, drimpute, floors, knn, magic, scimpute, scvi, soft_impute
from ._record import Method

__all__ = ["METHODS", "method_named"]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        record.name: record
        for record in (
            floors.NONE,
            floors.GENE_MEAN,
            floors.GENE_CELL_BIAS,
            als.METHOD,
            soft_impute.METHOD,
            knn.METHOD,
            magic.METHOD,
            scimpute.METHOD,
            drimpute.METHOD,
            alra.METHOD,
            scvi.METHOD,
            autoimpute.METHOD,
            autoimpute_counts.METHOD,
            autoimpute.PAPER,
        )
    }
)


def method_named(name: str) -> Method:
    """Return the record of a method, or refuse a name that is not one."""
    if name not in METHODS:
        msg = f"method={name!r} is not known: choose {', '.join(map(repr, METHODS))}"
        raise ValueError(msg)
    return METHODS[name]
