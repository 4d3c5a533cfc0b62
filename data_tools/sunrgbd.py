"""Converts SUN RGB-D (Song et al., CVPR 2015), as it is downloaded, to the LMDBs train and test.

Reads the tree of SUNRGBD.zip and the metadata of SUNRGBDtoolbox: names, paths and cameras from
Metadata/SUNRGBDMeta.mat, the split from traintestSUNRGBD/allsplit.mat, labels (37 classes, 0 =
ignored) from Metadata/SUNRGBD2Dseg.mat. As in FuseNet's paper, the training split leaves out the
RealSense frames, which are too noisy; the test split keeps all frames.
"""

from __future__ import annotations

import argparse
import posixpath
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from boundary.hdf5 import Hdf5
from boundary.names import component
from boundary.reading import reading
from data_tools import build, classes, cli, images, matfile
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import Frame

FRAMES = 10335
DEPTHS = {"filled": "depth_bfx", "raw": "depth"}
NOISY = "realsense"
CAMERAS = ("kv1", "kv2", "realsense", "xtion")
FIELDS = ("rgbpath", "rgbname", "depthname")


def inside(path: str) -> str:
    """The part of a toolbox path below SUNRGBD/, without doubled slashes."""
    path = posixpath.normpath(path.replace("//", "/"))
    return path.rpartition("SUNRGBD/")[2]


class SunRgbd:
    """The source: the dataset's frames in their official order."""

    block = 1

    def __init__(self, root: Path, toolbox: Path, depth: str):
        if not any((root / camera).is_dir() for camera in CAMERAS) and (root / "SUNRGBD").is_dir():
            root = root / "SUNRGBD"
        self._root, self._depth = root, DEPTHS[depth]
        self._labels = toolbox / "Metadata" / "SUNRGBD2Dseg.mat"
        meta = matfile.read(toolbox / "Metadata" / "SUNRGBDMeta.mat", "SUNRGBDMeta", FIELDS)
        if not isinstance(meta, list) or not all(_is_frame(row) for row in meta):
            raise DataError(
                f"{toolbox}/Metadata/SUNRGBDMeta.mat: SUNRGBDMeta is not a list of "
                f"frames with {', '.join(FIELDS)}"
            )
        with reading(toolbox / "Metadata" / "SUNRGBDMeta.mat", "SUN RGB-D's metadata", DataError):
            self.names = [
                inside(posixpath.dirname(posixpath.dirname(row["rgbpath"]))) for row in meta
            ]
            self._pictures = [(row["rgbname"], row["depthname"]) for row in meta]
            for name, pictures in zip(self.names, self._pictures, strict=True):
                for part in (*name.split("/"), *pictures):
                    if component(part) != part:
                        raise DataError(
                            f"{toolbox}/Metadata/SUNRGBDMeta.mat: {shown(part)!r} is not the name "
                            "of a file or folder in SUNRGBD"
                        )
        self._check_labels()
        self._file: Hdf5 | None = None
        self._references: np.ndarray | None = None

    def _check_labels(self) -> None:
        with matfile.open_hdf5(self._labels) as file:
            count = matfile.variable(file, "SUNRGBD2Dseg/seglabel").size
        if count != len(self.names):
            raise DataError(
                f"{self._labels}: seglabel has {count} entries, SUNRGBDMeta.mat {len(self.names)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Each worker opens the file for itself.
        return {**self.__dict__, "_file": None, "_references": None}

    def load(self, index: int) -> Frame:
        """Frame `index` (from 0)."""
        folder = self._root / self.names[index]
        color, depth = self._pictures[index]
        files = {"color": folder / "image" / color, "depth": folder / self._depth / depth}
        return Frame(
            images.read_color(files["color"]),
            images.read_depth(files["depth"]),
            self._label(index),
            files={part: str(file) for part, file in files.items()},
        )

    def _label(self, index: int) -> np.ndarray:
        if self._file is None or self._references is None:
            self._file = matfile.open_hdf5(self._labels)
            seglabel = matfile.variable(self._file, "SUNRGBD2Dseg/seglabel")
            self._references = self._file.read(seglabel).ravel()
        label = matfile.single(self._file, self._references[index])
        whole = label.astype(np.int64)
        if (whole != label).any():
            raise DataError(f"{self._labels}: seglabel has values that are no whole numbers")
        return whole

    def about(self, index: int) -> dict[str, Any]:
        """The frame's camera: kv1, kv2, realsense or xtion."""
        return {"camera": self.camera(index)}

    def camera(self, index: int) -> str:
        """The camera of frame `index`, which is the first folder of its path."""
        return self.names[index].partition("/")[0]


def _is_frame(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in FIELDS)


def splits(toolbox: Path, names: list[str]) -> tuple[list[int], list[int]]:
    """(training, test) indices of the frames according to allsplit.mat, in the official order.

    Raises DataError for a frame that is in neither or in both.
    """
    path = toolbox / "traintestSUNRGBD" / "allsplit.mat"
    with reading(path, "lists of the frames' paths", DataError):
        train, test = (
            {inside(name) for name in matfile.read(path, variable)}
            for variable in ("alltrain", "alltest")
        )
    for name in names:
        if (name in train) == (name in test):
            both = "both alltrain and alltest" if name in train else "neither alltrain nor alltest"
            raise DataError(f"{path}: {name} is in {both}")
    return (
        [i for i, name in enumerate(names) if name in train],
        [i for i, name in enumerate(names) if name in test],
    )


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "sunrgbd")
    parser.add_argument("root", metavar="SUNRGBD_DIR", type=Path)
    parser.add_argument("toolbox", metavar="SUNRGBDtoolbox_DIR", type=Path)
    parser.add_argument(
        "out", metavar="OUT_DIR", type=Path, help="folder that gets train/ and test/"
    )
    parser.add_argument(
        "--depth",
        choices=tuple(DEPTHS),
        default="filled",
        help="in-painted depth (default, as in the authors' work) or the sensor's",
    )
    parser.add_argument(
        "--all-training",
        action="store_true",
        help="include the RealSense frames in training (5285 frames instead of 4698)",
    )
    build.add_arguments(parser, "224x224")
    return parser


def outputs(args: argparse.Namespace, source: SunRgbd) -> list[Output]:
    """The two LMDBs."""
    if len(source.names) != FRAMES:
        cli.say(f"{args.toolbox}: lists {len(source.names)} of the data set's {FRAMES} frames")
    train, test = splits(args.toolbox, source.names)
    if not args.all_training:
        train = [index for index in train if source.camera(index) != NOISY]
    return [
        Output(args.out / "train", train, {"split": "train"}),
        Output(args.out / "test", test, {"split": "test"}),
    ]


def main() -> None:
    """`python -m data_tools.sunrgbd`."""
    args = cli.parse(arguments())
    source = SunRgbd(args.root, args.toolbox, args.depth)
    table = classes.benchmark("sunrgbd-37")
    format = build.record_format(args, DepthUnit("sunrgbd"), table.highest)
    info = {
        "tool": "data_tools.sunrgbd",
        "dataset": "sunrgbd-37",
        "source": {"frames": len(source.names)},
        "options": {"depth": args.depth, "all_training": args.all_training},
        "labeled": True,
        **table.describe(),
    }
    build.build(source, outputs(args, source), format, info, build.options(args))


if __name__ == "__main__":
    cli.run(main)
