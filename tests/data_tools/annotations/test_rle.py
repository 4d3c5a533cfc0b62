"""Run-length codes."""

import numpy as np
import pytest

from data_tools.annotations import rle
from data_tools.cli import DataError

mask_api = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


def test_compressed_counts_are_those_of_the_coco_api():
    rng = np.random.default_rng(3)
    for _ in range(50):
        height, width = rng.integers(1, 40, 2)
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        code = mask_api.encode(np.asfortranarray(mask))["counts"].decode()
        found = rle.runs(rle.coco_counts(code), width, height, by_columns=True)
        assert (found == mask).all()


def test_runs_go_down_the_columns_or_along_the_rows():
    counts = [1, 2, 3]
    assert rle.runs(counts, 3, 2, by_columns=True).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert rle.runs(counts, 3, 2, by_columns=False).tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "counts", [[], [5], [7], [8, -2], [2**40, -(2**40) + 6], [2**70], [True, 5]]
)
def test_runs_that_do_not_fill_the_mask(counts):
    with pytest.raises(DataError, match=r"its runs cover|is not a number of pixels"):
        rle.runs(counts, 3, 2, by_columns=True)
