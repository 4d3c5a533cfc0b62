"""Precision, recomputation and determinism: what is asked for, and what stays float32."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.commands import cli
from caffe.process import execution
from caffe.proto import caffe_pb2 as pb

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 12 dim: 16 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 12 dim: 16 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
  num_output: 16 pad: 1 kernel_size: 3 bias_term: false weight_filler { type: "msra" } } }
layer { name: "n" type: "BatchNorm" bottom: "y" top: "y" }
layer { name: "s" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "y" top: "y" }
layer { name: "p" type: "Pooling" bottom: "y" top: "p" top: "k"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "d" type: "Convolution" bottom: "p" top: "q" convolution_param {
  num_output: 16 pad: 1 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "u" type: "Unpooling" bottom: "q" bottom: "k" top: "u" unpooling_param { scale: 2 } }
layer { name: "score" type: "Deconvolution" bottom: "u" top: "score" convolution_param {
  num_output: 3 pad: 1 kernel_size: 3 weight_filler { type: "msra" } } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "t" top: "loss" }
"""
# The same without pooling, which may take another of two values that bfloat16 makes equal.
FLAT = re.sub(r'layer { name: "[pu]".*\n(?!layer).*\n|layer { name: "u".*\n', "", NET)
FLAT = FLAT.replace('bottom: "p"', 'bottom: "y"').replace('bottom: "u"', 'bottom: "q"')
SCENE = (4, 3, 12, 16)


@pytest.fixture
def bf16() -> None:
    caffe.set_precision("bf16")


def show(net: caffe.Net) -> None:
    """Give the net something to learn: where the image is bright, and where brighter still."""
    rng = np.random.default_rng(3)
    field = np.cumsum(np.cumsum(rng.normal(size=SCENE), axis=2), axis=3)
    net.blobs["x"].data[...] = field / field.std()
    if "t" in net.blobs:
        total = net.blobs["x"].data.sum(1)
        net.blobs["t"].data[...] = np.digitize(total, np.quantile(total, [0.33, 0.67]))


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_an_unknown_precision() -> None:
    with pytest.raises(caffe.CaffeError, match="'fp16' is unknown; expected one of fp32, tf32, bf"):
        caffe.set_precision("fp16")
    assert execution.precision() == "fp32"


def test_settings_go_to_other_processes_as_one() -> None:
    caffe.set_precision("bf16")
    caffe.set_recompute(True)
    caffe.set_deterministic(True)
    asked = execution.settings()
    assert asked == execution.Settings("bf16", recompute=True, deterministic=True)
    execution.take(execution.Settings())
    assert not torch.are_deterministic_algorithms_enabled()
    execution.take(asked)
    assert execution.settings() == asked
    assert execution.recompute()
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("observed", [True, False])
def test_bf16_is_near_and_what_users_see_is_float32(observed: bool, pair, bf16) -> None:
    caffe.set_precision("fp32")
    exact, net = pair(FLAT + LOSS)
    net.observed = observed
    for each in (exact, net):
        show(each)
    exact.forward()
    exact.backward()
    caffe.set_precision("bf16")
    out = net.forward()["loss"]
    net.backward()
    assert out.dtype == np.float32
    # A loss summed in bfloat16 would have eight bits only.
    assert abs(out - exact.blobs["loss"].data) < 0.01 * abs(out)
    assert float(torch.tensor(float(out)).bfloat16()) != float(out)
    for name, blobs in exact.params.items():
        for a, b in zip(blobs, net.params[name], strict=True):
            assert (b.data.dtype, b.diff.dtype) == (np.float32, np.float32)
            assert b.tensor().dtype == b.diff_tensor().dtype == torch.float32
            if name == "n":
                assert relative(b.data, a.data) < 0.01
            elif np.abs(a.diff).max() > 1e-4:
                assert relative(b.diff, a.diff) < 0.1, name
                assert np.array_equal(a.data, b.data)


