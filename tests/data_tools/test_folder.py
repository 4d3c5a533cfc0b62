"""data_tools.folder as its users run it."""

import json
import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from boundary import limits
from data_tools import folder
from data_tools.cli import DataError
from data_tools.store import Reader


def planes(path):
    return [planes for _, planes, _ in Reader(path).planes()]


def args(root, *more):
    return ["--rgb", root / "rgb", "--depth", root / "depth", "--label", root / "label", *more]


def picture(value=0, height=24, width=32):
    return np.full((height, width, 3), value, np.uint8)


def depth(value=1000, height=24, width=32):
    return np.full((height, width), value, np.uint16)


def label(value=1, height=24, width=32):
    return np.full((height, width), value, np.uint8)


def test_frames_are_paired_by_name_in_natural_order(trio, command):
    for number in (10, 2, 1):
        root = trio(f"f{number}", picture(number), depth(), label(number))
    result = command("folder", *args(root, "db"))
    assert result.stdout == "db: 3 records of 5x24x32 uint8, 0 MB, 3 labels\n"
    assert result.stderr == ""
    assert [key for key, _ in Reader(root / "db")] == [
        b"00000000_f1",
        b"00000001_f2",
        b"00000002_f10",
    ]
    assert [(p[0, 0, 0], p[4, 0, 0]) for p in planes(root / "db")] == [(1, 1), (2, 2), (10, 10)]


def test_the_real_nyuv2_frame(frames, command, tmp_path):
    frame = frames / "nyuv2_000464"
    where = ["--rgb", frame / "rgb.png", "--depth", frame / "depth.png"]
    where += ["--label", frame / "label.png", "--depth-unit", 5000, "--size", "160x120"]
    command("folder", *where, "a", "--classes", 40)
    command("folder", *where, "v", "--depth-range", "valid")
    command("folder", *where, "m", "--depth-range", "0:8", "--float-depth")
    color = cv2.resize(cv2.imread(str(frame / "rgb.png")), (160, 120))
    raw = cv2.imread(str(frame / "depth.png"), cv2.IMREAD_UNCHANGED)[::4, ::4] / 5000
    labels = cv2.imread(str(frame / "label.png"), cv2.IMREAD_UNCHANGED)[::4, ::4]
    (a,), (v,), (m,) = (planes(tmp_path / name) for name in "avm")
    for record in (a, v, m):
        assert (record[:3] == color.transpose(2, 0, 1)).all()
        assert (record[4] == labels).all()
    assert (a[3] == ((raw - raw.min()) / (raw.max() - raw.min()) * 255).astype(np.uint8)).all()
    seen = raw > 0
    assert (v[3] > 0).tolist() == seen.tolist()
    assert (v[3][seen].min(), v[3].max()) == (1, 255)
    assert m.dtype == np.float32
    np.testing.assert_allclose(m[3], raw / 8 * 255, rtol=1e-6)


@pytest.mark.parametrize("kind", ["depth", "depth_bfx"])
@pytest.mark.parametrize("name", ["sunrgbd_img_0063", "sunrgbd_2014-12-18_11-31-54_260595134347"])
def test_real_sunrgbd_frames_with_their_turned_bits(frames, command, tmp_path, kind, name):
    command("folder", "--rgb", frames / name / "image", "--depth", frames / name / kind,
            "--depth-unit", "sunrgbd", "--depth-range", "0:8", "--float-depth", "db")  # fmt: skip
    (record,) = planes(tmp_path / "db")
    (file,) = (frames / name / kind).iterdir()
    raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    text = [f"{value:016b}" for value in np.unique(raw)]
    metres = {int(bits, 2): int(bits[-3:] + bits[:-3], 2) / 1000 for bits in text}
    expected = np.vectorize(metres.get)(raw) / 8 * 255
    np.testing.assert_allclose(record[3], expected, rtol=1e-6)
    assert (record[4] == 0).all()
    assert json.loads((tmp_path / "db" / "dataset.json").read_text())["labeled"] is False


