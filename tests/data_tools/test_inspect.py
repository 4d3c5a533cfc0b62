"""data_tools.inspect finds what is in an LMDB and what is wrong with it."""

import json

import cv2
import lmdb
import numpy as np
import pytest

from data_tools import store
from data_tools.record import to_datum


def planes(seed=0, label=1, depth=9):
    found = np.random.default_rng(seed).integers(0, 99, (5, 4, 6), np.uint8)
    found[3], found[4] = depth, label
    found[3, 0, 0] = 0
    return found


@pytest.fixture
def db(tmp_path):
    """db(records, **info) writes them under the keys a, b, ..."""

    def write(records, **info):
        writer = store.Writer(tmp_path / "db", "plan")
        for key, record in zip("abcdefgh", records, strict=False):
            writer.put(key.encode(), record if isinstance(record, bytes) else to_datum(record))
        writer.finish({"classes": ["(ignored)", "wall", "floor"], **info})
        return "db"

    return write


def test_counts_ranges_and_labels(db, command):
    result = command("inspect", db([planes(0), planes(1, label=2)]))
    lines = result.stdout.splitlines()
    assert lines[0].startswith("db: 2 records")
    assert "  shape     5x4x6 uint8: 2 records" in lines
    assert "  depth     0 to 9" in lines
    assert "  holes     4.2 % of depth" in lines  # 1 pixel of 24
    assert "    1    50.0000        1  wall" in lines
    assert "suspicious records: 0" in lines


def test_what_is_odd_is_named(db, command, tmp_path):
    records = [
        planes(0),
        planes(1, depth=0),
        planes(2, label=3),
        planes(3, label=0),
        planes(0),
        np.zeros((3, 4, 6), np.uint8),
        np.where(np.arange(6) == 2, 0.5, planes(4)).astype(np.float32),
    ]
    result = command("inspect", db(records))
    found = dict(
        line.strip().split(": ", 1)
        for line in result.stdout.partition("suspicious records: ")[2].splitlines()[1:]
    )
    assert found == {
        "b": "no depth at all",
        "c": "unknown label 3",
        "d": "nothing labelled",
        "e": "the same as a",
        "f": "3 channels, expected 5 (blue, green, red, depth, label)",
        "g": "labels that are not whole",
    }


def test_frames_without_labels_are_not_odd_where_there_are_none(db, command):
    result = command("inspect", db([planes(label=0)], labeled=False))
    assert "suspicious records: 0" in result.stdout


def test_records_that_are_no_datums(tmp_path, command):
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as txn:
        txn.put(b"k", b"\xff\xff\xff")
    assert "k: record: not a Datum" in command("inspect", "db").stdout


def test_verify(db, command, tmp_path):
    path = db([planes(0), planes(1)])
    assert "verified" in command("inspect", path, "--verify").stdout
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as txn:
        record = bytearray(txn.get(b"a"))
        record[-20] ^= 1
        txn.put(b"a", bytes(record))
    assert "checksum: sha256:" in command("inspect", path, "--verify", code=1).stderr
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as txn:
        txn.delete(b"a")
    assert (
        "records: 1, but dataset.json says 2" in command("inspect", path, "--verify", code=1).stderr
    )
    (tmp_path / "db" / "dataset.json").unlink()
    assert "no checksum" in command("inspect", path, "--verify", code=1).stderr


def test_the_sheet_shows_colour_depth_label_and_overlay(db, command, tmp_path):
    frame = planes()
    frame[:3] = np.array([10, 20, 30])[:, None, None]
    command("inspect", db([frame], palette=[[0, 0, 0], [200, 100, 50], [1, 1, 1]]),
            "--sheet", "s.png", "--html", "p.html")  # fmt: skip
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (18 + 160, 4 * 240, 3)
    middle = 18 + 80
    assert sheet[middle, 120].tolist() == [10, 20, 30]
    assert sheet[middle, 240 + 10 * 6].tolist() != [0, 0, 0]
    assert sheet[20, 240 + 5].tolist() == [0, 0, 0]  # the hole
    assert sheet[middle, 480 + 120].tolist() == [50, 100, 200]
    assert sheet[middle, 720 + 120].tolist() == [30, 60, 115]  # halves of both
    page = (tmp_path / "p.html").read_text()
    assert "<td>wall" in page
    assert "data:image/png;base64," in page


def test_names_are_text_in_the_page_and_on_the_terminal(db, command, tmp_path):
    names = ["(ignored)", "<img src=x onerror=run()>\x1b[31m", "a\nb"]
    path = db([planes(0), planes(1, label=2)], classes=names)
    printed = command("inspect", path, "--html", "out.html").stdout
    assert "\x1b" not in printed
    assert any(line.endswith("  a b") for line in printed.splitlines())
    page = (tmp_path / "out.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=run()&gt;" in page
    policy = page.partition('content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in policy


def test_a_dataset_json_without_a_count_is_not_verified(tmp_path, command):
    writer = store.Writer(tmp_path / "db", "plan")
    writer.put(b"00000000_a", to_datum(np.ones((5, 2, 3), np.uint8)))
    info = writer.finish({})
    (tmp_path / "db" / "dataset.json").write_text(json.dumps({"checksum": info["checksum"]}))
    line = command("inspect", "db", "--verify", code=1).stderr
    assert "db: records: 1, but dataset.json says None" in line


def test_files_to_write_are_distinct_and_no_inputs(db, command, tmp_path):
    path = db([planes(0), planes(1, label=2)])
    line = command("inspect", path, "--sheet", "x.jpg", "--html", "x.jpg", code=1).stderr
    assert "x.jpg: --html would overwrite --sheet" in line
    assert not (tmp_path / "x.jpg").exists()
    line = command("inspect", path, "--html", f"{path}/data.mdb", code=1).stderr
    assert "data.mdb: --html would overwrite LMDB" in line


def test_a_record_without_pixels_is_suspicious(tmp_path, command):
    path = tmp_path / "db"
    path.mkdir()
    with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
        for key, record in ((b"a", np.zeros((5, 0, 0), np.uint8)), (b"b", planes(1, label=2))):
            transaction.put(key, to_datum(record))
    lines = command("inspect", path, "--sheet", "x.png").stdout.splitlines()
    assert any(line.startswith("  a: ") and "0x0 pixels hold no values" in line for line in lines)
