"""Nets and weights for other programs, and weights from PyTorch.

    python -m caffe.convert deploy.prototxt weights.caffemodel net.onnx

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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from boundary import trust
from boundary.streams import say
from caffe.commands.script import run
from caffe.errors import CaffeError
from caffe.export.module import Shapes, load_net, to_module
from caffe.export.onnx import write_graph
from caffe.export.state_dict import load_state_dict, read_names, read_state_dict, state_dict
from caffe.formats.files import atomic_write
from caffe.net import Net
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


def to_onnx(
    net: Net,
    path: PathLike,
    *,
    outputs: Sequence[str] | None = None,
    max_unpool: bool = True,
    dynamic_batch: bool = False,
    check: bool = True,
) -> dict[str, float] | None:
    """Write a net with its weights as an ONNX file (opset 17, float32).

    outputs: blobs; default: the net's outputs. max_unpool: whether Unpooling may become MaxUnpool
        with MaxPool's indices; if not, both become plain arithmetic, which TensorRT and OpenVINO
        also read. dynamic_batch: the first axis of inputs and outputs may have any size.
    check: run the file in onnxruntime, if that is installed, and compare its answers with the
        net's.

    Returns the largest difference for each output, in shares of the output's largest value; None
    if nothing was compared. Raises CaffeError for a layer without an ONNX form, for answers that
    differ, and if the package onnx is missing; then nothing is written.
    """
    try:
        import onnx
    except ImportError:
        raise CaffeError(
            "writing ONNX needs the package onnx: pip install 'fusenet[onnx]'"
        ) from None
    outputs = list(outputs or net.outputs)
    model = write_graph(net, outputs, max_unpool, dynamic_batch)
    if model.ByteSize() > LARGEST:
        raise CaffeError(f"{path}: the net takes {model.ByteSize()} bytes; ONNX files hold 2 GiB")
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    compared = compare(net, content, outputs, dynamic_batch) if check else None
    with atomic_write(path) as beside:
        beside.write_bytes(content)
    return compared


def compare(
    net: Net, model: PathLike | bytes, outputs: Sequence[str], dynamic_batch: bool = False
) -> dict[str, float] | None:
    """Compare onnxruntime's answers with the net's on random inputs.

    model: an ONNX file, or the content of one.

    Returns the largest difference for each output, in shares of the output's largest value; None if
    onnxruntime is not installed. Raises CaffeError if onnxruntime cannot run the file, or if more
    than 1 % of an output's values differ by more than 1e-4 of its largest value.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.set_default_logger_severity(3)
    try:
        model = model if isinstance(model, bytes) else os.fspath(model)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feeds, expected = _answered(
            net, [i.name for i in session.get_inputs()], outputs, dynamic_batch
        )
        answers = session.run(None, feeds)
    except CaffeError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = " ".join(str(error).split())
        raise CaffeError(f"onnxruntime does not take the file: {reason}") from error
    pairs = zip(outputs, answers, strict=True)
    return {name: _difference(name, expected[name], theirs) for name, theirs in pairs}


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in shares of our largest value; CaffeError if too many differ."""
    if ours.shape != theirs.shape:
        raise CaffeError(
            f"output {name!r}: onnxruntime gives the shape {theirs.shape}, the net {ours.shape}"
        )
    if not ours.size:
        return 0.0
    scale = np.abs(ours[np.isfinite(ours)]).max(initial=0) or 1
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        away = np.where(same, 0, np.abs(ours - theirs) / scale)
    share = 1 - (away <= TOLERANCE).mean()
    if share > UNEQUAL:
        raise CaffeError(
            f"output {name!r}: onnxruntime and the net differ on {share:.2%} of the values, "
            f"by up to {away.max():.2g} of the largest"
        )
    return float(away.max())


def _answered(
    net: Net, names: Sequence[str], outputs: Sequence[str], dynamic_batch: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random inputs, or zeros if the net refuses those (as indices, say), and the net's answers."""
    rng = np.random.default_rng(0)
    shapes = {name: net.blobs[name].shape for name in names}
    if dynamic_batch:
        shapes = {name: (shape[0] + 1, *shape[1:]) for name, shape in shapes.items()}
    feeds = {n: rng.uniform(0, 255, shape).astype(np.float32) for n, shape in shapes.items()}
    try:
        return feeds, _run(net, feeds, outputs)
    except CaffeError:
        feeds = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        return feeds, _run(net, feeds, outputs)


def _run(
    net: Net, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    module = to_module(net, outputs=outputs)
    with torch.no_grad():
        answer = module(**{name: torch.from_numpy(values) for name, values in feeds.items()})
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
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("net", metavar="NET", help="prototxt, deploy nets as a rule")
    parser.add_argument("weights", metavar="WEIGHTS", help="weights of the net")
    parser.add_argument("out", metavar="OUT", help="file to write")
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
    trust.add_option(parser)
    group = parser.add_argument_group("ONNX")
    group.add_argument(
        "--outputs", metavar="BLOB,...", help="blobs to give out (default: the net's outputs)"
    )
    group.add_argument(
        "--no-max-unpool",
        action="store_true",
        help="Unpooling as plain arithmetic, without MaxUnpool and MaxPool's indices, which "
        "TensorRT and OpenVINO lack",
    )
    group.add_argument("--dynamic-batch", action="store_true", help="let the batch have any size")
    group.add_argument(
        "--no-check", action="store_true", help="do not compare with onnxruntime's answers"
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
    args = _parser().parse_args(arguments)
    kind = _kind(args.out)
    names = read_names(args.names) if args.names else None
    net = read_net(args.net, args.weights, dict(args.input), names, args.partial, args.trust)
    if place := _not_finite(net):
        say(f"{args.weights}: warning: {place} holds NaN or infinity")
    if kind != "onnx":
        save(net, args.out)
        return _say(args.out, "")
    differences = to_onnx(
        net,
        args.out,
        outputs=args.outputs.split(",") if args.outputs else None,
        max_unpool=not args.no_max_unpool,
        dynamic_batch=args.dynamic_batch,
        check=not args.no_check,
    )
    _say(args.out, _verdict(differences, args.no_check))


def _not_finite(net: Net) -> str:
    """The first parameter blob with values that are not finite; an empty text if there is none."""
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            if not torch.isfinite(blob.tensor()).all():
                return f"blob {i} of layer {name!r}"
    return ""


def _verdict(differences: Mapping[str, float] | None, unchecked: bool) -> str:
    if differences is None:
        return "not compared" if unchecked else "not compared: onnxruntime is not installed"
    worst = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    return (
        f"as onnxruntime computes it; largest difference, in shares of the largest value: {worst}"
    )


def _say(path: str, verdict: str) -> None:
    say(f"{path}: written" + (f", {verdict}" if verdict else ""))


if __name__ == "__main__":
    run("python -m caffe.convert", main)
