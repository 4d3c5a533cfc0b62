"""Shape rules: against every recorded layer of the reference, and against known networks."""

from __future__ import annotations

import itertools
from pathlib import Path

import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import Datum, NetParameter
from netgen.shapes import RULES, UnknownShape, show, size_net
from netgen.summary import activation_bytes, parameters, summary

CASES = sorted((Path(__file__).parents[1] / "golden" / "layers").glob("*.npz"))
# Whose shape depends on the values of their bottoms.
DATA_DEPENDENT = {"filter"}


def net(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def size(text: str, phase: int = TEST, **inputs: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes by blob of a net whose only input is x."""
    source = 'layer { name: "x" type: "Input" top: "x" }'
    layers = size_net(net(source + text), phase, inputs)
    return {name: s for item in layers for name, s in zip(item.layer.top, item.tops, strict=True)}


@pytest.mark.parametrize("case", [c for c in CASES if c.stem not in DATA_DEPENDENT], ids=str)
def test_recorded_layers(case: Path) -> None:
    data = np.load(case)
    param = net(str(data["prototxt"]))
    layers = size_net(param, TRAIN if str(data["phase"]) == "TRAIN" else TEST)
    blobs = {name: s for item in layers for name, s in zip(item.layer.top, item.tops, strict=True)}
    params = {item.layer.name: item.params for item in layers}
    for key in data.files:
        kind, _, name = key.partition("/")
        if kind in ("in", "out"):
            assert blobs[name] == data[key].shape, key
        elif kind == "param":
            layer, index = name.rsplit("/", 1)
            assert params[layer][int(index)] == data[key].shape, key


def test_shape_that_depends_on_values_is_an_error() -> None:
    data = np.load(next(c for c in CASES if c.stem == "filter"))
    with pytest.raises(CaffeError, match=r"layer \w+ \(Filter\): there is no rule"):
        size_net(net(str(data["prototxt"])), TEST)


def test_pooling_rounds_up_and_drops_windows_in_the_padding() -> None:
    pooled = """layer { name: "p" type: "Pooling" bottom: "x" top: "p"
                pooling_param { kernel_size: 2 stride: 2 %s } }"""
    assert size(pooled % "", x=(1, 3, 7, 9))["p"] == (1, 3, 4, 5)
    assert size(pooled % "round_mode: FLOOR", x=(1, 3, 7, 9))["p"] == (1, 3, 3, 4)
    # (6 + 2 - 2) / 2 + 1 = 4 windows start at -1, 1, 3, 5: all reach the input.
    assert size(pooled % "pad: 1", x=(1, 3, 6, 6))["p"] == (1, 3, 4, 4)
    # ceil((5 + 2 - 2) / 2) + 1 = 4 windows, but the last would start at 5, past the input.
    assert size(pooled % "pad: 1", x=(1, 3, 5, 5))["p"] == (1, 3, 3, 3)


def test_multiply_adds() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 5 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
            convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
    layer { name: "deconv" type: "Deconvolution" bottom: "conv" top: "deconv"
            convolution_param { num_output: 8 kernel_size: 2 stride: 2 bias_term: false } }
    layer { name: "relu" type: "ReLU" bottom: "deconv" top: "deconv" }
    layer { name: "ip" type: "InnerProduct" bottom: "deconv" top: "ip"
            inner_product_param { num_output: 10 } }
    """
    layers = size_net(net(text), TEST)
    macs = {item.layer.name: item.macs for item in layers}
    assert macs["conv"] == 2 * (3 * 4) * 6 * (4 // 2) * 9
    assert macs["deconv"] == 2 * (3 * 4) * 6 * 8 * 4
    assert macs["ip"] == 2 * (8 * 6 * 8) * 10
    assert parameters(layers) == (6 * 2 * 9 + 6) + 6 * 8 * 4 + (384 * 10 + 10)
    # The ReLU is in place; four bytes a value.
    values = 2 * 4 * 5 * 6 + 2 * 6 * 3 * 4 + 2 * 8 * 6 * 8 + 2 * 10
    assert activation_bytes(layers) == 4 * values
    assert "in place" in summary(net(text), TEST, layers)


def test_shared_parameters_count_once() -> None:
    layer = """layer { name: "%s" type: "InnerProduct" bottom: "x" top: "%s"
               param { name: "w" } param { name: "b" } inner_product_param { num_output: 3 } }"""
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }'
    layers = size_net(net(text + layer % ("a", "a") + layer % ("b", "b")), TEST)
    assert parameters(layers) == 4 * 3 + 3


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            'name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "e"',
            r"layer e \(Eltwise\): bottom y is 1x3x8x7, bottom x 1x3x8x8",
        ),
        (
            'name: "c" type: "Concat" bottom: "x" bottom: "y" top: "c"',
            r"layer c \(Concat\): bottom y is 1x3x8x7, .* axis 1 alone",
        ),
        (
            'name: "c" type: "Convolution" bottom: "x" top: "c" '
            "convolution_param { num_output: 4 kernel_size: 9 }",
            r"layer c \(Convolution\): 1x3x8x8 leave a top without any values",
        ),
        (
            'name: "c" type: "Convolution" bottom: "x" top: "c" '
            "convolution_param { num_output: 4 kernel_size: 3 group: 2 }",
            r"layer c \(Convolution\): 3 inputs and 4 outputs are no multiples of 2",
        ),
        (
            'name: "s" type: "Slice" bottom: "x" top: "a" top: "b"',
            r"layer s \(Slice\): 3 on axis 1 cannot be cut evenly into 2 tops",
        ),
        (
            'name: "u" type: "Unpooling" bottom: "x" bottom: "y" top: "u" '
            "unpooling_param { scale: 2 }",
            r"layer u \(Unpooling\): bottom 1x3x8x8 and mask 1x3x8x7 are not of one shape",
        ),
        ('name: "n" type: "ReLU" bottom: "nothing" top: "n"', "layer n: no layer before it makes"),
        ('name: "m" type: "Mystery" bottom: "x" top: "m"', "there is no rule for the shapes"),
    ],
)
def test_misfits_name_the_layer(layer: str, message: str) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 7 } } }
    """
    with pytest.raises(CaffeError, match=message):
        size_net(net(f"{text} layer {{ {layer} }}"), TEST)


@pytest.mark.parametrize("kind", [*RULES, "Mystery"])
def test_odd_bottoms_and_tops_meet_an_error_with_the_layers_name(kind: str) -> None:
    for shape, bottoms, tops in itertools.product(
        [(), (2,), (2, 3), (2, 3, 8, 9)], range(3), range(3)
    ):
        param = NetParameter()
        for i in range(bottoms):
            layer = param.layer.add(name=f"x{i}", type="Input", top=[f"x{i}"])
            layer.input_param.shape.add(dim=shape)
        param.layer.add(
            name="odd",
            type=kind,
            bottom=[f"x{i}" for i in range(bottoms)],
            top=[f"t{i}" for i in range(tops)],
        )
        message = "layer odd ("
        try:
            size_net(param, TEST)
        except CaffeError as error:
            message = str(error)
        assert message.startswith("layer odd (")


def test_a_layer_without_a_rule_can_be_told() -> None:
    text = 'layer { name: "m" type: "Mystery" bottom: "x" top: "m" }'
    assert size(text, x=(1, 2), m=(4, 5))["m"] == (4, 5)
    with pytest.raises(CaffeError, match="z is not an input of the net"):
        size(text, x=(1, 2), m=(4, 5), z=(1,))


DATA = """layer { name: "d" type: "Data" top: "d" top: "l"
          data_param { source: "%s" batch_size: 4 backend: LMDB } %s }"""


def test_data_are_measured_by_their_first_record(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=2**20) as env, env.begin(write=True) as transaction:
        datum = Datum(channels=5, height=6, width=7, data=bytes(5 * 6 * 7))
        transaction.put(b"0", datum.SerializeToString())
    found = size_net(net(DATA % (tmp_path, "")), TRAIN)[0].tops
    assert found == [(4, 5, 6, 7), (4,)]
    found = size_net(net(DATA % (tmp_path, "transform_param { crop_size: 3 }")), TRAIN)[0].tops
    assert found == [(4, 5, 3, 3), (4,)]
    crop = "transform_param { augmentation_param { crop_h: 9 crop_w: 2 } } include { phase: TRAIN }"
    assert size_net(net(DATA % (tmp_path, crop)), TRAIN)[0].tops == [(4, 5, 9, 2), (4,)]


def test_data_that_are_missing_must_be_told(tmp_path: Path) -> None:
    text = net(DATA % (tmp_path / "none", ""))
    with pytest.raises(UnknownShape, match=r"LMDB .*none does not exist; give the shape of d"):
        size_net(text, TRAIN)
    assert size_net(text, TRAIN, {"": (2, 5, 8, 8)})[0].tops == [(2, 5, 8, 8), (2,)]


def test_stages_and_levels_choose_layers() -> None:
    text = """
    state { level: 1 stage: "a" }
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } }
            include { stage: "a" min_level: 1 } }
    layer { name: "out" type: "Input" top: "x" exclude { stage: "a" } }
    layer { name: "high" type: "Input" top: "x" include { min_level: 2 } }
    layer { name: "train" type: "Input" top: "x" include { phase: TRAIN not_stage: "a" } }
    """
    assert [item.layer.name for item in size_net(net(text), TRAIN)] == ["in"]


def test_show() -> None:
    assert show((1, 3, 240, 320)) == "1x3x240x320"
    assert show(()) == "1"
