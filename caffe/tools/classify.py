"""Classify pictures with a trained net; pycaffe's classify.py.

    python -m caffe.tools.classify cat.jpg scores.npy --model_def deploy.prototxt \\
        --pretrained_model net.caffemodel --mean_file mean.binaryproto

OUTPUT gets the class probabilities, one row a picture, in the order of the files' names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boundary import engine
from boundary.arrays import read_npy
from boundary.streams import say
from caffe import io
from caffe.commands.script import add_preprocessing, load_engine, numbers, preprocessing, run
from caffe.errors import CaffeError
from caffe.formats.files import atomic_write


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.tools.classify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input_file",
        help="a picture, a folder of them, or a .npy of N x height x width x channels",
    )
    parser.add_argument("output_file", help="the .npy to write")
    add_preprocessing(parser)
    parser.add_argument(
        "--center_only",
        action="store_true",
        help="predict from the centre alone, instead of averaging over ten crops",
    )
    parser.add_argument(
        "--images_dim",
        type=numbers(2),
        default=[256, 256],
        metavar="HEIGHT,WIDTH",
        help="size to which pictures are brought before they are cropped (256,256)",
    )
    parser.add_argument("--ext", default="jpg", help="ending of the pictures in a folder (jpg)")
    return parser


def read_pictures(path: str, ext: str) -> Sequence[np.ndarray]:
    """The pictures that the input names. Raises CaffeError if there are none."""
    place = Path(path).expanduser()
    if place.suffix == ".npy":
        pictures = read_npy(place, CaffeError)
        if pictures.ndim != 4 or pictures.dtype.kind not in "fiu":
            raise CaffeError(
                f"{path}: {pictures.dtype} of shape {pictures.shape}; expected numbers, N x height "
                "x width x channels"
            )
        return pictures
    if not place.is_dir():
        return [io.load_image(place)]
    files = sorted(place.glob(f"*.{ext}"))
    if not files:
        raise CaffeError(f"{path}: no pictures with the ending .{ext}; choose another with --ext")
    return [io.load_image(file) for file in files]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    args = _parser().parse_args(arguments)
    engine.check(args.engine, CaffeError)
    pictures = read_pictures(args.input_file, args.ext)
    load_engine()
    from caffe.classifier import Classifier

    classifier = Classifier(
        args.model_def,
        args.pretrained_model,
        image_dims=args.images_dim,
        **preprocessing(args),
    )
    say(f"Classifying {len(pictures)} inputs.")
    classifier.observed = args.engine is None  # engines compute what nobody observes
    start = time.monotonic()
    predictions = classifier.predict(pictures, not args.center_only)
    say(f"Done in {time.monotonic() - start:.2f} s.")
    with atomic_write(args.output_file) as beside, beside.open("wb") as file:
        np.save(file, predictions)
    say(f"Results are in {args.output_file}")


if __name__ == "__main__":
    run("python -m caffe.tools.classify", main)
