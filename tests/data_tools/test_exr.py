"""OpenEXR depth, on files that the OpenEXR library wrote (20 rows of 3)."""

import base64
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.exr import _header, read_exr

# Channels A (half, all 1) and Z (float, element i is i / 8); RLE's one channel is depth.Y, floored.
FILES = {
    "NONE": (
        "di8xAQIAAABjaGFubmVscwBjaGxpc3QAJQAAAEEAAQAAAAAAAAABAAAAAQAAAFoAAgAAAAAAAAABAAAAAQAA"
        "AABjb21wcmVzc2lvbgBjb21wcmVzc2lvbgABAAAAAGRhdGFXaW5kb3cAYm94MmkAEAAAAAAAAAAAAAAAAgAA"
        "ABMAAABkaXNwbGF5V2luZG93AGJveDJpABAAAAAAAAAAAAAAAAIAAAATAAAAbGluZU9yZGVyAGxpbmVPcmRl"
        "cgABAAAAAHBpeGVsQXNwZWN0UmF0aW8AZmxvYXQABAAAAAAAgD9zY3JlZW5XaW5kb3dDZW50ZXIAdjJmAAgA"
        "AAAAAAAAAAAAAHNjcmVlbldpbmRvd1dpZHRoAGZsb2F0AAQAAAAAAIA/dHlwZQBzdHJpbmcADQAAAHNjYW5s"
        "aW5laW1hZ2UA5AEAAAAAAAD+AQAAAAAAABgCAAAAAAAAMgIAAAAAAABMAgAAAAAAAGYCAAAAAAAAgAIAAAAA"
        "AACaAgAAAAAAALQCAAAAAAAAzgIAAAAAAADoAgAAAAAAAAIDAAAAAAAAHAMAAAAAAAA2AwAAAAAAAFADAAAA"
        "AAAAagMAAAAAAACEAwAAAAAAAJ4DAAAAAAAAuAMAAAAAAADSAwAAAAAAAAAAAAASAAAAADwAPAA8AAAAAAAA"
        "AD4AAIA+AQAAABIAAAAAPAA8ADwAAMA+AAAAPwAAID8CAAAAEgAAAAA8ADwAPAAAQD8AAGA/AACAPwMAAAAS"
        "AAAAADwAPAA8AACQPwAAoD8AALA/BAAAABIAAAAAPAA8ADwAAMA/AADQPwAA4D8FAAAAEgAAAAA8ADwAPAAA"
        "8D8AAABAAAAIQAYAAAASAAAAADwAPAA8AAAQQAAAGEAAACBABwAAABIAAAAAPAA8ADwAAChAAAAwQAAAOEAI"
        "AAAAEgAAAAA8ADwAPAAAQEAAAEhAAABQQAkAAAASAAAAADwAPAA8AABYQAAAYEAAAGhACgAAABIAAAAAPAA8"
        "ADwAAHBAAAB4QAAAgEALAAAAEgAAAAA8ADwAPAAAhEAAAIhAAACMQAwAAAASAAAAADwAPAA8AACQQAAAlEAA"
        "AJhADQAAABIAAAAAPAA8ADwAAJxAAACgQAAApEAOAAAAEgAAAAA8ADwAPAAAqEAAAKxAAACwQA8AAAASAAAA"
        "ADwAPAA8AAC0QAAAuEAAALxAEAAAABIAAAAAPAA8ADwAAMBAAADEQAAAyEARAAAAEgAAAAA8ADwAPAAAzEAA"
        "ANBAAADUQBIAAAASAAAAADwAPAA8AADYQAAA3EAAAOBAEwAAABIAAAAAPAA8ADwAAORAAADoQAAA7EA="
    ),
    "RLE": (
        "di8xAQIAAABjaGFubmVscwBjaGxpc3QAGQAAAGRlcHRoLlkAAgAAAAAAAAABAAAAAQAAAABjb21wcmVzc2lv"
        "bgBjb21wcmVzc2lvbgABAAAAAWRhdGFXaW5kb3cAYm94MmkAEAAAAAAAAAAAAAAAAgAAABMAAABkaXNwbGF5"
        "V2luZG93AGJveDJpABAAAAAAAAAAAAAAAAIAAAATAAAAbGluZU9yZGVyAGxpbmVPcmRlcgABAAAAAHBpeGVs"
        "QXNwZWN0UmF0aW8AZmxvYXQABAAAAAAAgD9zY3JlZW5XaW5kb3dDZW50ZXIAdjJmAAgAAAAAAAAAAAAAAHNj"
        "cmVlbldpbmRvd1dpZHRoAGZsb2F0AAQAAAAAAIA/dHlwZQBzdHJpbmcADQAAAHNjYW5saW5laW1hZ2UA2AEA"
        "AAAAAADkAQAAAAAAAPABAAAAAAAAAwIAAAAAAAATAgAAAAAAACMCAAAAAAAANQIAAAAAAABHAgAAAAAAAFkC"
        "AAAAAAAAbQIAAAAAAACBAgAAAAAAAJUCAAAAAAAApQIAAAAAAAC1AgAAAAAAAMkCAAAAAAAA3QIAAAAAAADx"
        "AgAAAAAAAAUDAAAAAAAAGQMAAAAAAAAtAwAAAAAAAAAAAAAEAAAA/wAKgAEAAAAEAAAA/wAKgAIAAAALAAAA"
        "/wADgP4AAAOA/78DAAAACAAAAAYA+79Bv0G/BAAAAAgAAAAGAPu/Qb9BvwUAAAAKAAAAAgADgPu/QcBAwAYA"
        "AAAKAAAA/wAFgPvAQMBAwAcAAAAKAAAA/wAFgPvAQMBAwAgAAAAMAAAAAABAQAAAQEAAAEBACQAAAAwAAAAA"
        "AEBAAABAQAAAQEAKAAAADAAAAAAAQEAAAEBAAACAQAsAAAAIAAAABgD7wEDAQMAMAAAACAAAAAYA+8BAwEDA"
        "DQAAAAwAAAAAAIBAAACgQAAAoEAOAAAADAAAAAAAoEAAAKBAAACgQA8AAAAMAAAAAACgQAAAoEAAAKBAEAAA"
        "AAwAAAAAAMBAAADAQAAAwEARAAAADAAAAAAAwEAAAMBAAADAQBIAAAAMAAAAAADAQAAAwEAAAOBAEwAAAAwA"
        "AAAAAOBAAADgQAAA4EA="
    ),
    "ZIPS": (
        "di8xAQIAAABjaGFubmVscwBjaGxpc3QAJQAAAEEAAQAAAAAAAAABAAAAAQAAAFoAAgAAAAAAAAABAAAAAQAA"
        "AABjb21wcmVzc2lvbgBjb21wcmVzc2lvbgABAAAAAmRhdGFXaW5kb3cAYm94MmkAEAAAAAAAAAAAAAAAAgAA"
        "ABMAAABkaXNwbGF5V2luZG93AGJveDJpABAAAAAAAAAAAAAAAAIAAAATAAAAbGluZU9yZGVyAGxpbmVPcmRl"
        "cgABAAAAAHBpeGVsQXNwZWN0UmF0aW8AZmxvYXQABAAAAAAAgD9zY3JlZW5XaW5kb3dDZW50ZXIAdjJmAAgA"
        "AAAAAAAAAAAAAHNjcmVlbldpbmRvd1dpZHRoAGZsb2F0AAQAAAAAAIA/dHlwZQBzdHJpbmcADQAAAHNjYW5s"
        "aW5laW1hZ2UA5AEAAAAAAAD+AQAAAAAAABgCAAAAAAAAMgIAAAAAAABMAgAAAAAAAGYCAAAAAAAAgAIAAAAA"
        "AACaAgAAAAAAALQCAAAAAAAAzgIAAAAAAADoAgAAAAAAAAIDAAAAAAAAHAMAAAAAAAA2AwAAAAAAAFADAAAA"
        "AAAAagMAAAAAAACEAwAAAAAAAJ4DAAAAAAAAuAMAAAAAAADSAwAAAAAAAAAAAAASAAAAADwAPAA8AAAAAAAA"
        "AD4AAIA+AQAAABIAAAAAPAA8ADwAAMA+AAAAPwAAID8CAAAAEgAAAAA8ADwAPAAAQD8AAGA/AACAPwMAAAAS"
        "AAAAADwAPAA8AACQPwAAoD8AALA/BAAAABIAAAAAPAA8ADwAAMA/AADQPwAA4D8FAAAAEgAAAAA8ADwAPAAA"
        "8D8AAABAAAAIQAYAAAASAAAAADwAPAA8AAAQQAAAGEAAACBABwAAABIAAAAAPAA8ADwAAChAAAAwQAAAOEAI"
        "AAAAEgAAAAA8ADwAPAAAQEAAAEhAAABQQAkAAAASAAAAADwAPAA8AABYQAAAYEAAAGhACgAAABIAAAAAPAA8"
        "ADwAAHBAAAB4QAAAgEALAAAAEgAAAAA8ADwAPAAAhEAAAIhAAACMQAwAAAASAAAAADwAPAA8AACQQAAAlEAA"
        "AJhADQAAABIAAAAAPAA8ADwAAJxAAACgQAAApEAOAAAAEgAAAAA8ADwAPAAAqEAAAKxAAACwQA8AAAASAAAA"
        "ADwAPAA8AAC0QAAAuEAAALxAEAAAABIAAAAAPAA8ADwAAMBAAADEQAAAyEARAAAAEgAAAAA8ADwAPAAAzEAA"
        "ANBAAADUQBIAAAASAAAAADwAPAA8AADYQAAA3EAAAOBAEwAAABIAAAAAPAA8ADwAAORAAADoQAAA7EA="
    ),
    "ZIP": (
        "di8xAQIAAABjaGFubmVscwBjaGxpc3QAJQAAAEEAAQAAAAAAAAABAAAAAQAAAFoAAgAAAAAAAAABAAAAAQAA"
        "AABjb21wcmVzc2lvbgBjb21wcmVzc2lvbgABAAAAA2RhdGFXaW5kb3cAYm94MmkAEAAAAAAAAAAAAAAAAgAA"
        "ABMAAABkaXNwbGF5V2luZG93AGJveDJpABAAAAAAAAAAAAAAAAIAAAATAAAAbGluZU9yZGVyAGxpbmVPcmRl"
        "cgABAAAAAHBpeGVsQXNwZWN0UmF0aW8AZmxvYXQABAAAAAAAgD9zY3JlZW5XaW5kb3dDZW50ZXIAdjJmAAgA"
        "AAAAAAAAAAAAAHNjcmVlbldpbmRvd1dpZHRoAGZsb2F0AAQAAAAAAIA/dHlwZQBzdHJpbmcADQAAAHNjYW5s"
        "aW5laW1hZ2UAVAEAAAAAAAD1AQAAAAAAAAAAAACZAAAAeF5jaIAABgYg4XCgoWFBApBxwOGBAlhE4IPCA4ML"
        "YKmADQkLgIyCCQ0NHRVAxoSCGRlgxSsiNgTs8ADrOmFxwQDIuKHxQOGFBJDxQeAHB9gclj8cP3i+gA0UeSPx"
        "AsiQeaLwQOUOkKFxQ+cK2AqTMxYnbICKXRoa9jntqwMy9jntd9xfC2QAKdyMAw4HaoAMIEUDBgBm8YvBEAAA"
        "ADQAAAB4XmNoaGhwOOCyx2MHkOGzJWBDyBogI2JFzJKEBUBGypyMGTkXGhpcDjgAYQ1uBgACayPB"
    ),
    "PIZ": (
        "di8xAQIAAABjaGFubmVscwBjaGxpc3QAJQAAAEEAAQAAAAAAAAABAAAAAQAAAFoAAgAAAAAAAAABAAAAAQAA"
        "AABjb21wcmVzc2lvbgBjb21wcmVzc2lvbgABAAAABGRhdGFXaW5kb3cAYm94MmkAEAAAAAAAAAAAAAAAAgAA"
        "ABMAAABkaXNwbGF5V2luZG93AGJveDJpABAAAAAAAAAAAAAAAAIAAAATAAAAbGluZU9yZGVyAGxpbmVPcmRl"
        "cgABAAAAAHBpeGVsQXNwZWN0UmF0aW8AZmxvYXQABAAAAAAAgD9zY3JlZW5XaW5kb3dDZW50ZXIAdjJmAAgA"
        "AAAAAAAAAAAAAHNjcmVlbldpbmRvd1dpZHRoAGZsb2F0AAQAAAAAAIA/dHlwZQBzdHJpbmcADQAAAHNjYW5s"
        "aW5laW1hZ2UATAEAAAAAAAAAAAAAaAEAAAA8ADwAPAAAAAAAAAA+AACAPgA8ADwAPAAAwD4AAAA/AAAgPwA8"
        "ADwAPAAAQD8AAGA/AACAPwA8ADwAPAAAkD8AAKA/AACwPwA8ADwAPAAAwD8AANA/AADgPwA8ADwAPAAA8D8A"
        "AABAAAAIQAA8ADwAPAAAEEAAABhAAAAgQAA8ADwAPAAAKEAAADBAAAA4QAA8ADwAPAAAQEAAAEhAAABQQAA8"
        "ADwAPAAAWEAAAGBAAABoQAA8ADwAPAAAcEAAAHhAAACAQAA8ADwAPAAAhEAAAIhAAACMQAA8ADwAPAAAkEAA"
        "AJRAAACYQAA8ADwAPAAAnEAAAKBAAACkQAA8ADwAPAAAqEAAAKxAAACwQAA8ADwAPAAAtEAAALhAAAC8QAA8"
        "ADwAPAAAwEAAAMRAAADIQAA8ADwAPAAAzEAAANBAAADUQAA8ADwAPAAA2EAAANxAAADgQAA8ADwAPAAA5EAA"
        "AOhAAADsQA=="
    ),
}
EXPECTED = np.arange(60, dtype=np.float32).reshape(20, 3) / 8


