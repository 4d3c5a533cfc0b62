"""The doctor in data_tools.folder, sequence and inspect, as their users run them."""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from spoiling import WAYS

from data_tools.store import Reader
from data_tools.synth import Synth

COUNT = 4


@pytest.fixture(scope="module")
def rendered():
    source = Synth(COUNT, (160, 120), 33)
    return [source.load(i) for i in range(COUNT)]


@pytest.fixture
def folder(rendered, trio):
    """folder(spoil) writes rgb/, depth/ and label/, with depth spoiled; returns their folder."""

    def write(spoil=lambda color, depth: (color, depth), only=range(COUNT)):
        for i, one in enumerate(rendered):
            color, depth = spoil(one.color, one.depth) if i in only else (one.color, one.depth)
            root = trio(f"f{i}", color, np.ascontiguousarray(depth), one.label)
        return root

    return write


def args(root, *more):
    return ["--rgb", root / "rgb", "--depth", root / "depth", "--label", root / "label", *more]


def depths(path):
    return [planes[3] for _, planes, _ in Reader(path).planes()]


def info(path):
    return json.loads((path / "dataset.json").read_text())


def test_sound_frames_are_passed_over_in_silence(folder, command):
    result = command("folder", *args(folder(), "db"))
    assert result.stderr == ""
    assert "suspicious records: 0" in command("inspect", "db").stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_a_warning_names_frame_figure_and_option(folder, command, workers):
    result = command("folder", *args(folder(), "db", "--depth-unit", "m", "--workers", workers))
    (line,) = result.stderr.splitlines()
    assert line.startswith("f0: median distance ")
    assert " m with --depth-unit m, expected 0.2 to 15 m; --depth-unit mm makes it " in line
    assert line.endswith(" (so with 4 frames)")


def test_strict_makes_them_bad_frames(folder, command, tmp_path):
    root = folder(WAYS["constant"].spoil, only=[1, 2])
    result = command("folder", *args(root, "db", "--strict"), code=1)
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [
        "cannot use frame f1",
        "cannot use frame f2",
    ]
    assert "nearly all readings are 1500 (1.5 m)" in lines[0]
    assert not (tmp_path / "db").exists()
    command("folder", *args(root, "db", "--strict", "--skip-bad"))
    assert info(tmp_path / "db")["skipped"] == ["f1", "f2"]
    assert info(tmp_path / "db")["options"]["strict"] is True


@pytest.mark.parametrize("value", [65535, 10000])
def test_no_reading_is_found_said_and_recorded(folder, command, tmp_path, value):
    plain = folder()
    command("folder", *args(plain, "plain", "--depth-range", "valid"))
    root = folder(lambda c, d: (c, np.where(d > 0, d, value).astype(np.uint16)))
    result = command("folder", *args(root, "db", "--depth-range", "valid"))
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"db: depth {value} is taken as no reading: ")
    assert "% of the readings are " in line
    assert info(tmp_path / "db")["options"]["no_reading"] == [value]
    for one, other in zip(depths(tmp_path / "db"), depths(tmp_path / "plain"), strict=True):
        assert np.array_equal(one, other)


def test_no_reading_is_told(folder, command, tmp_path):
    plain = folder()
    command("folder", *args(plain, "plain"))
    root = folder(lambda c, d: (c, np.where(d > 0, d, 77).astype(np.uint16)))
    result = command("folder", *args(root, "db", "--no-reading", 77, "--no-reading", "65535"))
    assert result.stderr == ""
    assert info(tmp_path / "db")["options"]["no_reading"] == [77, 65535]
    for one, other in zip(depths(tmp_path / "db"), depths(tmp_path / "plain"), strict=True):
        assert np.array_equal(one, other)
    line = command("folder", *args(root, "x", "--no-reading", "far"), code=2).stderr
    assert "'far' is neither a number nor none" in line


def test_no_reading_may_be_none(folder, command, tmp_path):
    root = folder(lambda c, d: (c, np.where(d > 0, d, 65535).astype(np.uint16)))
    result = command("folder", *args(root, "db", "--no-reading", "none", "--depth-range", "valid"))
    assert "; --no-reading 65535 takes them as holes" in result.stderr
    assert "no_reading" not in info(tmp_path / "db")["options"]
    assert all((depth == 255).any() and depth.min() > 0 for depth in depths(tmp_path / "db"))


def test_a_file_is_no_two_parts_of_a_frame(folder, command):
    root = folder()
    for more in (["--rgb", root / "depth"], ["--label", root / "depth"], ["--depth", root / "rgb"]):
        line = command("folder", *args(root, "db", *more), code=1).stderr
        assert "f0.png: is both the " in line
    one = root / "depth" / "f1.png"
    line = command("folder", "db", "--rgb", one, "--depth", one, code=1).stderr
    assert "f1.png: is both the color and the depth of frame 'f1'" in line
    command("folder", "db", "--rgb", root / "rgb", "--depth", root / "depth")