@pytest.mark.parametrize(("fast", "said"), [(True, 0), (False, 1)])
def test_a_processor_without_bf16_is_said_once(
    fast: bool, said: int, pair, bf16, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    execution.warn_of_slow_bfloat16.cache_clear()
    for net in pair(FLAT):
        net.forward()
        net.forward()
    assert capfd.readouterr().err.count("this processor has no instructions for it") == said


def test_bf16_in_deploy(pair) -> None:
    exact, net = pair(FLAT, caffe.TEST)
    for each in (exact, net):
        show(each)
        mean, variance, factor = each.params["n"]
        mean.data[...], variance.data[...], factor.data[...] = 0.1, 2, 1
    reference = exact.forward()["score"].copy()
    caffe.set_precision("bf16")
    rough = net.forward()["score"]
    assert rough.dtype == np.float32
    assert 1e-4 < relative(rough, reference) < 0.03
    assert 1e-4 < relative(exact.forward()["score"], reference) < 0.03


def test_bf16_multiplies_what_has_no_rewrite_too(pair) -> None:
    """Inner products, and convolutions over another number of axes."""
    for text in (
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 40 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
          num_output: 6 weight_filler { type: "xavier" } } }""",
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 9 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
          num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }""",
    ):
        caffe.set_precision("fp32")
        observed, planned = pair(text, caffe.TEST)
        exact = observed.forward()["y"].copy()
        caffe.set_precision("bf16")
        for net in (observed, planned):
            assert 1e-4 < relative(net.forward()["y"], exact) < 0.02


def test_a_mask_keeps_its_places_in_bf16(pair, bf16) -> None:
    """bfloat16 would round places beyond 256. Each place is that of its window's maximum."""
    text = """
    layer { name: "x" type: "Input" top: "x"
      input_param { shape { dim: 2 dim: 3 dim: 40 dim: 50 } } }
    layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "k"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    """
    observed, planned = pair(text, caffe.TEST)
    expected = observed.forward()["k"]
    assert expected.max() > 256
    assert np.array_equal(planned.forward()["k"], expected)