@pytest.fixture
def exr(tmp_path):
    def write(data):
        path = tmp_path / "depth.exr"
        path.write_bytes(base64.b64decode(data) if isinstance(data, str) else data)
        return path

    return write


@pytest.mark.parametrize("compression", ["NONE", "ZIPS", "ZIP"])
def test_depth_is_read(exr, compression):
    depth = read_exr(exr(FILES[compression]))
    assert depth.dtype == np.float32
    assert (depth == EXPECTED).all()


def test_run_lengths_and_layers_are_read(exr):
    assert (read_exr(exr(FILES["RLE"])) == np.floor(EXPECTED)).all()


def test_other_compressions_are_named(exr):
    with pytest.raises(DataError, match="compression PIZ is not read"):
        read_exr(exr(FILES["PIZ"]))


def test_a_truncated_file_is_refused_at_every_length(exr):
    whole = base64.b64decode(FILES["ZIP"])
    for length in range(0, len(whole), 7):
        with pytest.raises(DataError, match=r"depth\.exr: "):
            read_exr(exr(whole[:length]))


def test_what_is_no_exr_is_refused(exr):
    with pytest.raises(DataError, match="not an OpenEXR file"):
        read_exr(exr(b"\x89PNG\r\n\x1a\n" * 4))


def with_window(whole, right, bottom):
    place = whole.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    return whole[: place + 8] + struct.pack("<2i", right, bottom) + whole[place + 16 :]


