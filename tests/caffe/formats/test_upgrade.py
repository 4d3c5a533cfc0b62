"""upgrade: nets of 2013 and 2014 become the nets that the reference makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe.errors import CaffeError
from caffe.formats.prototext import parse, text
from caffe.formats.upgrade import (
    SOLVER_TYPES,
    V0_TYPES,
    V1_TYPES,
    needs_upgrade,
    upgrade_net,
    upgrade_solver,
)
from caffe.proto import caffe_pb2 as pb

INTEROP = Path(__file__).parents[2] / "golden" / "interop"


def net(source: str) -> pb.NetParameter:
    return parse(source.encode(), pb.NetParameter, "net.prototxt")


def upgraded(source: str) -> pb.NetParameter:
    return upgrade_net(net(source), "net.prototxt")


class Log:
    """Collects what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.severities: list[int] = []

    def __call__(self, place: str, message: str, severity: int) -> None:
        self.lines.append(f"{place}] {message}")
        self.severities.append(severity)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_text_equals_the_references(version: str) -> None:
    old = net((INTEROP / f"{version}.prototxt").read_text())
    assert needs_upgrade(old)
    new = upgrade_net(old)
    assert text(new) == (INTEROP / f"{version}.upgraded.prototxt").read_text()
    assert not needs_upgrade(new)


def test_net_of_today_is_left_alone() -> None:
    today = net('layer { name: "a" type: "ReLU" }')
    assert upgrade_net(today) is today


def test_the_message_given_is_not_changed() -> None:
    old = net((INTEROP / "v0.prototxt").read_text())
    before = text(old)
    upgrade_net(old)
    assert text(old) == before


def test_what_is_logged() -> None:
    log = Log()
    upgrade_net(net('input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4'), "n.pt", log)
    assert log.lines[0] == (
        "upgrade_proto.cpp:69] Attempting to upgrade input file specified using deprecated "
        "input fields: n.pt"
    )
    assert log.severities == [0, 0, 1]


def test_v0_setting_of_another_type_is_logged_and_dropped() -> None:
    log = Log()
    new = upgrade_net(net('layers { layer { name: "r" type: "relu" pad: 2 } }'), "n", log)
    assert text(new) == 'layer {\n  name: "r"\n  type: "ReLU"\n}\n'
    assert "upgrade_proto.cpp:283] Unknown parameter pad for layer type relu" in log.lines
    assert 2 in log.severities


def test_every_v0_type_and_setting_finds_its_place() -> None:
    new = upgraded(
        """
        layers { layer { name: "i" type: "images" source: "s" batchsize: 3 rand_skip: 4
          shuffle_images: true new_height: 5 new_width: 6 scale: 0.5 meanfile: "m" cropsize: 7
          mirror: true } top: "d" top: "l" }
        layers { layer { name: "w" type: "window_data" source: "s" batchsize: 3
          det_fg_threshold: 0.1 det_bg_threshold: 0.2 det_fg_fraction: 0.3 det_context_pad: 4
          det_crop_mode: "square" } top: "d2" }
        layers { layer { name: "p" type: "pool" pool: STOCHASTIC kernelsize: 3 stride: 2 pad: 1 }
          bottom: "d" top: "p" }
        layers { layer { name: "c" type: "concat" concat_dim: 0 } bottom: "p" bottom: "d" top: "c" }
        layers { layer { name: "h" type: "hdf5_output" hdf5_output_param { file_name: "f" } }
          bottom: "c" }
        """
    )
    images, window, pool, concat, output = new.layer
    assert text(images) == (
        'name: "i"\ntype: "ImageData"\ntop: "d"\ntop: "l"\n'
        'transform_param {\n  scale: 0.5\n  mirror: true\n  crop_size: 7\n  mean_file: "m"\n}\n'
        'image_data_param {\n  source: "s"\n  batch_size: 3\n  rand_skip: 4\n  shuffle: true\n'
        "  new_height: 5\n  new_width: 6\n}\n"
    )
    fields = window.window_data_param
    assert (fields.context_pad, fields.crop_mode) == (4, "square")
    assert [fields.fg_threshold, fields.bg_threshold, fields.fg_fraction] == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    assert pool.pooling_param.pool == pb.PoolingParameter.STOCHASTIC
    assert (pool.pooling_param.kernel_size, pool.pooling_param.pad) == (3, 1)
    assert concat.concat_param.HasField("concat_dim")
    assert output.hdf5_output_param.file_name == "f"


def test_type_tables_are_complete() -> None:
    assert set(V1_TYPES) == set(pb.V1LayerParameter.LayerType.keys())
    assert set(V0_TYPES.values()) <= set(V1_TYPES)
    assert set(SOLVER_TYPES) == set(pb.SolverParameter.SolverType.values())


