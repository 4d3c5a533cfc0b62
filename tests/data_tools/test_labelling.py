"""Labels of frames, as users of data_tools.folder ask for them, and what is said of a data set."""

import json

import cv2
import numpy as np
import pytest

from data_tools.store import Reader

WIDE, HIGH = 32, 24


@pytest.fixture
def root(trio):
    """Two frames, a and b, without labels."""
    for name in "ab":
        color = np.full((HIGH, WIDE, 3), 90, np.uint8)
        folder = trio(name, color, np.full((HIGH, WIDE), 1500, np.uint16))
    return folder


@pytest.fixture
def folder(root, command):
    """folder(*options, code=0): data_tools.folder on the two frames into `db`."""

    def run(*options, code=0):
        where = ["--rgb", root / "rgb", "--depth", root / "depth"]
        return command("folder", *where, *options, "db", "--force", code=code)

    return run


def stored(root):
    """The labels of the frames of `db`."""
    return [planes[4] for _, planes, _ in Reader(root / "db").planes()]


def info(root):
    return json.loads((root / "db" / "dataset.json").read_text())


def put(root, name, values):
    (root / "label").mkdir(exist_ok=True)
    if name.endswith(".npy"):
        np.save(root / "label" / name, values)
    else:
        assert cv2.imwrite(str(root / "label" / name), values)


def coco(root, annotations=None, **image):
    images = [{"id": i, "file_name": f"rgb/{name}.png", "width": WIDE, "height": HIGH, **image}
              for i, name in enumerate("ab")]  # fmt: skip
    left = {"image_id": 0, "category_id": 9, "segmentation": [[0, 0, 16, 0, 16, 24, 0, 24]]}
    right = {"image_id": 1, "category_id": 4, "segmentation": [[16, 0, 32, 0, 32, 24, 16, 24]]}
    told = {
        "images": images,
        "annotations": [left, right] if annotations is None else annotations,
        "categories": [{"id": 9, "name": "Chair"}, {"id": 4, "name": "wall"}],
    }
    (root / "coco.json").write_text(json.dumps(told))
    return root / "coco.json"


