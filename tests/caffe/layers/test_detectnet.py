"""DetectNet's Python layers: boxes out of grids."""

import numpy as np
import pytest

import caffe
from caffe.formats.prototext import parse
from caffe.layers.detectnet.clustering import grouped
from caffe.proto import caffe_pb2 as pb

NET = """
layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 1 dim: 4 dim: 4 dim: 4 } } }
layer { name: "l" type: "Python" bottom: "c" bottom: "b" top: "y"
  python_param { module: "caffe.layers.detectnet.clustering" layer: "%s" param_str: "%s" } }
"""


def found(layer: str, param: str) -> np.ndarray:
    """The boxes of a picture of 64 x 64 pixels, in which four cells around (32, 32) see the box
    from (10, 12) to (50, 54).
    """
    net = caffe.Net(parse((NET % (layer, param)).encode(), pb.NetParameter, "net"), caffe.TEST)
    net.blobs["c"].data[...] = 0
    net.blobs["c"].data[0, 0, 1:3, 1:3] = 0.9
    y, x = np.mgrid[:4, :4] * 16
    net.blobs["b"].data[0] = np.stack([10 - x, 12 - y, 50 - x, 54 - y])
    return net.forward()["y"][0]


def test_boxes_that_agree_are_one_detection():
    rows = found("ClusterDetections", "64,64,16,0.5,2,0.1,22")
    assert rows.shape == (50, 5)
    np.testing.assert_allclose(rows[0], [10, 12, 50, 54, np.log(4)], rtol=1e-3)
    assert not rows[1:].any()


@pytest.mark.parametrize(
    "param", ["64,64,16,0.95,2,0.1,22", "64,64,16,0.5,2,0.1,43", "64,64,16,0.5,4,0.1,22"]
)
def test_coverage_height_and_count_must_suffice(param):
    assert not found("ClusterDetections", param).any()


def test_equal_boxes_of_the_ground_truth_are_one():
    rows = found("ClusterGroundtruth", "64,64,16,1")
    assert rows[0].tolist() == [10, 12, 50, 54, 0]
    assert not rows[1:].any()


def test_refused():
    with pytest.raises(ValueError, match="expected 7 numbers"):
        found("ClusterDetections", "64,64,16")
    with pytest.raises(ValueError, match="expected one for each of 2 classes"):
        found("ClusterGroundtruth", "64,64,16,2")


def test_groups_are_those_of_opencv():
    """Recorded from cv2.groupRectangles of OpenCV 4.12 on rectangles around five centres."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 100, (5, 1, 2))
    low = centers + rng.integers(-2, 3, (5, 6, 2))
    rects = np.concatenate([low, rng.integers(28, 33, (5, 6, 2))], 2).reshape(-1, 4)
    expected = [
        *((86, 64, 30, 30, 6), (51, 26, 30, 30, 6), (29, 3, 30, 30, 6)),
        *((7, 2, 31, 29, 6), (18, 81, 31, 29, 6)),
    ]
    assert grouped(rects, 2, 0.2) == expected
