"""Losses of boxes at each place, whose top has a second value without a gradient."""

import random
import zlib

import pytest
import torch
from cases import TABLE, make_layer, values


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("name", ["DetectionLoss", "DetectionGroupLoss"])
def test_gradient_of_the_first_value_is_the_derivative(name, draw):
    seed = zlib.crc32(f"{name} {draw}".encode())
    rng = random.Random(seed)
    case = TABLE[name].draw(rng)
    while "side:" in case.param:  # caffe-yolo's gradient is not the derivative
        case = TABLE[name].draw(rng)
    layer = make_layer(name, case)
    pairs = enumerate(zip(case.kinds, case.shapes, strict=True))
    bottoms = [values(kind, shape, seed + i) for i, (kind, shape) in pairs]
    truth = bottoms.pop()

    def first(*given: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same samples of background
        return layer.forward([*given, truth], [])[..., 0]

    assert torch.autograd.gradcheck(first, [x.requires_grad_() for x in bottoms])
    loss = layer.forward([*bottoms, truth], [])
    assert not torch.autograd.grad(loss[..., 1].sum(), bottoms[0])[0].any()
