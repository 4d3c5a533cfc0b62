"""Interp, Upsample and MergeCrop where no recording shows them."""

import numpy as np
import pytest

import caffe


def test_a_second_bottom_gives_the_size_of_interp(net_of):
    text = 'layer { name: "l" type: "Interp" bottom: "x" bottom: "s" top: "y" }'
    net = net_of(text, x=(1, 1, 2, 2), s=(1, 5, 3, 2))
    net.blobs["x"].data[...] = [[[[0, 2], [4, 6]]]]
    assert net.forward()["y"][0, 0].tolist() == [[0, 2], [2, 4], [4, 6]]
    net.backward()  # the second bottom gets nothing
    assert not net.blobs["s"].diff.any()


def test_labels_are_not_mixed(net_of):
    text = 'layer { name: "l" type: "Interp" bottom: "x" top: "y" interp_param { '
    net = net_of(text + "height: 1 width: 5 is_seglabel: true } }", x=(1, 1, 1, 3))
    net.blobs["x"].data[...] = [1, 7, 9]
    # places 0, 0.5, 1, 1.5, 2 of the bottom; halves go up
    assert net.forward()["y"].ravel().tolist() == [1, 7, 7, 9, 9]


def test_upsample_of_caffe_yolov5(net_of):
    """BILINEAR lets the corners fall on each other, NEAREST takes i * size / new size."""
    text = 'layer { name: "l" type: "Upsample" bottom: "x" top: "y" upsample_param { '
    for more, expected in (
        ("height: 2 width: 5", [1, 2, 3, 4, 5]),
        ("height: 2 width: 5 mode: NEAREST", [1, 1, 3, 3, 5]),
        ("height_scale: 2 width_scale: 2 mode: NEAREST", [1, 1, 3, 3, 5, 5]),
    ):
        net = net_of(text + more + " } }", x=(1, 1, 1, 3))
        net.blobs["x"].data[...] = [1, 3, 5]
        assert net.forward()["y"][0, 0].tolist() == [expected] * 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("scale: 2 scale_h: 2 scale_w: 2", "give upsample_h"),
        ("scale: 3 pad_out_h: true", "needs a scale of 2"),
        ("scale: 1", "expected at least 2"),
        ("height: 5", "give height and width"),
    ],
)
def test_what_upsample_refuses(layer_of, text, cause):
    bottoms = [(1, 1, 2, 2)] * (1 if "height" in text else 2)
    with pytest.raises(caffe.CaffeError, match=cause):
        layer_of(f'type: "Upsample" upsample_param {{ {text} }}', *bottoms)


def test_merge_crop_takes_the_middle(net_of):
    text = 'layer { name: "l" type: "MergeCrop" bottom: "a" bottom: "b" top: "y" %s }'
    net = net_of(text % "", a=(1, 1, 2, 1), b=(1, 2, 5, 1))
    net.blobs["a"].data[...] = [[[[1], [2]]]]
    net.blobs["b"].data[...] = np.arange(10).reshape(1, 2, 5, 1)
    top = net.forward()["y"]
    assert top[0, :, :, 0].tolist() == [[1, 2], [1, 2], [6, 7]]  # from (5 - 2) / 2, rounded down
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["a"].diff.all()
    assert not net.blobs["b"].diff.any()  # by default it gets no gradient


def test_a_bottom_of_merge_crop_may_count_as_nothing(net_of):
    param = "operation: ADD forward: false backward: true backward: true"
    text = f'type: "MergeCrop" bottom: "a" bottom: "b" top: "y" mergecrop_param {{ {param} }}'
    net = net_of(f'layer {{ name: "l" {text} }}', a=(1, 1, 2), b=(1, 1, 2))
    net.blobs["a"].data[...], net.blobs["b"].data[...] = 5, 3
    assert net.forward()["y"].tolist() == [[[3, 3]]]
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["a"].diff.tolist() == [[[1, 1]]]
