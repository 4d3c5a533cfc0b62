"""RVL, against an encoder that follows the paper's description."""

import struct

import numpy as np
import pytest
from rvl_encoder import encode

from data_tools.recordings import rvl


def test_by_hand():
    """One zero, two readings 5 and 4: 1, 2, then +5 as 10 and -1 as 1; 10 is 2 + 1 x 8."""
    data = struct.pack("<I", 0x12A11000)
    assert encode([0, 5, 4]) == data
    assert rvl.decode(data, 3).tolist() == [0, 5, 4]


@pytest.mark.parametrize("share", [0, 0.1, 0.9, 1])
def test_what_was_encoded(share):
    rng = np.random.default_rng(7)
    values = rng.integers(1, 2**16, 1000).astype(np.uint16)
    values[:400] = 2000 + np.arange(400) // 7
    values[rng.random(1000) < share] = 0
    assert np.array_equal(rvl.decode(encode(values), 1000), values)
    assert rvl.decode(encode(values), 1000).dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (b"", 3, "ends after 0 of 3"),
        (encode([0, 5, 4]), 20, "do not fit|ends after"),
        (encode([0, 5, 4]), 2, "do not fit"),
        (struct.pack("<I", 0x01300000), 1, "differences"),  # one reading, -2
        (b"\xff" * 40 + b"\0" * 4, 3, "too long"),
        (b"\0" * 8, 3, "do not fit"),
    ],
)
def test_damaged_data(data, count, said):
    with pytest.raises(ValueError, match=said):
        rvl.decode(data, count)


def test_nothing():
    assert rvl.decode(b"", 0).size == 0
