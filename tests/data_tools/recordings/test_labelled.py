"""Labels of some of a recording's frames, from pictures or a labelling tool's file."""

import json

import cv2
import layouts
import numpy as np
import pytest
from PIL import Image

from data_tools.store import Reader, read_info
from data_tools.synth import Synth

WIDE, HIGH = 40, 30
LEFT = [[0, 0, 20, 0, 20, 30, 0, 30]]


@pytest.fixture
def recording(tmp_path, rendered):
    """A TUM recording of six frames at rec/."""
    return layouts.tum(tmp_path / "rec", rendered)


def colors(root):
    return sorted((root / "rec" / "rgb").iterdir())


def coco(root, files):
    images = [{"id": i, "file_name": f"rgb/{name}", "width": WIDE, "height": HIGH}
              for i, name in enumerate(files)]  # fmt: skip
    drawn = [{"image_id": i, "category_id": 1, "segmentation": LEFT} for i in range(len(files))]
    told = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "wall"}]}
    (root / "coco.json").write_text(json.dumps(told))


def test_a_tools_labels_of_two_frames(command, recording, tmp_path, names):
    files = [colors(tmp_path)[i].name for i in (4, 1)]
    coco(tmp_path, [*files, "elsewhere.png"])
    said = command("sequence", "rec", "db", "--labels-from", "coco.json").stderr
    assert "coco.json: labels of 2 of 6 frames; the others are left out; 1 pictures belong" in said
    assert len(names("db")) == 2
    for _, planes, _ in Reader(tmp_path / "db").planes():
        assert (planes[4] == np.repeat([1, 0], 20)).all()
    info = read_info("db")
    assert (info["labeled"], info["classes"]) == (True, ["(ignored)", "wall"])
    assert info["options"]["labels_kind"] == "COCO instances"


def test_pictures_of_labels(command, recording, tmp_path):
    (tmp_path / "label").mkdir()
    name = colors(tmp_path)[2].stem
    values = np.repeat(np.uint8([[7, 255]]), 20, axis=1).repeat(HIGH, axis=0)
    assert cv2.imwrite(str(tmp_path / "label" / f"{name}.png"), values)
    command("sequence", "rec", "db", "--label", "label", "--ignore-label", 255)
    ((_, planes, _),) = Reader(tmp_path / "db").planes()
    assert (planes[4] == np.repeat([7, 0], 20)).all()
    assert (planes[:3].transpose(1, 2, 0) == cv2.imread(str(colors(tmp_path)[2]))).all()


def test_labels_go_into_the_folder_of_pairs(command, recording, tmp_path):
    coco(tmp_path, [colors(tmp_path)[0].name])
    command("sequence", "rec", "pairs", "--to", "folder", "--labels-from", "coco.json")
    (file,) = (tmp_path / "pairs" / "label").iterdir()
    assert (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) == np.repeat([1, 0], 20)).all()
    command("sequence", "rec", "db", "--labels-from", "coco.json", "--size", "20x15")
    where = [f"--{part}={tmp_path}/pairs/{part}" for part in ("rgb", "depth", "label")]
    command("folder", *where, "again", "--depth-unit", 5000, "--size", "20x15")
    assert [r for _, r in Reader(tmp_path / "db")] == [r for _, r in Reader(tmp_path / "again")]


def test_labels_of_none_of_the_frames(command, recording, tmp_path):
    coco(tmp_path, ["elsewhere.png"])
    line = command("sequence", "rec", "db", "--labels-from", "coco.json", code=1).stderr
    assert "coco.json: none of its pictures is a frame's, as of" in line
    assert command("sequence", "rec", "db", "--zero-based", code=2)


def test_labels_are_turned_with_the_frame_that_exif_data_turn(command, tmp_path):
    """Of a camera that was held upside down; a folder of pairs then has all parts upright."""
    frame, exif = Synth(3, (160, 120), 5).load(1), Image.Exif()
    exif[0x0112] = 3
    color, depth, label = (
        np.ascontiguousarray(part[::-1, ::-1]) for part in (frame.color, frame.depth, frame.label)
    )
    for part, plane in (("depth", depth), ("labels", label)):
        layouts.put(tmp_path / "rec" / part / "7.png", plane)
    (tmp_path / "rec" / "color").mkdir()
    Image.fromarray(color[..., ::-1]).save(tmp_path / "rec" / "color" / "7.png", exif=exif)
    more = ["--label", "rec/labels"]
    said = command("sequence", "rec", "db", *more).stderr
    assert "7: depth and label are turned by 180 degrees, as EXIF data turn colour" in said
    ((_, planes, _),) = Reader(tmp_path / "db").planes()
    assert (planes[4] == frame.label).all()
    assert (planes[:3].transpose(1, 2, 0) == frame.color).all()
    said = command("sequence", "rec", "pairs", "--to", "folder", *more).stderr
    assert "7: depth and label are turned by 180 degrees" in said
    for part, plane in (("rgb", frame.color), ("depth", frame.depth), ("label", frame.label)):
        assert (cv2.imread(f"pairs/{part}/7.png", cv2.IMREAD_UNCHANGED) == plane).all()