def test_padding_layer_becomes_the_pad_of_the_next() -> None:
    new = upgraded(
        """
        input: "data" input_dim: 1 input_dim: 1 input_dim: 8 input_dim: 8
        layers { layer { name: "pad" type: "padding" pad: 3 } bottom: "data" top: "padded" }
        layers { layer { name: "c" type: "conv" num_output: 1 kernelsize: 7 }
          bottom: "padded" top: "c" }
        """
    )
    assert [layer.name for layer in new.layer] == ["input", "c"]
    assert list(new.layer[1].bottom) == ["data"]
    assert list(new.layer[1].convolution_param.pad) == [3]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } top: "x" bottom: "d" } input: "d" '
            'layers { layer { name: "r" type: "relu" } bottom: "x" top: "y" }',
            "type 'relu'; expected 'conv' or 'pool'",
        ),
        ('layers { layer { name: "q" type: "convolve" } }', "unknown V0 layer type 'convolve'"),
        ('layers { layer { name: "q" type: "relu" } bottom: "x" }', "'q' takes blob 'x'"),
        ('layers { name: "a" type: RELU } layer { name: "b" }', "both 'layer'"),
        ('input: "a" input: "b" input_dim: 1 input_dim: 2', "2 input fields but 2 input_dim"),
        ('input: "a" input: "b" input_shape { dim: 1 }', "2 input fields but 1 input_shape"),
        (
            'layers { layer { name: "r" type: "relu" } } layers { name: "v1" type: RELU }',
            "'v1' is not in the V0 format",
        ),
    ],
)
def test_nets_that_make_no_sense(source: str, what: str) -> None:
    with pytest.raises(CaffeError, match=r"^net\.prototxt: ") as error:
        upgraded(source)
    assert what in str(error.value)


def test_v1_learning_rates_and_shared_names() -> None:
    layer = upgraded(
        'layers { name: "a" type: INNER_PRODUCT param: "w" blob_share_mode: PERMISSIVE '
        "blobs_lr: 1 blobs_lr: 2 weight_decay: 0.5 loss_weight: 3 include { phase: TEST } }"
    ).layer[0]
    assert text(layer) == (
        'name: "a"\ntype: "InnerProduct"\nloss_weight: 3\n'
        'param {\n  name: "w"\n  share_mode: PERMISSIVE\n  lr_mult: 1\n  decay_mult: 0.5\n}\n'
        "param {\n  lr_mult: 2\n}\ninclude {\n  phase: TEST\n}\n"
    )


def test_every_v1_parameter_message_is_kept() -> None:
    names = [
        field.name
        for field in pb.V1LayerParameter.DESCRIPTOR.fields
        if field.name.endswith("_param")  # forks' fields too
    ]
    assert len(names) == 56
    for name in names:
        old = pb.NetParameter()
        getattr(old.layers.add(name="x", type=pb.V1LayerParameter.RELU), name).SetInParent()
        assert upgrade_net(old).layer[0].HasField(name), name


def test_data_transformation_moves() -> None:
    new = upgraded(
        'layers { name: "d" type: DATA data_param { source: "s" scale: 0.5 mirror: true } }'
        'layers { name: "e" type: DATA data_param { source: "t" } }'
    )
    assert text(new.layer[0]) == (
        'name: "d"\ntype: "Data"\ntransform_param {\n  scale: 0.5\n  mirror: true\n}\n'
        'data_param {\n  source: "s"\n}\n'
    )
    # As Caffe: once one layer needs it, each data layer gets the message.
    assert text(new.layer[1]).endswith('transform_param {\n}\ndata_param {\n  source: "t"\n}\n')


def test_input_names_without_shapes_are_dropped() -> None:
    new = upgraded('input: "data" layer { name: "a" type: "ReLU" bottom: "data" top: "data" }')
    assert [layer.name for layer in new.layer] == ["a"]
    assert not new.input


def test_inputs_by_shape_come_first() -> None:
    new = upgraded(
        'input: "a" input: "b" input_shape { dim: 2 } input_shape { dim: 3 dim: 4 } '
        'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    )
    assert [layer.type for layer in new.layer] == ["Input", "ReLU"]
    assert list(new.layer[0].top) == ["a", "b"]
    assert [list(shape.dim) for shape in new.layer[0].input_param.shape] == [[2], [3, 4]]


def test_batch_norm_with_three_params_stops_learning_them() -> None:
    new = upgraded(
        'layer { name: "b" type: "BatchNorm" param { lr_mult: 1 } param { name: "v" } param {} }'
    )
    assert [(p.lr_mult, p.decay_mult) for p in new.layer[0].param] == [(0, 0)] * 3
    assert new.layer[0].param[1].name == "v"
    two = net('layer { name: "b" type: "BatchNorm" param { lr_mult: 1 } param { lr_mult: 1 } }')
    assert upgrade_net(two) is two


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_solver_type(old: str, new: str) -> None:
    solver = parse(f"solver_type: {old}".encode(), pb.SolverParameter, "s")
    assert text(upgrade_solver(solver)) == f'type: "{new}"\n'


def test_solver_with_both_types_is_refused() -> None:
    solver = pb.SolverParameter(type="Adam", solver_type=pb.SolverParameter.ADAM)
    with pytest.raises(CaffeError, match=r"^s\.prototxt: both solver_type"):
        upgrade_solver(solver, "s.prototxt")
