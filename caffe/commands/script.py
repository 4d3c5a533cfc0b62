"""Shared by commands with argparse options: exit codes, one-line errors, options for pictures.

Commands with Caffe's flags use caffe/commands/flags.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from boundary import engine, running, trust
from boundary.interrupts import loading
from caffe.errors import CaffeError
from caffe.process.log import WARNING, init_log


def run(
    program: str, main: Callable[[], int | None], quiet: bool = True, at_once: bool = False
) -> NoReturn:
    """Run a command and end the process with its exit status()."""
    sys.exit(status(program, main, quiet, at_once))


def status(
    program: str, main: Callable[[], int | None], quiet: bool = True, at_once: bool = False
) -> int:
    """Run a command; returns what main returns (None: 0), 1 for bad input, 130 if interrupted.

    These, and output that cannot be written, give one line on stderr (boundary/running.py).
    quiet: log only warnings and errors, not how nets are set up, unless GLOG_minloglevel is set.
    at_once: an interrupt ends the process, until main installs a handler of its own.
    """
    if quiet and "GLOG_minloglevel" not in os.environ:
        init_log(WARNING)
    return running.status(program, main, (CaffeError,), at_once)


def load_engine() -> None:
    """Import what runs nets, and torch with it: seconds, in which an interrupt ends the command.

    Commands call it when their arguments are known to be good, and import what they use of it then.
    """
    with loading():
        import caffe.net  # noqa: F401


def numbers(count: int | None = None) -> Callable[[str], list[int]]:
    """An argparse type: whole numbers separated by commas, `count` of them if given."""

    def parse(text: str) -> list[int]:
        try:
            values = [int(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or (count is not None and len(values) != count):
            wanted = f"{count} numbers" if count else "numbers"
            raise argparse.ArgumentTypeError(f"{text!r}: expected {wanted} separated by ','")
        return values

    return parse


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a trained net and say how it takes pictures."""
    parser.add_argument("--model_def", required=True, help="the net, a deploy prototxt")
    parser.add_argument("--pretrained_model", required=True, help="its weights")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept weights that lack layers of the net, which keep their fillers' values",
    )
    trust.add_option(parser)
    parser.add_argument("--gpu", action="store_true", help="compute on the GPU")
    engine.add_option(parser)
    parser.add_argument(
        "--mean_file",
        default="",
        help="mean to subtract: a .npy of channels x height x width, or a .binaryproto",
    )
    parser.add_argument(
        "--input_scale", type=float, help="factor for the input, after the mean is subtracted"
    )
    parser.add_argument(
        "--raw_scale",
        type=float,
        default=255.0,
        help="factor for the picture's 0..1, before the mean is subtracted (255)",
    )
    parser.add_argument(
        "--channel_swap",
        type=lambda text: numbers()(text) if text else None,
        default=[2, 1, 0],
        help="order of the channels (2,1,0: from RGB to BGR); '' leaves them",
    )


def preprocessing(args: argparse.Namespace) -> dict[str, Any]:
    """The options of add_preprocessing as arguments of Classifier and Detector; also sets the mode
    and the engine.

    Raises CaffeError for a net that is not trusted and whose layers would run code or write files,
    for an engine that is not installed, and for a mean that cannot be read.
    """
    import caffe
    from caffe.formats.files import read_net

    if not args.trust:
        trust.check(read_net(args.model_def), args.model_def, CaffeError)
    (caffe.set_mode_gpu if args.gpu else caffe.set_mode_cpu)()
    if args.engine is not None:
        caffe.set_engine(args.engine)
    mean = None
    if args.mean_file:
        mean = _read_mean(args.mean_file)
    return {
        "mean": mean,
        "input_scale": args.input_scale,
        "raw_scale": args.raw_scale,
        "channel_swap": args.channel_swap,
        "partial": args.partial,
    }


def _read_mean(path: str) -> Any:
    from boundary.arrays import read_npy
    from caffe.formats.files import read_mean

    if not path.endswith(".npy"):
        return read_mean(path)
    mean = read_npy(path, CaffeError)
    if not 1 <= mean.ndim <= 3 or mean.dtype.kind not in "fiu" or not mean.size:
        shape = "x".join(map(str, mean.shape))
        raise CaffeError(
            f"{path}: {mean.dtype} of shape {shape}; expected a mean of channels x height x width"
        )
    return mean