def test_float_depth_files_are_metres(trio, command):
    root = trio("a", picture(), None, label())
    (root / "depth").mkdir()
    np.save(root / "depth" / "a.npy", np.full((24, 32), 2, np.float32))
    command("folder", *args(root, "db", "--depth-range", "0:4"))
    assert (planes(root / "db")[0][3] == 128).all()  # 127.5, rounded to even


def test_colour_coded_labels_and_class_names(trio, command):
    coded = np.zeros((24, 32, 3), np.uint8)
    coded[:12] = (30, 20, 10)  # BGR
    root = trio("a", picture(), depth(), coded)
    (root / "t.csv").write_text("label,name,r,g,b\n0,none,0,0,0\n1,wall,10,20,30\n")
    command("folder", *args(root, "db", "--classes", "t.csv"))
    assert (planes(root / "db")[0][4] == np.repeat([[1], [0]], 12, 0)).all()
    info = json.loads((root / "db" / "dataset.json").read_text())
    assert info["classes"] == ["none", "wall"]
    assert info["palette"] == [[0, 0, 0], [10, 20, 30]]
    assert info["label_pixels"] == {"0": 12 * 32, "1": 12 * 32}


def test_colours_that_no_class_has_may_count_as_0(trio, command):
    coded = np.zeros((24, 32, 3), np.uint8)
    coded[:12] = (30, 20, 10)  # BGR
    coded[5, 7] = coded[20, 3] = (1, 1, 1)
    root = trio("a", picture(), depth(), coded)
    (root / "t.csv").write_text("label;name;r;g;b\n0;none;0;0;0\n1;wall;10;20;30\n")
    line = command("folder", *args(root, "db", "--classes", "t.csv"), code=1).stderr
    assert "colour (1, 1, 1) at x=7 y=5 is not in the table" in line
    assert "--unknown ignore counts such pixels as 0" in line
    result = command("folder", *args(root, "db", "--classes", "t.csv", "--unknown", "ignore"))
    assert "db: 2 pixels of 1 frames had labels of no class" in result.stderr
    info = json.loads((root / "db" / "dataset.json").read_text())
    assert info["label_pixels"] == {"0": 12 * 32 + 1, "1": 12 * 32 - 1}
    assert info["unknown_labels"] == {"pixels": 2, "frames": 1}


def test_val_fraction_parts_the_frames(trio, command):
    for number in range(10):
        root = trio(f"{number}", picture(number), depth(), label())
    command("folder", *args(root, "db", "--val-fraction", 0.3))
    kept, held = ([int(p[0, 0, 0]) for p in planes(root / name)] for name in ("db", "db_val"))
    assert (len(kept), len(held)) == (7, 3)
    assert sorted(kept + held) == list(range(10))
    assert kept == sorted(kept)


def test_patterns_and_closing_words_pair_files(trio, tmp_path):
    for name in ("a1", "a2"):
        trio(f"{name}_rgb", picture(), None)
        cv2.imwrite(str(tmp_path / "rgb" / f"{name}_depth.png"), depth())
    files = folder.Files(f"{tmp_path}/rgb/*_rgb.png", f"{tmp_path}/rgb/*_depth.png", None, None)
    assert files.names == ["a1", "a2"]
    trio("a1.depth", None, depth())
    trio("a2-abs", None, depth())
    files = folder.Files(f"{tmp_path}/rgb/*_rgb.png", str(tmp_path / "depth"), None, None)
    assert files.names == ["a1", "a2"]


def test_folders_within_folders_are_part_of_the_name(trio, tmp_path):
    trio("x", picture(), depth())
    for part in ("rgb", "depth"):
        (tmp_path / part / "s1").mkdir()
        (tmp_path / part / "x.png").rename(tmp_path / part / "s1" / "x.png")
    assert folder.Files(str(tmp_path / "rgb"), str(tmp_path / "depth"), None, None).names == [
        "s1/x"
    ]
    files = folder.Files(f"{tmp_path}/rgb/*/x.png", f"{tmp_path}/depth/*/x.png", None, None)
    assert files.names == ["s1"]


