"""db: databases that appear when complete, and the reference's own."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from caffe.errors import CaffeError
from caffe.formats import db

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(params=db.BACKENDS)
def backend(request) -> str:
    if request.param == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs the extra package plyvel")
    return request.param


def make(path: Path, records: dict[bytes, bytes], backend: str = "lmdb") -> Path:
    with db.create(path, backend) as put:
        for key, value in records.items():
            put(key, value)
    return path


def test_what_is_put_is_read_in_the_order_of_keys(tmp_path: Path, backend: str) -> None:
    records = {b"b": b"2", b"a": b"1" * 5000, b"c": b""}
    database = db.Database.open(make(tmp_path / "d", records, backend), backend)
    assert list(database.items()) == sorted(records.items())
    assert database.keys() == [b"a", b"b", b"c"]
    assert len(database) == 3
    assert database.get(b"a") == b"1" * 5000
    with pytest.raises(CaffeError, match="no record b'z'"):
        database.get(b"z")


def test_it_appears_only_when_complete(tmp_path: Path, backend: str) -> None:
    with db.create(tmp_path / "d", backend) as put:
        put(b"a", b"1")
        assert not (tmp_path / "d").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_nothing_is_left_after_an_error(tmp_path: Path, backend: str) -> None:
    def fill() -> None:
        with db.create(tmp_path / "d", backend) as put:
            put(b"a", b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert not list(tmp_path.iterdir())


def test_the_map_grows_and_batches_are_joined(tmp_path: Path, monkeypatch) -> None:
    """3 MB pass a first map of 1 MiB."""
    monkeypatch.setattr(db, "BATCH", 2**18)
    monkeypatch.setattr(db, "MAP_SIZE", 2**20)
    records = {b"%03d" % i: os.urandom(10_000) for i in range(300)}
    database = db.Database.open(make(tmp_path / "d", records))
    assert dict(database.items()) == records


def test_what_cannot_be_made(tmp_path: Path) -> None:
    make(tmp_path / "d", {b"a": b"1"})
    with pytest.raises(CaffeError, match="d: exists already"):
        make(tmp_path / "d", {})
    with pytest.raises(CaffeError, match="f: cannot be written: No such file or directory"):
        make(tmp_path / "no" / "f", {})
    with pytest.raises(CaffeError, match="backend 'sqlite'; expected lmdb or leveldb"):
        make(tmp_path / "f", {}, "sqlite")
    with pytest.raises(CaffeError, match="of 600 bytes; LMDB takes 1 to 511"):
        make(tmp_path / "f", {b"k" * 600: b""})
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="none: No such file or directory"):
        db.Database.open(tmp_path / "none")
    with pytest.raises(CaffeError, match=r"no LMDB; expected a folder with data\.mdb"):
        db.Database.open(tmp_path)
    with pytest.raises(CaffeError, match="no records"):
        db.Database.open(make(tmp_path / "empty", {}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(CaffeError, match="broken: no LMDB"):
        db.Database.open(tmp_path / "broken")


def test_reference_lmdb_and_one_handle_a_process() -> None:
    path = GOLDEN / "interop" / "train_lmdb"
    database = db.Database.open(path)
    assert database.keys() == [b"%08d_%d.png" % (i, i) for i in range(6)]
    assert db.Database.open(f"{path}/../train_lmdb") is database


def test_a_database_that_somebody_else_has_open(tmp_path: Path) -> None:
    """LMDB's library opens no file twice in a process; a reader here may be one of several."""
    make(tmp_path / "lmdb", {b"a": b"b"})
    other = lmdb.open(str(tmp_path / "lmdb"), readonly=True, lock=False)
    assert dict(db.Database.open(tmp_path / "lmdb").items()) == {b"a": b"b"}
    other.close()


def test_a_damaged_leveldb_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("plyvel", reason="LevelDB needs the extra package plyvel")
    records = {b"%04d" % i: os.urandom(1000) for i in range(3000)}
    whole = make(tmp_path / "d", records, "leveldb")
    database = db.Database.open(whole, "leveldb")
    del database
    for table in whole.glob("*.ldb"):
        data = bytearray(table.read_bytes())
        data[len(data) // 2] ^= 1
        table.write_bytes(data)
    for name in [path.name for path in whole.glob("*.log")]:
        data = bytearray((whole / name).read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        (whole / name).write_bytes(data)
    with pytest.raises(CaffeError, match=r"d: not a LevelDB that can be read: ") as caught:
        list(db.Database.open(whole, "leveldb").items())
    assert "\n" not in str(caught.value)


def test_a_replaced_database_is_opened_anew(tmp_path: Path) -> None:
    first = db.Database.open(make(tmp_path / "d", {b"a": b"1"}))
    (tmp_path / "d").rename(tmp_path / "old")
    second = db.Database.open(make(tmp_path / "d", {b"a": b"2"}))
    assert (first.get(b"a"), second.get(b"a")) == (b"1", b"2")
