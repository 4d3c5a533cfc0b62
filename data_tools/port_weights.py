"""Converts the trained weights of the authors' PyTorch port (a .pth) to a caffemodel of our SF5.

The port computes the same function in another way, and the weights can absorb the differences
exactly. It fuses by the mean (so the next convolution is halved), decodes with convolutions (which
are deconvolutions with weights turned by 180 degrees and inputs and outputs swapped), and takes RGB
and depth as 0..1 (so conv1_1 is adapted to BGR 0..255). It also rounds pooled sizes down: for
images whose sides are not multiples of 32, make the net with `netgen sf5 --pooling floor`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boundary import trust
from boundary.text import shown
from data_tools import blank_net, cli, unpickle
from data_tools.cli import DataError

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block
PORT_EPSILON = 1e-5
FLOOR = 1  # PoolingParameter.round_mode

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """The source of one of our layers. key: the port's convolution, e.g. CBR1_RGB_ENC.0; its
    BatchNorm is the next in the sequence. change: the function to apply to the weight."""

    key: str
    change: Callable[[np.ndarray], np.ndarray]
    bn: str
    scale: str

    @property
    def norm_key(self) -> str:
        """The key of the BatchNorm that follows the convolution."""
        block, _, index = self.key.rpartition(".")
        return f"{block}.{int(index) + 1}"


def halved(weight: np.ndarray) -> np.ndarray:
    """Halves the weight: our fusion adds, the port takes the mean."""
    return weight / 2


def of_bytes(weight: np.ndarray) -> np.ndarray:
    """Adapts the weight from inputs of 0..1 RGB to 0..255 BGR."""
    return weight[:, ::-1] / 255


def deconvolution(weight: np.ndarray) -> np.ndarray:
    """The Deconvolution weight equivalent to a 3x3 convolution of stride 1 and pad 1."""
    return weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def same(weight: np.ndarray) -> np.ndarray:
    """Returns the weight unchanged."""
    return weight


def sources() -> dict[str, Source]:
    """The name of each of our (de)convolutions -> its source."""
    found = {}
    for block, count in enumerate(CONVOLUTIONS, start=1):
        for i in range(1, count + 1):
            name, index = f"conv{block}_{i}", 3 * (i - 1)
            after_fusion = block > 1 and i == 1
            first = block == i == 1
            found[name] = Source(
                f"CBR{block}_RGB_ENC.{index}",
                of_bytes if first else halved if after_fusion else same,
                f"{name}_bn", f"{name}_scale",
            )  # fmt: skip
            found["conv1_1_pair1ch" if first else f"{name}_pair"] = Source(
                f"CBR{block}_DEPTH_ENC.{index}",
                of_bytes if first else same,
                f"{name}_bn_pair", f"{name}_scale_pair",
            )  # fmt: skip
            # The decoder runs a block's convolutions backwards; its last one is `score`.
            if (block, i) == (1, 1):
                continue
            back = 3 * (count - i)
            after_unpool5 = block == 5 and i == count
            found[f"{name}_D"] = Source(
                f"CBR{block}_RGB_DEC.{back}",
                (lambda w: halved(deconvolution(w))) if after_unpool5 else deconvolution,
                f"{name}_D_bn", f"{name}_D_scale",
            )  # fmt: skip
    found["score"] = Source("CBR1_RGB_DEC.3", same, "", "")
    return found


def read_state(path: Path) -> State:
    """The port's state dict, without DataParallel's prefix. Raises DataError for other files."""
    state = unpickle.load_state_dict(path)
    return {key.removeprefix("module."): value for key, value in state.items()}


def transfer(net: Any, state: State, epsilons: dict[str, float], where: str) -> list[str]:
    """Fills the parameters of our SF5; returns the used keys of the state.

    Raises DataError if the net is not SF5, or if a layer is missing or has another shape.
    """
    used: list[str] = []

    def take(key: str) -> np.ndarray:
        if key not in state:
            raise DataError(f"{where}: has no {key}, so it is not the port's FuseNet")
        used.append(key)
        return state[key]

    missing = [name for name in sources() if name not in net.params]
    if missing:
        raise DataError(f"the net has no layer {missing[0]}: expected netgen's sf5")
    for source in sources().values():
        if source.bn and not (
            source.bn in epsilons and {source.bn, source.scale} <= set(net.params)
        ):
            raise DataError(f"the net has no layer {source.bn}: expected netgen's sf5")
    for name, source in sources().items():
        weight, bias = (blob.data for blob in net.params[name])
        _put(weight, source.change(take(f"{source.key}.weight")), name, source.key)
        _put(bias, take(f"{source.key}.bias"), name, source.key)
        if not source.bn:
            continue
        norm = source.norm_key
        mean, variance, factor = (blob.data for blob in net.params[source.bn])
        _put(mean, take(f"{norm}.running_mean"), source.bn, norm)
        ours = take(f"{norm}.running_var") + PORT_EPSILON - epsilons[source.bn]
        _put(variance, ours, source.bn, norm)
        factor[...] = 1
        gain, shift = (blob.data for blob in net.params[source.scale])
        _put(gain, take(f"{norm}.weight"), source.scale, norm)
        _put(shift, take(f"{norm}.bias"), source.scale, norm)
    return used


def _put(target: np.ndarray, values: np.ndarray, layer: str, key: str) -> None:
    if target.shape != values.shape:
        ours, theirs = ("x".join(map(str, shape)) for shape in (target.shape, values.shape))
        raise DataError(f"layer {layer} is {ours} and the port's {key} {theirs}")
    target[...] = values


def rounds_up(param: Any) -> bool:
    """Whether the net's pooling rounds up an odd size somewhere."""
    odd = any(layer.type == "Unpooling" and layer.unpooling_param.output_h for layer in param.layer)
    poolings = [layer.pooling_param for layer in param.layer if layer.type == "Pooling"]
    # Older Caffes have no round_mode and round up.
    return odd and any(getattr(pooling, "round_mode", 0) != FLOOR for pooling in poolings)


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "port_weights")
    parser.add_argument("port", metavar="PORT.pth", type=Path)
    parser.add_argument("net", metavar="NET_PROTOTXT", type=Path)
    parser.add_argument("out", metavar="OUT.caffemodel", type=Path)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept a net with further layers, which keep their fillers' values, and arrays "
        "of the port that fit no layer",
    )
    trust.add_option(parser)
    return parser


