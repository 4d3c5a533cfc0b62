"""data_tools.sunrgbd on a generated tree in the true layout, every pixel by arithmetic."""

import cv2
import h5py
import numpy as np
import pytest
from mat_files import write_level5

from data_tools import sunrgbd
from data_tools.store import Reader

# In the official order test frames come first; RealSense's paths have doubled slashes.
FRAMES = [
    ("kv2/kinect2data/000065_2014-05-16_14-32-05_260595134347_rgbf000121-resize", "test"),
    ("realsense/lg/2014_10_21-18_12_45-1311000073", "test"),
    ("kv1/NYUdata/NYU0003", "train"),
    ("xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103-000003449974", "train"),
    ("realsense/sa/2014_10_21-18_16_12-1311000073", "train"),
]
SIZE = (36, 28)  # width, height


def color(index):
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] // 2
    return np.stack([x + index, y + 2 * index, x + y], 2).astype(np.uint8)


def millimetres(index, bfx):
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    depth = 500 + 250 * x + 10 * y + index
    return np.where(bfx | ((x + y) % 5 > 0), depth, 0).astype(np.uint16)


def rotated(depth):
    """As the data set stores millimetres: the 16 bits turned left by 3."""
    return ((depth.astype(np.uint32) << 3) | (depth >> 13)).astype(np.uint16)


def label(index):
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] // 2
    return ((x + y + index) % 38).astype(np.uint8)


def write_label_file(path, labels):
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_dataset("SUNRGBD2Dseg/seglabel", (len(labels), 1), h5py.ref_dtype)
        for i, values in enumerate(labels):
            refs[i, 0] = file.create_dataset(f"#refs#/l{i}", data=values.T).ref
        file["seg37list"] = np.zeros((37, 1))


