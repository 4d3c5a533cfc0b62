"""Masks beside a detector, worked by hand."""

import numpy as np


def test_yolo_seg_weighs_the_inside_of_masks(net_of):
    """Sigmoids are 1/2, a is 2; one of four pixels is inside: s = 1/3, weights 2 (2 - s) and 2."""
    text = 'layer { name: "l" type: "YoloSeg" bottom: "x" bottom: "m" bottom: "c" top: "y" '
    shapes = {"x": (1, 1, 2, 2), "m": (1, 1, 2, 2), "c": (1, 1)}
    net = net_of(text + "yolo_seg_param { object_scale: 2 } }", **shapes)
    net.blobs["m"].data[0, 0, 0, 0] = 1
    net.blobs["c"].data[...] = 1
    inside = 0.5 * 2 * 5 / 3
    np.testing.assert_allclose(net.forward()["y"], inside**2 + 3 * 1, rtol=1e-6)
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff[0, 0], [[-inside, 1], [1, 1]], rtol=1e-6)


def test_segmentation_evaluate_is_intersection_over_union(net_of):
    text = 'layer { name: "l" type: "SegmentationEvaluate" bottom: "x" bottom: "t" top: "y" '
    text += "segmentation_evaluate_param { num_classes: 2 threshold: 0.3 } }"
    net = net_of(text, x=(1, 2, 1, 4), t=(1, 2, 1, 4))
    net.blobs["x"].data[0] = [[[0.9, 0.4, 0.1, 0.2]], [[0, 0, 0, 0]]]
    net.blobs["t"].data[0] = [[[1, 0, 0, 1]], [[0, 0, 0, 0]]]
    np.testing.assert_allclose(net.forward()["y"].ravel(), [1 / 3, 0], rtol=1e-6)
    wide = net_of(text, x=(1, 2, 1, 2), t=(1, 2, 1, 4))
    wide.blobs["x"].data[0] = [[[1, 0]], [[0, 0]]]
    wide.blobs["t"].data[0] = [[[1, 1, 0, 0]], [[0, 0, 0, 0]]]
    # linear: 1, 3/4, 1/4, 0; a class without true pixels is -1
    assert wide.forward()["y"].ravel().tolist() == [1, -1]
