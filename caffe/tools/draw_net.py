"""Draw a net with Graphviz; pycaffe's draw_net.py.

    python -m caffe.tools.draw_net train.prototxt net.png

`python -m netgen draw` draws nets without Graphviz.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boundary.streams import say
from caffe import draw
from caffe.commands.script import run
from caffe.formats import files
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.tools.draw_net",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input_net_proto_file", help="the net, a prototxt")
    parser.add_argument("output_image_file", help="the picture: .png, .svg, .pdf, .raw, ...")
    parser.add_argument(
        "--rankdir",
        default="LR",
        choices=("LR", "RL", "TB", "BT"),
        help="direction: from left to right (LR, the default), from top to bottom (TB), ...",
    )
    parser.add_argument(
        "--phase",
        default="ALL",
        choices=("TRAIN", "TEST", "ALL"),
        help="draw the layers of this phase; ALL draws all of them (the default)",
    )
    parser.add_argument(
        "--display_lrm",
        action="store_true",
        help="show the learning rates' multipliers of layers that learn",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    args = _parser().parse_args(arguments)
    net = files.read_net(args.input_net_proto_file, emit)
    phase = None if args.phase == "ALL" else pb.Phase.Value(args.phase)
    draw.draw_net_to_file(net, args.output_image_file, args.rankdir, phase, args.display_lrm)
    say(f"The drawing is in {args.output_image_file}")


if __name__ == "__main__":
    run("python -m caffe.tools.draw_net", main)