def test_depth_that_stands_still_and_equal_labels(rendered, trio, command):
    for i, one in enumerate(rendered):
        root = trio(f"f{i}", one.color, rendered[0].depth, rendered[0].label)
    lines = command("folder", *args(root, "db")).stderr.splitlines()
    said = [line for line in lines if line.startswith("db: all 4 frames have the same ")]
    assert ["depth, though" in line for line in said] == [True, False]
    assert "labels, though" in said[1]
    for i, one in enumerate(rendered):
        trio(f"f{i}", one.color, one.depth, rendered[0].label)
    line = command("folder", *args(root, "other", "--strict"), code=1).stderr
    assert "other: all 4 frames have the same labels, though other colours" in line
    assert not (root / "other").exists()
    assert "all 4 frames have the same depth" in command("inspect", "db").stdout


def test_turned_colour_turns_depth_and_is_recorded(rendered, command, tmp_path):
    for i, one in enumerate(rendered):
        for part in ("rgb", "depth"):
            (tmp_path / part).mkdir(exist_ok=True)
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(one.color[..., ::-1])).save(file, "PNG", exif=exif)
        (tmp_path / "rgb" / f"f{i}.png").write_bytes(file.getvalue())
        cv2.imwrite(str(tmp_path / "depth" / f"f{i}.png"), np.rot90(one.depth))
    result = command("folder", "db", "--rgb", "rgb", "--depth", "depth", "--depth-range", "0:8")
    way = "turned by 90 degrees clockwise"
    assert result.stderr == f"f0: depth is {way}, as EXIF data turn colour (so with 4 frames)\n"
    frames = info(tmp_path / "db")["frames"]
    assert frames == {f"0000000{i}_f{i}": {"turned": {"depth": way}} for i in range(COUNT)}
    for depth, one in zip(depths(tmp_path / "db"), rendered, strict=True):
        assert np.array_equal(depth, np.rint(np.minimum(one.depth / 8000, 1) * 255))


def test_depth_of_another_shape_is_told_to_be_turned(folder, command):
    root = folder(lambda color, depth: (color, np.rot90(depth)))
    line = command("folder", *args(root, "db"), code=1).stderr
    assert "expected one aspect ratio (within 1 %); it seems to be turned by 90 degrees" in line


def test_a_calibration_that_does_not_fit_is_told(folder, command):
    root = folder()
    camera = {"width": 160, "height": 120, "fx": 140, "fy": 140, "cx": 79.5, "cy": 59.5}
    pair = {"depth": camera, "extrinsics": {"rotation": np.eye(3).tolist(),
                                            "translation": [0, 0, 0]}}  # fmt: skip
    for cx in (79.5, 91.5):
        (root / "rig.json").write_text(json.dumps({**pair, "color": {**camera, "cx": cx}}))
        result = command("folder", *args(root, f"db{cx}", "--intrinsics", root / "rig.json"))
        told = "those of other cameras, or of another mode" in result.stderr
        assert told == (cx == 91.5)
        assert "project depth into the colour camera" not in result.stderr


def test_sequences_are_looked_at(folder, command):
    root = folder(WAYS["constant"].spoil)
    (root / "rec").mkdir()
    (root / "rgb").rename(root / "rec" / "color")
    (root / "depth").rename(root / "rec" / "depth")
    for part in ("color", "depth"):
        for i in range(COUNT):
            (root / "rec" / part / f"f{i}.png").rename(root / "rec" / part / f"{i}.png")
    result = command("sequence", "rec", "db", "--kind", "open3d")
    assert "depth is a constant plane: nearly all readings are 1500 (1.5 m)" in result.stderr
    line = command("sequence", "rec", "x", "--kind", "open3d", "--strict", code=1).stderr
    assert "constant plane" in line


@pytest.mark.parametrize("name", ["mirrored", "upside down", "turned by 180"])
def test_inspect_tells_of_records(folder, command, name):
    command("folder", *args(folder(WAYS[name].spoil), "db", "--depth-range", "0:8"))
    found = command("inspect", "db").stdout.partition("suspicious records: ")[2]
    assert WAYS[name].words in found
    assert "--strict" not in found


def test_the_sheet_draws_edges_over_colour_and_metres(folder, command, tmp_path):
    root = folder()
    command("folder", *args(root, "db", "--depth-range", "0:8"))
    command("inspect", "db", "--sheet", "s.png", "--html", "p.html")
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (COUNT * (18 + 180), 5 * 240, 3)
    color, edges = sheet[18:198, :240], sheet[18:198, 960:]
    drawn = (color != edges).any(2)
    assert 0.005 < drawn.mean() < 0.3
    assert (edges[drawn] == (60, 60, 255)).all()
    bar = sheet[18 + 20 : 198 - 20, 480 - 9]
    assert len(np.unique(bar, axis=0)) > 50
    assert "depth in metres (0:8 m); label" in (tmp_path / "p.html").read_text()
    command("folder", *args(root, "scaled"))
    command("inspect", "scaled", "--html", "p.html")
    assert "depth as scaled to 0..255" in (tmp_path / "p.html").read_text()


def test_two_units_that_make_sense_are_both_named(folder, command):
    """Near depth of a tenth of a millimetre, as YCB-Video has it, looks like TUM's, too."""
    root = folder(lambda color, depth: (color, np.minimum(depth * 6.0, 65535).astype(np.uint16)))
    said = command("folder", *args(root, "db")).stderr
    assert "--depth-unit 5000 makes it" in said
    assert ", --depth-unit 10000 " in said
