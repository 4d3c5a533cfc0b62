"""Python layers: what their classes receive, and what nets do with their results."""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2 as pb

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }'


class EuclideanLoss(caffe.Layer):
    """Half the mean squared distance, as Caffe's example of a Python loss has it."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("two bottoms are needed")

    def reshape(self, bottom, top):
        self.difference = np.zeros(bottom[0].shape, np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff[0] * self.difference / bottom[i].num


class Times(caffe.Layer):
    """Multiplies by param_str; works in place, too."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.factor

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff * self.factor


class Source(caffe.Layer):
    """A data layer of two tops, one more row in each pass."""

    def setup(self, bottom, top):
        # Names that the engine's own layers use: they are free for the user.
        self.name, self.source, self.loss, self.labels, self.tops = "mine", "a", 0.5, [1, 2], None
        self.check = self.bottoms = self.where = self.forget = "mine"
        self.rows = 0

    def reshape(self, bottom, top):
        self.rows += 1
        top[0].reshape(self.rows, 3)
        top[1].reshape(self.rows)

    def forward(self, bottom, top):
        top[0].data[...] = self.rows
        top[1].data[...] = np.arange(self.rows) % 3


class Sized(caffe.Layer):
    """Shapes its top in forward, by what the bottom holds."""

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        rows = np.flatnonzero(bottom[0].data[:, 0] > 0)
        top[0].reshape(len(rows), bottom[0].shape[1])
        top[0].data[...] = bottom[0].data[rows]


