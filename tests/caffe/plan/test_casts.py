"""Casts between number types: where a node takes float32 alone, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from nets import conv, image, plan_of

import caffe

NET = image(2, 3, 9, 10) + conv("c", "x", "y")
# Two layers that take float32, and one that takes any number type.
TAKERS = """
layer { name: "a" type: "TanH" bottom: "y" top: "a" }
layer { name: "b" type: "Sigmoid" bottom: "y" top: "b" }
layer { name: "r" type: "ReLU" bottom: "y" top: "r" relu_param { negative_slope: 0.1 } }
"""
MASKED = """
layer { name: "p" type: "Pooling" bottom: "y" top: "p" top: "k"
  pooling_param { pool: MAX kernel_size: 3 stride: 3 } }
layer { name: "u" type: "Unpooling" bottom: "p" bottom: "k" top: "u"
  unpooling_param { output_h: 9 output_w: 10 } }
"""


def casts(net: caffe.Net) -> list[str]:
    return [node.name for node in plan_of(net).nodes if not node.layers]


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_float32_needs_none(phase: int, make_net) -> None:
    assert casts(make_net(NET + TAKERS, phase)) == []


def test_one_cast_serves_all_who_take_float32(make_net) -> None:
    caffe.set_precision("bf16")
    net = make_net(NET + TAKERS, caffe.TEST)
    assert casts(net) == ["c:float32"]
    program = plan_of(net).program
    numbers = {node.name: program.numbers[node.top[0]] for node in program.nodes}
    assert numbers["c"] == numbers["r"] == torch.bfloat16
    assert numbers["x"] == numbers["a"] == numbers["b"] == numbers["c:float32"] == torch.float32
    taken = {node.name: [program.numbers[i] for i in node.bottom] for node in program.nodes}
    assert taken["r"] == [torch.bfloat16]
    assert taken["a"] == taken["b"] == [torch.float32]


def test_positions_are_not_cast(make_net) -> None:
    caffe.set_precision("bf16")
    net = make_net(NET + MASKED, caffe.TEST)
    assert casts(net) == []
    program = plan_of(net).program
    pool = next(node for node in program.nodes if node.name == "p")
    assert [program.numbers[i] for i in pool.top] == [torch.bfloat16, torch.int64]


def test_gradients_pass_through(make_net) -> None:
    """The gradient of a value that is cast is the sum of its takers', in bfloat16's accuracy."""
    loss = """
    layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" bottom: "r" top: "s" }
    layer { name: "l" type: "Reduction" bottom: "s" top: "l" loss_weight: 1 }
    """
    gradients = []
    for precision in ("fp32", "bf16"):
        caffe.set_precision(precision)
        caffe.set_random_seed(1)
        net = make_net(NET + TAKERS + loss)
        net.blobs["x"].data[...] = torch.linspace(-1, 1, 540).reshape(2, 3, 9, 10).numpy()
        net.observed = False
        net.forward()
        net.backward()
        gradients.append(net.params["c"][0].diff.copy())
    assert abs(gradients[0]).max() > 1
    assert abs(gradients[0] - gradients[1]).max() < 0.02 * abs(gradients[0]).max()
