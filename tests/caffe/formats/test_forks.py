"""Fields of forks: which of them have an effect, and what is said of the others."""

from __future__ import annotations

import caffe
from caffe.formats.forks import fork_of, without_effect
from caffe.formats.prototext import parse
from caffe.proto import caffe_pb2 as pb


def layer(text: str) -> pb.LayerParameter:
    return parse(text.encode(), pb.LayerParameter, "layer")


def test_a_field_says_which_forks_have_it() -> None:
    fields = pb.LayerParameter.DESCRIPTOR.fields_by_name
    assert fork_of(fields["roi_pooling_param"]).startswith("Fast R-CNN")
    assert fork_of(fields["pooling_param"]) == ""


def test_fields_of_forks_that_a_type_does_not_use_are_found() -> None:
    param = layer("pooling_param { pool: MAX dilation: 2 torch_pooling: true } bn_param { eps: 1 }")
    unused = {path for path, _ in without_effect(param, ["pooling_param"], [])}
    assert unused == {"bn_param", "pooling_param.torch_pooling", "pooling_param.dilation"}
    taken = ["pooling_param.torch_pooling", "pooling_param.dilation"]
    assert without_effect(param, ["pooling_param", "bn_param"], taken) == []


def test_a_message_of_forks_is_used_as_a_whole_unless_its_fields_are_named() -> None:
    param = layer("bn_param { eps: 1 momentum: 0.5 }")
    assert without_effect(param, ["bn_param"], []) == []
    assert [path for path, _ in without_effect(param, ["bn_param"], ["bn_param.eps"])] == [
        "bn_param.momentum"
    ]


def test_choices_of_speed_are_not_mentioned() -> None:
    param = layer("forward_type: FLOAT16 batch_norm_param { engine: CUDNN }")
    assert without_effect(param, ["batch_norm_param"], []) == []


def test_a_net_warns_once_of_each_field_without_effect(capfd, tmp_path) -> None:
    path = tmp_path / "net.prototxt"
    pool = 'layer {{ name: "{}" type: "Pooling" bottom: "x" top: "{}" pooling_param {{ {} }} }}'
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 1, 4, 4] } } }'
        + pool.format("p", "p", "kernel_size: 2 torch_pooling: true")
        + pool.format("q", "q", "kernel_size: 2 torch_pooling: true")
    )
    caffe.Net(str(path), caffe.TEST)
    lines = [line for line in capfd.readouterr().err.splitlines() if "has no effect" in line]
    assert len(lines) == 1
    assert "pooling_param.torch_pooling (NVCaffe)" in lines[0]
    assert "layer 'p' and 1 more layers" in lines[0]


def test_a_net_and_a_solver_warn_of_their_own_fields(capfd, tmp_path) -> None:
    net = 'bn_stats_batch_size: 4 layer { name: "x" type: "Input" top: "x" '
    net += "input_param { shape { dim: 1 } } }"
    solver = pb.SolverParameter(
        larc=True, solver_data_type=pb.FLOAT, base_lr=0.1, lr_policy="fixed"
    )
    solver.net_param.CopyFrom(parse(net.encode(), pb.NetParameter, "net"))
    caffe.SGDSolver(solver)
    lines = [line for line in capfd.readouterr().err.splitlines() if "has no effect" in line]
    assert len(lines) == 2
    assert lines[0].endswith("larc (NVCaffe) has no effect here")
    assert lines[1].endswith("bn_stats_batch_size (Intel Caffe) of the net has no effect here")
