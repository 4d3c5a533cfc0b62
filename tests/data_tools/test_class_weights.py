"""Loss weights: against numbers worked out by hand, and the published rule."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb as lmdb_library
import numpy as np
import pytest
from google.protobuf import text_format

from caffe.proto import caffe_pb2
from data_tools import class_weights, classes, store
from data_tools.class_weights import Histogram
from data_tools.record import to_datum
from netgen import datasets, label_weights

SHARED = Path(__file__).resolve().parents[3] / "shared"

# Frame 1 is 8 pixels of 1 and 2 of 2; frame 2 is 5 of 0, 4 of 1 and 1 of 3.
FRAMES = ([1] * 8 + [2] * 2, [0] * 5 + [1] * 4 + [3])
NAMES = ["(ignored)", "wall", "floor", "sofa"]


@pytest.fixture
def lmdb(tmp_path):
    writer = store.Writer(tmp_path / "db", "plan")
    for index, labels in enumerate(FRAMES):
        planes = np.zeros((5, 2, 5), np.float32 if index else np.uint8)
        planes[4] = np.reshape(labels, (2, 5))
        writer.put(store.key(index, "x"), to_datum(planes))
    writer.finish({"classes": NAMES})
    return "db"


def weights(result):
    return [float(line.split("#")[0]) for line in result.stdout.splitlines() if line[0] != "#"]


HAND_WORKED = {
    # 5 of 10 pixels in the frames that show 0; 12 of 20, 2 of 10, 1 of 10. Inverse: 2, 5/3, 5, 10,
    # whose median is 3.5; one over the median of the shares, 0.35, would be 2.86.
    "authors": [2 / 3.5, 5 / 3 / 3.5, 5 / 3.5, 10 / 3.5],
    # Without the ignored: 12 of the 15 in the frames that show 1; 2 of 10; 1 of 5. Median 0.2.
    "median": [0, 0.2 / 0.8, 1, 1],
    # 15 pixels count, 3 labels: 15 / (3 * 12), 15 / (3 * 2), 15 / (3 * 1).
    "inverse": [0, 15 / 36, 2.5, 5],
    "log": [0, *(1 / np.log(1.02 + n / 15) for n in (12, 2, 1))],
}


@pytest.mark.parametrize("method", HAND_WORKED)
def test_methods(lmdb, command, method):
    result = command("class_weights", lmdb, "--method", method)
    assert weights(result) == pytest.approx(HAND_WORKED[method], abs=1e-6)


def test_the_ignored_label_can_be_another_or_none(lmdb, command):
    # Without an ignored label the shares are 5, 12, 2, 1 of 20.
    found = weights(command("class_weights", lmdb, "--method", "inverse", "--ignore", -1))
    assert found == pytest.approx([1, 20 / 48, 2.5, 5], abs=1e-6)
    found = weights(command("class_weights", lmdb, "--method", "inverse", "--ignore", 1))
    assert found == pytest.approx([8 / 15, 0, 8 / 6, 8 / 3], abs=1e-6)


def test_the_text_is_what_netgen_reads(lmdb, command, tmp_path):
    result = command("class_weights", lmdb)
    (tmp_path / "w.txt").write_text(result.stdout)
    assert label_weights.read("w.txt", 3) == pytest.approx(HAND_WORKED["authors"], abs=1e-6)
    assert "# 1 wall: 60 %" in result.stdout


def test_authors_weights_have_a_median_of_1():
    rng = np.random.default_rng(3)
    for labels in (38, 41):
        histogram = Histogram(ignore=0)
        for _ in range(5):
            frame = np.zeros(256, np.int64)
            frame[:labels] = rng.integers(1, 10**9, labels) * (rng.random(labels) < 0.8)
            histogram.add(frame)
        found = class_weights.weigh(histogram, "authors", labels)
        assert np.median(found) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("table", ["nyuv2_40class", "nyuv2_13class", "sunrgbd_37class"])
def test_the_rule_gives_back_the_published_weights(table):
    with open(classes.TABLES / f"{table}.csv", newline="") as file:
        published = np.array([float(row["paper_weight"]) for row in csv.DictReader(file)])
    assert np.median(published) == pytest.approx(1, abs=2e-6)
    # f is proportional to 1 / weight: from such a frame the rule must give the weights.
    frame = np.zeros(256, np.int64)
    frame[: len(published)] = np.rint(1e12 / published)
    histogram = Histogram(ignore=0)
    histogram.add(frame)
    found = class_weights.weigh(histogram, "authors", len(published))
    assert found == pytest.approx(published, rel=3e-6)


def test_the_published_weights_follow_from_nyuv2s_labels():
    """From the 795 label maps at 640x480: what the rule takes a share of is settled by these."""
    frames = sorted((SHARED / "nyuv2" / "label40").glob("*.png"))
    if not frames:
        pytest.skip("no frames at ../shared/nyuv2")
    histogram = Histogram(ignore=0)
    for path in frames:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (480, 640)
        histogram.add(np.bincount(labels.ravel(), minlength=256))
    published = [weight for _, weight in datasets.NYUV2_40]
    found = class_weights.weigh(histogram, "authors", len(published))
    assert len(frames) == 795
    # Label maps differ in a few pixels of 0 and 40 from those that the authors had.
    assert found[1:40] == pytest.approx(published[1:40], abs=1e-6)
    assert found == pytest.approx(published, abs=3e-4)


def test_labels_that_never_occur_weigh_nothing(lmdb, command):
    found = weights(command("class_weights", lmdb, "--classes", 5))
    assert found[:4] == pytest.approx(HAND_WORKED["authors"], abs=1e-6)
    assert found[4:] == [0, 0]


def test_bad_input_has_its_line(lmdb, command, tmp_path):
    assert (
        "label 3 occurs, expected 0 to 2"
        in command("class_weights", lmdb, "--classes", 2, code=1).stderr
    )
    writer = store.Writer(tmp_path / "three", "plan")
    writer.put(b"k", to_datum(np.zeros((3, 2, 2), np.uint8)))
    writer.finish({})
    assert "three: k: has 3 channels" in command("class_weights", "three", code=1).stderr
    writer = store.Writer(tmp_path / "half", "plan")
    writer.put(b"k", to_datum(np.full((5, 2, 2), 0.5, np.float32)))
    writer.finish({})
    assert "labels that are not whole" in command("class_weights", "half", code=1).stderr
    writer = store.Writer(tmp_path / "bare", "plan")
    writer.put(b"k", to_datum(np.zeros((5, 2, 2), np.uint8)))
    writer.finish({"labeled": False})
    assert "have no labels" in command("class_weights", "bare", code=1).stderr
    assert re.search("none: does not exist", command("class_weights", "none", code=1).stderr)


def test_weights_net_and_training_go_together(command, tmp_path):
    command("synth", "db", "--count", 3, "--size", "32x32")
    (tmp_path / "weights.txt").write_text(command("class_weights", "db").stdout)

    def run(module, *arguments, out=None):
        result = subprocess.run([sys.executable, "-m", module, *arguments], cwd=tmp_path,
                                capture_output=True, text=True, check=True)  # fmt: skip
        if out:
            (tmp_path / out).write_text(result.stdout)
        return result.stderr

    run("netgen", "sf1", "--dataset", "custom", "--classes", "9", "--size", "32x32", "--source",
        "db", "--test-source", "db", "--width-multiplier", "0.05", "--label-weights",
        "weights.txt", out="net.prototxt")  # fmt: skip
    run("netgen", "solver", "--net", "net.prototxt", "--max-iter", "2", "--test-epochs", "0",
        out="solver.prototxt")  # fmt: skip
    net = caffe_pb2.NetParameter()
    text_format.Parse((tmp_path / "net.prototxt").read_text(), net)
    (loss,) = (layer for layer in net.layer if layer.type == "SoftmaxWithLoss")
    found = weights(command("class_weights", "db"))
    assert list(loss.loss_param.label_weights) == pytest.approx(found, rel=1e-5, abs=1e-6)
    assert loss.loss_param.use_weights
    assert "Optimization Done." in run("caffe", "train", "-solver", "solver.prototxt")


def test_a_record_without_pixels_is_refused(tmp_path, command):
    (tmp_path / "db").mkdir()
    with lmdb_library.open(str(tmp_path / "db")) as env, env.begin(write=True) as transaction:
        transaction.put(b"00000000_x", to_datum(np.zeros((5, 0, 0), np.uint8)))
    line = command("class_weights", "db", code=1).stderr
    assert "db: 00000000_x: 5 channels of 0x0 pixels hold no values" in line
