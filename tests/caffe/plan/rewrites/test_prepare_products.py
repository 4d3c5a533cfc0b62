"""prepare_products: deploy inner products with the ReLU behind them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from nets import acted, image, ip, misfits, names

import caffe
from caffe.plan.rewrites import prepare_products
from caffe.proto import caffe_pb2 as pb

RELU = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
Nets = tuple[caffe.Net, caffe.Net]


def product(how: str = "", bottom: str = "x", outputs: int = 12) -> str:
    return f"""layer {{ name: "p" type: "InnerProduct" bottom: "{bottom}" top: "y"
      inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" }}
        bias_filler {{ type: "gaussian" }} {how} }} }}"""


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Nets]:
    """A net twice, as pair() gives it, but nobody holds a view of its parameters; all are large."""
    monkeypatch.setattr(prepare_products, "LEAST", 0)

    def make(text: str) -> Nets:
        nets = []
        for observed in (True, False):
            caffe.set_random_seed(1)
            net = caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)
            for name in net.inputs:
                values = np.random.default_rng(5).normal(size=net.blobs[name].shape)
                net.blobs[name].data[...] = values
            net.observed = observed
            nets.append(net)
        return nets[0], nets[1]

    return make


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each product by oneDNN."""
    seen: list[None] = []
    original = torch.ops.mkldnn._linear_pointwise

    def counted(*arguments: object) -> torch.Tensor:
        seen.append(None)
        return original(*arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return seen


def assert_alike(nets: Nets, tolerance: float = 1e-5) -> None:
    layers, plan = (net.forward()["y"].copy() for net in nets)
    scale = max(1.0, float(np.abs(layers[np.isfinite(layers)]).max(initial=0)))
    np.testing.assert_allclose(plan, layers, rtol=0, atol=tolerance * scale, equal_nan=True)


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "no relu"])
@pytest.mark.parametrize("how", ["", "bias_term: false", "transpose: true", "axis: 2", "axis: -1"])
@pytest.mark.parametrize("shape", [(1, 5, 3, 4), (40, 5, 3, 4)], ids=str)
def test_products_predict_alike(
    shape: tuple[int, ...], how: str, relu: bool, unseen, packed: list
) -> None:
    nets = unseen(image(*shape) + product(how) + (RELU if relu else ""))
    assert acted(nets[1], "prepare_products") == 1
    assert names(nets[1])[-1] == ("p+r" if relu else "p")
    for _ in range(2):
        assert_alike(nets)
    assert len(packed) == 2


def test_images_of_convolutions_are_taken_in_caffes_order(unseen, packed: list) -> None:
    before = """layer { name: "c" type: "Convolution" bottom: "x" top: "z"
      convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }"""
    assert_alike(unseen(image(2, 3, 9, 10) + before + product(bottom="z")))
    assert packed


def test_in_bfloat16(unseen, packed: list) -> None:
    caffe.set_precision("bf16")
    assert_alike(unseen(image(4, 60) + product() + RELU), 0.02)
    assert bool(packed) == prepare_products._by_onednn(torch.bfloat16)


def test_a_processor_without_bfloat16(unseen, monkeypatch) -> None:
    """oneDNN refuses the weights there, and PyTorch multiplies them all the same."""
    original = torch.ops.mkldnn._reorder_linear_weight

    def reorder(weight: torch.Tensor, rows: int) -> torch.Tensor:
        if weight.dtype == torch.bfloat16:
            raise RuntimeError("bf16 path needs the cpu support")
        return original(weight, rows)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", reorder)
    caffe.set_precision("bf16")
    nets = unseen(image(4, 60) + product() + RELU)
    assert acted(nets[0], "prepare_products") == 0
    assert_alike(nets, 0.02)


def test_new_weights_and_new_numbers_of_rows_count(unseen, packed: list) -> None:
    nets = unseen(image(2, 60) + product() + RELU)
    assert_alike(nets)
    for net in nets:
        for blob in net.params["p"]:
            blob.tensor().mul_(-2)
    assert_alike(nets)
    for net in nets:
        net.blobs["x"].reshape(3, 60)
        net.blobs["x"].data[...] = np.random.default_rng(2).normal(size=(3, 60))
    assert_alike(nets)
    assert len(packed) == 3


def test_weights_are_laid_out_once_for_all_numbers_of_rows(unseen, monkeypatch) -> None:
    nets = unseen(image(2, 60) + product() + RELU)
    assert_alike(nets)
    counted, original = [], torch.ops.mkldnn._reorder_linear_weight

    def reorder(*arguments: object) -> torch.Tensor:
        counted.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", reorder)
    for rows in (2, 70, 1, 0, 300, 16):
        for net in nets:
            net.blobs["x"].reshape(rows, 60)
            net.blobs["x"].data[...] = np.random.default_rng(rows).normal(size=(rows, 60))
        assert_alike(nets)
    assert not counted


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "no relu"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("where", ["x", 0, 1])
def test_numbers_that_are_not_finite(
    where: str | int, value: float, relu: bool, unseen, packed: list
) -> None:
    nets = unseen(image(3, 60) + product() + (RELU if relu else ""))
    assert_alike(nets)
    for net in nets:
        blob = net.blobs["x"] if where == "x" else net.params["p"][where]
        blob.tensor().view(-1)[7] = value
    assert_alike(nets)
    assert len(packed) == 1


def test_weights_that_someone_views_stay_with_the_layer(unseen, packed: list) -> None:
    """To find what is written to them would take longer than the product."""
    nets = unseen(image(2, 60) + product() + RELU)
    assert_alike(nets)
    views = [net.params["p"][0].data for net in nets]
    assert_alike(nets)
    for view in views:
        view *= 2
    assert_alike(nets)
    assert len(packed) == 1


def test_small_products_stay_with_the_layer(pair, same_passes, packed: list) -> None:
    nets = pair(image(2, 60) + product() + RELU, caffe.TEST)
    same_passes(nets, backward=False)
    assert not packed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (product("normalize: true"), "changes its weights in each pass"),
        (
            image(12, 60, name="w") + product().replace("top", 'bottom: "w" top'),
            "takes its weights from another layer",
        ),
    ],
)
def test_where_it_does_not_fit(text: str, reason: str, pair, same_passes) -> None:
    nets = pair(image(2, 60) + text, caffe.TEST)
    assert misfits(nets[1], "prepare_products") == {"p": reason}
    same_passes(nets, backward=False)


def test_on_a_gpu_it_does_not_fit(pretend_gpu, pair) -> None:
    nets = pair(image(2, 60) + product(), caffe.TEST)
    assert misfits(nets[1], "prepare_products") == {"p": "is not computed on the CPU"}


def test_without_onednn_it_does_not_fit(pair, same_passes, monkeypatch) -> None:
    def missing(*arguments: object) -> torch.Tensor:
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", missing)
    nets = pair(image(2, 60) + product(), caffe.TEST)
    assert misfits(nets[1], "prepare_products") == {"p": "has no oneDNN for it"}
    same_passes(nets, backward=False)


def test_a_relu_that_is_not_alone_stays(pair, same_passes) -> None:
    text = image(2, 60) + product() + RELU.replace('top: "y"', 'top: "z"') + ip("q", "y")
    nets = pair(text, caffe.TEST)
    assert names(nets[1])[1:] == ["p", "r", "q"]
    same_passes(nets, backward=False)


def test_a_bottom_that_does_not_fit_is_refused_as_by_the_layer(unseen, same_refusal) -> None:
    same_refusal(unseen(image(2, 60) + product()), "x", (2, 61))
