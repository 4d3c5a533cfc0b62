"""pycaffe's names and habits, as scripts written for it use them."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

import caffe

# Every public name of pycaffe 1.0, and the private ones that scripts are known to use.
NAMES = {
    "caffe": (
        "Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL "
        "Timer init_log log set_mode_cpu set_mode_gpu set_device Layer get_solver layer_type_list "
        "set_random_seed solver_count set_solver_count solver_rank set_solver_rank "
        "set_multiprocess has_nccl __version__ TRAIN TEST Classifier Detector io layers params "
        "NetSpec to_proto proto draw coord_map net_spec"
    ),
    "io": (
        "blobproto_to_array array_to_blobproto arraylist_to_blobprotovector_str "
        "blobprotovector_str_to_arraylist array_to_datum datum_to_array Transformer load_image "
        "resize_image oversample"
    ),
    "draw": (
        "get_pooling_types_dict get_edge_label get_layer_lr_mult get_layer_label "
        "choose_color_by_layertype get_pydot_graph draw_net draw_net_to_file"
    ),
    "coord_map": (
        "PASS_THROUGH_LAYERS conv_params crop_params UndefinedMapException coord_map "
        "AxisMismatchException compose inverse coord_map_from_to crop"
    ),
    "net": (
        "_backward _batch _blob_loss_weights _blob_names _blobs _bottom_ids _forward _inputs "
        "_layer_names _outputs _top_ids after_backward after_forward backward before_backward "
        "before_forward blob_loss_weights blobs bottom_names clear_param_diffs copy_from forward "
        "forward_all forward_backward_all inputs layer_dict layers load_hdf5 outputs params "
        "reshape save save_hdf5 set_input_arrays share_with top_names"
    ),
    "blob": "channels count data diff height num reshape shape width",
    "layer": "blobs reshape setup type",
    "solver": (
        "add_callback apply_update iter lr net param restore share_weights snapshot solve step "
        "test_nets"
    ),
    "param": "base_lr display layer_wise_reduce max_iter",
    "timer": "ms start stop",
    "nccl": "bcast new_uid",
}
NET = """
name: "pycaffe"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip" top: "out" }
"""


@pytest.fixture
def solver(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "{tmp_path}/net.prototxt" base_lr: 0.5 lr_policy: "fixed"')
    return caffe.get_solver(str(path))


def test_every_name_is_there(solver):
    things = {
        "caffe": caffe,
        "io": caffe.io,
        "draw": caffe.draw,
        "coord_map": caffe.coord_map,
        "net": solver.net,
        "blob": solver.net.blobs["ip"],
        "layer": solver.net.layers[1],
        "solver": solver,
        "param": solver.param,
        "timer": caffe.Timer(),
        "nccl": caffe.NCCL,
    }
    assert things.keys() == NAMES.keys()
    for thing, names in NAMES.items():
        for name in names.split():
            assert hasattr(things[thing], name), f"{thing}.{name}"
    assert set(NAMES["caffe"].split()) - {"__version__"} <= set(dir(caffe))


def run_python(code):
    """What a fresh interpreter prints and logs."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout, result.stderr


def test_importing_caffe_is_cheap():
    """netgen needs no engine: neither torch nor OpenCV are loaded for it."""
    code = (
        "import sys, caffe, caffe.draw\n"
        "from caffe import layers as L, params as P\n"
        "L.Pooling(L.Input(), pool=P.Pooling.MAX).to_proto()\n"
        "caffe.init_log(0); caffe.log('hello')\n"
        "print([m for m in ('torch', 'cv2', 'h5py', 'matplotlib') if m in sys.modules])"
    )
    out, err = run_python(code)
    assert out == "[]\n"
    assert "] hello" in err


@pytest.mark.parametrize("first", ["", "import caffe.process.log, caffe.layers.vision"])
def test_names_that_are_modules_too(first):
    """`caffe.layers` and `caffe.log` mean what they mean in pycaffe, whatever was imported."""
    code = (
        f"import caffe\n{first}\n"
        "from caffe import layers as L\n"
        "print(L.Convolution(L.Input(), num_output=3).fn.type_name)\n"
        "caffe.init_log(0); caffe.log('a word')\n"
        "from caffe.layers import Layer, vision\n"
        "from caffe.process.log import emit\n"
        "print(vision.Convolution.type, L.Concat is not None)\n"
    )
    out, err = run_python(code)
    assert out == "Convolution\nConvolution True\n"
    assert "] a word" in err


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Netz'"):
        caffe.Netz  # noqa: B018


