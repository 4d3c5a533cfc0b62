"""LMDBs: complete or not there, growing, resumable; and the reader's complaints."""

import hashlib
import json
import os
import resource
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from data_tools import store
from data_tools.cli import DataError
from data_tools.record import to_datum


def record(value, shape=(5, 4, 6), scene=0):
    return to_datum(np.full(shape, value, np.uint8), scene)


def write(path, values, plan="plan", **options):
    writer = store.Writer(path, plan, **options)
    for index, value in enumerate(values):
        writer.put(store.key(index, f"f{value}"), record(value))
    return writer


def test_keys_sort_in_frame_order_and_fit_lmdb():
    assert store.key(12, "kitchen/3") == b"00000012_kitchen/3"
    assert sorted(store.key(i, "x") for i in range(2000)) == [
        store.key(i, "x") for i in range(2000)
    ]
    assert len(store.key(1, "n" * 1000)) == 511


def test_the_lmdb_appears_when_complete(tmp_path):
    writer = write(tmp_path / "db", [1, 2])
    writer.commit()
    assert not (tmp_path / "db").exists()
    writer.finish({"tool": "test"})
    assert sorted(os.listdir(tmp_path)) == ["db"]
    assert sorted(os.listdir(tmp_path / "db")) == ["data.mdb", "dataset.json"]


def test_dataset_json_says_what_is_inside(tmp_path):
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(b"a", record(1))
    writer.put(b"b", record(2, scene=7))
    writer.finish({"tool": "test"})
    info = json.loads((tmp_path / "db" / "dataset.json").read_text())
    digest = hashlib.sha256()
    for part in (b"a", record(1), b"b", record(2, scene=7)):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    assert info == {
        "tool": "test",
        "records": 2,
        "shape": [5, 4, 6],
        "type": "uint8",
        "label_pixels": {"1": 24, "2": 24},
        "scene_records": {"0": 1, "7": 1},
        "checksum": f"sha256:{digest.hexdigest()}",
    }


def test_the_map_grows_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FIRST_MAP", 1 << 16)
    writer = store.Writer(tmp_path / "db", "plan")
    big = record(3, (5, 64, 64))
    for index in range(100):  # 2 MB, 32 times the first map
        writer.put(store.key(index, "x"), big)
        if index % 10 == 0:
            writer.commit()
    writer.finish({})
    assert len(store.Reader(tmp_path / "db")) == 100


def test_a_reopened_writer_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FIRST_MAP", 1 << 14)
    write(tmp_path / "db", range(100)).close()
    writer = store.Writer(tmp_path / "db", "plan")
    assert store.key(99, "f99") in writer
    assert store.key(100, "f100") not in writer
    writer.put(store.key(100, "f100"), record(100))
    writer.finish({})
    assert [planes[0, 0, 0] for _, planes, _ in store.Reader(tmp_path / "db").planes()] == list(
        range(101)
    )


def test_facts_of_frames_outlive_a_kill(tmp_path):
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(b"a", record(1), facts={"turned": "left"})
    writer.close()
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(b"b", record(2), facts={"turned": "right"})
    writer.put(b"c", record(3))
    info = writer.finish({"frames": {"b": {"camera": "kv2"}}})
    assert info["frames"] == {
        "a": {"turned": "left"},
        "b": {"camera": "kv2", "turned": "right"},
    }
    assert sorted(os.listdir(tmp_path / "db")) == ["data.mdb", "dataset.json"]


def test_another_plan_starts_anew(tmp_path):
    write(tmp_path / "db", [1, 2]).close()
    writer = store.Writer(tmp_path / "db", "other")
    assert store.key(0, "f1") not in writer
    writer.close()


def test_nothing_is_left_of_a_writer_that_wrote_nothing(tmp_path):
    store.Writer(tmp_path / "db", "plan").close()
    assert os.listdir(tmp_path) == []


def test_an_existing_target_needs_force(tmp_path):
    write(tmp_path / "db", [1]).finish({})
    with pytest.raises(DataError, match=r"db: exists already; pass --force"):
        store.Writer(tmp_path / "db", "plan")
    writer = write(tmp_path / "db", [2, 3], force=True)
    writer.commit()
    assert len(store.Reader(tmp_path / "db")) == 1  # until the new one is complete
    writer.finish({})
    assert len(store.Reader(tmp_path / "db")) == 2
    assert sorted(os.listdir(tmp_path)) == ["db"]


