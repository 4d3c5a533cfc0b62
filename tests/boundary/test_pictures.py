import struct
import zlib

import cv2
import numpy as np
import pytest

from boundary import limits
from boundary.errors import InputError
from boundary.pictures import claimed_size, decode, read_picture


class Bad(InputError, ValueError):
    pass


def png(width, height):
    """A PNG's bytes that claim this size, without pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_the_claimed_size(ending):
    data = cv2.imencode(ending, np.zeros((5, 7, 3), np.uint8))[1].tobytes()
    assert claimed_size(data) == (7, 5)
    assert decode(data, cv2.IMREAD_COLOR, "here", Bad).shape == (5, 7, 3)


def test_the_claimed_size_of_pictures_that_pillow_does_not_know():
    for picture, ending in (
        (np.zeros((5, 7, 3), np.uint16), ".tif"),
        (np.zeros((5, 7, 3), np.float32), ".tiff"),
        (np.zeros((5, 7, 3), np.float32), ".hdr"),
        (np.zeros((5, 7, 3), np.float32), ".pfm"),
        (np.zeros((5, 7, 3), np.uint8), ".pam"),
        (np.zeros((5, 7, 3), np.uint8), ".ras"),
    ):
        data = cv2.imencode(ending, picture)[1].tobytes()
        assert sorted(claimed_size(data)) == [5, 7], ending
        assert decode(data, cv2.IMREAD_UNCHANGED, "here", Bad).shape[:2] == (5, 7)


@pytest.mark.parametrize(
    "head",
    [b"PF\n65000 65000\n-1\n", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 65000 +X 65000\n",
     b"P7\nWIDTH 65000\nHEIGHT 65000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"],
)  # fmt: skip
def test_other_headers_that_claim_too_much(head):
    with pytest.raises(Bad, match="65000x65000 pixels; at most"):
        decode(head + bytes(100), cv2.IMREAD_COLOR, "here", Bad)


@pytest.mark.parametrize("size", [(2**16, 2**16), (2**31 - 1, 2**31 - 1), (2**13, 2**13 + 1)])
def test_a_picture_beyond_the_limit_is_not_decoded(size):
    with pytest.raises(Bad, match=r"^here: a picture of \d+x\d+ pixels; at most 67108864 are read"):
        decode(png(*size), cv2.IMREAD_COLOR, "here", Bad)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".jpg"])
def test_pictures_that_pillow_does_not_open(monkeypatch, ending):
    data = cv2.imencode(ending, np.zeros((5, 7, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr("PIL.Image.open", lambda file: 1 / 0)
    assert claimed_size(data) == (7, 5)
    for end in range(60):
        claimed_size(data[:end])
    with pytest.raises(Bad, match="not a picture that can be read"):
        decode(data[1:], cv2.IMREAD_COLOR, "here", Bad)


def test_the_limit_can_be_set(monkeypatch):
    data = cv2.imencode(".png", np.zeros((5, 7, 3), np.uint8))[1].tobytes()
    monkeypatch.setenv(limits.PIXELS_VARIABLE, "34")
    with pytest.raises(Bad, match="at most 34"):
        decode(data, cv2.IMREAD_COLOR, "here", Bad)
    monkeypatch.setenv(limits.PIXELS_VARIABLE, "35")
    assert decode(data, cv2.IMREAD_COLOR, "here", Bad).shape == (5, 7, 3)


@pytest.mark.parametrize("data", [b"", b"x" * 100, png(3, 3)])
def test_what_is_no_picture(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(Bad, match=r"a\.png: not a picture that can be read"):
        read_picture(tmp_path / "a.png", cv2.IMREAD_COLOR, Bad)


def test_names_of_other_bytes(tmp_path):
    path = tmp_path / "T\udcfcr.png"
    path.write_bytes(cv2.imencode(".png", np.ones((2, 2), np.uint8))[1].tobytes())
    assert read_picture(path, cv2.IMREAD_GRAYSCALE, Bad).all()
    path.unlink()
    with pytest.raises(Bad, match=r"T\\udcfcr\.png: No such file"):
        read_picture(path, cv2.IMREAD_GRAYSCALE, Bad)


def test_arrays_take_what_the_file_stores_times_four():
    limits.check_bytes(limits.MAX_BYTES, 0, "here", Bad)
    limits.check_bytes(2**40, 2**38, "here", Bad)
    with pytest.raises(Bad, match=r"^here: asks for 1\.0 GiB of memory but stores 200 bytes"):
        limits.check_bytes(2**30, 200, "here", Bad)


def test_a_part_that_claims_gigabytes():
    """libpng takes the memory before it reads."""
    data = bytearray(png(3, 3))
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", 2**31 - 1)
    with pytest.raises(Bad, match="here: not a picture that can be read: a part is longer"):
        decode(bytes(data), cv2.IMREAD_COLOR, "here", Bad)


@pytest.mark.parametrize("text", ["abc", "1e6", "-1", "0", "nan", "9" * 30])
def test_a_limit_that_is_no_number_is_not_ignored(monkeypatch, text):
    monkeypatch.setenv(limits.PIXELS_VARIABLE, text)
    with pytest.raises(InputError, match=f"FUSENET_MAX_PIXELS={text}: expected a whole number"):
        limits.max_pixels()