def check_complete(net: Any, left: list[str], port: Path, prototxt: Path) -> None:
    """Raise DataError for layers that the port does not fill, and for arrays that are left over."""
    filled = {name for layer, s in sources().items() for name in (layer, s.bn, s.scale)}
    further = [name for name, blobs in net.params.items() if len(blobs) and name not in filled]
    if further:
        raise DataError(
            f"{prototxt}: the port has no weights for these layers: {some(further)} "
            "(accepted with --partial)"
        )
    if left:
        raise DataError(
            f"{port}: these arrays fit no layer of the net: {some(left)} (accepted with --partial)"
        )


def some(names: list[str]) -> str:
    """The first few of the names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return shown(", ".join(names[:5])) + more


def main() -> None:
    """`python -m data_tools.port_weights`."""
    args = cli.parse(arguments())
    state = read_state(args.port)
    param = blank_net.read_prototxt(args.net)
    epsilons = {layer.name: layer.batch_norm_param.eps for layer in param.layer}
    net = blank_net.load(args.net, 1, trusted=args.trust)
    used = set(transfer(net, state, epsilons, str(args.port)))
    left = [key for key in state if key not in used and not key.endswith("num_batches_tracked")]
    if not args.partial:
        check_complete(net, left, args.port, args.net)
    if rounds_up(param):
        cli.say(
            f"{args.net}: pools odd sizes upwards, the port downwards; scores differ unless it "
            "is made with netgen --pooling floor"
        )
    blank_net.save(net, args.out)
    print(f"{args.out}: {len(sources())} layers from {len(used)} arrays of {args.port.name}")
    if left:
        print(f"not used: {shown(', '.join(left))}")


if __name__ == "__main__":
    cli.run(main)
