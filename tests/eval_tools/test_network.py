"""Nets of several forms behind one interface, and what does not fit."""

import numpy as np
import pytest

import caffe
from data_tools.cli import DataError
from eval_tools.network import load, stored_shapes

# Two 2x2 poolings and their Unpoolings; at 10x6 the inner level is 5x3, so its size must be said.
UNPOOLING = """
layer { name: "depth" type: "Input" top: "depth"
        input_param { shape { dim: 1 dim: 1 dim: 6 dim: 10 } } }
layer { name: "conv" type: "Convolution" bottom: "depth" top: "conv"
        convolution_param { num_output: 2 kernel_size: 3 pad: 1
                            weight_filler { type: "gaussian" std: 1 } } }
layer { name: "pool1" type: "Pooling" bottom: "conv" top: "pool1" top: "pool1_mask"
        pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "pool2" type: "Pooling" bottom: "pool1" top: "pool2" top: "pool2_mask"
        pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "unpool2" type: "Unpooling" bottom: "pool2" bottom: "pool2_mask" top: "up2"
        unpooling_param { output_h: OUT_H output_w: OUT_W } }
layer { name: "unpool1" type: "Unpooling" bottom: "up2" bottom: "pool1_mask" top: "score"
        unpooling_param { SCALE } }
"""


def write(folder, size, out, scale="scale: 2"):
    text = UNPOOLING.replace("dim: 6 dim: 10", f"dim: {size[0]} dim: {size[1]}")
    text = text.replace("OUT_H", str(out[0])).replace("OUT_W", str(out[1]))
    path = folder / f"net{size[0]}x{size[1]}.prototxt"
    path.write_text(text.replace("SCALE", scale))
    return str(path)


