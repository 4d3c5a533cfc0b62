"""LmdbFile: gives what LMDB's library gives; a damaged file is one error and never a signal."""

import os
import random

import lmdb
import pytest

from boundary.errors import InputError
from boundary.lmdb_file import LmdbFile

PAGE = 4096


class Bad(InputError, ValueError):
    pass


def make(path, records, **options):
    with lmdb.open(str(path), map_size=2**24, **options) as env, env.begin(write=True) as txn:
        for key, value in records.items():
            txn.put(key, value)
    return path


def some(count=800):
    draw = random.Random(1)
    sizes = (10, 100, 1500, 9000)
    return {b"%08d_x" % i: draw.randbytes(sizes[i % 4]) for i in range(count)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an LMDB with branches, small values and values on pages of their own."""
    path = make(tmp_path_factory.mktemp("lmdb") / "whole", some())
    return (path / "data.mdb").read_bytes()


def put(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(data)
    return folder


def read_all(path):
    file = LmdbFile(path, Bad)
    for key in file.keys()[:3]:
        file.get(key)
    records = dict(file.every(0, 1))
    file.close()
    return records


@pytest.mark.parametrize("seed", range(12))
def test_it_gives_what_the_library_gives(tmp_path, seed):
    draw, records = random.Random(seed), {}
    with lmdb.open(str(tmp_path), map_size=2**26, sync=False, writemap=seed % 3 == 0) as env:
        for _ in range(draw.choice([1, 2, 5, 20])):
            with env.begin(write=True) as txn:
                for _ in range(draw.choice([1, 10, 100])):
                    if records and draw.random() < 0.3:
                        gone = draw.choice(sorted(records))
                        txn.delete(gone)
                        del records[gone]
                    else:
                        key = b"%0*d" % (draw.choice([1, 8, 100]), draw.randrange(300))
                        records[key] = draw.randbytes(draw.choice([0, 10, 1000, 3000, 20000]))
                        txn.put(key, records[key])
    file, keys = LmdbFile(tmp_path, Bad), sorted(records)
    assert len(file) == len(keys)
    assert file.keys() == keys
    assert dict(file.every(0, 1)) == records
    for first, step in ((0, 3), (5, 7), (2, 1000), (1000, 1)):
        assert [key for key, _ in file.every(first, step)] == keys[first::step]
    for key in (*keys, b"", b"zz", b"5", b"00001x"):
        assert file.get(key) == records.get(key)


def test_a_file_and_an_empty_one(tmp_path):
    make(tmp_path / "f", {b"a": b"1"}, subdir=False)
    assert read_all(tmp_path / "f") == {b"a": b"1"}
    make(tmp_path / "empty", {})
    file = LmdbFile(tmp_path / "empty", Bad)
    assert (len(file), file.keys(), file.get(b"a")) == (0, [], None)


def test_free_pages_at_the_end_may_be_missing(tmp_path):
    """LMDB does not write pages that a transaction took and gave back. Here the end is cut off by
    hand, behind a large value that was put, stored and deleted."""
    with lmdb.open(str(tmp_path), map_size=2**24) as env:
        for key, value in ((b"a", b"1"), (b"z", b"2" * 9 * PAGE)):
            with env.begin(write=True) as txn:
                txn.put(key, value)
        with env.begin(write=True) as txn:
            txn.delete(b"z")
        for _ in range(5):  # the tree moves to pages that are free now
            with env.begin(write=True) as txn:
                txn.put(b"a", b"1")
    size = os.path.getsize(tmp_path / "data.mdb")
    os.truncate(tmp_path / "data.mdb", size - 2 * PAGE)
    assert read_all(tmp_path) == {b"a": b"1"}
    os.truncate(tmp_path / "data.mdb", 2 * PAGE)
    with pytest.raises(Bad, match="damaged LMDB"):
        LmdbFile(tmp_path, Bad)


def test_a_copy_that_was_cut_off(tmp_path, whole):
    for pages in range(1, 40):
        put(tmp_path, whole[: -pages * PAGE])
        with pytest.raises(Bad, match=r"damaged LMDB: .*; was it copied whole\?"):
            LmdbFile(tmp_path, Bad)
    for size in range(0, 3 * PAGE, 500):
        put(tmp_path, whole[:size])
        with pytest.raises(Bad, match="LMDB"):
            LmdbFile(tmp_path, Bad)


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path, whole):
    file = LmdbFile(put(tmp_path, whole), Bad)
    records = file.every(0, 1)
    next(records)
    os.truncate(tmp_path / "data.mdb", 20 * PAGE)
    with pytest.raises(Bad, match=r"damaged LMDB: it (ends at byte|has) 81920"):
        list(records)
    with pytest.raises(Bad, match="damaged LMDB"):
        file.get(b"00000799_x")


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_one_line_or_nothing(tmp_path, whole, seed):
    draw = random.Random(seed)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 2, 10])):
            page = draw.choice([0, 1, draw.randrange(len(whole) // PAGE)])
            place = page * PAGE + draw.randrange(200)
            size = draw.choice([1, 1, 2, 8])
            data[place : place + size] = draw.randbytes(size)
        said = f"{tmp_path}: "
        try:
            read_all(put(tmp_path, data))
        except Bad as error:
            said = str(error)
        assert said.startswith(f"{tmp_path}: ")
        assert len(said) < 300
        assert "\n" not in said


def head(data):
    """Where the meta page that counts has its main tree."""
    return max((0, PAGE), key=lambda page: data[page + 144 : page + 152][::-1]) + 88


@pytest.mark.parametrize("change", [1, -1, 10, 2**40])
def test_a_wrong_count_of_records(tmp_path, whole, change):
    data = bytearray(whole)
    place = head(data) + 32
    count = int.from_bytes(data[place : place + 8], "little")
    data[place : place + 8] = (count + change).to_bytes(8, "little")
    with pytest.raises(Bad, match=r"damaged LMDB: (its head counts \d+ records|\d+ records in)"):
        read_all(put(tmp_path, data))


def test_a_branch_that_leads_back_to_an_earlier_leaf(tmp_path, whole):
    data = bytearray(whole)
    root = int.from_bytes(data[head(data) + 40 :][:8], "little") * PAGE
    first, second = (int.from_bytes(data[root + 16 + 2 * i :][:2], "little") for i in range(2))
    data[root + second : root + second + 6] = data[root + first : root + first + 6]
    with pytest.raises(Bad, match=r"damaged LMDB: page \d+ is not in order"):
        read_all(put(tmp_path, data))


def test_what_is_no_lmdb_of_records(tmp_path, whole):
    with pytest.raises(Bad, match=r"no LMDB; expected a folder with data\.mdb in it"):
        LmdbFile(tmp_path / "no", Bad)
    with pytest.raises(Bad, match="zero character"):
        LmdbFile("a\0b", Bad)
    put(tmp_path / "zero", bytes(9000))
    with pytest.raises(Bad, match="zero: no LMDB"):
        LmdbFile(tmp_path / "zero", Bad)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "data.mdb").symlink_to("/dev/zero")
    with pytest.raises(Bad, match="no plain file"):
        LmdbFile(tmp_path / "device", Bad)
    with lmdb.open(str(tmp_path / "dup"), max_dbs=1) as env:
        env.open_db(b"inner")
    with pytest.raises(Bad, match=r"damaged LMDB: page .* kind 2"):
        read_all(tmp_path / "dup")


def test_nothing_stays_open(tmp_path, whole):
    before = len(os.listdir("/proc/self/fd"))
    file = LmdbFile(put(tmp_path, whole), Bad)
    file.keys()
    del file
    with pytest.raises(Bad):
        LmdbFile(put(tmp_path, whole[:9000]), Bad)
    assert len(os.listdir("/proc/self/fd")) == before