def test_ids_are_places_among_the_blobs(solver):
    net = solver.net
    assert net._blob_names == ["data", "ip", "out"]
    assert (net._inputs, net._outputs) == ([0], [2])
    assert [net._bottom_ids(i) for i in range(3)] == [[], [0], [1]]
    assert [net._top_ids(i) for i in range(3)] == [[0], [1], [2]]
    assert [net._blobs[i] for i in net._top_ids(1)] == [net.blobs["ip"]]


def test_forward_backward_all(make_net):
    """Seven rows through a net of two, with gradients of the outputs."""
    net = make_net(NET.replace('name: "pycaffe"', "force_backward: true"))
    rng = np.random.default_rng(0)
    data, out = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    blobs, diffs = net.forward_backward_all(blobs=["ip"], diffs=["ip"], data=data, out=out)
    w, b = (blob.data for blob in net.params["ip"])
    ip = data @ w.T + b
    np.testing.assert_allclose(blobs["out"], np.tanh(ip), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(blobs["ip"], ip, rtol=1e-5, atol=1e-6)
    expected = out * (1 - np.tanh(ip) ** 2)
    np.testing.assert_allclose(diffs["ip"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(diffs["data"], expected @ w, rtol=1e-4, atol=1e-6)


MEMORY = """
layer { name: "memory" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }
layer { name: "power" type: "Power" bottom: "data" top: "out" power_param { scale: 2 } }
layer { name: "quiet" type: "Silence" bottom: "label" }
"""


def test_set_input_arrays(make_net):
    net = make_net(MEMORY)
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    labels = np.arange(4, dtype=np.float32)
    net.set_input_arrays(data, labels)
    for first in (0, 2, 0):  # and over again
        out = net.forward()["out"]
        np.testing.assert_array_equal(out, 2 * data[first : first + 2])
        assert net.blobs["label"].data.ravel().tolist() == [first, first + 1]


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (np.zeros((4, 1, 1, 3)), np.zeros(4, "f"), "float32"),
        (np.zeros((4, 1, 3, 1), "f"), np.zeros(4, "f"), "shape"),
        (np.zeros((4, 1, 1, 3), "f"), np.zeros(3, "f"), "labels"),
        (np.zeros((3, 1, 1, 3), "f"), np.zeros(3, "f"), "multiple of batch_size"),
        (np.zeros((4, 1, 1, 6), "f")[..., ::2], np.zeros(4, "f"), "contiguous"),
    ],
)
def test_input_arrays_that_do_not_fit(make_net, data, labels, message):
    with pytest.raises(RuntimeError, match=f"layer 'memory'.*{message}"):
        make_net(MEMORY).set_input_arrays(data, labels)


def test_set_input_arrays_needs_a_memory_data_layer(solver):
    with pytest.raises(RuntimeError, match="MemoryData, 'data' is of type Input"):
        solver.net.set_input_arrays(np.zeros((1, 1, 1, 1), "f"), np.zeros(1, "f"))


def test_a_solver_in_a_loop_of_ones_own(solver):
    """What scripts do: fill, step by hand, read the rate, share weights with another net."""
    calls = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("ready"))
    net = solver.net
    net.blobs["data"].data[...] = 1
    net.forward()
    net.params["ip"][1].diff[...] = [1, 2]
    before = net.params["ip"][1].data.copy()
    assert solver.lr == 0.5
    solver.apply_update()
    assert (net.params["ip"][1].data == before - [0.5, 1]).all()
    solver.param.base_lr = 0.25
    assert solver.lr == 0.25
    solver.step(2)
    assert calls == ["start", "ready"] * 2
    assert solver.iter == 3
    other = caffe.get_solver(solver.param).net
    solver.share_weights(other)
    net.params["ip"][0].data[...] = 7
    assert (other.params["ip"][0].data == 7).all()


def test_timer(capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["caffe.process.log"]._sink, "min_level", 0)
    timer = caffe.Timer()
    assert timer.ms == 0
    assert "Timer has never been run" in capsys.readouterr().err
    timer.start()
    time.sleep(0.02)
    timer.start()  # runs already: nothing happens
    timer.stop()
    spent = timer.ms
    assert 20 <= spent < 2000
    time.sleep(0.01)
    assert timer.ms == spent
    timer.start()
    assert timer.ms < 20  # reading stops it
    assert not timer.running
