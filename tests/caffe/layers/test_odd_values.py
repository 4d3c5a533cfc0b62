"""Odd parameters and values: a layer runs, or refuses them in one line, and never breaks.

Odd are batches without samples, bottoms without a finite value, and parameters of NaN and infinity.
"""

from __future__ import annotations

import random
import zlib

import pytest
import torch
from cases import TABLE, Case, from_outside, layer_param, values
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

import caffe
from caffe.blob import Blob
from caffe.layers import create_layer
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb

NAMES = sorted(name for name in TABLE if not from_outside(name) and REGISTRY[name].fork)
FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def passes(case: Case, message: pb.LayerParameter, odd: tuple[int, float] | None = None) -> None:
    """Both passes of a layer, which may refuse. odd: the bottom that holds nothing but this value.

    Raises what is not a CaffeError.
    """
    refusal = "layer 'l'"
    try:
        _passes(case, message, odd)
    except caffe.CaffeError as error:
        refusal = str(error)
    assert "layer 'l'" in refusal


def _passes(case: Case, message: pb.LayerParameter, odd: tuple[int, float] | None) -> None:
    shapes = [tuple(shape) for shape in case.shapes]
    layer = create_layer(message)
    layer.attach([Blob(shape) for shape in shapes], [Blob() for _ in message.top])
    layer.fill_blobs()
    layer.scratch(shapes), layer.macs(shapes)
    bottoms = [value_of(case, i, shape).float() for i, shape in enumerate(shapes)]
    if odd is not None:
        bottoms[odd[0]] = torch.full_like(bottoms[odd[0]], odd[1])
    for i, x in enumerate(bottoms):
        x.requires_grad_(i not in layer.labels)
    tops = layer.forward(bottoms, [blob.tensor() for blob in layer.blobs])
    tops = [tops] if isinstance(tops, torch.Tensor) else tops
    total = sum(top.float().sum() for top in tops if top.requires_grad)
    if isinstance(total, torch.Tensor):
        total.backward()


def value_of(case: Case, index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Values of the bottom's kind; zeros where there is no sample."""
    if 0 in shape:
        return torch.zeros(shape)
    return values(case.kinds[index] if index < len(case.kinds) else "real", shape, index)


def drawn(name: str) -> tuple[Case, pb.LayerParameter]:
    case = TABLE[name].draw(random.Random(zlib.crc32(f"{name} odd".encode())))
    if case.files is not None:
        case.files()
    return case, layer_param(name, case.param, len(case.shapes), case.phase)


@pytest.mark.parametrize("name", NAMES)
def test_batches_without_samples(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    case, message = drawn(name)
    case.shapes = [[0, *shape[1:]] if len(shape) else [] for shape in case.shapes]
    passes(case, message)


@pytest.mark.parametrize("name", NAMES)
def test_bottoms_without_finite_values(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    case, message = drawn(name)
    for i in range(len(case.shapes)):
        for value in (float("nan"), float("inf"), -1e30):
            passes(case, message, (i, value))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_are_not_finite(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    case, message = drawn(name)
    for outer in REGISTRY[name].reads:
        own = getattr(message, outer)
        for field in own.DESCRIPTOR.fields if isinstance(own, Message) else ():
            for value in (float("nan"), float("inf"), 0.0):
                if field.cpp_type not in FLOATS:
                    continue
                spoiled = pb.LayerParameter.FromString(message.SerializeToString())
                part = getattr(spoiled, outer)
                if field.is_repeated:
                    numbers = getattr(part, field.name)
                    numbers[:] = [value] * max(1, len(numbers))
                else:
                    setattr(part, field.name, value)
                passes(case, spoiled)


def test_whole_numbers_without_bound_do_not_take_time_or_memory(layer_of) -> None:
    mining = 'type: "HardMining" hard_mining_param { num_image: 4294967295 num_roi_per_image: 1 }'
    layer = layer_of(mining, (3,), (3, 5))
    regions = torch.arange(15.0).view(3, 5)
    assert layer.forward([torch.zeros(3), regions], [])[0].shape[0] == 3
    found = 'type: "DetectionEvaluate" detection_evaluate_param { num_classes: 4294967295 '
    with pytest.raises(caffe.CaffeError, match="num_classes is 4294967295, expected 1 to 1000000"):
        layer_of(
            found + "background_label_id: 0 overlap_threshold: 0.5 }", (1, 1, 1, 7), (1, 1, 1, 8)
        )
