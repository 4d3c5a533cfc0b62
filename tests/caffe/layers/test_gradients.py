"""Every layer's gradient against finite differences in float64, over the cases of its row.

Values stay away from ties and kinks; random masks are frozen.
"""

import csv
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import TABLE, Case, draws, make_layer, values

import caffe
from caffe.layers import Layer
from caffe.layers.base import REGISTRY

DRAWS = 6
GOLDEN = Path(__file__).parents[2] / "golden" / "forks"

# Of BVLC's: no top, or no gradient in Caffe either; layers of the user's (Python) bring their own.
WITHOUT_GRADIENT = {
    *("Accuracy", "ArgMax", "SegmentationAccuracy", "Threshold", "Silence", "HDF5Output", "Python"),
    *("Input", "DummyData", "Data", "ImageData", "WindowData", "MemoryData", "HDF5Data"),
}
BVLC = {name for name in TABLE if not REGISTRY[name].fork}
DRAWN = sorted(name for name, row in TABLE.items() if row.learns or row.gradient != ())


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


def test_every_layer_with_a_gradient_is_drawn():
    """In all bottoms but labels; the second of Crop gives a size, that of Unpooling places."""
    drawn = BVLC & set(DRAWN)
    assert drawn == BVLC - WITHOUT_GRADIENT
    assert {name for name in drawn if TABLE[name].gradient is not None} == {"Crop", "Unpooling"}
    assert {name for name in drawn if not TABLE[name].learns} == {"BatchNorm"}


def test_forks_layers_that_are_not_drawn_have_no_gradient_or_a_recorded_one():
    with (GOLDEN / "SOURCES.csv").open(encoding="utf-8", newline="") as file:
        recorded = {row["type"] for row in csv.DictReader(file)}
    # test_special_loss.py, test_malis.py, test_fused_types.py
    elsewhere = {"MMDLoss", "Affinity", "MalisLoss", "InnerProductReLUDropout"}
    for name in set(TABLE) - BVLC - set(DRAWN) - recorded - elsewhere:
        c = REGISTRY[name]
        counted = c.varying is not None  # a list of what was found
        assert c.source or counted or set(range(c.bottoms[0])) <= set(c.labels), name


def check(name: str, case: Case, seed: int) -> None:
    """Compare the gradients of a case's layer with finite differences."""
    row = TABLE[name]
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


@pytest.mark.parametrize(
    ("name", "draw"),
    [pytest.param(name, i, id=f"{name}-{i}") for name in DRAWN for i in draws(name, DRAWS)],
)
def test_gradient_is_the_derivative(name, draw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a case may bring files
    seed = zlib.crc32(f"{name} {draw}".encode())
    check(name, TABLE[name].draw(random.Random(seed)), seed)


@pytest.mark.parametrize("method", ["MAX", "AVE", "STOCHASTIC"])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_pooling_with_gaps_between_windows(method, phase):
    """The drawn cases have none, because ONNX refuses windows beyond the image. Caffe takes them
    and averages nothing to NaN. Here each window reaches the image.
    """
    kind = "positive" if method == "STOCHASTIC" else "distinct"
    text = f"pooling_param {{ pool: {method} kernel_size: 2 stride: 3 }}"
    for seed, image in enumerate([(2, 4), (4, 5), (5, 7)]):
        check("Pooling", Case(text, [(1, 2, *image)], (kind,), phase), seed)
