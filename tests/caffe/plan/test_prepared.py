"""Deploy nets make their weights ready once, and again whenever these change."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.plan.prepared import PreparedConvolution
from caffe.proto import caffe_pb2 as pb

INPUT = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 10 } } }
"""
BODY = """
layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
  num_output: 4 pad: 1 kernel_size: 3 weight_filler { type: "msra" }
  bias_filler { type: "gaussian" } } }
layer { name: "n" type: "BatchNorm" bottom: "y" top: "y" }
layer { name: "s" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true
  filler { type: "gaussian" mean: 1 std: 0.2 } bias_filler { type: "gaussian" } } }
layer { name: "r" type: "ReLU" bottom: "y" top: "y" }
"""
LOSS = """
layer { name: "ip" type: "InnerProduct" bottom: "y" top: "q" inner_product_param {
  num_output: 2 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "q" bottom: "t" top: "loss" }
"""


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[PreparedConvolution]:
    """Who made its weights ready, each time."""
    made: list[PreparedConvolution] = []
    prepare = PreparedConvolution._prepare

    def counting(self, x, blobs):
        made.append(self)
        return prepare(self, x, blobs)

    monkeypatch.setattr(PreparedConvolution, "_prepare", counting)
    return made


@pytest.fixture
def nets(pair) -> tuple[caffe.Net, caffe.Net]:
    """Observed and not, with gathered statistics."""
    made = pair(INPUT + BODY, caffe.TEST)
    for net in made:
        mean, variance, factor = net.params["n"]
        mean.data[...], variance.data[...], factor.data[...] = [3, -1, 0, 2], [1, 2, 9, 4], 2
    return made


def assert_alike(nets: tuple[caffe.Net, caffe.Net]) -> np.ndarray:
    observed, planned = (net.forward()["y"].copy() for net in nets)
    np.testing.assert_allclose(planned, observed, rtol=0, atol=1e-5 * np.abs(observed).max())
    return planned


def test_prepared_once(nets, prepared: list) -> None:
    assert_alike(nets)
    for net in nets:
        net.blobs["x"].data[...] += 1
    assert_alike(nets)
    assert len(prepared) == 1


