"""A net in int8, as an ONNX file for onnxruntime and OpenVINO.

    python -m caffe.quantize deploy.prototxt weights.caffemodel lmdb/train net.onnx
    python -m caffe.quantize model.fusenet lmdb/train net.onnx
    python -m caffe.quantize --data train.prototxt deploy.prototxt weights.caffemodel LMDB net.onnx

Convolutions, deconvolutions and inner products get weights of 8 bits, with a scale for each
channel, and take and give values of 8 bits. The ranges of these are found on records of the LMDB,
which must be of the kind that the net is used on; labels in them do not matter. Layers that lose
more than they save stay in float32.

`python -m eval_tools.evaluate NET WEIGHTS LMDB --versus OUT` scores the net and its int8 form.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boundary import packed
from boundary.errors import shown
from boundary.streams import say
from caffe.commands.script import load_engine, run
from caffe.convert import (
    add_net_options,
    computed_outputs,
    not_finite,
    read_net,
    set_meanings,
    target_of,
)
from caffe.errors import CaffeError
from caffe.export import int8, programs
from caffe.formats.files import atomic_write
from caffe.formats.onnx import TARGETS, Target

# Other modules of the engine are imported where they are used: they load torch.
if TYPE_CHECKING:
    import onnx

    from caffe.export.probes import Feeds
    from caffe.net import Net

PathLike = str | os.PathLike[str]

FRAMES = 300  # records on which ranges are found
MEASURED = 4  # records on which layers are measured
CHECKED = 16  # records on which the file is compared
# Programs that read the files. OpenVINO's run in onnxruntime, too. OpenCV 5.0 takes no weights that
# DequantizeLinear gives, TensorRT no uint8.
READERS = ("openvino", "onnxruntime")
TARGET = READERS[0]


@dataclass(frozen=True)
class Quantised:
    """What is known of a file that was written.

    layers: how many could be in int8. kept: those in float32. work: the share of their
    multiplications in int8. noise: of each output. program: what computed it. size: of the file, in
    bytes. short: whether weights have 7 bits.
    """

    layers: int
    kept: tuple[str, ...]
    work: float
    noise: Mapping[str, int8.Noise]
    program: str
    size: int
    short: bool


def quantize(
    net: Net,
    lmdb: PathLike,
    path: PathLike,
    *,
    frames: int = FRAMES,
    method: str = "percentile",
    auto: bool = True,
    keep: Sequence[str] = (),
    data: PathLike | None = None,
    outputs: Sequence[str] | None = None,
    target: str = TARGET,
    short_weights: bool | None = None,
    trusted: bool = False,
    tell: Callable[[str], object] = say,
) -> Quantised:
    """Write a net in int8 as an ONNX file (opset 17, QuantizeLinear and DequantizeLinear).

    lmdb, data, trusted: as export.calibration.Calibration's. frames: records for the ranges, drawn
        evenly from the LMDB. method: how a value's range follows from them: percentile (99.99 %),
        minmax or entropy.
    auto: measure each layer's noise, and leave in float32 those that have the most for their work
        (export.int8.left_in_float). keep: patterns of layers' names that stay in float32.
    outputs: as caffe.convert.to_onnx's. target: openvino, whose files onnxruntime reads, too, but
        computes in part in float32, or onnxruntime. short_weights: weights of 7 bits, for x86
        processors without VNNI; None: if this is one.
    tell: is told of what takes long; by default stderr is.

    Raises CaffeError for records that do not fit, a pattern without a layer, a layer without an
    ONNX form, a file that the target's program does not take, and if the packages onnx and
    onnxruntime are missing; then nothing is written.
    """
    from caffe.export.calibration import Calibration
    from caffe.export.onnx import write_graph
    from caffe.export.probes import inputs_of
    from caffe.kernels import processor

    int8.check_installed()
    if target not in READERS:
        raise CaffeError(f"int8 files are for {' or '.join(READERS)}, not for {target!r}")
    program = target_of(target)
    outputs = list(outputs or computed_outputs(net))
    records = Calibration(net, inputs_of(net, outputs), lmdb, data, trusted)
    chosen = records.evenly(frames)
    taken = set(chosen)
    others = [n for n in range(len(records)) if n not in taken] or chosen
    # Without MaxUnpool: onnxruntime would look for the places of maxima among rounded values.
    model = write_graph(net, outputs, max_unpool=False, target=program)
    nodes = int8.weighted_nodes(model, net.params)
    if not nodes:
        raise CaffeError("the net has no convolution or inner product that could be in int8")
    kept = _matching(nodes, keep)
    if len(kept) == len(nodes):
        raise CaffeError("--keep: all layers would stay in float32, and none be in int8")
    tell(f"{shown(lmdb)}: ranges from {len(chosen)} of {len(records)} records")
    feeds, rounded = records.feeds(chosen), target == "onnxruntime"
    short = processor.saturates() if short_weights is None else short_weights
    quantiser = int8.Quantiser(model, feeds, method, short, rounded)
    work = _work(net, nodes)
    if auto:
        few = [*records.feeds(_some(others, MEASURED))]
        free = [node for node in nodes if node not in kept]
        tell(f"noise of {len(free)} layers, each measured by itself")
        measured = _noise_of_each(quantiser, model, free, few)
        kept |= int8.left_in_float(measured, {node: work[node] for node in free})
    made = quantiser.quantised([node for node in nodes if node not in kept])
    made.producer_name = model.producer_name
    found, title = _checked(model, made, [*records.feeds(_some(others, CHECKED))], program)
    content = made.SerializeToString()
    with atomic_write(path) as beside:
        beside.write_bytes(content)
    in_float = sum(work[node] for node in kept) / max(sum(work.values()), 1)
    names = tuple(nodes[node] for node in nodes if node in kept)
    noise = dict(zip(outputs, found, strict=True))
    return Quantised(len(nodes), names, 1 - in_float, noise, title, len(content), short)


def _some(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of these numbers, which lie evenly among them."""
    count = min(count, len(numbers))
    return [numbers[(2 * i + 1) * len(numbers) // (2 * count)] for i in range(count)]


def _matching(nodes: Mapping[str, str], patterns: Sequence[str]) -> set[str]:
    """The nodes whose layers' names match a pattern. Raises CaffeError for one that none does."""
    found: set[str] = set()
    for pattern in patterns:
        matching = {n for n, layer in nodes.items() if fnmatch.fnmatchcase(layer, pattern)}
        if not matching:
            raise CaffeError(
                f"--keep {pattern}: no layer that could be in int8 has such a name; they are "
                f"{', '.join(nodes.values())}"
            )
        found |= matching
    return found


def _work(net: Net, nodes: Mapping[str, str]) -> dict[str, int]:
    """The multiplications of each node."""
    of_layer = {}
    for layer, bottoms, _ in net.wiring:
        of_layer[layer.name] = layer.macs([tuple(net.wiring.blobs[i].shape) for i in bottoms])
    return {node: of_layer[layer] for node, layer in nodes.items()}


def _noise_of_each(
    quantiser: int8.Quantiser,
    model: onnx.ModelProto,
    nodes: Sequence[str],
    feeds: Sequence[Feeds],
) -> dict[str, float]:
    """The energy of the noise that each node adds if it alone is in int8: the mean over outputs."""
    exact = _answers(int8.Model(model), feeds)
    found = {}
    for node in nodes:
        noisy = _answers(int8.Model(quantiser.quantised([node])), feeds)
        pairs = zip(exact, noisy, strict=True)
        found[node] = float(np.mean([int8.noise(a, b).energy for a, b in pairs]))
    return found


def _answers(model: int8.Model, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    """For each output of the model the answers to all feeds."""
    return [*map(list, zip(*(model.answers(one) for one in feeds), strict=True))]


def _checked(
    model: onnx.ModelProto, made: onnx.ModelProto, feeds: Sequence[Feeds], target: Target
) -> tuple[list[int8.Noise], str]:
    """The noise of each output, and what computed it: onnxruntime. Another program that the file is
    for must take it.
    """
    exact, noisy = _answers(int8.Model(model), feeds), _answers(int8.Model(made), feeds)
    title = programs.title(TARGETS["onnxruntime"])
    if target.name != "onnxruntime" and programs.is_installed(target):
        names = [item.name for item in made.graph.output]
        programs.answers(target, made.SerializeToString(), feeds[0], names)
        title += f"; {programs.title(target)} takes the file"
    return [int8.noise(a, b) for a, b in zip(exact, noisy, strict=True)], title


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.quantize",
        usage="%(prog)s [options] NET WEIGHTS LMDB OUT\n       %(prog)s [options] PACKED LMDB OUT",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a deploy prototxt and its weights, or a packed model, which has both; an LMDB of "
        "records; the file to write (.onnx)",
    )
    add_net_options(parser)
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--frames",
        type=_positive,
        default=FRAMES,
        metavar="N",
        help=f"records for the ranges of values, drawn evenly from the LMDB (default: {FRAMES})",
    )
    group.add_argument(
        "--method",
        choices=list(int8.METHODS),
        default="percentile",
        help=f"how a range follows from the values: {int8.PERCENTILE} %% of them (percentile, the "
        "default), all of them (minmax), or the cut that loses the least information (entropy)",
    )
    group.add_argument(
        "--data",
        metavar="PROTOTXT",
        help="the training net, by whose data layer (mean, scale, crop) records become the net's "
        "inputs (default: as they are; colour and depth of RGB-D records are taken apart)",
    )
    group = parser.add_argument_group("what stays in float32")
    group.add_argument(
        "--float",
        choices=("auto", "none"),
        default="auto",
        help="layers are measured, and those that have the most noise for their work stay in "
        f"float32, up to {int8.FLOAT_SHARE:.0%}% of the multiplications (auto, the default); none "
        "but those of --keep do",
    )
    group.add_argument(
        "--keep",
        metavar="PATTERN",
        action="append",
        default=[],
        help="layers of these names stay in float32, such as 'conv1_*'; may be repeated",
    )
    group = parser.add_argument_group("the file")
    group.add_argument(
        "--for",
        dest="target",
        choices=READERS,
        default=TARGET,
        help=f"the program that is to read the file (default: {TARGET}, whose files onnxruntime "
        "reads, too, but computes more slowly)",
    )
    group.add_argument(
        "--outputs", metavar="BLOB,...", help="blobs to give out (default: the net's outputs)"
    )
    group.add_argument(
        "--short-weights",
        action=argparse.BooleanOptionalAction,
        help="weights of 7 bits, for x86 processors without VNNI, whose sums of 8-bit products "
        "saturate (default: if this is one)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    whole = packed.is_packed(args.files[0])
    wanted = "PACKED LMDB OUT" if whole else "NET WEIGHTS LMDB OUT"
    if len(args.files) != len(wanted.split()):
        parser.error(f"expected {wanted}")
    *model, lmdb, out = args.files
    if Path(out).suffix.lower() != ".onnx":
        parser.error(f"{out}: expected a name that ends in .onnx")
    if not Path(out).absolute().parent.is_dir():
        raise CaffeError(f"{out}: the folder {Path(out).parent} does not exist")
    load_engine()
    set_meanings(args)
    weights = None if whole else model[1]
    net = read_net(model[0], weights, dict(args.input), None, args.partial, args.trust)
    if place := not_finite(net):
        raise CaffeError(f"{weights or model[0]}: {place} holds NaN or infinity")
    found = quantize(
        net,
        lmdb,
        out,
        frames=args.frames,
        method=args.method,
        auto=args.float == "auto",
        keep=args.keep,
        data=args.data,
        outputs=args.outputs.split(",") if args.outputs else None,
        target=args.target,
        short_weights=args.short_weights,
        trusted=args.trust,
    )
    _tell(out, found)


def _tell(out: str, found: Quantised) -> None:
    """Say what was written."""
    count = found.layers - len(found.kept)
    say(
        f"{out}: written, {count} of {found.layers} layers in int8 ({found.work:.0%} of their "
        f"multiplications){', weights of 7 bits' if found.short else ''}, "
        f"{found.size / 1e6:.1f} MB"
    )
    if found.kept:
        say(f"in float32: {', '.join(found.kept)}")
    for name, value in found.noise.items():
        say(f"{name} against float32: {value} ({found.program})")


if __name__ == "__main__":
    run("python -m caffe.quantize", main)
