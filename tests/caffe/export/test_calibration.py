"""Records of an LMDB as the inputs of deploy nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from nets import image
from records import make_lmdb

import caffe
from caffe.export.calibration import Calibration
from caffe.proto import caffe_pb2 as pb


def deploy(**inputs: tuple[int, ...]) -> caffe.Net:
    """A net of inputs alone."""
    text = "".join(image(*shape, name=name) for name, shape in inputs.items())
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)


def frames(count: int, *shape: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, shape, np.uint8) for _ in range(count)]


def test_frames_are_taken_apart(tmp_path: Path) -> None:
    arrays = frames(2, 5, 3, 4)
    source = make_lmdb(tmp_path / "lmdb", arrays)
    net = deploy(depth=(1, 1, 3, 4), rgb=(1, 3, 3, 4))
    for array, feeds in zip(
        arrays, Calibration(net, ["depth", "rgb"], source).feeds([0, 1]), strict=True
    ):
        np.testing.assert_array_equal(feeds["rgb"], array[None, :3])
        np.testing.assert_array_equal(feeds["depth"], array[None, 3:4])
        assert feeds["rgb"].dtype == np.float32
    (feeds,) = Calibration(deploy(x=(1, 4, 3, 4)), ["x"], source).feeds([1])
    np.testing.assert_array_equal(feeds["x"], arrays[1][None, :4])


def test_a_net_of_one_input_gets_records_as_they_are(tmp_path: Path) -> None:
    arrays = frames(3, 2, 3, 4)
    source = make_lmdb(tmp_path / "lmdb", arrays)
    found = [*Calibration(deploy(x=(2, 2, 3, 4)), ["x"], source).feeds([0, 1, 2])]
    # Two batches of two: the first record once more fills the second.
    np.testing.assert_array_equal(found[0]["x"], np.stack(arrays[:2]))
    np.testing.assert_array_equal(found[1]["x"], np.stack([arrays[2], arrays[0]]))


def test_records_are_drawn_evenly(tmp_path: Path) -> None:
    records = Calibration(
        deploy(x=(1, 1, 1, 1)), ["x"], make_lmdb(tmp_path / "l", frames(8, 1, 1, 1))
    )
    assert records.evenly(2) == [2, 6]
    assert records.evenly(8) == records.evenly(300) == [*range(8)]


TRAINING = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "none" batch_size: 64 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 2 mirror: true mean_value: 10 scale: 0.5 }
  data_param { source: "none" batch_size: 50 backend: LMDB } }
layer { name: "parts" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { axis: 1 } }
layer { name: "twice" type: "Power" bottom: "b" top: "b" power_param { scale: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "a" top: "fc"
  inner_product_param { num_output: 9 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_a_training_net_prepares_records(tmp_path: Path) -> None:
    """By the crop in the middle, mean and scale of its data layer, and the layers behind that."""
    arrays = frames(2, 2, 4, 6)
    (tmp_path / "train.prototxt").write_text(TRAINING)
    source = make_lmdb(tmp_path / "lmdb", arrays)
    net = deploy(a=(1, 1, 2, 2), b=(1, 1, 2, 2))
    records = Calibration(net, ["a", "b"], source, tmp_path / "train.prototxt")
    for array, feeds in zip(arrays, records.feeds([0, 1]), strict=True):
        middle = (array[:, 1:3, 2:4].astype(np.float32) - 10) / 2
        np.testing.assert_array_equal(feeds["a"], middle[None, :1])
        np.testing.assert_array_equal(feeds["b"], 2 * middle[None, 1:])


@pytest.mark.parametrize(
    ("inputs", "shape", "message"),
    [
        ({"x": (1, 3, 3, 5)}, (5, 3, 4), "gives input 'x' 3x3x4 values, the net takes 3x3x5; --d"),
        ({"x": (1, 2, 3, 4)}, (5, 3, 4), "has 5 channels; the net's inputs take 'x' 2: --data na"),
        ({"x": (1, 3, 3, 4), "y": (1, 3, 3, 4)}, (5, 3, 4), "take 'x' 3, 'y' 3: --data"),
        ({"x": (1, 3, 3, 4), "y": (2, 1, 3, 4)}, (5, 3, 4), "'y' has the shape 2x1x3x4; expected"),
        ({"x": (1, 3)}, (5, 3, 4), "input 'x' has the shape 1x3; expected N x C x H x W"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    tmp_path: Path, inputs: dict, shape: tuple[int, ...], message: str
) -> None:
    source = make_lmdb(tmp_path / "lmdb", frames(1, *shape))
    with pytest.raises(caffe.CaffeError, match=message):
        [*Calibration(deploy(**inputs), [*inputs], source).feeds([0])]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('top: "a"', 'top: "c"', "train.prototxt: has no blob 'a', which is an input of the net"),
        ("crop_size: 2", "crop_size: 9", "record 0000: .*train.prototxt: crop_size 9 exceeds"),
        ('type: "Data"', 'type: "HDF5Data"', "must come from one Data layer; they come from HDF5D"),
        ('type: "Slice"', 'type: "Python"', "train.prototxt: layer 'parts' .*refused unless"),
    ],
)
def test_a_training_net_that_does_not_fit(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "train.prototxt").write_text(TRAINING.replace(old, new))
    source = make_lmdb(tmp_path / "lmdb", frames(1, 2, 4, 6))
    net = deploy(a=(1, 1, 2, 2), b=(1, 1, 2, 2))
    with pytest.raises(caffe.CaffeError, match=message):
        [*Calibration(net, ["a", "b"], source, tmp_path / "train.prototxt").feeds([0])]


def test_a_record_that_is_not_finite(tmp_path: Path) -> None:
    source = make_lmdb(tmp_path / "lmdb", [np.full((1, 2, 2), np.nan, np.float32)])
    with pytest.raises(caffe.CaffeError, match="record 0000: holds NaN or infinity"):
        [*Calibration(deploy(x=(1, 1, 2, 2)), ["x"], source).feeds([0])]
