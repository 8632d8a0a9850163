"""The count data of the denoising benchmark: which molecules are trained on and which are scored at.

Genes seen in at least 3 cells and cells of more than 10 molecules are kept, on the full counts (of a pair: on the
down-sampled ones). 10 % of the molecules are held out. In a pair the input is what somebody else down-sampled, and
the deep reference takes the place of the molecules held out.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scautoimpute import datasets
from scautoimpute.metrics import thin

__all__ = ["BUNDLED", "PAIRS", "SETS", "SHARE", "Bulk", "Split", "find", "split_of"]

SHARE = 0.1
BUNDLED = "pbmc68k_reduced"
SETS = (  # small ones first
    "pbmc68k_700x765",
    "saver_manno_pair",
    "saver_baron_pair",
    "tung_NA19098",
    "mixology_sc_dropseq",
    "mixology_cellmix",
    "mixology_RNAmix_sortseq",
    "mixology_RNAmix_celseq2",
    "mixology_sc_celseq2",
    "jurkat_293t",
    "zeisel_descend_1464",
    "mixology_sc_celseq2_5cl",
    "zeisel",
    "zheng_sorted_ref",
    "pbmc3k",
    "pbmc3k_ds0.3_pair",
    "pbmc_donorA_frozen",
    "pbmc_facs_zheng",
    "jaitin_spleen",
)
# Layer of the input, and whether the reference holds the input's own molecules, which are then taken out of it
PAIRS = {
    "saver_baron_pair": ("downsampled_saver", False),
    "saver_manno_pair": ("downsampled_saver", False),
    "pbmc3k_ds0.3_pair": ("downsampled_0.3", True),
}
_PARTS = {"mixology_cellmix": ("plate", "cellmix1")}  # one plate: the others are other experiments
_BULK = {
    "jurkat_293t": "bulk_jurkat_293t_GSE129240.csv.gz",
    "mixology_sc_dropseq": "bulk_5cl_GSE86337.csv.gz",
    "mixology_sc_celseq2": "bulk_5cl_GSE86337.csv.gz",
    "mixology_sc_celseq2_5cl": "bulk_5cl_GSE86337.csv.gz",
}
_FEWEST_OF_A_TYPE = 10  # smaller types, and cells without one, are left out of ARI and silhouette
_NO_TYPE = {"unassigned", "nan"}


@dataclass(frozen=True)
class Bulk:
    """Bulk samples of the cells' kinds: which of the genes they hold, kinds × those genes, and each cell's kind."""

    genes: NDArray[np.int64]
    samples: NDArray[np.float64]
    kind: NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Molecules to train on and to score at; `second` is a thinning as deep as `held_out`, for the noise floor."""

    train: Any
    held_out: Any
    second: Any | None
    genes: NDArray[Any]
    labels: NDArray[Any] | None
    bulk: Bulk | None
    is_pair: bool

    @property
    def depth(self) -> float:
        """Expected held-out molecules for one of training."""
        return float(self.held_out.sum() / self.train.sum()) if self.is_pair else SHARE / (1 - SHARE)


def find(name: str, data: Path) -> Path | None:
    """Return the file of a data set in the folder or one of its subfolders."""
    return next(iter(sorted(data.glob(f"**/{name}.h5ad"))), None)


@lru_cache(maxsize=1)
def split_of(name: str, seed: int, data: Path) -> Split:
    """Read, filter and thin a data set; of a pair, the seed changes nothing."""
    adata = _read(name, data)
    layer, holds_input = PAIRS.get(name, (None, False))
    counts = sparse.csr_array(adata.layers[layer] if layer else adata.X, dtype=np.float64)
    genes = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]) >= 3)
    cells = np.flatnonzero(counts[:, genes].sum(axis=1) > 10)
    adata, counts = adata[cells, genes], counts[cells][:, genes]
    labels, symbols = _labels(adata), adata.var_names.to_numpy()
    if layer:
        deep = sparse.csr_array(adata.X, dtype=np.float64)
        return Split(counts, deep - counts if holds_input else deep, None, symbols, labels, None, True)
    rng = np.random.default_rng([seed, 0])
    train, held_out = thin(counts, share=SHARE, random_state=rng)
    second = thin(train, share=SHARE / (1 - SHARE), random_state=rng)[1]
    return Split(train, held_out, second, symbols, labels, _bulk(name, adata, data), False)


def _read(name: str, data: Path) -> anndata.AnnData:
    if name == BUNDLED:
        return datasets.pbmc68k_reduced()
    adata = anndata.read_h5ad(find(name, data))
    if name in _PARTS:
        column, value = _PARTS[name]
        adata = adata[adata.obs[column] == value].copy()
    return adata


def _labels(adata: anndata.AnnData) -> NDArray[Any] | None:
    """Cell types as strings; empty for cells that are not scored by type."""
    if "cell_type" not in adata.obs:
        return None
    types = adata.obs["cell_type"].astype(str)
    often = types.value_counts()
    scored = set(often.index[often >= _FEWEST_OF_A_TYPE]) - _NO_TYPE
    return np.where(types.isin(scored), types, "") if len(scored) > 1 else None


def _bulk(name: str, adata: anndata.AnnData, data: Path) -> Bulk | None:
    found = next(iter(sorted(data.glob(f"**/{_BULK[name]}"))), None) if name in _BULK else None
    if found is None:
        return None
    table = pd.read_csv(found, index_col=0)
    table = table[~table.index.duplicated()]
    shared = np.flatnonzero(adata.var_names.isin(table.index))
    types = adata.obs["cell_type"].astype(str).str.lower()
    kinds = sorted(types.unique())
    of_kind = [table.loc[:, [kind in column.lower() for column in table]].sum(axis=1) for kind in kinds]
    samples = pd.concat(of_kind, axis=1).loc[adata.var_names[shared]].to_numpy().T
    return Bulk(shared, samples, types.map(kinds.index).to_numpy())
