"""A database of numbered records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from records import COUNT, make_lmdb


@pytest.fixture
def lmdb(tmp_path: Path) -> str:
    """Records 0 to 11, each of one channel, 4 x 5, all values its number, which is its label."""
    return make_lmdb(tmp_path / "lmdb", [np.full((1, 4, 5), i, np.uint8) for i in range(COUNT)])
