"""Converts NYU Depth v2's labelled set, as it is downloaded, to one LMDB per split.

Reads nyu_depth_v2_labeled.mat (MATLAB 7.3, 1449 frames) frame by frame. The 894 raw labels become
the 40 classes of Gupta et al. (CVPR 2013) or the 13 of Couprie et al. (2013), 0 = ignored. The
splits are Gupta et al.'s; the papers train on trainval, which is train and val together.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from boundary.hdf5 import Hdf5
from boundary.late import cv2, h5py
from boundary.reading import read_table, reading
from data_tools import build, classes, cli, matfile
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import UNKNOWN, Frame, UnknownLabel

FRAMES = 1449
RAW_LABELS = 894
SPLITS = ("train", "val", "trainval", "test")
DEPTHS = {"filled": "depths", "raw": "rawDepths"}
# The area inside the white border, which projecting depth into the colour camera left: rows 45 to
# 471 and columns 41 to 601, counted from 1, as in the dataset's toolbox.
CROP = (slice(44, 471), slice(40, 601))
CROPPED_FROM = (480, 640)
# The nine most frequent scene types; all others share the tenth label.
SCENES = ("bedroom", "kitchen", "living room", "bathroom", "dining room", "office", "home office",
          "classroom", "bookstore", "others")  # fmt: skip
# Chunks of several frames are read at once and cached, up to this size.
CACHE_BYTES = 128 << 20


def split_indices(split: str) -> list[int]:
    """The frames of a split (of SPLITS), from 0, in the file's order."""
    wanted = ("train", "val") if split == "trainval" else (split,)
    rows = read_table(classes.TABLES / "nyuv2_splits.csv", ("image", "split"), DataError)
    return [int(row["image"]) - 1 for _, row in rows if row["split"] in wanted]


@lru_cache(maxsize=2)
def label_map(count: int) -> np.ndarray:
    """uint8 table: raw label 0..894 -> one of `count` (40 or 13) classes, 0 = ignored."""
    table = np.zeros(RAW_LABELS + 1, np.uint8)
    path = classes.TABLES / "nyuv2_894_to_40_and_13.csv"
    for _, row in read_table(path, ("nyu_label", f"class{count}"), DataError):
        table[int(row["nyu_label"])] = int(row[f"class{count}"])
    return table


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(3, thread_name_prefix="nyuv2")


def scene_label(scene_type: str) -> int:
    """The index in SCENES, 0..9, of a scene type as the file writes it (home_office)."""
    name = scene_type.replace("_", " ").strip().lower()
    return SCENES.index(name) if name in SCENES[:-1] else len(SCENES) - 1


