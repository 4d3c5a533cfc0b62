"""docs/layers.md: in step with the classes, and its example runs."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.layers import FAMILIES
from caffe.layers.base import REGISTRY
from caffe.layers.catalogue import OWN_LAYERS, catalogue
from caffe.proto import caffe_pb2 as pb

ROOT = Path(__file__).parents[3]
TYPES = sorted(name for name, c in REGISTRY.items() if c.__module__.split(".")[-1] in FAMILIES)

# What BVLC Caffe's last master registers, and FuseNet's.
EXPECTED = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop
Data Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data
HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN
MemoryData MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape
SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH
Threshold Tile Unpooling WindowData
"""


def test_every_type_is_there():
    assert sorted(EXPECTED.split()) == TYPES


def test_the_page_is_in_step():
    page = (ROOT / "docs" / "layers.md").read_text()
    assert page == catalogue(), "run: python -m caffe.layers.catalogue > docs/layers.md"
    assert [name for name in TYPES if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", TYPES)
def test_a_type_says_what_it_reads(name):
    """What the class's source takes from layer_param is what the page lists."""
    found = set()
    for c in REGISTRY[name].__mro__:
        if c.__module__.startswith("caffe.layers") and not c.__module__.endswith(".base"):
            found |= set(re.findall(r"\b(\w+_param)\b(?=[.)\s,])", inspect.getsource(c)))
    fields = {f.name for f in pb.LayerParameter.DESCRIPTOR.fields} & found
    assert set(REGISTRY[name].reads) <= {f.name for f in pb.LayerParameter.DESCRIPTOR.fields}
    assert fields - {"layer_param"} <= set(REGISTRY[name].reads) | SHARED.get(name, set())


# Fields that a class of the family reads, but not for this type.
SHARED = {"HDF5Data": {"transform_param"}, "MemoryData": {"transform_param"}}


def test_every_parameter_message_belongs_to_some_type():
    messages = {f.name for f in pb.LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param")}
    assert messages == {field for name in TYPES for field in REGISTRY[name].reads}


@pytest.fixture
def own_layer(tmp_path):
    """The page's example as files: shift_layer.py, and a net that uses it."""
    code, text = (
        re.search(rf"```{kind}\n(.*?)```", OWN_LAYERS, re.DOTALL)[1]
        for kind in ("python", "protobuf")
    )
    (tmp_path / "shift_layer.py").write_text(code)
    source = (
        'layer { name: "data" type: "DummyData" top: "data" '
        "dummy_data_param { shape { dim: 2 dim: 3 dim: 4 } } }\n"
    )
    loss = (
        'layer { name: "loss" type: "Reduction" bottom: "shifted" top: "loss" loss_weight: 1 '
        "reduction_param { operation: SUMSQ } }\n"
    )
    (tmp_path / "net.prototxt").write_text(source + text + loss)
    return tmp_path


@pytest.fixture
def forget_shift():
    yield
    REGISTRY.pop("Shift", None)
    sys.modules.pop("shift_layer", None)


@pytest.mark.usefixtures("forget_shift")
def test_the_pages_example_runs(own_layer, monkeypatch):
    monkeypatch.chdir(own_layer)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.forward()
    assert net.blobs["shifted"].data.shape == (2, 3, 4)
    np.testing.assert_array_equal(net.blobs["shifted"].data, 0.5)
    net.backward()
    # d/ds of sum over 2 x 4 places of s^2 = 2 s 8
    assert net.params["shift"][0].diff.tolist() == [8, 8, 8]


@pytest.mark.usefixtures("forget_shift")
@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("filler {", "filer {", "param_str:1:1: .*filer"),
        ('module: "shift_layer"', 'module: "none"', "importing 'none': ModuleNotFoundError"),
        ('module: "shift_layer"', 'module: "json"', "'json' registers no layer type 'Shift'"),
        ('module: "shift_layer"', "", "unknown layer type 'Shift'"),
    ],
)
def test_mistakes_with_own_layers_are_named(own_layer, monkeypatch, old, new, cause):
    monkeypatch.chdir(own_layer)
    path = own_layer / "net.prototxt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(caffe.CaffeError, match=f"layer 'shift'.*{cause}"):
        caffe.Net("net.prototxt", caffe.TRAIN)


def test_the_command_prints_the_page():
    command = [sys.executable, "-m", "caffe.layers.catalogue"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == catalogue()
