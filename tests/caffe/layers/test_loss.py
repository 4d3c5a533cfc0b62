"""Losses and accuracies where Caffe has its own way."""

import math

import numpy as np
import pytest
import torch

import caffe
from caffe.formats.files import write_blob

LOSS = 'layer {{ name: "l" type: "{}" bottom: "x" bottom: "y" top: "loss" {} }}'


def run(net, **inputs):
    """The loss, and the gradient of x."""
    for name, values in inputs.items():
        net.blobs[name].data[...] = values
    net.forward()
    net.backward()
    return float(net.blobs["loss"].data), net.blobs["x"].diff.copy()


# Scores of 0 for 2 classes cost log 2 a pixel; 2 samples of 3 pixels, of which 4 are not ignored.
@pytest.mark.parametrize(
    ("setting", "divisor"),
    [
        ("", 4),
        ("normalization: VALID", 4),
        ("normalization: FULL", 6),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalize: true", 4),
        ("normalize: false", 2),
        ("normalize: false normalization: FULL", 6),
    ],
)
def test_softmax_loss_normalisation(net_of, setting, divisor):
    text = LOSS.format("SoftmaxWithLoss", f"loss_param {{ ignore_label: 9 {setting} }}")
    loss, gradient = run(net_of(text, x=(2, 2, 3), y=(2, 3)), y=[[0, 1, 9], [0, 9, 1]])
    assert loss == pytest.approx(4 * math.log(2) / divisor)
    assert gradient[0, 0, 0] == pytest.approx(-0.5 / divisor)
    assert not gradient[0, :, 2].any()


def test_softmax_loss_of_nothing_valid_is_zero(net_of):
    text = LOSS.format("SoftmaxWithLoss", "loss_param { ignore_label: 1 }")
    loss, gradient = run(net_of(text, x=(2, 3), y=(2,)), y=[1, 1])
    assert loss == 0
    assert not gradient.any()


def test_probability_is_clamped_in_the_value_alone(net_of):
    loss, gradient = run(net_of(LOSS.format("SoftmaxWithLoss", ""), x=(1, 2), y=(1,)), x=[[0, 200]])
    assert loss == pytest.approx(-math.log(np.finfo(np.float32).tiny))  # 87.3, not 200
    np.testing.assert_allclose(gradient, [[-1, 1]])


def test_label_weights_scale_losses_but_not_the_divisor(net_of):
    weights = "use_weights: true label_weights: 0.5 label_weights: 3"
    text = LOSS.format("SoftmaxWithLoss", f"loss_param {{ {weights} }}")
    loss, gradient = run(net_of(text, x=(2, 2), y=(2,)), y=[0, 1])
    assert loss == pytest.approx((0.5 + 3) * math.log(2) / 2)
    np.testing.assert_allclose(gradient, [[-0.125, 0.125], [0.75, -0.75]])


def test_loss_weight_and_second_top(net_of):
    text = LOSS.format("SoftmaxWithLoss", 'top: "p" loss_weight: 3 loss_weight: 0')
    net = net_of(text, x=(1, 2), y=(1,))
    loss, gradient = run(net, y=[1])
    assert loss == pytest.approx(math.log(2))
    np.testing.assert_allclose(gradient, [[1.5, -1.5]])
    np.testing.assert_allclose(net.blobs["p"].data, [[0.5, 0.5]])


def test_a_loss_needs_no_name(net_of):
    net = net_of(
        'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "y" }', x=(2,), y=(2,)
    )
    net.blobs["x"].data[...] = [3, 1]
    assert net._forward(0, len(net.layers) - 1) == pytest.approx((9 + 1) / 4)


def test_euclidean_loss_has_a_gradient_for_both(net_of):
    net = net_of(LOSS.format("EuclideanLoss", ""), x=(2, 2), y=(2, 2, 1))
    _, gradient = run(net, x=[[1, 2], [3, 4]])
    np.testing.assert_allclose(gradient, [[0.5, 1], [1.5, 2]])
    np.testing.assert_allclose(net.blobs["y"].diff.ravel(), [-0.5, -1, -1.5, -2])


