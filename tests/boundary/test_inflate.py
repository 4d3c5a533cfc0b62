"""inflate: no more than the size that is known."""

import os
import zlib

import pytest

from boundary.inflate import beginning, inflate


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20])
def test_what_was_deflated(size):
    data = os.urandom(size)
    packed = zlib.compress(data)
    assert inflate(packed, size) == inflate(memoryview(packed), size + 5) == data
    assert beginning(packed, 10) == data[:10]


@pytest.mark.parametrize("size", [0, 10, 999])
@pytest.mark.parametrize("held", [1000, 2**29])
def test_more_than_it_claims(size, held):
    with pytest.raises(ValueError, match=f"takes more than the {size} bytes that it claims"):
        inflate(zlib.compress(bytes(held), 1), size)


@pytest.mark.parametrize("size", [100, 2**19])
def test_broken_data(size):
    packed = zlib.compress(os.urandom(size))
    for data in (b"", b"x" * size, packed[: size // 2], packed[:-1]):
        with pytest.raises(ValueError, match=r"its compressed data (is broken|ends early)"):
            inflate(data, 2 * size)
