"""Sketches: every recorded layer of the reference, legal and illegal nets, unknown layers, data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.graph.sketch import LayerSketch, UnknownShape, sketch
from caffe.layers import REGISTRY
from caffe.proto.caffe_pb2 import Datum, NetParameter

CASES = sorted((Path(__file__).parents[2] / "golden" / "layers").glob("*.npz"))
BUILT_IN = sorted(name for name, c in REGISTRY.items() if c.__module__.startswith("caffe.layers."))
# The shapes of its tops depend on the values of its bottoms.
DATA_DEPENDENT = {"filter"}


def net(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def shapes(layers: list[LayerSketch]) -> dict[str, tuple[int, ...] | None]:
    """The shapes by blob."""
    return {name: s for item in layers for name, s in zip(item.layer.top, item.tops, strict=True)}


def size(text: str, phase: int = TEST, **inputs: tuple[int, ...]) -> dict[str, object]:
    """The shapes by blob of a net with an input x, whose shape is told."""
    source = 'layer { name: "x" type: "Input" top: "x" }'
    return shapes(sketch(net(source + text), phase, inputs))


def with_inputs(layer: str, *bottoms: tuple[int, ...]) -> NetParameter:
    """A net of a layer behind inputs x0, x1, ... of these shapes."""
    param = NetParameter()
    for i, dims in enumerate(bottoms):
        made = param.layer.add(name=f"x{i}", type="Input", top=[f"x{i}"])
        made.input_param.shape.add(dim=dims)
    param.MergeFrom(net(f"layer {{ {layer} }}"))
    return param


@pytest.mark.parametrize("case", [c for c in CASES if c.stem not in DATA_DEPENDENT], ids=str)
def test_recorded_layers(case: Path) -> None:
    data = np.load(case)
    param = net(str(data["prototxt"]))
    layers = sketch(param, TRAIN if str(data["phase"]) == "TRAIN" else TEST)
    blobs = shapes(layers)
    params = {item.layer.name: item.params for item in layers}
    for key in data.files:
        kind, _, name = key.partition("/")
        if kind in ("in", "out"):
            assert blobs[name] == data[key].shape, key
        elif kind == "param":
            layer, index = name.rsplit("/", 1)
            assert params[layer][int(index)] == data[key].shape, key


def test_a_filter_is_sketched_as_if_all_passed() -> None:
    data = np.load(next(c for c in CASES if c.stem == "filter"))
    param = net(str(data["prototxt"]))
    blobs = shapes(sketch(param, TEST))
    for bottom, top in zip(param.layer[-1].bottom, param.layer[-1].top, strict=False):
        assert blobs[top] == blobs[bottom]


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
    layers = sketch(net(text), TEST)
    macs = {item.layer.name: item.macs for item in layers}
    assert macs["conv"] == 2 * (3 * 4) * 6 * (4 // 2) * 9
    assert macs["deconv"] == 2 * (3 * 4) * 6 * 8 * 4
    assert macs["ip"] == 2 * (8 * 6 * 8) * 10
    assert macs["x"] == macs["relu"] == 0


def test_recurrent_multiply_adds() -> None:
    # 5 steps of 2 sequences of 3 values, 4 units with 4 gates each.
    lstm = 'name: "l" type: "LSTM" bottom: "x0" bottom: "x1" top: "l" recurrent_param { %s }'
    found = sketch(with_inputs(lstm % "num_output: 4", (5, 2, 3), (5, 2)), TEST)[-1]
    assert found.macs == 5 * 2 * (16 * 3 + 16 * 4)
    assert found.params == [(16, 3), (16,), (16, 4)]


def test_tops_in_memory_of_their_own() -> None:
    text = """
    layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "flat" type: "Flatten" bottom: "x" top: "flat" }
    layer { name: "split" type: "Split" bottom: "x" top: "s" top: "t" }
    layer { name: "power" type: "Power" bottom: "x" top: "p" }
    """
    source = 'layer { name: "x" type: "Input" top: "x" }'
    layers = sketch(net(source + text), TEST, {"x": (2, 3, 4)})
    own = {item.layer.name: item.own_tops for item in layers}
    one = [(2, 3, 4)]
    assert own == {"x": one, "relu": [], "flat": [], "split": [], "power": one}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            'type: "Eltwise" bottom: "x0" bottom: "x1"',
            r"bottom 1 has the shape \(1, 3, 8, 7\), bottom 0 \(1, 3, 8, 8\)",
        ),
        (
            'type: "Concat" bottom: "x0" bottom: "x1"',
            r"bottom 1 has the shape \(1, 3, 8, 7\); all but axis 1 must be",
        ),
        (
            'type: "Convolution" bottom: "x0" convolution_param { num_output: 4 kernel_size: 9 }',
            r"bottom \(1, 3, 8, 8\) is too small for kernel \(9, 9\)",
        ),
        (
            'type: "Convolution" bottom: "x0" '
            "convolution_param { num_output: 4 kernel_size: 3 group: 2 }",
            "group 2 does not divide the 3 input channels and the 4 outputs",
        ),
        ('type: "Slice" bottom: "x0" top: "b"', "axis 1 of 3 cannot be cut into 2 equal parts"),
        (
            'type: "Unpooling" bottom: "x0" bottom: "x1" unpooling_param { scale: 2 }',
            r"the mask's shape \(1, 3, 8, 7\) must be the bottom's, \(1, 3, 8, 8\)",
        ),
    ],
)
def test_misfits_name_the_layer(layer: str, message: str) -> None:
    param = with_inputs(f'name: "odd" top: "odd" {layer}', (1, 3, 8, 8), (1, 3, 8, 7))
    with pytest.raises(CaffeError, match=rf"layer 'odd' \(\w+\): {message}"):
        sketch(param, TEST)


def test_a_missing_bottom_names_the_layer() -> None:
    param = with_inputs('name: "n" type: "ReLU" bottom: "nothing" top: "n"')
    with pytest.raises(CaffeError, match=r"layer 'n': unknown bottom blob 'nothing' \(bottom 0\)"):
        sketch(param, TEST)


@pytest.mark.parametrize(
    "layer", ['bottom: "x0" top: "x1"', 'bottom: "x0" bottom: "x1" top: "x1"', 'top: "t" top: "t"']
)
def test_a_blob_has_one_maker(layer: str) -> None:
    param = with_inputs(f'name: "n" type: "Mystery" {layer}', (1, 2), (1, 2))
    with pytest.raises(CaffeError, match=r"layer 'n': top blob '(x1|t)' is made by several"):
        sketch(param, TEST)


KERNEL_11 = "convolution_param { %s kernel_size: 11 stride: 4 }"


@pytest.mark.parametrize(
    ("layer", "bottoms", "tops"),
    [
        # (9 - 11) / 4 and (10 - 11) / 4 are 0 in C, so there is 0 + 1 window in each direction.
        (
            f'type: "Convolution" top: "t0" {KERNEL_11 % "num_output: 5"}',
            [(2, 3, 9, 10)],
            [(2, 5, 1, 1)],
        ),
        (
            f'type: "Im2col" top: "t0" {KERNEL_11 % ""}',
            [(2, 3, 9, 10)],
            [(2, 3 * 11 * 11, 1, 1)],
        ),
        (
            'type: "Slice" top: "t0" top: "t1" slice_param { slice_point: 3 }',
            [(2, 3, 4, 5)],
            [(2, 3, 4, 5), (2, 0, 4, 5)],
        ),
        ('type: "MVN" top: "t0"', [(2, 3)], [(2, 3, 1, 1)]),
        (
            'type: "SPP" top: "t0" spp_param { pyramid_height: 1 }',
            [(2, 3, 8, 9)],
            [(2, 3, 1, 1)],
        ),
        (
            'type: "Crop" top: "t0" crop_param { axis: 2 }',
            [(2, 3, 8, 9), (1, 1, 4, 5, 6)],
            [(2, 3, 4, 5)],
        ),
    ],
    ids=["Convolution", "Im2col", "Slice", "MVN", "SPP", "Crop"],
)
def test_legal_layers_that_are_odd(layer: str, bottoms: list, tops: list) -> None:
    names = " ".join(f'bottom: "x{i}"' for i in range(len(bottoms)))
    param = with_inputs(f'name: "l" {names} {layer}', *bottoms)
    assert sketch(param, TEST)[-1].tops == tops
    built = caffe.Net(param, TEST)
    assert [built.blobs[f"t{i}"].shape for i in range(len(tops))] == tops


@pytest.mark.parametrize(
    ("layer", "bottoms", "message"),
    [
        (
            'type: "Crop" top: "t" crop_param { axis: 2 offset: 6 }',
            [(2, 3, 8, 9), (2, 3, 4, 5)],
            "axis 2: 4 from 6 on exceed the 8 of bottom 0",
        ),
        (
            'type: "LRN" top: "t" lrn_param { local_size: 4 }',
            [(2, 3, 8, 9)],
            "local_size is 4, expected an odd number",
        ),
        (
            'type: "Unpooling" top: "t" unpooling_param { output_h: 0 output_w: 8 }',
            [(2, 3, 4, 4), (2, 3, 4, 4)],
            r"output_h, output_w must be positive: \(0, 8\)",
        ),
        (
            'type: "ContrastiveLoss" top: "t" top: "u"',
            [(2, 3), (2, 3), (2,)],
            r"takes exactly 1 top blob\(s\), got 2",
        ),
        (
            'type: "ReLU" top: "t" include { phase: TEST } exclude { phase: TRAIN }',
            [(2, 3)],
            "specify either include rules or exclude rules, not both",
        ),
    ],
    ids=["Crop", "LRN", "Unpooling", "ContrastiveLoss", "rules"],
)
def test_illegal_layers(layer: str, bottoms: list, message: str) -> None:
    names = " ".join(f'bottom: "x{i}"' for i in range(len(bottoms)))
    param = with_inputs(f'name: "l" {names} {layer}', *bottoms)
    for make in (lambda: sketch(param, TEST), lambda: caffe.Net(param, TEST)):
        with pytest.raises(CaffeError, match=f"layer 'l'.*: {message}"):
            make()


def outcome(make: Callable[[], list]) -> list | str:
    """The shapes that come out, or the error."""
    try:
        return make()
    except CaffeError as error:
        return str(error)


@pytest.mark.parametrize("kind", [*BUILT_IN, "Mystery"])
def test_odd_bottoms_and_tops_get_the_nets_shapes_or_its_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # HDF5Output makes its file
    outcomes = []
    for dims, bottoms, tops in itertools.product(
        [(), (2,), (2, 3), (2, 3, 8, 9)], range(4), range(3)
    ):
        names = " ".join(f'bottom: "x{i}"' for i in range(bottoms))
        names += " ".join(f' top: "t{i}"' for i in range(tops))
        param = with_inputs(f'name: "odd" type: "{kind}" {names}', *[dims] * bottoms)

        def build(param: NetParameter = param, tops: int = tops) -> list:
            blobs = caffe.Net(param, TEST).blobs
            return [blobs[f"t{i}"].shape for i in range(tops)]

        found = outcome(lambda param=param: sketch(param, TEST)[-1].tops)
        outcomes.append(found)
        if kind == "AutoCrop":  # where it cuts follows from the whole net
            continue
        if kind in ("Python", "Mystery"):  # nothing is known of them
            assert found == [None] * tops
            continue
        built = outcome(build)
        if isinstance(found, str):
            found, missing, _ = found.partition("; give the shape of ")
            assert found.startswith("layer 'odd'")
            if kind == "Input" and missing:  # a net's inputs may get their shapes later
                continue
        assert found == built
    if kind in ("ReLU", "Softmax", "Eltwise", "Mystery"):
        assert any(isinstance(found, list) for found in outcomes)
    if kind in ("ReLU", "Softmax", "Eltwise", "Data"):
        assert any(isinstance(found, str) for found in outcomes)


def test_layers_of_unknown_types_and_those_behind_them() -> None:
    text = """
    layer { name: "m" type: "Mystery" bottom: "x" top: "m" }
    layer { name: "ip" type: "InnerProduct" bottom: "m" top: "ip"
            inner_product_param { num_output: 3 } }
    layer { name: "p" type: "Power" bottom: "x" top: "p" }
    """
    source = 'layer { name: "x" type: "Input" top: "x" }'
    x, m, ip, p = sketch(net(source + text), TEST, {"x": (1, 2)})
    assert (m.tops, m.unknown, ip.tops, ip.unknown) == ([None], True, [None], False)
    assert m.problem == "unknown layer type 'Mystery'"
    assert ip.problem == "the shape of its bottom 'm' is not known"
    assert (ip.params, ip.macs, ip.own_tops) == ([], 0, [])
    assert (p.tops, p.problem, x.problem) == ([(1, 2)], "", "")

    x, m, ip, p = sketch(net(source + text), TEST, {"x": (1, 2), "m": (4, 5)})
    assert (m.tops, m.unknown, m.own_tops) == ([(4, 5)], True, [(4, 5)])
    assert m.problem  # it may have parameters
    assert (ip.tops, ip.params, ip.macs) == ([(4, 3)], [(3, 5), (3,)], 4 * 5 * 3)
    assert ip.problem == ""

    # The blob behind it may be told instead.
    x, m, ip, p = sketch(net(source + text), TEST, {"x": (1, 2), "ip": (4, 3)})
    assert (m.tops, ip.tops, ip.params) == ([None], [(4, 3)], [])
    assert ip.problem
    with pytest.raises(CaffeError, match="'p' is not an input of the net"):
        size(text, x=(1, 2), p=(1, 2))
    with pytest.raises(CaffeError, match="'z' is not an input of the net"):
        size(text, x=(1, 2), m=(4, 5), z=(1,))


def test_python_layers_are_not_run() -> None:
    text = """layer { name: "p" type: "Python" bottom: "x" top: "p"
              python_param { module: "no_such_module" layer: "Layer" } }"""
    assert size(text, x=(1, 2))["p"] is None
    assert size(text, x=(1, 2), p=(3,))["p"] == (3,)


def test_a_source_of_an_unknown_type() -> None:
    text = net('layer { name: "m" type: "Mystery" top: "d" top: "l" }')
    assert sketch(text, TEST)[0].tops == [None, None]
    assert sketch(text, TEST, {"": (4, 3, 2)})[0].tops == [(4, 3, 2), (4,)]
    assert sketch(text, TEST, {"l": (4, 1)})[0].tops == [None, (4, 1)]


def test_inputs_without_a_shape_must_be_told() -> None:
    one = net('layer { name: "x" type: "Input" top: "x" }')
    with pytest.raises(UnknownShape, match=r"layer 'x' \(Input\): .*; give the shape of x$"):
        sketch(one, TEST)
    assert sketch(one, TEST, {"": (1, 2)})[0].tops == [(1, 2)]
    two = net('layer { name: "x" type: "Input" top: "x" top: "y" }')
    with pytest.raises(UnknownShape, match=r"give the shape of y$"):
        sketch(two, TEST, {"x": (1, 2)})
    with pytest.raises(UnknownShape, match=r"give the shape of x$"):
        sketch(two, TEST, {"": (1, 2)})  # which of the two?
    assert sketch(two, TEST, {"x": (1, 2), "y": (3,)})[0].tops == [(1, 2), (3,)]


def test_what_is_told_of_a_source_goes_before_what_it_states() -> None:
    text = net("""layer { name: "x" type: "Input" top: "x" top: "y"
               input_param { shape { dim: 1 dim: 2 } } }""")
    assert sketch(text, TEST, {"y": (3,)})[0].tops == [(1, 2), (3,)]


DATA = """layer { name: "d" type: "Data" top: "d" top: "l"
          data_param { source: "%s" batch_size: 4 backend: LMDB } %s }"""


def test_data_are_measured_by_their_first_record(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=2**20) as env, env.begin(write=True) as transaction:
        datum = Datum(channels=5, height=6, width=7, data=bytes(5 * 6 * 7))
        transaction.put(b"0", datum.SerializeToString())
    found = sketch(net(DATA % (tmp_path, "")), TRAIN)[0].tops
    assert found == [(4, 5, 6, 7), (4,)]
    found = sketch(net(DATA % (tmp_path, "transform_param { crop_size: 3 }")), TRAIN)[0].tops
    assert found == [(4, 5, 3, 3), (4,)]
    crop = net(DATA % (tmp_path, "transform_param { augmentation_param { crop_h: 9 crop_w: 2 } }"))
    assert sketch(crop, TRAIN)[0].tops == [(4, 5, 9, 2), (4,)]
    assert sketch(crop, TEST)[0].tops == [(4, 5, 6, 7), (4,)]  # records as they are


def test_data_that_are_missing_must_be_told(tmp_path: Path) -> None:
    text = net(DATA % (tmp_path / "none", ""))
    with pytest.raises(UnknownShape, match=r"none: No such file .*; give the shape of d$"):
        sketch(text, TRAIN)
    assert sketch(text, TRAIN, {"": (2, 5, 8, 8)})[0].tops == [(2, 5, 8, 8), (2,)]
    assert sketch(text, TRAIN, {"d": (2, 5, 8, 8)})[0].tops == [(2, 5, 8, 8), (2,)]
    with pytest.raises(UnknownShape, match=r"give the shape of d$"):
        sketch(text, TRAIN, {"l": (2,)})


@pytest.mark.parametrize(
    "layer",
    [
        'type: "ImageData" image_data_param { source: "none.txt" batch_size: 2 }',
        'type: "HDF5Data" hdf5_data_param { source: "none.txt" batch_size: 2 }',
        'type: "WindowData" window_data_param { source: "none.txt" batch_size: 2 }',
    ],
)
def test_lists_that_are_missing_must_be_told(layer: str) -> None:
    text = net(f'layer {{ name: "d" top: "d" top: "l" {layer} }}')
    with pytest.raises(UnknownShape, match=r"layer 'd' \(\w+\): .*; give the shape of d$"):
        sketch(text, TRAIN)
    assert sketch(text, TRAIN, {"": (2, 5, 8, 8)})[0].tops == [(2, 5, 8, 8), (2,)]


def test_wrong_settings_of_a_source_are_no_missing_data() -> None:
    text = net('layer { name: "m" type: "MemoryData" top: "d" top: "l" }')
    with pytest.raises(CaffeError, match="batch_size, channels, height and width must") as caught:
        sketch(text, TRAIN, {"": (2, 5, 8, 8)})
    assert not isinstance(caught.value, UnknownShape)


def test_stages_and_levels_choose_layers() -> None:
    text = """
    state { level: 1 stage: "a" }
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } }
            include { stage: "a" min_level: 1 } }
    layer { name: "out" type: "Input" top: "x" exclude { stage: "a" } }
    layer { name: "high" type: "Input" top: "x" include { min_level: 2 } }
    layer { name: "train" type: "Input" top: "x" include { phase: TRAIN not_stage: "a" } }
    """
    assert [item.layer.name for item in sketch(net(text), TRAIN)] == ["in"]


def test_nothing_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("memory was taken")

    monkeypatch.setattr(caffe.layers.base, "fill", fail)
    monkeypatch.setattr(caffe.blob.Blob, "tensor", fail)
    text = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
              inner_product_param { num_output: 40000 } }"""
    source = 'layer { name: "x" type: "Input" top: "x" }'
    _, ip = sketch(net(source + text), TEST, {"x": (1, 50000)})  # 8 GB of weights
    assert ip.params == [(40000, 50000), (40000,)]


def test_unpooling_follows_the_image_where_another_size_is_told() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x"
      input_param { shape { dim: 1 dim: 2 dim: 6 dim: 12 } } }
    layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m"
      pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "s" type: "Split" bottom: "m" top: "m1" top: "m2" }
    layer { name: "u" type: "Unpooling" bottom: "p" bottom: "m1" top: "u"
      unpooling_param { output_h: 6 output_w: 12 } }
    """
    net = text_format.Parse(text, NetParameter())
    for size in ((6, 12), (9, 11), (16, 24)):
        made = sketch(net, caffe.TEST, {"x": (1, 2, *size)})
        assert made[-1].tops == [(1, 2, *size)]
    assert sketch(net, caffe.TEST)[-1].tops == [(1, 2, 6, 12)]
