"""Serves a page on this machine on which a model labels the frames that one gives it.

Drop a colour and a depth file on the page to see labels, their shares and probabilities; nothing is
written to disk, and nothing leaves this machine. With --camera, --realsense or --sequence the page
shows frames as they come. The page is at the address that is printed, for this machine alone; end
the command with Ctrl-C.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from boundary import engine, running
from boundary.errors import shown
from data_tools import framing
from data_tools.cli import DataError, add_max_pixels, say, whole
from data_tools.depth import DepthUnit
from data_tools.record import RecordFormat
from data_tools.recordings import kinds
from eval_tools import cli
from eval_tools.live import FIRST, LAST, sources
from eval_tools.live.model import Model
from eval_tools.predictor import Predictor

NAME = "python -m eval_tools.live"


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "live")
    cli.add_model(parser)
    parser.add_argument(
        "--dataset",
        metavar="LMDB|JSON",
        help="the net's training data, for the depth range, class names and colours (default: what "
        "the packed model or the prototxt says)",
    )
    parser.add_argument("--gpu", type=whole(0), metavar="ID", help="run on that GPU")
    engine.add_option(parser)
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        metavar="N",
        help=f"the page's port; 0 for any (default: the first of {FIRST} to {LAST} that is free)",
    )
    add_max_pixels(parser)
    framing.add_options(parser.add_argument_group("depth"))
    _add_frames(parser.add_argument_group("frames as they come"))
    kinds.add_options(parser.add_argument_group("recording (--sequence)"))
    return parser


def _add_frames(group: argparse._ArgumentGroup) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--camera",
        metavar="N",
        help="the camera of that number (0 is the first), or a device's path; with depth where "
        "OpenCV reads it",
    )
    one.add_argument(
        "--sequence",
        type=Path,
        metavar="SOURCE",
        help="a camera's recording, as data_tools.sequence reads it",
    )
    one.add_argument(
        "--realsense",
        action="store_true",
        help="the first RealSense camera (needs pyrealsense2: pip install 'fusenet[realsense]')",
    )


def frames(args: argparse.Namespace, depth: bool, form: RecordFormat) -> sources.Frames | None:
    """The frames that the options name; None if there are none.

    depth: whether it is looked at. form: how it is prepared.
    """
    form = replace(form, doctor=False)  # it looks at single frames
    if args.camera is not None:
        form = replace(form, unit=args.depth_unit or DepthUnit.parse("mm"))
        return sources.camera(args.camera, depth, replace(form, no_reading=form.no_reading or ()))
    if args.realsense:
        return sources.realsense(depth)
    if args.sequence is None:
        return None
    recording = kinds.open_recording(args.sequence, args, kinds.settings(args))
    if depth:
        form = replace(form, unit=args.depth_unit or recording.unit())
        form = framing.settled(form, recording.load, framing.near(recording), args.sequence)
    return sources.Recording(recording, shown(args.sequence), form)


def loaded(args: argparse.Namespace) -> Predictor:
    """The predictor. It finds no values that stand for "no reading": what the options say of them
    is done before frames come to it. Says what is wrong with the weights."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        predictor = Predictor(
            args.deploy,
            args.weights,
            dataset=args.dataset,
            gpu=args.gpu,
            engine=args.engine,
            no_reading=(),
            trust=args.trust,
        )
    for warning in told:
        if warning.category is RuntimeWarning:
            say(str(warning.message))
    return predictor


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command, until it is ended. Raises DataError."""
    parser = arguments()
    args = cli.parsed(parser, argv)
    if args.sequence is None and (useless := kinds.given(args)):
        parser.error(f"{', '.join(useless)}: expected --sequence, whose options these are")
    predictor = loaded(args)
    form = RecordFormat(rig=framing.rig(args), **framing.doctor_fields(args))
    found = frames(args, predictor.takes_depth, form)
    from eval_tools.live.server import Server  # not above: help needs no web server

    with Server(Model(predictor, form, args.depth_unit), found, args.port) as server:
        print(server.url, flush=True)
        say("the page is for this machine alone; Ctrl-C ends it")
        server.serve_forever()


if __name__ == "__main__":
    # Ctrl-C ends it at once: requests in other threads have nothing to clear up.
    running.run(NAME, main, (DataError,), at_once=True)