@pytest.mark.parametrize(
    ("right", "bottom", "message"),
    [
        (2**14, 2**14, r"depth\.exr: a picture of 16385x16385 pixels; at most"),
        (2**31 - 1, 2**31 - 1, "pixels; at most"),
        (-5, 19, "a picture of -4x20 pixels"),
        (2**20 - 2, 2, "OpenEXR file that can be read"),
        (2, 2**24 - 2, "OpenEXR file that can be read"),
    ],
)
def test_a_size_that_the_file_does_not_hold(exr, right, bottom, message):
    whole = base64.b64decode(FILES["ZIP"])
    with pytest.raises(DataError, match=message):
        read_exr(exr(with_window(whole, right, bottom)))


@pytest.mark.parametrize("kind", ["ZIP", "RLE"])
def test_a_block_that_takes_more_than_its_lines(exr, kind):
    """Its compressed bytes are replaced by ones that would take gigabytes."""
    whole = base64.b64decode(FILES[kind])
    start = struct.unpack_from("<Q", whole, _header(whole)[1])[0]
    bomb = zlib.compress(bytes(2**29), 1) if kind == "ZIP" else b"\x7f\x00" * 2**21
    block = whole[start : start + 4] + struct.pack("<i", len(bomb)) + bomb
    kept = tracemalloc.is_tracing() or tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"(takes|runs of) more than"):
            read_exr(exr(whole[:start] + block))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        kept or tracemalloc.stop()
