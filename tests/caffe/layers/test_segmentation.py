"""What the recordings of segmentation layers do not show."""

import numpy as np
import pytest
import torch

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


IOU = """layer {{ name: "l" type: "SegmentationAccuracy" bottom: "x" bottom: "y"
                 top: "global" top: "class" top: "iou" {} }}"""
ROW = {"x": (1, 3, 1, 4), "y": (1, 1, 1, 4)}
# Of labels 0, 0, 1, 9 with 9 ignored, 0, 1, 1, 2 are predicted: class 0 has 1 of 2 right, class 1
# has 1 of 1, and their unions are 2 and 2. Class 2 has no pixels.
ONE = ([0, 1, 1, 2], [0, 0, 1, 9])
OF_ONE = [2 / 3, (1 / 2 + 1) / 2, (1 / 2 + 1 / 2) / 2]
# Then 0, 2, 0, 2 of 0, 0, 0, 1: with the first row class 0 has 3 of 5, class 1 has 1 of 2, the
# unions are 5 and 3. Class 2 is predicted, but still has no pixels.
TWO = ([0, 2, 0, 2], [0, 0, 0, 1])
OF_TWO = [2 / 4, (2 / 3 + 0) / 2, (2 / 3 + 0) / 2]
OF_BOTH = [4 / 7, (3 / 5 + 1 / 2) / 2, (3 / 5 + 1 / 3) / 2]


def figures(net, predicted, labels):
    """Global accuracy, class accuracy and IoU of a row of pixels."""
    net.blobs["x"].data[...] = np.eye(3)[predicted].T[None, :, None]
    net.blobs["y"].data[...] = np.array(labels)[None, None, None]
    net.forward()
    return pytest.approx([float(net.blobs[name].data) for name in ("global", "class", "iou")])


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("observed", [True, False])
def test_segmentation_accuracy_is_of_the_batch_outside_of_tests(net_of, phase, observed):
    net = net_of(IOU.format("segmentation_accuracy_param { ignore_label: 9 }"), phase, **ROW)
    net.observed = observed
    for _ in range(2):
        assert figures(net, *ONE) == OF_ONE
        assert figures(net, *TWO) == OF_TWO


@pytest.mark.parametrize("observed", [True, False])
def test_segmentation_accuracy_is_of_all_batches_of_a_test(net_of, observed):
    net = net_of(IOU.format("segmentation_accuracy_param { ignore_label: 9 }"), caffe.TEST, **ROW)
    net.observed = observed
    for _ in range(2):
        figures(net, *TWO)  # does not count
        with net.testing() as accumulated:
            assert accumulated == {"global", "class", "iou"}
            assert figures(net, *ONE) == OF_ONE
            assert figures(net, *TWO) == OF_BOTH
    assert figures(net, *TWO) == OF_TWO


def test_a_test_that_is_broken_off_leaves_nothing(net_of):
    net = net_of(IOU.format("segmentation_accuracy_param { ignore_label: 9 }"), caffe.TEST, **ROW)
    test = net.testing()
    test.__enter__()
    figures(net, *ONE)
    assert not test.__exit__(KeyError, KeyError(), None)
    assert figures(net, *TWO) == OF_TWO
    with net.testing():
        assert figures(net, *ONE) == OF_ONE


def test_segmentation_accuracy_without_reset(net_of):
    param = "segmentation_accuracy_param { ignore_label: 9 reset: false }"
    net = net_of(IOU.format(param), **ROW)
    assert figures(net, *ONE) == OF_ONE
    assert figures(net, *TWO) == OF_BOTH


def test_a_pass_that_is_repeated_for_the_gradient_does_not_count_twice(make_net):
    """A net in TEST keeps nothing for the gradient until it is asked for one."""
    net = make_net(
        """layer { name: "in" type: "Input" top: "x" top: "y"
             input_param { shape { dim: 1 dim: 3 dim: 1 dim: 4 }
                           shape { dim: 1 dim: 1 dim: 1 dim: 4 } } }"""
        + IOU.format("segmentation_accuracy_param { ignore_label: 9 }"),
        caffe.TEST,
    )
    with net.testing():
        assert figures(net, *ONE) == OF_ONE
        net.backward()
        assert figures(net, *TWO) == OF_BOTH


def test_of_equal_scores_the_first_counts(net_of):
    """As in evaluate; Accuracy takes a tie as wrong."""
    net = net_of(IOU.format(""), x=(1, 3, 1, 3), y=(1, 1, 1, 3))
    net.blobs["x"].data[...] = np.array([[5, 1, 2], [5, 7, 2], [5, 7, 2]])[None, :, None]
    net.blobs["y"].data[...] = np.array([0, 1, 0])[None, None, None]
    assert float(net.forward()["global"]) == 1


def test_nothing_to_count_is_no_number(net_of):
    net = net_of(IOU.format("segmentation_accuracy_param { ignore_label: 0 }"), **ROW)
    assert np.isnan(list(net.forward().values())).all()


def test_segmentation_accuracy_counts_beyond_what_a_float_holds(layer_of):
    """Of 2^24 + 3 pixels 3 are wrong; float32 has no odd number there."""
    layer = layer_of('type: "SegmentationAccuracy"', (1, 2, 1, 3), (1, 1, 1, 3), phase=caffe.TEST)
    layer.begin_test()
    layer.counts = torch.tensor([[2**24, 0], [0, 0]])
    scores = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    layer.forward([scores, torch.zeros(1, 1, 1, 3)], [])
    assert layer.counts.tolist() == [[2**24, 3], [0, 0]]


def test_segmentation_accuracy_has_shapes_without_values(layer_of):
    text = 'type: "SegmentationAccuracy" top: "a" top: "b"'
    layer = layer_of(text, (2, 3, 4, 5), (2, 1, 4, 5))
    meta = [torch.empty(shape, device="meta") for shape in ((2, 3, 4, 5), (2, 1, 4, 5))]
    assert [tuple(top.shape) for top in layer.forward(meta, [])] == [(), ()]


def test_segmentation_accuracy_on_a_gpu(net_of, pretend_gpu):
    net = net_of(IOU.format("segmentation_accuracy_param { ignore_label: 9 }"), caffe.TEST, **ROW)
    with net.testing():
        assert figures(net, *ONE) == OF_ONE
        assert figures(net, *TWO) == OF_BOTH


def test_seg_accuracy_in_a_test(net_of):
    """With reset: false that of all batches; else, as in the forks, that of the last one."""
    for param, accumulates in (("reset: false", True), ("", False)):
        net = net_of(SEG.format(f"seg_accuracy_param {{ {param} }}"), caffe.TEST, **ROW)
        for _ in range(2):
            with net.testing() as accumulated:
                assert accumulated == ({"z"} if accumulates else set())
                accuracies(net, [0, 1, 1, 1], [0, 0, 0, 0])
                share = accuracies(net, [0, 0, 0, 0], [0, 0, 0, 0])[0]
            assert share == (5 / 8 if accumulates else 1)


@pytest.mark.parametrize("text", [SEG, IOU])
def test_a_label_beyond_the_classes_is_named(net_of, text):
    net = net_of(text.format(""), x=(1, 3, 1, 4), y=(1, 1, 1, 4))
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