@pytest.mark.parametrize("size", [(6, 10), (7, 9), (12, 20), (3, 5)])
def test_unpooling_nets_run_at_other_sizes_as_if_written_for_them(tmp_path, size):
    deploy = write(tmp_path, (6, 10), (3, 5))
    weights = str(tmp_path / "net.caffemodel")
    caffe.Net(deploy, caffe.TEST).save(weights)
    height, width = size
    out = ((height + 1) // 2, (width + 1) // 2)  # pooling rounds up
    own = load(write(tmp_path, size, out, f"output_h: {height} output_w: {width}"), weights)
    depth = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    color = np.zeros((*size, 3), np.uint8)
    network = load(deploy, weights)
    expected = own.scores([color], [depth]).copy()
    assert np.array_equal(network.scores([color], [depth]), expected)
    # And back to its own size, with another batch.
    first = np.ones((6, 10), np.uint8)
    again = network.scores([np.zeros((6, 10, 3))] * 2, [first, first])
    assert again.shape == (2, 2, 6, 10)


def test_inputs_are_told_by_their_channels(tmp_path, toy):
    text = """
    layer { name: "x" type: "Input" top: "x"
            input_param { shape { dim: 1 dim: 4 dim: 2 dim: 3 } } }
    layer { name: "score" type: "Power" bottom: "x" top: "score" }
    """
    (tmp_path / "rgbd.prototxt").write_text(text)
    network = load_bare(tmp_path / "rgbd.prototxt")
    color = np.arange(18).reshape(2, 3, 3)
    depth = np.arange(100, 106).reshape(2, 3)
    scores = network.scores([color], [depth])
    assert np.array_equal(scores[0, :3], color.transpose(2, 0, 1))
    assert np.array_equal(scores[0, 3], depth)
    assert network.takes_depth


def load_bare(path, **options):
    """A Network of a net without weights."""
    from eval_tools.network import Network

    return Network(caffe.Net(str(path), caffe.TEST), str(path), **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "has no inputs; expected a deploy net"),
        ({"x": (1, 2, 4, 4)}, "input 'x' has shape 1x2x4x4, expected colour"),
        ({"x": (1, 3)}, "input 'x' has shape 1x3, expected colour"),
        ({"x": (1, 3, 4, 4), "y": (1, 3, 4, 4)}, "inputs 'x' and 'y' would take the same image"),
        ({"x": (1, 1, 4, 4), "y": (1, 4, 4, 4)}, "inputs 'x' and 'y' would take the same image"),
    ],
)
def test_other_inputs_are_refused(tmp_path, inputs, message):
    text = """layer { name: "score" type: "DummyData" top: "score"
                      dummy_data_param { shape { dim: 1 dim: 2 dim: 2 dim: 2 } } }"""
    for name, shape in inputs.items():
        dims = " ".join(f"dim: {side}" for side in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        text += f"input_param {{ shape {{ {dims} }} }} }}"
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_bare(tmp_path / "net.prototxt")


def test_which_blob_is_scored(tmp_path):
    text = """
    layer { name: "x" type: "Input" top: "x"
            input_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } } }
    layer { name: "a" type: "Power" bottom: "x" top: "a" }
    """
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert load_bare(path).score == "a"
    path.write_text(text + 'layer { name: "b" type: "Power" bottom: "x" top: "b" }')
    with pytest.raises(DataError, match="There is no 'score', and the outputs are 'a', 'b'"):
        load_bare(path)
    assert load_bare(path, score="b").score == "b"
    with pytest.raises(DataError, match="the net has no blob 'c'; outputs: 'a', 'b'"):
        load_bare(path, score="c")


def test_shapes_of_every_model_format(tmp_path, toy, model):
    shapes = {"score": {0: (5, 4, 1, 1), 1: (5,)}}
    assert stored_shapes(model[1]) == shapes
    net = caffe.Net(*model, caffe.TEST)
    net.save_hdf5(str(tmp_path / "net.caffemodel.h5"))
    assert stored_shapes(tmp_path / "net.caffemodel.h5") == shapes
    assert load(model[0], tmp_path / "net.caffemodel.h5").values == 5
    # The format before: layers without `shape`, everything four axes.
    old = caffe.proto.caffe_pb2.NetParameter()
    layer = old.layers.add(name="score", type=4)
    for values, (n, c) in (([0.5] * 20, (5, 4)), ([1, 0, 0, 0, 0], (1, 1))):
        blob = layer.blobs.add(num=n, channels=c, height=1, width=1 if n > 1 else 5)
        blob.data.extend(values)
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    assert stored_shapes(tmp_path / "old.caffemodel") == {
        "score": {0: (5, 4, 1, 1), 1: (1, 1, 1, 5)}
    }
    network = load(model[0], tmp_path / "old.caffemodel")
    assert network.net.params["score"][1].data.tolist() == [1, 0, 0, 0, 0]


def test_nets_run_for_their_scores_alone_give_the_same(model):
    network = load(*model)
    assert "prob" not in network.net.blobs
    watched = caffe.Net(*model, caffe.TEST)
    planes = np.random.default_rng(0).integers(0, 255, (4, 12, 16)).astype(np.float32)
    watched.blobs["rgb"].data[...], watched.blobs["depth"].data[...] = planes[:3], planes[3]
    watched.forward()
    scores = network.scores([planes[:3].transpose(1, 2, 0)], [planes[3]])
    assert np.allclose(scores, watched.blobs["score"].data, rtol=1e-5)
    assert load(*model, score="prob").net.blobs["prob"].data.shape == (1, 5, 12, 16)


def test_shared_parameters_need_be_stored_once(tmp_path):
    text = """
    layer { name: "x" type: "Input" top: "x"
            input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "one" type: "Convolution" bottom: "x" top: "one" param { name: "w" }
            convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    layer { name: "two" type: "Convolution" bottom: "one" top: "two" param { name: "w" }
            convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    layer { name: "score" type: "Concat" bottom: "one" bottom: "two" top: "score" }
    """
    (tmp_path / "net.prototxt").write_text(text)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.params["one"][0].data[...] = 3
    net.save(str(tmp_path / "net.caffemodel"))
    net.save_hdf5(str(tmp_path / "net.caffemodel.h5"))
    frame = [np.zeros((4, 4, 3))], [np.ones((4, 4))]
    for name in ("net.caffemodel", "net.caffemodel.h5"):
        scores = load(tmp_path / "net.prototxt", tmp_path / name).scores(*frame)
        assert scores[0, :, 0, 0].tolist() == [3, 9]
