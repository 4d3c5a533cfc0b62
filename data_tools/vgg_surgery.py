"""Initialises both encoders of a FuseNet with the weights of VGG-16.

SOURCE is VGG_ILSVRC_16_layers.caffemodel (Simonyan and Zisserman, 2015) or a state dict of
torchvision's vgg16 (.pth). Both branches get VGG's convolutions; depth's first layer gets conv1_1
reduced over the colours. BatchNorm and Scale become the identity. Everything else is drawn by its
fillers. Prints a table of the source of each layer's weights.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boundary import trust
from boundary.errors import one_line
from boundary.reading import check_plain, read_bytes, reading
from boundary.text import shown
from caffe.proto import caffe_pb2
from data_tools import blank_net, cli, unpickle
from data_tools.cli import DataError

# VGG-16's convolutions, in order, and their numbers of outputs.
CONVOLUTIONS = {
    "conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128,
    "conv3_1": 256, "conv3_2": 256, "conv3_3": 256, "conv4_1": 512, "conv4_2": 512,
    "conv4_3": 512, "conv5_1": 512, "conv5_2": 512, "conv5_3": 512,
}  # fmt: skip
# Their indices in torchvision's vgg16: features.<index>.weight.
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# Inputs of torchvision's models are (RGB / 255 - mean) / std.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Names of layers that take VGG's weights: VGG's name and a suffix for depth or other inputs.
ENCODER = re.compile(r"(conv[1-5]_[1-3])(_pair1ch|_pair|_1ch|_4ch)?")
DECODER = re.compile(r"(conv[1-5]_[1-3])_D")

Weights = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class Step:
    """A row of the table. source: VGG's layer. done: how its weights were used."""

    layer: str
    source: str
    shape: str
    done: str


def read_source(path: Path) -> tuple[Weights, list[str]]:
    """VGG's convolutions (name -> weight, bias) for BGR 0..255, and the names of its other layers.

    Raises DataError for a file of neither kind, or without one of the convolutions.
    """
    check_plain(path, DataError)
    with reading(path, "a file of weights", DataError), open(path, "rb") as file:
        head = file.read(2)
    # A state dict is a zip archive or, in the old format, a pickle of protocol 2.
    found, rest = _from_torchvision(path) if head in (b"PK", b"\x80\x02") else _from_caffe(path)
    fan_in = 3
    for name, outputs in CONVOLUTIONS.items():
        if name not in found:
            raise DataError(f"{path}: has no weights of {name}, so it is not VGG-16")
        expected = (outputs, fan_in, 3, 3)
        weight, bias = found[name]
        if weight.shape != expected or bias.shape != (outputs,):
            raise DataError(f"{path}: {name} has shape {weight.shape}, VGG-16's is {expected}")
        fan_in = outputs
    return found, rest


def _from_caffe(path: Path) -> tuple[Weights, list[str]]:
    model = caffe_pb2.NetParameter()
    with reading(path, "a .caffemodel or a PyTorch file", DataError):
        model.ParseFromString(read_bytes(path, DataError))
    found, rest = {}, []
    for layer in (*model.layers, *model.layer):
        # In the oldest format, name and blobs are one level deeper.
        inner = layer.layer if hasattr(layer, "layer") and layer.HasField("layer") else layer
        if inner.name in CONVOLUTIONS and len(inner.blobs) == 2:
            where = f"{path}: layer {inner.name!r}, blob"
            weight, bias = (_array(blob, f"{where} {i}") for i, blob in enumerate(inner.blobs))
            found[inner.name] = weight, bias.ravel()
        elif inner.blobs:
            rest.append(inner.name)
    return found, rest


def _array(blob: Any, where: str) -> np.ndarray:
    data = np.fromiter(blob.data or blob.double_data, np.float32)
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    if math.prod(shape) != data.size or min(shape) < 0:
        text = one_line("x".join(map(str, shape)), 60)
        raise DataError(f"{where}: {data.size} values do not fill the shape {text}")
    return data.reshape(shape)


