"""Settings shared by every test: 64-bit numbers, strict promotion, and where shared data lie."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets, or skip where there is none."""
    folder = os.environ.get("JAXPREF_DATA")
    if not folder:
        pytest.skip("JAXPREF_DATA is not set: the real data sets are not at hand")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"JAXPREF_DATA names {folder}, which is not a folder")
    return path
