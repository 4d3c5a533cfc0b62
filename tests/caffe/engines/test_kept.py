"""Kept choices: files that are read again, and whatever is wrong with them."""

from __future__ import annotations

import json

import pytest

from caffe.engines import kept
from caffe.engines.kept import Kept

PROGRAMS = {"torch", "openvino"}
CHOICE = Kept("openvino", {"torch": 2.5, "openvino": 1.25})
KEY = "0a" * 32


def test_a_choice_is_read_again(cache) -> None:
    assert kept.read(KEY, PROGRAMS) is None
    kept.write(KEY, "net", CHOICE)
    assert kept.read(KEY, PROGRAMS) == CHOICE
    assert [path.name for path in cache.iterdir()] == [f"{KEY}.json"]


def test_a_program_that_is_gone_is_no_choice(cache) -> None:
    kept.write(KEY, "net", CHOICE)
    assert kept.read(KEY, {"torch", "onnxruntime"}) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b'{"program": "openvino"}',
        b'{"program": ["openvino"], "milliseconds": {}}',
        b'{"program": "openvino", "milliseconds": 3}',
        b'{"program": "openvino", "milliseconds": {"torch": "fast"}}',
        b'{"program": "openvino", "milliseconds": {"torch": 1' + b"0" * 400 + b"}}",
        json.dumps({"program": "openvino", "milliseconds": {"x" * 70000: 1}}).encode(),
    ],
)
def test_a_spoiled_file_is_no_choice_and_is_replaced(content, cache) -> None:
    cache.mkdir(parents=True)
    (cache / f"{KEY}.json").write_bytes(content)
    assert kept.read(KEY, PROGRAMS) is None
    kept.write(KEY, "net", CHOICE)
    assert kept.read(KEY, PROGRAMS) == CHOICE


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kept.write(KEY, "net", CHOICE)
    assert kept.read(KEY, PROGRAMS) is None


def test_a_folder_that_may_not_be_searched_is_no_error(tmp_path, monkeypatch) -> None:
    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.stat", refused)
    assert kept.read(KEY, PROGRAMS) is None


def test_the_folder_is_the_users_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):  # the specification says to ignore relative paths
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        kept.write(KEY, "net", CHOICE)
        assert (tmp_path / ".cache/fusenet/engines" / f"{KEY}.json").is_file()
        (tmp_path / ".cache/fusenet/engines" / f"{KEY}.json").unlink()


def test_a_key_tells_all_apart_that_matters(monkeypatch) -> None:
    def key(net=b"net", shapes=((1, 3, 4, 4),), threads=1):
        return kept.key(net, shapes, threads)

    first = key()
    assert first == key()
    keys = {first, key(net=b"other"), key(shapes=((1, 3, 4, 5),)), key(threads=2)}
    monkeypatch.setattr(kept, "_versions", lambda: {"openvino": "1"})
    keys.add(key())
    monkeypatch.setattr(kept, "_processor", lambda: ["another"])
    keys.add(key())
    assert len(keys) == 6