def test_hinge_has_no_gradient_on_the_margin(net_of):
    loss, gradient = run(
        net_of(LOSS.format("HingeLoss", ""), x=(1, 3), y=(1,)), x=[[-1, 1, -2]], y=1
    )
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize(("setting", "divisor"), [("", 2), ("normalization: VALID", 3)])
def test_sigmoid_loss_goes_by_batch_and_truncates_the_target(net_of, setting, divisor):
    # int(-0.9) is 0, int(-1.2) is -1: only the latter is ignored.
    text = LOSS.format("SigmoidCrossEntropyLoss", f"loss_param {{ ignore_label: -1 {setting} }}")
    loss, gradient = run(net_of(text, x=(2, 2), y=(2, 2)), y=[[1, 0], [-0.9, -1.2]])
    assert loss == pytest.approx(3 * math.log(2) / divisor)
    np.testing.assert_allclose(gradient * divisor, [[-0.5, 0.5], [1.4, 0]], rtol=1e-6)


def test_contrastive_gradient_of_equal_pairs_is_finite(net_of):
    text = LOSS.format("ContrastiveLoss", 'bottom: "s" contrastive_loss_param { margin: 2 }')
    text = text.replace('top: "loss" bottom: "s"', 'bottom: "s" top: "loss"')
    net = net_of(text, x=(2, 2), y=(2, 2), s=(2,))
    loss, gradient = run(net, x=[[1, 1], [1, 0]], y=[[1, 1], [0, 0]], s=[0, 0])
    assert loss == pytest.approx((2**2 + (2 - 1) ** 2) / 4)
    # -(margin - d) / (d + 1e-4) (a - b) / N, as Caffe divides
    np.testing.assert_allclose(gradient, [[0, 0], [-1 / 1.0001 / 2, 0]], rtol=1e-6)


def test_multinomial_loss_keeps_a_gradient_below_its_least_probability(net_of):
    net = net_of(LOSS.format("MultinomialLogisticLoss", ""), x=(1, 2), y=(1,))
    loss, gradient = run(net, x=[[0.5, 0]], y=1)
    assert loss == pytest.approx(-math.log(1e-20))
    np.testing.assert_allclose(gradient, [[0, -1e20]])


def test_infogain_reads_its_matrix_from_a_file(net_of, tmp_path):
    gains = np.array([[1, 2], [0, 3]], np.float32)
    write_blob(tmp_path / "h.binaryproto", gains.reshape(1, 1, 2, 2))
    source = f'infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}'
    loss, gradient = run(net_of(LOSS.format("InfogainLoss", source), x=(2, 2), y=(2,)), y=[0, 1])
    assert loss == pytest.approx((1 + 2 + 0 + 3) * math.log(2) / 2)
    # p sum_k H[label, k] - H[label], over 2 samples
    np.testing.assert_allclose(gradient, [[0.25, -0.25], [0.75, -0.75]])


