"""infer_shapes gives the shapes that forward gives, or both refuse and name the layer.

The cases are those of tests/cases, as drawn and then spoiled: another bottom shape, another number
in a parameter. Types that read or write files are in test_sources.py.
"""

from __future__ import annotations

import random
import zlib

import pytest
import torch
from cases import TABLE, Case, draws, from_outside, layer_param, make_layer, values
from google.protobuf.descriptor import FieldDescriptor

import caffe
from caffe.blob import Blob
from caffe.formats.prototext import text
from caffe.layers import Layer, create_layer
from caffe.layers.base import Tensors
from caffe.proto import caffe_pb2 as pb

DRAWS, SPOILED = 3, 6
NAMES = sorted(name for name in TABLE if not from_outside(name))
Shapes = list[tuple[int, ...]]


def drawn(name: str, draw: int) -> tuple[Case, random.Random]:
    rng = random.Random(zlib.crc32(f"{name} shapes {draw}".encode()))
    return TABLE[name].draw(rng), rng


def bottoms_of(case: Case, shapes: Shapes, seed: int) -> list[torch.Tensor]:
    """Values of the case's kinds in these shapes; zeros where a kind cannot be had in a shape."""
    kinds = [*(case.kinds or ("real",) * len(shapes)), *["real"] * len(shapes)]
    made = []
    for i, (kind, shape) in enumerate(zip(kinds, shapes, strict=False)):
        try:
            made.append(values(kind, shape, seed + i).float())
        except (RuntimeError, ValueError, ZeroDivisionError):
            made.append(torch.zeros(shape))
    return made


def run(layer: Layer, bottom: Tensors) -> Shapes | str:
    """The shapes of forward's tops; or how it refused."""
    layer.reset()
    try:
        with torch.no_grad():
            tops = layer.forward(bottom, [blob.tensor() for blob in layer.blobs])
    except caffe.CaffeError as error:
        return str(error)
    return [tuple(t.shape) for t in ([tops] if isinstance(tops, torch.Tensor) else tops)]


def attached(message: pb.LayerParameter, shapes: Shapes, tops: list[Blob]) -> Layer | str:
    """The layer on bottoms of these shapes; or how it refused."""
    try:
        layer = create_layer(message)
        layer.attach([Blob(shape) for shape in shapes], tops)
        layer.fill_blobs()
    except caffe.CaffeError as error:
        return str(error)
    return layer


def infer(layer: Layer, shapes: Shapes) -> Shapes | str:
    try:
        return [tuple(shape) for shape in layer.infer_shapes(shapes)]
    except caffe.CaffeError as error:
        return str(error)


def agree(layer: Layer, case: Case, shapes: Shapes, seed: int) -> bool:
    """Check one layer on one set of shapes; returns whether it fits."""
    inferred, ran = infer(layer, shapes), run(layer, bottoms_of(case, shapes, seed))
    where = f"{text(layer.layer_param)} on {shapes}"
    if isinstance(inferred, str):
        assert isinstance(ran, str), f"runs, but is refused: {inferred}: {where}"
        assert "layer 'l'" in inferred, where
        assert "layer 'l'" in ran, where
        return False
    if isinstance(ran, str):  # a value that does not fit, such as an index into nothing
        assert "out of range" in ran, f"{ran}: {where}"
        assert "layer 'l'" in ran, where
        return True
    assert [fixed(shape, layer) for shape in inferred] == [fixed(s, layer) for s in ran], where
    return True


def fixed(shape: tuple[int, ...], layer: Layer) -> tuple[int, ...]:
    """The shape without the axis whose extent depends on values."""
    return tuple(n for axis, n in enumerate(shape) if axis != layer.varying)


def spoil_shapes(rng: random.Random, shapes: Shapes) -> Shapes:
    """The shapes with one of them changed."""
    changed = [list(shape) for shape in shapes]
    shape = rng.choice(changed)
    how = rng.randrange(5)
    if how == 0 and shape:
        shape[rng.randrange(len(shape))] += rng.choice([-1, 1, 2])
    elif how == 1 and shape:
        shape.pop(rng.randrange(len(shape)))
    elif how == 2:
        shape.insert(rng.randint(0, len(shape)), rng.randint(1, 3))
    elif how == 3 and shape:
        shape[rng.randrange(len(shape))] = 0
    else:
        shape.clear()
    return [tuple(max(0, n) for n in shape) for shape in changed]


def spoil_param(rng: random.Random, name: str, message) -> None:
    """Another number, word or count in one field of the type's own message."""
    fields = caffe.layers.base.REGISTRY[name].reads
    if not fields:
        return
    own = getattr(message, rng.choice(fields))
    if not hasattr(own, "DESCRIPTOR"):  # a repeated message
        own = own[0] if own else own.add()
    field = rng.choice(list(own.DESCRIPTOR.fields))
    kinds = {
        FieldDescriptor.CPPTYPE_INT32: lambda: rng.randint(-5, 6),
        FieldDescriptor.CPPTYPE_UINT32: lambda: rng.randint(0, 6),
        FieldDescriptor.CPPTYPE_BOOL: lambda: rng.random() < 0.5,
        FieldDescriptor.CPPTYPE_FLOAT: lambda: rng.choice([-1.0, 0.0, 0.5, 2.0]),
        FieldDescriptor.CPPTYPE_ENUM: lambda: rng.choice(field.enum_type.values).number,
    }
    if field.cpp_type not in kinds:
        return
    value = kinds[field.cpp_type]()
    if field.is_repeated:
        numbers = getattr(own, field.name)
        del numbers[rng.randint(0, len(numbers)) :]
        numbers.append(value)
    else:
        setattr(own, field.name, value)


@pytest.mark.parametrize("name", NAMES)
def test_drawn_layers(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for draw in draws(name, DRAWS):
        case, rng = drawn(name, draw)
        layer = make_layer(name, case)
        shapes = [tuple(shape) for shape in case.shapes]
        assert agree(layer, case, shapes, draw), "a row's cases are legal"
        for _ in range(SPOILED if shapes else 0):  # as after net.blobs[...].reshape(...)
            agree(layer, case, spoil_shapes(rng, shapes), draw)


@pytest.mark.parametrize("name", NAMES)
def test_spoiled_layers_are_refused_when_they_are_made_or_run_as_inferred(
    name: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for draw in draws(name, DRAWS):
        case, rng = drawn(name, draw)
        if case.files is not None:
            case.files()
        for _ in range(SPOILED):
            message = layer_param(name, case.param, len(case.shapes), case.phase)
            shapes = [tuple(shape) for shape in case.shapes]
            if shapes and rng.random() < 0.4:
                shapes = spoil_shapes(rng, shapes)
            spoil_param(rng, name, message)
            tops = [Blob() for _ in message.top]
            layer = attached(message, shapes, tops)
            if isinstance(layer, str):
                assert "layer 'l'" in layer
                continue
            assert agree(layer, case, shapes, draw)
            assert [top.shape for top in tops] == infer(layer, shapes)