def test_two_files_of_one_name_are_refused(trio, tmp_path):
    trio("x", picture(), depth())
    cv2.imwrite(str(tmp_path / "rgb" / "x.jpg"), picture())
    with pytest.raises(DataError, match=r"rgb/x\.(jpg|png) and .*rgb/x\.(jpg|png) are both 'x'"):
        folder.Files(str(tmp_path / "rgb"), str(tmp_path / "depth"), None, None)


BAD = {
    "missing pair": (lambda root: (root / "label" / "b.png").unlink(), [], "rgb/b.png: no label"),
    "extra": (lambda root: cv2.imwrite(str(root / "depth" / "c.png"), depth()), [],
              "depth/c.png: no color file named 'c'"),
    "aspect": (lambda root: cv2.imwrite(str(root / "depth" / "b.png"), depth(1, 24, 33)), [],
               "depth/b.png: depth is 33x24 and colour 32x24"),
    "8 bit": (lambda root: cv2.imwrite(str(root / "depth" / "b.png"), label()), [],
              "depth/b.png: 8-bit depth has no unit"),
    "unreadable": (lambda root: (root / "rgb" / "b.png").write_bytes(b"x"), [],
                   "rgb/b.png: not a picture"),
    "class": (lambda root: None, ["--classes", "1"], "label/b.png: label 2 is out of range"),
    "label": (lambda root: np.save(root / "label" / "b.npy", np.full((24, 32), 300)) or
              (root / "label" / "b.png").unlink(), [], "label/b.npy: label 300 is out of range"),
    "no folder": (lambda root: None, ["--rgb", "nowhere"], "nowhere: no such folder"),
    "no files": (lambda root: None, ["--rgb", "empty"], "empty: holds none of the files"),
    "no table": (lambda root: None, ["--classes", "t.csv"], "t.csv: No such file"),
    "scaled": (lambda root: None, ["--depth-unit", "scaled"],
               "scaled depth must lie in 0..255, found 1000..1000"),
    "no number": (lambda root: (np.save(root / "depth" / "b.npy", np.full((24, 32), np.nan)),
                                (root / "depth" / "b.png").unlink()),
                  [], "b: depth has no reading at all"),
    "no place": (lambda root: None, ["/"], "/: is no place for an LMDB"),
    "no name": (lambda root: None, [".", "--val-fraction", "0.5"], "--val-fraction needs a name"),
    "no intrinsics": (lambda root: None, ["--extrinsics-direction", "color-to-depth"],
                      "--extrinsics-direction needs --intrinsics"),
    "read-only": (lambda root: (root / "ro").write_text(""), ["ro/db"], "ro"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_has_its_line(trio, command, case):
    for number, name in enumerate("ab", start=1):
        root = trio(name, picture(), depth(), label(number))
    (root / "empty").mkdir()
    spoil, more, message = BAD[case]
    spoil(root)
    target = [] if case in ("read-only", "no place", "no name") else ["db"]
    result = command("folder", *args(root, *more, *target), code=1)
    assert message in result.stderr.splitlines()[-1] or message in result.stderr
    assert len(result.stderr.splitlines()) == (1 if case != "scaled" else 3)
    assert not (root / "db").exists()


def test_digits_of_other_kinds_are_no_numbers(trio, command):
    """`isdigit` takes them for digits, `int` does not."""
    for name in ("5\u00b2", "5\u00b2_2", "\u2460"):
        root = trio(name, picture(), depth(), label())
    command("folder", *args(root, "db"))
    assert len(planes(root / "db")) == 3


def test_skip_bad_takes_what_is_whole(trio, command):
    for number, name in enumerate("abc", start=1):
        root = trio(name, picture(), depth(), label(number))
    (root / "label" / "a.png").unlink()
    (root / "rgb" / "b.png").write_bytes(b"x")
    result = command("folder", *args(root, "db", "--skip-bad"))
    assert "left out: " in result.stderr
    assert "left out frame b: " in result.stderr
    assert [int(p[4, 0, 0]) for p in planes(root / "db")] == [3]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--size", "320"],
        ["--depth-unit", "inch"],
        ["--depth-range", "3:1"],
        ["--val-fraction", "1"],
        ["--workers", "0"],
        ["--depth-unit", "scaled", "--depth-range", "0:8"],
    ],
)
def test_bad_usage_is_2(trio, command, wrong):
    root = trio("a", picture(), depth(), label())
    assert (
        "usage: python -m data_tools.folder"
        in command("folder", *args(root, "db", *wrong), code=2).stderr
    )


