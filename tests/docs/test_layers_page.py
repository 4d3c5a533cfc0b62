"""The pages that docs/make.py makes: in step with the classes, and their example runs."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.formats.prototext import parse
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("docs_make", ROOT / "docs" / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


@pytest.mark.parametrize("path", make.pages(), ids=lambda path: path.name)
def test_pages_are_in_step(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == make.pages()[path], "run: python docs/make.py"


def test_every_type_has_a_row() -> None:
    page = make.layers_page()
    for name, c in REGISTRY.items():
        if c.__module__.startswith("caffe.layers"):
            assert f"| `{name}` |" in page


def test_examples_are_read_by_the_schema() -> None:
    for name, row in make.TABLE.items():
        param = parse(f'type: "{name}" {row.example}'.encode(), pb.LayerParameter, name)
        given = {field.name for field, _ in param.ListFields()} - {"type", "top"}
        assert given <= set(REGISTRY[name].reads), name


@pytest.fixture
def own_layer(tmp_path):
    """The page's example as files: shift_layer.py, and a net that uses it."""
    code, text = (
        re.search(rf"```{kind}\n(.*?)```", make.OWN_LAYERS, re.DOTALL)[1]
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