@pytest.mark.parametrize("layer", ["c", "n", "s"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_view_taken_before(nets, prepared: list, layer: str, index: int) -> None:
    views = [net.params[layer][index].data for net in nets]
    first = assert_alike(nets)
    for view in views:
        view += 0.5
    assert not np.allclose(assert_alike(nets), first)
    assert_alike(nets)
    assert len(prepared) == 2


@pytest.fixture
def unseen(nets, tmp_path: Path) -> tuple[caffe.Net, caffe.Net]:
    """The same, but nobody has looked at the second one's weights yet."""
    nets[0].save(tmp_path / "w.caffemodel")
    fresh = caffe.Net(text_format.Parse(INPUT + BODY, pb.NetParameter()), caffe.TEST)
    fresh.copy_from(tmp_path / "w.caffemodel")
    fresh.blobs["x"].data[...] = nets[0].blobs["x"].data
    fresh.observed = False
    return nets[0], fresh


@pytest.mark.parametrize("layer", ["c", "n", "s"])
def test_a_view_taken_after(unseen, layer: str) -> None:
    first = assert_alike(unseen)
    for net in unseen:
        net.params[layer][0].data[...] += 0.5
    assert not np.allclose(assert_alike(unseen), first)


def test_one_number_of_many(unseen) -> None:
    assert_alike(unseen)
    views = [net.params["c"][0].data for net in unseen]
    assert_alike(unseen)
    for view in views:
        view[3, 2, 1, 1] += 1
    assert_alike(unseen)


def test_weights_that_are_new_after_a_pass_that_failed(unseen, tmp_path: Path) -> None:
    first = assert_alike(unseen)
    for net in unseen:
        net.params["c"][0].data[...] += 0.5
    unseen[0].save(str(tmp_path / "new.caffemodel"))
    unseen[1].copy_from(str(tmp_path / "new.caffemodel"))
    unseen[1].blobs["x"].reshape(2, 4, 9, 10)
    with pytest.raises(caffe.CaffeError):
        unseen[1].forward()
    unseen[1].blobs["x"].reshape(2, 3, 9, 10)
    unseen[1].blobs["x"].data[...] = unseen[0].blobs["x"].data
    assert not np.allclose(assert_alike(unseen), first)


def test_weights_with_nan_are_prepared_once(nets, prepared: list) -> None:
    nets[1].params["c"][0].data[0, 0, 0, 0] = np.nan
    for _ in range(3):
        nets[1].forward()
    assert len(prepared) == 1


def test_copy_from(unseen, tmp_path: Path) -> None:
    first = assert_alike(unseen)
    other = caffe.Net(text_format.Parse(INPUT + BODY, pb.NetParameter()), caffe.TEST)
    other.save(tmp_path / "other.caffemodel")
    for net in unseen:
        net.copy_from(tmp_path / "other.caffemodel")
    assert not np.allclose(assert_alike(unseen), first)


def test_share_with(unseen) -> None:
    first = assert_alike(unseen)
    others = [
        caffe.Net(text_format.Parse(INPUT + BODY, pb.NetParameter()), caffe.TEST) for _ in range(2)
    ]
    for other in others:
        for net in unseen:
            net.share_with(other)
        again = assert_alike(unseen)
        assert not np.allclose(again, first)
        first = again
        other.params["s"][0].data[...] *= 2
        assert not np.allclose(assert_alike(unseen), first)


@pytest.mark.parametrize("observed", [True, False])
def test_a_solver_that_goes_on(
    observed: bool, make_net: Callable[..., caffe.Net], prepared: list
) -> None:
    """Weights and statistics of a training net that two others share, one by its plan."""
    param = pb.SolverParameter(base_lr=0.05, lr_policy="fixed")
    text_format.Parse(INPUT + BODY + LOSS, param.net_param)
    solver = caffe.get_solver(param)
    solver.net.observed = observed
    rng = np.random.default_rng(1)
    tests = [make_net(INPUT + BODY, caffe.TEST) for _ in range(2)]
    for net in (solver.net, *tests):
        net.blobs["x"].data[...] = rng.normal(size=(2, 3, 9, 10))
    tests[1].blobs["x"].data[...] = tests[0].blobs["x"].data
    for net in tests:
        net.share_with(solver.net)
    tests[1].observed = False
    seen = []
    for _ in range(4):
        solver.step(1)
        seen.append(assert_alike(tests))
        assert_alike(tests)
    assert len({values.tobytes() for values in seen}) == 4
    assert len(prepared) == 4


@pytest.mark.parametrize("observed", [True, False])
def test_statistics_alone(observed: bool, make_net: Callable[..., caffe.Net]) -> None:
    """A forward pass in TRAIN changes nothing but these."""
    train = make_net(INPUT + BODY + LOSS)
    train.observed = observed
    train.blobs["x"].data[...] = np.random.default_rng(1).normal(size=(2, 3, 9, 10))
    tests = [make_net(INPUT + BODY, caffe.TEST) for _ in range(2)]
    for net in tests:
        net.share_with(train)
        net.blobs["x"].data[...] = train.blobs["x"].data
    tests[1].observed = False
    seen = []
    for k in range(3):
        train.blobs["x"].data[...] += k
        train.forward()
        seen.append(assert_alike(tests))
    assert len({values.tobytes() for values in seen}) == 3


def test_reshape(nets, prepared: list) -> None:
    """The way to multiply depends on the size."""
    for shape in ((2, 3, 9, 10), (1, 3, 20, 7), (1, 3, 20, 7), (2, 3, 9, 10)):
        values = np.random.default_rng(1).normal(size=shape)
        for net in nets:
            net.blobs["x"].reshape(*shape)
            net.reshape()
            net.blobs["x"].data[...] = values
        assert assert_alike(nets).shape == (shape[0], 4, *shape[2:])
    assert len(prepared) == 3


def test_the_old_weights_are_gone_before_new_ones_are_made(
    nets, monkeypatch: pytest.MonkeyPatch, uncollected
) -> None:
    assert_alike(nets)
    (operation,) = (n.run for n in nets[1].plan.nodes if isinstance(n.run, PreparedConvolution))
    old = weakref.ref(operation._run)
    prepare, alive = PreparedConvolution._prepare, []

    def looking(self, x, blobs):
        alive.append(old() is not None)
        return prepare(self, x, blobs)

    monkeypatch.setattr(PreparedConvolution, "_prepare", looking)
    for net in nets:
        net.params["c"][0].data[...] *= 2
    assert_alike(nets)
    assert alive == [False]


def test_an_error_while_preparing_is_no_end(nets, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_alike(nets)
    for net in nets:
        net.params["c"][0].data[...] *= 2
    with monkeypatch.context() as patch:

        def failing(self, x, blobs):
            raise MemoryError

        patch.setattr(PreparedConvolution, "_prepare", failing)
        with pytest.raises(MemoryError):
            nets[1].forward()
    assert_alike(nets)


def test_precision_prepares_anew(nets) -> None:
    first = assert_alike(nets)
    caffe.set_precision("bf16")
    rough = nets[1].forward()["y"].copy()
    assert not np.array_equal(rough, first)
    np.testing.assert_allclose(rough, first, atol=0.02 * np.abs(first).max())
    caffe.set_precision("fp32")
    assert np.array_equal(nets[1].forward()["y"], first)


def test_without_onednn(nets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyTorch has no convolution with packed weights."""
    import torch

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_alike(nets)
