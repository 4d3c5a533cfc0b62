"""data_tools.nyuv2 on generated files in the true layout, every pixel by arithmetic."""

import csv
from pathlib import Path

import numpy as np
import pytest
from mat_files import SCENE_TYPES, nyu_color, nyu_depth, nyu_label, write_nyu

from data_tools import classes, nyuv2
from data_tools.store import Reader

COUNT = 16


def facts(name):
    """A table as it was published, read here a second time and in another way."""
    lines = (Path(classes.TABLES) / name).read_text().splitlines()[1:]
    return list(csv.reader(lines))


SPLIT = {int(row[0]): row[1] for row in facts("nyuv2_splits.csv")}
TO_CLASSES = {int(row[0]): (int(row[-2]), int(row[-1])) for row in
              facts("nyuv2_894_to_40_and_13.csv")}  # fmt: skip


@pytest.fixture(scope="module")
def mat(tmp_path_factory):
    path = tmp_path_factory.mktemp("nyu") / "nyu_depth_v2_labeled.mat"
    write_nyu(path, COUNT, chunk=3, compression="gzip", compression_opts=1)
    return path


def frames_of(split):
    wanted = {"trainval": ("train", "val")}.get(split, (split,))
    return [i for i in range(COUNT) if SPLIT[i + 1] in wanted]


def expected(index, count, raw=False):
    """The 5 planes of a halved frame: blocks of 2 x 2 are one colour and one label."""
    color, label = nyu_color(index)[::2, ::2], nyu_label(index)[::2, ::2]
    depth = nyu_depth(index, raw)[::2, ::2].astype(np.float64)
    depth = ((depth - depth.min()) / (depth.max() - depth.min()) * 255).astype(np.uint8)
    table = np.array([0] + [TO_CLASSES[i][count == 13] for i in range(1, 895)], np.uint8)
    return np.stack([*color.transpose(2, 0, 1)[::-1], depth, table[label]])


def test_the_tables_are_the_benchmarks():
    sizes = {split: len(nyuv2.split_indices(split)) for split in nyuv2.SPLITS}
    assert sizes == {"train": 381, "val": 414, "trainval": 795, "test": 654}
    assert sorted(nyuv2.split_indices("trainval") + nyuv2.split_indices("test")) == list(
        range(1449)
    )
    for count in (40, 13):
        table = nyuv2.label_map(count)
        assert table.shape == (895,)
        assert table[0] == 0
        assert set(table) == set(range(count + 1)) or set(table) == set(range(1, count + 1)) | {0}


@pytest.mark.parametrize("count", [40, 13])
def test_every_record_of_every_split(mat, command, tmp_path, count):
    result = command("nyuv2", mat, "out", "--classes", count, "--workers", 2)
    assert len(result.stdout.splitlines()) == 4
    for split in nyuv2.SPLITS:
        reader = Reader(tmp_path / "out" / split)
        indices = frames_of(split)
        assert len(reader) == len(indices) > 0
        for position, (index, (key, planes, scene)) in enumerate(
            zip(indices, reader.planes(), strict=True)
        ):
            assert key == f"{position:08d}_nyu{index + 1:04d}".encode()
            assert (planes == expected(index, count)).all()
            assert scene == 0
        assert reader.info["dataset"] == f"nyuv2-{count}"
        assert reader.info["split"] == split
        assert len(reader.info["classes"]) == count + 1


def test_raw_depth_ranges_scenes_and_floats(mat, command, tmp_path):
    command("nyuv2", mat, "out", "--depth", "raw", "--depth-range", "0:10", "--float-depth",
            "--scene-labels", "--splits", "test,val")  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["test", "val"]
    reader = Reader(tmp_path / "out" / "test")
    for index, (_, planes, scene) in zip(frames_of("test"), reader.planes(), strict=True):
        depth = nyu_depth(index, True)[::2, ::2].astype(np.float64) / 10 * 255
        assert planes.dtype == np.float32
        assert (planes[3] == depth.astype(np.float32)).all()
        assert (planes[:3] == expected(index, 40)[:3]).all()
        name = SCENE_TYPES[index % 5].replace("_", " ")
        assert reader.info["scenes"][scene] == ("others" if name == "basement" else name)
    assert len(reader.info["scenes"]) == 10


def test_crop_keeps_what_both_cameras_see(mat, command, tmp_path):
    command("nyuv2", mat, "out", "--crop", "--size", "561x427", "--splits", "val")
    (index, *_), (first, *_) = frames_of("val"), Reader(tmp_path / "out" / "val").planes()
    assert first[1].shape == (5, 427, 561)
    assert (first[1][:3] == nyu_color(index)[44:471, 40:601, ::-1].transpose(2, 0, 1)).all()


BAD = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated file"),
    "level 5": (lambda path: path.write_bytes(b"MATLAB 5.0" * 99), "of level 5; expected one of"),
    "not hdf5": (lambda path: path.write_bytes(b"x" * 99), "not a MATLAB 7.3 file that"),
    "no depths": (lambda path: write_nyu(path, 2, (8, 6), leave_out=["depths"]),
                  "has no variable 'depths'"),
    "no scenes": (lambda path: write_nyu(path, 2, (8, 6), leave_out=["sceneTypes"]),
                  "has no variable 'sceneTypes'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_broken_files_have_their_line(tmp_path, command, case):
    path = tmp_path / "nyu.mat"
    write_nyu(path, 2, (8, 6))
    spoil, message = BAD[case]
    spoil(path)
    result = command("nyuv2", "nyu.mat", "out", "--scene-labels", code=1)
    assert message in result.stderr
    assert "nyu.mat" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_bad_frames_are_named(tmp_path, command):
    path = tmp_path / "nyu.mat"
    write_nyu(path, 6, (8, 6))
    with nyuv2.h5py.File(path, "r+") as file:
        file["labels"][1, 0, 0] = 895
        file["depths"][3] = 0
        file["depths"][4] = np.nan
    result = command("nyuv2", "nyu.mat", "out", "--size", "8x6", code=1)
    assert "frame nyu0002: raw label 895 is unknown" in result.stderr
    assert "frame nyu0004: depth has no reading" in result.stderr
    assert "frame nyu0005: depth has no reading" in result.stderr
    assert "3 of 6 frames cannot be used" in result.stderr
    command("nyuv2", "nyu.mat", "out", "--size", "8x6", "--skip-bad")
    info = Reader(tmp_path / "out" / "test").info
    assert info["skipped"] == ["nyu0002"]
    command("nyuv2", "nyu.mat", "all", "--size", "8x6", "--skip-bad", "--unknown", "ignore")
    info = Reader(tmp_path / "all" / "test").info
    assert info["unknown_labels"] == {"pixels": 1, "frames": 1}
    assert "skipped" not in info


def test_a_split_without_frames_is_an_error_only_if_asked_for(tmp_path, command):
    write_nyu(tmp_path / "nyu.mat", 2, (8, 6))  # images 1 and 2 are of the test split
    result = command("nyuv2", "nyu.mat", "out")
    assert "holds 2 of the data set's 1449 frames" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["test"]
    assert (
        "no frame of split val"
        in command("nyuv2", "nyu.mat", "out2", "--splits", "val", code=1).stderr
    )
    command("nyuv2", "nyu.mat", "out2", "--splits", "val,night", code=2)