class Labeled:
    """The source: nyu_depth_v2_labeled.mat.

    images N x 3 x W x H, depths and rawDepths N x W x H in metres, labels N x W x H 0..894:
    MATLAB's axes reversed.
    """

    def __init__(
        self,
        path: Path,
        class_count: int,
        depth: str,
        crop: bool,
        scenes: bool,
        ignore_unknown: bool = False,
    ):
        self._path, self._depth, self._ignore_unknown = path, DEPTHS[depth], ignore_unknown
        self._map, self._crop = label_map(class_count), crop
        with matfile.open_hdf5(path) as file, file.guard():
            parts = [matfile.variable(file, name) for name in ("images", self._depth, "labels")]
            self._check(parts)
            count = len(parts[0])
            self.block = max((part.chunks or (1,))[0] for part in parts)
            self._scenes = self._read_scenes(file, count) if scenes else [0] * count
        self.names = [f"nyu{index + 1:04d}" for index in range(count)]
        self._slices: list[matfile.Slices] | None = None

    def _check(self, parts: list[h5py.Dataset]) -> None:
        images, depths, labels = parts
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"{self._path}: images has shape {images.shape}, expected (N, 3, W, H)")
        expected = (images.shape[0], *images.shape[2:])
        for part in (depths, labels):
            if part.shape != expected:
                raise DataError(
                    f"{self._path}: {part.name[1:]} has shape {part.shape}, expected "
                    f"{expected} as images"
                )
        if self._crop and images.shape[:1:-1] != CROPPED_FROM:
            raise DataError(
                f"{self._path}: --crop is for frames of 640x480, these are "
                f"{images.shape[2]}x{images.shape[3]}"
            )

    def _read_scenes(self, file: Hdf5, count: int) -> list[int]:
        references = file.read(matfile.variable(file, "sceneTypes")).ravel()
        if len(references) != count:
            raise DataError(
                f"{self._path}: sceneTypes has {len(references)} entries, expected {count}"
            )
        return [scene_label(matfile.text(file, reference)) for reference in references]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slices": None}  # each worker opens the file for itself

    def load(self, index: int) -> Frame:
        """Frame `index` (from 0), H x W, with its class labels."""
        if self._slices is None:
            self._slices = self._open()
        with reading(self._path, "a MATLAB 7.3 file that can be read", DataError):
            planes, depth, label = self._read(index)
        beyond = cv2.transpose(label) > RAW_LABELS if label.max() > RAW_LABELS else None
        if beyond is not None and not self._ignore_unknown:
            raise UnknownLabel(f"raw label {label.max()} is unknown, expected 0 to {RAW_LABELS}")
        red, green, blue = (cv2.transpose(plane) for plane in planes)
        color, depth = cv2.merge((blue, green, red)), cv2.transpose(depth)
        label = cv2.transpose(self._map[np.minimum(label, RAW_LABELS)])
        if beyond is not None:
            label = np.where(beyond, UNKNOWN, label.astype(np.int16))
        if self._crop:
            color, depth, label = color[CROP], depth[CROP], label[CROP]
        return Frame(color, depth, label, self._scenes[index])

    def _open(self) -> list[matfile.Slices]:
        file = matfile.open_hdf5(self._path, CACHE_BYTES)
        return [matfile.Slices(file, name) for name in ("images", self._depth, "labels")]

    def _read(self, index: int) -> list[np.ndarray]:
        """The parts of a frame as stored, decompressed in parallel."""
        return list(_readers().map(lambda part: part[index], self._slices))

    def about(self, index: int) -> dict[str, Any]:
        """Nothing: the frame's number is in the key."""
        return {}


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "nyuv2")
    parser.add_argument("mat", metavar="nyu_depth_v2_labeled.mat", type=Path)
    parser.add_argument(
        "out", metavar="OUT_DIR", type=Path, help="folder that gets one LMDB per split"
    )
    parser.add_argument(
        "--classes", type=int, choices=(40, 13), default=40, help="number of classes (default: 40)"
    )
    parser.add_argument(
        "--depth",
        choices=tuple(DEPTHS),
        default="filled",
        help="in-painted depth (default, as in the authors' work) or the sensor's",
    )
    parser.add_argument(
        "--crop",
        action="store_true",
        help="crop the white border; 561x427 pixels are left",
    )
    parser.add_argument(
        "--splits",
        type=cli.some_of(SPLITS),
        metavar="S,S,...",
        help=f"splits to write (default: {','.join(SPLITS)})",
    )
    parser.add_argument(
        "--scene-labels",
        action="store_true",
        help="set each record's label to its scene: " + ", ".join(SCENES),
    )
    build.add_arguments(parser, "320x240")
    return parser


def outputs(args: argparse.Namespace, count: int) -> list[Output]:
    """An LMDB for each split with frames among the file's `count` frames."""
    if count != FRAMES:
        cli.say(f"{args.mat}: holds {count} of the data set's {FRAMES} frames")
    chosen = []
    for split in args.splits or SPLITS:
        indices = [index for index in split_indices(split) if index < count]
        if indices:
            chosen.append(Output(args.out / split, indices, {"split": split}))
        elif args.splits:
            raise DataError(f"{args.mat}: has no frame of split {split}")
    return chosen


def main() -> None:
    """`python -m data_tools.nyuv2`."""
    args = cli.parse(arguments())
    source = Labeled(
        args.mat, args.classes, args.depth, args.crop, args.scene_labels, args.unknown == "ignore"
    )
    table = classes.benchmark(f"nyuv2-{args.classes}")
    format = build.record_format(args, DepthUnit("steps", 1.0), table.highest)
    info = {
        "tool": "data_tools.nyuv2",
        "dataset": f"nyuv2-{args.classes}",
        "source": {"mat": args.mat.name, "frames": len(source.names)},
        "options": {"depth": args.depth, "crop": args.crop, "scene_labels": args.scene_labels},
        "labeled": True,
        **({"scenes": list(SCENES)} if args.scene_labels else {}),
        **table.describe(),
    }
    build.build(source, outputs(args, len(source.names)), format, info, build.options(args))


if __name__ == "__main__":
    cli.run(main)
