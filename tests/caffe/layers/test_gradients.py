"""Every layer's gradient against finite differences in float64, over the cases of its row.

Values stay away from ties and kinks; random masks are frozen.
"""

import random
import zlib
from collections.abc import Callable

import pytest
import torch

from caffe.layers import Layer
from caffe.layers.base import REGISTRY
from cases import TABLE, make_layer, values

DRAWS = 6


def frozen(layer: Layer, inputs: list[torch.Tensor], checked: list[int]) -> Callable:
    """The layer as a function of the checked inputs; random numbers and state are the same ones."""

    def function(*given: torch.Tensor) -> list[torch.Tensor]:
        tensors = list(inputs)
        for i, tensor in zip(checked, given, strict=True):
            tensors[i] = tensor
        torch.manual_seed(1)
        layer.reset()
        bottoms = tensors[: layer.num_bottoms]
        tops = layer.forward(bottoms, tensors[layer.num_bottoms :])
        return [tops] if isinstance(tops, torch.Tensor) else list(tops)

    return function


def test_every_type_has_a_row():
    builtin = {name for name, c in REGISTRY.items() if c.__module__.startswith("caffe.layers")}
    assert set(TABLE) == builtin


@pytest.mark.parametrize("draw", range(DRAWS))
@pytest.mark.parametrize(
    "name", sorted(name for name, row in TABLE.items() if row.learns or row.gradient != ())
)
def test_gradient_is_the_derivative(name, draw):
    row = TABLE[name]
    seed = zlib.crc32(f"{name} {draw}".encode())
    case = row.draw(random.Random(seed))
    layer = make_layer(name, case)
    kinds = [*(case.kinds or ("real",) * len(case.shapes))][: len(case.shapes)]
    # Running statistics are variances, too, and no parameters that are learned.
    kinds += ["positive" if layer.gathers else "real"] * len(layer.blobs)
    shapes = [*case.shapes, *(blob.shape for blob in layer.blobs)]
    inputs = [
        values(kind, dims, seed + i)
        for i, (kind, dims) in enumerate(zip(kinds, shapes, strict=True))
    ]
    checked = [i for i in range(layer.num_bottoms) if i not in layer.labels]
    if row.gradient is not None:
        checked = list(row.gradient)
    if row.learns:
        checked += range(layer.num_bottoms, len(inputs))
    given = [inputs[i].requires_grad_() for i in checked]
    assert torch.autograd.gradcheck(
        frozen(layer, [x.detach() for x in inputs], checked),
        given,
        atol=case.tolerance,
        rtol=case.tolerance,
    )
