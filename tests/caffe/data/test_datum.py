"""Databases and records that cannot be read: the error names what is wrong, and where."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from records import data_net, make_datum, make_lmdb

import caffe
from caffe.data.datum import parse_datum
from caffe.formats import db

pytestmark = pytest.mark.usefixtures("fresh")


def test_what_is_no_datum() -> None:
    with pytest.raises(caffe.CaffeError, match="here: the record is not a Datum"):
        parse_datum(b"\xff\xff\xff", "here")


def test_a_damaged_record_is_named_with_layer_source_and_key(lmdb: str, tmp_path: Path) -> None:
    good = make_datum(np.zeros((1, 4, 5), np.uint8)).SerializeToString()
    with db.create(tmp_path / "bad") as put:
        put(b"first", good)
        put(b"second", b"\xff" + good)
    net = data_net(str(tmp_path / "bad"), batch=1)
    net.forward()
    message = rf"layer 'data' \(Data\): {tmp_path}/bad: record b'second': the record is not a Datum"
    for _ in range(2):  # it stays broken, and does not hang
        with pytest.raises(caffe.CaffeError, match=message):
            net.forward()


def test_an_lmdb_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "data.mdb").write_bytes(b"not a database" * 1000)
    for name, message in (("nix", "nix: No such file"), ("empty", "no LMDB; expected a folder with "
                          "data.mdb"), ("wrong", "wrong: no LMDB")):  # fmt: skip
        with pytest.raises(caffe.CaffeError, match=rf"layer 'data' \(Data\): .*{message}"):
            data_net(str(tmp_path / name))


def test_an_lmdb_that_was_cut_short(tmp_path: Path) -> None:
    source = make_lmdb(tmp_path / "whole", [np.zeros((1, 100, 100), np.uint8)] * 30)
    file = Path(source, "data.mdb")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(caffe.CaffeError, match=r"damaged LMDB: it has .* bytes, its records"):
        data_net(source)