def _from_torchvision(path: Path) -> tuple[Weights, list[str]]:
    state = unpickle.load_state_dict(path)
    if "features.0.weight" not in state:
        raise DataError(f"{path}: not a state dict of torchvision's vgg16 (no features.0.weight)")
    found, used = {}, set()
    for name, index in zip(CONVOLUTIONS, TORCHVISION, strict=True):
        keys = f"features.{index}.weight", f"features.{index}.bias"
        if all(key in state for key in keys):
            found[name] = tuple(state[key] for key in keys)
            used |= set(keys)
    if "conv1_1" in found:
        found["conv1_1"] = for_bgr_bytes(*found["conv1_1"])
    return found, sorted({key.rpartition(".")[0] for key in state if key not in used})


def for_bgr_bytes(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Converts a convolution for normalised RGB (N x 3 x k x k, N) to one for BGR 0..255.

    Results are the same except at the border, where zero padding now means black, not the mean.
    """
    bias = bias - np.einsum("ncyx,c->n", weight, MEAN / STD)
    weight = weight / (255 * STD)[None, :, None, None]
    return weight[:, ::-1].copy(), bias


def without_mean(weights: Weights, mean: np.ndarray) -> Weights:
    """The weights, with the subtraction of VGG's BGR mean folded into conv1_1."""
    weight, bias = weights["conv1_1"]
    folded = bias - np.einsum("ncyx,c->n", weight.astype(np.float64), mean)
    return {**weights, "conv1_1": (weight, folded)}


def first_layer(weight: np.ndarray, channels: int, reduce: str) -> np.ndarray | None:
    """VGG's first weight (N x 3 x k x k) for 3 (colour), 1 (depth) or 4 (both) input channels."""
    reduced = getattr(weight, reduce)(axis=1, keepdims=True)
    return {3: weight, 1: reduced, 4: np.concatenate([weight, reduced], 1)}.get(channels)


def operate(net: Any, types: dict[str, str], weights: Weights, reduce: str, decoder: str,
            epsilons: dict[str, float]) -> list[Step]:  # fmt: skip
    """Copies the weights into the net's parameters; returns one step per layer.

    Raises DataError if a layer's shape is not VGG's.
    """
    steps = []
    for name, blobs in net.params.items():
        shape = " ".join("x".join(map(str, blob.data.shape)) for blob in blobs)
        encoder, mirrored = ENCODER.fullmatch(name), DECODER.fullmatch(name)
        source, done = "-", "by its fillers"
        if types[name] == "BatchNorm":
            mean, variance, factor = (blob.data for blob in blobs)
            # Makes the root of variance + eps exactly 1.
            mean[...], variance[...], factor[...] = 0, 1 - epsilons[name], 1
            done = "identity"
        elif types[name] == "Scale":
            for blob, value in zip(blobs, (1, 0), strict=False):
                blob.data[...] = value
            done = "identity"
        elif types[name] == "Convolution" and encoder and encoder[1] in weights:
            source, done = _transplant(blobs, encoder[1], weights, reduce, name)
        elif types[name] == "Deconvolution" and mirrored and decoder == "mirror":
            source, done = _mirror(blobs, mirrored[1], weights, name)
        steps.append(Step(name, source, shape, done))
    return steps


def _transplant(blobs: Any, vgg: str, weights: Weights, reduce: str, name: str) -> tuple[str, str]:
    weight, bias = weights[vgg]
    target = blobs[0].data
    done = "copied"
    if vgg == "conv1_1" and target.shape[1] != 3:
        fitted = first_layer(weight, target.shape[1], reduce)
        done = f"{reduce} over colour" if target.shape[1] == 1 else f"copied, depth {reduce}"
        weight = weight if fitted is None else fitted
    _check_shape(name, target.shape, vgg, weight.shape)
    target[...] = weight
    if len(blobs) > 1:
        blobs[1].data[...] = bias
    return vgg, done


def _mirror(blobs: Any, vgg: str, weights: Weights, name: str) -> tuple[str, str]:
    # A deconvolution with a convolution's weight is the transpose of that convolution.
    weight, _ = weights[vgg]
    _check_shape(name, blobs[0].data.shape, vgg, weight.shape)
    blobs[0].data[...] = weight
    return vgg, "transposed, bias by filler"


def _check_shape(name: str, have: tuple, vgg: str, given: tuple) -> None:
    if tuple(have) != tuple(given):
        shapes = "x".join(map(str, have)), "x".join(map(str, given))
        raise DataError(
            f"layer {name} is {shapes[0]} and VGG-16's {vgg} {shapes[1]}: expected a net of the "
            "full width (netgen without --width-multiplier)"
        )


def table(steps: list[Step]) -> str:
    """The steps as aligned text."""
    rows = [("layer", "from", "shapes", "what was done")]
    rows += [(step.layer, step.source, step.shape, step.done) for step in steps]
    first, second, third = (max(len(row[i]) for row in rows) for i in range(3))
    return "\n".join(
        f"{layer:{first}}  {source:{second}}  {shape:{third}}  {done}"
        for layer, source, shape, done in rows
    )


def parse_mean(text: str) -> np.ndarray:
    """argparse type: B,G,R."""
    try:
        mean = np.array([float(part) for part in text.split(",")])
    except ValueError:
        mean = np.empty(0)
    if mean.shape != (3,) or not np.isfinite(mean).all():
        raise argparse.ArgumentTypeError(f"'{text}' is not B,G,R, e.g. 103.939,116.779,123.68")
    return mean


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "vgg_surgery")
    parser.add_argument("source", metavar="SOURCE", type=Path)
    parser.add_argument("net", metavar="NET_PROTOTXT", type=Path)
    parser.add_argument("out", metavar="OUT.caffemodel", type=Path)
    parser.add_argument(
        "--reduce",
        choices=("mean", "sum"),
        default="mean",
        help="how the colour weights become depth's one channel (default: mean, as the authors')",
    )
    parser.add_argument(
        "--decoder",
        choices=("msra", "mirror"),
        default="msra",
        help="initialise deconvolutions by the net's fillers (msra, default), or as the transposes "
        "of VGG's convolutions",
    )
    parser.add_argument(
        "--mean",
        type=parse_mean,
        metavar="B,G,R",
        help="fold the subtraction of this mean from colour, which the original model's inputs "
        "had, into conv1_1 (default: no; torchvision's normalisation is always folded in)",
    )
    parser.add_argument(
        "--seed", type=cli.whole(0), default=1, help="seed of the fillers (default: 1)"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept a net that lacks layers for some of VGG-16's convolutions",
    )
    trust.add_option(parser)
    return parser


