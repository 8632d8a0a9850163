"""Fixtures that several test files share."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

SHARED = Path(__file__).parents[2] / "shared"
ARRAY_TYPES = {
    "dense": np.asarray,
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
}


def _folder_or_skip(folder):
    if not folder.is_dir():
        pytest.skip(f"{folder.name} absent: {folder} holds files that are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """Folder of published data sets, ``paper/`` and ``extra/``."""
    return _folder_or_skip(SHARED / "data")


@pytest.fixture(scope="session")
def golden():
    """Folder of outputs stored from the original programs."""
    return _folder_or_skip(SHARED / "golden")


@pytest.fixture(params=ARRAY_TYPES.values(), ids=ARRAY_TYPES.keys())
def array_type(request):
    """Turn a dense array into each of the matrix containers that AnnData holds."""
    return request.param


def pytest_addoption(parser):
    parser.addoption("--write-docs", action="store_true", help="write the pages that tests hold to what was said")