def test_force_replaces_nothing_but_lmdbs(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not an LMDB"):
        store.Writer(tmp_path / "home", "plan", force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="not an LMDB"):
        store.Writer(tmp_path / "file", "plan", force=True)


def test_folders_of_the_user_stay(tmp_path):
    write(tmp_path / "db", [1]).finish({})
    for name in ("db.old", "db.partial", "db.fusenet-partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"db\.fusenet-partial: holds thesis\.tex, .*move it away"):
        store.Writer(tmp_path / "db", "plan", force=True)
    os.rename(tmp_path / "db.fusenet-partial", tmp_path / "mine")
    write(tmp_path / "db", [2], force=True).finish({})
    for name in ("db.old", "db.partial", "mine"):
        assert (tmp_path / name / "thesis.tex").read_text() == "x"
    (tmp_path / "db.fusenet-partial").mkdir()  # an LMDB of somebody's
    (tmp_path / "db.fusenet-partial" / "data.mdb").write_text("x")
    with pytest.raises(DataError, match=r"has no plan\.json of ours"):
        store.Writer(tmp_path / "db", "plan", force=True)
    assert (tmp_path / "db.fusenet-partial" / "data.mdb").read_text() == "x"


def test_what_came_into_being_meanwhile_is_not_replaced(tmp_path):
    writer = write(tmp_path / "db", [1])
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="db: exists already"):
        writer.finish({})
    writer.close()
    assert (tmp_path / "db" / "thesis.tex").read_text() == "x"
    os.rename(tmp_path / "db", tmp_path / "mine")
    writer = store.Writer(tmp_path / "db", "plan")
    assert store.key(0, "f1") in writer  # it goes on
    writer.finish({})


def test_a_link_to_an_lmdb_stays_one(tmp_path):
    write(tmp_path / "real", [1]).finish({})
    (tmp_path / "db").symlink_to("real")
    write(tmp_path / "db", [2, 3], force=True).finish({})
    assert (tmp_path / "db").is_symlink()
    assert len(store.Reader(tmp_path / "real")) == 2
    assert sorted(os.listdir(tmp_path)) == ["db", "real"]


def test_two_writers_of_one_file_are_refused(tmp_path):
    writer = write(tmp_path / "db", [1])
    code = f"from data_tools import store; store.Writer({str(tmp_path / 'db')!r}, 'plan')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process is writing it" in result.stderr
    writer.close()


def test_a_full_disk_is_named_and_what_is_there_can_be_resumed(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(store.key(0, "x"), record(1, (5, 64, 64)))
    writer.commit()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limit[1]))
        for index in range(1, 100):
            writer.put(store.key(index, "x"), record(1, (5, 64, 64)))
        with pytest.raises(
            DataError, match=r"db\.fusenet-partial: (File too large|Input/output error)"
        ):
            writer.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    writer.close()
    assert not (tmp_path / "db").exists()
    writer = store.Writer(tmp_path / "db", "plan")
    assert store.key(0, "x") in writer
    writer.close()


def test_reader_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="nothing: does not exist"):
        store.Reader(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no LMDB there"):
        store.Reader(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data.mdb").write_bytes(b"\0" * 9000)
    with pytest.raises(DataError, match=r"bad: "):
        store.Reader(tmp_path / "bad")


def test_reader_refuses_an_lmdb_that_was_cut_short(tmp_path):
    writer = store.Writer(tmp_path / "db", "plan")
    for index in range(50):
        writer.put(store.key(index, "x"), record(1, (5, 64, 64)))
    writer.finish({})
    os.truncate(tmp_path / "db" / "data.mdb", 300_000)  # of a million
    with pytest.raises(DataError, match=r"db: damaged LMDB: it (ends|has)"):
        store.Reader(tmp_path / "db")


def test_reader_takes_lmdbs_of_other_tools(tmp_path):
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as txn:
        txn.put(b"k", record(5))
    reader = store.Reader(tmp_path / "db")
    assert reader.info == {}
    assert [key for key, _, _ in reader.planes()] == reader.keys() == [b"k"]
    assert reader.get(b"k") == record(5)
    with pytest.raises(DataError, match="has no record z"):
        reader.get(b"z")