HALF = np.repeat([[0, 1]], [WIDE // 2], axis=1).repeat(HIGH, axis=0)


def test_a_tools_labels_and_its_own_classes(root, folder):
    said = folder("--labels-from", coco(root)).stderr
    assert said == f"{root}/coco.json: COCO instances, 2 pictures, 2 classes\n"
    assert (stored(root)[0] == 2 * (1 - HALF)).all()
    assert (stored(root)[1] == HALF).all()
    found = info(root)
    assert found["classes"] == ["(ignored)", "wall", "Chair"]
    assert found["labeled"] is True
    assert found["options"]["labels_kind"] == "COCO instances"
    assert found["source"]["label"].endswith("coco.json")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_benchmarks_classes(root, folder, workers):
    said = folder("--labels-from", coco(root), "--classes", "nyuv2-40", "--workers", workers).stderr
    assert set(np.unique(stored(root)[0])) == {0, 5}
    assert "dataset" not in info(root)  # the frames are not NYUv2's
    assert info(root)["classes"][5] == "chair"
    assert "38 of 40 classes never occur: 2 (floor), 3 (cabinet), 4 (bed), 6 (sofa)" in said
    assert "and 30 more" in said
    assert "--zero-based" not in said


def test_names_of_no_class(root, folder):
    (root / "names.txt").write_text("# mine\nwall\nsofa\n")
    options = ["--labels-from", coco(root), "--classes", "names.txt"]
    line = folder(*options, code=1).stderr.splitlines()[-1]
    assert "cannot use frame a: " in line
    assert "coco.json: picture 'rgb/a.png': 'Chair' is not in the table of classes" in line
    assert "--unknown ignore counts such pixels as 0" in line
    said = folder(*options, "--unknown", "ignore").stderr
    assert f"{HIGH * WIDE // 2} pixels of 1 frames had labels of no class" in said
    assert not stored(root)[0].any()


def test_frames_and_pictures_without_a_partner(root, folder):
    path = coco(root)
    told = json.loads(path.read_text())
    told["images"][1]["file_name"] = "elsewhere.png"
    path.write_text(json.dumps(told))
    line = folder("--labels-from", path, code=1).stderr.splitlines()[-1]
    assert "rgb/b.png: no label file named 'b' goes with it; --skip-bad leaves such files" in line
    said = folder("--labels-from", path, "--skip-bad").stderr
    assert "picture 'elsewhere.png': no color file named 'elsewhere.png' goes with it" in said
    assert len(stored(root)) == 1


def test_one_frame_of_many_annotated_ones(root, command):
    where = ["--rgb", root / "rgb" / "b.png", "--depth", root / "depth" / "b.png"]
    command("folder", *where, "--labels-from", coco(root), "db")
    assert (stored(root)[0] == HALF).all()


def test_annotations_of_another_size(root, folder):
    half = [[0, 0, 32, 0, 32, 48, 0, 48]]
    annotations = [{"image_id": i, "category_id": 4, "segmentation": half} for i in (0, 1)]
    folder("--labels-from", coco(root, annotations, width=64, height=48))
    assert (stored(root)[0] == 1 - HALF).all()
    line = folder("--labels-from", coco(root, [], width=24), code=1).stderr
    assert "coco.json: picture 'rgb/a.png': label is 24x24 and colour 32x24: expected one" in line


def test_a_bad_shape_is_a_bad_frame(root, folder):
    good = {"image_id": 1, "category_id": 4, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    path = coco(root, [{"image_id": 0, "category_id": 4, "segmentation": [[0, 0, 1, 1]]}, good])
    line = folder("--labels-from", path, code=1).stderr.splitlines()[-1]
    assert "cannot use frame a: " in line
    assert "shape 1 (wall): a polygon of 2 points" in line
    folder("--labels-from", path, "--skip-bad")
    assert info(root)["skipped"] == ["a"]


def test_pictures_are_taken_as_label_takes_them(root, folder):
    for name in "ab":
        put(root, f"{name}.png", np.full((HIGH, WIDE), 3, np.uint8))
    assert "label: pictures of labels" in folder("--labels-from", root / "label").stderr
    assert (stored(root)[0] == 3).all()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--labels-kind", "coco"],
        ["--labels-from", "coco.json", "--label", "label"],
        ["--labels-from", "coco.json", "--zero-based"],
        ["--labels-from", "coco.json", "--ignore-label", "255"],
        ["--labels-from", "coco.json", "--classes", "2"],
        ["--labels-from", "coco.json", "--labels-kind", "yolo"],
        ["--label", "label", "--ignore-label", "x"],
    ],
)
def test_bad_usage_is_2(root, folder, wrong):
    coco(root)
    assert "usage: python -m data_tools.folder" in folder(*wrong, code=2).stderr


def test_values_that_stand_for_none(root, folder):
    put(root, "a.png", np.where(HALF, 255, 1).astype(np.uint8))
    put(root, "b.npy", np.where(HALF, -1, 2))
    options = ["--label", root / "label", "--classes", 2]
    lines = folder(*options, code=1).stderr
    assert (
        "a.png: label 255 is out of range, expected 0 (ignored) to 2; --ignore-label 255" in lines
    )
    assert "b.npy: label -1 is out of range" in lines
    for given in (["--ignore-label", "255,-1"], ["--ignore-label", "255", "--ignore-label", "-1"]):
        assert folder(*options, *given).stderr == ""
        assert (stored(root)[0] == 1 - HALF).all()
        assert (stored(root)[1] == 2 * (1 - HALF)).all()
    assert info(root)["options"]["ignore_label"] == [255, -1]


def test_labels_that_count_from_0(root, folder):
    put(root, "a.png", np.where(HALF, 255, 0).astype(np.uint8))
    put(root, "b.png", np.where(HALF, 1, 0).astype(np.uint16))
    options = ["--label", root / "label", "--classes", 2, "--zero-based"]
    line = folder(*options, code=1).stderr
    assert (
        "a.png: label 255 is out of range, expected 0 to 1 (--zero-based); --ignore-label 255"
        in line
    )
    assert folder(*options, "--ignore-label", 255).stderr == ""
    assert (stored(root)[0] == 1 - HALF).all()
    assert (stored(root)[1] == 1 + HALF).all()
    assert info(root)["options"]["zero_based"] is True


def test_colours_take_their_labels_from_the_table(root, folder):
    coded = np.zeros((HIGH, WIDE, 3), np.uint8)
    coded[:, :16] = (30, 20, 10)  # BGR
    for name in "ab":
        put(root, f"{name}.png", coded)
    (root / "labelmap.txt").write_text("background:0,0,0::\nwall:10,20,30::\n")
    folder("--label", root / "label", "--classes", "labelmap.txt", "--zero-based")
    assert (stored(root)[0] == 1 - HALF).all()
    assert info(root)["palette"] == [[0, 0, 0], [10, 20, 30]]


def test_a_shift_by_one_is_told_after_the_build(root, folder):
    for name, value in (("a.png", 1), ("b.png", 2)):
        put(root, name, (value * HALF).astype(np.uint8))
    said = folder("--label", root / "label", "--classes", 3).stderr
    assert said == (
        "db: label 0 (ignored) has 50% of the pixels, and the highest, 3 (class 3), never occurs; "
        "if labels count from 0, pass --zero-based\n"
        "db: 1 of 3 classes never occur: 3 (class 3)\n"
    )


def test_colours_are_not_called_shifted(root, folder):
    """They take their labels from the table, so none can be shifted."""
    (root / "t.csv").write_text("label,name,r,g,b\n1,wall,1,1,1\n2,sofa,2,2,2\n3,bed,3,3,3\n")
    for name, value in (("a.png", 1), ("b.png", 2)):
        put(root, name, np.stack([(value * HALF).astype(np.uint8)] * 3, axis=2))
    said = folder("--label", root / "label", "--classes", "t.csv").stderr
    assert said == "db: 1 of 3 classes never occur: 3 (bed)\n"
    for name, value in (("a.png", 1), ("b.png", 2)):
        put(root, name, (value * HALF).astype(np.uint8))
    said = folder("--label", root / "label", "--classes", "t.csv").stderr
    assert "if labels count from 0, pass --zero-based" in said
