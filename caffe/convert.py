"""Nets and weights for other programs, and weights from PyTorch.

    python -m caffe.convert deploy.prototxt weights.caffemodel net.onnx
    python -m caffe.convert --for opencv deploy.prototxt weights.caffemodel net.onnx
    python -m caffe.convert --for opencv FOLDER     all nets of a folder, or of a list

What is written follows from the ending of OUT:
  .onnx                       the net in TEST phase with its weights, as ONNX
  .pt, .pth                   the weights as a PyTorch state dict, with the keys of caffe.to_module
  .caffemodel, .caffemodel.h5 the weights as Caffe keeps them

WEIGHTS may be any of the last two kinds, and must hold every parameter of the net. A PyTorch state
dict is taken by the names of its modules.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boundary import trust
from boundary.errors import one_line
from boundary.reading import read_bytes
from boundary.streams import say
from boundary.text import shown
from caffe.commands.script import run
from caffe.errors import CaffeError
from caffe.export import pairs, probes, programs
from caffe.export.module import Shapes, load_net, to_module
from caffe.export.onnx import write_graph
from caffe.export.state_dict import load_state_dict, read_names, read_state_dict, state_dict
from caffe.formats.files import atomic_write
from caffe.formats.onnx import TARGETS, Target
from caffe.net import Net
from caffe.process.alignment import set_crop_alignment
from caffe.proto import caffe_pb2 as pb

PathLike = str | os.PathLike[str]

ENDINGS = {
    ".onnx": "onnx",
    ".pt": "state dict",
    ".pth": "state dict",
    ".caffemodel": "caffemodel",
    ".h5": "hdf5",
}
CHECKPOINTS = {".ckpt", ".bin", ".tar", ".safetensors"}  # how others call state dicts
TOLERANCE = 1e-4  # largest difference, in shares of the output's largest value
UNEQUAL = 1e-2  # share of values that may exceed it: masks may differ where values are nearly equal
FAILED = "failed"
LARGEST = 2**31 - 1  # bytes; protobuf's limit for a message


def read_net(
    prototxt: PathLike | pb.NetParameter,
    weights: PathLike,
    inputs: Shapes | None = None,
    names: Mapping[str, str] | None = None,
    partial: bool = False,
    trusted: bool = False,
) -> Net:
    """A net in TEST phase with its weights, from Caffe's files or a PyTorch state dict.

    inputs: as to_module's. names: as load_state_dict's, for state dicts. partial: accept weights
        that lack parameters of the net, which keep their fillers' values.
    trusted: whether the net's layers may run Python code and write files.
    Raises CaffeError for a net or weights that cannot be used.
    """
    state = pb.NetState(phase=pb.TEST)
    if Path(weights).suffix.lower() not in CHECKPOINTS and _kind(weights) != "state dict":
        return load_net(prototxt, weights, state, inputs, trusted, complete=not partial)
    net = load_net(prototxt, None, state, inputs, trusted)
    load_state_dict(net, read_state_dict(weights), names, partial)
    return net


class Difference(float):
    """The largest difference of an output, in shares of its largest value.

    values: how many the output has. beyond: how many of them differ by more than TOLERANCE. nan:
    how many are NaN on both sides.
    """

    values = beyond = nan = 0

    def __str__(self) -> str:
        several = f"{self.beyond} of {self.values} values by more than {TOLERANCE:g}"
        return f"{float(self):.1e} ({several}{f', {self.nan} NaN in both' if self.nan else ''})"


@dataclass(frozen=True)
class Written:
    """What is known of an ONNX file that was written.

    differences: of each output; empty if nothing was compared. program: what was compared with, and
    its version. remark: why it is not the program that the file is for.
    """

    differences: Mapping[str, Difference]
    program: str = ""
    remark: str = ""


def to_onnx(
    net: Net,
    path: PathLike,
    *,
    outputs: Sequence[str] | None = None,
    max_unpool: bool = True,
    dynamic_batch: bool = False,
    check: bool = True,
    target: str = "onnxruntime",
) -> dict[str, float] | None:
    """Write a net with its weights as an ONNX file (opset 17, float32).

    outputs: blobs; default: the net's outputs, without inputs that no layer takes.
    max_unpool: whether Unpooling may become MaxUnpool with MaxPool's indices, which onnxruntime
        alone has; if not, both become plain arithmetic.
    dynamic_batch: the first axis of inputs and outputs may have any size.
    check: run the file in the target's program, or in onnxruntime where that is not installed, and
        compare its answers with the net's.
    target: the program that is to read the file: onnxruntime, opencv, openvino or tensorrt.

    Returns the largest difference for each output, in shares of the output's largest value; None
    if nothing was compared. Raises CaffeError for a layer without an ONNX form, for answers that
    differ, and if the package onnx is missing; then nothing is written.
    """
    forms = {"max_unpool": max_unpool, "dynamic_batch": dynamic_batch}
    written = write_onnx(net, path, outputs, **forms, check=check, target=target)
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
) -> Written:
    """to_onnx, which see; also says which program compared."""
    try:
        import onnx
    except ImportError:
        raise CaffeError(
            "writing ONNX needs the package onnx: pip install 'fusenet[onnx]'"
        ) from None
    outputs = list(outputs or computed_outputs(net))
    model = write_graph(net, outputs, max_unpool, dynamic_batch, target_of(target))
    if model.ByteSize() > LARGEST:
        raise CaffeError(f"{path}: the net takes {model.ByteSize()} bytes; ONNX files hold 2 GiB")
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    written = Written({})
    if check:
        written = _checked(net, content, outputs, dynamic_batch, target_of(target))
    with atomic_write(path) as beside:
        beside.write_bytes(content)
    return written


def computed_outputs(net: Net) -> list[str]:
    """The net's outputs, without inputs that no layer takes. Raises CaffeError if none is left."""
    given = {i for layer, _, tops in net.wiring if layer.source for i in tops}
    overwritten = {i for layer, _, tops in net.wiring if not layer.source for i in tops}
    sources = net.wiring.names(sorted(given - overwritten))
    found = [name for name in net.outputs if name not in sources]
    if not found:
        raise CaffeError(f"the net computes nothing: its outputs are its inputs, {net.outputs}")
    return found


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
    if programs.is_installed(target):
        return Written(
            _compared(net, model, outputs, dynamic_batch, target), programs.title(target)
        )
    remark = f"not checked in {target.title}: {target.hint}"
    other = TARGETS["onnxruntime"]
    if target is other or not programs.is_installed(other):
        return Written({}, remark=remark)
    found = _compared(net, model, outputs, dynamic_batch, other)
    return Written(found, programs.title(other), remark)


