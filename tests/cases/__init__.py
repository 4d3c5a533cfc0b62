"""One table of cases for each family of layers, and one row in it for each type.

The rows feed the checks of gradients, shapes, ONNX and plans, and the page docs/layers.md. A type
without a row fails a test.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import caffe
from caffe.blob import Blob
from caffe.formats.prototext import parse
from caffe.layers import FAMILIES, Layer, create_layer
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb


@dataclass
class Case:
    """A layer that fits its bottoms.

    param: fields of LayerParameter beside name, type and bottoms; further tops, too. shapes: of the
    bottoms. kinds: their values, as `values` takes them; default "real". files: writes what the
    layer reads into the working directory.
    """

    param: str = ""
    shapes: Sequence[Sequence[int]] = ()
    kinds: tuple[str, ...] = ()
    phase: int = caffe.TRAIN
    tolerance: float = 1e-6  # of the gradient check
    files: Callable[[], None] | None = None


Draw = Callable[[random.Random], Case]


@dataclass(frozen=True)
class Row:
    """What is known of one type.

    draw: a legal case with drawn parameters and bottoms. example: a layer's parameters, for the
    docs. gradient: the bottoms whose gradient is checked; None: all but the type's `labels`; ():
    none. learns: whether the gradients of the parameters are checked.
    """

    draw: Draw
    example: str
    gradient: tuple[int, ...] | None = None
    learns: bool = True
    family: str = field(default="", compare=False)


TABLE: dict[str, Row] = {}


def row(
    name: str,
    example: str = "",
    gradient: tuple[int, ...] | None = None,
    learns: bool = True,
) -> Callable[[Callable[[random.Random, str], Case]], Callable[[random.Random, str], Case]]:
    """Register a function (rng, type) -> Case as the row of a type; decorators may be stacked."""

    def add(
        function: Callable[[random.Random, str], Case],
    ) -> Callable[[random.Random, str], Case]:
        family = function.__module__.rpartition(".")[2]
        TABLE[name] = Row(lambda rng: function(rng, name), example, gradient, learns, family)
        return function

    return add


def from_outside(name: str) -> bool:
    """Whether the type's family reads files, or runs the user's code."""
    family = TABLE[name].family
    return family in ("data", "python_layer") or family.endswith("_data")


def draws(name: str, count: int) -> range:
    """How many cases of a type are tried: `count`, and a third for the types of forks, which are
    many and have their recordings.
    """
    return range(max(2, count // 3) if REGISTRY[name].fork else count)


def shape(rng: random.Random, least: int, most: int, largest: int = 3) -> list[int]:
    """A shape of least .. most axes, each of 1 .. largest."""
    return [rng.randint(1, largest) for _ in range(rng.randint(least, most))]


def some_axis(rng: random.Random, axes: int) -> int:
    """An axis, counted from the front or from behind."""
    return rng.randint(-axes, axes - 1)


def values(kind: str, dims: Sequence[int], seed: int) -> torch.Tensor:
    """Values of one kind, float64: "real", "positive", "off zero" (beyond a tenth), "distinct"
    (below 1), "apart" (distinct whole numbers), "below N" (whole numbers), "places in N" (in each
    plane, no place of N twice), "around 6" (1 to 11, and the negatives of these, beyond a tenth of
    0 and 6), "regions N S" (numbers of images below N and corners within S,
    "even regions": corners are even numbers, an angle behind them is a multiple of 90); for
    detectors "priors" (1, 2, n 4), "truths N C" (1, 1, n, 8) and "detections N C" (1, 1, n, 7), of
    N images and labels below C; "ones"; "numbers A B ..." (these, in this order).
    """
    torch.manual_seed(seed)
    count = torch.Size(dims).numel()
    if kind == "ones":
        return torch.ones(list(dims), dtype=torch.float64)
    if kind.split()[0] in ("priors", "truths", "detections"):
        return _boxes(kind, dims)
    if kind.startswith("below"):
        return torch.randint(int(kind.split()[1]), list(dims)).double()
    if kind.startswith("places"):
        plane = torch.Size(dims[2:]).numel()
        rows = [torch.randperm(int(kind.split()[2]))[:plane] for _ in range(count // plane)]
        return torch.stack(rows).reshape(list(dims)).double()
    if kind.startswith("numbers"):
        return torch.tensor([float(word) for word in kind.split()[1:]]).double().reshape(list(dims))
    if "regions" in kind:
        return regions(kind, dims)
    if kind in ("distinct", "apart"):
        x = torch.randperm(count).reshape(list(dims)).double()
        return x / count if kind == "distinct" else x
    x = torch.randn(list(dims), dtype=torch.float64)
    if kind == "around 6":
        x = torch.rand(list(dims), dtype=torch.float64) * 10 + 1
        return torch.where((x - 6).abs() < 0.1, 3, x) * torch.randn_like(x).sign()
    if kind == "positive":
        return x.abs() + 0.1
    return x + 0.1 * x.sign() if kind == "off zero" else x


def _boxes(kind: str, dims: Sequence[int]) -> torch.Tensor:
    """Boxes within the image and what stands beside them; ValueError if they cannot be had."""
    kind, *limits = kind.split()
    fields = {"priors": 4, "truths": 8, "detections": 7}[kind]
    count, rest = divmod(torch.Size(dims[1:]).numel(), fields * (2 if kind == "priors" else 1))
    if rest or len(dims) < 3 or dims[0] != 1:
        raise ValueError(f"no {kind} have the shape {dims}")
    start, size = (torch.rand(count, 2, dtype=torch.float64) for _ in range(2))
    corners = torch.cat([start * 0.6, start * 0.6 + 0.1 + 0.3 * size], 1)
    if kind == "priors":
        variances = torch.tensor([0.1, 0.1, 0.2, 0.2], dtype=torch.float64).expand(count, 4)
        return torch.stack([corners, variances]).reshape(list(dims))
    images, labels = map(int, limits)
    rows = torch.zeros(count, fields, dtype=torch.float64)
    rows[:, 0] = torch.randint(images, (count,)).sort().values
    rows[:, 1] = torch.randint(1, labels, (count,))
    if kind == "truths":
        rows[:, 3:7], rows[:, 7] = corners, torch.randint(2, (count,))
    else:
        rows[:, 2], rows[:, 3:] = torch.rand(count), corners
    return rows.reshape(list(dims))


def regions(kind: str, dims: Sequence[int]) -> torch.Tensor:
    """Regions of interest, (R, 5) or (R, 6); a few reach beyond the image."""
    if len(dims) != 2:
        raise ValueError("regions lie in rows")
    images, side = (int(word) for word in kind.split()[-2:])
    whole = kind.startswith("even")
    corners = torch.rand(dims[0], 2, 2, dtype=torch.float64).sort(1)[0] * (side + 4) - 2
    corners = corners.flatten(1)
    if whole:
        corners = (corners / 2).round() * 2
    image = torch.randint(images, (dims[0], 1)).double()
    angle = torch.randint(4, (dims[0], 1)).double() * 90
    return torch.cat([image, corners, angle], 1)[:, : dims[1]].reshape(list(dims))


def layer_param(name: str, param: str, bottoms: int, phase: int = caffe.TRAIN) -> pb.LayerParameter:
    """The message of a case's layer "l"; bottoms are bottom0, bottom1, ..., and the
    first top is "top", where the type has any.
    """
    message = parse(f'name: "l" type: "{name}" {param}'.encode(), pb.LayerParameter, "layer")
    message.phase = phase
    if not message.bottom:
        message.bottom.extend(f"bottom{i}" for i in range(bottoms))
    if not message.top and REGISTRY[name].tops != (0, 0):
        message.top.append("top")
    return message


def make_layer(name: str, case: Case) -> Layer:
    """The case's layer, attached to blobs of its shapes, its parameters filled."""
    if case.files is not None:
        case.files()
    message = layer_param(name, case.param, len(case.shapes), case.phase)
    layer = create_layer(message)
    bottoms = [Blob(s) for s in case.shapes]
    layer.attach(bottoms, [Blob() for _ in message.top])
    layer.fill_blobs()
    return layer


for _family in FAMILIES:
    if (Path(__file__).parent / f"{_family}.py").exists():
        importlib.import_module(f"cases.{_family}")
