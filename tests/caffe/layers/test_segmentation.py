"""What the recordings of segmentation layers do not show."""

import numpy as np
import pytest

import caffe

SEG = 'layer {{ name: "l" type: "SegAccuracy" bottom: "x" bottom: "y" top: "z" {} }}'


def accuracies(net, predicted, labels):
    """Scores of 1 for the predicted classes of a row of pixels."""
    net.blobs["x"].data[...] = np.eye(3)[predicted].T[None, :, None]
    net.blobs["y"].data[...] = np.array(labels)[None, None, None]
    return net.forward()["z"].ravel().tolist()


def test_seg_accuracy_counts_over_passes_without_reset(net_of):
    shapes = {"x": (1, 3, 1, 4), "y": (1, 1, 1, 4)}
    net = net_of(SEG.format("seg_accuracy_param { reset: false ignore_label: 9 }"), **shapes)
    # class 0: 1 of 2, class 1: 1 of 1; unions 2, 2, and class 2 is nowhere
    found = accuracies(net, [0, 1, 1, 2], [0, 0, 1, 9])
    np.testing.assert_allclose(found, [2 / 3, (1 / 2 + 1) / 2, (1 / 2 + 1 / 2 + 1) / 3], rtol=1e-6)
    # now also class 2: 1 of 1, and three of class 0 right
    found = accuracies(net, [0, 0, 0, 2], [0, 0, 0, 2])
    np.testing.assert_allclose(
        found, [6 / 7, (4 / 5 + 1 + 1) / 3, (4 / 5 + 1 / 2 + 1) / 3], rtol=1e-6
    )
    fresh = net_of(SEG.format(""), **shapes)
    for _ in range(2):
        assert accuracies(fresh, [0, 0, 0, 2], [0, 0, 0, 2]) == [1, 1, 1]


def test_a_label_beyond_the_classes_is_named(net_of):
    net = net_of(SEG.format(""), x=(1, 3, 1, 4), y=(1, 1, 1, 4))
    with pytest.raises(caffe.CaffeError, match=r"label 255 is out of range.*ignore_label"):
        accuracies(net, [0, 0, 0, 0], [0, 255, 0, 0])


def test_targets_of_neither_kind_have_a_gradient_but_no_loss(net_of):
    """As in the fork. Of one zero and two ones: the zero weighs 2/3, the ones 1/3."""
    text = 'type: "SigmoidCrossEntropyBalanceLoss" bottom: "x" bottom: "t" top: "y"'
    net = net_of(f'layer {{ name: "l" {text} }}', x=(1, 4), t=(1, 4))
    net.blobs["t"].data[...] = [[0, 1, 1, 5]]
    loss = net.forward()["y"]
    np.testing.assert_allclose(loss, np.log(2) * (2 / 3 + 1 / 3 + 1 / 3), rtol=1e-6)
    net.backward()
    expected = [[0.5 * 2 / 3, -0.5 / 3, -0.5 / 3, 0.5 - 5]]
    np.testing.assert_allclose(net.blobs["x"].diff, expected, rtol=1e-6)


def test_domain_transform_leaves_what_lies_outside_the_image(net_of):
    text = 'type: "DomainTransform" bottom: "x" bottom: "e" bottom: "s" top: "y"'
    net = net_of(f'layer {{ name: "l" {text} }}', x=(1, 1, 3, 3), e=(1, 1, 3, 3), s=(1, 2))
    x = np.arange(9.0).reshape(3, 3)
    net.blobs["x"].data[...] = x
    net.blobs["s"].data[...] = [[2, 2]]
    y = net.forward()["y"][0, 0]
    np.testing.assert_array_equal(y[2], x[2])
    np.testing.assert_array_equal(y[:, 2], x[:, 2])
    assert np.abs(y[:2, :2] - x[:2, :2]).max() > 0.1
    net.blobs["s"].data[...] = [[4, 2]]
    with pytest.raises(caffe.CaffeError, match="size 4 x 2 is out of range"):
        net.forward()


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