def _compared(
    net: Net, model: bytes, outputs: Sequence[str], dynamic_batch: bool, program: Target
) -> dict[str, Difference]:
    """The difference of each output, on inputs for which rounding decides nothing, if there are.

    Where a net chooses (the largest of a window, a box), sums in another order may choose another
    of near equals. So where values differ, inputs count on which the net agrees with itself in
    double precision; without any, those on which the fewest values differ.
    """
    names, given = programs.signature(model)
    best: dict[str, Difference] = {}
    for feeds, expected in _answered(net, outputs, dynamic_batch):
        theirs = programs.answers(program, model, {n: feeds[n] for n in names}, given)
        found = {
            name: _measured(name, expected[name], values, program.title)
            for name, values in zip(outputs, theirs, strict=True)
        }
        if not best or _beyond(found) < _beyond(best):
            best = found
        if not _beyond(found) or _is_calm(net, feeds, outputs, expected):
            best = found
            break
    for name, difference in best.items():
        _judge(name, difference, program.title)
    return best


def _beyond(found: Mapping[str, Difference]) -> int:
    return sum(difference.beyond for difference in found.values())


def _is_calm(
    net: Net, feeds: probes.Feeds, outputs: Sequence[str], expected: Mapping[str, np.ndarray]
) -> bool:
    """Whether the net's answers in double precision are those in single precision."""
    try:
        exact = _run(net, feeds, outputs, torch.float64)
    except (CaffeError, RuntimeError):  # a layer has single precision only
        return True
    return all(
        exact[name].shape == values.shape
        and not _measured(name, exact[name].astype(np.float32), values, "").beyond
        for name, values in expected.items()
    )


def _difference(
    name: str, ours: np.ndarray, theirs: np.ndarray, program: str = "onnxruntime"
) -> Difference:
    """The largest difference, in shares of our largest value; CaffeError if too many differ."""
    found = _measured(name, ours, theirs, program)
    _judge(name, found, program)
    return found