def main() -> None:
    """`python -m data_tools.vgg_surgery`."""
    args = cli.parse(arguments())
    weights, rest = read_source(args.source)
    if args.mean is not None:
        weights = without_mean(weights, args.mean)
    net = blank_net.load(args.net, args.seed, trusted=args.trust)
    param = blank_net.read_prototxt(args.net)
    types = {layer.name: layer.type for layer in param.layer}
    epsilons = {layer.name: layer.batch_norm_param.eps for layer in param.layer}
    steps = operate(net, types, weights, args.reduce, args.decoder, epsilons)
    taken = {step.source for step in steps}
    if not taken & set(CONVOLUTIONS):
        raise DataError(f"{args.net}: has no layer named as VGG-16's convolutions are")
    homeless = [name for name in CONVOLUTIONS if name not in taken]
    if homeless and not args.partial:
        raise DataError(
            f"{args.net}: has no layers for these of VGG-16's convolutions: "
            f"{', '.join(homeless)} (accepted with --partial)"
        )
    blank_net.save(net, args.out)
    print("\n".join(map(shown, table(steps).splitlines())))
    unused = homeless + rest
    if unused:
        print(f"not used of {args.source.name}: {shown(', '.join(unused))}")


if __name__ == "__main__":
    cli.run(main)
