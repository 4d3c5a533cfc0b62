"""net_spec: Python expressions become the NetParameter that pycaffe's net_spec makes of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import text_format

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.formats.forks import fork_of
from caffe.net_spec import assign_proto, param_name_dict
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter


def same(net: NetParameter, text: str) -> bool:
    return net == text_format.Parse(text, NetParameter())


def test_names_come_from_attributes() -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [5, 1, 8, 8]}, {"dim": 5}], ntop=2)
    n.conv = L.Convolution(
        n.data, kernel_size=3, num_output=2, weight_filler={"type": "xavier"}, name="first"
    )
    n.relu = L.ReLU(n.conv, in_place=True)
    n.pool, n["mask"] = L.Pooling(n.relu, kernel_size=2, pool=P.Pooling.MAX, ntop=2)
    assert same(
        n.to_proto(),
        """
        layer { name: "data" type: "DummyData" top: "data" top: "label"
                dummy_data_param { shape { dim: 5 dim: 1 dim: 8 dim: 8 } shape { dim: 5 } } }
        layer { name: "first" type: "Convolution" bottom: "data" top: "conv"
                convolution_param { num_output: 2 kernel_size: 3
                                    weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" top: "mask"
                pooling_param { pool: MAX kernel_size: 2 } }
        """,
    )


def test_anonymous_layers_are_numbered_by_type() -> None:
    data, label = L.DummyData(shape={"dim": [4, 3]}, ntop=2)
    hidden = L.ReLU(L.InnerProduct(data, num_output=2), in_place=True)
    loss = L.SoftmaxWithLoss(L.InnerProduct(hidden, num_output=2), label)
    net = loss.to_proto()
    assert [layer.name for layer in net.layer] == [
        "DummyData1",
        "InnerProduct1",
        "ReLU1",
        "InnerProduct2",
        "SoftmaxWithLoss1",
    ]
    assert list(net.layer[0].top) == ["DummyData1", "DummyData2"]
    assert list(net.layer[2].top) == list(net.layer[2].bottom) == ["InnerProduct1"]
    assert caffe.to_proto(hidden, loss) == net


def test_only_needed_layers_inputs_first() -> None:
    n = caffe.NetSpec()
    data = L.Input(shape={"dim": [1, 2]})
    L.ReLU(data)  # nobody asks for it
    n.b = L.Power(data, power=2)
    n.a = data
    assert [(layer.name, *layer.bottom) for layer in n.to_proto().layer] == [("a",), ("b", "a")]


def test_layers_without_tops() -> None:
    n = caffe.NetSpec()
    n.data, n.data2 = L.DummyData(shape={"dim": 3}, ntop=2)
    n.silence = L.Silence(n.data, ntop=0)
    n.silence2 = L.Silence(n.data2, ntop=0)
    net = n.to_proto()
    assert [(layer.name, *layer.bottom) for layer in net.layer[1:]] == [
        ("silence", "data"),
        ("silence2", "data2"),
    ]
    assert not any(layer.top for layer in net.layer[1:])


def test_parameters_find_their_message() -> None:
    layer = (
        L.Deconvolution(
            L.Input(),
            convolution_param={"num_output": 3, "kernel_size": (3, 5), "bias_filler": {}},
            param=[{"lr_mult": 1}, {"lr_mult": 2, "decay_mult": 0}],
            loss_weight=0.5,
            include={"phase": caffe.TEST},
            transform_param={"mean_value": [1, 2, 3]},
        )
        .to_proto()
        .layer[1]
    )
    assert list(layer.convolution_param.kernel_size) == [3, 5]
    assert layer.convolution_param.HasField("bias_filler")
    assert [p.lr_mult for p in layer.param] == [1, 2]
    assert list(layer.loss_weight) == [0.5]
    assert layer.include[0].phase == caffe.TEST
    assert list(layer.transform_param.mean_value) == [1, 2, 3]


def test_every_parameter_message_is_found() -> None:
    names = param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["ArgMax"] == "argmax"
    assert names["PReLU"] == "prelu"
    assert names["Unpooling"] == "unpooling"
    assert names["ReLU"] == "relu"
    fields = [f for f in LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param")]
    ours = {f.name for f in fields if not fork_of(f)}
    assert ours <= {f"{name}_param" for name in names.values()} <= {f.name for f in fields}
    assert (names["PriorBox"], names["Normalize"]) == (
        "prior_box",
        "norm",
    )


def test_constants() -> None:
    assert (P.Pooling.AVE, P.Eltwise.SUM, P.Data.LMDB, P.Loss.VALID) == (1, 1, 1, 1)
    with pytest.raises(AttributeError, match="no message PolingParameter"):
        _ = P.Poling.MAX


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"num_outptu": 3},
            AttributeError,
            r"layer 'Convolution1': Convolution has no parameter 'num_outptu' in "
            r"convolution_param or the layer \(did you mean 'num_output'\?\)",
        ),
        ({"weight_filler": {"typ": "x"}}, AttributeError, "FillerParameter has no field 'typ'"),
        ({"weight_filler": "msra"}, TypeError, "weight_filler takes a dict, not 'msra'"),
        ({"num_output": {"a": 1}}, TypeError, "num_output takes a plain value"),
        ({"num_output": "a"}, TypeError, "ConvolutionParameter.num_output cannot hold 'a'"),
        ({"pad": -1}, ValueError, "ConvolutionParameter.pad cannot hold -1"),
    ],
)
def test_wrong_parameters(params: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        L.Convolution(L.Input(), **params).to_proto()


def test_inputs_must_be_tops() -> None:
    data = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"Silence input 0 is not a Top \(type is <class 'tuple'>"):
        L.Silence(data, ntop=0)
    L.Silence(*data, ntop=0)


def test_a_blob_that_is_not_there() -> None:
    n = caffe.NetSpec()
    with pytest.raises(AttributeError, match="no blob 'conv1'"):
        _ = n.conv1
    with pytest.raises(KeyError):
        _ = n["conv1"]


def test_nets_deeper_than_the_interpreters_stack() -> None:
    top = L.Input(shape={"dim": 1})
    for _ in range(3 * sys.getrecursionlimit()):
        top = L.Power(top)
    assert len(top.to_proto().layer) == 3 * sys.getrecursionlimit() + 1


def test_assign_proto_fills_any_message() -> None:
    layer = LayerParameter()
    assign_proto(layer, "bottom", "x")
    assign_proto(layer, "bottom", ["y", "z"])
    assert list(layer.bottom) == ["x", "y", "z"]


def test_nothing_heavy_is_imported() -> None:
    code = "import caffe, sys; caffe.net_spec.layers.ReLU; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
