"""dataset.json: what its fields may hold."""

import json

import numpy as np
import pytest

from data_tools import info, store
from data_tools.cli import DataError
from data_tools.record import to_datum

GOOD = {
    "tool": "t",
    "labeled": True,
    "records": 1,
    "shape": [5, 2, 3],
    "type": "uint8",
    "classes": ["(ignored)", "wall"],
    "palette": [[0, 0, 0], [1, 2, 255]],
    "frames": {"00000000_a": {"camera": "kv1"}},
    "options": {"depth_range": "valid", "float_depth": False},
    "label_pixels": {"1": 6},
    "mine": [{"anything": 1}],
}


def test_what_these_commands_write_is_read(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(info.to_json(GOOD), encoding="utf-8")
    assert info.read(path) == GOOD
    path.write_text(info.to_json({**GOOD, "shape": None, "type": None}), encoding="utf-8-sig")
    assert info.read(path) == {k: v for k, v in GOOD.items() if k not in ("shape", "type")}


def test_names_of_other_bytes_than_utf8_come_back(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(info.to_json({"skipped": ["b\udce4r"]}), encoding="utf-8")
    assert info.read(path) == {"skipped": ["b\udce4r"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool", 1),
        ("labeled", "yes"),
        ("records", -1),
        ("records", True),
        ("shape", [5, 2]),
        ("type", "float16"),
        ("classes", "wall"),
        ("classes", 7),
        ("classes", ["a", 1]),
        ("classes", []),
        ("classes", ["x"] * 257),
        ("palette", [[0, 0]]),
        ("palette", [[0, 0, 256]]),
        ("palette", {"0": [0, 0, 0]}),
        ("frames", [{"camera": "kv1"}]),
        ("frames", {"a": "kv1"}),
        ("options", ["valid"]),
        ("options.depth_range", 5),
        ("options.float_depth", "no"),
        ("label_pixels", {"1": "6"}),
        ("scenes", {"0": "kitchen"}),
    ],
)
def test_wrong_types_are_named(tmp_path, command, field, value):
    outer, _, inner = field.partition(".")
    bad = {**GOOD, outer: {inner: value} if inner else value}
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(b"00000000_a", to_datum(np.ones((5, 2, 3), np.uint8)))
    writer.finish({})
    (tmp_path / "db" / "dataset.json").write_text(json.dumps(bad))
    message = f"dataset.json: {field}: expected "
    with pytest.raises(DataError, match=message):
        store.read_info(tmp_path / "db")
    for arguments in (["inspect", "db"], ["class_weights", "db"], ["convert", "db", "out"]):
        assert message in command(*arguments, code=1).stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1]", "expected an object in JSON"),
        (b"{", "not JSON"),
        (b"\xff\xff", "not UTF-8"),
        (b"[" * 100000, "not JSON: it is nested too deep"),
    ],
)
def test_what_is_no_object(tmp_path, data, message):
    (tmp_path / "dataset.json").write_bytes(data)
    with pytest.raises(DataError, match=f"dataset.json:?1?:? ?{message}"):
        store.read_info(tmp_path)