@pytest.fixture
def tree(tmp_path):
    meta, split = [], {"train": [], "test": []}
    for index, (folder, part) in enumerate(FRAMES):
        below = tmp_path / "SUNRGBD" / folder
        for name in ("image", "depth", "depth_bfx"):
            (below / name).mkdir(parents=True)
        cv2.imwrite(str(below / "image" / f"{index}.png"), color(index))
        cv2.imwrite(str(below / "depth" / f"d{index}.png"), rotated(millimetres(index, False)))
        cv2.imwrite(str(below / "depth_bfx" / f"d{index}.png"), rotated(millimetres(index, True)))
        slash = "//" if folder.startswith("realsense") else "/"
        there = f"/n/fs/sun3d/data/SUNRGBD{slash}{folder}"
        meta.append({
            "sequenceName": f"SUNRGBD/{folder}",
            "rgbpath": f"{there}/image/{index}.png",
            "depthpath": f"{there}/depth/d{index}.png",
            "rgbname": f"{index}.png",
            "depthname": f"d{index}.png",
            "K": np.eye(3),
        })  # fmt: skip
        split[part].append(f"/n/fs/sun3d/data/SUNRGBD/{folder}/".rstrip("/" if index % 2 else ""))
    for name in ("Metadata", "traintestSUNRGBD"):
        (tmp_path / "SUNRGBDtoolbox" / name).mkdir(parents=True)
    write_level5(tmp_path / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", SUNRGBDMeta=meta)
    write_level5(tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat",
                 alltrain=split["train"], alltest=split["test"])  # fmt: skip
    write_label_file(tmp_path / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat",
                     [label(i) for i in range(len(FRAMES))])  # fmt: skip
    return tmp_path


WHERE = ("SUNRGBD", "SUNRGBDtoolbox", "out")


def expected(index, bfx=True):
    depth = np.minimum(millimetres(index, bfx)[::2, ::2] / 1000, 8)
    depth = ((depth - depth.min()) / (depth.max() - depth.min()) * 255).astype(np.uint8)
    planes = color(index)[::2, ::2].transpose(2, 0, 1)
    return np.stack([*planes, depth, label(index)[::2, ::2]])


def check(path, indices, bfx=True):
    reader = Reader(path)
    assert len(reader) == len(indices)
    for position, (index, (key, planes, scene)) in enumerate(
        zip(indices, reader.planes(), strict=True)
    ):
        assert key.decode() == f"{position:08d}_{FRAMES[index][0]}"
        assert (planes == expected(index, bfx)).all()
        assert scene == 0
        camera = FRAMES[index][0].partition("/")[0]
        assert reader.info["frames"][key.decode()] == {"camera": camera}
    return reader.info


def test_every_record(tree, command):
    command("sunrgbd", *WHERE, "--size", "18x14", "--workers", 2)
    info = check(tree / "out" / "train", [2, 3])  # without the RealSense frame
    assert info["dataset"] == "sunrgbd-37"
    assert info["classes"][-1] == "bag"
    assert check(tree / "out" / "test", [0, 1])["split"] == "test"


def test_raw_depth_and_all_training(tree, command):
    command("sunrgbd", tree, *WHERE[1:], "--size", "18x14", "--depth", "raw", "--all-training")
    check(tree / "out" / "train", [2, 3, 4], bfx=False)
    check(tree / "out" / "test", [0, 1], bfx=False)


def test_bad_frames_are_named(tree, command):
    (tree / "SUNRGBD" / FRAMES[2][0] / "depth_bfx" / "d2.png").unlink()
    cv2.imwrite(str(tree / "SUNRGBD" / FRAMES[0][0] / "depth_bfx" / "d0.png"),
                np.ones((28, 36), np.uint8))  # fmt: skip
    labels = [label(i) for i in range(5)]
    labels[3] = np.full((28, 36), 38, np.uint8)
    labels[1] = label(1)[:20]
    write_label_file(tree / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat", labels)
    result = command("sunrgbd", *WHERE, code=1)
    assert "NYU0003/depth_bfx/d2.png: No such file" in result.stderr
    assert "d0.png: 8-bit depth" in result.stderr or "d0.png: SUN RGB-D" in result.stderr
    assert "label 38 is out of range, expected 0 (ignored) to 37" in result.stderr
    assert "label is 36x20 and colour 36x28" in result.stderr
    assert "4 of 4 frames cannot be used" in result.stderr


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("Metadata/SUNRGBDMeta.mat", "SUNRGBDMeta.mat: No such file"),
        ("Metadata/SUNRGBD2Dseg.mat", "SUNRGBD2Dseg.mat: No such file"),
        ("traintestSUNRGBD/allsplit.mat", "allsplit.mat: No such file"),
    ],
)
def test_missing_metadata_is_named(tree, command, file, message):
    (tree / "SUNRGBDtoolbox" / file).unlink()
    assert message in command("sunrgbd", *WHERE, code=1).stderr


def test_metadata_that_disagree_are_refused(tree, command):
    box = tree / "SUNRGBDtoolbox"
    write_level5(
        box / "traintestSUNRGBD/allsplit.mat", alltrain=["/x/SUNRGBD/kv1/a"], alltest=["b"]
    )
    assert "is in neither alltrain nor alltest" in command("sunrgbd", *WHERE, code=1).stderr
    write_label_file(box / "Metadata/SUNRGBD2Dseg.mat", [label(0)])
    assert "seglabel has 1 entries, SUNRGBDMeta.mat 5" in command("sunrgbd", *WHERE, code=1).stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rgbname", "../../../../secret.png"),
        ("depthname", "/etc/passwd"),
        ("rgbpath", "/n/SUNRGBD/../../a/image/x.png"),
    ],
)
def test_paths_that_leave_the_root_are_refused(tree, command, field, value):
    path = "/n/SUNRGBD/kv1/a/image/x.png"
    row = {"rgbpath": path, "rgbname": "x.png", "depthname": "d.png", field: value}
    write_level5(tree / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", SUNRGBDMeta=[row])
    line = command("sunrgbd", *WHERE, code=1).stderr
    assert "is not the name of a file or folder in SUNRGBD" in line


def test_paths_below_the_root():
    assert sunrgbd.inside("/n/fs/sun3d/data/SUNRGBD//realsense/lg//x/") == "realsense/lg/x"
    assert sunrgbd.inside("/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU0001") == "kv1/NYUdata/NYU0001"