def test_pictures_that_claim_too_much_are_bad_frames(trio, command, monkeypatch):
    """A frame's colour claims 2^32 pixels in a hundred bytes."""
    monkeypatch.delenv(limits.PIXELS_VARIABLE, raising=False)
    for name in "ab":
        root = trio(name, picture(), depth(), label())
    whole = bytearray((root / "rgb" / "b.png").read_bytes())
    whole[16:24] = struct.pack(">II", 2**16, 2**16)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    (root / "rgb" / "b.png").write_bytes(whole)
    said = command("folder", *args(root, "db"), code=1).stderr
    assert "a picture of 65536x65536 pixels; at most 67108864 are read" in said
    assert "--max-pixels" in said
    command("folder", *args(root, "db", "--skip-bad"))
    assert [key for key, _ in Reader(root / "db")] == [b"00000000_a"]


@pytest.mark.parametrize("workers", [1, 2])
def test_max_pixels_holds_in_workers_too(trio, command, monkeypatch, workers):
    monkeypatch.setenv(limits.PIXELS_VARIABLE, "100")
    root = trio("a", picture(), depth(), label())
    line = command("folder", *args(root, "db", "--workers", workers), code=1).stderr
    assert "a picture of 32x24 pixels; at most 100 are read" in line
    more = ["--max-pixels", 32 * 24, "--workers", workers]
    command("folder", *args(root, "db", *more))
    assert len(Reader(root / "db")) == 1


@pytest.mark.parametrize(
    ("part", "ending"),
    [("rgb", ".png"), ("label", ".png"), ("label", ".npy")]
    + [("depth", ending) for ending in (".png", ".npy", ".exr")],
)
def test_a_pipe_among_pictures_is_a_bad_frame(trio, command, part, ending):
    root = trio("a", picture(), depth(), label())
    trio("b", picture(), depth(), label())
    (root / part / "a.png").unlink()
    os.mkfifo(root / part / f"a{ending}")
    assert f"a{ending}: is no plain file" in command("folder", *args(root, "db"), code=1).stderr
    assert "a: " in command("folder", *args(root, "db", "--skip-bad")).stderr
    assert len(planes(root / "db")) == 1
    command("folder", "--rgb", root / "rgb" / "b.png", "--depth", root / "depth" / "b.png",
            "--label", root / "label" / "b.png", "one")  # fmt: skip


def test_skip_bad_holds_for_the_first_depth(trio, command):
    root = trio("a", picture(), depth(), label())
    trio("b", picture(), depth(2000), label())
    (root / "depth" / "a.png").write_bytes(b"no picture")
    line = command("folder", *args(root, "db"), code=1).stderr
    assert "a.png: not a picture that can be read" in line
    assert "left out frame" in command("folder", *args(root, "db", "--skip-bad")).stderr
    assert json.loads((root / "db/dataset.json").read_text())["options"]["depth_unit"].startswith(
        "1000 steps"
    )
    (root / "depth" / "b.png").write_bytes(b"no picture")
    line = command("folder", *args(root, "none", "--skip-bad"), code=1).stderr
    assert "a.png: not a picture that can be read" in line
