"""Nets and weights for other programs, and weights from PyTorch.

    python -m caffe.convert deploy.prototxt weights.caffemodel net.onnx
    python -m caffe.convert --for opencv deploy.prototxt weights.caffemodel net.onnx
    python -m caffe.convert --for opencv FOLDER     all nets of a folder, or of a list
    python -m caffe.convert --with-preprocessing deploy.prototxt weights.caffemodel net.onnx

What is written follows from the ending of OUT:
  .onnx                       the net in TEST phase with its weights, as ONNX
  .pt, .pth                   the weights as a PyTorch state dict, with the keys of caffe.to_module
  .caffemodel, .caffemodel.h5 the weights as Caffe keeps them

A packed model (.fusenet) may stand in place of NET WEIGHTS.

WEIGHTS may be any of the last two kinds, and must hold every parameter of the net. A PyTorch state
dict is taken by the names of its modules.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boundary import packed, trust
from boundary.errors import one_line
from boundary.late import torch
from boundary.reading import read_bytes
from boundary.streams import say
from boundary.text import shown
from caffe.commands.script import load_engine, run
from caffe.errors import CaffeError
from caffe.export import pairs, programs
from caffe.export.whole import command as whole_frames
from caffe.export.whole.command import Frames
from caffe.formats.files import atomic_write
from caffe.formats.meaning import set_fork
from caffe.formats.onnx import TARGETS, Target
from caffe.process.alignment import set_crop_alignment
from caffe.process.log import WARNING
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb

# Other modules of the engine are imported where they are used: with them comes torch, and a command
# that shows its help or refuses its arguments should not wait for it.
if TYPE_CHECKING:
    from caffe.export.comparing import Difference
    from caffe.export.module import Shapes
    from caffe.net import Net

PathLike = str | os.PathLike[str]

ENDINGS = {
    ".onnx": "onnx",
    ".pt": "state dict",
    ".pth": "state dict",
    ".caffemodel": "caffemodel",
    ".h5": "hdf5",
}
CHECKPOINTS = {".ckpt", ".bin", ".tar", ".safetensors"}  # how others call state dicts
FAILED = "failed"
LARGEST = 2**31 - 1  # bytes; protobuf's limit for a message


def read_net(
    prototxt: PathLike | pb.NetParameter,
    weights: PathLike | None = None,
    inputs: Shapes | None = None,
    names: Mapping[str, str] | None = None,
    partial: bool = False,
    trusted: bool = False,
) -> Net:
    """A net in TEST phase with its weights, from Caffe's files, a PyTorch state dict, or a packed
    model (boundary.packed) in place of both files.

    inputs: as to_module's. names: as load_state_dict's, for state dicts. partial: accept weights
        that lack parameters of the net, which keep their fillers' values.
    trusted: whether the net's layers may run Python code and write files.
    Raises CaffeError for a net or weights that cannot be used.
    """
    from caffe.export.module import load_net
    from caffe.export.state_dict import load_state_dict, read_state_dict

    if weights is None:
        with packed.unpacked(prototxt, CaffeError) as found:
            return read_net(found.net, found.weights, inputs, names, partial, trusted)
    state = pb.NetState(phase=pb.TEST)
    if Path(weights).suffix.lower() not in CHECKPOINTS and _kind(weights) != "state dict":
        return load_net(prototxt, weights, state, inputs, trusted, complete=not partial)
    net = load_net(prototxt, None, state, inputs, trusted)
    load_state_dict(net, read_state_dict(weights), names, partial)
    return net


@dataclass(frozen=True)
class Written:
    """What is known of an ONNX file that was written.

    differences: of each output; empty if nothing was compared. program: what was compared with, and
    its version. remark: why it is not the program that the file is for. frame: what labels of a
    whole frame showed.
    """

    differences: Mapping[str, Difference]
    program: str = ""
    remark: str = ""
    frame: str = ""


def to_onnx(
    net: Net,
    path: PathLike,
    *,
    outputs: Sequence[str] | None = None,
    max_unpool: bool = True,
    dynamic_batch: bool = False,
    check: bool = True,
    target: str = "onnxruntime",
    raw_detections: bool = False,
    fold: bool = True,
) -> dict[str, float] | None:
    """Write a net with its weights as an ONNX file (opset 17, float32).

    outputs: blobs; default: the net's outputs, without inputs that no layer takes.
    max_unpool: whether Unpooling may become MaxUnpool with MaxPool's indices, which onnxruntime
        alone has; if not, both become plain arithmetic.
    dynamic_batch: the first axis of inputs and outputs may have any size.
    check: run the file in the target's program, or in onnxruntime where that is not installed, and
        compare its answers with the net's.
    target: the program that is to read the file: onnxruntime, opencv, openvino or tensorrt.
    raw_detections: in place of an output that holds boxes (DetectionOutput's, say), give out what
        they are chosen from: locations, confidences and priors.
    fold: let BatchNorm, Scale and what else scales and shifts channels become a part of the
        weights of the convolution or inner product before it.

    Returns the largest difference for each output, in shares of the output's largest value; None
    if nothing was compared. Raises CaffeError for a layer without an ONNX form, for answers that
    differ, and if the package onnx is missing; then nothing is written.
    """
    written = write_onnx(
        net,
        path,
        outputs,
        max_unpool=max_unpool,
        dynamic_batch=dynamic_batch,
        check=check,
        target=target,
        raw_detections=raw_detections,
        fold=fold,
    )
    return dict(written.differences) if written.program else None


def write_onnx(
    net: Net,
    path: PathLike,
    outputs: Sequence[str] | None = None,
    *,
    max_unpool: bool = True,
    dynamic_batch: bool = False,
    check: bool = True,
    target: str = "onnxruntime",
    raw_detections: bool = False,
    fold: bool = True,
    frames: Frames | None = None,
) -> Written:
    """to_onnx, which see; also says which program compared. frames: for a file that takes whole
    frames and gives their labels.
    """
    try:
        import onnx
    except ImportError:
        raise CaffeError(
            "writing ONNX needs the package onnx: pip install 'fusenet[onnx]'"
        ) from None
    from caffe.export.onnx import write_graph

    outputs = [frames.taken.score] if frames else list(outputs or computed_outputs(net))
    if raw_detections:
        outputs = without_detections(net, outputs)
    model = write_graph(net, outputs, max_unpool, dynamic_batch, target_of(target), fold)
    if model.ByteSize() > LARGEST:
        raise CaffeError(f"{path}: the net takes {model.ByteSize()} bytes; ONNX files hold 2 GiB")
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    written = Written({})
    if check:
        written = _checked(net, content, outputs, dynamic_batch, target_of(target))
    if frames:
        model = frames.around(model, target_of(target))
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString()
        shown = whole_frames.checked(frames, content, target_of(target)) if check else ""
        written = replace(written, frame=shown)
    with atomic_write(path) as beside:
        beside.write_bytes(content)
    return written


def computed_outputs(net: Net) -> list[str]:
    """The net's outputs, without inputs that no layer takes; where Silence takes the last blobs, so
    that there are none, those. In place of a loss or a share of right labels, which files for
    prediction cannot hold, what it is told of. Raises CaffeError if nothing is left.
    """
    wiring = net.wiring
    # A layer in Python counts as a source, but computes if it takes something.
    made = {i for layer, bottoms, tops in wiring if bottoms or not layer.source for i in tops}
    silenced = [i for _, bottoms, tops in wiring if not tops for i in bottoms if i in made]
    found = [name for name in net.outputs if name in wiring.names(sorted(made))]
    found = _predictions(net, found) or wiring.names(silenced)
    if not found:
        raise CaffeError(f"the net computes nothing: its outputs are its inputs, {net.outputs}")
    return found


def _predictions(net: Net, outputs: Sequence[str]) -> list[str]:
    """The outputs, with what losses and accuracies are made from in place of these."""
    from caffe.layers.base import Layer

    wiring, fed = net.wiring, set()
    origin: dict[str, str] = {}  # of a Split's tops
    judged: dict[str, list[str]] = {}
    for layer, bottoms, tops in wiring:
        names = [origin.get(name, name) for name in wiring.names(bottoms)]
        if layer.shares_memory and layer.copies():
            origin.update(dict.fromkeys(wiring.names(tops), names[0]))
        elif layer.source:
            fed.update(wiring.names(tops))
        elif (layer.loss or layer.measures) and type(layer).onnx is Layer.onnx:
            shown = [name for name in names if name not in fed]
            judged.update(dict.fromkeys(wiring.names(tops), shown))
    found = list(dict.fromkeys(name for top in outputs for name in judged.get(top, [top])))
    if not found:
        return list(outputs)
    if gone := [name for name in outputs if name in judged]:
        text = "Losses and accuracies are left out; given out is what they are made from"
        announce("convert.py:1", f"{text}: {', '.join(gone)}", WARNING)
    return found


def without_detections(net: Net, outputs: Sequence[str]) -> list[str]:
    """The outputs, with what boxes are chosen from in place of each that holds boxes.

    Raises CaffeError if none does.
    """
    wiring, copies = net.wiring, {}
    raw: dict[str, list[str]] = {}
    for layer, bottoms, tops in wiring:
        names = [copies.get(name, name) for name in wiring.names(bottoms)]
        if layer.raw_bottoms != 0:
            raw.update(dict.fromkeys(wiring.names(tops), names[: layer.raw_bottoms]))
        if layer.shares_memory and layer.copies():  # Split
            copies.update(dict.fromkeys(wiring.names(tops), names[0]))
    if not raw.keys() & set(outputs):
        raise CaffeError(f"--raw-detections: none of the outputs holds boxes: {list(outputs)}")
    return list(dict.fromkeys(name for top in outputs for name in raw.get(top, [top])))


def target_of(name: str) -> Target:
    """The target of this name. Raises CaffeError for an unknown one."""
    if name not in TARGETS:
        raise CaffeError(f"unknown target {name!r}; expected one of {', '.join(TARGETS)}")
    return TARGETS[name]


def compare(
    net: Net,
    model: PathLike | bytes,
    outputs: Sequence[str],
    dynamic_batch: bool = False,
    target: str = "onnxruntime",
) -> dict[str, float] | None:
    """Compare a program's answers with the net's on random inputs.

    model: an ONNX file, or the content of one. target: as to_onnx's.

    Returns the largest difference for each output, in shares of the output's largest value; None if
    neither the program nor onnxruntime is installed. Raises CaffeError if the program cannot run
    the file, if more than 1 % of an output's values differ by more than 1e-4 of its largest value,
    or if none of them is finite.
    """
    content = model if isinstance(model, bytes) else read_bytes(model, CaffeError)
    written = _checked(net, content, outputs, dynamic_batch, target_of(target))
    return dict(written.differences) if written.program else None


def _checked(
    net: Net, model: bytes, outputs: Sequence[str], dynamic_batch: bool, target: Target
) -> Written:
    """Compare in the target's program, or in onnxruntime where that is not installed."""
    from caffe.export.comparing import compared

    if programs.is_installed(target):
        found = compared(net, _run, model, outputs, dynamic_batch, target, target)
        return Written(found, programs.title(target))
    remark = f"not checked in {target.title}: {target.hint}"
    other = TARGETS["onnxruntime"]
    if target is other or not programs.is_installed(other):
        return Written({}, remark=remark)
    found = compared(net, _run, model, outputs, dynamic_batch, target, other)
    return Written(found, programs.title(other), remark)


def _difference(
    name: str, ours: np.ndarray, theirs: np.ndarray, program: str = "onnxruntime"
) -> Difference:
    """The largest difference, in shares of our largest value; CaffeError if too many differ."""
    from caffe.export.comparing import judge, measured

    found = measured(name, ours, theirs, program)
    judge(name, found, program)
    return found


def _run(
    net: Net,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    dtype: torch.dtype | None = None,
) -> dict[str, np.ndarray]:
    """The net's outputs; dtype: the number type of its arithmetic, float32 by default."""
    from caffe.export.module import to_module

    dtype = dtype or torch.float32
    module = to_module(net, outputs=outputs).to(dtype)
    with torch.no_grad():
        answer = module(**{name: torch.from_numpy(v).to(dtype) for name, v in feeds.items()})
    answers = {outputs[0]: answer} if len(outputs) == 1 else answer
    return {name: values.numpy() for name, values in answers.items()}


def save(net: Net, path: PathLike) -> None:
    """Write a net's weights in the format of the path's ending; CaffeError for an unknown one."""
    kind = _kind(path)
    if kind == "caffemodel":
        net.save(path)
    elif kind == "hdf5":
        net.save_hdf5(path)
    elif kind == "onnx":
        raise CaffeError(f"{path}: to_onnx writes ONNX; save writes weights alone")
    else:
        from caffe.export.state_dict import state_dict

        content = io.BytesIO()  # torch.save's own error for a full disk names neither disk nor file
        torch.save(state_dict(net), content)
        with atomic_write(path) as beside:
            beside.write_bytes(content.getbuffer())


def _kind(path: PathLike) -> str:
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise CaffeError(f"{path}: unknown ending; expected one of {', '.join(ENDINGS)}")
    return ENDINGS[ending]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """'data=1x3x240x320' as a name and a shape."""
    name, _, dims = text.rpartition("=")
    try:
        shape = tuple(int(dim) for dim in dims.split("x"))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=SHAPE, as in data=1x3x240x320")
    return name, shape


def add_net_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on how a net and its weights are read: see set_meanings and read_net."""
    parser.add_argument(
        "--input",
        action="append",
        type=_shape,
        default=[],
        metavar="NAME=SHAPE",
        help="make that blob an input of that shape, as in data=1x3x240x320; may be repeated",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept WEIGHTS that lack layers of the net, which keep their fillers' values, and "
        "keys of a state dict without a layer",
    )
    parser.add_argument(
        "--align-crops",
        action="store_true",
        help="Crop layers without crop_param cut by coordinates, as nets of HED, CRF-RNN and "
        "DeconvNet mean it, not at 0",
    )
    parser.add_argument(
        "--fork",
        metavar="NAME",
        help="the fork whose meaning a layer has if its name has several and its parameters leave "
        "it open: SegNet, SSD, ... (docs/forks.md)",
    )
    trust.add_option(parser)


def set_meanings(args: argparse.Namespace) -> None:
    """Let layers mean what the options of add_net_options say."""
    if args.align_crops:  # else CAFFE_ALIGN_CROPS holds
        set_crop_alignment(True)
    if args.fork:  # else CAFFE_FORK holds
        set_fork(args.fork)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.convert",
        usage="%(prog)s [options] NET WEIGHTS OUT\n"
        "       %(prog)s [options] PACKED OUT\n"
        "       %(prog)s [options] FOLDER|LIST [OUT_FOLDER]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net",
        metavar="NET",
        help="prototxt, deploy nets as a rule; or a packed model, which "
        "has its own weights; or a folder, or a list",
    )
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="weights of the net")
    parser.add_argument("out", metavar="OUT", nargs="?", help="file to write")
    add_net_options(parser)
    group = parser.add_argument_group("ONNX")
    group.add_argument(
        "--for",
        dest="target",
        choices=list(TARGETS),
        default="onnxruntime",
        help="the program that is to read the file (default: onnxruntime): it gets forms that it "
        "takes, and the file is checked in it, if it is installed",
    )
    group.add_argument(
        "--outputs", metavar="BLOB,...", help="blobs to give out (default: the net's outputs)"
    )
    group.add_argument(
        "--no-max-unpool",
        action="store_true",
        help="Unpooling as plain arithmetic, without MaxUnpool and MaxPool's indices, which only "
        "onnxruntime has; files for other programs are without them anyway",
    )
    group.add_argument(
        "--no-fold",
        action="store_true",
        help="keep BatchNorm, Scale and Bias apart from the convolution or inner product before "
        "them, whose weights do their work otherwise",
    )
    group.add_argument(
        "--raw-detections",
        action="store_true",
        help="in place of found boxes (DetectionOutput) give out what they are chosen from: "
        "locations, confidences and priors",
    )
    group.add_argument("--dynamic-batch", action="store_true", help="let the batch have any size")
    group.add_argument(
        "--no-check", action="store_true", help="do not compare with the program's answers"
    )
    whole_frames.add_options(parser)
    group = parser.add_argument_group("PyTorch state dicts as WEIGHTS")
    group.add_argument(
        "--names",
        metavar="FILE",
        help="which layer a module is: lines of a module and a layer; the module '.' is the one "
        "whose own state dict WEIGHTS is, with the keys weight and bias",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    parser = _parser()
    args = parser.parse_args(arguments)
    whole_frames.check_options(parser, args)
    set_meanings(args)
    if packed.is_packed(args.net):
        if args.weights is None or args.out is not None:
            parser.error("a packed model has its own weights; expected PACKED OUT")
        args.weights, args.out = None, args.weights
    if args.out is not None:
        written = _convert(args, args.net, args.weights, args.out)
        return _say(args.out, _verdict(written, args.no_check))
    if not os.path.isdir(args.net) and Path(args.net).suffix.lower() in pairs.NETS:
        parser.error("a net needs WEIGHTS and OUT")
    _convert_all(args, pairs.jobs(Path(args.net), args.weights and Path(args.weights)))


def _convert(
    args: argparse.Namespace, prototxt: PathLike, weights: PathLike | None, out: PathLike
) -> Written | None:
    """Convert one net; returns what is known of an ONNX file, None for files of weights."""
    kind = _kind(out)
    load_engine()
    from caffe.export.state_dict import read_names

    names = read_names(args.names) if args.names else None
    net = read_net(prototxt, weights, dict(args.input), names, args.partial, args.trust)
    if place := not_finite(net):
        say(f"{weights or prototxt}: warning: {place} holds NaN or infinity")
    if kind != "onnx":
        if args.with_preprocessing:
            raise CaffeError(f"{out}: --with-preprocessing is for ONNX files (.onnx)")
        save(net, out)
        return None
    asked = args.with_preprocessing
    frames = whole_frames.frames_of(args, net, prototxt, weights) if asked else None
    return write_onnx(
        net,
        out,
        args.outputs.split(",") if args.outputs else None,
        max_unpool=not args.no_max_unpool,
        dynamic_batch=args.dynamic_batch,
        check=not args.no_check,
        target=args.target,
        raw_detections=args.raw_detections,
        fold=not args.no_fold,
        frames=frames,
    )


def _convert_all(args: argparse.Namespace, jobs: Sequence[pairs.Job]) -> None:
    """Convert all and print a table. Raises CaffeError if any was not converted."""
    rows = [("net", "result", "largest difference", "reason"), *(_row(args, job) for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if failed := sum(row[1] == FAILED for row in rows):
        raise CaffeError(f"{failed} of {len(jobs)} nets were not converted")


def _row(args: argparse.Namespace, job: pairs.Job) -> tuple[str, str, str, str]:
    """Convert one net; returns its row of the table."""
    net, reason = shown(os.fspath(job.net)), job.problem
    try:
        if reason:
            raise CaffeError(reason)
        os.makedirs(job.out.parent, exist_ok=True)
        written = _convert(args, job.net, job.weights, job.out)
    except (CaffeError, OSError, MemoryError) as error:
        return net, FAILED, "-", one_line(str(error) or type(error).__name__)
    _say(os.fspath(job.out), _verdict(written, args.no_check))
    differences = written.differences.values() if written else ()
    largest = f"{max(differences):.1e}" if differences else "-"
    return net, "written", largest, written.remark if written else ""


def not_finite(net: Net) -> str:
    """The first parameter blob with values that are not finite; an empty text if there is none."""
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            if not torch.isfinite(blob.tensor()).all():
                return f"blob {i} of layer {name!r}"
    return ""


def _verdict(written: Written | None, unchecked: bool) -> str:
    """What the command says behind 'written'."""
    if written is None:
        return ""
    if unchecked:
        return "not compared"
    worst = ", ".join(f"{name} {value}" for name, value in written.differences.items())
    compared = (
        f"as {written.program} computes it; largest difference, in shares of the largest value: "
        f"{worst}"
    )
    parts = [compared if written.program else "", written.frame, written.remark]
    return "; ".join(filter(None, parts))


def _say(path: str, verdict: str) -> None:
    say(f"{path}: written" + (f", {verdict}" if verdict else ""))


if __name__ == "__main__":
    run("python -m caffe.convert", main)
