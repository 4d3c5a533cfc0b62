"""caffe.convert: whole nets as ONNX, and weights to and from PyTorch's state dicts."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe import convert
from caffe.export import comparing, probes, programs
from caffe.export.comparing import measured
from caffe.export.state_dict import load_state_dict, read_names, read_state_dict
from caffe.proto import caffe_pb2 as pb

SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "block/conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "block/bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "block/scale" type: "Scale" bottom: "conv" top: "conv"
  scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


class Small(torch.nn.Module):
    """The same net as a user of PyTorch writes it."""

    def __init__(self):
        super().__init__()
        self.block = torch.nn.ModuleDict(
            {"conv": torch.nn.Conv2d(3, 4, 3, bias=False), "bn": torch.nn.BatchNorm2d(4)}
        )
        self.fc = torch.nn.Linear(144, 5)
        with torch.no_grad():
            for values in self.state_dict().values():
                if values.is_floating_point():
                    values.uniform_(0.5, 1.5)

    def forward(self, x):
        x = torch.relu(self.block["bn"](self.block["conv"](x)))
        return self.fc(x.flatten(1))


def small_net(text=SMALL):
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)


@pytest.fixture
def files(tmp_path):
    """Prototxt and weights of the small net, and the net."""
    caffe.set_random_seed(2)
    net = small_net()
    rng = np.random.default_rng(0)
    for blob in net.params["block/bn"]:
        blob.data[...] = rng.uniform(0.5, 1.5, blob.shape)
    (tmp_path / "net.prototxt").write_text(SMALL)
    net.save(tmp_path / "net.caffemodel")
    return str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"), net


def formula(net):
    """Weights that keep values in range through a deep net."""
    for layer in net.layers:
        for i, blob in enumerate(layer.blobs):
            v = np.random.RandomState(zlib.crc32(f"{layer.name}/{i}".encode())).randn(*blob.shape)
            if layer.type == "BatchNorm":
                blob.data[...] = (0.1 * v, np.exp(0.2 * v), np.ones_like(v))[i]
            elif layer.type == "Scale":
                blob.data[...] = np.exp(0.2 * v) if i == 0 else 0.1 * v
            else:
                fan_in = np.prod(blob.shape[1:])
                blob.data[...] = v * np.sqrt(2 / fan_in) if i == 0 else 0.1 * v


# -- ONNX -------------------------------------------------------------------------------------


def fusenet(kind, width, height):
    """A narrow FuseNet with weights."""
    command = [sys.executable, "-m", "netgen", kind, "--deploy", "--size", f"{width}x{height}"]
    text = subprocess.run(
        [*command, "--width-multiplier", "0.05"], check=True, capture_output=True, text=True
    ).stdout
    net = small_net(text)
    formula(net)
    return net


@pytest.mark.parametrize("size", [(64, 48), (65, 51)])
@pytest.mark.parametrize("kind", ["sf1", "sf5"])
def test_fusenet_in_both_forms(kind, size, tmp_path):
    """onnxruntime agrees with the engine, at an odd size, too; to_onnx itself compares."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = fusenet(kind, *size)
    for form in (True, False):
        path = tmp_path / f"{form}.onnx"
        differences = convert.to_onnx(net, path, max_unpool=form)
        assert set(differences) == set(net.outputs)
        ops = [node.op_type for node in onnx.load(path).graph.node]
        assert ops.count("MaxUnpool") == (5 if form else 0)
        # No second output of MaxPool either.
        assert all(len(n.output) == 1 for n in onnx.load(path).graph.node) != form


def test_any_batch_size(files, tmp_path):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = files[2]
    convert.to_onnx(net, tmp_path / "net.onnx", dynamic_batch=True)
    session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    (answer,) = session.run(None, {"data": x})
    net.blobs["data"].reshape(*x.shape)
    np.testing.assert_allclose(answer, net.forward(data=x)["fc"], rtol=1e-4, atol=1e-5)