def test_accuracy_counts_a_tie_as_wrong_and_nothing_valid_as_zero(layer_of):
    layer = layer_of('type: "Accuracy" top: "a" top: "b"', (3, 2), (3,))
    scores = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    share, by_class = layer.forward([scores, torch.tensor([0.0, 0, 1])], [])
    assert share == pytest.approx(1 / 3)
    assert by_class.tolist() == [0.5, 0]
    layer = layer_of('type: "Accuracy" accuracy_param { ignore_label: 1 }', (3, 2), (3,))
    assert layer.forward([scores, torch.ones(3)], []) == 0


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "SoftmaxWithLoss"', [(2, 3), (3,)], "first axes must be equal"),
        ('type: "SoftmaxWithLoss"', [(2, 3, 4), (2, 3)], "one label for each prediction"),
        ('type: "SoftmaxWithLoss" softmax_param { axis: 2 }', [(2, 3), (2,)], "axis 2 is out"),
        (
            'type: "SoftmaxWithLoss" loss_param { use_weights: true label_weights: 1 }',
            [(2, 3), (2,)],
            "1 label_weights are given, the scores have 3",
        ),
        ('type: "SoftmaxWithLoss" loss_weight: 1 loss_weight: 1', [(2, 3), (2,)], "loss_weight"),
        ('type: "SoftmaxWithLoss"', [(2, 0), (2,)], "have no class on axis 1"),
        ('type: "HingeLoss"', [(2, 0), (2,)], "no class to choose from"),
        ('type: "EuclideanLoss"', [(2, 3), (2, 4)], "equally many values a sample"),
        ('type: "SigmoidCrossEntropyLoss"', [(2, 3), (2, 4)], "equally many values"),
        ('type: "HingeLoss"', [(2, 3), (2, 2)], "expected one a sample"),
        ('type: "ContrastiveLoss"', [(2, 3), (2, 3), (3,)], "each of 2 samples"),
        ('type: "ContrastiveLoss"', [(2, 3, 2), (2, 3, 2), (2,)], "axes of 1 behind"),
        ('type: "ContrastiveLoss"', [(0, 3), (0, 3, 4), (0,)], "axes of 1 behind"),
        ('type: "InfogainLoss"', [(2, 3), (2,)], "matrix H must be bottom 2"),
        ('type: "InfogainLoss"', [(2, 3), (2,), (2, 3)], "expected 3 x 3"),
        (
            'type: "InfogainLoss" infogain_loss_param { source: "none" }',
            [(2, 3), (2,)],
            "none: ",
        ),
        ('type: "InfogainLoss" loss_param { normalize: true }', [(2, 3), (2,), (3, 3)], "too old"),
        ('type: "Accuracy" accuracy_param { top_k: 4 }', [(2, 3), (2,)], "at most the 3 classes"),
        ('type: "HingeLoss"', [(2, 3)], "takes exactly 2 bottom"),
    ],
)
def test_what_does_not_fit_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


def test_label_weights_must_fit_after_a_reshape(net_of):
    weights = "use_weights: true label_weights: 1 label_weights: 2"
    net = net_of(LOSS.format("SoftmaxWithLoss", f"loss_param {{ {weights} }}"), x=(2, 2), y=(2,))
    net.blobs["x"].reshape(2, 3)
    with pytest.raises(caffe.CaffeError, match="2 label_weights are given, the scores have 3"):
        net.forward()


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_named(net_of, kind, label):
    net = net_of(LOSS.format(kind, ""), x=(2, 3), y=(2,))
    net.blobs["y"].data[1] = label
    with pytest.raises(caffe.CaffeError, match=f"label {label} is out of range, expected 0 to 2"):
        net.forward()


def test_a_learned_label_has_no_gradient(net_of):
    net = net_of(
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" '
        "inner_product_param { num_output: 1 } }"
        'layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "h" top: "loss" }',
        x=(2, 3),
    )
    net.forward()
    with pytest.raises(caffe.CaffeError, match="has no gradient for bottom 1"):
        net.backward()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 5, 1, 1), (2, 1, 3, 4), (1, 5, 1, 7)])
def test_softmax_loss_in_any_layout(layer_of, shape, layout):
    """Where the classes lie side by side in memory they are taken so: the numbers stay."""
    torch.manual_seed(0)
    labels = (shape[0], *shape[2:])
    text = 'type: "SoftmaxWithLoss" loss_param { ignore_label: 0 normalization: FULL }'
    layer = layer_of(text, shape, labels)
    scores = torch.randn(shape, dtype=torch.float64)
    given = scores.contiguous(memory_format=layout).requires_grad_()
    places = torch.randint(0, shape[1], labels)
    loss = layer.forward([given, places.double()], [])
    (gradient,) = torch.autograd.grad(3 * loss, given)
    exact = scores.clone().requires_grad_()
    each = torch.nn.functional.cross_entropy(exact, places, reduction="none")
    true = torch.where(places == 0, 0, each).sum() / places.numel()
    torch.testing.assert_close(loss.detach(), true.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * true, exact)[0])