class Offset(caffe.Layer):
    """Adds a learned number for each column."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs.add_blob(2, 2)
        self.blobs[0].data[...] = 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += top[0].diff.sum(0)
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff


class Fails(caffe.Layer):
    """Raises KeyError in the method that param_str names."""

    def __init__(self, param):
        super().__init__(param)
        self._fail("init", param.python_param.param_str)

    def _fail(self, where, wanted=None):
        if where == (wanted or self.param_str):
            raise KeyError("the reason")

    def setup(self, bottom, top):
        self._fail("setup")

    def reshape(self, bottom, top):
        self._fail("reshape")
        top[0].reshape(1)

    def forward(self, bottom, top):
        self._fail("forward")

    def backward(self, top, propagate_down, bottom):
        self._fail("backward")


class Empty(caffe.Layer):
    """Defines nothing."""


class Unready:
    """No layer at all."""


@pytest.fixture(autouse=True)
def _module(monkeypatch):
    """The classes of this file as the module `some_layers`."""
    module = types.ModuleType("some_layers")
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, "some_layers", module)


def net(text, phase=caffe.TRAIN):
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), phase)


def python(cls, bottoms="data", tops="top", param_str="", name="py", more=""):
    ends = "".join(f'bottom: "{b}" ' for b in bottoms.split())
    ends += "".join(f'top: "{t}" ' for t in tops.split())
    return (
        f'layer {{ name: "{name}" type: "Python" {ends} {more} '
        f'python_param {{ module: "some_layers" layer: "{cls}" param_str: "{param_str}" }} }}'
    )


def test_loss_equals_the_built_in_one():
    head = (
        'force_backward: true layer { name: "in" type: "Input" top: "a" top: "b" '
        "input_param { shape { dim: 4 dim: 3 } } }"
    )
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 3))
    mine = net(head + python("EuclideanLoss", "a b", "loss", more="loss_weight: 2"))
    loss = mine.forward(a=a, b=b)["loss"]
    np.testing.assert_allclose(loss, [((a - b) ** 2).sum() / 8], rtol=1e-6)
    assert mine.blob_loss_weights["loss"] == 2
    diffs = mine.backward()
    np.testing.assert_allclose(diffs["a"], 2 * (a - b) / 4, rtol=1e-5)
    np.testing.assert_allclose(diffs["b"], -2 * (a - b) / 4, rtol=1e-5)


def test_layers_are_the_users_objects():
    n = net(INPUT + python("Times", param_str="2.5"))
    assert isinstance(n.layers[1], Times)
    assert n.layer_dict["py"] is n.layers[1]
    assert n.layers[1].type == "Python"
    assert (n.layers[1].factor, n.layers[1].phase) == (2.5, caffe.TRAIN)
    assert "Python" in caffe.layer_type_list()


def test_in_place_leaves_the_layer_before_its_values():
    # Sigmoid's gradient needs the values that it made, y (1 - y), not those that came after.
    text = (
        "force_backward: true "
        + INPUT
        + 'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param '
        '{ num_output: 2 weight_filler { type: "gaussian" std: 1 } } } '
        'layer { name: "sig" type: "Sigmoid" bottom: "fc" top: "sig" } '
        + python("Times", "sig", "sig", "10")
        + python("Times", "sig", "end", "3", "end")
    )
    n = net(text)
    x = np.random.default_rng(1).normal(size=(4, 3))
    out = n.forward(data=x)["end"]
    w = n.params["fc"][0].data
    y = 1 / (1 + np.exp(-x @ w.T))
    np.testing.assert_allclose(out, 30 * y, rtol=1e-5)
    n.blobs["end"].diff[...] = 1
    np.testing.assert_allclose(n.backward()["data"], 30 * y * (1 - y) @ w, rtol=1e-4)


def test_on_a_gpu(pretend_gpu):
    """numpy views on the host, tensors on the GPU: what one side writes the other one reads."""
    text = (
        "force_backward: true "
        + INPUT
        + 'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 } } '
        + python("Times", "p", "p", "10")
        + python("Offset", "p", "o", name="offset")
        + 'layer { name: "q" type: "Power" bottom: "o" top: "end" power_param { scale: 3 } }'
    )
    n = net(text)
    assert n.forward(data=np.ones((4, 3)))["end"].tolist() == [[63] * 3] * 4
    n.blobs["end"].diff[...] = 1
    assert n.backward()["data"].tolist() == [[60] * 3] * 4
    assert n.params["offset"][0].diff.tolist() == [12] * 3


def test_source_with_two_tops_of_changing_shape():
    text = python("Source", "", "data label") + (
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 3 } } "
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    n = net(text)
    assert n.layers[0].name == "mine"
    for rows in (2, 3, 4):  # the first reshape is the net's own
        # Weights are 0: every class has a third of the probability.
        assert n.forward()["loss"] == pytest.approx(np.log(3), rel=1e-6)
        assert n.blobs["data"].shape == (rows, 3)
        assert (n.blobs["data"].data == rows).all()
        n.backward()


def test_test_phase_does_not_run_a_source_again():
    text = python("Source", "", "data label") + (
        'layer { name: "quiet" type: "Silence" bottom: "label" } '
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 3 } } "
        'layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }'
    )
    n = net(text, caffe.TEST)
    n.forward()
    n.backward()
    assert n.layers[0].rows == 2
    # d sum(w x) / d w: two rows of twos.
    assert (n.params["ip"][0].diff == 4).all()


def test_top_shaped_in_forward():
    n = net(INPUT + python("Sized") + python("Times", "top", "end", "2", "end"))
    x = np.arange(12).reshape(4, 3) - 5
    assert n.forward(data=x)["end"].tolist() == [[2, 4, 6], [8, 10, 12]]


class Proposals(caffe.Layer):
    """Regions around the highest scores, as Faster R-CNN's Python layers make them.

    It reads what Fast R-CNN's fork hands to layers: param_str_ and the name of the phase.
    """

    counts = {"TRAIN": 3, "TEST": 2}  # noqa: RUF012

    def setup(self, bottom, top):
        self.stride = int(self.param_str_.split(":")[1])
        top[0].reshape(1, 5)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        scores = bottom[0].data[0, 0]
        places = scores.ravel().argsort()[::-1][: self.counts[str(self.phase)]]
        y, x = np.unravel_index(places, scores.shape)
        corners = np.stack([x, y, x + 1, y + 1], 1) * self.stride
        regions = np.hstack([np.zeros((len(places), 1)), corners]).astype(np.float32)
        top[0].reshape(*regions.shape)
        top[0].data[...] = regions

    def backward(self, top, propagate_down, bottom):
        pass


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_python_proposals_are_pooled_and_let_the_features_learn(phase):
    """As in Faster R-CNN: the regions come from what is learned, their number from the phase."""
    made = net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 4 '
        'dim: 5 } } } layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
        "convolution_param { num_output: 2 kernel_size: 1 weight_filler { value: 1 } } }"
        + python("Proposals", "conv", "regions", param_str="'feat_stride': 16")
        + 'layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "regions" top: "pool" '
        "roi_pooling_param { pooled_h: 1 pooled_w: 1 spatial_scale: 0.0625 } }"
        'layer { name: "loss" type: "Reduction" bottom: "pool" top: "loss" loss_weight: 1 }',
        phase,
    )
    made.blobs["data"].data[...] = np.arange(20).reshape(1, 1, 4, 5)
    made.forward()
    count = Proposals.counts["TRAIN" if phase == caffe.TRAIN else "TEST"]
    assert made.blobs["regions"].shape == (count, 5)
    # The regions of 19 and 18, at the border, and of 17 all end in the row of the largest values.
    assert made.blobs["pool"].data[:, 0].ravel().tolist() == [19, 19, 18][:count]
    made.backward()
    assert made.params["conv"][0].diff.ravel().tolist() == [sum([19, 19, 18][:count])] * 2


def test_phase_is_a_number_with_a_name():
    made = net(INPUT + python("Times", param_str="2"), caffe.TEST)
    phase = made.layers[1].phase
    assert phase == caffe.TEST == 1
    assert str(phase) == "TEST"
    assert made.layers[1].param_str_ == made.layers[1].param_str == "2"


def test_parameters_learn_and_are_saved(tmp_path):
    text = (
        INPUT
        + python("Offset", more="param { lr_mult: 2 } param { lr_mult: 0 }")
        + 'layer { name: "sum" type: "Reduction" bottom: "top" top: "sum" loss_weight: 1 }'
    )
    param = pb.SolverParameter(base_lr=0.25, lr_policy="fixed", max_iter=3, display=0)
    text_format.Parse(text, param.net_param)
    solver = caffe.get_solver(param)
    offset = solver.net.params["py"]
    assert [b.shape for b in offset] == [(3,), (2, 2)]
    solver.step(2)
    # The gradient of the sum over 4 rows is 4: 1 - 2 steps x 0.25 x 2 x 4.
    assert offset[0].data.tolist() == [-3, -3, -3]
    path = tmp_path / "weights.caffemodel"
    solver.net.save(path)
    other = net(text)
    assert other.params["py"][0].data.tolist() == [1, 1, 1]
    other.copy_from(path)
    assert other.params["py"][0].data.tolist() == [-3, -3, -3]
    third = net(text)
    third.share_with(other)
    other.params["py"][0].data[...] = 7
    assert third.layers[1].blobs[0].data.tolist() == [7, 7, 7]


@pytest.mark.parametrize("method", ["init", "setup", "reshape"])
def test_exception_while_the_net_is_made(method):
    with pytest.raises(caffe.CaffeError, match=r"layer 'py' \(Python, some_layers.Fails\)") as info:
        net(INPUT + python("Fails", param_str=method))
    text = str(info.value)
    assert "KeyError: 'the reason'" in text
    assert "test_python_layer.py:" in text
    assert "\n" not in text
    assert isinstance(info.value, KeyError)  # what a script for pycaffe would catch
    assert isinstance(info.value.__cause__, KeyError)


def test_exceptions_in_the_passes_leave_the_net_usable():
    n = net("force_backward: true " + INPUT + python("Fails", param_str="forward"))
    for _ in range(2):
        with pytest.raises(KeyError, match=r"layer 'py'.*forward: KeyError"):
            n.forward()
    n.layers[1].param_str = "backward"
    n.forward()
    with pytest.raises(RuntimeError, match=r"layer 'py'.*backward: KeyError"):
        n.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("some_layers", "no_such_module"), "no module 'no_such_module' on sys.path"),
        (('layer: "Times"', 'layer: "Tims"'), "module 'some_layers' has no class 'Tims'"),
        (('layer: "Times"', 'layer: "Unready"'), "no class derived from caffe.Layer"),
        (('layer: "Times"', 'layer: "Empty"'), "does not define reshape"),
        (('module: "some_layers"', ""), "python_param must give module and layer"),
        (('param_str: "2"', 'param_str: "two"'), "ValueError: could not convert string to float"),
    ],
)
def test_wrong_layer(change, message):
    text = (INPUT + python("Times", param_str="2")).replace(*change)
    with pytest.raises(caffe.CaffeError, match=r"layer 'py'.*" + message):
        net(text)


@pytest.mark.parametrize(
    "module",
    ["gone", "gone.deep", "parcel.gone", "parcel.gone.deep", "some_layers.gone", ".gone", "a..b"],
)
def test_a_missing_module_is_named_with_its_layer(tmp_path, monkeypatch, module):
    """Whichever part of a dotted name does not exist."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").write_text("")
    text = (INPUT + python("Times")).replace('"some_layers"', f'"{module}"')
    with pytest.raises(
        caffe.CaffeError, match=rf"^layer 'py' \(Python\): no module '{re.escape(module)}' on sys"
    ):
        net(text)


def test_a_module_that_a_package_needs_is_not_taken_for_the_packages_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "__init__.py").write_text("")
    (tmp_path / "bundle" / "inner.py").write_text("import bundle.further\n")
    text = (INPUT + python("Times")).replace('"some_layers"', '"bundle.inner"')
    said = r"importing module bundle\.inner: .*'bundle\.further'"
    with pytest.raises(caffe.CaffeError, match=said):
        net(text)


def test_module_that_fails_to_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_layers.py").write_text("import no_such_thing\n")
    text = (INPUT + python("Times")).replace("some_layers", "broken_layers")
    with pytest.raises(caffe.CaffeError, match=r"layer 'py'.*No module named 'no_such_thing'"):
        net(text)


def test_module_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "layers_here.py").write_text(
        "import caffe\n"
        "class One(caffe.Layer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(1)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # as a console script has it
    text = python("One", "").replace("some_layers", "layers_here")
    assert net(text).forward()["top"] == 1