def _measured(name: str, ours: np.ndarray, theirs: np.ndarray, program: str) -> Difference:
    """How far the answers are apart. Raises CaffeError for another shape."""
    if ours.shape != theirs.shape:
        raise CaffeError(
            f"output {name!r}: {program} gives the shape {theirs.shape}, the net {ours.shape}"
        )
    scale = np.abs(ours[np.isfinite(ours)]).max(initial=0) or 1
    nan = np.isnan(ours) & np.isnan(theirs)
    with np.errstate(invalid="ignore"):
        away = np.where((ours == theirs) | nan, 0, np.abs(ours - theirs) / scale)
    found = Difference(away.max(initial=0))
    found.values, found.nan = ours.size, int(nan.sum())
    found.beyond = ours.size - int((away <= TOLERANCE).sum())
    return found


def _judge(name: str, found: Difference, program: str) -> None:
    """Raise CaffeError if too many values differ."""
    if found.beyond > UNEQUAL * found.values:
        raise CaffeError(
            f"output {name!r}: {program} and the net differ on "
            f"{found.beyond / found.values:.2%} of the values ({found.beyond} of {found.values}), "
            f"by up to {float(found):.2g} of the largest"
        )


def _answered(
    net: Net, outputs: Sequence[str], dynamic_batch: bool
) -> Iterator[tuple[probes.Feeds, dict[str, np.ndarray]]]:
    """Inputs with the net's answers, of which each has finite values.

    Raises CaffeError if the net refuses all inputs, or always answers with NaN or infinity.
    """
    names, problem, found = probes.inputs_of(net, outputs), None, False
    for feeds in probes.draws(net, names, int(dynamic_batch)):
        try:
            expected = _run(net, feeds, outputs)
        except CaffeError as error:
            problem = problem or error
            continue
        if void := [n for n, v in expected.items() if v.size and not np.isfinite(v).any()]:
            problem = problem or CaffeError(
                f"output {void[0]!r}: the net gives NaN or infinity throughout; there is nothing "
                "to compare: look at the weights, or leave out the check"
            )
            continue
        found = True
        yield feeds, expected
    if not found and problem:
        raise problem


def _run(
    net: Net,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    dtype: torch.dtype = torch.float32,
) -> dict[str, np.ndarray]:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.convert",
        usage="%(prog)s [options] NET WEIGHTS OUT\n"
        "       %(prog)s [options] FOLDER|LIST [OUT_FOLDER]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net", metavar="NET", help="prototxt, deploy nets as a rule; or a folder, or a list"
    )
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="weights of the net")
    parser.add_argument("out", metavar="OUT", nargs="?", help="file to write")
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
    trust.add_option(parser)
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
    group.add_argument("--dynamic-batch", action="store_true", help="let the batch have any size")
    group.add_argument(
        "--no-check", action="store_true", help="do not compare with the program's answers"
    )
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
    if args.align_crops:  # else CAFFE_ALIGN_CROPS holds
        set_crop_alignment(True)
    if args.out is not None:
        written = _convert(args, args.net, args.weights, args.out)
        return _say(args.out, _verdict(written, args.no_check))
    if not os.path.isdir(args.net) and Path(args.net).suffix.lower() in pairs.NETS:
        parser.error("a net needs WEIGHTS and OUT")
    _convert_all(args, pairs.jobs(Path(args.net), args.weights and Path(args.weights)))


def _convert(
    args: argparse.Namespace, prototxt: PathLike, weights: PathLike, out: PathLike
) -> Written | None:
    """Convert one net; returns what is known of an ONNX file, None for files of weights."""
    kind = _kind(out)
    names = read_names(args.names) if args.names else None
    net = read_net(prototxt, weights, dict(args.input), names, args.partial, args.trust)
    if place := _not_finite(net):
        say(f"{weights}: warning: {place} holds NaN or infinity")
    if kind != "onnx":
        save(net, out)
        return None
    return write_onnx(
        net,
        out,
        args.outputs.split(",") if args.outputs else None,
        max_unpool=not args.no_max_unpool,
        dynamic_batch=args.dynamic_batch,
        check=not args.no_check,
        target=args.target,
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


def _not_finite(net: Net) -> str:
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
    return "; ".join(filter(None, [compared if written.program else "", written.remark]))


def _say(path: str, verdict: str) -> None:
    say(f"{path}: written" + (f", {verdict}" if verdict else ""))


if __name__ == "__main__":
    run("python -m caffe.convert", main)
