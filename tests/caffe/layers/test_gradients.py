"""Every layer's gradient against finite differences in float64, over drawn parameters and shapes.

Values stay away from ties and kinks; random masks are frozen; Unpooling does not overlap.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import caffe
from caffe.layers import Layer
from caffe.layers.base import REGISTRY

DRAWS = 6

# No top, or no gradient in Caffe either; layers of the user's (Python) bring their own.
WITHOUT_GRADIENT = {
    *("Accuracy", "ArgMax", "Threshold", "Silence", "HDF5Output", "Python"),
    *("Input", "DummyData", "Data", "ImageData", "WindowData", "MemoryData", "HDF5Data"),
}


@dataclass
class Case:
    """A layer and its bottoms: values, or the name of what to draw."""

    param: str
    shapes: list[list[int]]
    kinds: tuple[str, ...] = ()
    phase: int = caffe.TRAIN
    tolerance: float = 1e-6


Draw = Callable[[random.Random], Case]
CASES: dict[str, Draw] = {}


def case(*names: str) -> Callable[[Callable], Callable]:
    """Register a function (rng, type name) -> Case for these layer types."""

    def add(function: Callable) -> Callable:
        for name in names:
            CASES[name] = lambda rng, name=name: function(rng, name)
        return function

    return add


def shape(rng: random.Random, least: int, most: int, largest: int = 3) -> list[int]:
    return [rng.randint(1, largest) for _ in range(rng.randint(least, most))]


def some_axis(rng: random.Random, axes: int) -> int:
    return rng.randint(-axes, axes - 1)


@case("ReLU", "ELU", "Sigmoid", "TanH", "Swish", "BNLL", "AbsVal", "Dropout")
def activation(rng, name):
    settings = {
        "ReLU": f"relu_param {{ negative_slope: {rng.choice([0, 0.1, 0.5])} }}",
        "ELU": f"elu_param {{ alpha: {rng.uniform(0.5, 2)} }}",
        "Swish": f"swish_param {{ beta: {rng.uniform(-2, 2)} }}",
        "Dropout": f"dropout_param {{ dropout_ratio: {rng.uniform(0.1, 0.8)} }}",
    }
    return Case(settings.get(name, ""), [shape(rng, 1, 5)], ("off zero",))


@case("PReLU")
def prelu(rng, name):
    shared = rng.choice(["true", "false"])
    return Case(f"prelu_param {{ channel_shared: {shared} }}", [shape(rng, 2, 4)], ("off zero",))


@case("Clip")
def clip(rng, name):
    return Case(f"clip_param {{ min: -0.05 max: {rng.choice([0.05, 9])} }}", [shape(rng, 1, 4)])


@case("Exp", "Log", "Power")
def function_of_x(rng, name):
    base = rng.choice([-1, 2, 0.5, 10])
    scale, shift = rng.uniform(0.3, 2), rng.uniform(0.1, 2)
    first = f"power: {rng.choice([0, 1, 2, 3, -1, 0.5])}" if name == "Power" else f"base: {base}"
    text = f"{name.lower()}_param {{ {first} scale: {scale} shift: {shift} }}"
    return Case(text, [shape(rng, 1, 4)], ("positive",))


@case("Convolution", "Deconvolution", "Im2col")
def kernels(rng, name):
    axes = rng.choice([1, 2, 2, 3, 4])
    group = rng.choice([1, 2])
    image = [rng.randint(2, 4 if axes < 3 else 2) for _ in range(axes)]
    text = f"num_output: {2 * group} group: {group} kernel_size: {rng.randint(1, 2)} "
    text += f"pad: {rng.choice([0, 0, 1])} " if name != "Deconvolution" else ""
    text += f"stride: {rng.randint(1, 2)} dilation: {rng.randint(1, 2)} "
    text += f"bias_term: {rng.choice(['true', 'false'])}"
    if name != "Deconvolution" and "dilation: 2" in text:
        image = [n + 1 for n in image]
    return Case(f"convolution_param {{ {text} }}", [[rng.randint(1, 2), 2 * group, *image]])


@case("Pooling")
def pooling(rng, name):
    method = rng.choice(["MAX", "AVE", "STOCHASTIC"])
    kernel = rng.randint(2, 3)
    pad = rng.randint(0, kernel - 1) if method != "STOCHASTIC" else 0
    text = f"pool: {method} kernel_size: {kernel} stride: {rng.randint(1, 3)} pad: {pad}"
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    image = [rng.randint(3, 5), rng.randint(3, 5)]
    kind = "positive" if method == "STOCHASTIC" else "distinct"
    return Case(f"pooling_param {{ {text} }}", [[1, 2, *image]], (kind,), phase)


@case("SPP")
def pyramid(rng, name):
    text = f"spp_param {{ pyramid_height: {rng.randint(1, 2)} pool: {rng.choice(['MAX', 'AVE'])} }}"
    return Case(text, [[1, 2, rng.randint(3, 6), rng.randint(3, 6)]], ("distinct",))


@case("Unpooling")
def unpooling(rng, name):
    return Case("unpooling_param { scale: 2 }", [[2, 2, 2, 3]] * 2, ("real", "places in 24"))


@case("Crop")
def crop(rng, name):
    image = [rng.randint(2, 4) for _ in range(4)]
    size = [rng.randint(1, n - 1) for n in image]
    text = f"crop_param {{ axis: {rng.randint(0, 3)} offset: {rng.randint(0, 1)} }}"
    return Case(text, [image, size])


@case("LRN")
def response(rng, name):
    region = rng.choice(["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
    text = f"local_size: {rng.choice([1, 3, 5])} alpha: 0.7 beta: 0.6 k: 1.3 norm_region: {region}"
    return Case(f"lrn_param {{ {text} }}", [[1, rng.randint(2, 4), 3, 2]])


@case("BatchNorm")
def batch_norm(rng, name):
    fixed = rng.choice(["", "use_global_stats: true", "use_global_stats: false"])
    bottom = [rng.randint(2, 3), *shape(rng, 1, 3)]
    return Case(f"batch_norm_param {{ eps: 0.01 {fixed} }}", [bottom])


@case("MVN")
def mean_variance(rng, name):
    text = f"normalize_variance: {rng.choice(['true', 'false'])} "
    text += f"across_channels: {rng.choice(['true', 'false'])}"
    return Case(f"mvn_param {{ {text} }}", [[2, rng.randint(1, 2), 2, 3]])


@case("Scale", "Bias")
def broadcast(rng, name):
    bottom = shape(rng, 2, 4)
    axis = rng.randint(0, len(bottom) - 1)
    count = rng.randint(0, len(bottom) - axis)
    text = f"axis: {axis} " + ("bias_term: true " if name == "Scale" and rng.random() < 0.5 else "")
    if rng.random() < 0.5:
        second = [bottom[axis : axis + count]]
    else:
        text, second = text + f"num_axes: {count}", []
    return Case(f"{name.lower()}_param {{ {text} }}", [bottom, *second])


@case("Split", "Flatten", "Softmax", "Tile", "Reshape", "Slice", "Reduction")
def rearrangement(rng, name):
    bottom = shape(rng, 1, 4)
    axis = some_axis(rng, len(bottom))
    operation = rng.choice(["SUM", "ASUM", "SUMSQ", "MEAN"])
    settings = {
        "Flatten": f"flatten_param {{ axis: {axis} }}",
        "Softmax": f"softmax_param {{ axis: {axis} }}",
        "Tile": f"tile_param {{ axis: {axis} tiles: 2 }}",
        "Reshape": "reshape_param { shape { dim: -1 dim: 1 } }",
        "Slice": f'slice_param {{ axis: {axis} }} top: "a"',
        "Reduction": f"reduction_param {{ axis: {axis} operation: {operation} coeff: 0.7 }}",
        "Split": 'top: "a" top: "b"',
    }
    return Case(settings[name], [bottom], ("off zero",))


@case("Concat", "Eltwise")
def joining(rng, name):
    bottom = shape(rng, 1, 4)
    bottoms = [list(bottom) for _ in range(rng.randint(2, 4))]
    if name == "Concat":
        axis = some_axis(rng, len(bottom))
        for b in bottoms:
            b[axis] = rng.randint(1, 3)
        return Case(f"concat_param {{ axis: {axis} }}", bottoms)
    operation = rng.choice(["PROD", "SUM", "MAX"])
    text = f"operation: {operation} "
    if operation == "SUM":
        text += " ".join(f"coeff: {rng.uniform(-1, 1)}" for _ in bottoms)
    if operation == "PROD":
        text += f"stable_prod_grad: {rng.choice(['true', 'false'])}"
    return Case(f"eltwise_param {{ {text} }}", bottoms, ("off zero",) * len(bottoms))


@case("InnerProduct")
def inner_product(rng, name):
    bottom = shape(rng, 1, 4)
    text = f"num_output: {rng.randint(1, 3)} axis: {some_axis(rng, len(bottom))} "
    text += f"bias_term: {rng.choice(['true', 'false'])} "
    text += f"transpose: {rng.choice(['true', 'false'])}"
    return Case(f"inner_product_param {{ {text} }}", [bottom])


@case("Embed")
def embedding(rng, name):
    text = f"num_output: 2 input_dim: 4 bias_term: {rng.choice(['true', 'false'])}"
    return Case(f"embed_param {{ {text} }}", [shape(rng, 1, 3)], ("below 4",))


@case("Parameter")
def parameter(rng, name):
    dims = " ".join(f"dim: {d}" for d in shape(rng, 1, 3))
    return Case(f"parameter_param {{ shape {{ {dims} }} }}", [])


@case("BatchReindex")
def reindex(rng, name):
    return Case("", [[3, *shape(rng, 0, 2)], [rng.randint(1, 5)]], ("real", "below 3"))


@case("Filter")
def selection(rng, name):
    bottoms = [[4, *shape(rng, 0, 2)] for _ in range(rng.randint(1, 2))]
    tops = " ".join(f'top: "top{i}"' for i in range(len(bottoms)))
    return Case(tops, [*bottoms, [4, 1]], ("real",) * len(bottoms) + ("below 2",))


LOSS_SETTINGS = ("", "normalization: FULL", "normalization: VALID", "normalization: NONE")


@case("SoftmaxWithLoss", "InfogainLoss")
def labelled(rng, name):
    classes = rng.randint(2, 4)
    positions = shape(rng, 0, 2)
    text = f"ignore_label: 1 {rng.choice(LOSS_SETTINGS)}"
    if name == "SoftmaxWithLoss" and rng.random() < 0.5:
        text += " use_weights: true " + " ".join(
            f"label_weights: {rng.uniform(0.1, 3)}" for _ in range(classes)
        )
    extra = [[classes, classes]] if name == "InfogainLoss" else []
    bottoms = [[3, classes, *positions], [3, *positions], *extra]
    return Case(f"loss_param {{ {text} }}", bottoms, ("real", f"below {classes}", "real"))


@case("SigmoidCrossEntropyLoss")
def cross_entropy(rng, name):
    bottom = [3, *shape(rng, 0, 2)]
    text = f"loss_param {{ ignore_label: 0 {rng.choice(LOSS_SETTINGS)} }}"
    return Case(text, [bottom, bottom], ("real", "below 2"))


@case("EuclideanLoss")
def euclidean(rng, name):
    bottom = [3, *shape(rng, 0, 2)]
    return Case("", [bottom, bottom])


@case("HingeLoss", "MultinomialLogisticLoss")
def per_sample(rng, name):
    norm = f"hinge_loss_param {{ norm: {rng.choice(['L1', 'L2'])} }}" if name == "HingeLoss" else ""
    kind = "positive" if name == "MultinomialLogisticLoss" else "real"
    return Case(norm, [[3, 4, *shape(rng, 0, 2)], [3]], (kind, "below 4"))


@case("ContrastiveLoss")
def contrastive(rng, name):
    text = f"margin: 4 legacy_version: {rng.choice(['true', 'false'])}"
    bottom = [4, 3]
    # Caffe's gradient has the distance plus 1e-4 where the derivative has the distance.
    kinds = ("real", "real", "below 2")
    return Case(
        f"contrastive_loss_param {{ {text} }}", [bottom, bottom, [4]], kinds, tolerance=1e-3
    )


@case("LSTMUnit")
def unit(rng, name):
    n, d = rng.randint(1, 3), rng.randint(1, 3)
    kinds = ("real", "real", "below 2")
    return Case('top: "c" top: "h"', [[1, n, d], [1, n, 4 * d], [1, n]], kinds)


@case("RNN", "LSTM")
def recurrent(rng, name):
    t, n = rng.randint(1, 3), rng.randint(1, 2)
    static = [[n, 2]] if rng.random() < 0.5 else []
    text = f"recurrent_param {{ num_output: {rng.randint(1, 3)} }}"
    return Case(text, [[t, n, 2], [t, n], *static], ("real", "below 2", "real"))


def values(kind: str, dims: list[int], seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    count = torch.Size(dims).numel()
    if kind.startswith("below"):
        return torch.randint(int(kind.split()[1]), dims).double()
    if kind.startswith("places"):  # in each plane, no place twice
        plane = torch.Size(dims[2:]).numel()
        rows = [torch.randperm(int(kind.split()[2]))[:plane] for _ in range(count // plane)]
        return torch.stack(rows).reshape(dims).double()
    if kind == "distinct":
        return torch.randperm(count).reshape(dims).double() / count
    x = torch.randn(dims, dtype=torch.float64)
    if kind == "positive":
        return x.abs() + 0.1
    return x + 0.1 * x.sign() if kind == "off zero" else x


def frozen(layer: Layer, inputs: list[torch.Tensor], checked: list[int]) -> Callable:
    """The layer as a function of the checked inputs; random numbers and state are the same ones."""

    def function(*given: torch.Tensor) -> list[torch.Tensor]:
        tensors = list(inputs)
        for i, tensor in zip(checked, given, strict=True):
            tensors[i] = tensor
        torch.manual_seed(1)
        if hasattr(layer, "reset"):
            layer.reset()
        bottoms = tensors[: layer.num_bottoms]
        tops = layer.forward(bottoms, tensors[layer.num_bottoms :])
        return [tops] if isinstance(tops, torch.Tensor) else list(tops)

    return function


def test_every_layer_with_a_gradient_is_drawn():
    builtin = {name for name, c in REGISTRY.items() if c.__module__.startswith("caffe.layers")}
    assert set(CASES) == builtin - WITHOUT_GRADIENT


@pytest.mark.parametrize("draw", range(DRAWS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_gradient_is_the_derivative(layer_of, name, draw):
    seed = zlib.crc32(f"{name} {draw}".encode())
    drawn = CASES[name](random.Random(seed))
    layer = layer_of(f'type: "{name}" {drawn.param}', *drawn.shapes, phase=drawn.phase)
    kinds = drawn.kinds or ("real",) * len(drawn.shapes)
    pairs = zip(kinds, drawn.shapes, strict=False)
    inputs = [values(kind, dims, seed + i) for i, (kind, dims) in enumerate(pairs)]
    inputs += [values("real", list(b.shape), seed + 7 + i) for i, b in enumerate(layer.blobs)]
    if name == "BatchNorm":
        inputs[1:] = [x.abs() + 0.5 for x in inputs[1:]]
    checked = [i for i in range(layer.num_bottoms) if i not in layer.labels]
    if name in ("Unpooling", "Crop"):
        checked = [0]  # the second bottom is a mask, or only gives its size
    if name != "BatchNorm":  # whose blobs are statistics
        checked += range(layer.num_bottoms, len(inputs))
    given = [inputs[i].requires_grad_() for i in checked]
    assert torch.autograd.gradcheck(
        frozen(layer, [x.detach() for x in inputs], checked),
        given,
        atol=drawn.tolerance,
        rtol=drawn.tolerance,
    )
