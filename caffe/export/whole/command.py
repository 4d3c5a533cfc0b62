"""`caffe.convert --with-preprocessing`: options, what a file says of itself, and its check."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boundary.dataset_json import FITS
from boundary.palette import palette
from boundary.streams import say
from caffe.errors import CaffeError
from caffe.export import programs
from caffe.export.whole.before import COLOR, DEPTH, UNIT
from caffe.export.whole.facts import DepthRule, read_facts, source_of
from caffe.export.whole.taken import Framing, Taken, taken
from caffe.formats.onnx import TARGETS, Target

if TYPE_CHECKING:
    import onnx

    from caffe.net import Net

PathLike = str | os.PathLike[str]
# The share of a drawn frame's pixels that may have other labels in one program than in another:
# near equals in an Unpooling's windows move values to other places.
MOST_OTHERS = 0.05


@dataclass(frozen=True)
class Frames:
    """How a file takes frames. taken: what the net takes. properties: what the file says of
    itself.
    """

    taken: Taken
    framing: Framing
    properties: Mapping[str, str]

    def around(self, model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
        """The model that takes frames, made of the net's own."""
        from caffe.export.whole.model import framed  # not above: it loads torch

        return framed(model, self.taken, self.framing, target, self.properties)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to caffe.convert's."""
    group = parser.add_argument_group("ONNX for whole frames, of nets that label RGB-D pictures")
    group.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="the file takes a camera's frame of any size, color (uint8, BGR) and depth (uint16) "
        "with its unit, and gives labels of that size; OpenCV takes such files from 5.0 on",
    )
    group.add_argument(
        "--with-probabilities", action="store_true", help="it also gives each label's probability"
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        help="frames of another aspect ratio than the net's inputs: crop takes their middle, pad "
        "sets them between borders of 0, stretch squeezes them (default: as the net was trained, "
        "if that is known, else crop)",
    )
    group.add_argument(
        "--depth-range",
        type=_rule,
        metavar="authors|valid|MIN:MAX",
        help="how metres become 0..255 (default: as the net was trained, if --dataset, the "
        "prototxt or the packed model says it, else authors)",
    )
    group.add_argument(
        "--dataset",
        metavar="LMDB|JSON",
        help="the net's training data, whose dataset.json says the depth range, class names and "
        "colours",
    )


def _rule(text: str) -> DepthRule:
    try:
        return DepthRule.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where options do not go together."""
    given = {
        "--with-probabilities": args.with_probabilities,
        "--fit": args.fit,
        "--depth-range": args.depth_range,
        "--dataset": args.dataset,
    }
    if not args.with_preprocessing:
        alone = [option for option, value in given.items() if value]
        if alone:
            parser.error(f"{alone[0]} is for --with-preprocessing")
        return
    if args.dynamic_batch or args.raw_detections or "," in (args.outputs or ""):
        parser.error(
            "--with-preprocessing gives labels of one frame: no --dynamic-batch, no "
            "--raw-detections, and --outputs names the scores alone"
        )


def frames_of(
    args: argparse.Namespace, net: Net, prototxt: PathLike, weights: PathLike | None
) -> Frames:
    """What the options and the files say of a net's frames.

    Says so if depth's range is assumed, or contradicts. Raises CaffeError for a net that labels no
    frames.
    """
    found = taken(net, args.outputs)
    facts = read_facts(prototxt, args.dataset)
    rule = args.depth_range or facts.depth
    if rule is None:
        rule = DepthRule("authors")
        if found.depth:
            say(
                "depth range: authors (each frame's minimum to maximum), as nothing says how the "
                "net was trained; --dataset or --depth-range can"
            )
    elif found.depth and facts.depth not in (None, rule, DepthRule("none")):
        say(f"warning: --depth-range is {rule}, but the net was trained with {facts.depth}")
    fit = args.fit or facts.fit or "crop"
    framing = Framing(rule, facts.floats, fit, args.with_probabilities)
    known = len(facts.palette) == found.labels
    properties: dict[str, Any] = {
        **({"classes": facts.classes} if len(facts.classes) == found.labels else {}),
        "palette": facts.palette if known else palette(found.labels),
        "source": source_of(prototxt, weights),
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in properties.items()}
    if found.depth:
        texts |= {"depth_range": str(rule), "float_depth": json.dumps(facts.floats)}
    height, width = found.size
    return Frames(found, framing, {**texts, "fit": fit, "input_size": f"{width}x{height}"})


def checked(frames: Frames, content: bytes, target: Target) -> str:
    """Run the file on a drawn frame, in the program that it is for and in onnxruntime; returns what
    to say of it, an empty text if neither is installed.

    Raises CaffeError if a program refuses the file, or too many labels differ.
    """
    ours = TARGETS["onnxruntime"]
    found = {
        program.title: _labels(frames, program, content)
        for program in dict.fromkeys((target, ours))
        if programs.is_installed(program)
    }
    for title, labels in found.items():
        if labels.dtype != np.uint8 or labels.max(initial=0) >= frames.taken.labels:
            raise CaffeError(f"{title} gives no labels of 0 to {frames.taken.labels - 1}")
    if len(found) < 2:
        return "".join(f"{title} labels a drawn frame" for title in found)
    one, other = found.values()
    share = float((one != other).mean()) if one.shape == other.shape else 1.0
    names = " and ".join(found)
    if share > MOST_OTHERS:
        raise CaffeError(f"{names} differ on the labels of {share:.2%} of a drawn frame's pixels")
    return f"{names} agree on the labels of {1 - share:.2%} of a drawn frame's pixels"


def _labels(frames: Frames, program: Target, content: bytes) -> np.ndarray:
    names, outputs = programs.signature(content)
    feeds = {name: value for name, value in _drawn(frames.taken.size).items() if name in names}
    return programs.answers(program, content, feeds, outputs)[0]


def _drawn(size: Sequence[int]) -> dict[str, np.ndarray]:
    """A frame whose aspect ratio is not the net's: slopes, blobs, and holes in depth."""
    height, width = 2 * size[0], 3 * size[1]
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = [
        np.sin(rows / rng.uniform(5, 40) + columns / rng.uniform(5, 40) + rng.uniform(0, 6))
        for _ in range(4)
    ]
    color = np.stack([127 + 120 * wave for wave in waves[:3]], axis=2).astype(np.uint8)
    depth = (2500 + 1500 * waves[3]).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.02] = 0
    return {
        COLOR: color,
        DEPTH: depth,
        UNIT: np.array(1000, np.float32),
    }
