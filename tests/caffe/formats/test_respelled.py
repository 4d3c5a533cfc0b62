"""Fields that forks repeat and BVLC has once: read into repeated ones."""

from __future__ import annotations

import pytest

from caffe.errors import CaffeError
from caffe.formats.prototext import parse
from caffe.proto import caffe_pb2 as pb


def pooling(text: str) -> pb.PoolingParameter:
    net = parse(f'layer {{ pooling_param {{ {text} }} }} name: "a"'.encode(), pb.NetParameter, "n")
    return net.layer[0].pooling_param


@pytest.mark.parametrize(
    "text",
    [
        "kernel_size: [2, 3] pool: MAX stride: [1, 2]",
        "stride: [1, 2] kernel_size: [2, 3]\n# kernel_size: 9\n",
    ],
)
def test_several_values_go_to_the_repeated_field(text: str) -> None:
    param = pooling(text)
    assert list(param.kernel_size_3d) == [2, 3]
    assert list(param.stride_3d) == [1, 2]
    assert not param.HasField("kernel_size")
    assert not param.pad_3d


def test_two_values_are_those_of_height_and_width() -> None:
    param = pooling("kernel_size: 2 pool: MAX kernel_size: 3 stride: 1 stride: 2 pad: 0")
    assert (param.kernel_h, param.kernel_w, param.stride_h, param.stride_w) == (2, 3, 1, 2)
    assert not param.HasField("kernel_size")
    assert not param.kernel_size_3d
    assert param.HasField("pad")
    assert not param.HasField("pad_h")


def test_one_value_stays() -> None:
    param = pooling("kernel_size: 2 stride: 2")
    assert (param.kernel_size, param.stride) == (2, 2)
    assert not param.kernel_size_3d


def test_devices_of_a_solver() -> None:
    solver = parse(b'net: "n"\ndevice_id: [0,1]', pb.SolverParameter, "s")
    assert list(solver.device_ids) == [0, 1]


def test_other_faults_are_told_as_before() -> None:
    with pytest.raises(CaffeError, match=r'n:1:41: .*should not have multiple "pool" fields'):
        pooling("pool: MAX pool: MAX")
    with pytest.raises(CaffeError, match=r'has no field "odd"'):
        pooling("kernel_size: 2 kernel_size: 2 odd: 3")
