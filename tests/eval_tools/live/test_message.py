"""Messages between the page and the server."""

import pytest

from data_tools.cli import DataError
from eval_tools.live import message

SOUND = message.pack({"unit": "mm", "name": "ä"}, {"color": b"abc", "depth": b""})


def test_there_and_back():
    facts, blocks = message.unpack(SOUND)
    assert facts == {"unit": "mm", "name": "ä"}
    assert blocks == {"color": b"abc", "depth": b""}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff{}",
        b"\2\0\0\0[]",
        b"\2\0\0\0{}",
        b"\4\0\0\0null",
        SOUND[:-1],
        SOUND + b"x",
        SOUND.replace(b'"color", 3', b'"color", 9'),
        SOUND.replace(b'"color", 3', b'"color",-3'),
        SOUND.replace(b'"color", 3', b'"color",{}'),
        b"\x10\0\0\0" + b"[" * 16,
    ],
)
def test_what_is_none_is_one_error(data):
    with pytest.raises(DataError, match="the page's message"):
        message.unpack(data)