def test_nothing_is_left_of_a_file_that_answers_otherwise(files, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    out = tmp_path / "out"
    out.mkdir()
    honest = convert._run
    monkeypatch.setattr(convert, "_run", lambda *args: {k: v + 1 for k, v in honest(*args).items()})
    with pytest.raises(caffe.CaffeError, match=r"'fc': onnxruntime and the net differ on 100.00%"):
        convert.to_onnx(files[2], out / "net.onnx")
    assert list(out.iterdir()) == []


def test_what_counts_as_equal():
    ours = np.array([1, 2, np.nan, np.inf, -4], np.float32)
    theirs = np.array([1, 2.0001, np.nan, np.inf, -4], np.float32)
    assert convert._difference("y", ours, theirs) == pytest.approx(0.0001 / 4, rel=0.01)
    for i, wrong in ((0, np.nan), (2, 1), (3, -np.inf), (1, 2.001)):
        other = theirs.copy()
        other[i] = wrong
        with pytest.raises(caffe.CaffeError, match=r"'y': .* differ on 20.00% of the values"):
            convert._difference("y", ours, other)
    with pytest.raises(caffe.CaffeError, match=r"the shape \(4,\), the net \(5,\)"):
        convert._difference("y", ours, theirs[:4])


def test_nets_that_take_indices_are_compared_on_zeros(tmp_path):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = small_net(
        'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 3 } } }'
        'layer { name: "e" type: "Embed" bottom: "i" top: "y" embed_param '
        '{ num_output: 2 input_dim: 4 weight_filler { type: "uniform" } } }'
    )
    assert convert.to_onnx(net, tmp_path / "net.onnx") == {"y": 0}


def input_of(name, *shape):
    dims = " ".join(f"dim: {n}" for n in shape)
    param = f"input_param {{ shape {{ {dims} }} }}"
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" {param} }}'


needs_onnxruntime = pytest.mark.usefixtures("onnxruntime")


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@needs_onnxruntime
def test_fusenet_at_another_size_than_its_own(tmp_path, capsys):
    """Its Unpooling layers state sizes that belong to 320x240."""
    net = fusenet("sf5", 80, 60)
    (tmp_path / "net.prototxt").write_text(str(net.to_proto()))
    net.save(tmp_path / "net.caffemodel")
    names = [str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel", "net.onnx")]
    convert.main(["--input", "rgb=1x3x51x65", "--input", "depth=1x1x51x65", *names])
    assert "net.onnx: written, as onnxruntime" in capsys.readouterr().err


@needs_onnxruntime
def test_inputs_that_no_layer_takes_are_left_out(tmp_path):
    net = small_net(SMALL + input_of("label", 2, 1))
    assert net.outputs == ["fc", "label"]
    assert set(convert.to_onnx(net, tmp_path / "net.onnx")) == {"fc"}
    net = small_net(input_of("x", 2, 3) + input_of("z", 2, 3))
    with pytest.raises(
        caffe.CaffeError, match=r"computes nothing: its outputs are its inputs, \['x'"
    ):
        convert.to_onnx(net, tmp_path / "no.onnx")
    assert not (tmp_path / "no.onnx").exists()


@needs_onnxruntime
def test_scores_are_given_out_in_place_of_losses(tmp_path):
    judged = "".join(
        f'layer {{ name: "{kind}" type: "{kind}" bottom: "fc" bottom: "label" top: "{kind}" }}'
        for kind in ("SoftmaxWithLoss", "Accuracy")
    )
    net = small_net(SMALL + input_of("label", 2, 1) + judged)
    assert sorted(net.outputs) == ["Accuracy", "SoftmaxWithLoss"]
    assert set(convert.to_onnx(net, tmp_path / "net.onnx")) == {"fc"}
    twice = 'layer { name: "twice" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }'
    for kind in ("SegmentationAccuracy", "SegAccuracy", "EltwiseAccuracy"):
        judge = f'layer {{ name: "j" type: "{kind}" bottom: "y" bottom: "label" top: "share" }}'
        net = small_net(input_of("x", 1, 3, 2, 2) + input_of("label", 1, 1, 2, 2) + twice + judge)
        assert set(convert.to_onnx(net, tmp_path / "net.onnx")) == {"y"}


@needs_onnxruntime
def test_an_input_that_only_lends_its_size(tmp_path):
    """ONNX files do without it, the net does not."""
    crop = (
        'layer { name: "c" type: "Crop" bottom: "x" bottom: "z" top: "y" crop_param { offset: 1 } }'
    )
    net = small_net(input_of("x", 1, 2, 5, 5) + input_of("z", 1, 1, 3, 3) + crop)
    assert convert.to_onnx(net, tmp_path / "net.onnx") == {"y": 0}


@needs_onnxruntime
def test_recurrent_nets_are_compared_on_sequences(tmp_path):
    """With sequence indicators of up to 255 the states would overflow."""
    recurrent = (
        'layer { name: "l" type: "%s" bottom: "x" bottom: "cont" top: "y" recurrent_param '
        '{ num_output: 4 weight_filler { type: "uniform" min: -0.01 max: 0.01 } } }'
    )
    for kind in ("LSTM", "RNN"):
        net = small_net(input_of("x", 9, 2, 3) + input_of("cont", 9, 2) + recurrent % kind)
        (difference,) = convert.to_onnx(net, tmp_path / f"{kind}.onnx").values()
        assert difference < 1e-5


@needs_onnxruntime
def test_nan_throughout_is_no_agreement(files, tmp_path):
    net = files[2]
    net.params["fc"][1].data[1] = np.nan
    found = convert.to_onnx(net, tmp_path / "net.onnx")["fc"]
    assert (found.values, found.nan, found.beyond) == (10, 2, 0)
    assert str(found).endswith("(0 of 10 values by more than 0.0001, 2 NaN in both)")
    net.params["fc"][1].data[...] = np.nan
    with pytest.raises(
        caffe.CaffeError, match=r"output 'fc': the net gives NaN or infinity through"
    ):
        convert.to_onnx(net, tmp_path / "nan.onnx")
    assert not (tmp_path / "nan.onnx").exists()
    convert.to_onnx(net, tmp_path / "nan.onnx", check=False)


@needs_onnxruntime
def test_inputs_on_which_rounding_decides_are_drawn_again(tmp_path, monkeypatch):
    """The step lies where single and double precision fall on different sides of it."""
    rest = (
        'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 0.1 } }'
        'layer { name: "t" type: "Threshold" bottom: "p" top: "y" threshold_param '
        "{ threshold: 0.5 } }"
    )
    net = small_net(input_of("x", 1, 40) + rest)
    near = {"x": np.full((1, 40), 5, np.float32)}  # 5 * 0.1 is 0.5, or a little more
    far = {"x": np.full((1, 40), 9, np.float32)}
    monkeypatch.setattr(probes, "draws", lambda *_: iter([near, far]))
    honest = programs.answers

    def answers(program, model, feeds, outputs):
        """Those of a program that rounds otherwise."""
        (y,) = honest(program, model, feeds, outputs)
        return [1 - y if feeds["x"][0, 0] == 5 else y]

    monkeypatch.setattr(programs, "answers", answers)
    exact = convert._run(net, near, ["y"], torch.float64)["y"]
    assert (exact != convert._run(net, near, ["y"])["y"]).all()
    assert convert.to_onnx(net, tmp_path / "net.onnx") == {"y": 0}
    # Where rounding decides nothing, other answers are wrong ones.
    monkeypatch.setattr(probes, "draws", lambda *_: iter([far, near]))
    monkeypatch.setattr(programs, "answers", lambda *args: [1 - honest(*args)[0]])
    with pytest.raises(caffe.CaffeError, match=r"differ on 100.00% of the values \(40 of 40\)"):
        convert.to_onnx(net, tmp_path / "net.onnx")


@pytest.mark.parametrize(("target", "module"), [("opencv", "cv2"), ("openvino", "openvino")])
def test_fusenet_for_other_programs(target, module, files, tmp_path, capsys):
    """Written for them and checked in them: Unpooling, and padding that counts."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    pytest.importorskip(module, reason=f"{module} is not installed")
    net = fusenet("sf1", 65, 51)
    net.save(tmp_path / "sf1.caffemodel")
    (tmp_path / "sf1.prototxt").write_text(text_format.MessageToString(net.to_proto()))
    out = tmp_path / "sf1.onnx"
    convert.main(
        [
            "--for",
            target,
            str(tmp_path / "sf1.prototxt"),
            str(tmp_path / "sf1.caffemodel"),
            str(out),
        ]
    )
    title = convert.TARGETS[target].title
    assert f"sf1.onnx: written, as {title} " in capsys.readouterr().err
    assert "MaxUnpool" not in {node.op_type for node in onnx.load(out).graph.node}


SSD = (
    input_of("data", 2, 3, 8, 8)
    + """
layer { name: "loc" type: "Convolution" bottom: "data" top: "loc" convolution_param {
  num_output: 8 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "conf" type: "Convolution" bottom: "data" top: "conf" convolution_param {
  num_output: 6 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loc_p" type: "Permute" bottom: "loc" top: "loc_p"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc_f" type: "Flatten" bottom: "loc_p" top: "loc_f" }
layer { name: "conf_p" type: "Permute" bottom: "conf" top: "conf_p"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "conf_r" type: "Reshape" bottom: "conf_p" top: "conf_r"
  reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "conf_s" type: "Softmax" bottom: "conf_r" top: "conf_s" softmax_param { axis: 2 } }
layer { name: "conf_f" type: "Flatten" bottom: "conf_s" top: "conf_f" }
layer { name: "priors" type: "PriorBox" bottom: "loc" bottom: "data" top: "priors"
  prior_box_param { min_size: 3 max_size: 5 variance: 0.1 } }
layer { name: "found" type: "DetectionOutput" bottom: "loc_f" bottom: "conf_f" bottom: "priors"
  top: "found" detection_output_param { num_classes: 3 background_label_id: 0
  nms_param { nms_threshold: 0.45 top_k: 20 } code_type: CENTER_SIZE keep_top_k: 11
  confidence_threshold: 0.3 } }
"""
)


@needs_onnxruntime
@pytest.mark.parametrize("target", ["onnxruntime", "opencv", "tensorrt"])
def test_found_boxes_are_compared_row_by_row(target, tmp_path, onnxruntime):
    caffe.set_random_seed(3)
    net = small_net(SSD)
    found = convert.to_onnx(net, tmp_path / "net.onnx", target=target)["found"]
    assert found < 1e-4
    assert found.beyond == 0
    assert 7 * 15 < found.values <= 7 * 22  # 11 rows for each of 2 pictures at most
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (dark,) = session.run(None, {"data": np.full((2, 3, 8, 8), -1e4, np.float32)})
    rows = net.forward(data=np.full((2, 3, 8, 8), -1e4, np.float32))["found"]
    if target == "onnxruntime":
        np.testing.assert_allclose(dark, rows, rtol=1e-4, atol=1e-5)
    else:
        assert dark.shape == (1, 1, 22, 7)
        assert (dark == -1).all(-1).sum() == 22 - len(rows[0, 0])


def test_rows_that_differ_in_number_differ():
    ours = np.array([[[[0, 1, 0.9, 0, 0, 1, 1], [0, 2, 0.5, 0, 0, 1, 1]]]], np.float32)
    theirs = np.full((1, 1, 4, 7), -1, np.float32)
    theirs[..., 1:3, :] = ours[..., ::-1, :]
    found = measured("boxes", ours, theirs, "OpenCV", 0.0)
    assert (found, found.beyond, found.values) == (0, 0, 14)
    theirs[..., 1, :] = -1
    found = measured("boxes", ours, theirs, "OpenCV", 0.0)
    assert (found, found.beyond, found.values) == (1, 7, 14)


@needs_onnxruntime
def test_boxes_far_beyond_the_image_are_told(tmp_path, monkeypatch):
    """Random weights give such, for which rounding decides all."""
    net = small_net(SSD)
    net.params["loc"][1].data[...] = 100  # the exponent of a size, times the variance
    honest = programs.answers
    monkeypatch.setattr(programs, "answers", lambda *args: [honest(*args)[0][:, :, :1]])
    with pytest.raises(caffe.CaffeError, match=r"differ on .*; its boxes lie far beyond the image"):
        convert.to_onnx(net, tmp_path / "net.onnx")


@needs_onnxruntime
def test_raw_detections(files, tmp_path, onnxruntime):
    net = small_net(SSD)
    differences = convert.to_onnx(net, tmp_path / "raw.onnx", raw_detections=True)
    assert set(differences) == {"loc_f", "conf_f", "priors"}
    session = onnxruntime.InferenceSession(tmp_path / "raw.onnx")
    assert [item.name for item in session.get_outputs()] == ["loc_f", "conf_f", "priors"]
    assert [item.shape for item in session.get_outputs()] == [[2, 512], [2, 384], [1, 2, 512]]
    with pytest.raises(caffe.CaffeError, match=r"none of the outputs holds boxes: \['fc'\]"):
        convert.main([*files[:2], str(tmp_path / "no.onnx"), "--raw-detections"])
    long = SSD.replace("keep_top_k: 11", "")
    with pytest.raises(caffe.CaffeError, match=r"need a keep_top_k.* with --raw-detections"):
        convert.to_onnx(small_net(long), tmp_path / "no.onnx", target="opencv")


@needs_onnxruntime
def test_inputs_on_which_a_net_saturates_are_no_proof(tmp_path):
    """A Softmax of large scores gives 0 and 1 in any program: inputs of 0 to 1 are taken then."""
    net = small_net(
        input_of("x", 1, 6) + 'layer { name: "s" type: "Softmax" bottom: "x" top: "y" }'
    )
    drawn = list(comparing._answered(net, convert._run, ["y"], False))
    assert all(feeds["x"].max() <= 1 for feeds, _ in drawn)
    assert len(drawn) == 2
    assert convert.to_onnx(net, tmp_path / "net.onnx")["y"] < 1e-5


@needs_onnxruntime
def test_blobs_that_silence_takes_are_outputs_without_others(tmp_path):
    net = small_net(SMALL + 'layer { name: "s" type: "Silence" bottom: "fc" }')
    assert net.outputs == []
    assert set(convert.to_onnx(net, tmp_path / "net.onnx")) == {"fc"}


@needs_onnxruntime
def test_what_is_not_installed_is_said_and_onnxruntime_compares(
    files, tmp_path, capsys, monkeypatch
):
    for target, hint in (("tensorrt", "run trtexec"), ("openvino", "pip install openvino")):
        monkeypatch.setitem(sys.modules, "openvino", None)
        convert.main(["--for", target, *files[:2], str(tmp_path / "net.onnx")])
        said = capsys.readouterr().err.splitlines()[-1]
        assert "as onnxruntime" in said
        assert f"; not checked in {convert.TARGETS[target].title}: {hint}" in said
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    convert.main([*files[:2], str(tmp_path / "net.onnx")])
    said = capsys.readouterr().err
    assert said.endswith("written, not checked in onnxruntime: pip install onnxruntime\n")
    assert convert.to_onnx(files[2], tmp_path / "net.onnx") is None


def test_without_the_package_onnx(files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(caffe.CaffeError, match=r"pip install 'fusenet\[onnx\]'"):
        convert.to_onnx(files[2], tmp_path / "net.onnx")


# -- state dicts ------------------------------------------------------------------------------


def test_round_trip_through_a_state_dict(files, tmp_path):
    prototxt, weights, _ = files
    convert.main([prototxt, weights, str(tmp_path / "net.pt")])
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert list(state)[:4] == ["block/conv.0", "block/bn.0", "block/bn.1", "block/bn.2"]
    again = tmp_path / "again.caffemodel"
    convert.main([prototxt, str(tmp_path / "net.pt"), str(again)])
    assert again.read_bytes() == Path(weights).read_bytes()


@pytest.mark.parametrize("wrap", ["", "module", "checkpoint"])
def test_pytorchs_module_by_name(wrap, tmp_path):
    torch.manual_seed(0)
    module = Small().eval()
    state = module.state_dict()
    if wrap:
        state = {f"module.{name}": values for name, values in state.items()}
    torch.save(
        {"epoch": 3, "state_dict": state} if wrap == "checkpoint" else state, tmp_path / "m.pth"
    )
    net = small_net()
    assert load_state_dict(net, read_state_dict(tmp_path / "m.pth")) == []
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(net.forward(data=x.numpy())["fc"], expected, rtol=1e-5)


def test_names_of_a_table(tmp_path):
    module = Small().eval()
    state = {name.replace("fc", "head.last"): v for name, v in module.state_dict().items()}
    net = small_net()
    with pytest.raises(caffe.CaffeError, match=r"no weights for these parameters of layers: 'fc'"):
        load_state_dict(net, state)
    (tmp_path / "names").write_text("# torch  caffe\nhead.last fc  # the classifier\n\n")
    names = read_names(tmp_path / "names")
    assert names == {"head.last": "fc"}
    load_state_dict(net, state, names)
    np.testing.assert_array_equal(net.params["fc"][0].data, module.fc.weight.detach().numpy())
    with pytest.raises(caffe.CaffeError, match=r"'head.last': the net has no layer 'fcc'"):
        load_state_dict(net, state, {"head.last": "fcc"})
    (tmp_path / "names").write_text("\none two three\n")
    with pytest.raises(caffe.CaffeError, match=r"names:2: expected a module and a layer"):
        read_names(tmp_path / "names")


def test_partial_state_dicts():
    state = Small().state_dict()
    state["more.weight"] = torch.ones(3)
    del state["fc.bias"]
    net = small_net()
    net.params["fc"][1].data[...] = 7
    before = net.params["fc"][0].data.copy()
    with pytest.raises(caffe.CaffeError, match=r"'fc' \(1\)"):
        load_state_dict(net, state)
    assert (net.params["fc"][0].data == before).all()  # nothing was changed
    assert load_state_dict(net, state, partial=True) == ["more.weight"]
    assert (net.params["fc"][0].data == state["fc.weight"].numpy()).all()
    assert (net.params["fc"][1].data == 7).all()


def test_weights_must_be_the_whole_nets(files, tmp_path, monkeypatch):
    """Caffe's files as well as state dicts: --partial accepts what is missing."""
    prototxt, weights, _ = files
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out.caffemodel"
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    other = small_net(SMALL.replace('"fc"', '"other"').replace('"block/', '"more/'))
    other.save(tmp_path / "other.caffemodel")
    other.save(tmp_path / "some.caffemodel")
    some = pb.NetParameter.FromString(Path(weights).read_bytes())
    del some.layer[-1]
    (tmp_path / "some.caffemodel").write_bytes(some.SerializeToString())
    few = small_net(SMALL.replace("block/", "block_"))
    few.save_hdf5(tmp_path / "other.h5")
    for name, missing in (
        ("empty.caffemodel", r"'block/conv' \(0\), 'block/bn' \(0\), .* and 3 more"),
        ("other.caffemodel", r".*; these names of the file are no layer's parameter: more/conv, "),
        ("other.h5", r"'block/conv' \(0\), .* and 1 more"),
        ("some.caffemodel", r"'fc' \(0\), 'fc' \(1\) \(accepted with --partial\)$"),
    ):
        said = rf"^{name}: no weights for these parameters of layers: {missing}"
        with pytest.raises(caffe.CaffeError, match=said):
            convert.main([prototxt, name, str(out)])
        assert not out.exists()
        convert.main([prototxt, str(tmp_path / name), str(out), "--partial"])
        out.unlink()
    more = pb.NetParameter.FromString(Path(weights).read_bytes())
    more.layer.add(name="auxiliary loss", type="InnerProduct").blobs.add(data=[1])
    (tmp_path / "more.caffemodel").write_bytes(more.SerializeToString())
    convert.main([prototxt, str(tmp_path / "more.caffemodel"), str(out)])  # as Caffe's files have
    assert out.exists()


def test_a_net_without_parameters_takes_any_weights_but_anothers(tmp_path):
    text = SMALL[: SMALL.index('layer { name: "block/conv"')]
    (tmp_path / "net.prototxt").write_text(text)
    small_net(text).save(tmp_path / "own.caffemodel")
    small_net().save(tmp_path / "other.caffemodel")
    arguments = [str(tmp_path / "net.prototxt"), str(tmp_path / "own.caffemodel")]
    convert.main([*arguments, str(tmp_path / "out.caffemodel")])
    arguments[1] = str(tmp_path / "other.caffemodel")
    with pytest.raises(caffe.CaffeError, match="are no layer's parameter: block/conv, "):
        convert.main([*arguments, str(tmp_path / "out.caffemodel")])


def test_named_parameters_are_a_state_dict(tmp_path):
    """Parameters need a gradient, which an array of NumPy's cannot have."""
    module = Small()
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    torch.save(state, tmp_path / "m.pth")
    net = small_net()
    assert load_state_dict(net, read_state_dict(tmp_path / "m.pth")) == []
    np.testing.assert_array_equal(net.params["fc"][0].data, module.fc.weight.detach().numpy())
    load_state_dict(small_net(), state)  # the same without a file


def test_one_modules_own_state_dict(tmp_path):
    """Its keys are weight and bias alone: '.' in the table of names says whose they are."""
    before, after = (SMALL.index(f'layer {{ name: "{name}"') for name in ("block/conv", "fc"))
    net = small_net(SMALL[:before] + SMALL[after:].replace('bottom: "conv"', 'bottom: "data"'))
    linear = torch.nn.Linear(192, 5)
    torch.save(linear.state_dict(), tmp_path / "m.pth")
    state = read_state_dict(tmp_path / "m.pth")
    with pytest.raises(
        caffe.CaffeError, match=r"no layer's parameter: weight, bias; a line '\. LAYER' in --names"
    ):
        load_state_dict(net, state)
    (tmp_path / "names").write_text(". fc\n")
    for form in (state, {f"module.{key}": values for key, values in state.items()}):
        net.params["fc"][0].data[...] = 0
        load_state_dict(net, form, read_names(tmp_path / "names"))
        np.testing.assert_array_equal(net.params["fc"][0].data, linear.weight.detach().numpy())
    inner = {f"module.head.{key}": values for key, values in state.items()}
    for names in ({"head": "fc"}, {"module.head": "fc"}, {".": "fc"}):
        net.params["fc"][0].data[...] = 0
        load_state_dict(net, inner, names)
        np.testing.assert_array_equal(net.params["fc"][0].data, linear.weight.detach().numpy())


@pytest.mark.parametrize("name", ["m.ckpt", "pytorch_model.bin", "best.pth.tar"])
def test_other_endings_of_checkpoints(files, tmp_path, name):
    torch.save({"state_dict": Small().state_dict()}, tmp_path / name)
    convert.main([files[0], str(tmp_path / name), str(tmp_path / "out.caffemodel")])
    assert (tmp_path / "out.caffemodel").exists()


def test_several_prefixes_are_dropped():
    state = {f"model.module.{name}": v for name, v in Small().state_dict().items()}
    assert load_state_dict(small_net(), state) == []


def test_another_shape_is_refused():
    state = Small().state_dict()
    state["fc.weight"] = torch.ones(5, 143)
    with pytest.raises(
        caffe.CaffeError, match=r"fc.weight: shape \(5, 143\), but layer 'fc' has \(5, 144\)"
    ):
        load_state_dict(small_net(), state)


def test_transposed_and_fully_connected_as_convolution():
    text = SMALL.replace("num_output: 5", "num_output: 5 transpose: true")
    module = Small()
    state = module.state_dict()
    net = small_net(text)
    load_state_dict(net, state)
    np.testing.assert_array_equal(net.params["fc"][0].data, state["fc.weight"].numpy().T)
    state["fc.weight"] = state["fc.weight"][:, :, None, None]  # a 1x1 convolution
    net = small_net()
    load_state_dict(net, state)
    np.testing.assert_array_equal(net.params["fc"][0].data, state["fc.weight"].numpy()[:, :, 0, 0])


def test_save_writes_weights_alone(tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"net\.onnx: to_onnx writes ONNX"):
        convert.save(small_net(), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_files_that_hold_no_state_dict(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"nothing of the kind")
    torch.save(Small(), tmp_path / "b.pt")  # a whole module would have to be executed
    for name in ("a.pt", "b.pt"):
        with pytest.raises(caffe.CaffeError, match=f"{name}: no state dict: it "):
            read_state_dict(tmp_path / name)


def test_other_programs_weights_are_answered(files, tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(caffe.CaffeError, match=r"it is a safetensors file; save it by torch\.save"):
        convert.main([files[0], str(tmp_path / "w.safetensors"), str(tmp_path / "out.caffemodel")])


# -- the command ------------------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "caffe.convert", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(files, tmp_path):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    out = tmp_path / "net.onnx"
    result = command(*files[:2], out, "--input", "data=1x3x8x8", "--outputs", "conv,fc")
    assert (result.returncode, result.stdout) == (0, "")
    assert "net.onnx: written" in result.stderr
    assert out.stat().st_size > 1000


@needs_onnxruntime
@pytest.mark.parametrize(("more", "kept"), [((), 0), (("--no-fold",), 1)])
def test_batch_norm_is_folded_unless_told_otherwise(files, tmp_path, more, kept):
    import onnx

    out = tmp_path / "net.onnx"
    convert.main([*files[:2], str(out), *more])
    ops = [node.op_type for node in onnx.load(out).graph.node]
    assert ops.count("BatchNormalization") == kept


@needs_onnxruntime
def test_a_folder_is_converted_and_told_in_a_table(files, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "other.prototxt").write_text(SMALL.replace('"fc"', '"more"'))
    (tmp_path / "bad" / "other.caffemodel").write_bytes(Path(files[1]).read_bytes())
    with pytest.raises(caffe.CaffeError, match=r"^1 of 2 nets were not converted$"):
        convert.main([str(tmp_path)])
    said = capsys.readouterr()
    head, good, bad = said.out.splitlines()
    assert head.split() == ["net", "result", "largest", "difference", "reason"]
    assert good.split()[:2] == [str(tmp_path / "net.prototxt"), "written"]
    assert float(good.split()[2]) < 1e-5
    assert bad.split()[:3] == [str(tmp_path / "bad" / "other.prototxt"), "failed", "-"]
    assert "no weights for these parameters of layers: 'more' (0), 'more' (1)" in bad
    assert (tmp_path / "net.onnx").exists()
    assert not (tmp_path / "bad" / "other.onnx").exists()
    (tmp_path / "list").write_text(f"{files[0]} {files[1]} {tmp_path}/new/net.pt\n")
    convert.main([str(tmp_path / "list")])
    assert (tmp_path / "new" / "net.pt").exists()


def test_crops_are_aligned_on_demand(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFFE_ALIGN_CROPS", "0")
    text = (
        input_of("data", 1, 1, 6, 6)
        + 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        "convolution_param { num_output: 1 kernel_size: 3 pad: 5 } }"
        'layer { name: "crop" type: "Crop" bottom: "c" bottom: "data" top: "y" }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    small_net(text).save(tmp_path / "net.caffemodel")
    for options, expected in (([], []), (["--align-crops"], [4, 4])):
        out = tmp_path / "out.caffemodel"
        paths = [tmp_path / "net.prototxt", tmp_path / "net.caffemodel", out]
        convert.main([*options, *map(str, paths)])
        (crop,) = [
            layer
            for layer in pb.NetParameter.FromString(out.read_bytes()).layer
            if layer.type == "Crop"
        ]
        assert list(crop.crop_param.offset) == expected


def test_a_net_without_weights_or_out_is_bad_usage(files):
    for arguments in (files[:1], files[:2]):
        with pytest.raises(SystemExit, match="2"):
            convert.main(list(arguments))


def test_the_command_says_what_is_wrong_in_one_line(files, tmp_path):
    result = command(*files[:2], tmp_path / "net.txt")
    assert result.returncode == 1
    assert "net.txt: unknown ending; expected one of .onnx" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "cat"], "has no blob 'cat'"),
        (["--input", "cat=1x3"], "the net has no blob 'cat'"),
        (["--input", "data=1x3x2x2"], "layer 'block/conv'"),
    ],
)
def test_bad_input(files, tmp_path, arguments, message):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    with pytest.raises(caffe.CaffeError, match=message):
        convert.main([*files[:2], str(tmp_path / "net.onnx"), *arguments])
    assert not (tmp_path / "net.onnx").exists()


def test_bad_usage(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as info:
        convert.main([*files[:2], "net.onnx", "--input", "data:1x3"])
    assert info.value.code == 2
    assert "expected NAME=SHAPE" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_told(files, tmp_path, capsys):
    prototxt, weights, net = files
    name = next(iter(net.params))
    net.params[name][0].data.flat[0] = np.nan
    net.save(weights)
    convert.main([prototxt, weights, str(tmp_path / "out.pt")])
    assert f"warning: blob 0 of layer {name!r} holds NaN or infinity" in capsys.readouterr().err


def test_layers_of_one_name_are_refused(tmp_path):
    layer = 'layer { name: "a" type: "Scale" bottom: "x" top: "%s" }'
    data = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
    (tmp_path / "net.prototxt").write_text(data + layer % "y" + layer % "z")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.save(tmp_path / "net.caffemodel")
    files = [str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel", "out.pt")]
    with pytest.raises(caffe.CaffeError, match="several layers with weights share the name 'a'"):
        convert.main(files)
