"""data_tools.scannet on a generated tree: sizes that differ, lists, test frames without labels."""

import cv2
import numpy as np
import pytest

from data_tools.store import Reader

# 1/4 of the true sizes, whose aspects differ by 0.4 %.
COLOR, DEPTH = (324, 242), (160, 120)
SCENES = {"scene0000_00": 2, "scene0001_00": 1, "scene0011_00": 1, "scene0707_00": 1}


def color(scene, number):
    return np.full((COLOR[1], COLOR[0], 3), (10 * scene + number, 7, 9), np.uint8)


def depth(scene):
    y, x = np.mgrid[: DEPTH[1], : DEPTH[0]]
    return (1000 + 10 * x + y + scene).astype(np.uint16)


def label():
    y, x = np.mgrid[: COLOR[1], : COLOR[0]]
    return ((x // 8 + y // 8) % 41).astype(np.uint8)


@pytest.fixture
def tree(tmp_path):
    for position, (scene, count) in enumerate(SCENES.items()):
        root = "scannet_frames_test" if scene == "scene0707_00" else "scannet_frames_25k"
        folder = tmp_path / root / scene
        for part in ("color", "depth", "label"):
            if part != "label" or root == "scannet_frames_25k":
                (folder / part).mkdir(parents=True)
        for number in range(count):
            name = f"{100 * number:06d}"
            quality = [cv2.IMWRITE_JPEG_QUALITY, 100]
            cv2.imwrite(str(folder / "color" / f"{name}.jpg"), color(position, number), quality)
            cv2.imwrite(str(folder / "depth" / f"{name}.png"), depth(position))
            if (folder / "label").exists():
                cv2.imwrite(str(folder / "label" / f"{name}.png"), label())
    (tmp_path / "scannetv2_train.txt").write_text("scene0001_00\nscene0000_00\n")
    (tmp_path / "scannetv2_val.txt").write_text("scene0011_00\n")
    return tmp_path


def check(path, names, labeled=True):
    reader = Reader(path)
    assert [key.decode()[9:] for key, _ in reader] == names
    rows = np.arange(60) * COLOR[1] // 60
    columns = np.arange(80) * COLOR[0] // 80
    for name, (_, planes, _) in zip(names, reader.planes(), strict=True):
        scene, _, number = name.partition("/")
        position = list(SCENES).index(scene)
        expected = color(position, int(number) // 100)[0, 0]
        assert (np.abs(planes[:3].astype(int) - expected[:, None, None].astype(int)) <= 2).all()
        metres = depth(position)[::2, ::2] / 1000
        spread = metres.max() - metres.min()
        assert (planes[3] == ((metres - metres.min()) / spread * 255).astype(np.uint8)).all()
        assert (planes[4] == (label()[rows[:, None], columns] if labeled else 0)).all()
    assert reader.info["labeled"] is labeled
    return reader.info


TRAIN = ["scene0001_00/000000", "scene0000_00/000000", "scene0000_00/000100"]
VAL = ["scene0011_00/000000"]


def test_every_split(tree, command):
    command("scannet", ".", "out", "--size", "80x60", "--splits", "train,val,trainval,test")
    check(tree / "out" / "train", TRAIN)
    check(tree / "out" / "val", VAL)
    info = check(tree / "out" / "trainval", TRAIN + VAL)
    assert info["dataset"] == "scannet-40"
    assert len(info["classes"]) == 41
    check(tree / "out" / "test", ["scene0707_00/000000"], labeled=False)


def test_the_lists_may_lie_elsewhere_and_test_may_be_left_out(tree, command):
    (tree / "lists").mkdir()
    for split in ("train", "val"):
        (tree / f"scannetv2_{split}.txt").rename(tree / "lists" / f"scannetv2_{split}.txt")
    assert "Tasks/Benchmark" in command("scannet", ".", "out", code=1).stderr
    command("scannet", "scannet_frames_25k", "out", "--lists", "lists", "--size", "80x60")
    check(tree / "out" / "train", TRAIN)
    assert sorted(p.name for p in (tree / "out").iterdir()) == ["train", "val"]


def test_lists_name_scenes_and_no_other_folders(tree, command):
    for name in ("../scannet_frames_test/scene0707_00", "..", str(tree)):
        (tree / "scannetv2_val.txt").write_text(f"{name}\n")
        line = command("scannet", ".", "out", code=1).stderr
        assert f"scannetv2_val.txt: {name} is not the name of a scene" in line
    (tree / "scannetv2_val.txt").write_text("\ufeffscene0011_00\r\n", encoding="utf-8")
    command("scannet", ".", "out", "--size", "80x60", "--splits", "val")
    check(tree / "out" / "val", VAL)


def test_bad_input_is_named(tree, command):
    (tree / "scannetv2_val.txt").write_text("scene0099_00\n")
    assert "scene0099_00: no such scene" in command("scannet", ".", "out", code=1).stderr
    (tree / "scannetv2_val.txt").write_text("scene0011_00\n")
    (tree / "scannet_frames_25k/scene0001_00/depth/000000.png").unlink()
    result = command("scannet", ".", "out", code=1)
    assert "scene0001_00/depth/000000.png: No such file" in result.stderr
    assert "nowhere: no such folder" in command("scannet", "nowhere", "out", code=1).stderr
    command("scannet", ".", "out", "--splits", "night", code=2)
