"""Layers of optical flow: what the recordings of FlowNet2's code do not show."""

from __future__ import annotations

import numpy as np
import pytest

import caffe


def layer(text: str) -> str:
    return f'layer {{ name: "l" {text} }}'


IMAGE = {"x": (1, 1, 2, 3), "flow": (1, 2, 2, 3)}


def test_beyond_the_image_flow_warp_gives_nan_if_asked_for(net_of):
    param = "flow_warp_param { fill_value: NOT_A_NUMBER }"
    net = net_of(layer(f'type: "FlowWarp" bottom: "x" bottom: "flow" top: "y" {param}'), **IMAGE)
    flow = np.zeros(IMAGE["flow"])
    flow[0, 0, :, 2] = 1  # from the last column to one beyond it
    y = net.forward(x=np.arange(6.0).reshape(1, 1, 2, 3), flow=flow)["y"]
    np.testing.assert_array_equal(y[0, 0], [[0, 1, np.nan], [3, 4, np.nan]])


def test_the_name_of_the_bottom_tells_coordinates_from_a_flow(net_of):
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    points = np.ones(IMAGE["flow"])
    net = net_of(layer('type: "Warp" bottom: "x" bottom: "flow" top: "y"'), **IMAGE)
    np.testing.assert_array_equal(net.forward(x=x, flow=points)["y"][0, 0], [[4, 5, 0], [0, 0, 0]])
    text = layer('type: "Warp" bottom: "x" bottom: "coords_L6" top: "y"')
    net = net_of(text, x=IMAGE["x"], coords_L6=IMAGE["flow"])
    np.testing.assert_array_equal(net.forward(x=x, coords_L6=points)["y"][0, 0], np.full((2, 3), 4))


def test_warp_by_coordinates_as_onnx(net_of):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from caffe.export.onnx import write_graph

    shapes = {"x": (2, 3, 4, 5), "coords": (2, 2, 4, 5)}
    net = net_of(
        layer('type: "Warp" bottom: "x" bottom: "coords" top: "y"'), phase=caffe.TEST, **shapes
    )
    rng = np.random.default_rng(1)
    feeds = {
        "x": rng.normal(size=shapes["x"]).astype(np.float32),
        "coords": rng.uniform(-1.5, 5.5, shapes["coords"]).astype(np.float32),
    }
    model = write_graph(net, ["y"]).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, net.forward(**feeds)["y"], rtol=1e-4, atol=1e-5)


def test_a_correlation_counts_its_products(layer_of):
    shapes = [(1, 5, 4, 4)] * 2
    param = "correlation_param { pad: 2 kernel_size: 1 max_displacement: 2 }"
    correlation = layer_of(f'type: "Correlation" {param}', *shapes)
    assert correlation.infer_shapes(shapes) == [(1, 25, 4, 4)]
    assert correlation.macs(shapes) == 25 * 16 * 5


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("kernel_size: 1", "max_displacement is missing"),
        ("kernel_size: 2 max_displacement: 1", "kernel_size is 2, expected an odd one"),
        ("kernel_size: 1 max_displacement: 2", "do not fit into an image padded by 0"),
    ],
)
def test_correlations_that_cannot_be(layer_of, param, message):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{message}"):
        layer_of(f'type: "Correlation" correlation_param {{ {param} }}', *[(1, 1, 4, 4)] * 2)
