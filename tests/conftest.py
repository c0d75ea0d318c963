"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference models and data; the test is skipped where it is absent."""
    root = Path(os.environ.get("NVAUDIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "models.json").is_file():
        pytest.skip(f"the reference models and data are not at {root}; set NVAUDIT_SHARED_DATA to use them")
    return root