@pytest.mark.parametrize("method", ["AVE", "MAX"])
def test_wide_images_are_pooled_alike_in_bf16(method: str, pair) -> None:
    """Windows far to the right, whose places bfloat16 could not count."""
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 dim: 4
      dim: 1201 }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{ num_output: 3
      kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
    layer {{ name: "p" type: "Pooling" bottom: "y" top: "z"
      pooling_param {{ pool: {method} kernel_size: 3 stride: 2 pad: 1 }} }}
    """
    observed, planned = pair(text, caffe.TEST)
    exact = observed.forward()["z"].copy()
    caffe.set_precision("bf16")
    assert relative(planned.forward()["z"], exact) < 0.01


def test_a_loss_of_bf16_values_is_summed_in_float32(pair, bf16) -> None:
    """A loss weight on a ReLU: 1200 ones and some. bfloat16 would give 1200 or 1208."""
    text = """
    layer { name: "x" type: "Input" top: "x"
      input_param { shape { dim: 1 dim: 1 dim: 1 dim: 1203 } } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 1
      kernel_size: 1 weight_filler { type: "constant" value: 1 } } }
    layer { name: "r" type: "ReLU" bottom: "y" top: "y" loss_weight: 1 }
    """
    for net in pair(text):
        net.blobs["x"].data[...] = 1
        assert net._forward(0, len(net.layers) - 1) == 1203


def solver(net: str, observed: bool) -> caffe.SGDSolver:
    param = pb.SolverParameter(base_lr=0.1, momentum=0.9, lr_policy="fixed", random_seed=1)
    text_format.Parse(net, param.net_param)
    made = caffe.get_solver(param)
    made.net.observed = observed
    show(made.net)
    return made


def train(precision: str, observed: bool) -> tuple[list[float], caffe.SGDSolver]:
    caffe.set_precision(precision)
    made = solver(NET + LOSS, observed)
    losses = []
    for _ in range(30):
        made.step(1)
        losses.append(float(made.net.blobs["loss"].data))
    return losses, made


def test_bf16_learns_as_fp32_does() -> None:
    """By the plan and layer by layer."""
    exact, _ = train("fp32", observed=False)
    assert exact[-1] < 0.6 * exact[0]
    for observed in (False, True):
        losses, made = train("bf16", observed)
        np.testing.assert_allclose(losses[0], exact[0], rtol=0.01)
        np.testing.assert_allclose(np.mean(losses[-5:]), np.mean(exact[-5:]), rtol=0.15)
        assert {h.tensor().dtype for h in made._history} == {torch.float32}
        weights = made.net.params["c"][0].data
        rounded = torch.from_numpy(weights.copy()).bfloat16().float().numpy()
        assert (weights != rounded).mean() > 0.9  # masters, not bfloat16 numbers


def test_tf32_is_fp32_on_the_cpu(pair) -> None:
    net = pair(NET, caffe.TEST)[1]
    show(net)
    exact = net.forward()["score"].copy()
    caffe.set_precision("tf32")
    assert np.array_equal(net.forward()["score"], exact)


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net and a solver that make their own data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    dummy = """
    layer { name: "data" type: "DummyData" top: "x" top: "t" dummy_data_param {
      shape { dim: 4 dim: 3 dim: 12 dim: 16 } shape { dim: 4 dim: 12 dim: 16 }
      data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
    """
    body = (NET + LOSS)[(NET + LOSS).index('layer { name: "c"') :]
    Path("net.prototxt").write_text(dummy + body)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 display: 1'
        ' snapshot_prefix: "out" random_seed: 1'
    )
    return tmp_path


@pytest.fixture
def say(folder: Path, capfd: pytest.CaptureFixture) -> Callable[[str], tuple[int, list[str]]]:
    """say(line): exit status, and stderr's lines without the log's prefixes."""

    def run(line: str) -> tuple[int, list[str]]:
        capfd.readouterr()
        status = cli.main(line.split())
        lines = capfd.readouterr().err.splitlines()
        return status, [re.sub(r"^[IWE]\d{4} .*?\] ", "", line) for line in lines]

    return run


@pytest.mark.parametrize("command", ["train -solver solver.prototxt", "time -model net.prototxt"])
def test_usage(say, command: str) -> None:
    status, lines = say(f"{command} -precision fp16")
    assert status == 2
    assert any("-precision fp16: expected one of fp32, tf32, bf16" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_processes_compute_as_asked(say) -> None:
    """The first loss of a seed tells by which arithmetic it came about."""

    def first_loss(flags: str) -> float:
        status, lines = say(f"train -solver solver.prototxt {flags}")
        assert status == 0, lines
        assert not any("Warning" in line for line in lines)
        return float(next(line for line in lines if line.startswith("Iteration 0")).split()[-1])

    asked = "-precision bf16 -recompute -deterministic"
    exact, rough = first_loss("-precision fp32"), first_loss(asked)
    assert 0 < abs(exact - rough) < 0.02 * exact
    assert first_loss(f"{asked} -cpu 2") == rough


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_time_of_the_plan(say, phase: str, precision: str) -> None:
    line = f"time -model net.prototxt -plan -iterations 2 -phase {phase} -precision {precision}"
    status, lines = say(line)
    assert status == 0
    start = lines.index("Average time per layer: ") + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("Average Forward pass"))
    cast = "score:float32 " if precision == "bf16" else ""
    names = "data c n+s+r" if phase == "TRAIN" else "data c+n+s+r"
    names += f" p d u score {cast}loss"
    pattern = re.compile(r" *(\S+)\t(forward|backward): (\S+) ms\.")
    found = [pattern.fullmatch(line) for line in lines[start:end]]
    assert [m and m.group(1, 2) for m in found] == [
        (name, way) for name in names.split() for way in ("forward", "backward")
    ]
    back = [float(m[3]) for m in found if m and m[2] == "backward"]
    assert any(back) == (phase == "TRAIN")
    assert lines[end + 1].startswith("Average Backward pass: ")


def test_time_of_no_plan(say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python layer works on blobs: one line says what that means."""
    Path("doubles.py").write_text(
        "import caffe\n\n\nclass Same(caffe.Layer):\n"
        "    def setup(self, bottom, top): ...\n\n"
        "    def reshape(self, bottom, top):\n        top[0].reshape(*bottom[0].shape)\n\n"
        "    def forward(self, bottom, top):\n        top[0].data[...] = bottom[0].data\n\n"
        "    def backward(self, top, propagate_down, bottom): ...\n"
    )
    monkeypatch.syspath_prepend(".")
    text = Path("net.prototxt").read_text() + (
        'layer { name: "py" type: "Python" bottom: "score" top: "z"'
        ' python_param { module: "doubles" layer: "Same" } }'
    )
    Path("net.prototxt").write_text(text)
    status, lines = say("time -model net.prototxt -plan -iterations 1")
    assert status == 1
    (error,) = [line for line in lines if "-plan" in line]
    assert "net.prototxt" in error
    assert "layer by layer" in error
    assert "Performing Forward" not in lines
    assert not any("Traceback" in line for line in lines)
    assert say("time -model net.prototxt -iterations 1")[0] == 0
