"""Counts written in the formats that are read a block of cells at a time, by others than this package."""

import warnings

import anndata
import h5py
import numpy as np


def write_h5ad(adata, folder):
    adata.write_h5ad(folder / "in.h5ad")
    return folder / "in.h5ad"


def write_zarr(adata, folder, zarr_format):
    with anndata.settings.override(zarr_write_format=zarr_format), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and zarr, of formats to come
        adata.write_zarr(folder / "in.zarr")
    return folder / "in.zarr"


def with_x(adata, x):
    changed = adata.copy()
    changed.X = x
    return changed


def write_10x_h5(adata, folder, n_others=0):
    """As Cell Ranger 3 does, without `obs`; the last `n_others` features are of another kind than genes."""
    by_gene = adata.X.T.tocsc()
    names = np.array(adata.var_names, dtype="S")
    kinds = [b"Gene Expression"] * (len(names) - n_others) + [b"Antibody Capture"] * n_others
    with h5py.File(folder / "in.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(adata.obs_names, dtype="S")
        group["data"] = by_gene.data.astype(np.int32)
        group["indices"], group["indptr"], group["shape"] = by_gene.indices, by_gene.indptr, by_gene.shape
        features = group.create_group("features")
        features["id"], features["name"] = names, names
        features["feature_type"] = np.array(kinds)
        features["genome"] = np.full(len(names), b"none")
    return folder / "in.h5"


# Each writes an object to a folder, and returns where it is
FORMATS = {
    "h5ad, CSR": write_h5ad,
    "h5ad, dense": lambda a, p: write_h5ad(with_x(a, a.X.toarray()), p),
    "h5ad, integers": lambda a, p: write_h5ad(with_x(a, a.X.astype(np.int64)), p),
    "h5ad, CSC": lambda a, p: write_h5ad(with_x(a, a.X.tocsc()), p),
    "zarr 2, CSR": lambda a, p: write_zarr(a, p, 2),
    "zarr 3, CSR": lambda a, p: write_zarr(a, p, 3),
    "zarr 3, dense": lambda a, p: write_zarr(with_x(a, a.X.toarray()), p, 3),
}
